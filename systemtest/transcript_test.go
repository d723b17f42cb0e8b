package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// The words in which these tests tell what was said and what came of it.

// letter is a message; id becomes its Message-ID. Header fields are lines
// "Name: value"; the blank line and a body are added.
func letter(id string, fields ...string) string {
	return strings.Join(append(fields, "Message-ID: <"+id+">"), "\n") + "\n\nWorld\n"
}

// fromTaro is a letter that names its writer.
func fromTaro(id string, fields ...string) string {
	return letter(id, append([]string{"From: Taro <taro@example.jp>"}, fields...)...)
}

// send runs a transaction that must come to its end, whatever the replies.
func send(t *testing.T, client *smtptest.Client, from string, to []string, message string) smtptest.Transaction {
	t.Helper()
	sent, err := client.Send(from, to, message)
	if err != nil {
		t.Fatalf("send from <%s>: %v", from, err)
	}
	return sent
}

// sendAccepted is send for a message that must be taken for everybody.
func sendAccepted(t *testing.T, client *smtptest.Client, from string, to []string, message string) {
	t.Helper()
	sent := send(t, client, from, to, message)
	if refusal := sent.Refusal(); refusal.Code != 0 || !sent.Accepted() {
		t.Fatalf("send from <%s> to %q: refused with %v, end %v", from, to, refusal, sent.Data)
	}
}

// wantReply checks code and enhanced code of a reply.
func wantReply(t *testing.T, what string, reply smtptest.Reply, code int, enhanced string) {
	t.Helper()
	if reply.Code != code || reply.Enhanced() != enhanced {
		t.Errorf("%s: got %v, want %d %s", what, reply, code, enhanced)
	}
}

// codes are the codes of some replies.
func codes(replies []smtptest.Reply) []int {
	var all []int
	for _, r := range replies {
		all = append(all, r.Code)
	}
	return all
}

// strangerAt is an SMTP client that claims, by XCLIENT, to come from elsewhere.
func strangerAt(t *testing.T, p *postfixtest.Postfix, service string, attributes ...string) *smtptest.Client {
	t.Helper()
	c := greet(t, p, service)
	wantCode(t, "XCLIENT", 220)(c.XClient(attributes...))
	wantCode(t, "EHLO", 250)(c.Ehlo("stranger.example.org"))
	return c
}

// verdictOn waits for the verdict on the whole message with that Message-ID.
func verdictOn(t *testing.T, r *relay.Relay, id string) relay.Line {
	t.Helper()
	v, err := r.WaitVerdict(soon(t), 0, func(l relay.Line) bool { return l.Stage == "message" && l.MessageID == "<"+id+">" })
	if err != nil {
		t.Fatalf("verdict on %s: %v", id, err)
	}
	return v
}

// wantVerdict checks verdict, rule and account of the message with that
// Message-ID.
func wantVerdict(t *testing.T, r *relay.Relay, id, verdict, rule, account string) {
	t.Helper()
	if v := verdictOn(t, r, id); v.Verdict != verdict || v.Rule != rule || v.Account != account {
		t.Errorf("%s: got %s by rule %q for %s, want %s by %q for %s; %s", id, v.Verdict, v.Rule, v.Account, verdict, rule, account, v.Raw)
	}
}

// wantArrived waits until a mail for somebody is at the sink.
func wantArrived(t *testing.T, p *postfixtest.Postfix, to string) smtptest.Mail {
	t.Helper()
	mail, err := p.Sink.WaitFor(soon(t), to)
	if err != nil {
		t.Fatal(err)
	}
	return mail
}

// wantNothing checks, once the queue has run empty, that nobody got anything.
func wantNothing(t *testing.T, p *postfixtest.Postfix, to ...string) {
	t.Helper()
	if err := p.WaitEmpty(soon(t)); err != nil {
		t.Fatal(err)
	}
	for _, address := range to {
		if mails := p.Sink.To(address); len(mails) > 0 {
			t.Errorf("%s got %d mails, want none:\n%s", address, len(mails), mails[0].Data)
		}
	}
}

// wantHeld checks that a message is in the hold queue and nowhere else.
func wantHeld(t *testing.T, p *postfixtest.Postfix, to string) postfixtest.Queued {
	t.Helper()
	held, err := p.WaitHeld(soon(t), to)
	if err != nil {
		t.Fatal(err)
	}
	wantNothing(t, p, to)
	return held
}

// headerLines are the lines of a mail's header that begin with a name.
func headerLines(mail smtptest.Mail, name string) []string {
	header, _, _ := strings.Cut(string(mail.Data), "\r\n\r\n")
	var found []string
	for line := range strings.SplitSeq(header, "\r\n") {
		if len(line) >= len(name) && strings.EqualFold(line[:len(name)], name) {
			found = append(found, line)
		}
	}
	return found
}

// rcpts are n recipients outside.
func rcpts(name string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d@example.net", name, i)
	}
	return all
}

// recipientsAtSink counts how often each recipient got mail.
func recipientsAtSink(p *postfixtest.Postfix) map[string]int {
	got := map[string]int{}
	for _, mail := range p.Sink.All() {
		for _, to := range mail.RcptTo {
			got[to]++
		}
	}
	return got
}

// openSockets counts the sockets that the guard has open.
func openSockets(t *testing.T, r *relay.Relay) int {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", r.GuardPID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(fds, func(fd string) bool {
		target, err := os.Readlink(fd)
		return err != nil || !strings.HasPrefix(target, "socket:")
	}))
}
