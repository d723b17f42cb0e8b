package systemtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// perLogin is a limit on logins with these windows.
func perLogin(name string, more string, windows ...string) string {
	return fmt.Sprintf("[[limit]]\nname = %q\nper = \"login\"\nwindows = [\"%s\"]\n%s\n", name, strings.Join(windows, `", "`), more)
}

// How many sessions one login has at once, and what it sends in each.
const (
	connections   = 50
	perConnection = 3
)

// sendInParallel has every client send so many messages, of one to three
// recipients each, at once. What was refused is no error: nothing is left out of
// the count by it.
func sendInParallel(t *testing.T, clients []*smtptest.Client, from, name string, messages int) (sent [][]string) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for c, client := range clients {
		all.Go(func() {
			for m := range messages {
				id := fmt.Sprintf("%s-%d-%d", name, c, m)
				to := rcpts(id, 1+(c+m)%3)
				transaction, err := client.Send(from, to, letter(id, "From: "+from))
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				if transaction.Accepted() {
					mu.Lock()
					sent = append(sent, to)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return sent
}

// logInAll opens so many sessions at once.
func logInAll(t *testing.T, r *relay.Relay, n int, login string) []*smtptest.Client {
	t.Helper()
	clients := make([]*smtptest.Client, n)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			client, err := r.Dial(soon(t), relay.Submission)
			if err != nil {
				t.Error(err)
				return
			}
			if reply, err := client.Ehlo("client.example.org"); err != nil || reply.Code != 250 {
				t.Errorf("EHLO: %v, %v", reply, err)
			}
			if reply, err := client.Auth(login, "secret"); err != nil || reply.Code != 235 {
				t.Errorf("AUTH: %v, %v", reply, err)
			}
			clients[i] = client
		})
	}
	all.Wait()
	t.Cleanup(func() {
		for _, c := range clients {
			if c != nil {
				c.Close()
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return clients
}

// deliveredTo counts the recipients that got mail, and checks that nobody got one
// twice.
func deliveredTo(t *testing.T, r *relay.Relay, sent [][]string) (n int) {
	t.Helper()
	if err := r.WaitEmpty(soon(t)); err != nil {
		t.Fatal(err)
	}
	got := recipientsAtSink(r.Postfix)
	for _, to := range sent {
		for _, address := range to {
			if got[address] > 1 {
				t.Errorf("%s got %d mails", address, got[address])
			}
			n += got[address]
		}
	}
	return n
}

func TestFiftyConnectionsOfOneLogin(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: perLogin("login-burst", "", "30/10m", "45/1h")})
	taro := logInAll(t, r, connections, "taro@example.jp")

	t.Run("pass what the limit has, and hold the rest", func(t *testing.T) {
		sent := sendInParallel(t, taro, "taro@example.jp", "burst", perConnection)
		delivered := deliveredTo(t, r, sent)
		// What is left beside the first that did not fit, to up to three, is its: all
		// others queue behind it.
		if delivered > 30 || delivered < 28 {
			t.Errorf("%d recipients got mail, want 30, or what a message to three leaves", delivered)
		}
		held, passed := 0, 0
		for _, h := range heldOf(t, r, "--login", "taro@example.jp") {
			held++
			if h.Rule != "login-burst" || h.Account != "login:taro@example.jp" {
				t.Errorf("held %+v", h)
			}
		}
		for _, d := range ask[[]decided](t, r, 0, "decisions", "--login", "taro@example.jp", "--verdict", "accept", "--limit", "500") {
			passed += d.Recipients
		}
		if len(sent) != perConnection*connections || passed != delivered {
			t.Errorf("%d messages of %d got 250; by the journal %d recipients passed", len(sent), perConnection*connections, passed)
		}
		if accepted := perConnection*connections - held; len(inHold(t, r.Postfix)) != held || accepted < 10 || accepted > 30 {
			t.Errorf("%d messages held by the journal, %d in the queue", held, len(inHold(t, r.Postfix)))
		}
		wantUsed(t, r, "taro@example.jp", "login-burst", int64(delivered))
		order(t, r, 0, "held", "delete", "--all", "--yes", "--reason", "the next test needs room")
	})

	t.Run("never pass more than an exact count over any interval allows", func(t *testing.T) {
		const perSecond, inAll = 12, 36
		// Deferred: behind what is held, everything would wait.
		reload(t, r, "enforce", perLogin("login-second", "then = \"defer\"", fmt.Sprintf("%d/1s", perSecond), fmt.Sprintf("%d/1h", inAll)))
		hanako := logInAll(t, r, 20, "hanako@example.jp")
		var sent [][]string
		for begin, limit := time.Now(), soon(t); time.Since(begin) < 2200*time.Millisecond || len(slices.Concat(sent...)) < 2*perSecond && limit.Err() == nil; {
			sent = append(sent, sendInParallel(t, hanako, "hanako@example.jp", fmt.Sprintf("second-%d", time.Since(begin).Milliseconds()), 1)...)
		}
		if n := deliveredTo(t, r, sent); n > inAll || n < 2*perSecond {
			t.Errorf("%d recipients got mail, want at most %d, and some after the first second", n, inAll)
		}
		passed := ask[[]decided](t, r, 0, "decisions", "--login", "hanako@example.jp", "--verdict", "accept", "--limit", "500")
		wantNeverMore(t, passed, time.Second, perSecond)
		wantNeverMore(t, passed, time.Hour, inAll)
	})

	t.Run("a limit on abuse stays shut until it is resumed", func(t *testing.T) {
		reload(t, r, "enforce", perLogin("login-abuse", "kind = \"abuse\"", "4/5s"))
		client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
		wantNow := func(id string, n int, verdict string) {
			t.Helper()
			sendAccepted(t, client, "taro@example.jp", rcpts(id, n), fromTaro(id))
			if v := verdictOn(t, r, id); v.Verdict != verdict {
				t.Errorf("%s: %s", id, v.Raw)
			}
		}
		wantNow("abuse-0", 4, "accept")
		wantNow("abuse-1", 1, "hold")
		time.Sleep(5400 * time.Millisecond) // the window, and a sixteenth
		wantNow("abuse-2", 1, "hold")
		if done := ask[struct{ Opened []string }](t, r, 0, "resume", "taro@example.jp", "--cause", "it was a list"); !slices.Equal(done.Opened, []string{"login-abuse"}) {
			t.Errorf("resume: %+v", done)
		}
		wantNow("abuse-3", 2, "accept") // half of four
	})
}

// wantNeverMore counts recipients over every interval that ends with a decision.
// The guard reads its clock before it has the bucket, so of decisions that race
// the later may have the earlier time: by less than 20 ms, which are left out.
func wantNeverMore(t *testing.T, passed []decided, window time.Duration, most int) {
	t.Helper()
	slices.SortFunc(passed, func(a, b decided) int { return a.Time.Compare(b.Time) })
	for end := range passed {
		n := 0
		for _, d := range passed[:end+1] {
			if passed[end].Time.Sub(d.Time) <= window-20*time.Millisecond {
				n += d.Recipients
			}
		}
		if n > most {
			t.Errorf("%d recipients within %v before %v, want at most %d", n, window, passed[end].Time, most)
		}
	}
}

func TestLimitsWhileLearning(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Phase: "learning", Config: perLogin("login-volume", "burst = \"5/10s\"", "8/1h")})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	one := func(id string) {
		t.Helper()
		sendAccepted(t, client, "taro@example.jp", []string{id + "@example.net"}, fromTaro(id))
	}
	start := time.Now()
	for i := range 6 {
		one(fmt.Sprintf("burst-%d", i))
	}
	if took := time.Since(start); took > 9*time.Second {
		t.Fatalf("six messages took %v: that is no burst", took)
	}
	for i := range 5 {
		wantVerdict(t, r, fmt.Sprintf("burst-%d", i), "accept", "", "login:taro@example.jp")
	}
	wantVerdict(t, r, "burst-5", "hold", "login-volume", "login:taro@example.jp")
	wantHeld(t, r.Postfix, "burst-5@example.net")

	// What the burst held goes by itself. The hour has room for two more; what is over
	// it is told, and passes.
	wantArrived(t, r.Postfix, "burst-5@example.net")
	time.Sleep(10700 * time.Millisecond) // the burst's window, and a sixteenth
	for i := range 3 {
		one(fmt.Sprintf("hour-%d", i))
	}
	for i := range 2 {
		wantVerdict(t, r, fmt.Sprintf("hour-%d", i), "accept", "", "login:taro@example.jp")
	}
	wantVerdict(t, r, "hour-2", "tell", "login-volume", "login:taro@example.jp")
	wantOnce(t, r.Postfix, "burst-0@example.net", "burst-5@example.net", "hour-0@example.net", "hour-2@example.net")
	stdout, _ := order(t, r, 1, "status")
	if want := "learning: bursts and abuse limits act"; !strings.Contains(stdout, want) {
		t.Errorf("status does not say %q:\n%s", want, stdout)
	}
}

const games = 5 // a Unix account of Debian that many sites do not share

// Mail of each kind of key, each under its own limit.
func TestLimitsOfOtherKeys(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Postfix: postfixtest.Options{Main: map[string]string{"inet_protocols": "all"}}, Config: webNodes + `
[[limit]]
name = "user"
per = "local_user"
windows = ["3/10m"]

[[limit]]
name = "shared"
per = "shared_user"
windows = ["5/10m"]

[[limit]]
name = "node"
per = "machine"
windows = ["3/10m"]
then = "defer"

[[limit]]
name = "all-nodes"
per = "network"
counts = "messages"
windows = ["5/10m"]
then = "reject"

[[limit]]
name = "domain"
per = "sender_domain"
windows = ["9/10m"]

[[limit]]
name = "whole"
per = "server"
windows = ["40/1h"]
`})
	for _, local := range []struct {
		uid           int
		id            string
		recipients    int
		verdict, rule string
		account       string
	}{
		{games, "u1", 3, "accept", "", "local_user:games"},
		{games, "u2", 1, "hold", "user", "local_user:games"},
		{www, "w1", 4, "accept", "", "local_user:www-data"},
		{www, "w2", 1, "accept", "", "local_user:www-data"},
		{www, "w3", 1, "hold", "shared", "local_user:www-data"},
	} {
		from := "x@" + local.id + ".example.jp"
		sendmail(t, r.Postfix, local.uid, letter(local.id, "From: "+from), append([]string{"-f", from}, rcpts(local.id, local.recipients)...)...)
		wantVerdict(t, r, local.id, local.verdict, local.rule, local.account)
	}

	node := func(ip string) *smtptest.Client {
		return strangerAt(t, r.Postfix, relay.Relaying, "ADDR="+ip, "PORT=40001")
	}
	first := node("198.51.100.1")
	sendAccepted(t, first, "n@n.example.jp", rcpts("n1", 3), letter("n1"))
	if reply := send(t, first, "n@n.example.jp", rcpts("n2", 1), letter("n2")).Refusal(); reply.Code != 451 {
		t.Errorf("a machine over its limit got %v, want 451", reply)
	}
	for i, ip := range []string{"198.51.100.2", "198.51.100.3", "IPV6:2001:db8:77::1", "IPV6:2001:db8:77::2"} { // the last two are one
		id := fmt.Sprintf("n%d", 3+i)
		sendAccepted(t, node(ip), "n@n.example.jp", rcpts(id, 1), letter(id))
	}
	if reply := send(t, node("198.51.100.4"), "m@m.example.jp", rcpts("n7", 1), letter("n7")).Refusal(); reply.Code != 550 {
		t.Errorf("a network over its limit got %v, want 550", reply)
	}
	if n := used(t, r, "network:web", "all-nodes"); n != 5 {
		t.Errorf("the network has used %d messages, want 5", n)
	}

	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sendAccepted(t, client, "taro@example.jp", rcpts("d1", 9), fromTaro("d1"))
	sendAccepted(t, client, "taro@example.jp", rcpts("d2", 1), fromTaro("d2"))
	wantVerdict(t, r, "d2", "hold", "domain", "login:taro@example.jp")
	sendAccepted(t, client, "", rcpts("d3", 7), letter("d3")) // of no domain
	sendAccepted(t, client, "", rcpts("d4", 10), letter("d4"))
	wantVerdict(t, r, "d3", "tell", "from-address", "login:taro@example.jp")
	wantVerdict(t, r, "d4", "hold", "whole", "login:taro@example.jp")
	wantOnce(t, r.Postfix, slices.Concat(rcpts("u1", 3), rcpts("w1", 4), rcpts("w2", 1), rcpts("n1", 3), rcpts("d1", 9), rcpts("d3", 7))...)
	wantNothing(t, r.Postfix, slices.Concat(rcpts("u2", 1), rcpts("w3", 1), rcpts("n2", 1), rcpts("n7", 1), rcpts("d2", 1), rcpts("d4", 10))...)
}
