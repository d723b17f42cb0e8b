package main

import (
	"cmp"
	"context"
	"time"

	"relayguard/journal"
)

// aliveMark is the journal's name for when the daemon was last seen to run.
const aliveMark = "alive"

const (
	troubleEvery = time.Minute
	awayLeast    = 3 * time.Minute // a restart is no trouble
)

// troubles records when something of the guard is not well, for the daily report.
type troubles struct {
	journal interface {
		Note(journal.Record)
	}
	open map[string]journal.Trouble
}

// begin goes on with what was open, of several of one kind the newest, and records
// how long nobody ran.
func (t *troubles) begin(now time.Time, left []journal.Trouble, alive string) {
	t.open = map[string]journal.Trouble{}
	last, err := time.Parse(time.RFC3339, alive)
	for _, one := range left {
		if !one.Until.IsZero() {
			continue
		}
		if older, twice := t.open[one.What]; twice {
			older.Until = one.Since // they come oldest first
			t.journal.Note(older)
		}
		t.open[one.What] = one
	}
	if err == nil && now.Sub(last) >= awayLeast {
		t.journal.Note(journal.Trouble{What: "daemon", Why: "it did not run", Since: last, Until: now})
	}
}

// look compares with what is not well now: by part, why.
func (t *troubles) look(now time.Time, bad map[string]string) {
	for what, why := range bad {
		if _, known := t.open[what]; !known {
			t.open[what] = journal.Trouble{What: what, Why: why, Since: now}
			t.journal.Note(t.open[what])
		}
	}
	for what, one := range t.open {
		if _, still := bad[what]; !still {
			one.Until = later(now, one.Since) // the clock may have been set back
			t.journal.Note(one)
			delete(t.open, what)
		}
	}
	t.journal.Note(journal.Value{Name: aliveMark, Value: now.UTC().Format(time.RFC3339)})
}

// bad says what of the guard is not well: by part, why.
func (s *status) bad() map[string]string {
	all := map[string]string{}
	put := func(what string, is bool, why string) {
		if is {
			all[what] = why
		}
	}
	put("journal", !s.Journal.OK, s.Journal.Text)
	put("limits", !s.Store.OK, s.Store.Text)
	put("redis", s.Store.Away, "Redis is away: this relay goes by its own budgets")
	put("queue", s.Queue != "", s.Queue)
	put("room", s.NoRoom != "", s.NoRoom)
	put("mta log", s.Log.Problem != "", s.Log.Problem)
	put("relays", s.Relays != "", s.Relays)
	put("mta stop", s.MTAStop != "", s.MTAStop)
	for _, a := range s.Alerts {
		put("alerts by "+a.Channel, a.Problem != "", a.Problem)
	}
	if s.Forwards != nil {
		put("forwarding rules", s.Forwards.Error != "", s.Forwards.Error)
	}
	put("forwarding rules", s.NoForwards != "", s.NoForwards)
	if s.Blocklists != nil {
		why := cmp.Or(s.Blocklists.Error, s.Blocklists.Unchecked)
		put("blocklists", why != "", why)
	}
	put("blocklists", s.NoBlocklists != "", s.NoBlocklists)
	return all
}

// watchTroubles looks every minute until ctx ends.
func (d *daemon) watchTroubles(ctx context.Context) {
	t := &troubles{journal: d.state.journal}
	now := time.Now()
	left, err := d.state.journal.Troubles(ctx, now.AddDate(-1, 0, 0), now)
	if err != nil {
		d.log.Warn("what was not well before is not known", "error", err)
	}
	alive, _, err := d.state.journal.Value(ctx, aliveMark)
	if err != nil {
		d.log.Warn("when the daemon ran before is not known", "error", err)
	}
	t.begin(now, left, alive)
	tick := time.NewTicker(troubleEvery)
	defer tick.Stop()
	for {
		s := d.status(ctx, time.Now())
		if ctx.Err() != nil { // what was asked last was cut off
			return
		}
		t.look(s.Now, s.bad())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
