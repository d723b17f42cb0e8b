package systemtest

import (
	"crypto/tls"
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

func TestTwentyMessagesOnOneConnection(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: "[address]\nenvelope = \"hold\"\nheader_from = \"reject\"\n"})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	for i := range 20 {
		id := fmt.Sprintf("m%d", i)
		to := []string{id + "@example.net"}
		switch i % 5 {
		case 0, 1:
			sendAccepted(t, client, "taro@example.jp", to, fromTaro(id))
		case 2: // held
			sendAccepted(t, client, "boss@example.org", to, fromTaro(id))
		case 3: // refused at its end
			wantReply(t, id, send(t, client, "taro@example.jp", to, letter(id, "From: boss@example.org")).Data, 550, "5.7.1")
		case 4: // given up, with a recipient that must not stay
			wantCode(t, "MAIL", 250)(client.Mail("boss@example.org"))
			wantCode(t, "RCPT", 250)(client.Rcpt("given-up@example.net"))
			wantCode(t, "RSET", 250)(client.Rset())
		}
	}
	wantCode(t, "QUIT", 221)(client.Quit())

	for i := range 20 {
		id := fmt.Sprintf("m%d", i)
		switch i % 5 {
		case 0, 1:
			wantArrived(t, r.Postfix, id+"@example.net")
			wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
		case 2:
			wantHeld(t, r.Postfix, id+"@example.net")
			wantVerdict(t, r, id, "hold", "envelope-address", "login:taro@example.jp")
		case 3:
			wantVerdict(t, r, id, "reject", "from-address", "login:taro@example.jp")
			wantNothing(t, r.Postfix, id+"@example.net")
		}
	}
	wantNothing(t, r.Postfix, "given-up@example.net")
	for _, l := range r.Verdicts(0) {
		if l.Recipients != 1 {
			t.Errorf("recipients of another message: %s", l.Raw)
		}
	}
}

// stages are how far a client gets in a dialogue, each after the one before.
func stages(t *testing.T, to string) []stage {
	reply := func(what string, code int, say func(c *smtptest.Client) (smtptest.Reply, error)) stage {
		return stage{what, func(c *smtptest.Client) { t.Helper(); wantCode(t, what, code)(say(c)) }}
	}
	raw := func(what, bytes string) stage {
		return stage{what, func(c *smtptest.Client) {
			if err := c.Write(bytes); err != nil {
				t.Fatal(err)
			}
		}}
	}
	return []stage{
		{"CONNECT", func(*smtptest.Client) {}},
		reply("EHLO", 250, func(c *smtptest.Client) (smtptest.Reply, error) { return c.Ehlo("client.example.org") }),
		reply("AUTH", 235, func(c *smtptest.Client) (smtptest.Reply, error) { return c.Auth("taro@example.jp", "secret") }),
		reply("MAIL", 250, func(c *smtptest.Client) (smtptest.Reply, error) { return c.Mail("taro@example.jp") }),
		reply("RCPT", 250, func(c *smtptest.Client) (smtptest.Reply, error) { return c.Rcpt(to) }),
		reply("DATA", 354, func(c *smtptest.Client) (smtptest.Reply, error) { return c.Cmd("DATA") }),
		raw("the middle of the header", "From: taro@example.jp\r\nSubj"),
		raw("the middle of the body", "ect: x\r\n\r\nHello\r\nWor"),
		raw("all but the final dot", "ld\r\n"),
		raw("the final dot", ".\r\n"),
	}
}

type stage struct {
	name string
	say  func(*smtptest.Client)
}

func TestClientThatVanishes(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	before := openSockets(t, r)
	var gone, complete []string
	for _, leave := range []struct {
		how string
		do  func(*smtptest.Client) error
	}{{"closes", (*smtptest.Client).Close}, {"resets", (*smtptest.Client).Reset}} {
		for end := range stages(t, "") {
			to := fmt.Sprintf("%s-%d@example.net", leave.how, end)
			all := stages(t, to)
			client, err := r.Dial(soon(t), relay.Submission)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all[:end+1] {
				s.say(client)
			}
			if err := leave.do(client); err != nil {
				t.Errorf("after %s: %v", all[end].name, err)
			}
			switch {
			case end < len(all)-1:
				gone = append(gone, to)
			case leave.how == "closes": // a reset may overtake the dot
				complete = append(complete, to)
			}
		}
	}

	for _, to := range complete { // nobody heard the 250, but the message was whole
		wantArrived(t, r.Postfix, to)
	}
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sendAccepted(t, client, "taro@example.jp", []string{"after@example.net"}, fromTaro("after"))
	wantCode(t, "QUIT", 221)(client.Quit())
	wantArrived(t, r.Postfix, "after@example.net")
	wantNothing(t, r.Postfix, gone...)

	// Postfix's idle processes keep no session, so the guard keeps no socket.
	ctx := soon(t)
	for openSockets(t, r) > before {
		if ctx.Err() != nil {
			t.Fatalf("%d sockets are open, %d were before any client", openSockets(t, r), before)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestRSETInEveryStage(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	for _, again := range []string{"RSET", "EHLO again.example.org"} {
		all := stages(t, "dropped@example.net")
		for end := 1; all[end].name != "DATA"; end++ {
			t.Run(again[:4]+" after "+all[end].name, func(t *testing.T) {
				client, err := r.Dial(soon(t), relay.Submission)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				for _, s := range all[:end+1] {
					s.say(client)
				}
				for range 2 {
					wantCode(t, again, 250)(client.Cmd("%s", again))
				}
				if end < 2 {
					wantCode(t, "AUTH", 235)(client.Auth("taro@example.jp", "secret"))
				}
				id := fmt.Sprintf("%s-%d", again[:4], end)
				sendAccepted(t, client, "taro@example.jp", []string{id + "@example.net"}, fromTaro(id))
				if mail := wantArrived(t, r.Postfix, id+"@example.net"); !slices.Equal(mail.RcptTo, []string{id + "@example.net"}) {
					t.Errorf("arrived for %q", mail.RcptTo)
				}
				wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
				if v := verdictOn(t, r, id); v.Recipients != 1 {
					t.Errorf("verdict %s", v.Raw)
				}
			})
		}
	}
	wantNothing(t, r.Postfix, "dropped@example.net")
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: `
[[certificate]]
subject = "web1.example.jp"
login = "web1@example.jp"

[[certificate]]
subject = "web2.example.jp"
issuer = "another authority"
login = "web2@example.jp"
`})
	foreign, err := postfixtest.NewAuthority("relayguard test authority") // of the same name
	if err != nil {
		t.Fatal(err)
	}

	t.Run("a mapped one stands for its login", func(t *testing.T) {
		client := shows(t, r, r.CA, "web1.example.jp")
		sendAccepted(t, client, "web1@example.jp", []string{"cert@example.net"}, letter("cert", "From: web1@example.jp"))
		wantVerdict(t, r, "cert", "accept", "", "login:web1@example.jp")
		if v := verdictOn(t, r, "cert"); v.LoginBy != "certificate" {
			t.Errorf("verdict %s", v.Raw)
		}
	})

	t.Run("and for no other's address", func(t *testing.T) {
		client := shows(t, r, r.CA, "web1.example.jp")
		sendAccepted(t, client, "taro@example.jp", []string{"cert-other@example.net"}, fromTaro("cert-other"))
		wantHeld(t, r.Postfix, "cert-other@example.net")
	})

	t.Run("AUTH goes before the certificate", func(t *testing.T) {
		client := shows(t, r, r.CA, "web1.example.jp")
		wantCode(t, "AUTH", 235)(client.Auth("taro@example.jp", "secret"))
		sendAccepted(t, client, "taro@example.jp", []string{"cert-auth@example.net"}, fromTaro("cert-auth"))
		wantVerdict(t, r, "cert-auth", "accept", "", "login:taro@example.jp")
	})

	for _, stranger := range []struct {
		name string
		ca   *postfixtest.Authority
		cn   string
	}{
		{"one that the configuration does not name", r.CA, "web9.example.jp"},
		{"one of another issuer than configured", r.CA, "web2.example.jp"},
		{"one that nobody verified", foreign, "web1.example.jp"},
		{"none", r.CA, ""},
	} {
		t.Run("a stranger's: "+stranger.name, func(t *testing.T) {
			client := shows(t, r, stranger.ca, stranger.cn)
			wantCode(t, "MAIL", 250)(client.Mail("web1@example.jp"))
			wantCode(t, "RCPT", 530)(client.Rcpt("a@example.net"))
		})
	}

	t.Run("a submission service asks for AUTH all the same", func(t *testing.T) {
		config := clientConfig(t, r.CA, r.CA, "web1.example.jp")
		client := greet(t, r.Postfix, relay.Submission)
		wantCode(t, "STARTTLS", 220)(client.StartTLS(config))
		wantCode(t, "EHLO", 250)(client.Ehlo("web1.example.jp"))
		wantCode(t, "MAIL", 250)(client.Mail("web1@example.jp"))
		wantCode(t, "RCPT", 530)(client.Rcpt("a@example.net"))
	})
}

func clientConfig(t *testing.T, server, issuer *postfixtest.Authority, cn string) *tls.Config {
	t.Helper()
	config, err := issuer.ClientConfig(cn)
	if err != nil {
		t.Fatal(err)
	}
	config.RootCAs = server.Pool()
	return config
}

// shows greets the relay service from elsewhere with a client certificate.
func shows(t *testing.T, r *relay.Relay, issuer *postfixtest.Authority, cn string) *smtptest.Client {
	t.Helper()
	client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=203.0.113.7", "PORT=40001")
	wantCode(t, "STARTTLS", 220)(client.StartTLS(clientConfig(t, r.CA, issuer, cn)))
	wantCode(t, "EHLO", 250)(client.Ehlo("web.example.org"))
	return client
}

func TestCommandsThatNobodyKnows(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	client, err := r.Dial(soon(t), relay.Submission)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	bogus := func() {
		t.Helper()
		for _, line := range []string{"FOO", "foo bar\x01", "MAIL", "RCPT TO:", "EXPN all", ""} {
			if reply, err := client.Cmd("%s", line); err != nil || reply.Code < 500 {
				t.Errorf("%q: %v, %v; want 5xx", line, reply, err)
			}
		}
	}
	for _, s := range stages(t, "bogus@example.net")[:5] {
		s.say(client)
		bogus()
	}
	wantCode(t, "end of message", 250)(client.Data(fromTaro("bogus")))
	wantArrived(t, r.Postfix, "bogus@example.net")
	wantVerdict(t, r, "bogus", "accept", "", "login:taro@example.jp")
	bogus()
	sendAccepted(t, client, "boss@example.org", []string{"guarded@example.net"}, fromTaro("guarded"))
	wantHeld(t, r.Postfix, "guarded@example.net")
}

func TestBDATGivenUp(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	begin := func(c *smtptest.Client) {
		wantCode(t, "MAIL", 250)(c.Mail("boss@example.org"))
		wantCode(t, "RCPT", 250)(c.Rcpt("dropped@example.net"))
		wantCode(t, "BDAT", 250)(c.Bdat("From: boss@example.org\r\nMessage-ID: <dropped>\r\n\r\nHal", false))
	}
	begin(client)
	wantCode(t, "RSET", 250)(client.Rset())
	sendAccepted(t, client, "taro@example.jp", []string{"next@example.net"}, fromTaro("next"))
	wantArrived(t, r.Postfix, "next@example.net")
	wantVerdict(t, r, "next", "accept", "", "login:taro@example.jp")

	begin(client)
	if err := client.Write("BDAT 1000 LAST\r\nless than that"); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	sendAccepted(t, loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp"), "taro@example.jp", []string{"last@example.net"}, fromTaro("last"))
	wantArrived(t, r.Postfix, "last@example.net")
	wantNothing(t, r.Postfix, "dropped@example.net")
}
