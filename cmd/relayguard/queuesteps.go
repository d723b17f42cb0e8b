package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

// bulk is an act on many messages that tells how far it is: on held mail, or on any
// in the queue.
type bulk struct {
	verb     string // "hold", "release", "delete", "requeue"
	what     string // the mail that it is about: "held", "queued"
	noCopy   bool
	foreign  bool
	dryRun   bool
	asJSON   bool
	quiet    bool     // new ids are not worth a line each
	ids      []string // of what was agreed to: a filter alone would choose what has come since, too
	missing  func(id string) error
	messages func(page render.Page, w io.Writer) *render.Stream // what --dry-run lists
	row      func(page render.Page, now time.Time, m *desk.Done) []string
	do       func(ctx context.Context, dryRun, tell bool, step func(desk.Step) error) error
}

// past are verbs when they are done, and while they are.
var past = map[string][2]string{"hold": {"put on hold:", "holding"}, "release": {"released", "releasing"}, "delete": {"deleted", "deleting"}, "requeue": {"queued anew:", "queueing anew"},
	"undelete": {"on hold again:", "restoring"}}

// tally is what the steps of an act come to.
type tally struct {
	desk.Step // the last one, its sums; Unknown is of all
	noRoom    bool
	whose     map[portion]*portionSum // of a dry run
}

// portion is mail of one origin under one rule.
type portion struct{ who, rule string }

type portionSum struct {
	messages int
	bytes    int64
}

func (t *tally) add(s desk.Step) {
	unknown := append(t.Unknown, s.Unknown...)
	total, size := max(t.Total, s.Total), max(t.Bytes, s.Bytes)
	counts := t.Counts
	if s.Counts != nil {
		counts = s.Counts
	}
	done, doneBytes := max(t.Done, s.Done), max(t.DoneBytes, s.DoneBytes)
	t.Step = s
	t.Unknown, t.Total, t.Bytes, t.Counts, t.Done, t.DoneBytes, t.Messages = unknown, total, size, counts, done, doneBytes, nil
	for i := range s.Messages {
		m := &s.Messages[i]
		t.noRoom = t.noRoom || strings.Contains(m.Error, syscall.ENOSPC.Error())
		if m.Outcome != "would" {
			continue
		}
		of := portion{cmp.Or(whoseHeld(&m.Held), "<"+m.MailFrom+">"), m.Rule}
		sum := t.whose[of]
		if sum == nil {
			if len(t.whose) >= maxShares {
				of = portion{who: "(others)"}
				sum = t.whose[of]
			}
			if sum == nil {
				sum = &portionSum{}
				t.whose[of] = sum
			}
		}
		sum.messages++
		sum.bytes += m.Size
	}
}

// maxShares bounds how many origins are told apart before an act.
const maxShares = 10_000

// whoseHeld is the narrowest origin that is known of a message.
func whoseHeld(m *desk.Held) string {
	switch {
	case m.Plugin != "":
		return "plugin:" + pluginAt(m.Plugin, m.Site)
	case m.Site != "":
		return "site:" + m.Site
	}
	return m.Account
}

// run does it, and prints what is worth it.
func (b *bulk) run(cmd *cobra.Command) error {
	signal.Ignore(syscall.SIGPIPE) // that nobody reads any more does not end what was begun
	defer signal.Reset(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	told := newProgress(cmd.ErrOrStderr())
	defer told.stop()
	defer context.AfterFunc(ctx, func() {
		stop() // the next one ends the command at once
		told.set("stopping when the messages in hand are done; ^C again does not wait for that")
	})()
	out := b.writer(cmd.OutOrStdout())
	t := &tally{whose: map[portion]*portionSum{}}
	var writing error
	err := b.do(ctx, b.dryRun, b.dryRun || b.asJSON, func(s desk.Step) error {
		t.add(s)
		if ctx.Err() == nil {
			told.set(b.far(t))
		}
		for i := range s.Messages {
			if writing == nil {
				writing = out.message(&s.Messages[i])
			}
		}
		return nil
	})
	told.stop()
	if n := len(t.Unknown); n > 0 && len(b.ids) > 0 { // no admin named these: they left since they were shown
		t.Counts["gone"] += n
		t.Unknown = nil
	}
	if writing == nil {
		writing = out.end(b, t, err)
	}
	return b.result(cmd, t, ctx.Err() != nil, err, wroteAll(writing))
}

// far is how far it is.
func (b *bulk) far(t *tally) string {
	switch {
	case t.Total == 0 && t.Seen > 0:
		where := "in the queue so far"
		if b.verb == "undelete" {
			where = "looked at so far"
		}
		return fmt.Sprintf("%s %s", counted(t.Seen, "message"), where)
	case t.Total == 0:
		return ""
	}
	doing := past[b.verb][1]
	if b.dryRun {
		doing = "looking at"
	}
	line := fmt.Sprintf("%s: %d of %d (%d %%)", doing, t.Done, t.Total, t.Done*100/t.Total)
	if n := t.Counts["failed"]; n > 0 {
		line += fmt.Sprintf(", %d failed", n)
	}
	return line
}

// agree asks about more than one message; found reports that there is any. What is
// agreed to are these messages, by their ids, not those that the filter finds a moment
// later: the MTA dates a message by its session's beginning, so that it came since is
// not to be seen in it.
func (b *bulk) agree(cmd *cobra.Command) (found bool, err error) {
	told := newProgress(cmd.ErrOrStderr())
	t := &tally{whose: map[portion]*portionSum{}}
	err = b.do(cmd.Context(), true, true, func(s desk.Step) error {
		t.add(s)
		for i := range s.Messages {
			// Others' are told of by the act itself; without their ids it would choose anew.
			if o := s.Messages[i].Outcome; (o == "would" || o == "foreign") && len(b.ids) <= maxAgreed {
				b.ids = append(b.ids, s.Messages[i].QueueID)
			}
		}
		if t.Total == 0 && t.Seen > 0 {
			told.set(b.far(t))
		}
		return nil
	})
	told.stop()
	if err != nil {
		return false, answerOf(err)
	}
	if t.Cut != "" {
		return false, &exitError{exitCannotTell, fmt.Errorf("the queue was not read to its end: %s; nothing was done", t.Cut)}
	}
	if len(b.ids) > maxAgreed {
		b.ids = nil
		remark(cmd, "these are more than %d: what a slow client sends meanwhile may be among them", maxAgreed)
	}
	n := t.Counts["would"]
	if n <= 1 {
		return n+t.Counts["foreign"] > 0, nil
	}
	if onTerminal(cmd) {
		if err := shares(t.whose).Write(cmd.ErrOrStderr(), render.PageOf(cmd.ErrOrStderr())); err != nil {
			return true, &exitError{exitCannotTell, err}
		}
	}
	what := fmt.Sprintf("%s %s (%s)", b.verb, counted(n, "message"), render.Bytes(t.Bytes))
	if b.foreign {
		what += ", those on others' hold, too"
	}
	if b.noCopy {
		what += " and keep no copy"
	}
	return true, confirm(cmd, what)
}

// maxAgreed is how many ids of what was agreed to go into one request.
const maxAgreed = 500_000

// shares is whose mail it is, and under which rules.
func shares(all map[portion]*portionSum) *render.Table {
	order := make([]portion, 0, len(all))
	for s := range all {
		order = append(order, s)
	}
	slices.SortFunc(order, func(a, b portion) int {
		return cmp.Or(cmp.Compare(all[b].messages, all[a].messages), strings.Compare(a.who+a.rule, b.who+b.rule))
	})
	t := &render.Table{Columns: []render.Column{{Title: "MESSAGES", Right: true, Whole: true}, {Title: "SIZE", Right: true, Whole: true}, {Title: "WHOSE", Weight: 2}, {Title: "RULE"}}}
	const most = 20
	for _, s := range order[:min(len(order), most)] {
		t.Rows = append(t.Rows, []string{number(all[s].messages), render.Bytes(all[s].bytes), s.who, s.rule})
	}
	if rest := len(order) - most; rest > 0 {
		t.Rows = append(t.Rows, []string{"", "", fmt.Sprintf("and %d more", rest)})
	}
	return t
}

// result says what came of it, on standard error and by its error.
func (b *bulk) result(cmd *cobra.Command, t *tally, interrupted bool, err, writing error) error {
	if err != nil && t.Done == 0 && !interrupted {
		return answerOf(err) // a refusal, or nothing was begun
	}
	b.summary(cmd, t)
	again, left := "the same command again goes on with what is left", ""
	if n := t.Total - t.Done; n > 0 {
		left = fmt.Sprintf("; %s not touched", counted(n, "message"))
	}
	switch {
	case t.Cut != "":
		remark(cmd, "ended early: %s%s; %s", t.Cut, left, again)
		if !interrupted && err != nil {
			return &exitError{code: exitCannotTell}
		}
		return &exitError{code: exitFinding}
	case !t.End && interrupted:
		remark(cmd, "interrupted; the messages in hand may be done, too; %s", again)
		return &exitError{code: exitFinding}
	case !t.End:
		remark(cmd, "the connection to the daemon broke; the messages in hand may be done, too; %s", again)
		return cannotTell(err)
	case writing != nil:
		return writing
	}
	if len(t.Unknown) > 0 && b.missing != nil {
		return unknownIDs(t.Unknown, b.missing)
	}
	for outcome, n := range t.Counts {
		if n > 0 && outcome != "done" && outcome != "would" {
			return &exitError{code: exitFinding}
		}
	}
	return nil
}

// cannotTell is answerOf of an answer that broke off.
func cannotTell(err error) error {
	if err == nil {
		err = errors.New("the daemon's answer has no end")
	}
	return &exitError{exitCannotTell, &escapedError{err}}
}

func unknownIDs(ids []string, say func(string) error) error {
	all := make([]error, len(ids))
	for i, id := range ids {
		all[i] = say(id)
	}
	return &exitError{exitFinding, &escapedError{errors.Join(all...)}}
}

// summary is a line on standard error.
func (b *bulk) summary(cmd *cobra.Command, t *tally) {
	total := 0
	for _, n := range t.Counts {
		total += n
	}
	line := ""
	switch {
	case total == 0 && t.Total == 0 && t.Cut != "":
		line = "the queue was not read to its end; nothing was done"
	case total == 0 && t.Total == 0 && !t.End:
		line = "the queue was not read to its end"
	case total == 0 && len(t.Unknown) == 0:
		line = fmt.Sprintf("nothing %s is like that; nothing was done", b.what)
	case b.dryRun:
		line = fmt.Sprintf("would %s %s (%s)", b.verb, counted(t.Counts["would"], "message"), render.Bytes(t.Bytes))
	default:
		line = fmt.Sprintf("%s %s (%s)", past[b.verb][0], counted(t.Counts["done"], "message"), render.Bytes(t.DoneBytes))
	}
	gone := "had left the queue already"
	if b.verb == "undelete" {
		gone = "had no copy any more, or had never left the queue"
	}
	for _, o := range []struct{ outcome, text string }{{"failed", "failed"}, {"gone", gone}, {"changed", "left alone: the queue id is another message's now"},
		{"foreign", "left alone: on hold by others"}} {
		if n := t.Counts[o.outcome]; n > 0 {
			line += fmt.Sprintf("; %d %s", n, o.text)
		}
	}
	if b.dryRun && total > 0 {
		line += "; nothing was done"
	}
	remark(cmd, "%s", line)
	if b.verb == "delete" && !b.noCopy && t.noRoom {
		remark(cmd, "the disk is full, so there is no room for copies; with --no-copy they are deleted for good")
	}
}

// actWriter writes what an act tells of messages.
type actWriter interface {
	message(m *desk.Done) error
	end(b *bulk, t *tally, err error) error
}

func (b *bulk) writer(w io.Writer) actWriter {
	page := render.PageOf(w)
	switch {
	case b.asJSON:
		return &actJSON{render.NewJSONList(w, "messages")}
	case b.dryRun:
		page = page.Headings(w)
		now := time.Now()
		return &actTable{b.messages(page, w), func(m *desk.Done) []string { return b.row(page, now, m) }}
	}
	return unusual(page.Headings(w), w, b.quiet)
}

type actTable struct {
	rows *render.Stream
	row  func(*desk.Done) []string // nil: not worth a line
}

func (a *actTable) message(m *desk.Done) error {
	if row := a.row(m); row != nil {
		return a.rows.Row(row...)
	}
	return nil
}

func (a *actTable) end(*bulk, *tally, error) error { return a.rows.Close() }

type actJSON struct{ list *render.JSONList }

func (j *actJSON) message(m *desk.Done) error { return j.list.Add(m) }

func (j *actJSON) end(b *bulk, t *tally, err error) error {
	if err != nil {
		return j.list.Flush()
	}
	return j.list.End(struct {
		Verb    string         `json:"verb"`
		DryRun  bool           `json:"dry_run"`
		Total   int            `json:"total"`
		Bytes   int64          `json:"bytes"`
		Counts  map[string]int `json:"counts"`
		Unknown []string       `json:"unknown,omitempty"`
		Cut     string         `json:"cut,omitempty"`
	}{b.verb, b.dryRun, t.Total, t.Bytes, t.Counts, t.Unknown, t.Cut})
}

// unusual lists what did not go as usual, or has another id now.
func unusual(page render.Page, w io.Writer, quiet bool) *actTable {
	columns := []render.Column{{Title: "QUEUE ID", Whole: true, Min: 11}, {Title: "OUTCOME", Whole: true, Min: 7}, {Title: "NEW ID", Whole: true, Min: 11}, {Title: "WHOSE", Weight: 2}, {Title: "ERROR", Wrap: true, Weight: 3}}
	return &actTable{render.NewStream(w, page, columns), func(m *desk.Done) []string {
		if m.Outcome == "done" && (quiet || m.NewID == "") {
			return nil
		}
		return []string{m.QueueID, m.Outcome, m.NewID, whoseHeld(&m.Held), m.Error}
	}}
}
