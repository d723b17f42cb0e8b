package fleet_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"relayguard/limitstore/redis/redistest"
)

// statusOf is what status says of Redis and of the other relays.
type statusOf struct {
	Store struct {
		OK        bool    `json:"ok"`
		Away      bool    `json:"away"`
		Share     float64 `json:"share"`
		Pending   int     `json:"pending"`
		Fallbacks int64   `json:"fallbacks"`
	} `json:"store"`
	Relays string `json:"relays"`
}

// The complaint: everything is allowed when Redis is down. Here each relay goes
// on by itself at its share of each limit, and what all of them pass stays within
// the bound that limitstore/redis states: with n relays, a limit of count and
// cap = floor(share * count),
//
//	max(cap, what it had passed itself) of each relay, at most count + (n-1) * cap.
func TestComplaintEverythingAllowedWhenRedisIsDown(t *testing.T) {
	t.Parallel()
	const (
		count   = 20
		share   = 30 // per cent
		capEach = count * share / 100
		relays  = 3
		bound   = count + (relays-1)*capEach
	)
	const nothingByItself = "[hold]\nrelease = false\n"
	f := startFleet(t, fleetOptions{limits: perLogin("login-volume", "", "20/1h") + nothingByItself, redis: fmt.Sprintf("share = %d\n", share)})
	for _, c := range []struct {
		name, login string
		cut         func(*redistest.Network)
		before      [relays]int   // recipients through each relay while Redis is there
		passed      [relays]int64 // through each in all
	}{
		{"its port is closed, and traffic was even", "taro@example.jp", (*redistest.Network).Refuse,
			[relays]int{2, 2, 2}, [relays]int64{capEach, capEach, capEach}},
		{"it is silent, and one relay had used the limit up", "hanako@example.jp", (*redistest.Network).Silence,
			[relays]int{count, 0, 0}, [relays]int64{count, capEach, capEach}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, n := range f.relays {
				if c.before[i] > 0 {
					n.sends(c.login, "before-"+c.login+nameOf(i), c.before[i], "accept", "")
				}
			}
			marks := f.marks()
			for _, n := range f.relays {
				c.cut(n.network)
			}
			// Every message is taken, passed or held, before its client gives up.
			for i, n := range f.relays {
				client := n.login(c.login)
				for m := range capEach + 4 {
					n.send(client, c.login, fmt.Sprintf("away-%s-%s-%d", c.login, nameOf(i), m), 1)
				}
			}
			sum := int64(0)
			for i, n := range f.relays {
				passed := n.passed(c.login)
				if sum += passed; passed != c.passed[i] {
					t.Errorf("relay %s passed %d, want %d", nameOf(i), passed, c.passed[i])
				}
			}
			if sum > bound {
				t.Errorf("%d passed in all, want at most %d", sum, bound)
			}
			for i, n := range f.relays {
				n.wantAway(nameOf(i), marks[i], share)
			}

			for _, n := range f.relays {
				n.network.Restore()
			}
			for i, n := range f.relays {
				n.waitBack(nameOf(i), marks[i])
			}
			f.wantUsed(t, c.login, "login-volume", sum, count) // what passed meanwhile is counted, too
			if sum >= count {
				f.relays[1].sends(c.login, "after-"+c.login, 1, "hold", "login-volume")
			}
		})
	}
}

// The network comes and goes in the middle of traffic, so that calls get lost in
// each direction.
func TestOvershootIsBoundedWhenTheNetworkFlaps(t *testing.T) {
	t.Parallel()
	const count, capEach, relays, taro = 40, 12, 3, "taro@example.jp"
	f := startFleet(t, fleetOptions{limits: perLogin("login-volume", "", "40/1h") + "[hold]\nrelease = false\n", redis: "share = 30\n"})
	var all sync.WaitGroup
	for c, client := range f.sessions(2*relays, taro) {
		n := f.relays[c%relays].network
		weather := map[int]func(){3 + c: n.Cut, 6 + c: n.Refuse, 10: n.Restore, 12 + c: n.Silence, 16 + c: n.Restore}
		all.Go(func() {
			for m := range 25 {
				if change := weather[m]; change != nil {
					change()
				}
				id := fmt.Sprintf("flap-%d-%d", c, m)
				if sent, err := client.Send(taro, rcpts(id, 1), letter(id, taro)); err != nil || !sent.Accepted() {
					t.Errorf("%s: %+v, %v", id, sent, err)
					return
				}
			}
		})
	}
	all.Wait()
	for i, n := range f.relays {
		n.network.Restore()
		n.waitClean(nameOf(i))
	}
	passed := f.passed(t, taro)
	if passed < capEach || passed > count+relays*capEach {
		t.Errorf("%d passed, want %d to %d", passed, capEach, count+relays*capEach)
	}
	used := f.relays[0].standingOf(taro, "login-volume").Windows[0].Used
	if used < passed {
		t.Errorf("%d passed, and Redis counts %d", passed, used)
	}
	f.wantUsed(t, taro, "login-volume", used, count)
}

// marks are where the relays' logs end now.
func (f *fleet) marks() (all []int) {
	for _, n := range f.relays {
		all = append(all, n.Mark())
	}
	return all
}

// What the log says of it.
const (
	saidAway   = "redis is away, this relay decides by its own buckets"
	saidBack   = "redis is back"
	saidApart  = "switches are not shared: Redis is away; what is ordered is in force here and goes to the other relays later"
	saidShared = "switches are shared again"
)

// wantAway checks that a relay says that Redis is away, in status, metrics and
// log, and that its log says so once, not with each message.
func (n *node) wantAway(name string, mark int, share float64) {
	n.t.Helper()
	s := ask[statusOf](n, "status").Store
	if !s.Away || s.OK || s.Share != share/100 || s.Fallbacks == 0 {
		n.t.Errorf("relay %s: status has %+v", name, s)
	}
	eventually(n.t, "status says that orders are not shared, too", func() bool { return ask[statusOf](n, "status").Relays != "" })
	code, text, _ := n.command("status")
	if code != 1 || !strings.Contains(text, "Redis is away since") || !strings.Contains(text, fmt.Sprintf("%g %%", share)) {
		n.t.Errorf("relay %s: status ends with %d and does not say so:\n%s", name, code, text)
	}
	n.wantMetrics(name, "relayguard_store_away 1", "relayguard_store_up 0", "relayguard_orders_shared 0")
	if strings.Contains(n.order("metrics"), "relayguard_store_fallback_steps_total 0\n") {
		n.t.Errorf("relay %s: no fallback in its metrics", name)
	}
	n.wantSaid(name, mark, saidAway, saidApart)
}

// wantSaid checks that each of these was said once since a mark, and nothing that
// is no line of the log.
func (n *node) wantSaid(name string, mark int, all ...string) {
	n.t.Helper()
	times := map[string]int{}
	for _, l := range n.Lines(mark) {
		times[l.Msg]++
		if l.Msg == "not JSON" {
			n.t.Errorf("relay %s: its log has %q", name, l.Raw)
		}
	}
	for _, msg := range all {
		if times[msg] != 1 {
			n.t.Errorf("relay %s said %d times: %s", name, times[msg], msg)
		}
	}
}

func (n *node) wantMetrics(name string, lines ...string) {
	n.t.Helper()
	text := n.order("metrics")
	for _, want := range lines {
		if !strings.Contains("\n"+text, "\n"+want+"\n") {
			n.t.Errorf("relay %s: its metrics have no %q:\n%s", name, want, text)
		}
	}
}

// waitClean waits until a relay is reconciled.
func (n *node) waitClean(name string) {
	n.t.Helper()
	eventually(n.t, "status of relay "+name+" is clean", func() bool {
		s := ask[statusOf](n, "status")
		return s.Store.OK && !s.Store.Away && s.Store.Pending == 0 && s.Relays == ""
	})
}

// waitBack is waitClean, and checks that nothing of it is left in status and
// metrics.
func (n *node) waitBack(name string, mark int) {
	n.t.Helper()
	n.waitClean(name)
	if _, text, _ := n.command("status"); strings.Contains(text, "Redis") {
		n.t.Errorf("relay %s: status still speaks of Redis:\n%s", name, text)
	}
	n.wantMetrics(name, "relayguard_store_away 0", "relayguard_store_up 1", "relayguard_orders_shared 1")
	n.wantSaid(name, mark, saidBack, saidShared)
}

// A relay that starts while Redis is away serves, and joins the others later.
func TestARelayThatStartsWithoutRedisJoinsLater(t *testing.T) {
	t.Parallel()
	const taro, hanako = "taro@example.jp", "hanako@example.jp"
	limits := perLogin("login-volume", "", "20/1h") + perLogin("strangers", "counts = \"first_time\"", "30/1d")
	f := startFleet(t, fleetOptions{relays: 2, limits: limits, redis: "share = 50\n", away: true})
	there, late := f.relays[0], f.relays[1]
	if s := ask[statusOf](late, "status"); !s.Store.Away || s.Relays == "" {
		t.Errorf("status %+v", s)
	}
	there.sends(taro, "there", 12, "accept", "")
	there.order("suspend", hanako, "--reason", "password stolen")
	late.sends(taro, "late", 8, "accept", "")
	late.sends(taro, "late-over", 3, "hold", "login-volume") // more than half of 20
	late.sends(hanako, "late-free", 1, "accept", "")         // it cannot know
	if there.itemsKey() == late.itemsKey() {
		t.Error("the relays had one key of digests before they met")
	}

	late.network.Restore()
	late.waitRcpt(hanako, 550)
	eventually(t, "the relays have one key of digests", func() bool { return there.itemsKey() == late.itemsKey() })
	eventually(t, "what passed meanwhile is counted", func() bool { return there.standingOf(taro, "login-volume").Windows[0].Used == 20 })
	late.waitClean("b")
	f.wantUsed(t, taro, "login-volume", 20, 20)
	late.order("resume", hanako, "--cause", "password changed")
	there.waitRcpt(hanako, 250)
	// Whom taro wrote to through the other relay is known here now.
	before := there.standingOf(hanako, "strangers").Windows[0].Used
	there.sends(hanako, "friends", 3, "accept", "")
	late.sendsTo(hanako, "friends-again", rcpts("friends", 3))
	if used := late.standingOf(hanako, "strangers").Windows[0].Used; used != before+3 {
		t.Errorf("%d first-time recipients, want 3 more than %d", used, before)
	}
}
