package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

// operate is one of the bulk acts of hands.
type operate func(hands, context.Context, desk.Order) (desk.Report, error)

// heldAct is held release or held delete.
type heldAct struct {
	verb        string
	do, forGood operate // forGood: what --no-copy does; nil: there is no such flag

	choose                      heldFlags
	noCopy, dryRun, yes, asJSON bool
	reason                      string
}

// past is the verb when it is done.
func (a *heldAct) past() string { return a.verb + "d" }

func newHeldAct(a heldAct, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   a.verb + " [ID...]",
		Short: short,
		Long: strings.TrimSpace(long) + fmt.Sprintf(`

IDs are queue ids or ids of decisions. With flags in their place, what is given
must all hold; everything needs --all. More than one message that no ID names is
asked about at a terminal, and elsewhere needs --yes. --dry-run shows what would
be %[1]sd.

Messages that are not %[1]sd, and new queue ids, are listed.

Exit status: 0; 1 something was not %[1]sd, or nothing is held under an ID; 2
usage; 3 cannot tell, or not allowed.`, a.verb),
		Example: fmt.Sprintf("  relayguard held %[1]s 4ZJ1k82Vz1y\n  relayguard held %[1]s --login taro@example.jp --rule login-volume --dry-run\n  relayguard held %[1]s --account local_user:www-data --older-than 3d --reason 'spam run'", a.verb),
		RunE:    a.run,
	}
	a.choose.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&a.choose.all, "all", false, "everything that relayguard holds")
	flags.BoolVar(&a.dryRun, "dry-run", false, "only show what it would be")
	if a.forGood != nil {
		flags.BoolVar(&a.noCopy, "no-copy", false, "keep no copy: it cannot be restored")
	}
	flags.BoolVar(&a.yes, "yes", false, "do not ask")
	flags.StringVar(&a.reason, "reason", "", "`text` for the journal")
	jsonFlag(cmd, &a.asJSON)
	return cmd
}

func (a *heldAct) run(cmd *cobra.Command, ids []string) error {
	filter, err := a.choose.filter(cmd, ids)
	switch {
	case err != nil:
		return err
	case len(ids) == 0 && !narrows(filter) && !filter.All:
		return usage(cmd, "nothing chooses among the held mail; name IDs, an account, a rule or an age, or say --all")
	case filter.All && (len(ids) > 0 || narrows(filter)):
		return usage(cmd, "--all goes with nothing else that chooses")
	}
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	if a.noCopy {
		a.do = a.forGood
	}
	order := desk.Order{Filter: filter, DryRun: a.dryRun, Reason: a.reason}
	if !a.dryRun && !a.yes && len(ids) == 0 {
		if order, err = a.agree(cmd, h, order); err != nil {
			return err
		}
	}
	var r desk.Report
	if r, err = a.do(h, cmd.Context(), order); err != nil {
		return answerOf(err)
	}
	return a.report(cmd, &r, ids)
}

// agree asks about more than one message. What is agreed to are these messages,
// not those that the filter finds a moment later.
func (a *heldAct) agree(cmd *cobra.Command, h hands, order desk.Order) (desk.Order, error) {
	dry := order
	dry.DryRun = true
	r, err := a.do(h, cmd.Context(), dry)
	if err != nil {
		return order, answerOf(err)
	}
	if len(r.Messages) > 1 {
		if onTerminal(cmd) {
			page := render.PageOf(cmd.ErrOrStderr())
			if err := shares(r.Messages).Write(cmd.ErrOrStderr(), page); err != nil {
				return order, &exitError{exitCannotTell, err}
			}
		}
		what := fmt.Sprintf("%s %s (%s)", a.verb, counted(len(r.Messages), "message"), render.Bytes(r.Bytes))
		if a.noCopy {
			what += " and keep no copy"
		}
		if err := confirm(cmd, what); err != nil {
			return order, err
		}
	}
	for _, m := range r.Messages {
		order.Filter.IDs = append(order.Filter.IDs, m.QueueID)
	}
	order.Filter.OlderThan, order.Filter.NewerThan, order.Filter.Limit = 0, 0, 0
	order.DryRun = len(r.Messages) == 0 // then it stays at nothing
	return order, nil
}

// shares is whose mail it is, and under which rules.
func shares(all []desk.Done) *render.Table {
	type share struct{ account, rule string }
	count, size := map[share]int{}, map[share]int64{}
	for _, m := range all {
		s := share{m.Account, m.Rule}
		count[s]++
		size[s] += m.Size
	}
	order := make([]share, 0, len(count))
	for s := range count {
		order = append(order, s)
	}
	slices.SortFunc(order, func(a, b share) int {
		if count[a] != count[b] {
			return count[b] - count[a]
		}
		return strings.Compare(a.account+a.rule, b.account+b.rule)
	})
	t := &render.Table{Columns: []render.Column{{Title: "MESSAGES", Right: true, Whole: true}, {Title: "SIZE", Right: true, Whole: true}, {Title: "ACCOUNT", Weight: 2}, {Title: "RULE"}}}
	const most = 20
	for _, s := range order[:min(len(order), most)] {
		t.Rows = append(t.Rows, []string{number(count[s]), render.Bytes(size[s]), s.account, s.rule})
	}
	if rest := len(order) - most; rest > 0 {
		t.Rows = append(t.Rows, []string{"", "", fmt.Sprintf("and %d more", rest)})
	}
	return t
}

// report prints what is worth it, and says by its error whether all went well.
func (a *heldAct) report(cmd *cobra.Command, r *desk.Report, ids []string) error {
	out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
	var err error
	switch {
	case a.asJSON:
		err = render.JSON(out, r)
	case a.dryRun:
		held := make([]desk.Held, len(r.Messages))
		for i, m := range r.Messages {
			held[i] = m.Held
		}
		err = heldTable(page, time.Now(), held).Write(out, page)
	default:
		err = outcomeTable(r.Messages).Write(out, page)
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	a.summary(cmd, r)
	var errs []error
	for _, id := range r.Unknown {
		if len(ids) > 0 { // else it left while we asked
			errs = append(errs, errNotHeld(id))
		}
	}
	if len(errs) > 0 {
		return &exitError{exitFinding, &escapedError{errors.Join(errs...)}}
	}
	for outcome, n := range r.Counts {
		if n > 0 && outcome != "done" && outcome != "would" {
			return &exitError{code: exitFinding}
		}
	}
	return nil
}

// summary is a line on standard error.
func (a *heldAct) summary(cmd *cobra.Command, r *desk.Report) {
	if len(r.Messages) == 0 {
		remark(cmd, "nothing held is like that; nothing was done")
		return
	}
	if a.dryRun {
		remark(cmd, "would %s %s (%s); nothing was done", a.verb, counted(len(r.Messages), "message"), render.Bytes(r.Bytes))
		return
	}
	var size int64
	for _, m := range r.Messages {
		if m.Outcome == "done" {
			size += m.Size
		}
	}
	line := fmt.Sprintf("%s %s (%s)", a.past(), counted(r.Counts["done"], "message"), render.Bytes(size))
	for _, o := range []struct{ outcome, text string }{{"failed", "failed"}, {"gone", "had left the queue already"}, {"changed", "left alone: the queue id is another message's now"}} {
		if n := r.Counts[o.outcome]; n > 0 {
			line += fmt.Sprintf("; %d %s", n, o.text)
		}
	}
	remark(cmd, "%s", line)
	if a.forGood != nil && !a.noCopy && slices.ContainsFunc(r.Messages, func(m desk.Done) bool { return strings.Contains(m.Error, syscall.ENOSPC.Error()) }) {
		remark(cmd, "the disk is full, so there is no room for copies; with --no-copy they are deleted for good")
	}
}

// outcomeTable lists what did not go as usual.
func outcomeTable(all []desk.Done) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "QUEUE ID", Whole: true}, {Title: "OUTCOME", Whole: true}, {Title: "NEW ID", Whole: true}, {Title: "ACCOUNT", Weight: 2}, wrapped("ERROR")}}
	for _, m := range all {
		if m.Outcome != "done" || m.NewID != "" {
			t.Rows = append(t.Rows, []string{m.QueueID, m.Outcome, m.NewID, m.Account, m.Error})
		}
	}
	return t
}
