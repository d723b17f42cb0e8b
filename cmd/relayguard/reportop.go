package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/report"
)

// report is that of the 24 hours until now.
func (d *daemon) report(ctx context.Context, now time.Time) *report.Report {
	return d.reportFrom(ctx, now, time.Time{})
}

// reportFrom is that of the time until now.
func (d *daemon) reportFrom(ctx context.Context, now, since time.Time) *report.Report {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	s := d.state
	foreign, queue := s.desk.Looked()
	sources := &reportSources{config: s.config.Load(), since: since, journal: s.journal, foreign: int64(foreign), switches: s.switches.All(now), dropped: d.dropped(ctx), off: map[string]string{}}
	if queue != "" {
		sources.off[report.SectionHeld] = queue
	}
	if s.follower == nil {
		sources.off[report.SectionDeliveries] = "the MTA's log is not read: mta.log"
	}
	switch {
	case s.forwarding != nil:
		sources.watched, sources.entries = true, s.forwarding.ledger.Entries(true)
		sources.evidence = s.evidence()
	case sources.config.Forward.Watch: // else that is as it was wanted: Watched says it
		sources.off[report.SectionForwards] = s.forwardsOff
	}
	switch {
	case s.blocklists == nil:
		sources.off[report.SectionBlocklists] = s.blocklistsOff
	default:
		sources.history, sources.lists, sources.watch = s.blocklists.store, s.blocklists.now.Load(), s.blocklists.watch.Status()
	}
	return gatherReport(ctx, now, sources)
}

// reportTimeout bounds the making of a report.
const reportTimeout = 2 * time.Minute

// reportOrder asks for a report by mail.
type reportOrder struct {
	To       []string `json:"to,omitempty"`       // [report.to]
	Language string   `json:"language,omitempty"` // [report.language]
	Day      string   `json:"day,omitempty"`      // of a report that is kept; "": of now
}

// forgetOrder asks for kept reports that name an account to be removed.
type forgetOrder struct {
	Account string `json:"account"`
	Reason  string `json:"reason"`
}

// reportOperations are what commands may ask for.
func (d *daemon) reportOperations(m *control.Mux) {
	control.Handle(m, "GET /v1/report", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (*report.Report, error) {
		return d.reportOf(ctx, r.URL.Query().Get("day"))
	})
	control.Handle(m, "POST /v1/report/mail", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o reportOrder) ([]string, error) {
		has, err := d.mailOrdered(ctx, time.Now(), o)
		if len(has) > 0 {
			d.state.desk.Action(time.Now(), byPeer(p), "report", strings.Join(has, " "), "", "mailed")
		}
		return has, err
	})
	control.Handle(m, "GET /v1/report/naming", control.Read, func(_ context.Context, r *http.Request, _ control.Peer, _ nothing) ([]string, error) {
		return d.reportsNaming(r.URL.Query().Get("account"), false)
	})
	control.Handle(m, "POST /v1/report/forget", control.Admin, func(_ context.Context, _ *http.Request, p control.Peer, o forgetOrder) ([]string, error) {
		days, err := d.reportsNaming(o.Account, true)
		if len(days) > 0 {
			d.state.desk.Action(time.Now(), byPeer(p), "report forget", o.Account, o.Reason, fmt.Sprintf("%s removed", counted(len(days), "report")))
		}
		return days, err
	})
}

const maxReportTo = 20

// mailOrdered mails a report for somebody who waits: each recipient is tried once.
// Where no time of the day is configured, that of now to report.to is the daily one,
// as a timer wants it.
func (d *daemon) mailOrdered(ctx context.Context, now time.Time, o reportOrder) (has []string, err error) {
	c := d.state.config.Load()
	daily := o.Day == "" && len(o.To) == 0 && c.Report.At == ""
	if len(o.To) == 0 {
		o.To = c.Report.To
	}
	if o.Language == "" {
		o.Language = c.Report.Language
	}
	if len(o.To) == 0 {
		return nil, control.Errorf(http.StatusBadRequest, "nobody is named: report.to is empty; use --to ADDRESS")
	}
	if len(o.To) > maxReportTo {
		return nil, control.Errorf(http.StatusBadRequest, "got %d addresses, want at most %d", len(o.To), maxReportTo)
	}
	var not unmailed
	later := ""
	b := &d.reports
	if daily {
		d.makeDaily(ctx, c, now, now)
		b.mailing.Lock()
		has, not = d.mailLast(ctx, now)
		b.mailing.Unlock()
		later = "\nwho did not get it is tried again until the next report"
	} else {
		r, err := d.reportOf(ctx, o.Day)
		if err != nil {
			return nil, err
		}
		day := o.Day
		if day == "" {
			day = now.Format(reportDay)
		}
		b.mailing.Lock() // the daily one may be on its way to the same
		has, not = d.state.mailReport(ctx, r, o.Language, o.To)
		d.hasReport(ctx, day, has)
		b.mailing.Unlock()
	}
	if len(not) > 0 {
		if len(has) > 0 {
			later = "\nmailed to " + strings.Join(has, ", ") + later
		}
		return has, control.Errorf(http.StatusServiceUnavailable, "mail the report: %v%s", not, later)
	}
	return has, nil
}

// reportsNaming are the days of kept reports that name an account, removed if that is
// wanted.
func (d *daemon) reportsNaming(account string, remove bool) ([]string, error) {
	if account == "" {
		return nil, control.Errorf(http.StatusBadRequest, "name an account")
	}
	c := d.state.config.Load()
	all, err := reportsNaming(c, account)
	if err != nil {
		return nil, control.Errorf(http.StatusServiceUnavailable, "%v", err)
	}
	days := []string{}
	for i := range all {
		if remove {
			if err := all[i].remove(c); err != nil {
				return days, control.Errorf(http.StatusServiceUnavailable, "%v", err)
			}
		}
		days = append(days, all[i].day)
	}
	if b := &d.reports; remove {
		b.mu.Lock()
		if slices.Contains(days, b.last.Day) {
			b.kept = nil
		}
		b.mu.Unlock()
	}
	return days, nil
}

// reportOf is the report of a day that is kept, or of now.
func (d *daemon) reportOf(ctx context.Context, day string) (*report.Report, error) {
	if day == "" {
		return d.report(ctx, time.Now()), nil
	}
	if _, err := time.Parse(reportDay, day); err != nil {
		return nil, control.Errorf(http.StatusBadRequest, "got the day %q, want YYYY-MM-DD", day)
	}
	r, err := reportOfDay(d.state.config.Load(), day)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, control.Errorf(http.StatusNotFound, "%v", err)
	case err != nil:
		return nil, control.Errorf(http.StatusServiceUnavailable, "%v", err)
	}
	return r, nil
}
