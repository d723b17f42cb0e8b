package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/render"
	"relayguard/journal"
)

func newJournal() *cobra.Command {
	return group("journal", "who did what, and forget an account", `
The journal keeps what was decided, held and ordered. relayguard decisions and
relayguard explain search it; here is what is left.`,
		newJournalActions(), newJournalPurge())
}

func newJournalActions() *cobra.Command {
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "actions",
		Short: "list who did what",
		Long: strings.TrimSpace(`
Lists what admins did: released, deleted, looked at, suspended, stopped; the newest
first. BY is the account that asked, by the kernel's word, and in brackets who it
was before sudo.

While the daemon is dead root reads the journal itself.

Exit status: 0; 2 usage; 3 cannot tell.`),
		Example: "  relayguard journal actions --limit 20",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > journal.MaxLimit {
				return usage(cmd, "--limit: got %d, want 1 to %d", limit, journal.MaxLimit)
			}
			all, err := look(cmd, func(c *control.Client) (all []action, err error) {
				err = c.Get(cmd.Context(), "/v1/actions", url.Values{"limit": {strconv.Itoa(limit)}}, &all)
				return all, err
			}, func(r *journal.Reader) ([]action, error) {
				found, err := r.AdminActions(cmd.Context(), limit)
				return shownActions(found), err
			})
			if err != nil {
				return err
			}
			out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
			switch {
			case asJSON:
				err = render.JSON(out, append([]action{}, all...))
			case len(all) == 0:
				remark(cmd, "nobody did anything yet")
			default:
				err = actionTable(page, all).Write(out, page)
			}
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&limit, "limit", journal.DefaultLimit, "at most so many")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func shownActions(all []journal.AdminAction) []action {
	out := make([]action, len(all))
	for i, a := range all {
		out[i] = action{a.Time, a.By, a.UID, a.LoginUID, a.Verb, a.Target, a.Reason, a.Outcome}
	}
	return out
}

func actionTable(page render.Page, all []action) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "TIME", Whole: true}, {Title: "BY", Min: 6}, {Title: "WHAT", Min: 12, Weight: 2}, {Title: "TARGET", Min: 12, Weight: 2}, wrapped("REASON")}}
	if roomy(page) {
		t.Columns = append(t.Columns, wrapped("OUTCOME"))
	}
	for _, a := range all {
		t.Rows = append(t.Rows, []string{when(page, a.Time), a.By, a.Verb, a.Target, a.Reason, a.Outcome})
	}
	return t
}

func newJournalPurge() *cobra.Command {
	var account, reason string
	var yes, reports bool
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "forget what an account sent",
		Long: strings.TrimSpace(`
Deletes what the journal knows of an account: decisions, holds and incidents that
are over, totals; whom it wrote to; and every database that was put aside as broken.
It cannot be taken back.

What stays: what is held, with its reason, and open incidents, until they are over
and somebody purges again; what admins did, with the account they named, and that
somebody purged, whom and why; decisions about the mail of others that bears its
address; what it has used of its limits, until relayguard limits reset; the MTA's
logs and the system's.

Kept daily reports name accounts, too. They stay, and it says how many name this one;
with --reports those are removed as a whole, of their days.

It asks at a terminal, and elsewhere needs --yes.

Exit status: 0; 1 nothing was done; 2 usage; 3 it did not work, or not allowed.`),
		Example: "  relayguard journal purge --account taro@example.jp --reason 'left the company, asked for it'\n  relayguard journal purge --account taro@example.jp --reason 'asked for it' --reports --yes",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "account", account, "name the account that is forgotten"); err != nil {
				return err
			}
			if err := needed(cmd, "reason", reason, "say why; that is kept"); err != nil {
				return err
			}
			name := accountOf(account)
			if !yes {
				if err := confirm(cmd, fmt.Sprintf("forget what %s sent", name)); err != nil {
					return err
				}
			}
			if _, err := post[nothing](cmd, "/v1/journal/purge", purgeOrder{Account: name, Reason: reason}); err != nil {
				return err
			}
			remark(cmd, "forgotten: what %s sent until %s", name, time.Now().Format(time.DateTime))
			return purgeReports(cmd, name, reason, reports)
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "`account`: login:NAME, local_user:NAME, network:NAME or unknown")
	cmd.Flags().StringVar(&reason, "reason", "", "why: `text` for the journal")
	cmd.Flags().BoolVar(&reports, "reports", false, "also remove kept daily reports that name it")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// purgeReports removes the kept reports that name an account, or says how many do.
func purgeReports(cmd *cobra.Command, account, reason string, remove bool) error {
	if remove {
		days, err := post[[]string](cmd, "/v1/report/forget", forgetOrder{Account: account, Reason: reason})
		if err != nil {
			return err
		}
		remark(cmd, "%s that named it: removed", counted(len(days), "kept report"))
		return nil
	}
	client, _, err := asker(cmd)
	if err != nil {
		return err
	}
	var days []string
	if err := client.Get(cmd.Context(), "/v1/report/naming", url.Values{"account": {account}}, &days); err != nil {
		remark(cmd, "whether kept reports name it is not known: %v", &escapedError{err})
	} else if len(days) > 0 {
		remark(cmd, "%s it, the newest of %s; --reports removes them", counted(len(days), "kept report")+map[bool]string{true: " names", false: " name"}[len(days) == 1], days[0])
	}
	return nil
}
