package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// What an admin orders on one relay is in force on all. Redis lets them do no more
// than check says they must be able to.
func TestAFleetObeysAsOne(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetOptions{limits: perLogin("login-volume", "", "40/1h"),
		server: []string{leastUser}, redis: asUser + fmt.Sprintf("password_file = %q\n", passwordFile(t))})
	a, b, c := f.relays[0], f.relays[1], f.relays[2]

	t.Run("suspend on one relay stops new and queued mail on all, resume ends it everywhere", func(t *testing.T) {
		const taro = "taro@example.jp"
		b.Sink.Refuse("stuck-0@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.3.0 try later"}})
		b.sends(taro, "stuck", 1, "accept", "")
		if _, err := b.WaitQueue(soon(t), func(q postfixtest.Queued) bool { return q.QueueName == "deferred" && q.To("stuck-0@example.net") }); err != nil {
			t.Fatal(err)
		}
		a.order("suspend", taro, "--reason", "password stolen")
		for _, n := range f.relays {
			n.waitRcpt(taro, 550)
		}
		if _, err := b.WaitHeld(soon(t), "stuck-0@example.net"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the journal of relay b says why it holds that", func() bool {
			return slices.ContainsFunc(b.held("login:"+taro), func(h heldMail) bool { return h.Rule == "suspended" })
		})
		c.order("resume", taro, "--cause", "password changed")
		for _, n := range f.relays {
			n.waitRcpt(taro, 250)
			eventually(t, "half of the limit is left on every relay", func() bool { return n.countOf(taro, "login-volume") == 20 })
		}
	})

	t.Run("room for a mailing that one relay was told of is there on all, once", func(t *testing.T) {
		const jiro = "jiro@example.jp"
		a.sends(jiro, "full", 40, "accept", "")
		a.order("allow", "bulk", jiro, "--count", "10", "--for", "1h", "--reason", "bills")
		for _, n := range f.relays {
			eventually(t, "the mailing is known", func() bool { return n.countOf(jiro, "bulk") == 10 })
		}
		b.sends(jiro, "bills-b", 6, "accept", "")
		c.sends(jiro, "bills-c", 4, "accept", "")
		a.sends(jiro, "bills-a", 1, "hold", "login-volume")
	})

	t.Run("a limit that was set on one relay is in force on all", func(t *testing.T) {
		const saburo = "saburo@example.jp"
		a.order("limits", "set", "login-volume", saburo, "--windows", "5/1h", "--reason", "new customer")
		for _, n := range f.relays {
			eventually(t, "the limit is set", func() bool { return n.countOf(saburo, "login-volume") == 5 })
		}
		b.sends(saburo, "set-b", 3, "accept", "")
		c.sends(saburo, "set-c", 2, "accept", "")
		a.sends(saburo, "set-a", 1, "hold", "login-volume")
		if text := b.order("limits", "list", "--account", saburo); !strings.Contains(text, "login-volume") {
			t.Errorf("limits list:\n%s", text)
		}
		b.order("limits", "unset", "login-volume", saburo, "--reason", "known by now")
		for _, n := range f.relays {
			eventually(t, "the limit is as configured", func() bool { return n.countOf(saburo, "login-volume") == 40 })
		}
	})
}

// waitRcpt waits until a recipient of this login's mail gets that code.
func (n *node) waitRcpt(login string, code int) {
	n.t.Helper()
	client := n.login(login)
	defer client.Close()
	eventually(n.t, fmt.Sprintf("RCPT gets %d", code), func() bool {
		if _, err := client.Mail(login); err != nil {
			n.t.Fatal(err)
		}
		reply, err := client.Rcpt("somebody@example.net")
		if err != nil {
			n.t.Fatal(err)
		}
		if _, err := client.Rset(); err != nil {
			n.t.Fatal(err)
		}
		return reply.Code == code
	})
}

// An abuse limit that was tripped through one relay is shut on all, and opened on
// all by one resume.
func TestAFleetShutsAnAbuseLimitAsOne(t *testing.T) {
	t.Parallel()
	const mallory = "mallory@example.jp"
	f := startFleet(t, fleetOptions{limits: perLogin("login-abuse", "kind = \"abuse\"", "10/1h")})
	a, b, c := f.relays[0], f.relays[1], f.relays[2]
	a.sends(mallory, "before", 4, "accept", "")
	a.sends(mallory, "burst", 8, "hold", "login-abuse")
	b.sends(mallory, "shut-b", 1, "hold", "login-abuse")
	for i, n := range f.relays {
		if !n.standingOf(mallory, "login-abuse").Latched {
			t.Errorf("relay %s does not say that it is shut", nameOf(i))
		}
	}
	if opened := ask[struct{ Opened []string }](b, "resume", mallory, "--cause", "a form, mended").Opened; !slices.Equal(opened, []string{"login-abuse"}) {
		t.Errorf("opened %q", opened)
	}
	for _, n := range f.relays {
		eventually(t, "probation is known", func() bool { return n.countOf(mallory, "login-abuse") == 5 })
	}
	a.sends(mallory, "after-a", 4, "accept", "") // it counts from nothing again
	c.sends(mallory, "after-c", 1, "accept", "")
	b.sends(mallory, "after-b", 1, "hold", "login-abuse") // five of the half are used
	a.sends(mallory, "shut-again", 1, "hold", "login-abuse")
}
