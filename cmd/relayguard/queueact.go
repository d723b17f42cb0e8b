package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

// queueAct is queue hold, release, delete or requeue.
type queueAct struct {
	bulk
	choose queueFlags
	yes    bool
	reason string
}

func newQueueAct(verb, long string) *cobra.Command {
	a := &queueAct{bulk: bulk{verb: verb, what: "queued", missing: errNotQueued, row: doneRow}}
	short := map[string]string{"hold": "put queued mail on hold", "release": "let mail on hold go its way", "delete": "delete queued mail", "requeue": "queue mail anew"}[verb]
	done := map[string]string{"hold": "put on hold", "requeue": "queued anew"}[verb]
	if done == "" {
		done = verb + "d"
	}
	cmd := &cobra.Command{
		Use:   verb + " [ID...]",
		Short: short,
		Long: strings.TrimSpace(long) + fmt.Sprintf(`

IDs are queue ids or ids of decisions. With flags in their place, what is given must
all hold; --queue, --instance and --limit alone choose nothing: that needs --all. More
than one message that no ID names is asked about at a terminal, and elsewhere needs
--yes. --dry-run shows what would be %[1]s. What others put on hold is left alone, and
counted, but with --foreign.

Messages that are not %[1]s, and new queue ids, are listed. ^C ends it when the
messages in hand are done, and says how far it came; the same command again goes on
with what is left.

Exit status: 0; 1 something was not %[1]s, or nothing is queued under an ID; 2 usage;
3 cannot tell, or not allowed.`, done),
		Example: fmt.Sprintf("  relayguard queue %[1]s 4ZJ1k82Vz1y\n  relayguard queue %[1]s --plugin share-by-mail@shop.example.jp --dry-run\n  relayguard queue %[1]s --to-domain example.net --older-than 2h --reason 'their server is back'", verb),
		RunE:    a.run,
	}
	a.choose.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&a.choose.all, "all", false, "everything in the queue, or of --queue and --instance")
	flags.BoolVar(&a.dryRun, "dry-run", false, "only show what it would be")
	if verb != "hold" {
		flags.BoolVar(&a.foreign, "foreign", false, "also what others put on hold")
	}
	if verb == "delete" {
		flags.BoolVar(&a.noCopy, "no-copy", false, "keep no copy: it cannot be restored")
	}
	flags.BoolVar(&a.yes, "yes", false, "do not ask")
	flags.StringVar(&a.reason, "reason", "", "`text` for the journal")
	jsonFlag(cmd, &a.asJSON)
	return cmd
}

func (a *queueAct) run(cmd *cobra.Command, ids []string) error {
	filter, err := a.choose.filter(cmd, ids)
	switch {
	case err != nil:
		return err
	case !choosesQueued(filter) && !filter.All:
		return usage(cmd, "nothing chooses among the queued mail; name IDs, an account, a domain, an error or an age, or say --all")
	case filter.All && choosesQueued(filter):
		return usage(cmd, "--all goes with nothing else that chooses but --queue and --instance")
	}
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	order := desk.QueueOrder{Verb: a.verb, Filter: filter, Foreign: a.foreign, NoCopy: a.noCopy, Reason: a.reason}
	a.messages = func(page render.Page, w io.Writer) *render.Stream {
		return render.NewStream(w, page, doneColumns(page))
	}
	a.do = func(ctx context.Context, dryRun, tell bool, step func(desk.Step) error) error {
		o := order
		o.DryRun, o.Tell = dryRun, tell
		return h.ActOnQueue(ctx, o, step)
	}
	if !a.dryRun && !a.yes && len(ids) == 0 {
		shown := time.Now()
		found, err := a.agree(cmd)
		if err != nil {
			return err
		}
		a.dryRun = !found // then it stays at nothing
		order.Filter = asShown(order.Filter, a.ids, shown, time.Now())
	}
	return a.bulk.run(cmd)
}

// asShown is the filter that chooses, now, what it chose when it was shown, as far
// as that is still there, and nothing that came since.
func asShown(f desk.QueueFilter, ids []string, shown, now time.Time) desk.QueueFilter {
	f.Before = shown
	if f.OlderThan != 0 {
		f.OlderThan += now.Sub(shown)
	}
	if f.NewerThan != 0 {
		f.NewerThan += now.Sub(shown)
	}
	if len(ids) > 0 {
		f.IDs, f.Limit = ids, 0
	}
	return f
}

// doneColumns are those of a message that would be acted on.
func doneColumns(page render.Page) []render.Column {
	all := []render.Column{{Title: "QUEUE ID", Whole: true, Min: 11}, {Title: "QUEUE", Whole: true, Min: 8}, {Title: "AGE", Right: true, Whole: true, Min: 3}, {Title: "SIZE", Right: true, Whole: true, Min: 6},
		{Title: "WHOSE", Weight: 2, Min: 14}, {Title: "RULE", Min: 6}}
	if roomy(page) {
		all = append(all, render.Column{Title: "FROM", Weight: 2})
	}
	return append(all, render.Column{Title: "OUTCOME", Whole: true, Min: 7})
}

func doneRow(page render.Page, now time.Time, m *desk.Done) []string {
	q := desk.Queued{Instance: m.Instance, Queue: m.Queue, HeldBy: m.HeldBy}
	age, size := render.Ago(now, m.Arrival), render.Bytes(m.Size)
	if !page.Cut {
		age, size = when(page, m.Arrival), number(m.Size)
	}
	row := []string{m.QueueID, whichQueue(&q), age, size, whoseHeld(&m.Held), m.Rule}
	if roomy(page) {
		row = append(row, sender(m.MailFrom))
	} else if row[4] == "" {
		row[4] = "<" + m.MailFrom + ">"
	}
	return append(row, m.Outcome)
}
