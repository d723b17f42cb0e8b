package faults_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// rounds is how often something is killed: -rounds, else RELAYGUARD_ROUNDS.
var rounds = flag.Int("rounds", defaultRounds(), "how often TestKill kills something")

func defaultRounds() int {
	if n, err := strconv.Atoi(os.Getenv("RELAYGUARD_ROUNDS")); err == nil {
		return n
	}
	return 200
}

// killConfig lets some mail through and holds some, and has room for little.
const killConfig = `
[[limit]]
name = "far"
per = "login"
windows = ["900000/6h"]

[[limit]]
name = "burst"
per = "login"
windows = ["25/2s"]

[[limit]]
name = "local"
per = "local_user"
windows = ["8/2s"]

[hold]
origin_messages = 150
min_free = 1000000
min_free_inodes = 100
`

// TestKill kills the guard, Postfix, the root helper and commands at random
// moments under load, and then asks for every message. What is held is for an
// admin: so what is charged is known to the recipient.
func TestKill(t *testing.T) { kill(t, *rounds, false) }

// TestKillWhilePaced is TestKill where held mail goes by itself, too: until none
// is left, none twice, and each charged at most twice.
func TestKillWhilePaced(t *testing.T) { kill(t, (*rounds+3)/4, true) }

func kill(t *testing.T, rounds int, paced bool) {
	s := startSite(t, relay.Options{Config: fmt.Sprintf("%srelease = %t\n", killConfig, paced)})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d rounds", seed, rounds)
	k := &killer{
		load:   &load{site: s, ledger: &ledger{deleted: map[string]bool{}}, pace: 60 * time.Millisecond},
		random: rand.New(rand.NewPCG(seed, 0)),
		paced:  paced,
	}
	if r, err := s.Relayguard(t.Context(), "deny", "add", "client", "192.0.2.1", "--reason", "fault test"); err != nil || r.ExitCode != 0 {
		t.Fatalf("deny: %v %+v", err, r)
	}
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { k.run(ctx) })
	began := time.Now()
	for n := range rounds {
		if k.round(t.Context(), n); t.Failed() {
			break
		}
	}
	took := time.Since(began)
	stop()
	work.Wait()
	t.Logf("%d rounds took %v: %v", rounds, took.Round(time.Second), k.counts())
	k.drain()
	if paced {
		k.letGo()
	}
	k.verify()
}

// killer kills.
type killer struct {
	*load
	random   *rand.Rand
	paced    bool // held mail is released by itself
	readings []reading
	woken    int                           // tries of drain
	inQueue  map[string]postfixtest.Queued // what is held at the end
}

// reading is what the guard said its buckets hold.
type reading struct {
	from, to time.Time // when it was asked, when it answered
	used     map[string]int64
}

// round kills one thing at a random moment, and brings it back.
func (k *killer) round(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	time.Sleep(k.moment(900)) // the random moment
	switch p := k.random.IntN(100); {
	case p < 35:
		k.guard(ctx)
	case p < 60:
		k.postfix(ctx)
	case p < 78:
		k.helper(ctx)
	case p < 88:
		k.command(ctx)
	case p < 95:
		k.commandAlone(ctx)
	default:
		k.everything(ctx)
	}
	if err := k.switchesStand(ctx); err != nil {
		k.t.Errorf("round %d: switches: %v", n, err)
	}
	if k.t.Failed() {
		k.t.Logf("round %d was the last", n)
	}
}

func (k *killer) moment(most int) time.Duration {
	return time.Duration(k.random.IntN(most*1000)) * time.Microsecond
}

func (k *killer) guard(ctx context.Context) {
	from := time.Now()
	k.killGuard()
	k.startGuard(ctx)
	k.ledger.out("guard", from, time.Now())
	k.read(ctx)
}

// read asks for the counters.
func (k *killer) read(ctx context.Context) {
	from := time.Now()
	used, err := k.used(ctx)
	if err != nil {
		k.t.Errorf("ask for the counters: %v", err)
		return
	}
	k.readings = append(k.readings, reading{from, time.Now(), used})
}

func (k *killer) postfix(ctx context.Context) {
	from := time.Now()
	if err := k.KillMaster(); err != nil {
		k.t.Fatal(err)
	}
	k.startPostfix(ctx)
	k.ledger.out("postfix", from, time.Now())
}

func (k *killer) startPostfix(ctx context.Context) {
	if err := k.Restart(ctx); err != nil {
		k.t.Fatalf("Postfix does not start: %v", err)
	}
}

func (k *killer) helper(ctx context.Context) {
	from := time.Now()
	if err := k.StopHelper(syscall.SIGKILL); err != nil {
		k.t.Fatal(err)
	}
	k.startHelper(ctx)
	k.ledger.out("helper", from, time.Now())
}

func (k *killer) startHelper(ctx context.Context) {
	if err := k.StartHelper(ctx); err != nil {
		k.t.Fatal(err)
	}
}

// command kills a command in the middle of an order.
func (k *killer) command(ctx context.Context) {
	from := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond+k.moment(400))
	defer cancel()
	k.judgeOnce(ctx)
	k.ledger.out("command", from, time.Now())
}

// judgeOnce is judge for a command that is killed when ctx ends.
func (k *killer) judgeOnce(ctx context.Context) {
	all, err := k.listNow(ctx)
	if err != nil {
		return
	}
	var ids []string
	for _, h := range all {
		if h.ID != "" && h.State == "held" && len(ids) < 20 {
			ids = append(ids, h.ID)
		}
	}
	k.orderOnce(ctx, ids)
}

func (k *killer) orderOnce(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	verb := "release"
	if k.random.IntN(2) == 0 {
		verb = "delete"
		k.ledger.order(ids)
	}
	_, _ = k.Relayguard(ctx, append([]string{"held", verb, "--reason", "fault test"}, ids...)...)
}

// commandAlone kills a command that does without the daemon, which is dead.
func (k *killer) commandAlone(ctx context.Context) {
	all, err := k.listNow(ctx)
	if err != nil {
		k.t.Error(err)
	}
	var ids []string
	for _, h := range all {
		if h.ID != "" && h.State == "held" && len(ids) < 20 {
			ids = append(ids, h.ID)
		}
	}
	from := time.Now()
	k.killGuard()
	orders, cancel := context.WithTimeout(ctx, 100*time.Millisecond+k.moment(900))
	k.orderOnce(orders, ids)
	cancel()
	k.startGuard(ctx)
	k.ledger.out("guard", from, time.Now())
	k.ledger.out("command alone", from, time.Now())
	k.read(ctx)
}

// everything kills all at once.
func (k *killer) everything(ctx context.Context) {
	from := time.Now()
	err := k.Signal(syscall.SIGKILL)
	if err == nil {
		err = k.StopHelper(syscall.SIGKILL)
	}
	if err == nil {
		err = k.KillMaster()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	k.killGuard() // waits for its end
	k.startHelper(ctx)
	k.startGuard(ctx)
	k.startPostfix(ctx)
	to := time.Now()
	k.ledger.out("guard", from, to)
	k.ledger.out("postfix", from, to)
	k.ledger.out("helper", from, to)
	k.read(ctx)
}

// letGo waits until all that waits for its limits has gone.
func (k *killer) letGo() {
	k.t.Helper()
	// Nobody is stopped any more.
	if _, err := k.Relayguard(k.t.Context(), "resume", suspect, "--cause", "fault test"); err != nil {
		k.t.Fatal(err)
	}
	began := time.Now()
	poll(k.t, 4*time.Minute, "let go what waits for its limits", func() error {
		var lines []struct {
			Key     string
			Waiting int
			Stopped string
		}
		if err := k.ask(k.t.Context(), "/v1/held/lines", nil, nil, &lines); err != nil || len(lines) > 0 {
			return fmt.Errorf("%+v, %v", lines, err)
		}
		return nil
	})
	k.t.Logf("what waited for its limits has gone %v after the load ended", time.Since(began).Round(time.Second))
	k.drain()
}

// counts tells what was killed how often, and what was sent.
func (k *killer) counts() string {
	n := map[string]int{}
	for _, o := range k.ledger.outages {
		n["killed "+o.who]++
	}
	for _, t := range k.ledger.tickets {
		n[t.outcome.String()]++
	}
	return strings.TrimPrefix(fmt.Sprint(n), "map")
}

// drain waits until nothing is on its way.
func (k *killer) drain() {
	k.t.Helper()
	poll(k.t, 2*time.Minute, "drain the queue", func() error {
		k.woken++
		if k.woken%20 == 1 { // wakes pickup, which looks by itself once a minute only
			k.submit(fmt.Sprintf("last-%d", k.woken))
		}
		if _, err := k.Command(k.t.Context(), "postqueue", "-f"); err != nil {
			return err
		}
		queue, err := k.QueueList(k.t.Context())
		if err != nil {
			return err
		}
		for _, q := range queue {
			if q.QueueName != "hold" {
				return fmt.Errorf("%+v is on its way; logs:\n%s", q, k.allLogs(q.QueueID))
			}
		}
		return nil
	})
}
