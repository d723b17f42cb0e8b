package desk_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

// endless is a queue of so many messages, and a journal that knows whose they are,
// which keep none of them.
type endless struct {
	*mailServer
	desk.Journal
	n     int
	queue string
	start time.Time
	acted func()
}

func (e *endless) id(n int) string { return fmt.Sprintf("%010X", 0xA000000000+n) }

func (e *endless) List(_ context.Context, fn func(mta.QueueFile) error) error {
	for n := range e.n {
		if err := fn(mta.QueueFile{Queue: e.queue, ID: e.id(n), Arrival: e.start, Size: 900, Sender: fmt.Sprintf("bounces+%d@example.jp", n), Recipients: []string{fmt.Sprintf("x@d%d.example.net", n%5000)}, Reason: "timed out"}); err != nil {
			return err
		}
	}
	return nil
}

func (e *endless) Known(_ context.Context, ids []string) (known []journal.Known, err error) {
	for _, id := range ids {
		known = append(known, journal.Known{QueueID: id, DecisionID: "1m832" + id, Time: e.start, Account: taro, Site: "shop.example.jp", Plugin: "share", Verdict: policy.Accept})
	}
	return known, nil
}

func (e *endless) EachHold(_ context.Context, _ journal.HoldQuery, fn func(*journal.Hold) error) error {
	for n := range e.n {
		if err := fn(&journal.Hold{QueueID: e.id(n), DecisionID: "1m832" + e.id(n), Account: taro, Rule: "volume", State: journal.StateHeld, HeldAt: e.start, Size: 900}); err != nil {
			return err
		}
	}
	return nil
}

func (e *endless) act(targets []mta.Target) ([]mta.Result, error) {
	if e.acted != nil {
		e.acted()
	}
	results := make([]mta.Result, len(targets))
	for n, t := range targets {
		results[n] = mta.Result{ID: t.ID, Fate: mta.Done}
	}
	return results, nil
}

func (e *endless) Hold(_ context.Context, targets []mta.Target, _ string) ([]mta.Result, error) {
	return e.act(targets)
}

func (e *endless) Release(_ context.Context, targets []mta.Target) ([]mta.Result, error) {
	return e.act(targets)
}

func (e *endless) Holds(_ context.Context, q journal.HoldQuery) (holds []journal.Hold, err error) {
	for _, id := range q.IDs {
		holds = append(holds, journal.Hold{QueueID: id, DecisionID: "1m832" + id, Account: taro, Rule: "volume", State: journal.StateHeld, HeldAt: e.start, Size: 900})
	}
	return holds, nil
}

func (e *endless) Append(...journal.Record) error { return nil }

// What a bulk act keeps is small: 100,000 messages on their way and as many on hold
// leave room in 100 MB, though the heap may grow to several times what lives in it.
func TestBulkActsKeepLittleOfEachMessage(t *testing.T) {
	const few, most = 5000, 130 // octets a message
	for _, c := range []struct {
		name, queue string
		act         func(d *desk.Desk, now time.Time) error
	}{
		{"queue hold", "deferred", func(d *desk.Desk, now time.Time) error {
			return d.ActOnQueue(t.Context(), now, admin, desk.QueueOrder{Verb: "hold", Filter: desk.QueueFilter{All: true}}, func(desk.Step) error { return nil })
		}},
		{"held release", "hold", func(d *desk.Desk, now time.Time) error {
			return d.ActOnHeld(t.Context(), now, admin, desk.HeldOrder{Verb: "release", Filter: desk.Filter{All: true}}, func(desk.Step) error { return nil })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			living := func(messages int) int64 {
				e := &endless{mailServer: s.mta, Journal: s.journal, n: messages, queue: c.queue, start: s.start}
				s.d.Journal, s.d.Queue = e, e
				var least uint64
				e.acted = func() { // in the first batch: all is chosen
					e.acted = nil
					least = heap()
				}
				before := heap()
				if err := c.act(s.d, s.now); err != nil || least == 0 {
					t.Fatalf("acted: %v, %v", least > 0, err)
				}
				return int64(least) - int64(before)
			}
			living(few) // what is made once
			small, large := living(few), living(4*few)
			each := (large - small) / (3 * few)
			t.Logf("%d octets a message", each)
			if each > most {
				t.Errorf("%d octets of each message are kept, want at most %d", each, most)
			}
		})
	}
}

// heap is what lives.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
