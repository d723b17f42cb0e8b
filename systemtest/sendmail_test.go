package systemtest

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

const www = 33 // www-data on Debian

// sendmail hands a message in; it must be taken.
func sendmail(t *testing.T, p *postfixtest.Postfix, uid int, message string, args ...string) {
	t.Helper()
	sent, err := p.Sendmail(soon(t), uid, args, strings.NewReader(message))
	if err != nil || sent.ExitCode != 0 {
		t.Fatalf("sendmail %q as uid %d: %+v, %v", args, uid, sent, err)
	}
}

// forgedUIDs are ways to claim another Unix account.
var forgedUIDs = []struct {
	name   string
	fields []string
}{
	{"none", nil},
	{"once", []string{"X-Relayguard-Uid: 0"}},
	{"twice", []string{"X-Relayguard-Uid: 0", "X-Relayguard-Uid: 1"}},
	{"in other letters", []string{"x-relayguard-UID: 0"}},
	{"folded", []string{"X-Relayguard-Uid:\n 0"}},
	{"with a space before the colon", []string{"X-Relayguard-Uid : 0"}},
	{"by a Received line", []string{"Received: by relay.example.jp (Postfix, from userid 0)\n\tid X; date"}},
}

func TestSendmailWithUID(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{
		Config: "[milter]\nmax_recipients = 100\n",
		Postfix: postfixtest.Options{
			Main: map[string]string{"smtp_header_checks": ""}, // what does not leave, the guard took off
		},
	})

	for i, forged := range forgedUIDs {
		t.Run("forged uid "+forged.name, func(t *testing.T) {
			id := fmt.Sprintf("uid-%d", i)
			sendmail(t, r.Postfix, www, letter(id, append(forged.fields, "From: shop@example.jp")...), "-f", "shop@example.jp", id+"@example.net")
			mail := wantArrived(t, r.Postfix, id+"@example.net")
			wantVerdict(t, r, id, "accept", "", "local_user:www-data")
			if left := headerLines(mail, "X-Relayguard"); len(left) > 0 {
				t.Errorf("left with the mail: %q", left)
			}
			if v := verdictOn(t, r, id); v.Confidence != "kernel" || v.Role != "local" || v.Client != "" || v.QueueID == "" {
				t.Errorf("verdict %s", v.Raw)
			}
		})
	}

	t.Run("the null sender", func(t *testing.T) {
		sendmail(t, r.Postfix, www, letter("null", "From: shop@example.jp"), "-f", "", "null@example.net")
		if mail := wantArrived(t, r.Postfix, "null@example.net"); mail.MailFrom != "" {
			t.Errorf("arrived from <%s>", mail.MailFrom)
		}
		wantVerdict(t, r, "null", "accept", "", "local_user:www-data")
	})

	t.Run("an account without a name", func(t *testing.T) {
		sendmail(t, r.Postfix, 61234, letter("nameless", "From: x@example.jp"), "-f", "x@example.jp", "nameless@example.net")
		wantVerdict(t, r, "nameless", "accept", "", "local_user:uid:61234")
	})

	t.Run("sendmail -t with many recipients", func(t *testing.T) {
		to := rcpts("many", 100)
		sendmail(t, r.Postfix, www, letter("many", "From: shop@example.jp", "To: "+strings.Join(to[:60], ",\n "), "Bcc: "+strings.Join(to[60:], ",\n ")), "-t")
		for _, address := range to {
			if mail := wantArrived(t, r.Postfix, address); len(headerLines(mail, "Bcc")) > 0 {
				t.Fatalf("Bcc left the house: %q", mail.Data)
			}
		}
		if v := verdictOn(t, r, "many"); v.Recipients != 100 || v.Verdict != "accept" {
			t.Errorf("verdict %s", v.Raw)
		}
	})

	t.Run("more recipients than are read: held, not refused", func(t *testing.T) {
		to := rcpts("crowd", 120)
		sendmail(t, r.Postfix, www, letter("crowd", "From: shop@example.jp"), to...)
		held := wantHeld(t, r.Postfix, to[0])
		if len(held.Recipients) != 120 {
			t.Errorf("held for %d recipients, want 120", len(held.Recipients))
		}
		wantVerdict(t, r, "crowd", "hold", "recipient-count", "local_user:www-data")
	})

	t.Run("more header than is read: held, not refused", func(t *testing.T) {
		sendmail(t, r.Postfix, www, letter("wide", append(manyFields(1200), "From: shop@example.jp")...), "wide@example.net")
		wantHeld(t, r.Postfix, "wide@example.net")
	})

	t.Run("root's is held like anybody's", func(t *testing.T) {
		sendmail(t, r.Postfix, 0, letter("root", append([]string{"From: root@example.jp"}, manyFields(1200)...)...), "root@example.net")
		wantHeld(t, r.Postfix, "root@example.net")
	})

	t.Run("nothing is stuck", func(t *testing.T) {
		if err := r.WaitEmpty(soon(t)); err != nil {
			t.Error(err)
		}
		for _, l := range r.Verdicts(0) {
			if l.Stage != "message" {
				t.Errorf("local mail was answered at RCPT: %s", l.Raw)
			}
		}
	})
}

func TestSendmailWithoutUID(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{HideUID: true, Postfix: postfixtest.Options{Main: map[string]string{"smtp_header_checks": ""}}})
	for i, forged := range forgedUIDs {
		t.Run("forged uid "+forged.name, func(t *testing.T) {
			id := fmt.Sprintf("hidden-%d", i)
			sendmail(t, r.Postfix, www, letter(id, append(forged.fields, "From: shop@example.jp")...), "-f", "shop@example.jp", id+"@example.net")
			mail := wantArrived(t, r.Postfix, id+"@example.net")
			wantVerdict(t, r, id, "accept", "", "unknown")
			if left := headerLines(mail, "X-Relayguard"); len(left) > 0 {
				t.Errorf("left with the mail: %q", left)
			}
		})
	}
}

// The packages run the guard as an account of its own; here one without a name.
func TestGuardThatIsNotRoot(t *testing.T) {
	t.Parallel()
	const guardUID = 61235
	r := startRelay(t, relay.Options{UID: guardUID, Config: webNodes})

	t.Run("knows a login", func(t *testing.T) {
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "taro@example.jp", []string{"login@example.net"}, fromTaro("login"))
		wantArrived(t, r.Postfix, "login@example.net")
		wantVerdict(t, r, "login", "accept", "", "login:taro@example.jp")
	})

	t.Run("knows the inside domains from Postfix", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=203.0.113.7", "PORT=40001")
		sent := send(t, client, "", []string{"bounced@example.jp", "bounced@example.net"}, letter("bounce"))
		if got := codes(sent.Rcpts); !slices.Equal(got, []int{250, 530}) {
			t.Errorf("RCPTs got %v", got)
		}
	})

	t.Run("knows the uid behind sendmail and behind SMTP", func(t *testing.T) {
		sendmail(t, r.Postfix, www, letter("local", "From: shop@example.jp"), "-f", "shop@example.jp", "local@example.net")
		wantVerdict(t, r, "local", "accept", "", "local_user:www-data")
		client := dialAs(t, r.Postfix, relay.Relaying, www)
		wantCode(t, "EHLO", 250)(client.Ehlo("localhost"))
		sendAccepted(t, client, "shop@example.jp", []string{"smtp@example.net"}, letter("smtp", "From: shop@example.jp"))
		wantVerdict(t, r, "smtp", "accept", "", "local_user:www-data")
	})

	t.Run("never holds its own mail", func(t *testing.T) {
		wide := append([]string{"From: guard@example.jp"}, manyFields(1200)...)
		sendmail(t, r.Postfix, guardUID, letter("alert", wide...), "-f", "guard@example.jp", "alert@example.net")
		wantArrived(t, r.Postfix, "alert@example.net")
		sendmail(t, r.Postfix, www, letter("wide", wide...), "wide@example.net")
		wantHeld(t, r.Postfix, "wide@example.net")
	})

	t.Run("comes back after kill -9", func(t *testing.T) {
		if err := r.StopGuard(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := r.StartGuard(soon(t)); err != nil {
			t.Fatal(err)
		}
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		sendAccepted(t, client, "taro@example.jp", []string{"back@example.net"}, fromTaro("back"))
		wantArrived(t, r.Postfix, "back@example.net")
	})
}

// A uid header over SMTP is the client's own word, whoever it is.
func TestForgedUIDOverSMTP(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Postfix: postfixtest.Options{Main: map[string]string{"smtp_header_checks": ""}}})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	for i, forged := range forgedUIDs {
		id := fmt.Sprintf("smtp-%d", i)
		sendAccepted(t, client, "taro@example.jp", []string{id + "@example.net"}, letter(id, append(forged.fields, "From: taro@example.jp")...))
		if left := headerLines(wantArrived(t, r.Postfix, id+"@example.net"), "X-Relayguard"); len(left) > 0 {
			t.Errorf("%s: left with the mail: %q", forged.name, left)
		}
		wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
	}
	sendAccepted(t, client, "taro@example.jp", []string{"behind@example.net"},
		fromTaro("behind", append(manyFields(1200), "X-Relayguard-Uid: 0", "X-Relayguard-Uid: 1")...))
	release(t, r.Postfix, wantHeld(t, r.Postfix, "behind@example.net").QueueID)
	if left := headerLines(wantArrived(t, r.Postfix, "behind@example.net"), "X-Relayguard-Uid"); len(left) > 0 {
		t.Errorf("left with the mail: %q", left)
	}
}

// manyFields are n header fields.
func manyFields(n int) []string {
	fields := make([]string, n)
	for i := range fields {
		fields[i] = fmt.Sprintf("X-Field-%d: %d", i, i)
	}
	return fields
}
