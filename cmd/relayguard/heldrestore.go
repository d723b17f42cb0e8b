package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

func newHeldDeleted() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "deleted",
		Short: "list deleted mail that can be restored",
		Long: strings.TrimSpace(`
Lists deleted mail of which there is still a copy (hold.grace), the longest deleted
first; relayguard held undelete brings it back.

Exit status: 0, also if there is none; 2 usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard held deleted",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := reach(cmd)
			if err != nil {
				return err
			}
			defer h.Close()
			all, err := h.Deleted(cmd.Context())
			if err != nil {
				return answerOf(err)
			}
			out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
			if asJSON {
				err = render.JSON(out, all)
			} else {
				err = deletedTable(page, time.Now(), all).Write(out, page)
				remark(cmd, "%s can be restored", counted(len(all), "message"))
			}
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func deletedTable(page render.Page, now time.Time, all []desk.Deleted) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "QUEUE ID", Whole: true}, {Title: "DELETED", Whole: true}, {Title: "BY", Weight: 1, Min: 4}, {Title: "ACCOUNT", Weight: 3, Min: 10},
		{Title: "RULE", Weight: 2, Min: 8}, {Title: "RCPTS", Right: true, Whole: true}, {Title: "SIZE", Right: true, Whole: true}}}
	if roomy(page) {
		t.Columns = append(t.Columns, render.Column{Title: "FROM", Weight: 2})
	}
	for _, m := range all {
		deleted, size := render.Ago(now, m.DeletedAt), render.Bytes(m.Size)
		if !page.Cut {
			deleted, size = when(page, m.DeletedAt), number(m.Size)
		}
		row := []string{m.QueueID, deleted, m.By, m.Account, m.Rule, number(m.Recipients), size}
		if roomy(page) {
			row = append(row, sender(m.MailFrom))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func newHeldUndelete() *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "undelete ID...",
		Aliases: []string{"restore"},
		Short:   "bring deleted mail back",
		Long: strings.TrimSpace(`
Puts deleted mail back on hold, as it was, while there is still a copy of it
(hold.grace): what held delete and queue delete threw away. IDs are the queue ids that
it had, or ids of decisions: relayguard held deleted lists them. It gets a new queue
id, which is told; relayguard held release lets it go its way.

Exit status: 0; 1 something was not restored, or there is no copy under an ID; 2
usage; 3 cannot tell, or not allowed.`),
		Example: "  relayguard held undelete 4ZJ1k82Vz1y --reason 'no spam after all'",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if len(ids) == 0 || slices.Contains(ids, "") {
				return usage(cmd, "ID is missing; relayguard held deleted lists them")
			}
			h, err := reach(cmd)
			if err != nil {
				return err
			}
			defer h.Close()
			r, err := h.Restore(cmd.Context(), desk.Restoration{IDs: ids, Reason: reason})
			if err != nil {
				return answerOf(err)
			}
			return tellRestored(cmd, &r, asJSON)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// tellRestored prints what became of it, and says by its error whether all of it
// is back.
func tellRestored(cmd *cobra.Command, r *desk.Report, asJSON bool) error {
	out := cmd.OutOrStdout()
	var err error
	if asJSON {
		err = render.JSON(out, r)
	} else {
		t := unusual(render.PageOf(out).Headings(out), out)
		for i := range r.Messages {
			_ = t.message(&r.Messages[i]) // the end has its error, too
		}
		err = t.rows.Close()
		remark(cmd, "%s on hold again", counted(r.Counts["done"], "message"))
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	var missing []error
	for _, id := range r.Unknown {
		missing = append(missing, fmt.Errorf("there is no copy of a deleted message %s; relayguard held deleted lists what there is", id))
	}
	if err := errors.Join(missing...); err != nil {
		return &exitError{exitFinding, &escapedError{err}}
	}
	if r.Counts["done"] < len(r.Messages) {
		return &exitError{code: exitFinding}
	}
	return nil
}
