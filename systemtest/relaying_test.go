package systemtest

import (
	"net"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

const webNodes = `
[[network]]
name = "web"
cidr = ["198.51.100.0/24", "2001:db8:77::/48"]
reason = "web nodes"
owner = "taro"

[[network]]
name = "printer"
cidr = ["198.51.100.9"]
reason = "cannot log in"
owner = "hanako"
`

func TestRelayService(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: webNodes, Postfix: postfixtest.Options{
		Main: map[string]string{"inet_protocols": "all"}, // it listens on IPv4 all the same
	}})

	for _, stranger := range []struct {
		name       string
		attributes []string
	}{
		{"stranger", []string{"ADDR=203.0.113.7", "PORT=40001"}},
		{"stranger without a port", []string{"ADDR=203.0.113.7"}},
		{"stranger with IPv6", []string{"ADDR=IPV6:2001:db8::7", "PORT=40001"}},
		{"neighbour of a trusted network", []string{"ADDR=198.51.101.1", "PORT=40001"}},
		{"stranger whose port is unknown", []string{"ADDR=203.0.113.7", "PORT=[UNAVAILABLE]"}},
		{"loopback whose port is unknown", []string{"ADDR=127.0.0.1", "PORT=[UNAVAILABLE]"}}, // as sendmail(1)'s mail comes, but over SMTP
		{"address unknown", []string{"ADDR=[UNAVAILABLE]"}},
		{"stranger that calls itself localhost", []string{"ADDR=203.0.113.7", "PORT=40001", "NAME=localhost", "HELO=localhost"}},
	} {
		t.Run("refused: "+stranger.name, func(t *testing.T) {
			client := strangerAt(t, r.Postfix, relay.Relaying, stranger.attributes...)
			wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
			for _, to := range []string{"a@example.net", "hanako@example.jp"} {
				reply, err := client.Rcpt(to)
				if err != nil {
					t.Fatal(err)
				}
				wantReply(t, "RCPT "+to, reply, 530, "5.7.0")
			}
		})
	}

	for _, trusted := range []struct{ name, account, addr string }{
		{"trusted network", "network:web", "198.51.100.7"},
		{"narrower network in it", "network:printer", "198.51.100.9"},
		{"IPv6 network", "network:web", "IPV6:2001:db8:77::1"},
	} {
		t.Run("taken without AUTH: "+trusted.name, func(t *testing.T) {
			id := "trusted-" + trusted.addr[len(trusted.addr)-1:] + trusted.account[8:]
			client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR="+trusted.addr, "PORT=40001")
			sendAccepted(t, client, "anybody@example.org", []string{id + "@example.net"}, letter(id, "From: anybody@example.org"))
			wantArrived(t, r.Postfix, id+"@example.net")
			wantVerdict(t, r, id, "accept", "", trusted.account)
			if v := verdictOn(t, r, id); v.Confidence != "address" || v.Network != trusted.account[8:] {
				t.Errorf("verdict %s", v.Raw)
			}
		})
	}

	t.Run("a login counts wherever it comes from", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=203.0.113.7", "PORT=40001")
		wantCode(t, "AUTH", 235)(client.Auth("taro@example.jp", "secret"))
		sendAccepted(t, client, "taro@example.jp", []string{"roaming@example.net"}, fromTaro("roaming"))
		wantArrived(t, r.Postfix, "roaming@example.net")
		wantVerdict(t, r, "roaming", "accept", "", "login:taro@example.jp")
	})

	t.Run("postmaster and abuse inside are for everybody, each for itself", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=203.0.113.7", "PORT=40001")
		to := []string{"postmaster@example.jp", "out@example.net", "ABUSE@Example.JP", "hanako@example.jp", "postmaster@example.net",
			"postmaster%example.net@example.jp", "abuse+x@example.jp"}
		sent := send(t, client, "x@example.org", to, letter("complaint", "From: x@example.org"))
		if got, want := codes(sent.Rcpts), []int{250, 530, 250, 530, 530, 530, 530}; !slices.Equal(got, want) || !sent.Accepted() {
			t.Fatalf("RCPTs %q got %v, want %v; end %v", to, got, want, sent.Data)
		}
		mail := wantArrived(t, r.Postfix, "postmaster@example.jp")
		wantArrived(t, r.Postfix, "ABUSE@Example.JP")
		if slices.Contains(mail.RcptTo, "out@example.net") {
			t.Errorf("arrived for %q", mail.RcptTo)
		}
		wantNothing(t, r.Postfix, "out@example.net", "hanako@example.jp")
		if v := verdictOn(t, r, "complaint"); v.Verdict != "accept" || v.Account != "unknown" || v.Recipients != 2 {
			t.Errorf("verdict %s", v.Raw)
		}
	})

	t.Run("a bounce to inside passes, the same bounce to outside does not", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=203.0.113.7", "PORT=40001")
		sent := send(t, client, "", []string{"bounced@example.jp", "bounced@example.net"}, letter("bounce", "From: MAILER-DAEMON@example.org"))
		if got := codes(sent.Rcpts); !slices.Equal(got, []int{250, 530}) || !sent.Accepted() {
			t.Fatalf("RCPTs got %v, end %v", got, sent.Data)
		}
		wantArrived(t, r.Postfix, "bounced@example.jp")
		wantNothing(t, r.Postfix, "bounced@example.net")
	})

	t.Run("SMTP from this machine is known by the client's uid", func(t *testing.T) {
		client := dialAs(t, r.Postfix, relay.Relaying, www)
		wantCode(t, "EHLO", 250)(client.Ehlo("localhost"))
		sendAccepted(t, client, "shop@example.jp", []string{"by-uid@example.net"}, letter("by-uid", "From: shop@example.jp", "X-Relayguard-Uid: 0"))
		wantVerdict(t, r, "by-uid", "accept", "", "local_user:www-data")
		if uid := headerLines(wantArrived(t, r.Postfix, "by-uid@example.net"), "X-Relayguard-Uid"); len(uid) > 0 {
			t.Errorf("left with the mail: %q", uid)
		}
	})

	t.Run("a loopback port that XCLIENT names is nobody's", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0") // root has it, but talks to somebody else
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		_, port, _ := net.SplitHostPort(taken.Addr().String())
		client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=127.0.0.1", "PORT="+port)
		wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
		wantCode(t, "RCPT", 530)(client.Rcpt("a@example.net"))
	})
}

// dialAs connects as another Unix account: the kernel gives a socket the file
// system uid of the thread that made it.
func dialAs(t *testing.T, p *postfixtest.Postfix, service string, uid int) *smtptest.Client {
	t.Helper()
	type dialled struct {
		client *smtptest.Client
		err    error
	}
	done := make(chan dialled)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		var d dialled
		if _, d.err = unix.SetfsuidRetUid(uid); d.err == nil {
			d.client, d.err = p.Dial(soon(t), service)
		}
		done <- d
	}()
	d := <-done
	if d.err != nil {
		t.Fatalf("connect as uid %d: %v", uid, d.err)
	}
	t.Cleanup(func() { d.client.Close() })
	return d.client
}

func TestInboundIsTheMTAsToJudge(t *testing.T) {
	t.Parallel()
	services := relay.Services()
	open := services[len(services)-1] // inbound, as it should never be
	open.Name, open.Options = "open", map[string]string{"smtpd_relay_restrictions": "check_recipient_access static:OK, reject"}
	r := startRelay(t, relay.Options{Postfix: postfixtest.Options{Services: append(services, open)}})

	t.Run("a stranger writes to inside", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, relay.Inbound, "ADDR=203.0.113.7", "PORT=40001")
		sendAccepted(t, client, "x@example.org", []string{"hanako@example.jp"}, letter("inward", "From: x@example.org"))
		wantArrived(t, r.Postfix, "hanako@example.jp")
		wantVerdict(t, r, "inward", "accept", "", "unknown")
	})

	t.Run("Postfix refuses to relay, the guard has no part in it", func(t *testing.T) {
		mark := r.Mark()
		client := strangerAt(t, r.Postfix, relay.Inbound, "ADDR=203.0.113.7", "PORT=40001")
		wantCode(t, "MAIL", 250)(client.Mail("x@example.org"))
		wantCode(t, "RCPT", 554)(client.Rcpt("a@example.net"))
		wantCode(t, "QUIT", 221)(client.Quit())
		if verdicts := r.Verdicts(mark); len(verdicts) > 0 {
			t.Errorf("verdict %s", verdicts[0].Raw)
		}
	})

	t.Run("an open relay is told", func(t *testing.T) {
		client := strangerAt(t, r.Postfix, "open", "ADDR=203.0.113.7", "PORT=40001")
		sendAccepted(t, client, "x@example.org", []string{"outward@example.net"}, letter("outward", "From: x@example.org"))
		wantArrived(t, r.Postfix, "outward@example.net")
		wantVerdict(t, r, "outward", "tell", "auth", "unknown")
	})
}
