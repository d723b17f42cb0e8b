package desk_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"relayguard/cmd/internal/desk"
	"relayguard/policy"
)

// What an admin agreed to was a moment, and the MTA dates a message by the beginning
// of its session: one that a slow client ended later was acted on, too.
func TestWhatCameAfterItWasShownIsNotActedOn(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1", "A2A2A2")
	filter := desk.QueueFilter{Account: taro}
	_, shown := s.actOnQueue(desk.QueueOrder{Verb: "delete", Filter: filter, DryRun: true, Tell: true})
	filter.Before = s.now // as the command does
	for id := range shown {
		filter.IDs = append(filter.IDs, id)
	}
	s.pass(taro, "deferred", "B1B1B1") // its session is an hour old
	step, _ := s.actOnQueue(desk.QueueOrder{Verb: "delete", Filter: filter})
	if step.Counts["done"] != 2 || s.mta.where("B1B1B1") != "deferred" {
		t.Errorf("%+v; what came since is in %q", step.Counts, s.mta.where("B1B1B1"))
	}
}

func TestHeldListOfTheNullSenderAndWhatTheLimitLeftOut(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1", "A2A2A2")
	bounce := file("E1E1E1", s.start)
	bounce.Sender, bounce.Queue = "", "deferred"
	s.mta.put(bounce)
	s.actOnQueue(desk.QueueOrder{Verb: "hold", Filter: desk.QueueFilter{IDs: []string{"E1E1E1"}}})
	list := func(f desk.Filter) (ids []string, end desk.HeldEnd) {
		end, err := s.d.EachHeld(t.Context(), s.now, f, func(h desk.Held) error { ids = append(ids, h.QueueID); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return ids, end
	}
	if ids, _ := list(desk.Filter{MailFrom: "<>"}); !slices.Equal(ids, []string{"E1E1E1"}) {
		t.Errorf("of the null sender: %q", ids)
	}
	if _, end := list(desk.Filter{Account: taro, Limit: 1}); end.Messages != 1 || !end.More {
		t.Errorf("one of two: %+v", end)
	}
	if _, end := list(desk.Filter{Account: taro, Limit: 2}); end.Messages != 2 || end.More {
		t.Errorf("two of two: %+v", end)
	}
}

// A suspension held all that an account had in one act, which nothing could end and
// every other act waited for.
func TestSuspendHoldsInBatches(t *testing.T) {
	s := open(t)
	const n = 1200
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("A%06X", i)
	}
	s.pass(taro, "deferred", all...)
	s.pass(hanako, "deferred", "B1B1B1")
	if err := s.journal.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, hangUp := context.WithCancel(t.Context())
	s.mta.after["hold"] = func() error { hangUp(); return nil }
	out, err := s.d.Suspend(ctx, s.now, admin, desk.Suspension{Account: taro, Reason: "abused"})
	if err != nil || out.Held != 500 || !strings.Contains(strings.Join(out.Remarks, " "), "suspend it once more: it was interrupted") {
		t.Fatalf("held %d, %v, %q; want the batch in hand", out.Held, err, out.Remarks)
	}
	s.mta.set(func() { delete(s.mta.after, "hold") })

	if out = s.suspend(taro); out.Held != n-500 || len(out.Remarks) > 0 {
		t.Errorf("again: held %d, %q", out.Held, out.Remarks)
	}
	s.wantIn("hold", all...)
	s.wantIn("deferred", "B1B1B1")
	s.wantRoom(n)
	if h := s.entries(all[n-1]); len(h) != 1 || h[0].Rule != policy.RuleSuspended || h[0].Account != taro {
		t.Errorf("entry: %+v", h)
	}
}
