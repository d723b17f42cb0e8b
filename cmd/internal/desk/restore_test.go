package desk_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/switches"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/policy"
)

// graveyard is a hold queue with a grace folder.
type graveyard struct {
	queue.Operator // what a test does not need
	held           map[string]mta.QueueFile
	kept           []grace.Kept
	full           bool // the disk
	made           int
	dies           bool  // Restore, after it did it
	asked          []int // of how many at a time
}

func (g *graveyard) List(_ context.Context, fn func(mta.QueueFile) error) error {
	for _, f := range g.held {
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

func (g *graveyard) Status(context.Context) (queue.Status, error) { return queue.Status{}, nil }

func (g *graveyard) delete(targets []mta.Target, keep bool) (all []mta.Result, err error) {
	for _, t := range targets {
		if keep && g.full {
			all = append(all, mta.Result{ID: t.ID, Err: errors.New("no space left on device")})
			continue
		}
		if keep {
			g.kept = append(g.kept, grace.Kept{Name: fmt.Sprintf("%s.%d", t.ID, t.Arrival.Unix()), ID: t.ID, Arrival: t.Arrival.Truncate(time.Second), Deleted: time.Now(), Size: 3000})
		}
		delete(g.held, t.ID)
		all = append(all, mta.Result{ID: t.ID, Fate: mta.Done})
	}
	return all, nil
}

func (g *graveyard) Delete(_ context.Context, t []mta.Target) ([]mta.Result, error) {
	return g.delete(t, true)
}

func (g *graveyard) DeleteForGood(_ context.Context, t []mta.Target) ([]mta.Result, error) {
	return g.delete(t, false)
}

func (g *graveyard) Kept(_ context.Context, fn func(grace.Kept) error) error {
	for _, k := range slices.Clone(g.kept) {
		if err := fn(k); err != nil {
			return err
		}
	}
	return nil
}

func (g *graveyard) Restore(_ context.Context, names []string) (all []mta.Result, err error) {
	g.asked = append(g.asked, len(names))
	for _, name := range names {
		i := slices.IndexFunc(g.kept, func(k grace.Kept) bool { return k.Name == name })
		if i < 0 {
			all = append(all, mta.Result{ID: name, Fate: mta.Gone})
			continue
		}
		k := &g.kept[i]
		if k.NewID == "" {
			g.made++
			k.NewID = fmt.Sprintf("BACC%d", g.made)
			g.held[k.NewID] = mta.QueueFile{Queue: "hold", ID: k.NewID, Arrival: k.Arrival, Size: k.Size, Sender: "taro@example.jp"}
		}
		all = append(all, mta.Result{ID: name, Fate: mta.Done, NewID: k.NewID})
	}
	if g.dies {
		return nil, context.Canceled
	}
	return all, nil
}

func (g *graveyard) Forget(_ context.Context, names []string) error {
	g.kept = slices.DeleteFunc(g.kept, func(k grace.Kept) bool { return slices.Contains(names, k.Name) })
	return nil
}

// deleted are those that a filter chooses, restored what came of an order.
func deleted(d *desk.Desk, ctx context.Context, f desk.DeletedFilter) (all []desk.Deleted, err error) {
	_, err = d.EachDeleted(ctx, time.Now(), f, func(m desk.Deleted) error {
		all = append(all, m)
		return nil
	})
	return all, err
}

func restored(d *desk.Desk, ctx context.Context, o desk.DeletedOrder) (last desk.Step, all []desk.Done, err error) {
	o.Tell = true
	var unknown []string
	err = d.ActOnDeleted(ctx, time.Now(), ann, o, func(s desk.Step) error {
		last, all, unknown = s, append(all, s.Messages...), append(unknown, s.Unknown...)
		return nil
	})
	last.Unknown = unknown
	return last, all, err
}

func named(ids ...string) desk.DeletedFilter {
	return desk.DeletedFilter{Filter: desk.Filter{IDs: ids}}
}

var ann = desk.By{Name: "ann", UID: 1001, LoginUID: 1001}

// heldOne is a desk with one held message, ABCDEF1.
func heldOne(t *testing.T) (*desk.Desk, *graveyard, *journal.Journal) {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(dir, "journal"), Settle: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	sw, err := switches.Open(filepath.Join(dir, "switches.json"), new(policy.Board), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Second).UTC()
	g := &graveyard{held: map[string]mta.QueueFile{"ABCDEF1": {Queue: "hold", ID: "ABCDEF1", Arrival: at, Size: 2310, Sender: "taro@example.jp"}}}
	if err := j.Append(journal.Decision{ID: "0d5kqw3m8x7ya", Time: at.Add(time.Second), Stage: journal.StageMessage, Verdict: policy.Hold, Rule: "login-volume", Reason: "over", Account: "login:taro@example.jp", Login: "taro@example.jp",
		MailFrom: "taro@example.jp", QueueID: "ABCDEF1", UID: -1, Size: 2310, Recipients: 3, Domains: map[string]int{"example.net": 3}}); err != nil {
		t.Fatal(err)
	}
	room := holds.NewRoom(holds.Caps{OriginMessages: 500, OriginBytes: 1 << 30, ServerMessages: 20000})
	d := &desk.Desk{Journal: j, Queue: g, Switches: sw, Room: room, Log: slog.New(slog.DiscardHandler)}
	if err := d.Reconcile(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	return d, g, j
}

func only(id string) desk.HeldOrder {
	return desk.HeldOrder{Filter: desk.Filter{IDs: []string{id}}, Reason: "spam"}
}

// Review 1, finding 17.
func TestDeleteForGoodNeedsNoRoom(t *testing.T) {
	d, g, j := heldOne(t)
	g.full = true
	if r, err := deleteHeld(d, t.Context(), time.Now(), ann, only("ABCDEF1")); err != nil || r.Counts["failed"] != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	r, err := deleteForGood(d, t.Context(), time.Now(), ann, only("ABCDEF1"))
	if err != nil || r.Counts["done"] != 1 || len(g.held) != 0 || len(g.kept) != 0 {
		t.Errorf("%+v, %v; held %v", r, err, g.held)
	}
	if all, err := deleted(d, t.Context(), desk.DeletedFilter{}); err != nil || len(all) != 0 {
		t.Errorf("to be restored: %+v, %v", all, err)
	}
	actions, err := j.AdminActions(t.Context(), 1)
	if err != nil || len(actions) != 1 || actions[0].Verb != "held delete for good" || actions[0].By != "ann" {
		t.Errorf("audit %+v, %v", actions, err)
	}
	if e, err := j.Explain(t.Context(), "ABCDEF1"); err != nil || e[0].Holds[0].State != journal.StateDeleted {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestDeletedMailComesBackOnHold(t *testing.T) {
	for _, id := range []string{"ABCDEF1", "0d5kqw3m8x7ya"} {
		d, g, j := heldOne(t)
		if r, err := deleteHeld(d, t.Context(), time.Now(), ann, only("ABCDEF1")); err != nil || r.Counts["done"] != 1 || d.Room.Totals().Messages != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		all, err := deleted(d, t.Context(), desk.DeletedFilter{})
		if err != nil || len(all) != 1 || all[0].QueueID != "ABCDEF1" || all[0].Account != "login:taro@example.jp" || all[0].Rule != "login-volume" || all[0].By != "ann" || all[0].DeletedAt.IsZero() {
			t.Fatalf("to be restored: %+v, %v", all, err)
		}
		r, back, err := restored(d, t.Context(), desk.DeletedOrder{Filter: named(id, "ABCDEF1", "ABCDEF9"), Reason: "no spam"})
		if err != nil || len(back) != 1 || r.Counts["done"] != 1 || back[0].NewID != "BACC1" || !r.End || !slices.Equal(r.Unknown, []string{"ABCDEF9"}) {
			t.Fatalf("%+v, %v", r, err)
		}
		if d.Room.Totals().Messages != 1 {
			t.Errorf("room: %+v", d.Room.Totals())
		}
		e, err := d.Explain(t.Context(), time.Now(), "ABCDEF1")
		if err != nil || len(e) != 1 || !slices.ContainsFunc(e[0].Held, func(h desk.Held) bool {
			return h.QueueID == "ABCDEF1" && h.NewQueueID == "BACC1" && h.State == "deleted"
		}) {
			t.Errorf("explain: %+v, %v", e, err)
		}
		actions, err := j.AdminActions(t.Context(), 1)
		if err != nil || actions[0].Verb != "held restore" || actions[0].Target != "1 messages" || actions[0].Reason != "no spam" {
			t.Errorf("audit %+v, %v", actions, err)
		}
		// It is a held message like others: found by what it is known by.
		later := time.Now().Add(time.Hour)
		if err := d.Reconcile(t.Context(), later); err != nil {
			t.Fatal(err)
		}
		l, err := d.List(t.Context(), later, desk.Filter{Login: "taro@example.jp"})
		if err != nil || len(l.Held) != 1 || l.Held[0].QueueID != "BACC1" || l.Held[0].HeldBy != "relayguard" || l.Held[0].Rule != "login-volume" || l.Foreign != 0 {
			t.Errorf("held: %+v, %v", l, err)
		}
		if r, err := deleteHeld(d, t.Context(), later, ann, only("BACC1")); err != nil || r.Counts["done"] != 1 || len(g.held) != 0 {
			t.Errorf("the second delete: %+v, %v", r, err)
		}
	}
}

// What the journal does not know comes back all the same, by its queue id.
func TestUnknownDeletedMailComesBack(t *testing.T) {
	d, g, _ := heldOne(t)
	g.kept = []grace.Kept{{Name: "ABCDEF1.1", ID: "ABCDEF1", Arrival: time.Unix(1, 0).UTC(), Deleted: time.Now(), Size: 9}}
	all, err := deleted(d, t.Context(), desk.DeletedFilter{})
	if err != nil || len(all) != 1 || all[0].Account != "unknown" || all[0].Size != 9 {
		t.Errorf("another's id: %+v, %v", all, err)
	}
	r, _, err := restored(d, t.Context(), desk.DeletedOrder{Filter: named("ABCDEF1")})
	if err != nil || r.Counts["done"] != 1 || len(g.kept) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, _, err := restored(d, t.Context(), desk.DeletedOrder{}); !errors.Is(err, desk.ErrUsage) {
		t.Error(err)
	}
}

// A batch whose answer nobody heard is found done, journaled, and not done twice.
func TestRestoreOfWhichNobodyHeardIsNotDoneTwice(t *testing.T) {
	d, g, j := heldOne(t)
	if r, err := deleteHeld(d, t.Context(), time.Now(), ann, only("ABCDEF1")); err != nil || r.Counts["done"] != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	g.dies = true
	if r, _, err := restored(d, t.Context(), desk.DeletedOrder{Filter: named("ABCDEF1")}); err == nil || r.Cut == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	g.dies = false
	if all, err := deleted(d, t.Context(), desk.DeletedFilter{}); err != nil || len(all) != 0 {
		t.Errorf("in the list: %+v, %v", all, err)
	}
	for _, want := range []int{1, 0} {
		r, _, err := restored(d, t.Context(), desk.DeletedOrder{Filter: desk.DeletedFilter{Filter: desk.Filter{All: true}}})
		if err != nil || r.Counts["done"] != want || len(g.held) != 1 || len(g.kept) != 0 {
			t.Errorf("again: %+v, %v; held %v, kept %v", r, err, g.held, g.kept)
		}
	}
	all, err := j.Holds(t.Context(), journal.HoldQuery{})
	if err != nil || len(all) != 1 || all[0].QueueID != "BACC1" {
		t.Errorf("held: %+v, %v", all, err)
	}
}

// What the journal does not take is back all the same, and whoever asked is told; asked
// again it is not put back twice, and the journal has it.
func TestRestoreThatTheJournalDoesNotTake(t *testing.T) {
	d, g, j := heldOne(t)
	if _, err := deleteHeld(d, t.Context(), time.Now(), ann, only("ABCDEF1")); err != nil {
		t.Fatal(err)
	}
	full := &faultyJournal{Journal: j}
	full.set(nil, errors.New("no space left on device"), nil)
	d.Journal = full
	_, all, err := restored(d, t.Context(), desk.DeletedOrder{Filter: named("ABCDEF1")})
	if err != nil || len(all) != 1 || all[0].Outcome != "done" || !strings.Contains(all[0].Error, "once more") || len(g.held) != 1 {
		t.Fatalf("%+v, %v; held %v", all, err, g.held)
	}
	full.set(nil, nil, nil)
	_, all, err = restored(d, t.Context(), desk.DeletedOrder{Filter: named("ABCDEF1")})
	if err != nil || len(all) != 1 || all[0].Outcome != "done" || all[0].Error != "" || len(g.held) != 1 || len(g.kept) != 0 {
		t.Errorf("%+v, %v; held %v, kept %v", all, err, g.held, g.kept)
	}
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{IDs: []string{all[0].NewID}}); err != nil || len(holds) != 1 || holds[0].Account != "login:taro@example.jp" {
		t.Errorf("in the journal: %+v, %v", holds, err)
	}
}

func TestDeletedMailIsChosenByWhatIsKnownOfIt(t *testing.T) {
	d, g, _ := heldOne(t)
	began := time.Now()
	if r, err := deleteHeld(d, t.Context(), began, ann, only("ABCDEF1")); err != nil || r.Counts["done"] != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	g.kept = append(g.kept, grace.Kept{Name: "ABCDEF2.1", ID: "ABCDEF2", Arrival: time.Unix(1, 0).UTC(), Deleted: began.Add(-3 * time.Hour), Size: 9})
	of := func(f desk.Filter) desk.DeletedFilter { return desk.DeletedFilter{Filter: f} }
	for _, c := range []struct {
		f    desk.DeletedFilter
		want []string
	}{
		{desk.DeletedFilter{}, []string{"ABCDEF1", "ABCDEF2"}},
		{of(desk.Filter{Login: "taro@example.jp"}), []string{"ABCDEF1"}},
		{of(desk.Filter{Login: "hanako@example.jp"}), nil},
		{of(desk.Filter{Account: "login:taro@example.jp", Rule: "login-volume"}), []string{"ABCDEF1"}},
		{of(desk.Filter{Account: "unknown"}), []string{"ABCDEF2"}},
		{of(desk.Filter{MailFrom: "taro@example.jp"}), []string{"ABCDEF1"}},
		{of(desk.Filter{MailFrom: "<>"}), nil},
		{of(desk.Filter{OlderThan: time.Hour}), []string{"ABCDEF2"}},
		{of(desk.Filter{NewerThan: time.Hour}), []string{"ABCDEF1"}},
		{of(desk.Filter{Before: began}), []string{"ABCDEF2"}},
		{of(desk.Filter{IDs: []string{"0d5kqw3m8x7ya"}}), []string{"ABCDEF1"}},
		{of(desk.Filter{IDs: []string{"ABCDEF2", "ABCDEF3"}}), []string{"ABCDEF2"}},
		{of(desk.Filter{Limit: 1}), []string{"ABCDEF1"}},
		{desk.DeletedFilter{Since: began.Add(-time.Hour)}, []string{"ABCDEF1"}},
		{desk.DeletedFilter{By: "ann"}, []string{"ABCDEF1"}},
		{desk.DeletedFilter{By: "root"}, nil},
	} {
		all, err := deleted(d, t.Context(), c.f)
		var got []string
		for _, m := range all {
			got = append(got, m.QueueID)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, %v, want %v", c.f, got, err, c.want)
		}
	}
}

func TestBulkRestoreGoesInBatchesAndEndsBetweenThem(t *testing.T) {
	d, g, _ := heldOne(t)
	const many = 1200
	for n := range many {
		g.kept = append(g.kept, grace.Kept{Name: fmt.Sprintf("C%05X.1", n), ID: fmt.Sprintf("C%05X", n), Arrival: time.Unix(1, 0).UTC(), Deleted: time.Now(), Size: 10})
	}
	all := desk.DeletedOrder{Filter: desk.DeletedFilter{Filter: desk.Filter{All: true}}}
	dry := all
	dry.DryRun = true
	if r, _, err := restored(d, t.Context(), dry); err != nil || r.Counts["would"] != many || len(g.kept) != many || r.Bytes != many*10 {
		t.Fatalf("%+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var last desk.Step
	err := d.ActOnDeleted(ctx, time.Now(), ann, all, func(s desk.Step) error {
		if last = s; s.Done > 0 {
			cancel()
		}
		return nil
	})
	if err != nil || last.Cut == "" || last.Done != 500 || len(g.kept) != many-500 {
		t.Errorf("interrupted: %+v, %v; %d kept", last, err, len(g.kept))
	}
	if r, _, err := restored(d, t.Context(), all); err != nil || r.Counts["done"] != many-500 || len(g.kept) != 0 || len(g.held) != many+1 {
		t.Errorf("the rest: %+v, %v; %d kept, %d held", r, err, len(g.kept), len(g.held))
	}
	if !slices.Equal(g.asked, []int{500, 500, 200}) {
		t.Errorf("asked for %v", g.asked)
	}
}
