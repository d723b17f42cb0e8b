package systemtest

import (
	"strings"
	"testing"
	"time"

	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

func TestDenyAndAllow(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: webNodes + perLogin("login-volume", "", "5/10m") + perUser("user-volume", "2/10m") + `
[[limit]]
name = "nodes"
per = "network"
windows = ["1/10m"]
`})
	at := func(ip, helo string) *smtptest.Client {
		client := strangerAt(t, r.Postfix, relay.Submission, "ADDR="+ip, "PORT=40001")
		wantCode(t, "EHLO", 250)(client.Ehlo(helo))
		wantCode(t, "AUTH", 235)(client.Auth("taro@example.jp", "secret"))
		return client
	}
	// rcpt asks for one recipient and gives the message up.
	rcpt := func(client *smtptest.Client, from, to string) int {
		t.Helper()
		wantCode(t, "MAIL", 250)(client.Mail(from))
		reply, err := client.Rcpt(to)
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, "RSET", 250)(client.Rset())
		return reply.Code
	}
	plainly, denied := at("203.0.113.20", "good.example.com"), func(what string, client *smtptest.Client, from, to string, want bool) {
		t.Helper()
		code := map[bool]int{true: 550, false: 250}[want]
		if got := rcpt(client, from, to); got != code {
			t.Errorf("%s: RCPT got %d, want %d", what, got, code)
		}
	}
	const taro, out = "taro@example.jp", "a@example.net"

	for _, c := range []struct {
		subject, value string
		client         *smtptest.Client
		from, to       string
		exception      []string // allow add
		free           *smtptest.Client
		freeFrom       string
	}{
		{"client", "203.0.113.7", at("203.0.113.7", "x.example.com"), taro, out, nil, plainly, taro},
		{"network", "203.0.114.0/24", at("203.0.114.7", "x.example.com"), taro, out, []string{"client", "203.0.114.9"}, at("203.0.114.9", "x.example.com"), taro},
		{"helo", ".bad.example.com", at("203.0.113.8", "x.bad.example.com"), taro, out, []string{"helo", "y.bad.example.com"}, at("203.0.113.8", "y.bad.example.com"), taro},
		{"mail-from", "@example.jp", plainly, taro, out, []string{"mail-from", "taro+news@example.jp"}, plainly, "taro+news@example.jp"},
		{"mail-from", taro, plainly, taro, out, nil, plainly, "taro+news@example.jp"},
		{"target-domain", "example.net", plainly, taro, out, nil, nil, ""},
	} {
		what := c.subject + " " + c.value
		order(t, r, 2, "deny", "add", c.subject, c.value) // without a reason
		denied(what+" before", c.client, c.from, c.to, false)
		order(t, r, 0, "deny", "add", c.subject, c.value, "--reason", "a test")
		denied(what, c.client, c.from, c.to, true)
		if c.exception != nil {
			denied(what+", the exception before it is one", c.free, c.freeFrom, c.to, true)
			order(t, r, 0, append(append([]string{"allow", "add"}, c.exception...), "--reason", "our customer")...)
			denied(what+", still", c.client, c.from, c.to, true)
		}
		if c.free != nil {
			denied(what+", the others", c.free, c.freeFrom, c.to, false)
		}
		if stdout, _ := order(t, r, 0, "deny", "list"); !strings.Contains(stdout, c.value) || !strings.Contains(stdout, "a test") {
			t.Errorf("deny list:\n%s", stdout)
		}
		if c.subject != "target-domain" {
			order(t, r, 0, "deny", "remove", c.subject+":"+c.value)
			denied(what+" removed", c.client, c.from, c.to, false)
		}
	}

	t.Run("one recipient is refused, the others get the message", func(t *testing.T) {
		sent := send(t, plainly, taro, []string{"a@example.net", "b@example.org"}, fromTaro("two"))
		if got := codes(sent.Rcpts); len(got) != 2 || got[0] != 550 || got[1] != 250 || !sent.Accepted() {
			t.Errorf("RCPTs got %v, end %v", got, sent.Data)
		}
		wantArrived(t, r.Postfix, "b@example.org")
		order(t, r, 0, "deny", "remove", "target-domain:example.net", "--reason", "over")
		order(t, r, 1, "deny", "remove", "target-domain:example.net")
	})

	t.Run("with a term it ends by itself", func(t *testing.T) {
		begin := time.Now()
		order(t, r, 0, "deny", "add", "client", "203.0.113.20", "--for", "10s", "--reason", "a moment")
		denied("with a term", plainly, taro, out, true)
		eventually(t, "its term is over", func() bool { return rcpt(plainly, taro, out) == 250 })
		if took := time.Since(begin); took < 10*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})

	t.Run("a rule is lifted for one account", func(t *testing.T) {
		never := func(client *smtptest.Client, from, id, rule, account string, n int) { // more than its windows have
			t.Helper()
			wantReply(t, id, send(t, client, from, rcpts(id, n), letter(id, "From: "+from)).Data, 550, "5.7.1")
			wantVerdict(t, r, id, "reject", rule, account)
		}
		order(t, r, 2, "allow", "add", "login", taro, "--reason", "which rule?")
		never(plainly, taro, "over", "login-volume", "login:"+taro, 6)
		order(t, r, 0, "allow", "add", "login", taro, "--rule", "login-volume", "--reason", "new year cards")
		sendAccepted(t, plainly, taro, rcpts("cards", 6), fromTaro("cards"))
		wantVerdict(t, r, "cards", "accept", "", "login:"+taro)
		hanako := loggedIn(t, r.Postfix, relay.Submission, "hanako@example.jp")
		never(hanako, "hanako@example.jp", "hers", "login-volume", "login:hanako@example.jp", 6)

		order(t, r, 0, "allow", "add", "local-user", "games", "--rule", "user-volume", "--reason", "scores")
		sendmail(t, r.Postfix, games, letter("scores", "From: g@example.jp"), append([]string{"-f", "g@example.jp"}, rcpts("scores", 3)...)...)
		sendmail(t, r.Postfix, news, letter("posts", "From: n@example.jp"), append([]string{"-f", "n@example.jp"}, rcpts("posts", 3)...)...)
		wantVerdict(t, r, "scores", "accept", "", "local_user:games")
		wantVerdict(t, r, "posts", "hold", "user-volume", "local_user:news")

		order(t, r, 0, "allow", "add", "trusted-network", "web", "--rule", "nodes", "--reason", "a sale")
		node := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=198.51.100.7", "PORT=40001")
		sendAccepted(t, node, "n@example.org", rcpts("web-node", 2), letter("web-node", "From: n@example.org"))
		wantVerdict(t, r, "web-node", "accept", "", "network:web")
		never(strangerAt(t, r.Postfix, relay.Relaying, "ADDR=198.51.100.9", "PORT=40001"), "n@example.org", "printer", "nodes", "network:printer", 2)

		order(t, r, 0, "allow", "remove", "login:"+taro)
		never(plainly, taro, "no-more", "login-volume", "login:"+taro, 6)
	})

	t.Run("local mail to a denied domain comes back", func(t *testing.T) {
		order(t, r, 0, "deny", "add", "target-domain", "example.org", "--reason", "a test")
		sendmail(t, r.Postfix, www, letter("www-denied", "From: w@example.jp"), "-f", "w@example.jp", "x@example.org")
		wantArrived(t, r.Postfix, "w@example.jp")
		wantVerdict(t, r, "www-denied", "reject", "denied", "local_user:www-data")
	})
	wantNothing(t, r.Postfix, "x@example.org", "over-0@example.net", "hers-0@example.net", "a@example.net")
	wantOnce(t, r.Postfix, "b@example.org", "cards-5@example.net", "scores-2@example.net", "web-node-1@example.net")
}
