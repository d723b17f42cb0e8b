package fleet_test

import (
	"strings"
	"testing"
)

// Unix accounts of Debian: one that many sites share, and one of its own.
const (
	www   = 33
	games = 5
)

// Unix accounts of one name are two senders on two machines, unless the
// configuration says that the machines share their accounts.
func TestLocalUsersAreTheRelaysOwnOrShared(t *testing.T) {
	t.Parallel()
	const limits = "[[limit]]\nname = \"www\"\nper = \"shared_user\"\nwindows = [\"3/1h\"]\n\n[hold]\nrelease = false\n"
	f := startFleet(t, fleetOptions{relays: 2, limits: limits, redis: "local_users = \"own\"\n"})
	a, b := f.relays[0], f.relays[1]

	for i, n := range f.relays {
		n.submits("own-"+nameOf(i), 3, "accept", "")
		n.submits("own-over-"+nameOf(i), 1, "hold", "www")
	}
	a.order("suspend", "local_user:games", "--reason", "a hole in a game")
	a.order("suspend", "taro@example.jp", "--reason", "password stolen")
	b.waitRcpt("taro@example.jp", 550) // so orders have arrived
	if code := b.sendmail(games, "own-games", 1); code != 0 {
		t.Errorf("a suspension of a's account has sendmail(1) on b exit with %d", code)
	}

	for i, n := range f.relays {
		n.restart(limits+onRedis(i, "local_users = \"shared\"\n", n.network.Addr), func() {})
	}
	a.submits("shared-a", 2, "accept", "")
	b.submits("shared-b", 1, "accept", "")
	b.submits("shared-over-b", 1, "hold", "www")
	a.submits("shared-over-a", 1, "hold", "www")
	eventually(t, "the suspension is in force on both", func() bool { return b.sendmail(games, "shared-games", 1) == 75 })
}

// submits hands in a message of www-data by sendmail(1).
func (n *node) submits(id string, recipients int, verdict, rule string) {
	n.t.Helper()
	if code := n.sendmail(www, id, recipients); code != 0 {
		n.t.Fatalf("sendmail %s: status %d", id, code)
	}
	if v := n.verdict(id); v.Verdict != verdict || v.Rule != rule || v.Account != "local_user:www-data" {
		n.t.Errorf("%s: got %s by %q for %s, want %s by %q; %s", id, v.Verdict, v.Rule, v.Account, verdict, rule, v.Raw)
	}
}

// sendmail runs sendmail(1), and returns its status.
func (n *node) sendmail(uid int, id string, recipients int) int {
	n.t.Helper()
	const from = "www@example.jp"
	sent, err := n.Sendmail(soon(n.t), uid, append([]string{"-f", from}, rcpts(id, recipients)...), strings.NewReader(letter(id, from)))
	if err != nil {
		n.t.Fatalf("sendmail %s: %v", id, err)
	}
	return sent.ExitCode
}
