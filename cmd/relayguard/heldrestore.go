package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

// deletedFlags choose among deleted mail.
type deletedFlags struct {
	heldFlags
	since moment
	by    string
}

func (f *deletedFlags) add(cmd *cobra.Command) {
	f.heldFlags.add(cmd)
	flags := cmd.Flags()
	flags.Var(&f.since, "deleted-since", "deleted not before this `time`: 2h, 3d, 2026-03-02T09:00, or RFC 3339")
	flags.StringVar(&f.by, "by", "", "deleted by this `admin`, as held deleted names him")
	flags.Lookup("older-than").Usage = "deleted longer ago than this `time`: 90m, 2h, 3d"
	flags.Lookup("newer-than").Usage = "deleted less long ago than this `time`"
	flags.Lookup("limit").Usage = "at most so many, the ones deleted longest ago"
}

func (f *deletedFlags) filter(cmd *cobra.Command, ids []string) (desk.DeletedFilter, error) {
	of, err := f.heldFlags.filter(cmd, ids)
	return desk.DeletedFilter{Filter: of, Since: f.since.Time, By: f.by}, err
}

func newHeldDeleted() *cobra.Command {
	var f deletedFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "deleted [ID...]",
		Short: "list deleted mail that can be restored",
		Long: strings.TrimSpace(`
Lists deleted mail of which there is still a copy (hold.grace), the longest deleted
first, as it is found; relayguard held undelete brings it back. IDs are the queue ids
that it had, or ids of decisions. What is given must all hold. What the journal does
not know has the account unknown, and no sender.

Exit status: 0, also if there is none; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard held deleted\n  relayguard held deleted --by root --deleted-since 2h\n  relayguard held deleted --site shop.example.jp --json | jq -r '.[].queue_id'",
		RunE: func(cmd *cobra.Command, ids []string) error {
			filter, err := f.filter(cmd, ids)
			if err != nil {
				return err
			}
			h, err := reach(cmd)
			if err != nil {
				return err
			}
			defer h.Close()
			return deletedList(cmd, h, filter, asJSON)
		},
	}
	f.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// deletedList writes deleted mail as it comes.
func deletedList(cmd *cobra.Command, h queueHands, f desk.DeletedFilter, asJSON bool) error {
	ctx, cancel := context.WithCancel(cmd.Context()) // a reader that has enough ends it
	defer cancel()
	var last *desk.DeletedEnd
	var writing error
	write, end := deletedWriter(cmd.OutOrStdout(), asJSON)
	err := h.ListDeleted(ctx, f, func(l desk.DeletedLine) error {
		switch {
		case l.Message != nil:
			writing = write(l.Message)
		case l.End != nil:
			last = l.End
		}
		return writing
	})
	if err == nil && last == nil {
		err = errors.New("the daemon's answer has no end")
	}
	if writing == nil {
		writing = end(last != nil)
	}
	switch {
	case writing != nil:
		return wroteAll(writing)
	case err != nil:
		return cutShort(cmd, err)
	}
	remark(cmd, "%s (%s) can be restored", counted(last.Messages, "message"), render.Bytes(last.Bytes))
	return nil
}

// deletedWriter writes deleted messages in one form; a list that is cut short is no
// JSON.
func deletedWriter(w io.Writer, asJSON bool) (write func(*desk.Deleted) error, end func(whole bool) error) {
	if asJSON {
		list := render.NewJSONList(w, "")
		return func(m *desk.Deleted) error { return list.Add(m) }, func(whole bool) error {
			if !whole {
				return list.Flush()
			}
			return list.End(nil)
		}
	}
	page, now := render.PageOf(w).Headings(w), time.Now()
	rows := render.NewStream(w, page, deletedColumns(page))
	return func(m *desk.Deleted) error { return rows.Row(deletedRow(page, now, m)...) }, func(bool) error { return rows.Close() }
}

func deletedColumns(page render.Page) []render.Column {
	all := []render.Column{{Title: "QUEUE ID", Whole: true, Min: 11}, {Title: "DELETED", Whole: true}, {Title: "BY", Weight: 1, Min: 4}, {Title: "ACCOUNT", Weight: 3, Min: 10},
		{Title: "RULE", Weight: 2, Min: 8}, {Title: "RCPTS", Right: true, Whole: true}, {Title: "SIZE", Right: true, Whole: true, Min: 6}}
	if roomy(page) {
		all = append(all, render.Column{Title: "FROM", Weight: 2})
	}
	return all
}

func deletedRow(page render.Page, now time.Time, m *desk.Deleted) []string {
	deleted, size := render.Ago(now, m.DeletedAt), render.Bytes(m.Size)
	if !page.Cut {
		deleted, size = when(page, m.DeletedAt), number(m.Size)
	}
	row := []string{m.QueueID, deleted, m.By, m.Account, m.Rule, number(m.Recipients), size}
	if roomy(page) {
		row = append(row, sender(m.MailFrom))
	}
	return row
}

// heldUndelete is held undelete.
type heldUndelete struct {
	bulk
	choose deletedFlags
	yes    bool
	reason string
}

func newHeldUndelete() *cobra.Command {
	u := &heldUndelete{bulk: bulk{verb: "undelete", what: "deleted", missing: errNoCopy}}
	cmd := &cobra.Command{
		Use:     "undelete [ID...]",
		Aliases: []string{"restore"},
		Short:   "bring deleted mail back",
		Long: strings.TrimSpace(`
Puts deleted mail back on hold, as it was, while there is still a copy of it
(hold.grace): what held delete and queue delete threw away. It gets new queue ids;
relayguard held release lets it go its way.

IDs are the queue ids that it had, or ids of decisions: relayguard held deleted lists
them. With flags in their place, what is given must all hold; everything needs --all.
More than one message that no ID names is asked about at a terminal, and elsewhere
needs --yes. --dry-run shows what would be restored.

New queue ids of messages that IDs name are listed, and of all with --json; so are
messages that are not restored. ^C ends it when the messages in hand are done, and
says how far it came; the same command again goes on with what is left, also after
whatever else cut it off. Nothing is restored twice.

Exit status: 0; 1 something was not restored, or there is no copy under an ID; 2
usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard held undelete 4ZJ1k82Vz1y --reason 'no spam after all'\n  relayguard held undelete --by root --deleted-since 1h --dry-run\n  relayguard held undelete --plugin share-by-mail@shop.example.jp --deleted-since 2026-03-02T09:00 --reason 'that was wrong'",
		RunE:    u.run,
	}
	u.choose.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&u.choose.all, "all", false, "everything of which there is a copy")
	flags.BoolVar(&u.dryRun, "dry-run", false, "only show what it would be")
	flags.BoolVar(&u.yes, "yes", false, "do not ask")
	flags.StringVar(&u.reason, "reason", "", "`text` for the journal")
	jsonFlag(cmd, &u.asJSON)
	return cmd
}

func (u *heldUndelete) run(cmd *cobra.Command, ids []string) error {
	filter, err := u.choose.filter(cmd, ids)
	narrow := narrows(filter.Filter) || !filter.Since.IsZero() || filter.By != ""
	switch {
	case err != nil:
		return err
	case len(ids) == 0 && !narrow && !filter.All:
		return usage(cmd, "nothing chooses among the deleted mail; name IDs (relayguard held deleted lists them), an account, a rule or a time, or say --all")
	case filter.All && (len(ids) > 0 || narrow):
		return usage(cmd, "--all goes with nothing else that chooses")
	}
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	order := desk.DeletedOrder{Filter: filter, Reason: u.reason}
	u.quiet = len(ids) == 0
	u.messages = func(page render.Page, w io.Writer) *render.Stream {
		return render.NewStream(w, page, heldColumns(page))
	}
	u.row = func(page render.Page, now time.Time, m *desk.Done) []string { return heldRow(page, now, &m.Held) }
	u.do = func(ctx context.Context, dryRun, tell bool, step func(desk.Step) error) error {
		o := order
		o.DryRun, o.Tell = dryRun, tell
		return h.ActOnDeleted(ctx, o, step)
	}
	if !u.dryRun && !u.yes && len(ids) == 0 {
		shown := time.Now()
		found, err := u.agree(cmd)
		if err != nil {
			return err
		}
		u.dryRun = !found // then it stays at nothing
		order.Filter.Filter = heldAsShown(order.Filter.Filter, slices.Clone(u.ids), shown, time.Now())
	}
	return u.bulk.run(cmd)
}

func errNoCopy(id string) error {
	return fmt.Errorf("there is no copy of a deleted message %s; relayguard held deleted lists what there is", id)
}
