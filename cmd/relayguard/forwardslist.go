package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/forwards"
	"relayguard/cmd/internal/render"
	"relayguard/forward"
	"relayguard/forward/ledger"
)

// forwardsListed is what list prints as JSON, and what the daemon answers.
type forwardsListed struct {
	Findings []ledger.Entry   `json:"findings"`
	Watch    *forwards.Status `json:"watch,omitempty"` // absent: no daemon
	Broken   string           `json:"broken,omitempty"`
}

// forwardStatuses are those that --status takes.
var forwardStatuses = []string{string(ledger.Existing), string(ledger.New), string(ledger.Approved)}

func newForwardsList() *cobra.Command {
	var q forwardQuery
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list known rules that do not end inside",
		Long: strings.TrimSpace(`
Lists what the daemon's last scan and watch know. ALERT marks what should alert and
is not approved; it comes first. The other states are existing (there at the first
scan, not reviewed), new (came since, wakes nobody) and approved. --gone lists rules
that are no more, too. "a > b" under OWNER is a rule of a that leads to one of b.

While the daemon is dead root reads its ledger.

Exit status: 0; 1 if a rule that should alert is not approved; 2 usage; 3 cannot
tell.`),
		Example: "  relayguard forwards list --due\n  relayguard forwards list --status existing --target @freemail.example",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Status != "" && !slices.Contains(forwardStatuses, q.Status) {
				return usage(cmd, "--status: got %q, want one of %s", q.Status, strings.Join(forwardStatuses, ", "))
			}
			l, err := listForwards(cmd, q)
			if err != nil {
				return err
			}
			return showForwards(cmd, l, asJSON)
		},
	}
	cmd.Flags().StringVar(&q.Owner, "owner", "", "whose mail: an `address`, a local name, or *")
	cmd.Flags().StringVar(&q.Target, "target", "", "where it goes: an `address`, or @domain")
	cmd.Flags().StringVar(&q.Status, "status", "", "only `"+strings.Join(forwardStatuses, "|")+"`")
	cmd.Flags().BoolVar(&q.Due, "due", false, "only what should alert and is not approved")
	cmd.Flags().BoolVar(&q.Gone, "gone", false, "also rules that are no more")
	jsonFlag(cmd, &asJSON)
	cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(forwardStatuses, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// listForwards asks the daemon, or root the ledger.
func listForwards(cmd *cobra.Command, q forwardQuery) (*forwardsListed, error) {
	client, c, err := asker(cmd)
	if err != nil {
		return nil, err
	}
	l := &forwardsListed{}
	err = client.Get(cmd.Context(), "/v1/forwards", q.values(), l)
	if !errors.Is(err, control.ErrDead) || !isRoot() {
		return l, answerOf(err)
	}
	host, err := forwards.NewHost(cmd.Context(), "", nil)
	if err != nil {
		return nil, &exitError{exitCannotTell, err}
	}
	book, err := ledger.Peek(c.ForwardDirectory(), forwards.Rules(c, host))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &exitError{exitCannotTell, fmt.Errorf("the daemon does not run and has left no ledger; look now: relayguard forwards scan")}
	case err != nil:
		return nil, &exitError{exitCannotTell, err}
	}
	remark(cmd, "the daemon does not run: this is what it knew; look now: relayguard forwards scan")
	return &forwardsListed{Findings: q.choose(book), Broken: book.Broken()}, nil
}

func (q *forwardQuery) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"owner": q.Owner, "target": q.Target, "status": q.Status} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, is := range map[string]bool{"due": q.Due, "gone": q.Gone} {
		if is {
			v.Set(name, strconv.FormatBool(is))
		}
	}
	return v
}

func forwardQueryOf(v url.Values) forwardQuery {
	return forwardQuery{Owner: v.Get("owner"), Target: v.Get("target"), Status: v.Get("status"), Due: v.Get("due") == "true", Gone: v.Get("gone") == "true"}
}

func showForwards(cmd *cobra.Command, l *forwardsListed, asJSON bool) error {
	out, due := cmd.OutOrStdout(), 0
	for i := range l.Findings {
		if l.Findings[i].Due() {
			due++
		}
	}
	var err error
	if asJSON {
		if l.Findings == nil {
			l.Findings = []ledger.Entry{} // never null
		}
		err = render.JSON(out, l)
	} else {
		page := render.PageOf(out)
		err = forwardsTable(page, l.Findings, time.Now()).Write(out, page)
		if len(l.Findings) == 0 {
			remark(cmd, "no such rule is known")
		}
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	if w := l.Watch; w != nil && !asJSON {
		for _, line := range watchRemarks(w, time.Now()) {
			remark(cmd, "%s", line)
		}
	}
	if l.Broken != "" {
		remark(cmd, "the ledger was changed by somebody else: %s", l.Broken)
	}
	if due > 0 || l.Broken != "" {
		return &exitError{exitFinding, nil}
	}
	return nil
}

// watchRemarks say what a list does not: how fresh it is, and what is not in it.
func watchRemarks(w *forwards.Status, now time.Time) []string {
	var all []string
	if w.Scanned.IsZero() {
		all = append(all, "the first scan is not over yet")
	}
	if w.Error != "" {
		all = append(all, w.Error)
	}
	if n := len(w.Gaps); n > 0 {
		all = append(all, fmt.Sprintf("%s could not be read, such as %s: %s", counted(n, "place"), w.Gaps[0].Source, w.Gaps[0].Why))
	}
	return all
}

func newForwardsApprove() *cobra.Command {
	var reason, until string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "approve ID...",
		Short: "say that a rule is all right",
		Long: strings.TrimSpace(`
Approves rules: for their owner, mechanism, target and mode, and for the program or
script that is behind them now. If one of these changes the approval is over. What
another mechanism states alike (a panel's table, and the mail server's map of it) is
approved with it, and named. A rule that has changed since it was listed is refused. Every
approval is announced to those whom alerts go to, with your name and the reason.

--until ends it by itself; then the rule alerts again. An ID may be shortened to
what fits one rule only.

Exit status: 0; 1 no such rule; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard forwards approve F3a0c1d2e4b5 --reason 'outsourced payroll, contract 12' --until 2027-03-31",
		Args:    someIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needed(cmd, "reason", reason, "say why, for who finds it later"); err != nil {
				return err
			}
			o := forwardOrder{IDs: args, Reason: reason}
			if until != "" {
				t, err := parseUntil(until)
				if err != nil || !t.After(time.Now()) {
					return usage(cmd, "--until: got %q, want a time to come, such as 2027-03-31 or 90d", until)
				}
				o.Until = t
			}
			var err error
			if o.Seen, err = seen(cmd, args); err != nil {
				return err
			}
			return orderForwards(cmd, "/v1/forwards/approve", o, asJSON)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why: `text` that stays with it")
	cmd.Flags().StringVar(&until, "until", "", "until this `time`: 90d, 2027-03-31; else for good")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newForwardsRevoke() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revoke ID...",
		Short: "take an approval back",
		Long: strings.TrimSpace(`
Takes approvals back, also of what states the same by another mechanism; the rules count as new again, and those whom alerts go to are
told. The rules themselves stay as they are: remove them where they stand.

Exit status: 0; 1 no such rule, or it is not approved; 2 usage; 3 cannot tell, or
not allowed.`),
		Example: "  relayguard forwards revoke F3a0c1d2e4b5",
		Args:    someIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return orderForwards(cmd, "/v1/forwards/revoke", forwardOrder{IDs: args}, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// forwardOrder is what is done to rules. All are known, or nothing is done.
type forwardOrder struct {
	IDs    []string  `json:"ids"`
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	// Seen is what of them somebody looked at; a rule that is not so any more is
	// refused. It may be of some of them only.
	Seen []forwardSeen `json:"seen,omitempty"`
}

// forwardSeen is what an approval of a rule is for beside its ID.
type forwardSeen struct {
	ID      string          `json:"id"`
	Verdict forward.Verdict `json:"verdict"`
	Digest  string          `json:"digest,omitempty"`
	Differs string          `json:"differs,omitempty"`
}

// seen are the rules that ids name, as the daemon lists them now.
func seen(cmd *cobra.Command, ids []string) ([]forwardSeen, error) {
	l, err := listForwards(cmd, forwardQuery{})
	if err != nil {
		return nil, err
	}
	var all []forwardSeen
	for i := range l.Findings {
		e := &l.Findings[i]
		if slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(e.ID, id) }) {
			all = append(all, forwardSeen{e.ID, e.Verdict, e.Digest, e.Differs})
		}
	}
	return all, nil
}

func someIDs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, "ID is missing; relayguard forwards list shows them")
	}
	return nil
}

// parseUntil reads a term from now, or a day or time.
func parseUntil(text string) (time.Time, error) {
	var s span
	if s.Set(text) == nil {
		return time.Now().Add(time.Duration(s)), nil
	}
	var m moment
	err := m.Set(text)
	return m.Time, err
}

func orderForwards(cmd *cobra.Command, path string, o forwardOrder, asJSON bool) error {
	done, err := post[[]ledger.Entry](cmd, path, o)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if asJSON {
		err = render.JSON(out, forwardsListed{Findings: done})
	} else {
		page := render.PageOf(out)
		err = forwardsTable(page, done, time.Now()).Write(out, page)
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	for i := range done {
		e := &done[i]
		if !slices.ContainsFunc(o.IDs, func(id string) bool { return strings.HasPrefix(e.ID, id) }) {
			remark(cmd, "%s (%s) states the same by another mechanism: done for it, too", forward.ShortID(e.ID), e.Mechanism)
		}
	}
	return nil
}

func newForwardsWatch() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "show changes of forwarding rules as they come",
		Long: strings.TrimSpace(`
Writes a line for each rule that comes, changes or goes, as the daemon sees it, until
it is interrupted. --json writes an object a line. Without a daemon root watches
by itself.

Exit status: 0 when interrupted; 2 usage; 3 cannot tell, or the daemon went away.`),
		Example: "  relayguard forwards watch\n  relayguard forwards watch --json | jq -c .detail",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, c, err := asker(cmd)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			show := func(line []byte) error { return showChange(cmd, line, asJSON) }
			err = client.Lines(ctx, "/v1/forwards/watch", nil, show)
			if errors.Is(err, control.ErrDead) && isRoot() {
				remark(cmd, "the daemon does not run: watching without it; a first scan comes before")
				err = watchAlone(ctx, cmd, c, func(change forwardChange) error {
					line, err := json.Marshal(change)
					if err == nil {
						err = show(line)
					}
					return err
				})
			}
			if ctx.Err() != nil || errors.Is(err, context.Canceled) {
				return nil
			}
			return answerOf(err)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// forwardChange is one change, as a line of the stream. Kind "alive" is none: it
// says that the connection is.
type forwardChange struct {
	Time   time.Time       `json:"time"`
	Kind   string          `json:"kind"`
	Action string          `json:"action,omitempty"`
	Text   string          `json:"text,omitempty"`
	Detail *forwards.About `json:"detail,omitempty"`
}

func changeOf(e *ledger.Event) forwardChange {
	c := forwardChange{Time: e.Time, Kind: e.Kind, Action: e.Action.String(), Text: forwards.Line(*e)}
	if e.Entry.ID != "" {
		about := forwards.AboutOf(*e)
		c.Detail = &about
	}
	return c
}

func showChange(cmd *cobra.Command, line []byte, asJSON bool) error {
	var c forwardChange
	if err := json.Unmarshal(line, &c); err != nil {
		return fmt.Errorf("read what the daemon says: %w", err)
	}
	if c.Kind == changeAlive {
		return nil
	}
	out := cmd.OutOrStdout()
	if asJSON {
		_, err := fmt.Fprintf(out, "%s\n", line)
		return err
	}
	_, err := fmt.Fprintf(out, "%s %-6s %s\n", c.Time.Local().Format(time.DateTime), c.Action, render.Escape(c.Text))
	return err
}

// changeAlive is the Kind of a line that says nothing.
const changeAlive = "alive"
