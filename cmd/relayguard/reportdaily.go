package main

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/report"
	"relayguard/journal"
)

const (
	// reportMade is the journal's name for the day whose report was made last.
	reportMade = "report mailed"
	// reportLast is its name for what is to be known of that report: a lastReport.
	reportLast = "report last"
)

// lastReport is what is to be known of the daily report that was made last.
type lastReport struct {
	Day     string    `json:"day,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Dropped int64     `json:"dropped,omitempty"` // rows, by a process until then
	Process time.Time `json:"process,omitzero"`  // when that began
	To      []string  `json:"to,omitempty"`      // who gets it
	Has     []string  `json:"has,omitempty"`     // of those: who has it

	Unanswered map[string]int `json:"unanswered,omitempty"` // how often who may have it was written to
}

// waits are who does not have it yet and is still to get it.
func (l *lastReport) waits(c *config.Config) []string {
	return slices.DeleteFunc(slices.Clone(l.To), func(one string) bool {
		return slices.Contains(l.Has, one) || !slices.Contains(c.Report.To, one)
	})
}

// reportBook is what the daemon knows of its daily reports. The journal has the same
// a moment later.
type reportBook struct {
	mu    sync.Mutex
	known bool   // last was read
	made  string // the day whose report was made last, by this process
	last  lastReport
	kept  *report.Report // the last one, should its file be gone

	mailing sync.Mutex // one tries at a time; before mu
	tries   int        // that failed, of the last report
	next    time.Time  // before which nobody tries again
	told    bool       // that it cannot be mailed
}

// lastReport is the last one; of none it is zero.
func (d *daemon) lastReport(ctx context.Context) lastReport {
	b := &d.reports
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.known {
		text, found, err := d.state.journal.Value(ctx, reportLast)
		switch {
		case err != nil:
			d.log.Warn("what the last daily report was is not known", "error", err)
			return b.last
		case found:
			if err := json.Unmarshal([]byte(text), &b.last); err != nil {
				d.log.Warn("what the last daily report was is not known", "error", err)
			}
		}
		b.known = true
	}
	last := b.last
	last.To, last.Has = slices.Clone(last.To), slices.Clone(last.Has)
	return last
}

// noteReport remembers it, also after a crash: who has a report does not get it again.
func (d *daemon) noteReport(ctx context.Context, change func(*lastReport)) {
	d.lastReport(ctx)
	b := &d.reports
	b.mu.Lock()
	change(&b.last)
	made := b.last.Day
	b.known, b.made = true, made
	text, err := json.Marshal(b.last)
	b.mu.Unlock()
	if err != nil {
		d.log.Error("note the daily report", "error", err)
		return
	}
	d.state.journal.Note(journal.Value{Name: reportLast, Value: string(text)})
	d.state.journal.Note(journal.Value{Name: reportMade, Value: made})
	if err := d.state.journal.Sync(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("note the daily report", "error", err)
	}
}

// runReports makes the report each day at report.at, by the server's clock; one that
// was missed while the daemon was away is made when it is back. Letters that could not
// be handed in are tried again.
func (d *daemon) runReports(ctx context.Context) {
	d.firstReport(ctx, time.Now())
	for {
		now := time.Now()
		c := d.state.config.Load()
		wait := time.Minute // a reload may set another time
		if at, ok := reportTime(c, now); ok {
			if !now.Before(at) && !d.reportDone(ctx, at) {
				d.dailyReport(ctx, c, now, at)
			}
			if until := at.Sub(now); until > 0 {
				wait = min(wait, until)
			}
		}
		if next := d.mailAgain(ctx, time.Now()); !next.IsZero() {
			wait = min(wait, max(time.Until(next), time.Second))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// reportTime is when today's report is due.
func reportTime(c *config.Config, now time.Time) (time.Time, bool) {
	if c.Report.At == "" {
		return time.Time{}, false
	}
	at, err := time.Parse("15:04", c.Report.At)
	if err != nil {
		return time.Time{}, false
	}
	return time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location()), true
}

// firstReport leaves the first day's report, of nothing, for the day after.
func (d *daemon) firstReport(ctx context.Context, now time.Time) {
	_, known, err := d.state.journal.Value(ctx, reportMade)
	at, ok := reportTime(d.state.config.Load(), now)
	if err != nil || known || ok && now.Before(at) {
		return
	}
	day := now.Format(reportDay)
	d.reports.mu.Lock()
	d.reports.made = day
	d.reports.mu.Unlock()
	d.state.journal.Note(journal.Value{Name: reportMade, Value: day})
}

// reportDone reports whether that day's report was made already.
func (d *daemon) reportDone(ctx context.Context, at time.Time) bool {
	day := at.Format(reportDay)
	d.reports.mu.Lock()
	made := d.reports.made == day
	d.reports.mu.Unlock()
	if made {
		return true
	}
	last, _, err := d.state.journal.Value(ctx, reportMade)
	return err == nil && last >= day && last <= at.AddDate(0, 0, 1).Format(reportDay) // else a clock was wrong
}

const (
	longestReport = 7 * 24 * time.Hour
	// Below this another report of the same day was made: this one is of the same time.
	shortestReport = 20 * time.Hour
)

// reportSince is where a daily report begins: where the one before ended, so that
// nothing falls between two; a day before if there was none.
func reportSince(last, now time.Time) time.Time {
	switch gone := now.Sub(last); {
	case last.IsZero(), gone < shortestReport:
		return now.AddDate(0, 0, -1)
	case gone > longestReport:
		return now.Add(-longestReport)
	}
	return last.In(now.Location())
}

// dailyReport makes, keeps and mails the report of a day.
func (d *daemon) dailyReport(ctx context.Context, c *config.Config, now, at time.Time) {
	d.makeDaily(ctx, c, now, at)
	d.mailAgain(ctx, now)
}

// makeDaily makes and keeps it. It is mailed by mailLast.
func (d *daemon) makeDaily(ctx context.Context, c *config.Config, now, at time.Time) {
	last := d.lastReport(ctx)
	r := d.reportFrom(ctx, now, reportSince(last.Until, now))
	if ctx.Err() != nil { // what is in it was cut off
		return
	}
	if err := keepReport(c, at, r); err != nil {
		d.log.Error("keep the daily report", "error", err)
	}
	if err := sweepReports(c, now); err != nil {
		d.log.Warn("remove old reports", "error", err)
	}
	b := &d.reports
	b.mailing.Lock()
	b.tries, b.next, b.told = 0, time.Time{}, false
	b.mu.Lock()
	b.kept = r
	b.mu.Unlock()
	d.noteReport(ctx, func(l *lastReport) {
		*l = lastReport{Day: at.Format(reportDay), Until: r.Until, Dropped: d.state.journal.Stats().DroppedAccepted, Process: d.since, To: slices.Clone(c.Report.To)}
	})
	b.mailing.Unlock()
	d.log.Info("daily report", "day", at.Format(reportDay), "changes", len(r.Changes), "listings", len(r.Listings), "mail_to", len(c.Report.To))
}

// dropped is how many rows were dropped since the last daily report, as far as this
// process knows.
func (d *daemon) dropped(ctx context.Context) int64 {
	last := d.lastReport(ctx)
	return last.droppedSince(d.state.journal.Stats().DroppedAccepted, d.since)
}

// droppedSince is how many of those that a process dropped so far are of the time since
// the report.
func (l *lastReport) droppedSince(all int64, process time.Time) int64 {
	if l.Process.Equal(process) {
		return max(0, all-l.Dropped)
	}
	return all
}
