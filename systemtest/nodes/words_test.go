package nodes_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"relayguard/mta/smtptest"
	"relayguard/policy/origin/stamp"
	"relayguard/systemtest/relay"
)

// The words in which these tests send, give orders and read answers.

// soon bounds a wait for what should happen at once, on a slow machine too.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := soon(t)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// command runs relayguard as an admin of this machine would.
func (m *machine) command(args ...string) (code int, stdout, stderr string) {
	m.t.Helper()
	cmd := exec.CommandContext(soon(m.t), guardBinary, append(args, "--config", m.ConfigPath)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each command takes a second more
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// order runs a command that must end with status 0.
func (m *machine) order(args ...string) (stdout string) {
	m.t.Helper()
	code, stdout, stderr := m.command(args...)
	if code != 0 {
		m.t.Fatalf("relayguard %s: status %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// webNodes is what status says of web nodes.
type webNodes struct {
	Name    string  `json:"name"`
	Sites   int     `json:"sites"`
	Orders  int     `json:"orders"`
	From    string  `json:"orders_from"`
	Problem string  `json:"orders_problem"`
	Nodes   []heard `json:"nodes"`
}

// heard is what the relay says of one.
type heard struct {
	Name     string    `json:"name"`
	Signed   time.Time `json:"signed"`
	Unsigned time.Time `json:"unsigned"`
}

func (m *machine) status() webNodes {
	m.t.Helper()
	_, stdout, stderr := m.command("status", "--json")
	var s struct {
		Nodes webNodes `json:"web_nodes"`
	}
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		m.t.Fatalf("relayguard status --json: %v\n%s%s", err, stdout, stderr)
	}
	return s.Nodes
}

// send has a plugin of the site write to somebody, "" being WordPress itself; it
// returns sendmail's exit status.
func (s *site) send(plugin, to string) int {
	s.on.t.Helper()
	s.n++
	subject := fmt.Sprintf("A post that may interest you (%d)", s.n)
	nonce := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%012d", s.n))
	value := stamp.Make(time.Now(), &s.Site, &stamp.Stamp{Plugin: plugin, Entry: "ajax", Script: "share.php:12"}, []string{to}, subject, nonce)
	text := fmt.Sprintf("From: wordpress@%s\nTo: %s\nSubject: %s\nMessage-ID: <%d.%s>\n%s: %s\n\nHave a look at https://%s/post/%d\n", s.Name, to, subject, s.n, s.Name, stamp.Header, value, s.Name, s.n%7)
	sent, err := s.on.Sendmail(soon(s.on.t), s.UID, []string{"-f", "wordpress@" + s.Name, to}, strings.NewReader(text))
	if err != nil {
		s.on.t.Fatal(err)
	}
	return sent.ExitCode
}

// sends is send of something that is taken.
func (s *site) sends(plugin, to string) {
	s.on.t.Helper()
	if code := s.send(plugin, to); code != 0 {
		s.on.t.Fatalf("sendmail of %s: status %d", s.Name, code)
	}
}

// strangers are addresses that nobody has written to.
func strangers(id string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d@example.net", id, i)
	}
	return all
}

// fate is what became of mails to some recipients.
type fate struct {
	left          int // the house
	onRelay, here int // held on the relay, held on the node
}

// settle waits until mail to all of the recipients has left or is held, and says
// which.
func (h *house) settle(t *testing.T, on *machine, to []string) (f fate) {
	t.Helper()
	wanted := map[string]bool{}
	for _, address := range to {
		wanted[address] = true
	}
	eventually(t, fmt.Sprintf("all of %d mails have left or are held", len(to)), func() bool {
		f = fate{h.left(wanted), h.relay.holds(wanted), on.holds(wanted)}
		return f.left+f.onRelay+f.here == len(to)
	})
	return f
}

func (h *house) left(wanted map[string]bool) int {
	left := map[string]bool{}
	for _, mail := range h.relay.Sink.All() {
		for _, to := range mail.RcptTo {
			if wanted[to] {
				left[to] = true
			}
		}
	}
	return len(left)
}

func (m *machine) holds(wanted map[string]bool) (n int) {
	m.t.Helper()
	queue, err := m.QueueList(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, q := range queue {
		for _, to := range q.Recipients {
			if q.QueueName == "hold" && wanted[to.Address] {
				n++
			}
		}
	}
	return n
}

// arrive waits until mail to all of them has left the house.
func (h *house) arrive(t *testing.T, to ...string) {
	t.Helper()
	for _, address := range to {
		if _, err := h.relay.Sink.WaitFor(soon(t), address); err != nil {
			t.Fatalf("mail to %s: %v", address, err)
		}
	}
}

// verdictOn is the relay's verdict on a message.
func (m *machine) verdictOn(t *testing.T, id string) relay.Line {
	t.Helper()
	v, err := m.WaitVerdict(soon(t), 0, func(l relay.Line) bool { return l.MessageID == "<"+id+">" && l.Stage == "message" })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// handIn hands a message to the relay itself, as something at a node's address
// can, past the node's MTA.
func (w *way) handIn(t *testing.T, id, to, text string, fields ...string) smtptest.Transaction {
	t.Helper()
	client, err := smtptest.Dial(soon(t), w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Ehlo("web.example.jp"); err != nil {
		t.Fatal(err)
	}
	fields = append([]string{"From: wordpress@a.example.jp", "To: " + to, "Message-ID: <" + id + ">"}, fields...)
	got, err := client.Send("wordpress@a.example.jp", []string{to}, strings.Join(fields, "\r\n")+"\r\n\r\n"+text)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
