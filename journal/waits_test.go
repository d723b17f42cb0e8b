package journal_test

import (
	"encoding/json"
	"strings"
	"testing"

	"relayguard/journal"
)

// What a hold waits for is there until the message is gone, whatever the queue
// says of it meanwhile.
func TestHoldKeepsWhatItWaitsFor(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	d := held(1)
	d.Waits = json.RawMessage(waits)
	must(t, j.Append(d))
	change := func(state journal.State, charge string) {
		t.Helper()
		must(t, j.Append(journal.HoldChange{QueueID: d.QueueID, DecisionID: d.ID, Time: start, State: state, ChargeID: charge}))
	}
	hold := func() journal.Hold {
		t.Helper()
		holds, err := j.Holds(t.Context(), journal.HoldQuery{IDs: []string{d.ID}, States: []journal.State{
			journal.StateHeld, journal.StateReleasing, journal.StateReleased, journal.StateGone}})
		must(t, err)
		if len(holds) != 1 {
			t.Fatalf("holds: %+v", holds)
		}
		return holds[0]
	}
	want := func(waits, charge string) {
		t.Helper()
		if h := hold(); string(h.Waits) != waits || h.ChargeID != charge {
			t.Errorf("got %s paid by %q, want %s by %q", h.Waits, h.ChargeID, waits, charge)
		}
	}
	want(waits, "")
	must(t, j.Append(journal.Held{QueueID: d.QueueID, DecisionID: d.ID, Account: d.Account, HeldAt: start})) // seen in the queue
	want(waits, "")
	change(journal.StateReleasing, "release:1")
	want(waits, "release:1")
	change(journal.StateGone, "")
	want(waits, "release:1")
	change(journal.StateHeld, "")
	must(t, j.Close())
	holds, err := reader(t, dir).Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if len(holds) != 1 || string(holds[0].Waits) != waits || holds[0].ChargeID != "release:1" {
		t.Errorf("reader: %+v", holds)
	}
	j = open(t, journal.Options{Dir: dir})
	want(waits, "release:1")
	change(journal.StateReleased, "")
	want("", "release:1")
}

func TestUnfitWaitsCostNoHold(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	fit := `"` + strings.Repeat("x", journal.MaxWaits-2) + `"`
	for i, c := range []struct{ waits, want string }{
		{fit, fit},
		{`"x` + fit[1:], ""},
		{"{", ""},
		{"\"\xff\"", ""},
		{"{\n\"a\": 1}", `{"a":1}`},
		{"", ""},
	} {
		d := held(i)
		d.Waits = json.RawMessage(c.waits)
		must(t, j.Append(d))
		holds, err := j.Holds(t.Context(), journal.HoldQuery{IDs: []string{d.ID}})
		must(t, err)
		if len(holds) != 1 || string(holds[0].Waits) != c.want {
			t.Errorf("%.20q: got %d holds, %.40q", c.waits, len(holds), holds[0].Waits)
		}
	}
	accepts := accepted(100) // opens no hold
	accepts.Waits = json.RawMessage("{}")
	must(t, j.Append(accepts))
	if got := explain(t, j, accepts.ID); len(got) != 1 || len(got[0].Holds) != 0 {
		t.Errorf("%+v", got)
	}
}
