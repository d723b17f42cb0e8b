package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta/smtptest"
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
	for !is() {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// command runs relayguard as an admin of this relay would.
func (n *node) command(args ...string) (code int, stdout, stderr string) {
	n.t.Helper()
	cmd := exec.CommandContext(soon(n.t), guardBinary, append(args, "--config", n.ConfigPath)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each command takes a second more
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// order runs a command that must end with status 0.
func (n *node) order(args ...string) (stdout string) {
	n.t.Helper()
	code, stdout, stderr := n.command(args...)
	if code != 0 {
		n.t.Fatalf("relayguard %s: status %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// ask runs a command with --json, whatever its status, and reads its answer.
func ask[T any](n *node, args ...string) (answer T) {
	n.t.Helper()
	code, stdout, stderr := n.command(append(args, "--json")...)
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
		n.t.Fatalf("relayguard %s --json: status %d, %v\n%s%s", strings.Join(args, " "), code, err, stdout, stderr)
	}
	return answer
}

// standing is how an account stands under one limit, by limits show.
type standing struct {
	Limit   string `json:"limit"`
	Latched bool   `json:"latched"`
	Windows []struct {
		Used  int64 `json:"used"`
		Count int64 `json:"count"`
	} `json:"windows"`
}

// find is how it stands under a limit, if that is for it.
func (n *node) find(who, limit string) (standing, bool) {
	n.t.Helper()
	all := ask[struct{ Limits []standing }](n, "limits", "show", who).Limits
	i := slices.IndexFunc(all, func(s standing) bool { return s.Limit == limit && len(s.Windows) == 1 })
	if i < 0 {
		return standing{}, false
	}
	return all[i], true
}

// standingOf is how it stands under a limit of one window.
func (n *node) standingOf(who, limit string) standing {
	n.t.Helper()
	s, ok := n.find(who, limit)
	if !ok {
		n.t.Fatalf("limits show %s does not have %s with one window", who, limit)
	}
	return s
}

// countOf is what a limit allows it; 0 if that is not for it.
func (n *node) countOf(who, limit string) int64 {
	n.t.Helper()
	s, ok := n.find(who, limit)
	if !ok {
		return 0
	}
	return s.Windows[0].Count
}

// wantUsed checks what limits show says on every relay.
func (f *fleet) wantUsed(t *testing.T, who, limit string, used, count int64) {
	t.Helper()
	for i, n := range f.relays {
		if w := n.standingOf(who, limit).Windows[0]; w.Used != used || w.Count != count {
			t.Errorf("relay %s: %s has used %d of %d of %s, want %d of %d", nameOf(i), who, w.Used, w.Count, limit, used, count)
		}
	}
}

// heldMail is one held message, by held list.
type heldMail struct {
	QueueID string `json:"queue_id"`
	Account string `json:"account"`
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
}

func (n *node) held(account string) []heldMail {
	n.t.Helper()
	return ask[struct{ Held []heldMail }](n, "held", "list", "--account", account).Held
}

// login opens a session.
func (n *node) login(login string) *smtptest.Client {
	n.t.Helper()
	client, err := n.dial(login)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { client.Close() })
	return client
}

func (n *node) dial(login string) (*smtptest.Client, error) {
	client, err := n.Dial(soon(n.t), relay.Submission)
	if err != nil {
		return nil, err
	}
	if reply, err := client.Ehlo("client.example.org"); err != nil || reply.Code != 250 {
		return nil, errors.Join(fmt.Errorf("EHLO: %v", reply), err)
	}
	if reply, err := client.Auth(login, "secret"); err != nil || reply.Code != 235 {
		return nil, errors.Join(fmt.Errorf("AUTH: %v", reply), err)
	}
	return client, nil
}

// rcpts are recipients outside.
func rcpts(id string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d@example.net", id, i)
	}
	return all
}

func letter(id, from string) string {
	return fmt.Sprintf("From: %s\nMessage-ID: <%s>\n\nWorld\n", from, id)
}

// send sends one message from login to so many; it must get 250, passed or held.
func (n *node) send(client *smtptest.Client, login, id string, recipients int) {
	n.t.Helper()
	sent, err := client.Send(login, rcpts(id, recipients), letter(id, login))
	if err != nil {
		n.t.Fatalf("send %s: %v", id, err)
	}
	if refusal := sent.Refusal(); refusal.Code != 0 || !sent.Accepted() {
		n.t.Fatalf("send %s: refused with %v, end %v", id, refusal, sent.Data)
	}
}

// verdict is what the guard decided on the whole message.
func (n *node) verdict(id string) relay.Line {
	n.t.Helper()
	v, err := n.WaitVerdict(soon(n.t), 0, func(l relay.Line) bool { return l.Stage == "message" && l.MessageID == "<"+id+">" })
	if err != nil {
		n.t.Fatalf("verdict on %s: %v", id, err)
	}
	return v
}

// sends sends one message in a session of its own, and checks verdict and rule.
func (n *node) sends(login, id string, recipients int, verdict, rule string) {
	n.t.Helper()
	client := n.login(login)
	defer client.Close()
	n.send(client, login, id, recipients)
	if v := n.verdict(id); v.Verdict != verdict || v.Rule != rule {
		n.t.Errorf("%s: got %s by %q, want %s by %q; %s", id, v.Verdict, v.Rule, verdict, rule, v.Raw)
	}
}

// passed counts the recipients of a login that got mail, once the queues have run
// empty, and checks that nobody got one twice.
func (f *fleet) passed(t *testing.T, login string) (sum int64) {
	t.Helper()
	for _, n := range f.relays {
		sum += n.passed(login)
	}
	return sum
}

func (n *node) passed(login string) (sum int64) {
	n.t.Helper()
	if err := n.WaitEmpty(soon(n.t)); err != nil {
		n.t.Fatal(err)
	}
	got := map[string]bool{}
	for _, mail := range n.Sink.All() {
		if mail.MailFrom != login {
			continue
		}
		for _, to := range mail.RcptTo {
			if got[to] {
				n.t.Errorf("%s got two mails", to)
			}
			got[to] = true
		}
	}
	return int64(len(got))
}

// itemsKey is the key of recipients' digests that the relay goes by.
func (n *node) itemsKey() string {
	n.t.Helper()
	key, err := os.ReadFile(filepath.Join(n.StateDir(), "items.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(key)
}
