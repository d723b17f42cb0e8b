package fleet_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/limitstore/redis/redistest"
	"relayguard/systemtest/relay"
)

// Budgets, shut limits and known recipients go with a relay from SQLite to Redis
// and back: nobody gets a fresh budget by it.
func TestBudgetsMoveBetweenStores(t *testing.T) {
	t.Parallel()
	limits := perLogin("login-volume", "", "20/1h") + perLogin("strangers", "counts = \"first_time\"", "30/1d") +
		perLogin("login-abuse", "kind = \"abuse\"\nwhen = { origins = [\"login:mallory@example.jp\"] }", "5/1h") +
		"[hold]\nrelease = false\n"
	const taro, hanako, mallory = "taro@example.jp", "hanako@example.jp", "mallory@example.jp"
	n := &node{Relay: relay.StartTest(t, relayOptions(limits)), t: t}
	n.sends(taro, "full", 20, "accept", "")
	n.sends(mallory, "burst", 6, "hold", "login-abuse")
	friends := rcpts("friend", 5)
	n.sendsTo(hanako, "friends", friends)
	budgets := filepath.Join(n.StateDir(), "budgets.jsonl")

	for i, store := range []string{onRedis(0, "", redistest.Server(t).Addr), "\n[store]\nkind = \"sqlite\"\n"} {
		name := []string{"redis", "sqlite"}[i]
		if err := os.WriteFile(budgets, []byte(n.order("limits", "export")), 0o600); err != nil {
			t.Fatal(err)
		}
		n.restart(limits+store, n.forgetBudgets)
		if used := n.standingOf(taro, "login-volume").Windows[0].Used; used != 0 {
			t.Fatalf("%s: %d are used before the import", name, used)
		}
		n.order("limits", "import", budgets)
		for limit, want := range map[string]int64{"login-volume": 20, "strangers": 20} {
			if used := n.standingOf(taro, limit).Windows[0].Used; used != want {
				t.Errorf("%s: %d used of %s, want %d", name, used, limit, want)
			}
		}
		n.sends(taro, "over-"+name, 1, "hold", "login-volume")
		n.sends(mallory, "shut-"+name, 1, "hold", "login-abuse")
		n.sendsTo(hanako, "friends-"+name, friends)
		if used := n.standingOf(hanako, "strangers").Windows[0].Used; used != 5 {
			t.Errorf("%s: %d recipients count as strangers, want the five of the first letter", name, used)
		}
	}
}

// sendsTo sends a message that passes.
func (n *node) sendsTo(login, id string, to []string) {
	n.t.Helper()
	client := n.login(login)
	defer client.Close()
	sent, err := client.Send(login, to, letter(id, login))
	if err != nil || !sent.Accepted() {
		n.t.Fatalf("%s: %+v, %v", id, sent, err)
	}
	if v := n.verdict(id); v.Verdict != "accept" {
		n.t.Errorf("%s: %s", id, v.Raw)
	}
}

// restart starts the daemon with another configuration; meanwhile is done while
// it does not run.
func (n *node) restart(config string, meanwhile func()) {
	n.t.Helper()
	if err := n.StopGuard(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	meanwhile()
	if err := n.WriteConfig("enforce", config); err != nil {
		n.t.Fatal(err)
	}
	if err := n.StartGuard(soon(n.t)); err != nil {
		n.t.Fatal(err)
	}
}

// forgetBudgets deletes what SQLite has of them.
func (n *node) forgetBudgets() {
	n.t.Helper()
	files, err := os.ReadDir(n.StateDir())
	if err != nil {
		n.t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f os.DirEntry) bool { return !strings.HasPrefix(f.Name(), "limits.db") })
	for _, f := range files {
		if err := os.Remove(filepath.Join(n.StateDir(), f.Name())); err != nil {
			n.t.Fatal(err)
		}
	}
}
