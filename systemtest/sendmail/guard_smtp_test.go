package sendmail

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

func send(t *testing.T, c *smtptest.Client, from, to, message string) smtptest.Transaction {
	t.Helper()
	sent, err := c.Send(from, []string{to}, message)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

func sendAccepted(t *testing.T, c *smtptest.Client, from, to, message string) {
	t.Helper()
	if sent := send(t, c, from, to, message); !sent.Accepted() {
		t.Fatalf("to %s: %+v", to, sent)
	}
}

func TestSubmissionAsksForAUTHAndHolds(t *testing.T) {
	r := start(t, relay.Options{Config: limit("logins", "login", "2/1h", "")})
	stranger := greet(t, r, relay.Submission)
	sent := send(t, stranger, "taro@example.jp", "stranger@example.net", letter("stranger@x"))
	if refusal := sent.Refusal(); refusal.Code != 530 || !strings.Contains(refusal.Text(), "5.7.0") || sent.Mail.Code != 250 {
		t.Errorf("without AUTH: %+v", sent)
	}
	wantNothing(t, r, "stranger@example.net")

	taro := loggedIn(t, r, relay.Submission)
	for i := range 4 { // on one connection: Sendmail sends no ABORT between them
		id := fmt.Sprintf("m%d@x", i)
		sendAccepted(t, taro, "taro@example.jp", fmt.Sprintf("m%d@example.net", i), letter(id, "From: taro@example.jp", "X-Relayguard-Token: x", fmt.Sprintf("X-Only-%d: x", i)))
		verdict, rule := "accept", ""
		if i >= 2 {
			verdict, rule = "hold", "logins"
		}
		first, v := verdictOn(t, r, "m0@x"), wantVerdict(t, r, id, verdict, rule, "login:taro@example.jp")
		if v.Recipients != 1 || v.Size != first.Size || v.LoginBy != "PLAIN" || v.QueueID == "" {
			t.Errorf("%s: %s; what is of another message is in it", id, v.Raw)
		}
	}
	for i := range 4 {
		to := fmt.Sprintf("m%d@example.net", i)
		if i < 2 {
			mail := wantArrived(t, r, to)
			if text := string(mail.Data); strings.Contains(text, "X-Relayguard") || !strings.Contains(text, fmt.Sprintf("X-Only-%d:", i)) || strings.Count(text, "X-Only") != 1 {
				t.Errorf("to %s:\n%s", to, text)
			}
			continue
		}
		if held := wantHeld(t, r, to); held.Reason != "logins" || strings.Contains(held.HeaderText, "X-Relayguard") {
			t.Errorf("held for %q:\n%s", held.Reason, held.HeaderText)
		}
	}
}

// Fields are taken off and put on messages of any shape.
func TestFieldsAtTheEndOfAMessage(t *testing.T) {
	key := filepath.Join(t.TempDir(), "node.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("0123456789abcdef", 4)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, relay.Options{Config: fmt.Sprintf("[sign]\nnode = \"web1\"\nkey_file = %q\n", key)})
	ours := []string{"X-Relayguard-Uid: 0", "x-relayguard-origin: a\n\tb", "X-RELAYGUARD-CALL: x", "X-Relayguard-Node: x", "X-Relayguard-Token:", "X-Other: y"}
	handAll(t, r, news, letter("many@x", append(append(ours, ours...), ours...)...), "many@example.net")
	wantVerdict(t, r, "many@x", "accept", "", "local_user:news")
	text := string(wantArrived(t, r, "many@example.net").Data)
	if strings.Count(text, "X-Other: y") != 3 || strings.Count(strings.ToLower(text), "x-relayguard") != 1 || strings.Count(text, "X-Relayguard-Node: ") != 1 || strings.Contains(text, "X-Relayguard-Node: x\r\n") {
		t.Errorf("arrived:\n%s", text)
	}
	handAll(t, r, news, "\nno header at all\n", "bare@example.net")
	if text := string(wantArrived(t, r, "bare@example.net").Data); strings.Count(text, "X-Relayguard-Node: ") != 1 || !strings.Contains(text, "no header at all") {
		t.Errorf("arrived:\n%s", text)
	}
}

// IPv6 comes as "IPv6:0:0:0:0:0:0:0:1", and the daemon's address as none in
// particular.
func TestIPv6AndDaemonsOfAnyAddress(t *testing.T) {
	six, any := freePort(t, "tcp6", "[::1]:0"), freePort(t, "tcp4", "127.0.0.1:0")
	r := start(t, relay.Options{Sendmail: sendmailtest.Options{
		Services: relay.SendmailServices(),
		MC: append([]string{
			fmt.Sprintf("DAEMON_OPTIONS(`Name=six, Family=inet6, Port=%s, M=AS, InputMailFilters=local')dnl", six),
			fmt.Sprintf("DAEMON_OPTIONS(`Name=any, Family=inet, Port=%s, M=AS, InputMailFilters=local')dnl", any),
		}, relay.OpenSendmail(relay.Submission, relay.Relaying, "six", "any")...),
	}})
	for i, addr := range []string{"::1 " + six, "127.0.0.1 " + six, "127.0.0.1 " + any, "127.0.0.9 " + any} {
		host, port, _ := strings.Cut(addr, " ")
		id := fmt.Sprintf("at%d@x", i)
		replies := tcp(t, news, net.JoinHostPort(host, port), transaction("a@example.org", fmt.Sprintf("at%d@example.net", i), letter(id))...)
		if len(replies) != 6 || !strings.HasPrefix(replies[4], "250") {
			t.Errorf("%s: %q", addr, replies)
			continue
		}
		if v := wantVerdict(t, r, id, "accept", "", "local_user:news"); v.Role != "local" {
			t.Errorf("%s: role %s", addr, v.Role)
		}
	}
}

func freePort(t *testing.T, network, addr string) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Without its guard nothing passes, and nothing is lost.
func TestGuardThatIsDead(t *testing.T) {
	r := start(t, relay.Options{Sendmail: sendmailtest.Options{
		Services: relay.SendmailServices(), MC: relay.OpenSendmail(relay.Submission, relay.Relaying),
		Users:   map[string]string{"taro@example.jp": "secret"},
		Milters: []sendmailtest.Milter{{Name: relay.Submission, Timeouts: "C:2s;S:2s;R:2s;E:5s"}},
	}})
	live := loggedIn(t, r, relay.Submission)
	sendAccepted(t, live, "taro@example.jp", "before@example.net", letter("before@x"))
	if err := r.StopGuard(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if sent := send(t, live, "taro@example.jp", "live@example.net", letter("live@x")); sent.Refusal().Code != 451 {
		t.Errorf("in a live session: %+v", sent)
	}
	fresh := greet(t, r, relay.Submission)
	if sent := send(t, fresh, "taro@example.jp", "fresh@example.net", letter("fresh@x")); sent.Refusal().Code != 451 {
		t.Errorf("in a new session: %+v", sent)
	}
	handAll(t, r, news, letter("local@x"), "local@example.net")
	wantNothing(t, r, "live@example.net", "fresh@example.net", "local@example.net")

	if err := r.StartGuard(soon(t)); err != nil {
		t.Fatal(err)
	}
	if sent := send(t, live, "taro@example.jp", "still@example.net", letter("still@x")); sent.Accepted() {
		verdictOn(t, r, "still@x") // if it goes on at all, then by the guard
	}
	sendAccepted(t, loggedIn(t, r, relay.Submission), "taro@example.jp", "after@example.net", letter("after@x"))
	wantArrived(t, r, "after@example.net")
	if err := r.RunClientQueue(soon(t)); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, r, "local@x", "accept", "", "local_user:news")
	wantArrived(t, r, "local@example.net")
}

// A guard that does not answer is as good as dead until it does.
func TestGuardThatHangs(t *testing.T) {
	r := start(t, relay.Options{Sendmail: sendmailtest.Options{
		Services: relay.SendmailServices(), MC: relay.OpenSendmail(relay.Submission, relay.Relaying),
		Users:   map[string]string{"taro@example.jp": "secret"},
		Milters: []sendmailtest.Milter{{Name: relay.Submission, Timeouts: "C:1s;S:1s;R:1s;E:2s"}},
	}})
	live := loggedIn(t, r, relay.Submission)
	sendAccepted(t, live, "taro@example.jp", "before@example.net", letter("before@x"))
	if err := r.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	sent := send(t, live, "taro@example.jp", "hung@example.net", letter("hung@x"))
	if err := r.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if refusal := sent.Refusal(); refusal.Code < 400 || refusal.Code > 499 {
		t.Errorf("while it hangs: %+v", sent)
	}
	sendAccepted(t, loggedIn(t, r, relay.Submission), "taro@example.jp", "after@example.net", letter("after@x"))
	wantArrived(t, r, "after@example.net")
	wantNothing(t, r, "hung@example.net")
}

// What an alias makes of a recipient is charged as it is delivered, for Sendmail
// tells no number before.
func TestAliasesAreCharged(t *testing.T) {
	var people, virtual strings.Builder
	people.WriteString("postmaster: root\nroot: /dev/null\nteam: ")
	for i := range 30 {
		fmt.Fprintf(&people, "p%d@example.net,", i)
	}
	virtual.WriteString("team@example.jp\tteam\n")
	r := start(t, relay.Options{Config: limit("logins", "login", "20/1h", ""), Sendmail: sendmailtest.Options{
		Files: map[string]string{"aliases": strings.TrimSuffix(people.String(), ",") + "\n", "virtusertable": virtual.String()},
	}})
	taro := loggedIn(t, r, relay.Submission)
	sendAccepted(t, taro, "taro@example.jp", "team@example.jp", letter("team@x", "From: taro@example.jp"))
	wantVerdict(t, r, "team@x", "accept", "", "login:taro@example.jp")
	for i := range 30 {
		wantArrived(t, r, fmt.Sprintf("p%d@example.net", i))
	}
	eventually(t, "the alias is charged", func() bool {
		said, err := r.Relayguard(soon(t), "limits", "show", "login:taro@example.jp", "--json")
		return err == nil && strings.Contains(said.Stdout, `"used": 30`) || strings.Contains(said.Stdout, `"used":30`)
	})
	sendAccepted(t, taro, "taro@example.jp", "more@example.net", letter("more@x", "From: taro@example.jp"))
	wantVerdict(t, r, "more@x", "hold", "logins", "login:taro@example.jp")
}
