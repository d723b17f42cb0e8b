package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/render"
	"relayguard/rbl/history"
)

// What history looks back by default, and lists at most.
const (
	rblLookBack   = 30 * 24 * time.Hour
	rblMaxListed  = 10_000
	rblMostListed = 1_000
)

func newRBLHistory() *cobra.Command {
	var since, until moment
	var subject, zone string
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history",
		Short: "list what was listed, and which lists went bad",
		Long: strings.TrimSpace(`
Lists the listings of our addresses and domains that there were at any time since
then, those that go on first. One that came back is a listing of its own. PHASE
withdrawn: seen once and not confirmed.

Below it are the lists that could not be believed any more: gone wild, so that they
listed everybody, or in the hands of somebody else; and those that were well again.

On terminals of less than 110 columns what a listing means is left out. While the
daemon is dead root reads what it remembered.

Exit status: 0, also if nothing was found; 2 usage; 3 cannot tell.`),
		Example: "  relayguard rbl history\n  relayguard rbl history --since 90d --subject 203.0.113.5\n  relayguard rbl history --zone bl.spamcop.net --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := rblQueryValues(cmd, subject, zone, since, until, limit)
			if err != nil {
				return err
			}
			p, err := askRBLPast(cmd, v)
			if err != nil {
				return err
			}
			return showRBLPast(cmd, p, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.Var(&since, "since", "not before this `time`: 30d (the default), 2026-03-02, or RFC 3339")
	flags.Var(&until, "until", "before this `time`, likewise")
	flags.StringVar(&subject, "subject", "", "only of this `address or domain`")
	flags.StringVar(&zone, "zone", "", "only on this `list`")
	flags.IntVar(&limit, "limit", rblMostListed, "at most so many")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// rblQueryValues is the search as the daemon is asked for it; rblQueryOf reads it.
func rblQueryValues(cmd *cobra.Command, subject, zone string, since, until moment, limit int) (url.Values, error) {
	if since.IsZero() {
		since.Time = time.Now().Add(-rblLookBack)
	}
	v := url.Values{"since": {since.UTC().Format(time.RFC3339)}, "limit": {strconv.Itoa(limit)}}
	if !until.IsZero() {
		v.Set("until", until.UTC().Format(time.RFC3339))
	}
	if limit < 1 || limit > rblMaxListed {
		return nil, usage(cmd, "--limit: got %d, want 1 to %d", limit, rblMaxListed)
	}
	if !until.IsZero() && !until.After(since.Time) {
		return nil, usage(cmd, "--until is not after --since")
	}
	if subject != "" {
		s, err := rblSubject(subject)
		if err != nil {
			return nil, usage(cmd, "--subject: %v", err)
		}
		v.Set("subject", s.String())
	}
	if zone != "" {
		v.Set("zone", strings.ToLower(strings.TrimSuffix(zone, ".")))
	}
	return v, nil
}

// askRBLPast asks the daemon, or root its history.
func askRBLPast(cmd *cobra.Command, v url.Values) (p *rblPast, err error) {
	client, c, err := asker(cmd)
	if err != nil {
		return nil, err
	}
	p = &rblPast{}
	err = client.Get(cmd.Context(), "/v1/rbl/history", v, p)
	if !errors.Is(err, control.ErrDead) || !isRoot() {
		return p, answerOf(err)
	}
	q, err := rblQueryOf(v)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	*p, err = peekRBL(cmd, c, func(h *history.Store) (rblPast, error) { return rblPastOf(cmd.Context(), h, q, time.Now()) })
	return p, err
}

// peekRBL reads the history that a dead daemon has left.
func peekRBL[T any](cmd *cobra.Command, c *config.Config, read func(*history.Store) (T, error)) (out T, err error) {
	h, err := history.Peek(cmd.Context(), c.RBLDirectory())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return out, &exitError{exitCannotTell, fmt.Errorf("the daemon does not run and has left no history of blocklists; look now: relayguard rbl check")}
	case err != nil:
		return out, &exitError{exitCannotTell, err}
	}
	defer h.Close()
	remark(cmd, "the daemon does not run: this is what it knew; look now: relayguard rbl check")
	out, err = read(h)
	return out, answerOf(err)
}

func showRBLPast(cmd *cobra.Command, p *rblPast, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return shown(render.JSON(out, p))
	}
	page, now := render.PageOf(out), time.Now()
	if len(p.Listings) == 0 {
		remark(cmd, "nothing of ours was listed in that time, as far as it is known")
	}
	if err := rblListingTable(page, p.Listings, now).Write(out, page); err != nil {
		return shown(err)
	}
	if p.Full {
		remark(cmd, "there may be more: a larger --limit, or a later --since")
	}
	if len(p.Zones) == 0 {
		return nil
	}
	if len(p.Listings) > 0 {
		fmt.Fprintln(out)
	}
	return shown(rblEventTable(page, p.Zones, now).Write(out, page))
}

// rblEventTable is what became of lists.
func rblEventTable(page render.Page, all []history.Event, now time.Time) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "ZONE", Min: 14, Weight: 2}, {Title: "KIND", Whole: true}, {Title: "BECAME", Whole: true}, {Title: "AT", Right: true, Whole: true}, wrapped("WHY")}}
	for _, e := range all {
		t.Rows = append(t.Rows, []string{e.Health.Zone, e.Health.Kind.String(), shownState(e.Health.State), whenAgo(page, now, e.At), e.Health.Why})
	}
	return t
}
