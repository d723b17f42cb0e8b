package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/render"
	"relayguard/policy"
	"relayguard/policy/limit"
	stamps "relayguard/policy/origin/stamp"
	"relayguard/replay"
)

// freshLearning is how long a fresh install learns.
const freshLearning = 14 * 24 * time.Hour

func newReplay() *cobra.Command {
	var learning string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replay [TRACE]",
		Short: "run recorded traffic against a configuration: what would have happened",
		Long: strings.TrimSpace(`
Reads a trace (JSON Lines, in the order of time; standard input without TRACE) and
judges it by the rules of the configuration, on a clock of its own: nothing is sent
or held, no daemon is asked. Nor is the MTA: inside.domains must name what is inside,
and address.postfix_maps tell nothing.

Says for each label of the trace what became of its messages, where each rule
stopped whom first, after how many recipients that were let out, and which
incidents there would have been. Mail that paced
release lets go within 15 minutes counts as accepted, later as held. A label never
changes a decision. There is no admin but for what the trace says one did; what is
held for a week is taken to be seen to.

The phase is learning at first, as on a fresh install, then enforce, whatever the
configuration says; --learning changes that.

Exit status: 0; 2 usage, the configuration or a line of the trace; 3 cannot tell.`),
		Example: "  relayguard replay --config new.toml march.jsonl\n  zcat march.jsonl.gz | relayguard replay --learning none --json | jq .stops",
		Args:    atMost("TRACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			learn, err := learningFor(cmd, learning)
			if err != nil {
				return err
			}
			c, path, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if len(args) == 1 {
				f, err := os.Open(args[0])
				if err != nil {
					return &exitError{exitUsage, &escapedError{err}}
				}
				defer f.Close()
				in = f
			}
			progress, done := progressOf(cmd)
			score, err := replayed(cmd.Context(), c, in, learn, progress)
			done()
			if err != nil {
				return err
			}
			remarks(cmd, aboutReplay(c, path, &score))
			out := cmd.OutOrStdout()
			if asJSON {
				return shown(render.JSON(out, score))
			}
			return shown(writeScore(out, &score))
		},
	}
	cmd.Flags().StringVar(&learning, "learning", "14d", "for how `long` the phase learning is in force: 14d, 12h, none")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// learningFor reads --learning.
func learningFor(cmd *cobra.Command, value string) (time.Duration, error) {
	if !cmd.Flags().Changed("learning") {
		return freshLearning, nil
	}
	if value == "none" {
		return 0, nil
	}
	learn, err := config.ParseDuration(value)
	if err != nil || learn <= 0 {
		return 0, usage(cmd, `--learning: got %q, want a length of time such as "14d", or none`, value)
	}
	return learn, nil
}

// progressOf tells a person at a terminal how far it is, until done.
func progressOf(cmd *cobra.Command) (progress func(line int), done func()) {
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || !render.PageOf(f).Cut {
		return nil, func() {}
	}
	last, told := time.Now(), false
	progress = func(line int) {
		if line%100 == 0 && time.Since(last) > time.Second {
			last, told = time.Now(), true
			fmt.Fprintf(f, "\r%d lines", line)
		}
	}
	return progress, func() {
		if told {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
}

// aboutReplay is what to know of a score beside the score.
func aboutReplay(c *config.Config, path string, s *replay.Score) []string {
	all := []string{fmt.Sprintf("%s, by %s", counted(s.Events, "event"), path)}
	for _, kind := range slices.Sorted(maps.Keys(s.Unknown)) {
		all = append(all, fmt.Sprintf("%s left out, of a kind that is not known: %q", counted(s.Unknown[kind], "event"), kind))
	}
	if len(c.Inside.Domains) == 0 {
		all = append(all, "inside.domains names none, so all mail goes to the outside")
	}
	if len(c.Address.PostfixMaps) > 0 {
		all = append(all, "address.postfix_maps are not asked, so an address that only they give to a login counts as another's")
	}
	return all
}

// replayed runs a trace through the rules of a configuration.
func replayed(ctx context.Context, c *config.Config, trace io.Reader, learn time.Duration, progress func(int)) (replay.Score, error) {
	accounts, board, lines, room := &replay.Accounts{}, &policy.Board{}, policy.NewLines(c.Hold.ServerMessages), holds.NewRoom(caps(c))
	store := limit.NewMemoryOf(memoryOptions(c))
	digests := &items{}
	digests.use(make([]byte, itemKeySize)) // the same each time, as the score is to be
	on := parts{
		store: store, retries: limit.NewRetries(limit.DefaultUnits), lines: lines, item: digests.of,
		uid: func(name string) (int, error) { return accounts.Find(name), nil }, learnt: freshRecognition(c, [16]byte{}),
	}
	tried := *c // a trace tells what stamps prove: no key is asked for, and a node's own limits are tried
	tried.Sign, tried.Nodes, tried.Origin.Fingerprints = config.Sign{}, nil, ""
	nodes, err := addressesOnly(c.Nodes)
	if err != nil {
		return replay.Score{}, &exitError{exitUsage, err}
	}
	in := func(phase policy.Phase) (*policy.Policy, []error) {
		p, errs := newPolicy(&tried, phase, accounts.Name, on)
		p.Switches, p.Room = board, room
		if p.Attribution != nil {
			p.Attribution.Nodes = nodes
		}
		return p, errs
	}
	learning, errs := in(policy.Learning)
	if len(errs) > 0 {
		return replay.Score{}, &exitError{exitUsage, errors.Join(errs...)}
	}
	enforce, errs := in(policy.Enforce)
	if len(errs) > 0 {
		return replay.Score{}, &exitError{exitUsage, errors.Join(errs...)}
	}
	score, err := replay.Run(ctx, replay.NewReader(trace), replay.Options{
		Learning: learning, Enforce: enforce, LearningFor: learn, Board: board, Lines: lines, Buckets: store, Retries: on.retries, Accounts: accounts,
		MaxAge: c.Hold.MaxAge, Bounced: c.Hold.BouncePercent, Release: c.Hold.Release,
		Recipients: c.Milter.MaxRecipients, HeaderBytes: c.Milter.MaxHeaderBytes, HeaderFields: c.Milter.MaxHeaderFields, BodyBytes: bodyBytes(c),
		Incidents: newReplayBook(c, board, lines, accounts), Progress: progress,
	})
	var format *replay.FormatError
	switch {
	case errors.As(err, &format):
		return score, &exitError{exitUsage, fmt.Errorf("trace: %w", &escapedError{err})}
	case err != nil:
		return score, &exitError{exitCannotTell, fmt.Errorf("trace: %w", &escapedError{err})}
	}
	return score, nil
}

// addressesOnly knows web nodes by their addresses, and believes nothing of what
// they sign.
func addressesOnly(nodes []config.Node) (*stamps.Nodes, error) {
	all := make([]stamps.Node, len(nodes))
	for i, n := range nodes {
		key := make([]byte, 32)
		rand.Read(key) // never fails
		all[i] = stamps.Node{Name: n.Name, Key: key, Addresses: n.Prefixes}
	}
	return stamps.NewNodes(all, stamps.NewReplays(1))
}

// writeScore prints a score for people.
func writeScore(w io.Writer, s *replay.Score) error {
	page := render.PageOf(w)
	labels := &render.Table{Columns: []render.Column{{Title: "LABEL", Min: 10, Weight: 2}}}
	for _, title := range []string{"ACCEPTED", "RECIPIENTS", "HELD", "DEFERRED", "REJECTED"} {
		labels.Columns = append(labels.Columns, render.Column{Title: title, Right: true, Whole: true})
	}
	names := make([]string, 0, len(s.Labels))
	for name := range s.Labels {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t := s.Labels[name]
		label := name
		if label == "" {
			label = "(none)"
		}
		labels.Rows = append(labels.Rows, []string{label, number(t.Accept.Messages), number(t.Accept.Recipients), number(t.Hold.Messages), number(t.Defer.Messages), number(t.Reject.Messages)})
	}
	if err := labels.Write(w, page); err != nil {
		return err
	}
	stops := &render.Table{Columns: []render.Column{{Title: "FIRST STOP", Whole: true}, {Title: "ORIGIN", Min: 16, Weight: 2}, {Title: "LABEL", Min: 8}, {Title: "RULE", Min: 10}, {Title: "VERDICT", Whole: true}, {Title: "LET OUT", Right: true, Whole: true}}}
	for _, one := range s.Stops {
		stops.Rows = append(stops.Rows, []string{when(page, one.Time), one.Origin, one.Label, one.Rule, one.Verdict, number(one.AfterRecipients)})
	}
	if len(stops.Rows) > 0 {
		fmt.Fprintln(w)
		if err := stops.Write(w, page); err != nil {
			return err
		}
	}
	incidents := &render.Table{Columns: []render.Column{{Title: "INCIDENT", Whole: true}, {Title: "ENDED", Whole: true}, {Title: "ORIGIN", Min: 16, Weight: 2}, {Title: "CAUSE", Min: 10}}}
	for _, one := range s.Incidents {
		ended := "open"
		if one.Closed != nil {
			ended = when(page, *one.Closed)
		}
		incidents.Rows = append(incidents.Rows, []string{when(page, one.Opened), ended, one.Origin, one.Cause})
	}
	if len(incidents.Rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return incidents.Write(w, page)
}
