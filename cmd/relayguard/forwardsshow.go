package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/forwards"
	"relayguard/cmd/internal/render"
	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/forward/judge"
	"relayguard/forward/ledger"
	"relayguard/forward/scan"
)

func newForwardsShow() *cobra.Command {
	l := forwardLook{Limit: 1000}
	var since, until moment
	var logFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "show a rule, and which mail went by it",
		Long: strings.TrimSpace(`
Shows a rule with all that is known: who wrote it, the whole way to its target, who
approved it, when the first and the last mail went by it, and how many.

--mail lists the mails: queue ids, Message-IDs, times, the sender's domain, what
became of them, and how sure it is. Subjects and content are kept nowhere; of what
is still held, relayguard held show has them, for the role inspect. --report is what
a company needs to size and report a breach: from, to, mails, outside senders, what
is known and what is not, and the times of which the evidence is incomplete.

--log reads the evidence from a mail log and its rotated files instead, .gz, too,
with the rules of a scan that is made now: it needs no daemon.

An ID may be shortened to what fits one rule only, at least four characters.

Exit status: 0; 1 no such rule; 2 usage; 3 cannot tell.`),
		Example: "  relayguard forwards show F3a0c1d2e4b5 --report\n  relayguard forwards show F3a0 --mail --since 2026-03-02 --json\n  relayguard forwards show F3a0 --report --log /var/log/mail.log",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.Limit < 1 || l.Limit > maxMails {
				return usage(cmd, "--limit: got %d, want 1 to %d", l.Limit, maxMails)
			}
			l.Since, l.Until = since.Time, until.Time
			if logFile != "" {
				return l.fromLog(cmd, args[0], logFile, asJSON)
			}
			shown, err := l.ask(cmd, args[0])
			if err != nil {
				return err
			}
			return showForward(cmd, shown, &l, asJSON)
		},
	}
	cmd.Flags().BoolVar(&l.Mail, "mail", false, "list the mails that went by it")
	cmd.Flags().BoolVar(&l.Report, "report", false, "sum up what went, for a report of a breach")
	cmd.Flags().Var(&since, "since", "mails not before this `time`: 2h, 3d, 2026-03-02, or RFC 3339")
	cmd.Flags().Var(&until, "until", "mails before this `time`")
	cmd.Flags().IntVar(&l.Limit, "limit", l.Limit, "at most so many mails")
	cmd.Flags().StringVar(&logFile, "log", "", "take the evidence from this log `file`, and scan now")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// ask asks the daemon, or root the ledger.
func (l *forwardLook) ask(cmd *cobra.Command, id string) (*forwardShown, error) {
	client, c, err := asker(cmd)
	if err != nil {
		return nil, err
	}
	shown := &forwardShown{}
	err = client.Get(cmd.Context(), "/v1/forwards/"+url.PathEscape(id), l.values(), shown)
	if !errors.Is(err, control.ErrDead) || !isRoot() {
		return shown, answerOf(err)
	}
	host, err := forwards.NewHost(cmd.Context(), "", nil)
	if err != nil {
		return nil, &exitError{exitCannotTell, err}
	}
	book, err := ledger.Peek(c.ForwardDirectory(), forwards.Rules(c, host))
	if err != nil {
		return nil, &exitError{exitCannotTell, err}
	}
	shown.Entry, err = book.Find(id)
	if err != nil {
		return nil, &exitError{exitFinding, &escapedError{err}}
	}
	remark(cmd, "the daemon does not run: which mail went by it is in its evidence; --log FILE reads it from the mail log")
	return shown, nil
}

// fromLog scans now and reads the evidence from a log.
func (l *forwardLook) fromLog(cmd *cobra.Command, id, logFile string, asJSON bool) error {
	c, err := commandConfig(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	host, err := forwards.NewHost(ctx, "", nil)
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	stop, progress := progressLine(cmd.ErrOrStderr(), placesRead)
	scanner := scan.New(forwards.Planner(c, host), scan.Options{Progress: progress})
	_, err = scanner.All(ctx)
	stop()
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	book, _ := peekForwards(cmd, c, host)
	if _, err := book.All(time.Now(), scanner.Graph().Findings(), forwards.Unseen(scanner), nil); err != nil {
		return &exitError{exitCannotTell, err}
	}
	e, err := book.Find(id)
	if err != nil {
		return &exitError{exitFinding, &escapedError{err}}
	}
	store, err := l.readLog(ctx, c, scanner, host, logFile)
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	defer store.Close()
	shown, err := l.look(ctx, store, e, time.Now())
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	return showForward(cmd, &shown, l, asJSON)
}

// readLog reads a log and its rotated files into a store that nobody keeps.
func (l *forwardLook) readLog(ctx context.Context, c *config.Config, scanner *scan.Scanner, host *forward.Host, logFile string) (*evidence.Store, error) {
	const ever = 100 * 365 * 24 * time.Hour
	store, err := evidence.Open(ctx, "", evidence.Options{KeepMails: ever, KeepTotals: ever})
	if err != nil {
		return nil, err
	}
	rules := scannedRules{scanner.Graph()}
	tracker, err := evidence.NewTracker(store, func() evidence.Rules { return rules }, evidence.TrackerOptions{UID: func(local string) (int, bool) {
		if a := host.Account(local); a != nil {
			return a.UID, true
		}
		return 0, false
	}})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	lines, err := tracker.Read(ctx, logFile, time.Time{}, time.Local)
	if err == nil && lines == 0 {
		err = fmt.Errorf("%s: no line of a mail log is in it, nor in its rotated files", logFile)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// scannedRules answers the evidence by one scan.
type scannedRules struct{ *judge.Graph }

// ByTarget implements evidence.Rules.
func (s scannedRules) ByTarget(rcpt string) []string { return s.Targets(rcpt) }

func showForward(cmd *cobra.Command, s *forwardShown, l *forwardLook, asJSON bool) error {
	out := cmd.OutOrStdout()
	var err error
	if asJSON {
		err = render.JSON(out, s)
	} else {
		err = writeForward(out, render.PageOf(out), s, l, time.Now())
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	return nil
}

func writeForward(w io.Writer, page render.Page, s *forwardShown, l *forwardLook, now time.Time) error {
	if err := page.Pairs(w, forwardPairs(page, s, now)); err != nil {
		return err
	}
	if s.Report != nil {
		fmt.Fprintln(w)
		if err := page.Pairs(w, reportPairs(page, s.Report)); err != nil {
			return err
		}
	}
	if !l.Mail {
		return nil
	}
	fmt.Fprintln(w)
	if len(s.Mails) == 0 {
		_, err := fmt.Fprintln(w, "no mail is known that went by it")
		return err
	}
	return mailTable(page, s.Mails).Write(w, page)
}

func forwardPairs(page render.Page, s *forwardShown, now time.Time) []render.Pair {
	pairs := []render.Pair{
		{Label: "id", Text: forward.ShortID(s.ID)},
		{Label: "mail of", Text: s.Owner},
		{Label: "goes to", Text: shownTarget(&s.Finding)},
		{Label: "how", Text: fmt.Sprintf("%s, %s", s.Mechanism, s.Mode)},
		{Label: "stated in", Text: sourceLine(&s.Finding)},
		{Label: "verdict", Text: string(s.Verdict)},
	}
	add := func(label, text string) {
		if text != "" {
			pairs = append(pairs, render.Pair{Label: label, Text: text})
		}
	}
	if len(s.Chain) > 1 {
		add("by way of", strings.Join(s.Chain, " > ")+" > "+shownTarget(&s.Finding))
	}
	add("differs", s.Differs)
	add("note", s.Note)
	add("program", s.Digest)
	if s.Also > 0 {
		add("also", fmt.Sprintf("%s more state the same", counted(s.Also, "place")))
	}
	add("status", statusLine(s, now))
	var classes []string
	for _, c := range s.Classes {
		classes = append(classes, string(c))
	}
	add("matters as", strings.Join(classes, ", "))
	if !s.First.IsZero() {
		add("first seen", shortTime(now, s.First))
	}
	add("written by", forwards.WriterName(s.Writer))
	if a := s.Approval; a != nil {
		text := fmt.Sprintf("by %s, %s: %s", a.By, shortTime(now, a.At), a.Reason)
		if !a.Until.IsZero() {
			text += ", until " + when(page, a.Until)
		}
		add("approved", text)
	}
	return append(pairs, evidencePairs(page, s.Evidence)...)
}

func statusLine(s *forwardShown, now time.Time) string {
	switch {
	case !s.Gone.IsZero():
		return "gone since " + shortTime(now, s.Gone)
	case s.Due():
		return "new: should be looked at; relayguard forwards approve " + forward.ShortID(s.ID) + " --reason ..., or remove it where it stands"
	case s.Status == ledger.Existing:
		return "existing when the watch began, not reviewed"
	}
	return string(s.Status)
}

func evidencePairs(page render.Page, e *evidence.Summary) []render.Pair {
	if e == nil {
		return []render.Pair{{Label: "mails", Text: "no evidence is kept here"}}
	}
	if e.Mails == 0 {
		return append([]render.Pair{{Label: "mails", Text: "none is known"}}, gapPairs(page, e.Gaps)...)
	}
	return append([]render.Pair{
		{Label: "mails", Text: fmt.Sprintf("%d, %s", e.Mails, e.Sure)},
		{Label: "first mail", Text: when(page, e.First)},
		{Label: "last mail", Text: when(page, e.Last)},
	}, gapPairs(page, e.Gaps)...)
}

func gapPairs(page render.Page, gaps []evidence.Gap) (pairs []render.Pair) {
	const most = 5
	for i, g := range gaps {
		if i == most {
			return append(pairs, render.Pair{Text: fmt.Sprintf("and %d more times; --json has them", len(gaps)-most)})
		}
		label := ""
		if i == 0 {
			label = "incomplete"
		}
		from := "an unknown time"
		if !g.From.IsZero() {
			from = when(page, g.From)
		}
		pairs = append(pairs, render.Pair{Label: label, Text: fmt.Sprintf("evidence incomplete from %s to %s: %s", from, when(page, g.To), g.Why)})
	}
	return pairs
}

func reportPairs(page render.Page, r *evidence.Report) []render.Pair {
	span := "no mail is known"
	if r.Mails > 0 {
		span = fmt.Sprintf("%s to %s", when(page, r.From), when(page, r.To))
	}
	pairs := []render.Pair{
		{Label: "report", Text: span},
		{Label: "mails", Text: fmt.Sprintf("%d: %d certain, %d likely, %d possible", r.Mails, r.Certain, r.Likely, r.Possible)},
		{Label: "outside senders", Text: fmt.Sprintf("%d distinct", r.DistinctSenders)},
		{Label: "outcome", Text: fmt.Sprintf("%d delivered, %d deferred, %d bounced, %d handed to a program", r.Delivered, r.Deferred, r.Bounced, r.Handed)},
		{Label: "targets", Text: strings.Join(r.Targets, ", ")},
	}
	for i, known := range r.Known {
		pairs = append(pairs, render.Pair{Label: firstOnly(i, "known"), Text: known})
	}
	for i, unknown := range r.NotKnown {
		pairs = append(pairs, render.Pair{Label: firstOnly(i, "not known"), Text: unknown})
	}
	return append(pairs, gapPairs(page, r.Gaps)...)
}

func firstOnly(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}

func mailTable(page render.Page, mails []evidence.Mail) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "TIME", Whole: true}, {Title: "QUEUE ID", Whole: true}, {Title: "FROM", Min: 10}, {Title: "TO", Min: 10}, {Title: "STATUS"}, {Title: "SURE"}, {Title: "MESSAGE-ID", Weight: 2}}}
	for i := range mails {
		m := &mails[i]
		from := m.SenderDomain
		if from == "" {
			from = "<>"
		}
		id := m.QueueID
		if id == "" {
			id = m.RootID
		}
		t.Rows = append(t.Rows, []string{when(page, m.Time), id, from, m.RcptTo, m.Status, m.Sure.String(), m.MessageID})
	}
	return t
}
