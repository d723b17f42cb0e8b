package desk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

// actOnQueue carries an order out, and returns its last step and what it told of.
func (s *site) actOnQueue(o desk.QueueOrder) (last desk.Step, told map[string]desk.Done) {
	s.t.Helper()
	told = map[string]desk.Done{}
	err := s.d.ActOnQueue(s.t.Context(), s.now, admin, o, func(step desk.Step) error {
		for _, m := range step.Messages {
			told[m.QueueID] = m
		}
		last = step
		return nil
	})
	if err != nil {
		s.t.Fatalf("%s: %v", o.Verb, err)
	}
	return last, told
}

func TestQueueHoldIsAnAdmins(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1")
	s.pass(hanako, "active", "B1B1B1")
	s.mta.put(file("E1E1E1", s.start))
	step, _ := s.actOnQueue(desk.QueueOrder{Verb: "hold", Filter: desk.QueueFilter{Account: taro}, Reason: "who is that?"})
	if !step.End || step.Total != 1 || step.Counts["done"] != 1 {
		t.Fatalf("got %+v", step)
	}
	s.wantIn("hold", "A1A1A1", "E1E1E1")
	s.wantIn("active", "B1B1B1")
	if h := s.entries("A1A1A1")[0]; h.State != journal.StateHeld || h.Rule != policy.RuleAdmin || h.DecisionID != "da1a1a1" || !strings.Contains(h.Reason, "who is that?") {
		t.Errorf("entry: %+v", h)
	}
	s.reconcile()
	s.wantRoom(0) // it is none of the guard's
	by := map[string]string{}
	if _, err := s.d.EachHeld(t.Context(), s.now, desk.Filter{}, func(h desk.Held) error { by[h.QueueID] = h.HeldBy; return nil }); err != nil {
		t.Fatal(err)
	}
	if by["A1A1A1"] != "admin" || by["E1E1E1"] != "other" {
		t.Errorf("held by: %v", by)
	}
	if got := s.actions(); !slices.Contains(got, "queue hold 1 messages: who is that?") {
		t.Errorf("actions: %q", got)
	}
	step, _ = s.actOnQueue(desk.QueueOrder{Verb: "release", Filter: desk.QueueFilter{HeldBy: "admin"}})
	if step.Counts["done"] != 1 {
		t.Errorf("released: %+v", step)
	}
	s.wantIn("active", "A1A1A1")
	s.wantState(journal.StateReleased, "A1A1A1")
}

func TestQueueActsLeaveOthersHoldsAlone(t *testing.T) {
	for _, verb := range []string{"release", "delete", "requeue"} {
		t.Run(verb, func(t *testing.T) {
			s := open(t)
			s.hold(taro, "volume", "A1A1A1")
			s.mta.put(file("E1E1E1", s.start))
			everything := desk.QueueFilter{Queue: "hold", All: true}
			step, told := s.actOnQueue(desk.QueueOrder{Verb: verb, Filter: everything, DryRun: true, Tell: true})
			if step.Counts["would"] != 1 || step.Counts["foreign"] != 1 || len(told) != 2 || len(s.mta.did()) > 0 {
				t.Errorf("dry run: %+v", step)
			}
			step, told = s.actOnQueue(desk.QueueOrder{Verb: verb, Filter: everything})
			if step.Counts["done"] != 1 || told["E1E1E1"].Outcome != "foreign" {
				t.Errorf("got %+v, %+v", step, told)
			}
			s.wantIn("hold", "E1E1E1")
			if where := s.mta.where("A1A1A1"); where == "hold" {
				t.Error("ours is still there")
			}
			step, _ = s.actOnQueue(desk.QueueOrder{Verb: verb, Filter: desk.QueueFilter{IDs: []string{"E1E1E1", "F9F9F9"}}, Foreign: true})
			if step.Counts["done"] != 1 || s.mta.where("E1E1E1") == "hold" {
				t.Errorf("foreign: %+v", step)
			}
			h := s.entries("E1E1E1") // else a copy of it comes back as nobody's
			if len(h) != 1 || h[0].State.Open() || h[0].Rule != "admin" || h[0].MailFrom != "taro@example.jp" || h[0].ChangedBy != "root" {
				t.Errorf("entry: %+v", h)
			}
			s.wantRoom(0)
		})
	}
}

func TestForeignHoldThatCouldNotBeTouchedStaysForeign(t *testing.T) {
	s := open(t)
	s.mta.put(file("E1E1E1", s.start))
	s.mta.fails["E1E1E1"] = errors.New("busy")
	if step, _ := s.actOnQueue(desk.QueueOrder{Verb: "delete", Filter: desk.QueueFilter{IDs: []string{"E1E1E1"}}, Foreign: true}); step.Counts["failed"] != 1 {
		t.Errorf("got %+v", step)
	}
	s.reconcile()
	s.reconcile()
	if h := s.entries("E1E1E1"); len(h) != 0 {
		t.Errorf("it is ours now: %+v", h)
	}
}

func TestQueueActsOnMailOnItsWay(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1", "A2A2A2")
	s.pass(hanako, "deferred", "B1B1B1")
	in := file("M1M1M1", s.start)
	in.Queue = "maildrop"
	s.mta.put(in)
	if step, _ := s.actOnQueue(desk.QueueOrder{Verb: "delete", Filter: desk.QueueFilter{IDs: []string{"A1A1A1", "M1M1M1"}}}); step.Counts["done"] != 1 || step.Total != 1 {
		t.Errorf("delete: %+v", step)
	}
	s.wantState(journal.StateDeleted, "A1A1A1")
	if !slices.Equal(s.mta.grace, []string{"A1A1A1"}) {
		t.Errorf("copies: %q", s.mta.grace)
	}
	if step, _ := s.actOnQueue(desk.QueueOrder{Verb: "delete", NoCopy: true, Filter: desk.QueueFilter{IDs: []string{"B1B1B1"}}}); step.Counts["done"] != 1 || len(s.mta.grace) != 1 {
		t.Errorf("delete for good: %+v", step)
	}
	step, told := s.actOnQueue(desk.QueueOrder{Verb: "requeue", Filter: desk.QueueFilter{Account: taro}})
	if step.Counts["done"] != 1 || told["A2A2A2"].NewID != "RA2A2A2" {
		t.Errorf("requeue: %+v, %+v", step, told)
	}
	if all, _ := s.queued(desk.QueueFilter{Account: taro}); all["RA2A2A2"].ID != "da2a2a2" {
		t.Errorf("taro's mail is not known under its new id: %+v", all)
	}
	// What a suspension holds later is found under it, too.
	if out := s.suspend(taro); out.Held != 1 || s.mta.where("RA2A2A2") != "hold" {
		t.Errorf("suspended: %+v", out)
	}
}

func TestQueueActsNeverTouchAnotherMessage(t *testing.T) {
	for _, verb := range []string{"hold", "delete", "requeue"} {
		s := open(t)
		s.pass(taro, "deferred", "A1A1A1")
		name := map[string]string{"hold": "hold", "delete": "delete queued", "requeue": "requeue"}[verb]
		s.mta.before[name] = func() error {
			s.mta.remove("A1A1A1") // delivered, and the id is used again
			other := file("A1A1A1", s.now)
			other.Queue, other.Sender = "deferred", "jiro@example.org"
			s.mta.put(other)
			return nil
		}
		step, told := s.actOnQueue(desk.QueueOrder{Verb: verb, Filter: desk.QueueFilter{IDs: []string{"A1A1A1"}}})
		if step.Counts["changed"] != 1 || told["A1A1A1"].Outcome != "changed" {
			t.Errorf("%s: got %+v", verb, step)
		}
		s.wantIn("deferred", "A1A1A1")
		s.wantState(journal.StateGone, "A1A1A1")
	}
}

func TestQueueActsKnowInstancesApart(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	twin := file("A1A1A1", s.start)
	twin.Instance, twin.Sender = "postfix-out", "x@example.org"
	s.mta.put(twin)
	step, told := s.actOnQueue(desk.QueueOrder{Verb: "release", Filter: desk.QueueFilter{All: true}})
	if step.Counts["done"] != 1 || step.Counts["foreign"] != 1 || told["A1A1A1"].Instance != "postfix-out" {
		t.Errorf("got %+v, %+v, want the other instance's message left alone", step, told)
	}
}

func TestQueueOrdersThatSayTooLittle(t *testing.T) {
	s := open(t)
	for _, o := range []desk.QueueOrder{{Verb: "release"}, {Verb: "delete", Filter: desk.QueueFilter{Queue: "deferred"}}, {Verb: "flush", Filter: desk.QueueFilter{All: true}}} {
		if err := s.d.ActOnQueue(t.Context(), s.now, admin, o, nil); !errors.Is(err, desk.ErrUsage) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := s.d.ActOnHeld(t.Context(), s.now, admin, desk.HeldOrder{Verb: "release"}, nil); !errors.Is(err, desk.ErrEverything) {
		t.Errorf("held: %v", err)
	}
}

// bulks are the acts that go on for long.
var bulks = []struct {
	name, verb string // of the queue's act
	queue      string // where the mail was
	end        journal.State
	act        func(*desk.Desk, context.Context, time.Time, func(desk.Step) error) error
}{
	{"held release", "release", "hold", journal.StateReleased, heldBulk("release")},
	{"held delete", "delete", "hold", journal.StateDeleted, heldBulk("delete")},
	{"queue release", "release", "hold", journal.StateReleased, queueBulk("release")},
	{"queue delete", "delete", "hold", journal.StateDeleted, queueBulk("delete")},
	{"queue hold", "hold", "deferred", journal.StateHeld, queueBulk("hold")},
	{"queue delete of deferred mail", "delete queued", "deferred", journal.StateDeleted, queueBulk("delete")},
}

func heldBulk(verb string) func(*desk.Desk, context.Context, time.Time, func(desk.Step) error) error {
	return func(d *desk.Desk, ctx context.Context, now time.Time, send func(desk.Step) error) error {
		return d.ActOnHeld(ctx, now, admin, desk.HeldOrder{Verb: verb, Filter: desk.Filter{Account: taro}}, send)
	}
}

func queueBulk(verb string) func(*desk.Desk, context.Context, time.Time, func(desk.Step) error) error {
	return func(d *desk.Desk, ctx context.Context, now time.Time, send func(desk.Step) error) error {
		return d.ActOnQueue(ctx, now, admin, desk.QueueOrder{Verb: verb, Filter: desk.QueueFilter{Account: taro}}, send)
	}
}

const bulk = 1200 // three batches

func (s *site) bulk(queue string) {
	s.t.Helper()
	var decisions []journal.Record
	var files []mta.QueueFile
	for n := range bulk {
		q := file(fmt.Sprintf("A%05X", n), s.start)
		q.Queue = queue
		files = append(files, q)
		d := journal.Decision{ID: "d" + strings.ToLower(q.ID), Time: s.start, Stage: journal.StageMessage, Verdict: policy.Accept, Account: taro, QueueID: q.ID,
			MailFrom: q.Sender, Size: q.Size, Recipients: 1, UID: -1}
		if queue == "hold" {
			d.Verdict, d.Rule = policy.Hold, "volume"
		}
		decisions = append(decisions, d)
	}
	if err := s.journal.Append(decisions...); err != nil {
		s.t.Fatal(err)
	}
	s.mta.set(func() { s.mta.files = files })
}

// Whoever asked may leave at any step: by ^C, which is heard of, or for good.
func TestBulkActsMayBeInterruptedAndRepeated(t *testing.T) {
	for i, b := range bulks {
		for at := range 4 {
			killed := (i+at)%2 == 0
			t.Run(fmt.Sprintf("%s, at step %d, killed: %v", b.name, at, killed), func(t *testing.T) {
				s := open(t)
				s.bulk(b.queue)
				ctx, interrupt := context.WithCancel(t.Context())
				defer interrupt()
				steps, last := 0, desk.Step{}
				hungUp := errors.New("hung up")
				err := b.act(s.d, ctx, s.now, func(step desk.Step) error {
					last = step
					if steps++; steps == at+1 && killed {
						return hungUp
					} else if steps == at+1 {
						interrupt()
					}
					return nil
				})
				if !killed && (err != nil || last.End != (at == 3) || (last.Cut == "") != last.End || last.Done != min(at*500, bulk)) {
					t.Fatalf("got %+v, %v, want that it ended after the batch in hand", last, err)
				}
				if killed && !errors.Is(err, hungUp) {
					t.Fatalf("got %v", err)
				}
				if did := len(s.mta.did()); did != min(at*500, bulk) {
					t.Errorf("%d messages were done", did)
				}
				last = desk.Step{}
				if err := b.act(s.d, t.Context(), s.now, func(step desk.Step) error { last = step; return nil }); err != nil || !last.End || last.Counts["done"] != bulk-min(at*500, bulk) {
					t.Fatalf("again: %+v, %v, want the rest done", last, err)
				}
				did := s.mta.did()
				slices.Sort(did)
				if len(did) != bulk || len(slices.Compact(did)) != bulk {
					t.Errorf("%d acts, want each message's once", len(did))
				}
				s.wantState(b.end, "A00000", fmt.Sprintf("A%05X", bulk-1))
				s.reconcile()
				s.reconcile()
				if len(s.mta.did()) != bulk {
					t.Error("something was done again")
				}
			})
		}
	}
}

// The root helper dies in the middle.
func TestBulkActsThatTheQueueRefuses(t *testing.T) {
	for _, b := range bulks {
		t.Run(b.name, func(t *testing.T) {
			s := open(t)
			s.bulk(b.queue)
			away := errors.New("the root helper is away")
			calls := 0
			s.mta.before[b.verb] = func() error {
				if calls++; calls == 2 {
					return away
				}
				return nil
			}
			var last desk.Step
			send := func(step desk.Step) error { last = step; return nil }
			if err := b.act(s.d, t.Context(), s.now, send); !errors.Is(err, away) || last.Cut == "" || last.End || last.Counts["done"] != 500 {
				t.Fatalf("got %+v, %v", last, err)
			}
			if err := b.act(s.d, t.Context(), s.now, send); err != nil || last.Counts["done"] != bulk-500 {
				t.Fatalf("again: %+v, %v", last, err)
			}
			if len(s.mta.did()) != bulk {
				t.Errorf("%d acts", len(s.mta.did()))
			}
		})
	}
}

// The daemon dies after the MTA has done a batch and before it heard of it: the
// next one finds it done.
func TestBulkActsSurviveTheDaemonsEnd(t *testing.T) {
	for _, b := range bulks {
		t.Run(b.name, func(t *testing.T) {
			s := open(t)
			s.bulk(b.queue)
			s.mta.after[b.verb] = func() error { return context.Canceled }
			if err := b.act(s.d, t.Context(), s.now, func(desk.Step) error { return nil }); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			delete(s.mta.after, b.verb)
			s.restart()
			s.now = s.now.Add(2 * time.Minute)
			s.reconcile()
			s.reconcile()
			var last desk.Step
			if err := b.act(s.d, t.Context(), s.now, func(step desk.Step) error { last = step; return nil }); err != nil || !last.End {
				t.Fatalf("again: %+v, %v", last, err)
			}
			did := s.mta.did()
			slices.Sort(did)
			if len(did) != bulk || len(slices.Compact(did)) != bulk {
				t.Errorf("%d acts, want each message's once", len(did))
			}
			s.wantState(b.end, "A00000", fmt.Sprintf("A%05X", bulk-1))
		})
	}
}

func TestSuspendWhereSendmailCannotBeTakenAway(t *testing.T) {
	s := open(t)
	s.mta.before["forbid"] = func() error { return mta.ErrUnsupported }
	s.mta.before["allow"] = func() error { return mta.ErrUnsupported }
	out := s.suspend("local_user:deploy")
	if len(out.Remarks) != 0 || !strings.Contains(out.Local, "refused at the end of each message") {
		t.Errorf("got %+v", out)
	}
	if r, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "local_user:deploy", Cause: "mended"}); err != nil || len(r.Remarks) != 0 {
		t.Errorf("resumed: %+v, %v", r, err)
	}
}
