package systemtest

import (
	"slices"
	"testing"

	"relayguard/systemtest/relay"
)

func TestSubmissionInLearning(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Phase: "learning"})

	t.Run("a wrong password is Postfix's to refuse", func(t *testing.T) {
		mark := r.Mark()
		client := greet(t, r.Postfix, relay.Submission)
		wantCode(t, "wrong password", 535)(client.Auth("taro@example.jp", "wrong"))
		wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
		wantCode(t, "RCPT", 530)(client.Rcpt("a@example.net"))
		wantCode(t, "RSET", 250)(client.Rset())
		if v, err := r.WaitVerdict(soon(t), mark, func(l relay.Line) bool { return l.Stage == "rcpt" }); err != nil || v.LoginBy != "" {
			t.Errorf("a login that was not proven counts: %s, %v", v.Raw, err)
		}
	})

	t.Run("without AUTH every RCPT gets 530", func(t *testing.T) {
		client := greet(t, r.Postfix, relay.Submission)
		for _, from := range []string{"taro@example.jp", ""} {
			wantCode(t, "MAIL", 250)(client.Mail(from))
			for _, to := range []string{"a@example.net", "hanako@example.jp", "postmaster@example.jp", "abuse@example.jp"} {
				reply, err := client.Rcpt(to)
				if err != nil {
					t.Fatal(err)
				}
				wantReply(t, "RCPT "+to+" from <"+from+">", reply, 530, "5.7.0")
			}
			wantCode(t, "DATA without recipients", 554)(client.Cmd("DATA"))
			wantCode(t, "RSET", 250)(client.Rset())
		}
	})

	t.Run("AUTH after the refusal opens the same session", func(t *testing.T) {
		client := greet(t, r.Postfix, relay.Submission)
		wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
		wantCode(t, "RCPT", 530)(client.Rcpt("late@example.net"))
		wantCode(t, "RSET", 250)(client.Rset())
		wantCode(t, "AUTH", 235)(client.Auth("taro@example.jp", "secret"))
		sendAccepted(t, client, "taro@example.jp", []string{"late@example.net"}, fromTaro("late"))
		wantArrived(t, r.Postfix, "late@example.net")
		wantVerdict(t, r, "late", "accept", "", "login:taro@example.jp")
	})

	t.Run("an address that is not one's own is told", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "boss@example.org", []string{"told@example.net"}, fromTaro("told"))
		wantArrived(t, r.Postfix, "told@example.net")
		wantVerdict(t, r, "told", "tell", "envelope-address", "login:taro@example.jp")
	})

	t.Run("XCLIENT LOGIN stands for AUTH", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, relay.Submission, "ADDR=203.0.113.7", "PORT=40001", "LOGIN=taro@example.jp")
		sendAccepted(t, client, "taro@example.jp", []string{"proxied@example.net"}, fromTaro("proxied"))
		wantArrived(t, r.Postfix, "proxied@example.net")
		wantVerdict(t, r, "proxied", "accept", "", "login:taro@example.jp")
		if v := verdictOn(t, r, "proxied"); v.LoginBy != "XCLIENT" || v.Client != "203.0.113.7" {
			t.Errorf("verdict %s", v.Raw)
		}
	})

	t.Run("LOGIN=[UNAVAILABLE] takes it back", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, relay.Submission, "LOGIN=taro@example.jp")
		wantCode(t, "XCLIENT", 220)(client.XClient("LOGIN=[UNAVAILABLE]"))
		wantCode(t, "EHLO", 250)(client.Ehlo("stranger.example.org"))
		wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
		wantCode(t, "RCPT", 530)(client.Rcpt("a@example.net"))
	})
}

func TestObserveLetsPassWithoutAuthAndTells(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Phase: "observe"})
	for _, service := range []string{relay.Submission, relay.Relaying} {
		client := strangerAt(t, r.Postfix, service, "ADDR=203.0.113.7", "PORT=40001")
		if service == relay.Submission { // where Postfix itself would refuse a stranger
			client = greet(t, r.Postfix, service)
		}
		sendAccepted(t, client, "taro@example.jp", []string{service + "@example.net"}, fromTaro(service))
		wantArrived(t, r.Postfix, service+"@example.net")
		v := verdictOn(t, r, service)
		if v.Verdict != "tell" || v.Rule != "auth" {
			t.Errorf("%s: verdict %s", service, v.Raw)
		}
	}
	for _, l := range r.Verdicts(0) {
		if slices.Contains([]string{"hold", "defer", "reject"}, l.Verdict) {
			t.Errorf("observe stopped mail: %s", l.Raw)
		}
	}
}
