package systemtest

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// line is held mail that waits for one bucket, as held pace list tells of it.
type line struct {
	Limit    string    `json:"limit"`
	Key      string    `json:"key"`
	Account  string    `json:"account"`
	Waiting  int       `json:"waiting"`
	QueueID  string    `json:"queue_id"`
	NextFree time.Time `json:"next_free"`
	Stopped  string    `json:"stopped"`
}

// waits is what waits for a limit's bucket of an account; of a bucket for which
// nothing waits, the zero value.
func waits(t *testing.T, r *relay.Relay, limit, key string) line {
	t.Helper()
	all := ask[[]line](t, r, 0, "held", "pace", "list")
	if i := slices.IndexFunc(all, func(l line) bool { return l.Limit == limit && l.Key == key }); i >= 0 {
		return all[i]
	}
	return line{}
}

// waitPaced waits until nothing waits for a bucket any more. A line of many takes
// its windows' time.
func waitPaced(t *testing.T, r *relay.Relay, limit, key string) {
	t.Helper()
	var left line
	for range 4 {
		end := time.Now().Add(25 * time.Second)
		for time.Now().Before(end) {
			if left = waits(t, r, limit, key); left.Waiting == 0 {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	t.Fatalf("still waiting: %+v", left)
}

// verdictsOn are the verdicts on name-0 to name-(n-1), by verdict.
func verdictsOn(t *testing.T, r *relay.Relay, name string, n int) map[string][]relay.Line {
	t.Helper()
	all := map[string][]relay.Line{}
	for i := range n {
		v := verdictOn(t, r, fmt.Sprintf("%s-%d", name, i))
		all[v.Verdict] = append(all[v.Verdict], v)
	}
	return all
}

var letGo = regexp.MustCompile(`postsuper\[\d+\]: (\w+): released from hold`)

// released are the queue ids of what was let go, the first first, as the MTA has
// them in its log.
func released(p *postfixtest.Postfix) (ids []string) {
	for _, m := range letGo.FindAllStringSubmatch(p.Log(), -1) {
		ids = append(ids, m[1])
	}
	return ids
}

// newsletters and other mail of a login have budgets of their own.
const newslettersAndOther = `
[[limit]]
name = "newsletters"
per = "login"
windows = ["4/5s"]
[limit.when]
header = ["List-Id"]

[[limit]]
name = "letters"
per = "login"
windows = ["100/10m"]
[limit.when]
no_header = ["List-Id"]
`

const aList = "List-Id: <news.example.jp>"

// What a volume limit held goes by itself, the oldest first, as budget returns;
// it delays nobody else, nothing under another limit, and outlives kill -9.
func TestHeldMailGoesAsBudgetReturns(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: newslettersAndOther})
	taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	hanako := loggedIn(t, r.Postfix, relay.Submission, "hanako@example.jp")
	const n, window = 14, 5 * time.Second
	begin := time.Now()
	var to []string
	for i := range n {
		id := fmt.Sprintf("news-%d", i)
		to = append(to, id+"@example.net")
		sendAccepted(t, taro, "taro@example.jp", to[i:], fromTaro(id, aList))
	}
	verdicts := verdictsOn(t, r, "news", n)
	held := verdicts["hold"]
	if len(held) < 4 || len(verdicts["accept"])+len(held) != n {
		t.Fatalf("sent in %v: %+v", time.Since(begin), verdicts)
	}
	for i, v := range held {
		if want := "messages of login:taro@example.jp wait under this limit, this one queues behind them"; v.Rule != "newsletters" || i > 1 && !strings.Contains(v.Reason, want) && !strings.Contains(v.Reason, "4 of 4 recipients in 5s used") {
			t.Errorf("held: %s", v.Raw)
		}
	}
	if l := waits(t, r, "newsletters", "login:taro@example.jp"); l.Account != "login:taro@example.jp" || l.Waiting == 0 || l.Stopped != "" {
		t.Errorf("held pace list: %+v", l)
	}

	// Nobody else waits for that.
	sendAccepted(t, taro, "taro@example.jp", rcpts("reset", 1), fromTaro("reset", "Subject: your new password"))
	sendAccepted(t, hanako, "hanako@example.jp", rcpts("hers", 2), letter("hers", "From: hanako@example.jp", aList))
	wantVerdict(t, r, "reset", "accept", "", "login:taro@example.jp")
	wantVerdict(t, r, "hers", "accept", "", "login:hanako@example.jp")
	wantArrived(t, r.Postfix, "reset-0@example.net")
	wantArrived(t, r.Postfix, "hers-1@example.net")

	for _, how := range []os.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		before := len(released(r.Postfix))
		eventually(t, "some more go", func() bool { return len(released(r.Postfix)) > before })
		if err := r.StopGuard(how); err != nil {
			t.Fatal(err)
		}
		if err := r.StartGuard(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	waitPaced(t, r, "newsletters", "login:taro@example.jp")
	took := time.Since(begin)
	for _, address := range to {
		wantArrived(t, r.Postfix, address)
	}
	wantOnce(t, r.Postfix, append(to, "reset-0@example.net", "hers-0@example.net")...)
	var want []string
	for _, v := range held {
		want = append(want, v.QueueID)
	}
	if got := released(r.Postfix); !slices.Equal(got, want) {
		t.Errorf("let go in the order\n%q, want the oldest first\n%q", got, want)
	}
	if least := (n/4 - 1) * window; took < least {
		t.Errorf("%d went in %v, want at least %v: four in any %v", n, took, least, window)
	}
	if left := heldOf(t, r); len(left) != 0 || len(inHold(t, r.Postfix)) != 0 {
		t.Errorf("still held: %+v", left)
	}
	e := ask[[]explained](t, r, 0, "explain", held[0].ID)
	if len(e) != 1 || len(e[0].Held) != 1 || e[0].Held[0].State != "released" || e[0].Held[0].By != "relayguard" || !strings.Contains(e[0].Held[0].Why, "room") {
		t.Errorf("explain of what went by itself: %+v", e)
	}
}

// What stops mail that would go by itself, and lets it go on. Each login is
// stopped by what its name says; they share a relay to wait at the same time.
func TestPacedReleaseStops(t *testing.T) {
	t.Parallel()
	users := map[string]string{}
	for _, name := range []string{"admin", "suspended", "abused", "bounced", "queue"} {
		users[name+"@example.jp"] = "secret"
	}
	r := startRelay(t, relay.Options{Postfix: postfixtest.Options{Users: users}, Config: `
[[limit]]
name = "volume"
per = "login"
windows = ["3/2s"]
[limit.when]
no_header = ["X-Trap"]

[[limit]]
name = "trap"
per = "login"
kind = "abuse"
windows = ["2/10m"]
[limit.when]
header = ["X-Trap"]
`})
	for name, test := range map[string]func(*testing.T, *pacedLogin){
		"admin": testPauseAndHurry, "suspended": testPacedSuspended, "abused": testPacedAbused, "bounced": testPacedBounced, "queue": testPacedQueue,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			login := name + "@example.jp"
			test(t, &pacedLogin{t: t, r: r, name: name, login: login, client: loggedIn(t, r.Postfix, relay.Submission, login)})
		})
	}
}

// pacedLogin sends more than its limit has room for.
type pacedLogin struct {
	t           *testing.T
	r           *relay.Relay
	name, login string
	client      *smtptest.Client
	sent        int
}

func (p *pacedLogin) key() string { return "login:" + p.login }

// address is the one recipient of its message so and so.
func (p *pacedLogin) address(i int) string { return fmt.Sprintf("%s-%d@example.net", p.name, i) }

// send sends so many more messages, with these header fields.
func (p *pacedLogin) send(n int, fields ...string) {
	p.t.Helper()
	for range n {
		sendAccepted(p.t, p.client, p.login, []string{p.address(p.sent)}, letter(fmt.Sprintf("%s-%d", p.name, p.sent), append(fields, "From: "+p.login)...))
		p.sent++
	}
}

// stopped stops what waits of it, by an order that must come before any of it
// goes, and checks that for longer than its window nothing goes, and why.
func (p *pacedLogin) stopped(why string) {
	p.t.Helper()
	// One round of Pace may be under way; then it takes two rounds of which each
	// would have let three go.
	eventually(p.t, "it says why nothing goes", func() bool {
		return strings.Contains(waits(p.t, p.r, "volume", p.key()).Stopped, why)
	})
	before := waits(p.t, p.r, "volume", p.key())
	time.Sleep(3500 * time.Millisecond)
	if after := waits(p.t, p.r, "volume", p.key()); after.Waiting != before.Waiting || after.QueueID != before.QueueID || after.Waiting == 0 {
		p.t.Errorf("while it is stopped, there was %+v, and is %+v", before, after)
	}
}

// arrive waits until all that was sent has arrived, once each.
func (p *pacedLogin) arrive() {
	p.t.Helper()
	waitPaced(p.t, p.r, "volume", p.key())
	for i := range p.sent {
		wantArrived(p.t, p.r.Postfix, p.address(i))
	}
	for address, n := range recipientsAtSink(p.r.Postfix) {
		if strings.HasPrefix(address, p.name+"-") && n != 1 {
			p.t.Errorf("%s got %d mails", address, n)
		}
	}
}

func testPauseAndHurry(t *testing.T, p *pacedLogin) {
	order(t, p.r, 2, "held", "pace", "stop", p.login) // without a reason
	order(t, p.r, 0, "held", "pace", "stop", p.login, "--reason", "is the list bought?")
	p.send(9)
	p.stopped("is the list bought?")
	before := used(t, p.r, p.login, "volume")
	if before != 0 {
		t.Errorf("%d are charged, and nothing went for longer than the window", before)
	}
	held := heldOf(t, p.r, "--login", p.login)
	last := slices.IndexFunc(held, func(h heldMail) bool { return h.QueueID == verdictOn(t, p.r, "admin-8").QueueID })
	if last < 0 {
		t.Fatalf("the ninth is not held: %+v", held)
	}
	order(t, p.r, 0, "held", "release", held[last].QueueID, "--reason", "it is urgent")
	wantArrived(t, p.r.Postfix, p.address(8))
	if n := used(t, p.r, p.login, "volume"); n != 0 {
		t.Errorf("the admin's release was charged: %d", n)
	}
	if gone := ask[[]struct{ Kind string }](t, p.r, 0, "held", "pace", "start", p.login); len(gone) != 1 || gone[0].Kind != "pause" {
		t.Errorf("held pace start: %+v", gone)
	}
	p.arrive()
	order(t, p.r, 1, "held", "pace", "start", p.login) // it was not stopped
}

func testPacedSuspended(t *testing.T, p *pacedLogin) {
	p.send(15)
	order(t, p.r, 0, "suspend", p.login, "--reason", "password stolen")
	p.stopped("suspended: password stolen")
	order(t, p.r, 0, "resume", p.login, "--cause", "password changed")
	p.arrive() // at half the pace
}

func testPacedAbused(t *testing.T, p *pacedLogin) {
	p.send(15)
	for i := range 3 { // the third shuts
		sendAccepted(t, p.client, p.login, rcpts(fmt.Sprintf("trap%d", i), 1), letter(fmt.Sprint("trap-", i), "From: "+p.login, "X-Trap: yes"))
	}
	p.stopped("an incident of abuse is open")
	if l := waits(t, p.r, "trap", p.key()); l.Waiting != 0 {
		t.Errorf("what is abuse waits for budget: %+v", l)
	}
	// Until the incident is over an admin lets it go.
	order(t, p.r, 0, "resume", p.login, "--cause", "it was a test")
	p.stopped("an incident of abuse is open")
	order(t, p.r, 0, "held", "release", "--account", p.key(), "--yes", "--reason", "it was a test")
	p.arrive()
}

// The sink refuses what went by itself for good: real bounces, told by the MTA's
// log.
func testPacedBounced(t *testing.T, p *pacedLogin) {
	const n = 40
	for i := range n {
		p.r.Sink.Refuse(p.address(i), smtptest.Reply{Code: 550, Lines: []string{"5.1.1 no such user"}})
	}
	p.send(n)
	p.stopped("of what was released bounced, more than hold.bounce_percent (5 %)")
	if left := waits(t, p.r, "volume", p.key()).Waiting; left < n/4 {
		t.Errorf("%d messages wait still, want that it stops after a few", left)
	}
	for i := range n {
		p.r.Sink.Refuse(p.address(i), nothing)
	}
	before := waits(t, p.r, "volume", p.key()).Waiting
	order(t, p.r, 1, "resume", p.login, "--cause", "the list was cleaned") // it was not suspended
	eventually(t, "it goes on", func() bool { return waits(t, p.r, "volume", p.key()).Waiting < before })
}

func testPacedQueue(t *testing.T, p *pacedLogin) {
	order(t, p.r, 0, "held", "pace", "stop", p.login, "--reason", "look at it first")
	p.send(9)
	p.stopped("look at it first")
	p.send(1) // there is room for it now
	v := verdictOn(t, p.r, "queue-9")
	if v.Verdict != "hold" || v.Rule != "volume" || !strings.Contains(v.Reason, "wait under this limit, this one queues behind them") && !strings.Contains(v.Reason, "waits under this limit, this one queues behind it") {
		t.Errorf("new mail behind what waits: %s", v.Raw)
	}
	order(t, p.r, 0, "held", "pace", "start", p.login)
	p.arrive()
	if all := released(p.r.Postfix); slices.Index(all, v.QueueID) < slices.Index(all, verdictOn(t, p.r, "queue-8").QueueID) {
		t.Errorf("what came last was let go before what waited: %q", all)
	}
}

// What never fits is told so at once; of a script, which hears nothing, it is held
// for an admin.
func TestAMessageThatCanNeverFit(t *testing.T) {
	t.Parallel()
	for _, then := range []string{"hold", "defer", "reject"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			config := perLogin("volume", fmt.Sprintf("then = %q", then), "5/1h", "20/1d")
			if then == "hold" {
				config += perUser("user-volume", "5/1h") + perLogin("bytes", "counts = \"bytes\"", "20KB/1h")
			}
			r := startRelay(t, relay.Options{Config: config})
			taro := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
			never := func(id string, to []string, message, want string) {
				t.Helper()
				reply := send(t, taro, "taro@example.jp", to, message).Data
				wantReply(t, id, reply, 550, "5.7.1")
				if !strings.Contains(reply.Text(), want) {
					t.Errorf("%s: refused with %q, want %q", id, reply.Text(), want)
				}
				if v := verdictOn(t, r, id); v.Verdict != "reject" || !strings.Contains(v.Reason, "more than may ever be in one message") {
					t.Errorf("%s: %s", id, v.Raw)
				}
			}
			never("six", rcpts("six", 6), fromTaro("six"), "This message counts 6 recipients, more than the 5 that may ever be sent at once; send it in smaller parts")
			never("thirty", rcpts("thirty", 30), fromTaro("thirty"), "This message counts 30 recipients, more than the 5 that")
			sendAccepted(t, taro, "taro@example.jp", rcpts("five", 5), fromTaro("five")) // the refused ones took nothing
			wantVerdict(t, r, "five", "accept", "", "login:taro@example.jp")
			if then != "hold" {
				return
			}
			never("large", rcpts("large", 1), fromTaro("large")+strings.Repeat(strings.Repeat("x", 70)+"\n", 400), "bytes, more than the 20000 that may ever be sent at once")

			sendmail(t, r.Postfix, games, letter("local", "From: g@example.jp"), append([]string{"-f", "g@example.jp"}, rcpts("local", 6)...)...)
			wantVerdict(t, r, "local", "hold", "user-volume", "local_user:games")
			wantHeld(t, r.Postfix, "local-0@example.net")
			if l := waits(t, r, "user-volume", "local_user:5"); l.Waiting != 0 {
				t.Errorf("it waits for room that never comes: %+v", l)
			}
			sendmail(t, r.Postfix, games, letter("next", "From: g@example.jp"), "-f", "g@example.jp", "next@example.net")
			wantArrived(t, r.Postfix, "next@example.net") // nor does anything wait behind it
			order(t, r, 0, "held", "release", "--account", "local_user:games", "--reason", "it is the year's list")
			wantArrived(t, r.Postfix, "local-5@example.net")
		})
	}
}

// Honest bulk mail is late, and not lost: everything is taken with 250, and
// arrives by itself.
func TestMonthEndBillsArriveByThemselves(t *testing.T) {
	t.Parallel()
	const bills, room = 120, 50
	r := startRelay(t, relay.Options{Config: perLogin("login-volume", "", fmt.Sprintf("%d/6s", room)) + perLogin("login-hour", "", "1000/1h")})
	var all sync.WaitGroup
	for session, client := range logInAll(t, r, 4, "taro@example.jp") {
		all.Go(func() {
			for i := session; i < bills; i += 4 {
				id := fmt.Sprintf("bill-%d", i)
				sent, err := client.Send("taro@example.jp", []string{id + "@example.net"}, fromTaro(id, "Subject: your bill"))
				if err != nil || !sent.Accepted() {
					t.Errorf("%s: %v, %v", id, sent.Refusal(), err)
				}
			}
		})
	}
	all.Wait()
	verdicts := verdictsOn(t, r, "bill", bills)
	if len(verdicts["accept"])+len(verdicts["hold"]) != bills || len(verdicts["hold"]) == 0 {
		t.Fatalf("%d accepted, %d held", len(verdicts["accept"]), len(verdicts["hold"]))
	}
	waitPaced(t, r, "login-volume", "login:taro@example.jp")
	to := make([]string, bills)
	for i := range to {
		to[i] = fmt.Sprintf("bill-%d@example.net", i)
		wantArrived(t, r.Postfix, to[i])
	}
	wantOnce(t, r.Postfix, to...)
	wantUsed(t, r, "taro@example.jp", "login-hour", bills) // each is charged once, those that waited too
	if left := heldOf(t, r); len(left) != 0 {
		t.Errorf("%d are still held", len(left))
	}
}
