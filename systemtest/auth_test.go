package systemtest

import (
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// people are the logins that the tests know.
var people = map[string]string{"taro@example.jp": "secret", "hanako@example.jp": "secret"}

func startRelay(t *testing.T, o relay.Options) *relay.Relay {
	t.Helper()
	o.Binary = guardBinary
	if o.Postfix.Users == nil {
		o.Postfix.Users = people
	}
	return relay.StartTest(t, o)
}

// loggedIn greets a service and authenticates.
func loggedIn(t *testing.T, p *postfixtest.Postfix, service, login string) *smtptest.Client {
	t.Helper()
	client := greet(t, p, service)
	wantCode(t, "AUTH", 235)(client.Auth(login, "secret"))
	return client
}

func TestSubmissionWithAuthIsDelivered(t *testing.T) {
	r := startRelay(t, relay.Options{})
	mark := r.Mark()
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sent, err := client.Send("taro@example.jp", []string{"a@example.net"}, "From: Taro <taro@example.jp>\nMessage-ID: <1@example.jp>\nSubject: hello\n\nWorld\n")
	if err != nil || !sent.Accepted() {
		t.Fatalf("send: %+v, %v", sent, err)
	}
	if _, err := r.Sink.WaitFor(soon(t), "a@example.net"); err != nil {
		t.Fatal(err)
	}
	v, err := r.WaitVerdict(soon(t), mark, func(l relay.Line) bool { return l.Stage == "message" })
	if err != nil {
		t.Fatal(err)
	}
	if v.Verdict != "accept" || v.Account != "login:taro@example.jp" || v.Confidence != "kernel" || v.LoginBy != "PLAIN" || v.From != "taro@example.jp" ||
		v.MessageID != "<1@example.jp>" || v.QueueID == "" || v.Role != "submission" || v.Client != "127.0.0.1" {
		t.Errorf("verdict %s", v.Raw)
	}
}

func TestSubmissionWithoutAuthIsRefusedAtRcpt(t *testing.T) {
	r := startRelay(t, relay.Options{})
	mark := r.Mark()
	client := greet(t, r.Postfix, relay.Submission)
	wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
	reply, err := client.Rcpt("a@example.jp")
	if err != nil || reply.Code != 530 || reply.Enhanced() != "5.7.0" {
		t.Fatalf("RCPT: %v, %v; want 530 5.7.0", reply, err)
	}
	v, err := r.WaitVerdict(soon(t), mark, func(l relay.Line) bool { return l.Stage == "rcpt" })
	if err != nil || v.Rule != "auth" || v.Verdict != "reject" || v.Account != "local_user:root" { // loopback is a local account, and AUTH is asked of it all the same
		t.Errorf("verdict %s, %v", v.Raw, err)
	}
}
