package rbl_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/policy"
	"relayguard/policy/origin/stamp"
	"relayguard/rbl/history"
	"relayguard/systemtest/relay"
)

// scene is a Postfix with the guard, and what its admin does.
type scene struct {
	*relay.Relay
	t      *testing.T
	binary string
}

// taro is the one who logs in, hanako a mailbox of the house.
const (
	taro   = "taro@example.jp"
	hanako = "hanako@example.jp"
)

// startScene starts it. The guard hands its own mail in where machines that are
// trusted do, and finds in its journal what happened before.
func startScene(t *testing.T, binary, phase, config string, before ...journal.Record) *scene {
	t.Helper()
	s := &scene{t: t, binary: binary}
	s.Relay = relay.StartTest(t, relay.Options{
		Binary: binary, Phase: phase, Config: config, ShippedLimits: true,
		// Postfix itself takes no header off: what does not leave, the guard took off.
		Postfix: postfixtest.Options{Main: map[string]string{"smtp_header_checks": ""}, Users: map[string]string{taro: "secret"}, Mailboxes: []string{hanako}},
	})
	s.away(func() {
		text, err := os.ReadFile(s.ConfigPath)
		s.must(err)
		s.must(os.WriteFile(s.ConfigPath, []byte(strings.Replace(string(text), "[mta]\n", fmt.Sprintf("[mta]\nsmtp = %q\n", s.Addr(relay.Relaying)), 1)), 0o644))
		s.remember(before...)
	})
	t.Cleanup(func() {
		for _, mail := range s.Sink.All() {
			s.wantNoneOfOurs(string(mail.Data))
		}
	})
	return s
}

// wantNoneOfOurs: what tells the guard about a message does not leave with it.
func (s *scene) wantNoneOfOurs(message string) {
	s.t.Helper()
	header, _, _ := strings.Cut(strings.ReplaceAll(message, "\r\n", "\n"), "\n\n")
	if strings.Contains(strings.ToLower(header), "x-relayguard") {
		s.t.Errorf("left the house with a header of ours:\n%s", header)
	}
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// away does something while the daemon is.
func (s *scene) away(do func()) {
	s.t.Helper()
	s.must(s.StopGuard(syscall.SIGTERM))
	do()
	s.must(s.StartGuard(s.soon()))
}

// remember puts records into the journal, while the daemon is away.
func (s *scene) remember(records ...journal.Record) {
	s.t.Helper()
	if len(records) == 0 {
		return
	}
	j, err := journal.OpenOffline(s.JournalDir())
	s.must(err)
	s.must(j.Append(records...))
	s.must(j.Close())
}

// soon bounds a wait for what should happen at once, on a slow machine too.
func (s *scene) soon() context.Context { return s.within(2 * time.Minute) }

func (s *scene) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	s.t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is so.
func (s *scene) eventually(what string, is func() bool) {
	s.t.Helper()
	ctx := s.soon()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			s.t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// command runs relayguard as an admin would.
func (s *scene) command(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	return s.exec(exec.CommandContext(s.soon(), s.binary, append(args, "--config", s.ConfigPath)...))
}

func (s *scene) exec(cmd *exec.Cmd) (code int, stdout, stderr string) {
	s.t.Helper()
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each command takes a second more
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(s.binary)+":"+os.Getenv("PATH"))
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// order runs a command that must end with that status.
func (s *scene) order(status int, args ...string) (stdout string) {
	s.t.Helper()
	code, stdout, stderr := s.command(args...)
	if code != status {
		s.t.Fatalf("relayguard %s: status %d, want %d\n%s%s", strings.Join(args, " "), code, status, stdout, stderr)
	}
	return stdout
}

// typed runs a command as the report prints it: by a shell.
func (s *scene) typed(line string) {
	s.t.Helper()
	if code, stdout, stderr := s.exec(exec.CommandContext(s.soon(), "sh", "-c", line+` --config "$0"`, s.ConfigPath)); code != 0 {
		s.t.Fatalf("%s: status %d\n%s%s", line, code, stdout, stderr)
	}
}

// report is the one of now; its exit status says that something is to be done, or
// that not all is known.
func (s *scene) report(args ...string) *dailyReport {
	s.t.Helper()
	code, stdout, stderr := s.command(append([]string{"report", "--json"}, args...)...)
	r := &dailyReport{}
	if err := json.Unmarshal([]byte(stdout), r); err != nil {
		s.t.Fatalf("relayguard report --json: status %d: %v\n%s%s", code, err, stdout, stderr)
	}
	return r
}

// shown is the report as an admin reads it, in a form.
func (s *scene) shown(form string) string {
	s.t.Helper()
	code, stdout, stderr := s.command("report", "--format", form)
	if stdout == "" {
		s.t.Fatalf("relayguard report --format %s: status %d: %s", form, code, stderr)
	}
	return stdout
}

// look has the daemon ask all lists, and returns the listings that go on by zone.
func (s *scene) look() map[string]history.Listing {
	s.t.Helper()
	code, stdout, stderr := s.command("rbl", "status", "--now", "--json")
	var status struct{ Listings []history.Listing }
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		s.t.Fatalf("relayguard rbl status --now --json: status %d: %v\n%s%s", code, err, stdout, stderr)
	}
	all := map[string]history.Listing{}
	for _, l := range status.Listings {
		all[l.Zone] = l
	}
	return all
}

// Unix accounts that Debian has, without mail of their own.
const (
	games = 5
	lp    = 7
)

// website is a web site of the house, registered with the guard as WordPress sites
// are, whose mail a plugin labels and signs.
type website struct {
	stamp.Site
	on *scene
	n  int
}

func (s *scene) host(name string, uid int, key byte) *website {
	s.t.Helper()
	w := &website{Site: stamp.Site{Name: name, UID: uid, KeyID: fmt.Sprintf("%08x", key), Key: slices.Repeat([]byte{key}, stamp.KeySize)}, on: s}
	body, err := json.Marshal(map[string]any{"name": w.Name, "uid": w.UID, "key_id": w.KeyID, "key": []byte(w.Key)})
	s.must(err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.StateDir(), "control.sock"))
	}}}
	resp, err := client.Post("http://guard/v1/sites", "application/json", bytes.NewReader(body))
	s.must(err)
	defer resp.Body.Close()
	if said, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		s.t.Fatalf("register %s: %s: %s", name, resp.Status, said)
	}
	return w
}

// sends has a plugin of the site write to somebody.
func (w *website) sends(plugin, subject, to string) {
	w.on.t.Helper()
	w.n++
	nonce := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%012d", w.n))
	value := stamp.Make(time.Now(), &w.Site, &stamp.Stamp{Plugin: plugin, Entry: "ajax", Script: plugin + ".php:12"}, []string{to}, subject, nonce)
	text := fmt.Sprintf("From: wordpress@%s\nTo: %s\nSubject: %s\nMessage-ID: <%d.%s>\n%s: %s\n\nHave a look at https://%s/%s/%d\n", w.Name, to, subject, w.n, w.Name, stamp.Header, value, w.Name, plugin, w.n%7)
	sent, err := w.on.Sendmail(w.on.soon(), w.UID, []string{"-f", "wordpress@" + w.Name, to}, strings.NewReader(text))
	w.on.must(err)
	if sent.ExitCode != 0 {
		w.on.t.Fatalf("sendmail of %s: %+v", w.Name, sent)
	}
}

// client is an SMTP client of a service.
func (s *scene) client(service string) *smtptest.Client {
	s.t.Helper()
	client, err := s.Dial(s.soon(), service)
	s.must(err)
	s.t.Cleanup(func() { client.Close() })
	_, err = client.Ehlo("pc.example.jp")
	s.must(err)
	return client
}

// strangers are addresses that nobody has written to.
func strangers(id string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d@example.net", id, i)
	}
	return all
}

// passed is mail that passed on a day before, at noon.
func passed(n, daysAgo, recipients int, change func(*journal.Decision)) journal.Record {
	at := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -daysAgo).Add(12 * time.Hour)
	d := journal.Decision{
		ID: fmt.Sprintf("before-%d-%d", daysAgo, n), Time: at, Stage: journal.StageMessage, Verdict: policy.Accept, Phase: policy.Observe, UID: -1,
		QueueID: fmt.Sprintf("4BEFORE%dX%d", daysAgo, n), Size: 2000, Recipients: recipients, Domains: map[string]int{"example.net": recipients},
	}
	change(&d)
	return d
}

// ofSite makes it a plugin's.
func ofSite(user string, uid int, site, plugin string) func(*journal.Decision) {
	return func(d *journal.Decision) {
		d.Listener, d.Role, d.Account, d.LocalUser, d.UID, d.Confidence = "local", policy.Local, "local_user:"+user, user, uid, "kernel"
		d.Site, d.SiteBy, d.Plugin, d.PluginBy = site, "signed", plugin, "signed"
	}
}

func ofLogin(login string) func(*journal.Decision) {
	return func(d *journal.Decision) {
		d.Listener, d.Role, d.Account, d.Login, d.Confidence = "submission", policy.Submission, "login:"+login, login, "kernel"
	}
}
