package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/forwards"
	"relayguard/cmd/internal/render"
	"relayguard/forward"
	"relayguard/forward/ledger"
	"relayguard/forward/scan"
)

func newForwards() *cobra.Command {
	return group("forwards", "find forwarding rules that send mail outside", `
Finds every rule by which the mail of our people goes elsewhere: aliases, .forward,
virtual, canonical, BCC, generic and transport tables, filters and access rules,
Sieve scripts, procmail, panels' databases, and settings of the mail server; what
is in force, not only what a text says. What ends at exactly our own domains is
inside, everything else is shown.

What the daemon's first scan found is "existing": to be reviewed, nobody is woken
for it. What comes later is "new" until it is approved, and told at once where it
matters (see forward.policy in relayguard.toml(5)). Rules are changed where they
stand, never by these commands.

Verdicts: outside; dynamic, dynamic-outside: a message decides where to, of the
second the domain is known; opaque: a program or server decides; broken: it cannot
work; dormant: stated, and not in force. Mode: copy, the owner gets the mail, too;
or redirect.`,
		newForwardsScan(), newForwardsList(), newForwardsShow(), newForwardsApprove(), newForwardsRevoke(), newForwardsWatch())
}

// forwardsFound is what a scan prints as JSON.
type forwardsFound struct {
	Findings []ledger.Entry `json:"findings"`
	Gaps     []forward.Gap  `json:"gaps"`
	Places   int            `json:"places"`           // that were read
	Inside   []string       `json:"inside"`           // domains, and hosts that mail may be routed to
	Broken   string         `json:"broken,omitempty"` // where the ledger was changed by somebody else
}

func newForwardsScan() *cobra.Command {
	var root string
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "look at every place now, with or without a daemon",
		Long: strings.TrimSpace(`
Reads every place where a forwarding rule can be, resolves rules that lead to other
rules, and lists what does not end inside. It needs no daemon and changes nothing:
run it as root, since homes and databases are closed to others. What could not be
read is told on standard error, as a gap.

With --root it looks at a copied disk that is mounted there, by reading texts and
compiled tables itself; nothing of that disk is run, and database servers are not
asked, which is told as a gap. --all lists what ends inside, too.

Where the daemon has a ledger, approvals are shown, and what it knows as existing
is no finding. Without one everything is new.

Exit status: 0; 1 if a rule that should alert is not approved; 2 usage; 3 cannot
tell: the mail server's settings, or none of its places, could be read.`),
		Example: "  relayguard forwards scan\n  relayguard forwards scan --json | jq -r '.findings[].target'\n  relayguard forwards scan --root /mnt/image",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := commandConfig(cmd)
			if err != nil {
				return err
			}
			found, err := scanForwards(cmd, c, root, all)
			if err != nil {
				return err
			}
			return showScan(cmd, found, asJSON)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "look at the disk that is mounted at this `directory`")
	cmd.Flags().BoolVar(&all, "all", false, "list what ends inside, too")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// scanForwards scans once, and compares with the ledger if there is one.
func scanForwards(cmd *cobra.Command, c *config.Config, root string, all bool) (*forwardsFound, error) {
	ctx := cmd.Context()
	host, err := forwards.NewHost(ctx, root, nil)
	if err != nil {
		return nil, &exitError{exitCannotTell, err}
	}
	stop, progress := progressLine(cmd.ErrOrStderr(), placesRead)
	scanner := scan.New(forwards.Planner(c, host), scan.Options{Progress: progress})
	_, err = scanner.All(ctx)
	stop()
	if err != nil {
		return nil, &exitError{exitCannotTell, err}
	}
	if scanner.Units() == 0 {
		for _, g := range scanner.Gaps() {
			remark(cmd, "%s: %s", g.Source, g.Why)
		}
		return nil, &exitError{exitCannotTell, errors.New("nothing to look at: no mail server is set up here, or its settings cannot be read")}
	}
	found := &forwardsFound{Gaps: scanner.Gaps(), Places: scanner.Units(), Inside: insideNames(scanner.World())}
	book := ledger.Memory(forwards.Rules(c, host))
	if root == "" {
		book, found.Broken = peekForwards(cmd, c, host)
	}
	findings := scanner.Graph().Findings()
	if _, err := book.All(time.Now(), findings, forwards.Unseen(scanner), nil); err != nil {
		return nil, &exitError{exitCannotTell, err}
	}
	found.Findings = book.Entries(false)
	if all {
		for _, f := range scanner.Graph().All() {
			if f.Verdict == forward.Inside {
				found.Findings = append(found.Findings, ledger.Entry{Finding: f, Classes: []ledger.Class{}, Writer: forward.UnknownWriter})
			}
		}
	}
	return found, nil
}

// peekForwards is the daemon's ledger, kept nowhere. Where there is none, or none that
// says what was there at first, everything is new. Broken: where it was changed by
// somebody else.
func peekForwards(cmd *cobra.Command, c *config.Config, host *forward.Host) (book *ledger.Ledger, broken string) {
	rules := forwards.Rules(c, host)
	book, err := ledger.Peek(c.ForwardDirectory(), rules)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		remark(cmd, "approvals are not known: %v", err)
	default:
		if _, based := book.Based(); based {
			return book, book.Broken()
		}
		broken = book.Broken()
		remark(cmd, "the daemon's ledger has no first scan yet: everything is shown as new")
	}
	return ledger.Memory(rules), broken
}

// insideNames are the domains that count as inside, and then the hosts.
func insideNames(w forward.World) []string {
	return append(slices.Sorted(maps.Keys(w.Inside)), slices.Sorted(maps.Keys(w.Hosts))...)
}

// someOf are the first few of a list.
func someOf(all []string, most int) string {
	switch {
	case len(all) == 0:
		return "nothing"
	case len(all) > most:
		return fmt.Sprintf("%s and %d more; --json has them all", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

func showScan(cmd *cobra.Command, found *forwardsFound, asJSON bool) error {
	out := cmd.OutOrStdout()
	if found.Findings == nil {
		found.Findings = []ledger.Entry{} // never null
	}
	if found.Gaps == nil {
		found.Gaps = []forward.Gap{}
	}
	if found.Inside == nil {
		found.Inside = []string{}
	}
	var err error
	if asJSON {
		err = render.JSON(out, found)
	} else {
		page := render.PageOf(out)
		err = forwardsTable(page, found.Findings, time.Now()).Write(out, page)
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	const most = 20 // gaps on a terminal
	for i, g := range found.Gaps {
		if i == most && !asJSON {
			remark(cmd, "and %d more gaps; --json has them all", len(found.Gaps)-most)
			break
		}
		remark(cmd, "not read: %s: %s", g.Source, g.Why)
	}
	if !asJSON {
		remark(cmd, "counted as inside: %s", someOf(found.Inside, 20))
	}
	if found.Broken != "" {
		remark(cmd, "the ledger was changed by somebody else: %s", found.Broken)
	}
	due := 0
	for i := range found.Findings {
		if found.Findings[i].Due() {
			due++
		}
	}
	if !asJSON {
		remark(cmd, "%d places read; %d rules listed, of which %d should alert and are not approved", found.Places, len(found.Findings), due)
	}
	if due > 0 || found.Broken != "" {
		return &exitError{exitFinding, nil}
	}
	return nil
}

// wideEnough is the width of a terminal on which a list of rules has all columns.
const wideEnough = 120

// forwardsTable is a list of rules for people. A narrow terminal gets what tells
// rules apart; show has the rest.
func forwardsTable(page render.Page, entries []ledger.Entry, now time.Time) *render.Table {
	t := &render.Table{Columns: []render.Column{
		{Title: "ID", Whole: true}, {Title: "OWNER", Min: 12, Weight: 2}, {Title: "TARGET", Min: 14, Weight: 3}, {Title: "HOW", Min: 7}, {Title: "VERDICT", Min: 7}, {Title: "STATUS", Whole: true}, {Title: "SINCE", Right: true, Whole: true},
	}}
	wide := !page.Cut || page.Width >= wideEnough
	if wide {
		t.Columns = append(t.Columns, render.Column{Title: "MODE", Whole: true}, render.Column{Title: "SOURCE", Weight: 2})
	}
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b ledger.Entry) int { return urgency(&b) - urgency(&a) })
	for i := range entries {
		e := &entries[i]
		owner := e.Owner
		if e.Sender {
			owner += " (sender)"
		}
		if len(e.Chain) > 1 {
			owner = strings.Join(e.Chain, " > ")
		}
		since := "-"
		if !e.Since.IsZero() {
			since = render.Ago(now, e.Since)
		}
		row := []string{forward.ShortID(e.ID), owner, shownTarget(&e.Finding), string(e.Mechanism), string(e.Verdict), shownStatus(e), since}
		if wide {
			row = append(row, string(e.Mode), sourceLine(&e.Finding))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func shownStatus(e *ledger.Entry) string {
	switch {
	case !e.Gone.IsZero():
		return "gone"
	case e.Due():
		return "ALERT"
	}
	return string(e.Status)
}

// urgency orders a list for people: what alerts comes first, what nothing goes by
// comes last.
func urgency(e *ledger.Entry) int {
	switch {
	case e.Due():
		return 3
	case !e.Gone.IsZero() || !e.Leaves() && e.Differs == "":
		return 0
	case e.Status == ledger.Approved:
		return 1
	}
	return 2
}

// shownTarget is a target with what only a message decides as dots.
func shownTarget(f *forward.Finding) string {
	return strings.ReplaceAll(f.Target, forward.Unknown, "...")
}

func sourceLine(f *forward.Finding) string {
	if f.Line > 0 {
		return fmt.Sprintf("%s:%d", f.Source, f.Line)
	}
	return f.Source
}

// placesRead says on a terminal how far a scan is.
const placesRead = "reading forwarding rules: %d of %d places"

// forwardQuery chooses rules of the ledger.
type forwardQuery struct {
	Owner  string `json:"owner,omitempty"`
	Target string `json:"target,omitempty"` // or @domain
	Status string `json:"status,omitempty"`
	Due    bool   `json:"due,omitempty"`
	Gone   bool   `json:"gone,omitempty"`
}

func (q *forwardQuery) chooses(e *ledger.Entry) bool {
	switch {
	case q.Owner != "" && !strings.EqualFold(q.Owner, e.Owner) && !slices.ContainsFunc(e.Chain, func(o string) bool { return strings.EqualFold(o, q.Owner) }):
		return false
	case strings.HasPrefix(q.Target, "@") && !strings.HasSuffix(strings.ToLower(e.Target), strings.ToLower(q.Target)):
		return false
	case q.Target != "" && !strings.HasPrefix(q.Target, "@") && !strings.EqualFold(q.Target, e.Target):
		return false
	case q.Status != "" && string(e.Status) != q.Status:
		return false
	}
	return !q.Due || e.Due()
}

// choose are the entries of a ledger that a query asks for.
func (q *forwardQuery) choose(book *ledger.Ledger) []ledger.Entry {
	return slices.DeleteFunc(book.Entries(q.Gone), func(e ledger.Entry) bool { return !q.chooses(&e) })
}
