package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// bulkOf journals n holds, the last held first, and one that is released.
func bulkOf(t *testing.T, j *journal.Journal, n int, start time.Time) {
	t.Helper()
	var all []journal.Record
	for i := range n {
		all = append(all, journal.Decision{ID: fmt.Sprintf("d%d", i), Time: start.Add(-time.Duration(i) * time.Second), Stage: journal.StageMessage, Verdict: policy.Hold, Rule: "volume",
			Account: fmt.Sprintf("login:%d@example.jp", i%2), QueueID: fmt.Sprintf("Q%05d", i), MailFrom: "a@example.jp", UID: -1})
	}
	all = append(all, journal.HoldChange{QueueID: "Q00001", DecisionID: "d1", Time: start, State: journal.StateReleased, NewQueueID: "R00001"})
	if err := j.Append(all...); err != nil {
		t.Fatal(err)
	}
}

func TestEachHoldGivesAllTheLongestHeldFirst(t *testing.T) {
	j, err := journal.Open(t.Context(), journal.Options{Dir: t.TempDir(), Settle: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	start, n := time.Now().UTC().Truncate(time.Second), 1300
	bulkOf(t, j, n, start)
	var ids []string
	collect := func(h *journal.Hold) error {
		ids = append(ids, h.QueueID)
		if len(ids)%100 == 0 { // it may ask
			if _, err := j.Holds(t.Context(), journal.HoldQuery{IDs: []string{h.QueueID}}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := j.EachHold(t.Context(), journal.HoldQuery{}, collect); err != nil || len(ids) != n-1 || ids[0] != "Q01299" || ids[n-2] != "Q00000" || slices.Contains(ids, "Q00001") {
		t.Fatalf("got %d holds, %v", len(ids), err)
	}
	for _, c := range []struct {
		q    journal.HoldQuery
		want int
	}{
		{journal.HoldQuery{Account: "login:0@example.jp"}, 650},
		{journal.HoldQuery{Limit: 700}, 700},
		{journal.HoldQuery{IDs: ids[:600]}, 600},
		{journal.HoldQuery{IDs: []string{"d3", "R00001"}, States: []journal.State{journal.StateHeld, journal.StateReleased}}, 2},
		{journal.HoldQuery{HeldBefore: start.Add(-1000 * time.Second)}, 299},
	} {
		ids = nil
		if err := j.EachHold(t.Context(), c.q, collect); err != nil || len(ids) != c.want {
			t.Errorf("%d holds, %v, want %d", len(ids), err, c.want)
		}
	}
	// What ends meanwhile is left out; who asked may have enough.
	ids = nil
	enough := errors.New("enough")
	err = j.EachHold(t.Context(), journal.HoldQuery{}, func(h *journal.Hold) error {
		if ids = append(ids, h.QueueID); len(ids) == 1 {
			if err := j.Append(journal.HoldChange{QueueID: "Q00000", DecisionID: "d0", Time: start, State: journal.StateGone}); err != nil {
				return err
			}
			return j.Sync(t.Context())
		}
		if h.QueueID == "Q00000" {
			t.Error("a hold that is closed")
		}
		if len(ids) == n-2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func TestKnownTellsMessagesByTheirIDs(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(t.Context(), journal.Options{Dir: dir, Settle: patience})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now().UTC().Truncate(time.Second)
	bulkOf(t, j, 3, start)
	passed := journal.Decision{ID: "p1", Time: start.Add(time.Second), Stage: journal.StageMessage, Verdict: policy.Accept, Account: "login:1@example.jp", Site: "shop.example.jp", QueueID: "Q00000", MailFrom: "b@example.jp", UID: -1}
	refused := journal.Decision{ID: "x1", Time: start, Stage: journal.StageRecipient, Verdict: policy.Reject, Account: "login:1@example.jp", QueueID: "Q00000", UID: -1}
	if err := j.Append(passed, refused); err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(who string, known []journal.Known, err error) {
		t.Helper()
		var got []string
		for _, k := range known {
			got = append(got, fmt.Sprintf("%s %s %s %s %v", k.QueueID, k.DecisionID, k.Verdict, k.State, k.Moved))
		}
		want := []string{"Q00000 d0 hold held false", "R00001 d1 hold released true", "Q00000 p1 accept  false", "Q00000 d0 hold  false"}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", who, got, err, want)
		}
	}
	ids := []string{"Q00000", "R00001", "no such"}
	known, err := j.Known(t.Context(), ids)
	check("the daemon's", known, err)
	if known, err := j.Known(t.Context(), []string{"p1"}); err != nil || len(known) != 1 || known[0].Site != "shop.example.jp" {
		t.Errorf("by decision: %+v, %v", known, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	o, err := journal.OpenOffline(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	known, err = o.Known(t.Context(), ids)
	check("root's", known, err)
	n := 0
	if err := o.EachHold(t.Context(), journal.HoldQuery{}, func(*journal.Hold) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("root's: %d holds, %v", n, err)
	}
}
