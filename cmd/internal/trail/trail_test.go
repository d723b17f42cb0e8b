package trail_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/cmd/internal/trail"
	"relayguard/journal"
	"relayguard/mta/maillog"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

var windows = []limit.Window{{Count: 1000, Length: time.Hour}, {Count: 5000, Length: 24 * time.Hour}}

func charge(who string, amount int64) limit.Charge {
	return limit.Charge{Key: limit.Key{Limit: "login-volume", Value: who}, Kind: limit.Volume, Windows: windows, Amount: amount}
}

// passed is a message to so many recipients.
func passed(recipients int, charges ...limit.Charge) trail.Passed {
	return trail.Passed{Charges: charges, Recipients: recipients}
}

// post is a trail, and what it told.
type post struct {
	*trail.Trail
	buckets *limit.Memory
	mu      sync.Mutex
	notes   []string
	held    []string
	moved   []string
}

func newPost(change func(*trail.Options)) *post {
	p := &post{buckets: limit.NewMemory()}
	o := trail.Options{
		Buckets: p.buckets, Log: slog.New(slog.DiscardHandler),
		Note: func(r journal.Record) {
			d := r.(journal.Delivery)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.notes = append(p.notes, fmt.Sprintf("%s %s %d", d.QueueID, d.Status, d.N))
		},
		Held:     func(id string, _ time.Time) { p.held = append(p.held, id) },
		Requeued: func(o, n string, _ time.Time) { p.moved = append(p.moved, o+">"+n) },
	}
	if change != nil {
		change(&o)
	}
	p.Trail = trail.New(o)
	return p
}

// used is what a login's bucket has, -1 if there is none.
func (p *post) used(t *testing.T, who string) int64 {
	t.Helper()
	if p.buckets.Len() == 0 {
		return -1
	}
	out, err := limittest.Peek(t.Context(), p.buckets, now, []limit.Charge{charge(who, 0)})
	if err != nil || out.Uses[0].Used != out.Uses[1].Used {
		t.Fatalf("%+v, %v", out.Uses, err)
	}
	return out.Uses[0].Used
}

func at(s int, kind maillog.Kind, id string) maillog.Event {
	return maillog.Event{Time: now.Add(time.Duration(s) * time.Second), Kind: kind, QueueID: id}
}

func queued(s int, id string, recipients int) maillog.Event {
	e := at(s, maillog.Queued, id)
	e.Recipients = recipients
	return e
}

func forwarded(s int, id, copied string) maillog.Event {
	e := at(s, maillog.Forwarded, id)
	e.NewID, e.Status = copied, maillog.Sent
	return e
}

func delivery(id, status string) maillog.Event {
	e := at(9, maillog.Delivery, id)
	e.Status = status
	return e
}

func requeued(oldID, newID string) maillog.Event {
	e := at(9, maillog.Pickup, newID)
	e.OrigID = oldID
	return e
}

// later is a line of an hour later.
func later(e maillog.Event) maillog.Event {
	e.Time = e.Time.Add(time.Hour)
	return e
}

func removed(id string) maillog.Event { return at(9, maillog.Removed, id) }

func TestWhatAliasesAddIsCharged(t *testing.T) {
	for _, c := range []struct {
		name   string
		copies int
		events []maillog.Event
		want   int64 // beyond the 2 of the message "A"
	}{
		{"as many as were charged", 0, []maillog.Event{queued(0, "A", 2)}, 0},
		{"fewer", 0, []maillog.Event{queued(0, "A", 1)}, 0},
		{"an alias of 50", 0, []maillog.Event{queued(0, "A", 51)}, 49},
		{"deferred and queued again", 0, []maillog.Event{queued(0, "A", 51), queued(300, "A", 51), queued(900, "A", 51)}, 49},
		{"queued again with fewer left", 0, []maillog.Event{queued(0, "A", 51), queued(300, "A", 1)}, 49},
		{"an unknown message", 0, []maillog.Event{queued(0, "B", 500)}, 0},
		{"a copy of the MTA's own", 1, []maillog.Event{queued(0, "A", 3)}, 0},
		{"and an alias", 1, []maillog.Event{queued(0, "A", 13)}, 10},
		{"a .forward to one", 0, []maillog.Event{queued(0, "A", 2), forwarded(1, "A", "C"), queued(1, "C", 1)}, 0},
		{"a .forward to ten", 0, []maillog.Event{queued(0, "A", 2), forwarded(1, "A", "C"), queued(1, "C", 10)}, 9},
		{"a .forward that is logged before whose it is", 0, []maillog.Event{queued(0, "A", 2), queued(1, "C", 10), forwarded(1, "A", "C")}, 9},
		{"and has left by then", 0, []maillog.Event{queued(0, "A", 2), queued(1, "C", 10), removed("C"), forwarded(1, "A", "C"), removed("A")}, 9},
		{"the line is read twice", 0, []maillog.Event{queued(0, "A", 2), queued(1, "C", 10), forwarded(1, "A", "C"), forwarded(1, "A", "C")}, 9},
		{"both are read twice", 0, []maillog.Event{queued(0, "A", 2), queued(1, "C", 10), forwarded(1, "A", "C"), queued(1, "C", 10), forwarded(1, "A", "C"), queued(1, "C", 10)}, 9},
		{"all is read twice", 0, slices.Concat(forwardOfTen, forwardOfTen), 9},
		{"two copies", 0, []maillog.Event{queued(0, "A", 2), forwarded(1, "A", "C"), forwarded(1, "A", "D"), queued(1, "D", 3), queued(1, "C", 3)}, 4},
		{"a copy of a copy", 0, []maillog.Event{forwarded(1, "A", "C"), queued(1, "C", 3), queued(2, "D", 4), forwarded(2, "C", "D")}, 5},
		{"a copy of somebody else's", 0, []maillog.Event{queued(0, "B", 2), queued(1, "C", 10), forwarded(1, "B", "C")}, 0},
		{"a copy with the id of an older message", 0, []maillog.Event{queued(-3600, "C", 500), queued(0, "A", 2), forwarded(1, "A", "C"), queued(1, "C", 1)}, 0},
		{"requeued", 0, []maillog.Event{queued(0, "A", 51), requeued("A", "E"), queued(9, "E", 51)}, 49},
		{"requeued and more", 0, []maillog.Event{queued(0, "A", 2), requeued("A", "E"), requeued("A", "E"), queued(9, "E", 12)}, 10},
		{"removed, a forged line says at once", 0, []maillog.Event{removed("A"), queued(0, "A", 500)}, 498},
		{"the id comes back for another", 0, []maillog.Event{queued(0, "A", 2), removed("A"), queued(3600, "A", 500)}, 0},
		{"a copy with the id of one that left", 0, []maillog.Event{removed("R"), queued(1, "R", 10), forwarded(1, "A", "R")}, 9},
		{"removed twice", 0, []maillog.Event{queued(0, "A", 3), removed("A"), removed("A"), queued(0, "A", 3)}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPost(func(o *trail.Options) { o.Copies = func() int { return c.copies } })
			who := "login:taro@example.jp"
			charges := []limit.Charge{charge(who, 2)}
			p.Accepted("A", passed(2, charges...))
			p.Accepted("R", passed(1000, charge("login:hanako@example.jp", 1)))
			for _, e := range c.events {
				p.Event(t.Context(), now, e)
			}
			if got := max(p.used(t, who), 0); got != c.want || p.Counts().Expanded != c.want {
				t.Errorf("charged %d, counted %d; want %d", got, p.Counts().Expanded, c.want)
			}
			if charges[0].Amount != 2 {
				t.Errorf("the caller's charge is %+v", charges[0])
			}
		})
	}
}

var forwardOfTen = []maillog.Event{queued(0, "A", 2), queued(1, "C", 10), forwarded(1, "A", "C"), delivery("C", maillog.Sent), removed("C"), removed("A")}

// Any local account can have a line written into a log that syslog writes.
func TestForgedLinesChargeNoMoreThanABound(t *testing.T) {
	const bound = 1000
	for _, c := range []struct {
		name   string
		events []maillog.Event
		want   int64
		beyond int64
		told   int
	}{
		{"as many as are charged", []maillog.Event{queued(0, "A", 1001)}, bound, 0, 0},
		{"one more", []maillog.Event{queued(0, "A", 1002)}, bound, 1, 1},
		{"all there are", []maillog.Event{queued(0, "A", 2_000_000_000)}, bound, 2_000_000_000 - 1 - bound, 1},
		{"bit by bit", []maillog.Event{queued(0, "A", 901), queued(1, "A", 1801), queued(2, "A", 2701)}, bound, 1700, 1},
		{"by copies", []maillog.Event{forwarded(1, "A", "B"), queued(1, "B", 901), forwarded(1, "A", "C"), queued(1, "C", 901), forwarded(1, "C", "D"), queued(1, "D", 901)}, bound, 1700, 1},
		{"by copies that came early", []maillog.Event{queued(1, "B", 5001), forwarded(1, "A", "B"), queued(1, "C", 5001), forwarded(1, "A", "C")}, bound, 9000, 1},
		{"requeued", []maillog.Event{queued(0, "A", 801), requeued("A", "E"), queued(1, "E", 1601)}, bound, 600, 1},
		{"of a message that nobody sent", []maillog.Event{queued(0, "Z", 2_000_000_000)}, 0, 0, 0},
		{"negative", []maillog.Event{queued(0, "A", -5)}, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			p := newPost(func(o *trail.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			p.Accepted("A", passed(1, charge("login:victim", 1)))
			for _, e := range c.events {
				p.Event(t.Context(), now, e)
			}
			if got := max(p.used(t, "login:victim"), 0); got != c.want || p.Counts().Expanded != c.want || p.Counts().Beyond != c.beyond {
				t.Errorf("charged %d, want %d; counts %+v, want %d beyond", got, c.want, p.Counts(), c.beyond)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != c.told || strings.Contains(log.String(), "victim") {
				t.Errorf("told %d times, want %d: %s", n, c.told, log.String())
			}
		})
	}
	p := newPost(nil)
	p.Accepted("A", passed(1, charge("login:a", 1)))
	p.Accepted("B", passed(1, charge("login:b", 1)))
	p.Event(t.Context(), now, queued(0, "A", 5000))
	p.Event(t.Context(), now, queued(0, "B", 501))
	if a, b := p.used(t, "login:a"), p.used(t, "login:b"); a != bound || b != 500 {
		t.Errorf("each message has its own bound: %d, %d", a, b)
	}
}

// Postfix logs senders as it rewrote them. If those were not charged, a sender
// could choose to be rewritten.
func TestRewrittenSenderIsCharged(t *testing.T) {
	p := newPost(nil)
	p.Accepted("A", passed(1, charge("login:taro", 1)))
	e := queued(0, "A", 51)
	e.MailFrom = "SRS0=abcd=XY=example.net=taro@example.jp"
	p.Event(t.Context(), now, e)
	if got := p.used(t, "login:taro"); got != 50 {
		t.Errorf("charged %d", got)
	}
}

func TestWhoWasChargedNothingIsNotChargedAfterwards(t *testing.T) {
	p := newPost(nil)
	p.Accepted("A", passed(1)) // to postmaster, say
	p.Accepted("", passed(1, charge("x", 1)))
	p.Event(t.Context(), now, queued(0, "A", 50))
	p.Event(t.Context(), now, queued(0, "", 50))
	if p.buckets.Len() != 0 || p.Counts().Expanded != 0 {
		t.Errorf("%d buckets, %+v", p.buckets.Len(), p.Counts())
	}
}

func TestFreeRetryIsChargedWhatItsAliasAdds(t *testing.T) {
	p := newPost(nil)
	p.Accepted("A", passed(1, charge("login:taro", 0)))
	p.Event(t.Context(), now, queued(0, "A", 50))
	if got := p.used(t, "login:taro"); got != 49 {
		t.Errorf("charged %d", got)
	}
}

func TestQueuedIsNoLongerFree(t *testing.T) {
	r := limit.NewRetries(10)
	p := newPost(func(o *trail.Options) { o.Retries = r })
	begin := func(id string) *limit.Try {
		return r.Begin(now, "login:taro", "<1@x>", id, [16]byte{1}, []string{"x@example.net"})
	}
	begin("A").Keep()
	again := begin("B")
	if !again.Free[0] {
		t.Fatal("a retry is not free")
	}
	again.Cancel()
	p.Event(t.Context(), now, queued(0, "A", 1))
	if begin("C").Free[0] {
		t.Error("a repeat of what was queued is free")
	}
}

func TestDeliveriesAreTheMessagesThatTheGuardSaw(t *testing.T) {
	p := newPost(nil)
	p.Accepted("A", passed(1))
	twice := delivery("A", maillog.Bounced)
	twice.Count = 2
	for _, e := range []maillog.Event{
		queued(0, "A", 1), delivery("A", maillog.Deferred), forwarded(1, "A", "C"), delivery("C", maillog.Sent), forwarded(2, "C", "D"), delivery("D", maillog.Bounced),
		twice, delivery("Z", maillog.Expire), requeued("A", "E"), delivery("E", maillog.Sent), requeued("H", "I"), delivery("I", maillog.Sent),
		removed("D"), delivery("D", maillog.Sent), later(delivery("D", maillog.Sent)), // another message by now
	} {
		p.Event(t.Context(), now, e)
	}
	want := "A deferred 1,A sent 1,A sent 1,A sent 1,A bounced 1,A bounced 2,Z expired 1,A sent 1,H sent 1,A sent 1,D sent 1"
	if got := strings.Join(p.notes, ","); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if c := p.Counts(); c.Delivered != 7 || c.Deferred != 1 || c.Bounced != 4 {
		t.Errorf("%+v", c)
	}
	if got := strings.Join(p.moved, ","); got != "A>E,H>I" {
		t.Errorf("moved %s", got)
	}
}

func TestWhatElseTheLogTells(t *testing.T) {
	p := newPost(nil)
	held := at(0, maillog.Held, "A")
	for _, by := range []string{maillog.ByMilter, maillog.ByAdmin, maillog.ByHeader, ""} {
		held.By = by
		p.Event(t.Context(), now, held)
	}
	failed := at(0, maillog.AuthFailed, "")
	p.Event(t.Context(), now, failed)
	failed.Count = 7
	p.Event(t.Context(), now, failed)
	p.Event(t.Context(), now, at(0, maillog.Pickup, "B"))
	p.Event(t.Context(), now, at(0, maillog.Unreadable, "B"))
	p.Event(t.Context(), now, maillog.Event{})
	if len(p.held) != 1 || p.Counts().AuthFailed != 8 || len(p.moved) != 0 || len(p.notes) != 0 {
		t.Errorf("held %q, moved %q, notes %q, %+v", p.held, p.moved, p.notes, p.Counts())
	}
	bare := trail.New(trail.Options{Log: slog.New(slog.DiscardHandler), Note: func(journal.Record) {}})
	bare.Accepted("A", passed(1, charge("x", 1)))
	for _, e := range []maillog.Event{queued(0, "A", 9), held, requeued("A", "B"), forwarded(0, "A", "C"), removed("A")} {
		bare.Event(t.Context(), now, e)
	}
}

// full is a store that takes nothing.
type full struct{ limit.Store }

func (full) Add(context.Context, time.Time, *limit.Step) error { return errors.New("full") }

func TestStoreThatTakesNothingIsTold(t *testing.T) {
	var log strings.Builder
	p := newPost(func(o *trail.Options) {
		o.Buckets, o.Log = full{}, slog.New(slog.NewTextHandler(&log, nil))
	})
	p.Accepted("A", passed(1, charge("login:taro", 1)))
	p.Event(t.Context(), now, queued(0, "A", 3))
	if !strings.Contains(log.String(), "recipients=2") || strings.Contains(log.String(), "taro") {
		t.Errorf("log %q", log.String())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	p := newPost(nil)
	before := heap()
	charges := []limit.Charge{charge("login:taro", 1)}
	for i := range 250_000 {
		id := fmt.Sprintf("4bX%d", i)
		p.Accepted(id, passed(1, charges...))
		p.Event(t.Context(), now, queued(0, "9"+id, 1))
		p.Event(t.Context(), now, forwarded(0, id, "7"+id))
		p.Event(t.Context(), now, requeued("5"+id, "6"+id))
		p.mu.Lock()
		p.notes, p.moved = p.notes[:0], p.moved[:0]
		p.mu.Unlock()
	}
	if grown := heap() - min(heap(), before); grown > 100<<20 {
		t.Errorf("%d MB are kept", grown>>20)
	}
	p.Event(t.Context(), now, queued(0, "4bX1", 50)) // long forgotten
	p.Event(t.Context(), now, queued(0, "4bX249999", 3))
	if got := p.used(t, "login:taro"); got != 2 {
		t.Errorf("charged %d, want 2", got)
	}
}

func TestBothSidesAtOnce(t *testing.T) {
	p := newPost(nil)
	var workers sync.WaitGroup
	const each = 200
	for w := range 4 {
		workers.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%dX%d", w, i)
				p.Accepted(id, passed(1, charge("login:taro", 1)))
				var events sync.WaitGroup
				for _, e := range []maillog.Event{queued(0, id, 2), queued(0, id, 2), forwarded(0, id, id+"c"), forwarded(0, id, id+"c"), queued(0, id+"c", 2), delivery(id, maillog.Sent)} {
					events.Go(func() { p.Event(context.Background(), now, e) })
				}
				events.Wait()
			}
		})
	}
	workers.Wait()
	if got := p.used(t, "login:taro"); got != 4*each*2 || p.Counts().Expanded != 4*each*2 {
		t.Errorf("charged %d, counted %d; want %d", got, p.Counts().Expanded, 4*each*2)
	}
}
