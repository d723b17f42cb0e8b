package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// Who runs and sends.
const (
	guardUID = 61236 // the guard is not root, as the packages have it
	localUID = 65534
	secret   = "secret"
)

var logins = []string{"taro@example.jp", "hanako@example.jp", "jiro@example.jp"}

// site is a relay that is about to suffer.
type site struct {
	*relay.Relay
	t       testing.TB
	control http.Client
	logs    []string // of guards that were killed
}

// startSite starts a relay. Its logs are shown if the test fails.
func startSite(t testing.TB, o relay.Options) *site {
	t.Helper()
	o.Binary, o.UID = guardBinary, guardUID
	if o.Postfix.Users == nil {
		o.Postfix.Users = map[string]string{}
		for _, login := range logins {
			o.Postfix.Users[login] = secret
		}
	}
	s := &site{Relay: relay.StartTest(t, o), t: t}
	if err := os.Chmod(s.LogPath(), 0o644); err != nil { // as packages let the guard's account read it
		t.Fatal(err)
	}
	socket := filepath.Join(s.StateDir(), "control.sock")
	s.control = http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	return s
}

// ask asks the daemon as a command would. in is nil for GET.
func (s *site) ask(ctx context.Context, path string, query url.Values, in, out any) error {
	method, body := http.MethodGet, io.Reader(nil)
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		method, body = http.MethodPost, bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://relayguard"+path+"?"+query.Encode(), body)
	if err != nil {
		return err
	}
	answer, err := s.control.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, answer.Status, text)
	}
	return json.Unmarshal(text, out)
}

// held is a held message, decision a decision, as the daemon tells them.
type (
	held struct {
		QueueID string    `json:"queue_id"`
		ID      string    `json:"id"`
		Account string    `json:"account"`
		Rule    string    `json:"rule"`
		Reason  string    `json:"reason"`
		State   string    `json:"state"`
		HeldBy  string    `json:"held_by"`
		HeldAt  time.Time `json:"held_at"`
	}
	decision struct {
		ID        string `json:"id"`
		Verdict   string `json:"verdict"`
		Stage     string `json:"stage"`
		Rule      string `json:"rule"`
		Reason    string `json:"reason"`
		Reply     string `json:"reply"`
		QueueID   string `json:"queue_id"`
		MessageID string `json:"message_id"`
		Repeats   int64  `json:"repeats"`
	}
	explanation struct {
		Decision *decision `json:"decision"`
		Held     []held    `json:"held"`
	}
	health struct {
		Incidents []struct {
			ID, Origin, Cause string
			Stops             int64
		}
		Suspended []struct {
			Value string `json:"value"`
		}
		Denied  int
		Journal struct {
			OK      bool   `json:"ok"`
			Text    string `json:"text"`
			Backlog int    `json:"backlog"`
			Lost    int64  `json:"lost"`
		}
		Store struct {
			Kind string `json:"kind"`
			OK   bool   `json:"ok"`
			Text string `json:"text"`
		}
		Queue string `json:"queue_error"`
	}
)

// list lists what is held, that of others, too; stale is why that may be out of
// date.
func (s *site) list(ctx context.Context) (all []held, stale string, err error) {
	var l struct {
		Held  []held `json:"held"`
		Stale string `json:"stale"`
	}
	err = s.ask(ctx, "/v1/held/list", nil, map[string]any{}, &l)
	return l.Held, l.Stale, err
}

// listNow is list for a guard that is well.
func (s *site) listNow(ctx context.Context) ([]held, error) {
	all, stale, err := s.list(ctx)
	if err == nil && stale != "" {
		err = errors.New(stale)
	}
	return all, err
}

func (s *site) explain(ctx context.Context, id string) (all []explanation, err error) {
	return all, s.ask(ctx, "/v1/explain/"+url.PathEscape(id), nil, nil, &all)
}

func (s *site) decisions(ctx context.Context, query url.Values) (all []decision, err error) {
	return all, s.ask(ctx, "/v1/decisions", query, nil, &all)
}

func (s *site) status(ctx context.Context) (h health, err error) {
	return h, s.ask(ctx, "/v1/status", nil, nil, &h)
}

// inHold is the hold queue by id.
func (s *site) inHold(ctx context.Context) map[string]postfixtest.Queued {
	s.t.Helper()
	queue, err := s.QueueList(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[string]postfixtest.Queued{}
	for _, q := range queue {
		if q.QueueName == "hold" {
			all[q.QueueID] = q
		}
	}
	return all
}

// killGuard kills the daemon and keeps its log apart.
func (s *site) killGuard() {
	s.t.Helper()
	if err := s.StopGuard(syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	s.setLogAside()
}

func (s *site) setLogAside() {
	s.t.Helper()
	if bad := s.Broken(); len(bad) > 0 {
		s.t.Errorf("the guard's log has:\n%s", strings.Join(bad, "\n"))
	}
	aside := fmt.Sprintf("%s.%d", s.GuardLog(), len(s.logs))
	if err := os.Rename(s.GuardLog(), aside); err != nil {
		s.t.Fatal(err)
	}
	s.logs = append(s.logs, aside)
}

// startGuard starts the daemon. While a command without a daemon has the
// journal, it tries again, as systemd does.
func (s *site) startGuard(ctx context.Context) {
	s.t.Helper()
	for {
		err := s.StartGuard(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil || !strings.Contains(err.Error(), "the journal is in use by another process") {
			s.t.Fatalf("the guard does not start: %v", err)
		}
		s.setLogAside()
	}
}

// allLogs are the lines of all logs that have one of the words, for a failure's
// report.
func (s *site) allLogs(words ...string) string {
	var b strings.Builder
	for _, path := range append(append([]string{s.LogPath()}, s.logs...), s.GuardLog(), s.HelperLog()) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			for _, word := range words {
				if word != "" && strings.Contains(line, word) {
					fmt.Fprintf(&b, "%s: %s", filepath.Base(path), line)
					break
				}
			}
		}
	}
	return b.String()
}

// poll waits until check is content, which says what is missing.
func poll(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-tick.C:
		}
	}
}

// letter is a message with a Message-ID by which it is found again.
func letter(token, from, to string) string {
	return fmt.Sprintf("From: <%s>\nTo: <%s>\nSubject: fault test\nMessage-ID: %s\nX-Token: %s;\n\n%s\n", from, to, messageID(token), token, strings.Repeat("x", 200))
}

func messageID(token string) string { return "<" + token + "@client.example.org>" }

// session opens an authenticated session.
func (s *site) session(ctx context.Context, login string) (*smtptest.Client, error) {
	c, err := s.Dial(ctx, relay.Submission)
	if err != nil {
		return nil, err
	}
	c.Timeout = 30 * time.Second
	reply, err := c.Ehlo("client.example.org")
	if err == nil && reply.Positive() {
		reply, err = c.Auth(login, secret)
	}
	if err == nil && !reply.Positive() {
		err = fmt.Errorf("session of %s: %v", login, reply)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// send sends one message in a session of its own, which must work.
func (s *site) send(login, from, token string) smtptest.Transaction {
	s.t.Helper()
	c, err := s.session(s.t.Context(), login)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	to := token + "@example.net"
	sent, err := c.Send(from, []string{to}, letter(token, from, to))
	if err != nil {
		s.t.Fatalf("send %s: %v", token, err)
	}
	return sent
}

// hold sends a message whose envelope its login does not own, and returns its
// queue id.
func (s *site) hold(token string) string {
	s.t.Helper()
	sent := s.send("taro@example.jp", "somebody@example.org", token)
	if !sent.Accepted() {
		s.t.Fatalf("%s: want 250, got %v; logs:\n%s", token, sent.Refusal(), s.allLogs(token))
	}
	id := queuedAs(sent.Data)
	if id == "" {
		s.t.Fatalf("%s: no queue id in %v", token, sent.Data)
	}
	return id
}

// queuedAs is the queue id of a 250.
func queuedAs(r smtptest.Reply) string {
	_, id, _ := strings.Cut(r.Text(), "queued as ")
	return strings.TrimSpace(id)
}

// mount puts a file system of that size over dir, until the end of the test.
func mount(t testing.TB, dir, options string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
			t.Fatalf("mounting required: tmpfs on %s: %v", dir, err)
		}
		t.Skipf("needs to mount a tmpfs on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// patience is how long what should take moments may take, on a busy machine too.
const patience = time.Minute

// soon is a context for that.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
