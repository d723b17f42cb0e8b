package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/report"
	"relayguard/cmd/internal/switches"
	"relayguard/cmd/internal/wholefile"
	"relayguard/forward/ledger"
	"relayguard/journal"
	"relayguard/rbl/history"
)

func newReport() *cobra.Command {
	var (
		form, lang, out, day string
		asJSON, send         bool
		to                   []string
	)
	cmd := &cobra.Command{
		Use:   "report",
		Short: "say what has changed since yesterday, and what to do",
		Long: strings.TrimSpace(`
Shows the daily report of the 24 hours until now: what has changed, what to do, in
which order; listings on blocklists, since when, who was active before, how to be
removed; what could not be known; mail by verdict, top senders and plugins against
their usual, what is held, suspended, newly forwarded; when something of the guard
was not well.

The daemon makes the daily one at report.at, of the time since the one before (at
most 7 days), keeps it in report.directory, and mails it to report.to. --day shows a
kept one.

--mail has the daemon mail one, to report.to or to --to, each tried once: who did not
get it is named, and why. It needs the daemon, whose mail the guard knows as its own.
With report.at = "" and without --day and --to it is the daily one, which is kept, too:
for a timer of one's own.

With the daemon dead root gets the report from the files as the daemon left them.

Exit status: 0 there is nothing to do now; 1 there is: one of our addresses or domains
is listed, an incident is open, a forwarding rule is due, all mail is stopped, or a
change says so; 2 usage, also a --day that is no date; 3 cannot tell: too few lists
answered, the check does not run, the report has other gaps, or there is none, also
of that --day. With --mail: 0 handed in for all; 3 not for all.`),
		Example: "  relayguard report\n  relayguard report --format html --out report.html\n  relayguard report --day 2026-03-02 --lang ja\n  relayguard report --mail --to admin@example.jp",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if asJSON {
				form = "json"
			}
			if lang == "" {
				lang = c.Report.Language
			}
			if err := reportUsage(cmd, form, lang, out, day, send, to); err != nil {
				return err
			}
			if send {
				return mailTheReport(cmd, reportOrder{To: to, Language: lang, Day: day})
			}
			r, err := theReport(cmd, day)
			if err != nil {
				return err
			}
			write := func(w io.Writer) error { return writeReport(w, r, form, lang) }
			if out == "" || out == "-" {
				err = write(cmd.OutOrStdout())
			} else {
				err = wholefile.Write(out, write)
			}
			if err != nil {
				return &exitError{exitCannotTell, fmt.Errorf("write the report: %w", err)}
			}
			return reportExit(r)
		},
	}
	cmd.Flags().StringVar(&day, "day", "", "a kept report, by the `date` on which it was made: 2026-03-02")
	cmd.Flags().StringVar(&form, "format", "txt", "`form`: txt, html or json")
	cmd.Flags().StringVar(&lang, "lang", "", "`language`: en or ja; else report.language")
	cmd.Flags().StringVar(&out, "out", "", "write it into this `file` instead of standard output")
	cmd.Flags().BoolVar(&send, "mail", false, "have the daemon mail it")
	cmd.Flags().StringSliceVar(&to, "to", nil, "with --mail: to this `address` instead of report.to; may be repeated")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// reportUsage checks what was typed.
func reportUsage(cmd *cobra.Command, form, lang, out, day string, send bool, to []string) error {
	problem := ""
	switch {
	case !slices.Contains([]string{"txt", "html", "json"}, form):
		problem = fmt.Sprintf("--format %q: want txt, html or json", form)
	case !slices.Contains(report.Languages, lang):
		problem = fmt.Sprintf("--lang %q: want en or ja", lang)
	case len(to) > 0 && !send:
		problem = "--to goes with --mail"
	case send && (out != "" || cmd.Flags().Changed("format") || cmd.Flags().Changed("json")):
		problem = "--mail writes no file and has one form: leave out --out, --format and --json"
	}
	if _, err := time.Parse(reportDay, day); day != "" && err != nil {
		problem = fmt.Sprintf("--day %q: want YYYY-MM-DD", day)
	}
	for _, one := range to {
		if a, err := mail.ParseAddress(one); err != nil || a.Address != one {
			problem = fmt.Sprintf("--to %q: want an address: user@domain", one)
		}
	}
	if problem == "" {
		return nil
	}
	return &exitError{exitUsage, fmt.Errorf("%s; see: %s --help", problem, cmd.CommandPath())}
}

func mailTheReport(cmd *cobra.Command, o reportOrder) error {
	client, _, err := asker(cmd)
	if err != nil {
		return err
	}
	var sent []string
	var answer *control.Error
	switch err := client.Post(cmd.Context(), "/v1/report/mail", o, &sent); {
	case errors.As(err, &answer) && answer.Status == http.StatusNotFound:
		return &exitError{exitCannotTell, &escapedError{err}}
	case err != nil:
		return answerOf(err)
	}
	remark(cmd, "mailed to %s", strings.Join(sent, ", "))
	return nil
}

// theReport asks the daemon; root makes it from the files while that is dead.
func theReport(cmd *cobra.Command, day string) (*report.Report, error) {
	client, c, err := asker(cmd)
	if err != nil {
		return nil, err
	}
	var query url.Values
	if day != "" {
		query = url.Values{"day": {day}}
	}
	r := &report.Report{}
	err = client.Get(cmd.Context(), "/v1/report", query, r)
	var answer *control.Error
	if errors.As(err, &answer) && answer.Status == http.StatusNotFound { // 1 would say that we are listed
		return nil, &exitError{exitCannotTell, &escapedError{err}}
	}
	if !errors.Is(err, control.ErrDead) || !isRoot() {
		return r, answerOf(err)
	}
	if day != "" {
		r, err = reportOfDay(c, day)
		return r, answerOf(err)
	}
	remark(cmd, "%v; root reads what it left", err)
	return reportAlone(cmd.Context(), cmd, c, err)
}

// startCommand is what helps against a dead daemon.
const startCommand = "systemctl start relayguard"

// reportAlone makes the report from the files of a dead daemon.
func reportAlone(ctx context.Context, cmd *cobra.Command, c *config.Config, dead error) (*report.Report, error) {
	now := time.Now()
	s := &reportSources{config: c, off: map[string]string{}}
	r, err := journal.OpenReader(c.Journal.Directory)
	if err != nil {
		s.off[report.SectionMail] = err.Error()
	} else {
		defer r.Close()
		remarks(cmd, r.Remarks)
		s.journal = r
	}
	if s.switches, err = switches.Read(switchesFile(c), now); err != nil {
		s.off[report.SectionSuspensions] = err.Error()
	}
	l, err := ledger.Peek(c.ForwardDirectory(), ledger.Rules{Policy: c.Forward.Policy})
	if err != nil {
		s.off[report.SectionForwards] = err.Error()
	} else {
		s.entries = l.Entries(true)
		s.off[report.SectionGaps] = "the daemon does not run"
	}
	a := new(asking)
	if err := a.choose(c); err != nil {
		s.off[report.SectionBlocklists] = err.Error()
	} else {
		s.lists = a
	}
	h, err := history.Peek(ctx, c.RBLDirectory())
	if err != nil {
		s.off[report.SectionBlocklists] = err.Error()
	} else {
		defer h.Close()
		s.history = h
	}
	out := gatherReport(ctx, now, s)
	out.Steps = append([]report.Step{{Kind: report.StepDegraded, What: "daemon", Text: dead.Error(), Command: startCommand}}, out.Steps...)
	return out, nil
}

// reportExit is 1 if something is to be done now, 3 if that cannot be told: the
// headline says that nobody knows, or of something else it is not known.
func reportExit(r *report.Report) error {
	tone := r.Tone()
	due := r.Stopped != nil || r.Forwards.Due > 0 || slices.ContainsFunc(r.Incidents, func(i report.Incident) bool { return i.Closed.IsZero() })
	if due || tone == report.ToneAct || slices.ContainsFunc(r.Changes, func(c report.Change) bool { return c.Level == report.Act }) {
		return &exitError{code: exitFinding}
	}
	asides := []string{report.SectionLists, report.SectionUsual, report.SectionDeliveries} // for want of these nothing to be done goes unseen
	if tone == report.ToneUnknown || slices.ContainsFunc(r.Missing, func(m report.Missing) bool { return !slices.Contains(asides, m.Section) }) {
		return &exitError{code: exitCannotTell}
	}
	return nil
}
