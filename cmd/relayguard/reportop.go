package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/report"
	"relayguard/cmd/internal/wholefile"
	"relayguard/incident"
	"relayguard/journal"
)

// reportMailed is the journal's name for the day whose report was mailed last.
const reportMailed = "report mailed"

// reportDay names a report's files.
const reportDay = "2006-01-02"

// runReports makes the report each day at report.at, by the server's clock; one that
// was missed while the daemon was away is made when it is back.
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
	_, known, err := d.state.journal.Value(ctx, reportMailed)
	at, ok := reportTime(d.state.config.Load(), now)
	if err != nil || known || ok && now.Before(at) {
		return
	}
	d.reported = now.Format(reportDay) // the journal tells it a moment later
	d.state.journal.Note(journal.Value{Name: reportMailed, Value: d.reported})
}

// reportDone reports whether that day's report was made and mailed already.
func (d *daemon) reportDone(ctx context.Context, at time.Time) bool {
	last, _, err := d.state.journal.Value(ctx, reportMailed)
	if err == nil && last >= at.Format(reportDay) || d.reported == at.Format(reportDay) {
		return true
	}
	return false
}

func reportFile(c *config.Config, day time.Time, form string) string {
	return filepath.Join(c.ReportDirectory(), "report-"+day.Format(reportDay)+"."+form)
}

// dailyReport makes, keeps and mails a report.
func (d *daemon) dailyReport(ctx context.Context, c *config.Config, now, at time.Time) {
	r := d.report(ctx, now)
	if err := keepReport(c, at, r); err != nil {
		d.log.Error("keep the daily report", "error", err)
	}
	if err := sweepReports(c, now); err != nil {
		d.log.Warn("remove old reports", "error", err)
	}
	day := at.Format(reportDay)
	d.reported = day
	if len(c.Report.To) > 0 {
		if err := d.state.mailReport(ctx, r, c.Report.Language, c.Report.To); err != nil {
			d.log.Error("mail the daily report", "error", err)
			if ctx.Err() == nil {
				d.state.channels.Send(incident.NewNotice(now, "report", fmt.Sprintf("the daily report cannot be mailed: %v; it is in %s; once that is mended: relayguard report --mail --day %s", err, c.ReportDirectory(), day)))
			}
			return
		}
	}
	d.state.journal.Note(journal.Value{Name: reportMailed, Value: day})
	d.log.Info("daily report", "day", day, "changes", len(r.Changes), "listings", len(r.Listings), "mailed_to", len(c.Report.To))
}

// keepReport writes a report's files; the one by which it counts as made is the last.
func keepReport(c *config.Config, day time.Time, r *report.Report) error {
	if err := os.MkdirAll(c.ReportDirectory(), 0o750); err != nil {
		return err
	}
	for _, form := range []string{"txt", "html", "json"} {
		err := wholefile.Write(reportFile(c, day, form), func(w io.Writer) error { return writeReport(w, r, form, c.Report.Language) })
		if err != nil {
			return err
		}
	}
	return nil
}

// writeReport writes one in a form: "txt", "html" or "json".
func writeReport(w io.Writer, r *report.Report, form, lang string) error {
	switch form {
	case "html":
		return report.HTML(w, r, lang)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return report.Text(w, r, lang)
}

// sweepReports removes those beyond report.keep.
func sweepReports(c *config.Config, now time.Time) error {
	files, err := os.ReadDir(c.ReportDirectory())
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		day, err := time.ParseInLocation(reportDay, reportDayOf(f.Name()), now.Location())
		if err == nil && now.Sub(day) > c.Report.Keep {
			errs = append(errs, os.Remove(filepath.Join(c.ReportDirectory(), f.Name())))
		}
	}
	return errors.Join(errs...)
}

// reportDayOf is the day in the name of a report's file; "" of any other.
func reportDayOf(name string) string {
	day, is := strings.CutPrefix(name, "report-")
	day, form, dot := strings.Cut(day, ".")
	if !is || !dot || !slices.Contains([]string{"txt", "html", "json"}, form) {
		return ""
	}
	return day
}

// keptReport reads the report of a day. fs.ErrNotExist: none is kept.
func keptReport(c *config.Config, day time.Time) (*report.Report, error) {
	text, err := os.ReadFile(reportFile(c, day, "json"))
	if err != nil {
		return nil, err
	}
	r := &report.Report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", reportFile(c, day, "json"), err)
	}
	return r, nil
}

// mailReport writes to each of them. Who is told of an error is tried again by hand:
// "relayguard report --mail".
func (s *state) mailReport(ctx context.Context, r *report.Report, lang string, to []string) error {
	c := s.config.Load()
	host, _ := os.Hostname()
	from := c.Report.From
	if from == "" {
		from = "postmaster@" + s.ownDomain(host)
	}
	var errs []error
	for _, one := range to {
		text, err := report.Letter(r, lang, from, []string{one}, messageID(host))
		if err == nil {
			err = patiently(ctx, submitPauses, func() error { return s.handIn(ctx, host, one, text) })
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("to %s: %w", one, err))
		}
	}
	return errors.Join(errs...)
}

// ownDomain is the MTA's own, or the host's name.
func (s *state) ownDomain(host string) string {
	if r := s.rules.Load(); r != nil && r.policy.Addresses.DefaultDomain != "" {
		return r.policy.Addresses.DefaultDomain
	}
	return host
}

// messageID makes one that is nobody else's (RFC 5322 §3.6.4).
func messageID(host string) string {
	if host == "" {
		host = "localhost"
	}
	return randomText() + "@" + host
}

// report is that of the 24 hours until now.
func (d *daemon) report(ctx context.Context, now time.Time) *report.Report {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	s := d.state
	foreign, queue := s.desk.Looked()
	sources := &reportSources{config: s.config.Load(), journal: s.journal, foreign: int64(foreign), switches: s.switches.All(now), dropped: s.journal.Stats().DroppedAccepted, off: map[string]string{}}
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
		sources.history, sources.lists = s.blocklists.store, s.blocklists.now.Load()
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

// reportOperations are what commands may ask for.
func (d *daemon) reportOperations(m *control.Mux) {
	control.Handle(m, "GET /v1/report", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (*report.Report, error) {
		return d.reportOf(ctx, r.URL.Query().Get("day"))
	})
	control.Handle(m, "POST /v1/report/mail", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o reportOrder) ([]string, error) {
		c := d.state.config.Load()
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
		r, err := d.reportOf(ctx, o.Day)
		if err != nil {
			return nil, err
		}
		if err := d.state.mailReport(ctx, r, o.Language, o.To); err != nil {
			return nil, control.Errorf(http.StatusServiceUnavailable, "mail the report: %v", err)
		}
		d.state.desk.Action(time.Now(), byPeer(p), "report", strings.Join(o.To, " "), "", "mailed")
		return o.To, nil
	})
}

const maxReportTo = 20

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

// reportOfDay reads what is kept of a day.
func reportOfDay(c *config.Config, day string) (*report.Report, error) {
	t, err := time.ParseInLocation(reportDay, day, time.Local)
	if err != nil {
		return nil, fmt.Errorf("got the day %q, want YYYY-MM-DD", day)
	}
	r, err := keptReport(c, t)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no report of %s is kept in %s: %w", day, c.ReportDirectory(), fs.ErrNotExist)
	}
	return r, err
}
