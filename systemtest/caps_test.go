package systemtest

import (
	"fmt"
	"strings"
	"testing"

	"relayguard/systemtest/relay"
)

func TestHoldingHasACap(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", "2/10m") + perUser("user-volume", "2/10m") + "[hold]\norigin_messages = 3\n"})
	taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	hanako := loggedIn(t, r.Postfix, relay.Submission, "hanako@example.jp")
	one := func(id string) {
		t.Helper()
		sendAccepted(t, taro, "taro@example.jp", rcpts(id, 1), fromTaro(id))
	}

	t.Run("over SMTP the login is told at RCPT, others flow", func(t *testing.T) {
		for i := range 5 {
			one(fmt.Sprintf("t%d", i))
		}
		for _, to := range []string{"a@example.net", "b@example.org"} {
			wantCode(t, "MAIL", 250)(taro.Mail("taro@example.jp"))
			reply, err := taro.Rcpt(to)
			if err != nil {
				t.Fatal(err)
			}
			wantReply(t, "RCPT "+to, reply, 452, "4.3.1")
			wantCode(t, "RCPT postmaster", 250)(taro.Rcpt("postmaster@example.jp"))
			wantCode(t, "RSET", 250)(taro.Rset())
		}
		sendAccepted(t, hanako, "hanako@example.jp", rcpts("neighbour", 2), letter("neighbour", "From: hanako@example.jp"))
		wantArrived(t, r.Postfix, "neighbour-1@example.net")
		if held := heldOf(t, r, "--login", "taro@example.jp"); len(held) != 3 {
			t.Errorf("%d held, want 3", len(held))
		}
	})

	t.Run("local mail comes back to its sender", func(t *testing.T) {
		for i := range 6 {
			id := fmt.Sprintf("l%d", i)
			sendmail(t, r.Postfix, games, letter(id, "From: g@example.jp"), "-f", "g@example.jp", rcpts(id, 1)[0])
			verdictOn(t, r, id) // one after another
		}
		wantVerdict(t, r, "l4", "hold", "user-volume", "local_user:games")
		wantVerdict(t, r, "l5", "reject", "hold-cap", "local_user:games")
		bounce := wantArrived(t, r.Postfix, "g@example.jp")
		if bounce.MailFrom != "" || !strings.Contains(string(bounce.Data), "l5-0@example.net") {
			t.Errorf("from <%s> came back:\n%s", bounce.MailFrom, bounce.Data)
		}
		sendmail(t, r.Postfix, news, letter("n0", "From: n@example.jp"), "-f", "n@example.jp", rcpts("n0", 1)[0])
		wantArrived(t, r.Postfix, "n0-0@example.net")
	})

	t.Run("once something left there is room again", func(t *testing.T) {
		out := ask[outcome](t, r, 0, "held", "release", "--login", "taro@example.jp", "--limit", "1", "--yes")
		if out.Counts["done"] != 1 {
			t.Fatalf("released: %+v", out)
		}
		one("again")
		if _, err := r.WaitHeld(soon(t), "again-0@example.net"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "MAIL", 250)(taro.Mail("taro@example.jp"))
		wantCode(t, "RCPT", 452)(taro.Rcpt("a@example.net"))
	})

	if held := len(inHold(t, r.Postfix)); held != 3+3 {
		t.Errorf("%d messages in the hold queue, want 3 of each", held)
	}
	wantOnce(t, r.Postfix, "t0-0@example.net", "t1-0@example.net", "neighbour-0@example.net", "l0-0@example.net", "l1-0@example.net", "g@example.jp")
}
