package desk_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
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

func (g *graveyard) Kept(context.Context) ([]grace.Kept, error) { return g.kept, nil }

func (g *graveyard) Restore(_ context.Context, name string) (string, error) {
	i := slices.IndexFunc(g.kept, func(k grace.Kept) bool { return k.Name == name })
	if i < 0 {
		return "", fmt.Errorf("restore %s: %w", name, mta.ErrGone)
	}
	g.made++
	k, id := g.kept[i], fmt.Sprintf("BACC%d", g.made)
	g.kept = slices.Delete(g.kept, i, i+1)
	g.held[id] = mta.QueueFile{Queue: "hold", ID: id, Arrival: k.Arrival, Size: k.Size, Sender: "taro@example.jp"}
	return id, nil
}

var ann = desk.By{Name: "ann", UID: 1001, LoginUID: 1001}

// heldOne is a desk with one held message, ABCDEF1.
func heldOne(t *testing.T) (*desk.Desk, *graveyard, *journal.Journal) {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(dir, "journal")})
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
	if all, err := d.Deleted(t.Context()); err != nil || len(all) != 0 {
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
		all, err := d.Deleted(t.Context())
		if err != nil || len(all) != 1 || all[0].QueueID != "ABCDEF1" || all[0].Account != "login:taro@example.jp" || all[0].Rule != "login-volume" || all[0].By != "ann" || all[0].DeletedAt.IsZero() {
			t.Fatalf("to be restored: %+v, %v", all, err)
		}
		r, err := d.Restore(t.Context(), time.Now(), ann, desk.Restoration{IDs: []string{id, "ABCDEF1", "ABCDEF9"}, Reason: "no spam"})
		if err != nil || len(r.Messages) != 1 || r.Counts["done"] != 1 || r.Messages[0].NewID != "BACC1" || !slices.Equal(r.Unknown, []string{"ABCDEF9"}) {
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
		if err != nil || actions[0].Verb != "held restore" || actions[0].Target != "ABCDEF1" || actions[0].Reason != "no spam" {
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
	all, err := d.Deleted(t.Context())
	if err != nil || len(all) != 1 || all[0].Account != "unknown" || all[0].Size != 9 {
		t.Errorf("another's id: %+v, %v", all, err)
	}
	r, err := d.Restore(t.Context(), time.Now(), ann, desk.Restoration{IDs: []string{"ABCDEF1"}})
	if err != nil || r.Counts["done"] != 1 || len(g.kept) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := d.Restore(t.Context(), time.Now(), ann, desk.Restoration{}); !errors.Is(err, desk.ErrUsage) {
		t.Error(err)
	}
}
