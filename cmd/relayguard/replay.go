package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/render"
	"relayguard/incident"
	"relayguard/policy"
	"relayguard/policy/limit"
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
or held, no daemon is asked. Postfix is not asked either, so inside.domains must
name what is inside.

Says for each label of the trace what became of its messages, where each rule
stopped whom first, and which incidents there would have been. Mail that paced
release lets go within 15 minutes counts as accepted, later as held. A label never
changes a decision.

The phase learning comes first, as on a fresh install; --learning changes that.

Exit status: 0; 2 usage, the configuration or a line of the trace; 3 cannot tell.`),
		Example: "  relayguard replay --config new.toml march.jsonl\n  zcat march.jsonl.gz | relayguard replay --learning none --json | jq .stops",
		Args:    atMost("TRACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			learn := freshLearning
			if cmd.Flags().Changed("learning") && learning != "none" {
				var err error
				if learn, err = config.ParseDuration(learning); err != nil || learn <= 0 {
					return usage(cmd, `--learning: got %q, want a length of time such as "14d", or none`, learning)
				}
			} else if learning == "none" {
				learn = 0
			}
			c, path, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if len(args) == 1 {
				f, err := os.Open(args[0])
				if err != nil {
					return &exitError{exitUsage, err}
				}
				defer f.Close()
				in = f
			}
			score, err := replayed(cmd.Context(), c, in, learn, progressOf(cmd))
			if err != nil {
				return err
			}
			remark(cmd, "%s, by %s", counted(score.Events, "event"), path)
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

// progressOf tells a person at a terminal how far it is.
func progressOf(cmd *cobra.Command) func(int) {
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || !render.PageOf(f).Cut {
		return nil
	}
	last := time.Now()
	return func(line int) {
		if line%1000 == 0 && time.Since(last) > time.Second {
			last = time.Now()
			fmt.Fprintf(f, "\r%d lines", line)
		}
	}
}

// replayed runs a trace through the rules of a configuration.
func replayed(ctx context.Context, c *config.Config, trace io.Reader, learn time.Duration, progress func(int)) (replay.Score, error) {
	accounts, board, lines := &replay.Accounts{}, &policy.Board{}, policy.NewLines(c.Hold.ServerMessages)
	store := limit.NewMemoryOf(memoryOptions(c))
	seed := maphash.MakeSeed()
	on := parts{
		store: store, retries: limit.NewRetries(limit.DefaultUnits), lines: lines,
		item: func(to string) limit.Item { return limit.Item(maphash.String(seed, to)) },
		uid:  func(name string) (int, error) { return accounts.UID(name, nil), nil },
	}
	make := func(phase policy.Phase) (*policy.Policy, []error) {
		p, errs := newPolicy(c, phase, accounts.Name, on)
		p.Switches = board
		return p, errs
	}
	learning, errs := make(policy.Learning)
	enforce, more := make(policy.Enforce)
	if errs = append(errs, more...); len(errs) > 0 {
		return replay.Score{}, &exitError{exitUsage, errors.Join(errs...)}
	}
	book := newReplayBook(c, enforce.Limits, board)
	score, err := replay.Run(ctx, replay.NewReader(trace), replay.Options{
		Learning: learning, Enforce: enforce, LearningFor: learn, Board: board, Lines: lines, Buckets: store, Retries: on.retries, Accounts: accounts,
		MaxAge: c.Hold.MaxAge, Bounced: c.Hold.BouncePercent, Release: c.Hold.Release, Incidents: book, Progress: progress,
	})
	if err != nil {
		return score, &exitError{exitUsage, fmt.Errorf("trace: %w", &escapedError{err})}
	}
	return score, nil
}

// replayBook keeps incidents for a replay.
type replayBook struct {
	book *incident.Book
	all  map[string]incident.Incident
}

func newReplayBook(c *config.Config, limits *policy.Limits, board *policy.Board) *replayBook {
	b := &replayBook{all: map[string]incident.Incident{}}
	b.book = incident.NewBook(incident.Options{
		UpdateEvery: c.Alert.UpdateEvery, Quiet: c.Alert.Quiet, Grace: 24 * time.Hour,
		Abuses: func() []string { return abuseLimits(c) }, Log: slog.New(slog.DiscardHandler),
		Save: func(i incident.Incident) { b.all[i.ID] = i },
		StillOver: func(account, cause string, now time.Time) bool {
			return limits.Over(context.Background(), now, board.Load(), cause, account)
		},
	})
	return b
}

func (b *replayBook) Stopped(now time.Time, m *policy.Message, d *policy.Decision) {
	b.book.Observe(now, incident.Stop{Origin: d.Origin.Name(), Cause: d.Rule, Verdict: d.Verdict, Recipients: max(len(m.RcptTo), 1), ID: d.ID, QueueID: m.QueueID})
	b.book.Tick(now)
}

func (b *replayBook) Tick(now time.Time)         { b.book.Tick(now) }
func (b *replayBook) Busy() bool                 { return len(b.book.Open()) > 0 }
func (b *replayBook) Abused(account string) bool { return b.book.Abused(account) }

// All implements replay.Incidents; in order of time.
func (b *replayBook) All() []replay.Incident {
	var all []replay.Incident
	for _, i := range b.all {
		one := replay.Incident{Origin: i.Origin, Cause: i.Cause, Opened: i.Opened}
		if !i.Closed.IsZero() {
			one.Closed = &i.Closed
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b replay.Incident) int {
		if c := a.Opened.Compare(b.Opened); c != 0 {
			return c
		}
		return strings.Compare(a.Origin+a.Cause, b.Origin+b.Cause)
	})
	return all
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
	stops := &render.Table{Columns: []render.Column{{Title: "FIRST STOP", Whole: true}, {Title: "ORIGIN", Min: 16, Weight: 2}, {Title: "LABEL", Min: 8}, {Title: "RULE", Min: 10}, {Title: "VERDICT", Whole: true}, {Title: "AFTER", Right: true, Whole: true}}}
	for _, one := range s.Stops {
		stops.Rows = append(stops.Rows, []string{when(page, one.Time), one.Origin, one.Label, one.Rule, one.Verdict, counted(one.AfterRecipients, "recipient")})
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
