package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"relayguard/mta/smtptest"
)

// sessions of one login on each relay, and what each sends.
const (
	sessions   = 4
	perSession = 5
)

// A login that sends through all relays at once gets what the limit has, and not
// one more.
func TestAFleetLimitsAsOne(t *testing.T) {
	t.Parallel()
	const count = 40
	f := startFleet(t, fleetOptions{limits: perLogin("login-volume", "", "40/1h") + perLogin("login-month", "", "1000/31d")})

	t.Run("exactly its limit passes through all relays together, the rest is held with the reason", func(t *testing.T) {
		const taro = "taro@example.jp"
		f.sendAtOnce(t, taro, 1)
		if n := f.passed(t, taro); n != count {
			t.Errorf("%d recipients got mail, want exactly %d", n, count)
		}
		held := 0
		for i, n := range f.relays {
			n.sends(taro, "more-"+nameOf(i), 1, "hold", "login-volume")
			all := n.held("login:" + taro)
			held += len(all)
			if !slices.ContainsFunc(all, func(h heldMail) bool {
				return strings.HasPrefix(h.Reason, "40 of 40 recipients in 1h used by login:"+taro)
			}) ||
				slices.ContainsFunc(all, func(h heldMail) bool { return h.Rule != "login-volume" || h.Reason == "" }) {
				t.Errorf("relay %s holds %+v", nameOf(i), all)
			}
		}
		if want := 3*(sessions*perSession+1) - count; held != want {
			t.Errorf("%d messages are held, want %d", held, want)
		}
		f.wantUsed(t, taro, "login-volume", count, count)
		f.wantUsed(t, taro, "login-month", count, 1000)
	})

	t.Run("never more than its limit, whatever the sizes of its messages", func(t *testing.T) {
		const jiro = "jiro@example.jp"
		f.sendAtOnce(t, jiro, 3)
		passed := f.passed(t, jiro)
		if passed > count || passed < count-2 { // two may be left over for messages to three
			t.Errorf("%d recipients got mail, want %d", passed, count)
		}
		f.wantUsed(t, jiro, "login-volume", passed, count)
	})

	t.Run("every relay says 33 of 1000 used", func(t *testing.T) {
		const hanako = "hanako@example.jp"
		for i, n := range f.relays {
			n.sends(hanako, "count-"+nameOf(i), 11, "accept", "")
		}
		f.wantUsed(t, hanako, "login-month", 33, 1000)
		for _, n := range f.relays {
			for _, args := range [][]string{{"limits", "show", hanako}, {"limits", "list", "--account", hanako, "--top", "5"}} {
				text := n.order(args...)
				if !slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
					return strings.HasPrefix(line, "login-month") && strings.Contains(strings.Join(strings.Fields(line), " "), "33 1000")
				}) {
					t.Errorf("%q does not say 33 of 1000:\n%s", args, text)
				}
			}
		}
	})
}

// sendAtOnce has a login send through all relays at the same time, to one
// recipient and up to so many a message.
func (f *fleet) sendAtOnce(t *testing.T, login string, recipients int) {
	t.Helper()
	clients := f.sessions(sessions*len(f.relays), login)
	var all sync.WaitGroup
	for c, client := range clients {
		all.Go(func() {
			for m := range perSession {
				id := fmt.Sprintf("burst-%d-%d-%d", recipients, c, m)
				sent, err := client.Send(login, rcpts(id, 1+(c+m)%recipients), letter(id, login))
				if err != nil || !sent.Accepted() {
					t.Errorf("%s: %+v, %v", id, sent, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// sessions opens so many, on one relay after the other.
func (f *fleet) sessions(n int, login string) (all []*smtptest.Client) {
	for i := range n {
		all = append(all, f.relays[i%len(f.relays)].login(login))
	}
	return all
}

// One daemon is killed in the middle: its relay takes nothing, the others go on,
// and together they pass what the limit has.
func TestAFleetCountsOnWhenADaemonIsKilled(t *testing.T) {
	t.Parallel()
	const count, taro, victim = 60, "taro@example.jp", 1
	f := startFleet(t, fleetOptions{limits: perLogin("login-volume", "", "60/1h")})
	var taken [3]atomic.Int64
	var all sync.WaitGroup
	var stop atomic.Bool
	for c, client := range f.sessions(3*sessions, taro) {
		all.Go(func() {
			for m := 0; !stop.Load(); m++ {
				id := fmt.Sprintf("on-%d-%d", c, m)
				sent, err := client.Send(taro, rcpts(id, 1), letter(id, taro))
				switch {
				case err == nil && sent.Accepted():
					taken[c%3].Add(1)
				case c%3 != victim:
					t.Errorf("%s: %+v, %v", id, sent, err)
					return
				default: // tempfail, for want of the guard
					return
				}
			}
		})
	}
	eventually(t, "mail goes through the relay that is to be killed", func() bool { return taken[victim].Load() > 2 })
	if err := f.relays[victim].StopGuard(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	atKill := taken[0].Load() + taken[2].Load()
	eventually(t, "the others go on until the limit is full", func() bool {
		return taken[0].Load()+taken[2].Load() > atKill && len(f.relays[0].held("login:"+taro)) > 0
	})
	stop.Store(true)
	all.Wait()

	n := f.relays[victim]
	if err := n.StartGuard(soon(t)); err != nil {
		t.Fatal(err)
	}
	n.sends(taro, "back", 1, "hold", "login-volume")
	f.wantUsed(t, taro, "login-volume", count, count)
	// What was decided and not answered when the daemon died is charged, and its
	// client was told to try again: at most one message a session.
	if passed := f.passed(t, taro); passed > count || passed < count-sessions {
		t.Errorf("%d recipients got mail, want %d less at most %d whose charge died with the daemon", passed, count, sessions)
	}
}

// Whom a login wrote to through one relay is known to all.
func TestAFleetKnowsRecipientsTogether(t *testing.T) {
	t.Parallel()
	const taro = "taro@example.jp"
	f := startFleet(t, fleetOptions{relays: 2, limits: perLogin("strangers", "counts = \"first_time\"\nkind = \"abuse\"", "5/1d")})
	a, b := f.relays[0], f.relays[1]
	eventually(t, "the relays have one key of digests", func() bool { return a.itemsKey() == b.itemsKey() })
	to := func(n *node, id string, recipients ...string) string {
		t.Helper()
		sent, err := n.login(taro).Send(taro, recipients, letter(id, taro))
		if err != nil || !sent.Accepted() {
			t.Fatalf("%s: %+v, %v", id, sent, err)
		}
		return n.verdict(id).Verdict
	}
	friends := rcpts("friend", 4)
	if v := to(a, "first", friends...); v != "accept" {
		t.Fatalf("the first letter: %s", v)
	}
	f.wantUsed(t, taro, "strangers", 4, 5)
	for i := range friends {
		friends[i] = strings.ToUpper(friends[i])
	}
	if v := to(b, "again", friends...); v != "accept" {
		t.Errorf("to whom it knows from the other relay: %s", v)
	}
	f.wantUsed(t, taro, "strangers", 4, 5)
	if v := to(b, "many", rcpts("stranger", 2)...); v != "hold" {
		t.Errorf("one stranger too many: %s", v)
	}
	// Shut, it is shut to strangers only, on both.
	for id, n := range map[string]*node{"shut-a": a, "shut-b": b} {
		if v := to(n, id, "somebody@example.org"); v != "hold" {
			t.Errorf("a stranger, though the limit is shut: %s", v)
		}
		if v := to(n, id+"-friend", "friend-2@example.net"); v != "accept" {
			t.Errorf("an old friend, though the limit is shut: %s", v)
		}
	}
}
