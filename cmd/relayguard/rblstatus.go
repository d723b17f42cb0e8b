package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/render"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

func newRBLStatus() *cobra.Command {
	var asJSON, now bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show what the daemon knows of our addresses on blocklists",
		Long: strings.TrimSpace(`
Shows the listings that go on, since when, and what is known beside: which addresses
and domains are checked, what lists say of each, which lists cannot be believed, what
receivers look at (reverse names, HELO, SPF), the addresses around ours, and when the
daemon asked last.

PHASE suspected: seen, and not looked at again; listed: confirmed; ending: seen clean,
and not looked at again. A listing that a list gives no answer about any more goes on.

--now has the daemon ask everything first, and waits for it. While the daemon is dead
root reads what it remembered.

Exit status: 0; 1 an address or domain is listed, info aside; 2 usage; 3 cannot tell:
the daemon does not check, has not yet, or not for twice rbl.every; most lists say
nothing of an address or domain; a configured key cannot be read; or an address that
sends may not be known.`),
		Example: "  relayguard rbl status\n  relayguard rbl status --now --json | jq '.listings[] | {zone, subject, first}'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askRBLStatus(cmd, now)
			if err != nil {
				return err
			}
			return showRBLStatus(cmd, s, asJSON)
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "have the daemon ask all lists first")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// askRBLStatus asks the daemon, or root its history.
func askRBLStatus(cmd *cobra.Command, now bool) (s *rblStatus, err error) {
	client, c, err := asker(cmd)
	if err != nil {
		return nil, err
	}
	s = &rblStatus{}
	if now {
		return s, answerOf(client.Post(cmd.Context(), "/v1/rbl/check", nothing{}, s))
	}
	err = client.Get(cmd.Context(), "/v1/rbl/status", nil, s)
	if !errors.Is(err, control.ErrDead) || !isRoot() {
		return s, answerOf(err)
	}
	*s, err = peekRBL(cmd, c, func(h *history.Store) (rblStatus, error) { return rblStatusOf(cmd.Context(), h, time.Now()) })
	s.Every = c.RBL.Every
	return s, err
}

func showRBLStatus(cmd *cobra.Command, s *rblStatus, asJSON bool) error {
	out := cmd.OutOrStdout()
	var err error
	if asJSON {
		err = render.JSON(out, s)
	} else {
		err = s.write(out, render.PageOf(out))
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	if slices.ContainsFunc(s.Listings, func(l history.Listing) bool { return harms(&l) }) {
		return &exitError{code: exitFinding}
	}
	if doubt := s.doubt(); doubt != "" {
		return &exitError{exitCannotTell, errors.New(doubt)}
	}
	return nil
}

// harms reports whether a listing is confirmed, goes on and is more than a remark.
func harms(l *history.Listing) bool {
	return (l.Phase == history.Standing || l.Phase == history.Ending) && l.Hit.Severity > rbl.Info
}

// doubt says why nothing can be told although nothing is listed; "" if it can.
func (s *rblStatus) doubt() string {
	switch {
	case s.Round.IsZero():
		return "the daemon has not asked blocklists yet; look now: relayguard rbl check"
	case s.Every > 0 && s.Now.Sub(s.Round) > 2*s.Every:
		return fmt.Sprintf("the last round was %s: that is more than twice rbl.every ago", shortTime(s.Now, s.Round))
	case len(s.Subjects) == 0:
		return "nothing of ours was checked in the last round"
	case !slices.ContainsFunc(s.Subjects, func(sub rblSubjectState) bool { return sub.Subject.Addr.IsValid() }):
		return "no address was checked in the last round: it is not known which ones send"
	case s.Own.Unsure:
		return "an address that sends may not be checked: " + strings.Join(s.Own.Trouble, "; ")
	case len(s.Unread) > 0:
		return strings.Join(s.Unread, "; ")
	}
	for i := range s.Subjects {
		sub := &s.Subjects[i] // what harms nobody is no answer to whether it is listed
		switch said, missing := sub.Clean+sub.Listed, sub.Unknown+sub.Refused; {
		case said == 0:
			return fmt.Sprintf("no list says anything of %s", sub.Subject)
		case said < missing:
			return fmt.Sprintf("most lists say nothing of %s: %d of %d", sub.Subject, missing, sub.asked())
		}
	}
	return ""
}

// write is the status for people: listings first.
func (s *rblStatus) write(out io.Writer, page render.Page) error {
	if err := rblListingTable(page, s.Listings, s.Now).Write(out, page); err != nil {
		return err
	}
	if len(s.Listings) > 0 {
		fmt.Fprintln(out)
	}
	return page.Pairs(out, s.pairs(page))
}

// pairs is the rest of it.
func (s *rblStatus) pairs(page render.Page) []render.Pair {
	var all []render.Pair
	label := ""
	add := func(format string, args ...any) {
		all = append(all, render.Pair{Label: label, Text: fmt.Sprintf(format, args...)})
		label = ""
	}
	label = "listings"
	if len(s.Listings) == 0 {
		add("none that is known")
	}
	if !roomy(page) { // else it is in the table
		label = "why"
		for i := range s.Listings {
			add("%s: %s", s.Listings[i].Zone, listingMeans(s.Now, &s.Listings[i]))
		}
	}
	label = "checked"
	for i := range s.Subjects {
		add("%s", s.subject(&s.Subjects[i]))
	}
	label = "not known"
	for _, t := range s.Own.Trouble {
		add("%s", t)
	}
	label = "asked"
	for _, w := range s.Warnings {
		add("%s", w)
	}
	label = "lists"
	for _, line := range s.zones() {
		add("%s", line)
	}
	label = "receivers"
	for _, f := range s.Facts {
		if text := shownFact(&f); text != "" {
			add("%s", text)
		}
	}
	label = "around"
	for i := range s.Around {
		if a := &s.Around[i]; a.Listed > 0 || a.Unknown > 0 {
			add("%s", a.line())
		}
	}
	label = "rounds"
	add("%s", s.rounds())
	if s.Watch != nil && s.Watch.Trouble != "" {
		label = "trouble"
		add("%s", s.Watch.Trouble)
	}
	return all
}

// zones says how many lists can be believed, and which cannot.
func (s *rblStatus) zones() []string {
	healths, names, bad := make([]rbl.Health, len(s.Zones)), map[string]bool{}, map[string]bool{}
	for i, z := range s.Zones {
		healths[i], names[z.Zone] = z.Health, true
		if z.State != rbl.Healthy {
			bad[z.Zone] = true
			healths[i].Why = strings.TrimSuffix(fmt.Sprintf("since %s: %s", shortTime(s.Now, z.Since), z.Why), ": ")
		}
	}
	if len(names) == 0 {
		return nil
	}
	return append([]string{fmt.Sprintf("%d of %s can be believed", len(names)-len(bad), counted(len(names), "list"))}, zoneRemarks(healths)...)
}

// subject is how lists answered about one, and how it is known that it is ours.
func (s *rblStatus) subject(sub *rblSubjectState) string {
	how := ""
	if sub.How != "" {
		how = " (" + sub.How + ")"
	}
	return strings.Replace(sub.line(), sub.Subject.String(), sub.Subject.String()+how, 1)
}

// shownFact is what receivers find wrong, or what DNS did not say; "" if all is well.
func shownFact(f *history.FactState) string {
	if f.State == "ok" {
		return ""
	}
	text := fmt.Sprintf("%s of %s is %s: %s", f.Check, f.Subject, f.State, f.Found)
	if f.Wanted != "" {
		text += "; wanted: " + f.Wanted
	}
	return text
}

func (a *rblAround) line() string {
	text := fmt.Sprintf("%s on %s: %d of %d listed", a.Prefix, a.Zone, a.Listed, a.Asked)
	if a.Before >= 0 {
		text += fmt.Sprintf(", %d the time before", a.Before)
	}
	if a.Unknown > 0 {
		text += fmt.Sprintf(", %d unknown", a.Unknown)
	}
	return text
}

// rounds says when all was asked last, and will be.
func (s *rblStatus) rounds() string {
	text := "last " + shortTime(s.Now, s.Round)
	switch {
	case s.Watch == nil:
		return text + "; the daemon does not run"
	case s.Watch.Running:
		return text + "; one is under way"
	case !s.Watch.Next.IsZero():
		return text + "; next " + shortTime(s.Now, s.Watch.Next)
	}
	return text
}

// rblListingTable is a list of listings for people. In a past one ENDED says until
// when.
func rblListingTable(page render.Page, all []history.Listing, now time.Time) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "SUBJECT", Min: 13, Weight: 2}, {Title: "ZONE", Min: 14, Weight: 2}, {Title: "PHASE", Whole: true}, {Title: "SEVERITY", Whole: true}, {Title: "SCOPE", Whole: true}, {Title: "SINCE", Right: true, Whole: true}}}
	past := slices.ContainsFunc(all, func(l history.Listing) bool { return !l.Ended.IsZero() })
	if past {
		t.Columns = append(t.Columns, render.Column{Title: "ENDED", Right: true, Whole: true})
	}
	if roomy(page) {
		t.Columns = append(t.Columns, wrapped("MEANS"))
	}
	for i := range all {
		l := &all[i]
		row := []string{l.Subject.String(), l.Zone, string(l.Phase), l.Hit.Severity.String(), l.Hit.Scope.String(), whenAgo(page, now, l.First)}
		if past {
			row = append(row, whenAgo(page, now, l.Ended))
		}
		t.Rows = append(t.Rows, append(row, listingMeans(now, l)))
	}
	return t
}

// listingMeans is why something is listed, in the list's words, too.
func listingMeans(now time.Time, l *history.Listing) string {
	row := rblRow{answer: &rbl.Answer{Reasons: l.Reasons}, hit: &l.Hit}
	text := row.means()
	if !l.Unasked.IsZero() {
		text = strings.TrimPrefix(text+"; the list gives no answer since "+shortTime(now, l.Unasked), "; ")
	}
	return text
}

// whenAgo is how long ago something was; for programs when.
func whenAgo(page render.Page, now, at time.Time) string {
	if at.IsZero() || !page.Cut {
		return when(page, at)
	}
	return render.Ago(now, at)
}
