package fleet_test

import (
	"fmt"
	"testing"

	"relayguard/limitstore/redis/redistest"
)

// The master dies, and Sentinels promote its replica: mail goes on all the time,
// and what was counted before and meanwhile is counted afterwards.
func TestAFleetOutlivesAFailover(t *testing.T) {
	t.Parallel()
	const taro = "taro@example.jp"
	s := redistest.Sentinel(t)
	f := startFleet(t, fleetOptions{relays: 2, sentinels: s, limits: perLogin("login-volume", "", "30/1h") + "[hold]\nrelease = false\n", redis: "share = 50\n"})
	for i, n := range f.relays {
		n.sends(taro, "before-"+nameOf(i), 5, "accept", "")
	}
	f.relays[0].order("suspend", "mallory@example.jp", "--reason", "password stolen")
	f.relays[1].waitRcpt("mallory@example.jp", 550)
	s.Replicated(t)
	s.Master.Kill()
	for i, n := range f.relays {
		client := n.login(taro)
		for m := range 6 {
			n.send(client, taro, fmt.Sprintf("between-%s-%d", nameOf(i), m), 1)
		}
	}
	for i, n := range f.relays {
		n.waitClean(nameOf(i))
	}
	if passed := f.passed(t, taro); passed != 22 {
		t.Errorf("%d recipients got mail, want all 22", passed)
	}
	f.wantUsed(t, taro, "login-volume", 22, 30)
	for i, n := range f.relays {
		n.sends(taro, "after-"+nameOf(i), 4, "accept", "")
	}
	f.relays[0].sends(taro, "over", 1, "hold", "login-volume")
	f.relays[0].order("resume", "mallory@example.jp", "--cause", "password changed")
	f.relays[1].waitRcpt("mallory@example.jp", 250)
}
