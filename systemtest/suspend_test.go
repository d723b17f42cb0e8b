package systemtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

const news = 9 // another Unix account of Debian

// suspended is what suspend reports, resumed what resume does.
type (
	suspended struct {
		Held    int      `json:"held"`
		Local   string   `json:"local"`
		Remarks []string `json:"remarks"`
	}
	resumed struct {
		Was       bool   `json:"was"`
		Probation string `json:"probation"`
		Held      int    `json:"held"`
	}
)

// waitDeferred waits until so many messages are deferred.
func waitDeferred(t *testing.T, p *postfixtest.Postfix, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages are deferred", n), func() bool {
		queue, err := p.QueueList(soon(t))
		return err == nil && n == len(slices.DeleteFunc(queue, func(q postfixtest.Queued) bool { return q.QueueName != "deferred" }))
	})
}

func TestSuspend(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", "10/10m")})
	taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	hanako := loggedIn(t, r.Postfix, relay.Submission, "hanako@example.jp")
	fromHanako := func(id string) string { return letter(id, "From: hanako@example.jp") }

	sendAccepted(t, taro, "taro@example.jp", rcpts("before", 1), fromTaro("before"))
	wantArrived(t, r.Postfix, "before-0@example.net")
	for i := range 3 {
		id := fmt.Sprintf("stuck-%d", i)
		r.Sink.Refuse(id+"-0@example.net", tempfail)
		sendAccepted(t, taro, "taro@example.jp", rcpts(id, 1), fromTaro(id))
	}
	r.Sink.Refuse("neighbour-0@example.net", tempfail)
	sendAccepted(t, hanako, "hanako@example.jp", rcpts("neighbour", 1), fromHanako("neighbour"))
	waitDeferred(t, r.Postfix, 4)

	t.Run("holds what is deferred", func(t *testing.T) {
		order(t, r, 2, "suspend", "taro@example.jp") // without a reason
		s := ask[suspended](t, r, 0, "suspend", "taro@example.jp", "--reason", "password stolen")
		if s.Held != 3 || len(s.Remarks) != 0 {
			t.Errorf("suspend: %+v", s)
		}
		held := heldOf(t, r, "--account", "login:taro@example.jp")
		for _, h := range held {
			if h.Rule != "suspended" || !strings.Contains(h.Reason, "password stolen") || h.ID == "" {
				t.Errorf("held %+v", h)
			}
		}
		if len(held) != 3 || len(inHold(t, r.Postfix)) != 3 {
			t.Errorf("%d held by the journal, %d in the queue, want 3", len(held), len(inHold(t, r.Postfix)))
		}
		waitDeferred(t, r.Postfix, 1)
		e := ask[[]explained](t, r, 0, "explain", held[0].QueueID)
		if len(e) != 1 || e[0].Suspended == nil || e[0].Decision == nil || e[0].Decision.Verdict != "accept" || len(e[0].Held) != 1 {
			t.Errorf("explain: %+v", e)
		}
	})

	t.Run("refuses new mail at every RCPT, and no neighbour's", func(t *testing.T) {
		for name, client := range map[string]string{"the old session": "", "a new session": "new"} {
			c := taro
			if client != "" {
				c = loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
			}
			wantCode(t, "MAIL", 250)(c.Mail("taro@example.jp"))
			for _, to := range []string{"a@example.net", "b@example.net", "hanako@example.jp"} {
				reply, err := c.Rcpt(to)
				if err != nil {
					t.Fatal(err)
				}
				wantReply(t, name+": RCPT "+to, reply, 550, "5.7.1")
			}
			wantCode(t, "RCPT postmaster", 250)(c.Rcpt("postmaster@example.jp"))
			wantCode(t, "RSET", 250)(c.Rset())
		}
		sendAccepted(t, hanako, "hanako@example.jp", rcpts("free", 1), fromHanako("free"))
		wantArrived(t, r.Postfix, "free-0@example.net")
		sendAccepted(t, hanako, "hanako@example.jp", []string{"taro@example.jp"}, fromHanako("to-taro")) // he still gets mail
		wantArrived(t, r.Postfix, "taro@example.jp")
	})

	t.Run("status names who is suspended", func(t *testing.T) {
		stdout, _ := order(t, r, 0, "status")
		for _, want := range []string{"taro@example.jp", "password stolen"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("status does not say %q:\n%s", want, stdout)
			}
		}
	})

	t.Run("ends with resume, on probation", func(t *testing.T) {
		order(t, r, 2, "resume", "taro@example.jp") // without a cause
		done := ask[resumed](t, r, 0, "resume", "taro@example.jp", "--cause", "password changed")
		if !done.Was || done.Held != 3 || !strings.Contains(done.Probation, "half of each limit") {
			t.Errorf("resume: %+v", done)
		}
		// Four of ten were used before; of five there is one left.
		for i, verdict := range []string{"accept", "hold"} {
			id := fmt.Sprintf("probation-%d", i)
			sendAccepted(t, taro, "taro@example.jp", rcpts(id, 1), fromTaro(id))
			if v := verdictOn(t, r, id); v.Verdict != verdict {
				t.Errorf("%s: %s", id, v.Raw)
			}
		}
		for i := range 3 {
			r.Sink.Refuse(fmt.Sprintf("stuck-%d-0@example.net", i), nothing)
		}
		out := ask[outcome](t, r, 0, "held", "release", "--account", "login:taro@example.jp", "--rule", "suspended", "--yes")
		if out.Counts["done"] != 3 {
			t.Errorf("released: %+v", out)
		}
		for i := range 3 {
			wantArrived(t, r.Postfix, fmt.Sprintf("stuck-%d-0@example.net", i))
		}
		order(t, r, 1, "resume", "taro@example.jp", "--cause", "once more")
	})

	t.Run("ends by itself where it has a term", func(t *testing.T) {
		if s := ask[suspended](t, r, 0, "suspend", "hanako@example.jp", "--for", "10s", "--reason", "a moment"); s.Held != 1 {
			t.Errorf("suspend: %+v", s)
		}
		wantCode(t, "MAIL", 250)(hanako.Mail("hanako@example.jp"))
		wantCode(t, "RCPT", 550)(hanako.Rcpt("a@example.net"))
		eventually(t, "the term is over", func() bool {
			reply, err := hanako.Rcpt("a@example.net")
			return err == nil && reply.Code == 250
		})
		wantCode(t, "RSET", 250)(hanako.Rset())
	})

	r.Sink.Refuse("neighbour-0@example.net", nothing)
	order(t, r, 0, "held", "release", "--login", "hanako@example.jp") // her one message, which waits for an admin
	wantArrived(t, r.Postfix, "neighbour-0@example.net")
	wantOnce(t, r.Postfix, "before-0@example.net", "stuck-0-0@example.net", "stuck-1-0@example.net", "stuck-2-0@example.net",
		"neighbour-0@example.net", "free-0@example.net", "taro@example.jp")
	wantNothing(t, r.Postfix, "probation-1-0@example.net")
}

func TestSuspendUnixAccounts(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})

	t.Run("of a Unix account has sendmail(1) refuse it alone", func(t *testing.T) {
		s := ask[suspended](t, r, 0, "suspend", "local_user:games", "--reason", "a hole in a game")
		if !strings.Contains(s.Local, "75") {
			t.Errorf("suspend: %+v", s)
		}
		sent, err := r.Sendmail(soon(t), games, []string{"-f", "g@example.jp", "g@example.net"}, strings.NewReader(letter("games")))
		if err != nil || sent.ExitCode != 75 {
			t.Errorf("sendmail as games: %+v, %v; want status 75", sent, err)
		}
		sendmail(t, r.Postfix, news, letter("news"), "-f", "n@example.jp", "news@example.net")
		sendmail(t, r.Postfix, 0, letter("root"), "-f", "root@example.jp", "root@example.net")
		wantArrived(t, r.Postfix, "news@example.net")
		wantArrived(t, r.Postfix, "root@example.net")
	})

	t.Run("of an account that many share holds its mail", func(t *testing.T) {
		s := ask[suspended](t, r, 0, "suspend", "local_user:www-data", "--reason", "a hole in a plugin")
		if !strings.Contains(s.Local, "held") {
			t.Errorf("suspend: %+v", s)
		}
		sendmail(t, r.Postfix, www, letter("www"), "-f", "w@example.jp", "www@example.net")
		if _, err := r.WaitHeld(soon(t), "www@example.net"); err != nil {
			t.Fatal(err)
		}
		wantVerdict(t, r, "www", "hold", "suspended", "local_user:www-data")
	})

	t.Run("ends with resume", func(t *testing.T) {
		for _, user := range []string{"local_user:games", "local_user:www-data"} {
			ask[resumed](t, r, 0, "resume", user, "--cause", "mended")
		}
		sendmail(t, r.Postfix, games, letter("games-again"), "-f", "g@example.jp", "games-again@example.net")
		sendmail(t, r.Postfix, www, letter("www-again"), "-f", "w@example.jp", "www-again@example.net")
		wantArrived(t, r.Postfix, "games-again@example.net")
		wantArrived(t, r.Postfix, "www-again@example.net")
	})

	t.Run("ends by itself where it has a term", func(t *testing.T) {
		ask[suspended](t, r, 0, "suspend", "local_user:news", "--for", "1s", "--reason", "a moment")
		eventually(t, "sendmail(1) takes the account's mail again", func() bool {
			sent, err := r.Sendmail(soon(t), news, []string{"-f", "n@example.jp", "news-again@example.net"}, strings.NewReader(letter("news-again")))
			return err == nil && sent.ExitCode == 0
		})
		wantArrived(t, r.Postfix, "news-again@example.net")
	})
	wantOnce(t, r.Postfix, "news@example.net", "root@example.net", "games-again@example.net", "www-again@example.net", "news-again@example.net")
	wantNothing(t, r.Postfix, "www@example.net", "g@example.net")
}
