package desk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

const (
	remindEvery = 24 * time.Hour
	topicHeld   = "held" // of the notice
	// reminderValue is the journal's name for when the admin was last reminded, so
	// that a daemon that is started over and over does not remind each time.
	reminderValue = "held_reminder"
	maxNamed      = 5    // accounts in one reminder
	maxDeleted    = 1000 // messages that one call deletes
)

// Remind tells once a day of held mail that nobody has claimed for
// hold.remind_after, and deletes what nobody has claimed for hold.delete_after, if
// that is configured. It is called every minute.
func (d *Desk) Remind(ctx context.Context, now time.Time) {
	p := d.pacing()
	if p.RemindAfter > 0 {
		if err := d.remind(ctx, now, p.RemindAfter); err != nil {
			d.tellOnce("remind", "how much held mail nobody claims is not known", "error", err)
		} else {
			d.mended("remind")
		}
	}
	if p.DeleteAfter > 0 {
		if err := d.deleteOld(ctx, now, p.DeleteAfter); err != nil {
			d.tellOnce("delete_after", "held mail that nobody claims cannot be deleted; it is tried again", "error", err)
		} else {
			d.mended("delete_after")
		}
	}
}

func (d *Desk) remind(ctx context.Context, now time.Time, after time.Duration) error {
	if since := now.Sub(d.lastReminder(ctx)); since >= 0 && since < remindEvery {
		return nil
	}
	counts, oldest, total := map[string]int{}, time.Time{}, 0
	err := d.unclaimed(ctx, now, after, func(h *journal.Hold) error {
		if total++; total == 1 {
			oldest = h.HeldAt
		}
		counts[h.Account]++
		return nil
	})
	if err != nil || total == 0 {
		return err
	}
	d.mu.Lock()
	d.reminded = now
	d.mu.Unlock()
	d.append(journal.Value{Name: reminderValue, Value: now.UTC().Format(time.RFC3339)})
	text := reminder(counts, total, oldest, after)
	d.Log.Warn("held mail that nobody claims", "messages", total, "oldest", oldest, "text", text)
	if d.Notice != nil {
		d.Notice(now, topicHeld, text)
	}
	return nil
}

// lastReminder is when the admin was last told; the zero time if never.
func (d *Desk) lastReminder(ctx context.Context) time.Time {
	d.mu.Lock()
	last := d.reminded
	d.mu.Unlock()
	j, keeps := d.Journal.(interface {
		Value(ctx context.Context, name string) (string, bool, error)
	})
	if !last.IsZero() || !keeps {
		return last
	}
	if text, found, err := j.Value(ctx, reminderValue); err == nil && found {
		last, _ = time.Parse(time.RFC3339, text)
	}
	return last
}

// unclaimed calls fn with mail that was held so long ago and is in no line, the
// oldest first.
func (d *Desk) unclaimed(ctx context.Context, now time.Time, after time.Duration, fn func(*journal.Hold) error) error {
	return d.Journal.EachHold(ctx, journal.HoldQuery{HeldBefore: now.Add(-after), States: []journal.State{journal.StateHeld}}, func(h *journal.Hold) error {
		if d.Waiting != nil && d.Waiting.Has(h.QueueID, h.DecisionID) {
			return nil
		}
		return fn(h)
	})
}

// reminder says how many there are and whose, in one line.
func reminder(counts map[string]int, total int, oldest time.Time, after time.Duration) string {
	accounts := make([]string, 0, len(counts))
	for a := range counts {
		accounts = append(accounts, a)
	}
	slices.SortFunc(accounts, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%d held messages wait for you for more than %s, the oldest since %s:", total, hours(after), oldest.UTC().Format("2006-01-02 15:04Z"))
	for _, a := range accounts[:min(len(accounts), maxNamed)] {
		const longest = 80 // octets of a name, so that all have room in an alert
		name := a
		if len(name) > longest {
			name = strings.ToValidUTF8(name[:longest], "") + "..."
		}
		fmt.Fprintf(&b, " %s %d,", name, counts[a])
	}
	if more := len(accounts) - maxNamed; more > 0 {
		fmt.Fprintf(&b, " and %d other accounts,", more)
	}
	return strings.TrimSuffix(b.String(), ",") + fmt.Sprintf("; relayguard held list --older-than %s", hours(after))
}

// hours writes a length as commands take it.
func hours(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return d.String()
}

// deleteOld deletes what is old enough, but for what the red switch or an admin
// holds and what only the MTA's log says is ours. The root helper keeps a copy for
// hold.grace.
func (d *Desk) deleteOld(ctx context.Context, now time.Time, after time.Duration) error {
	spared := func(h *journal.Hold) bool {
		return lost(h) || h.Rule == policy.RuleStopped || h.Rule == ruleAdmin || h.State != journal.StateHeld
	}
	if d.pausing(now, "delete_after") {
		return nil
	}
	var old []journal.Hold
	err := d.unclaimed(ctx, now, after, func(h *journal.Hold) error {
		if len(old) >= maxDeleted {
			return errEnough
		}
		if !spared(h) {
			old = append(old, *h)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if len(old) == 0 {
		return nil
	}
	const reason = "nobody claimed it for hold.delete_after"
	d.append(d.audit(now, guardItself, "held delete", fmt.Sprintf("%d messages", len(old)), reason, ""))
	done, err := d.settle(ctx, now, guardItself, reason, "delete", old, func(part []journal.Hold) []journal.Hold {
		return slices.DeleteFunc(part, func(h journal.Hold) bool { return spared(&h) })
	})
	if err != nil {
		d.pause(now, "delete_after")
		return err
	}
	d.Log.Warn("held mail that nobody claimed is deleted", "messages", len(done), "after", after)
	return nil
}
