package main

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/render"
)

func newLimits() *cobra.Command {
	return group("limits", "show and change the limits, and who is near them", `
What a sender may send is in the sections [[limit]] of the configuration; without
any there are those that limits defaults prints. limits set gives one account, domain
or customer other windows, relayguard allow bulk room for one announced mailing.`,
		newLimitsList(), newLimitsShow(), newLimitsSet(), newLimitsUnset(), newLimitsReset(), newLimitsDefaults(), newLimitsExport(), newLimitsImport())
}

func newLimitsList() *cobra.Command {
	var account, name string
	var top int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list the fullest budgets, or those of an account",
		Long: strings.TrimSpace(`
Lists what was used of each window of each limit, the fullest first, 200 of them or
as many as --top says. FREE AGAIN is when a message to one recipient fits; a shut
limit waits for relayguard resume. OF is what is in force for that budget: what was
set for it, half of it on probation.

Beside accounts there are budgets of machine:ADDRESS, sender_domain:DOMAIN, server
and whatever else limits count by.

Exit status: 0; 2 usage; 3 cannot tell.`),
		Example: "  relayguard limits list --top 10\n  relayguard limits list --account taro@example.jp\n  relayguard limits list --limit login-volume",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("top") && (top < 1 || top > maxShown) {
				return usage(cmd, "--top: got %d, want 1 to %d", top, maxShown)
			}
			query := url.Values{}
			for flag, value := range map[string]string{"account": account, "limit": name} {
				if value != "" {
					query.Set(flag, value)
				}
			}
			if top > 0 {
				query.Set("top", strconv.Itoa(top))
			}
			l, err := get[limitList](cmd, "/v1/limits", query)
			if err != nil {
				return err
			}
			if l.Away {
				remark(cmd, "Redis is away: these are this relay's own budgets")
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				err = render.JSON(out, l)
			case len(l.Buckets) == 0:
				remark(cmd, "nothing is used of any limit")
			default:
				err = bucketTable(render.PageOf(out), time.Now(), l.Buckets).Write(out, render.PageOf(out))
			}
			return shown(err)
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "of this `account`: login:NAME, local_user:NAME or network:NAME; or of machine:ADDRESS, sender_domain:DOMAIN, server")
	cmd.Flags().StringVar(&name, "limit", "", "of this `limit`")
	cmd.Flags().IntVar(&top, "top", 0, "the fullest so `many`")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// shown is what became of showing it.
func shown(err error) error {
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	return nil
}

func bucketTable(page render.Page, now time.Time, all []bucketShown) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "LIMIT", Min: 12}, {Title: "WHOSE", Min: 12, Weight: 2}, {Title: "WINDOW", Whole: true}, {Title: "USED", Right: true, Whole: true},
		{Title: "OF", Right: true, Whole: true}, {Title: "FREE AGAIN", Whole: true}}}
	for _, b := range all {
		t.Rows = append(t.Rows, []string{b.Limit, b.Key, secondsOf(b.Window), number(b.Used), number(b.Count), untilFree(page, now, b.Latched, b.FreeAt)})
	}
	return t
}

func limitTable(all []limitShown) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "NAME", Min: 12}, {Title: "PER", Whole: true}, {Title: "COUNTS", Whole: true}, {Title: "WINDOWS", Min: 16}, {Title: "BURST", Whole: true}, {Title: "KIND", Whole: true}, {Title: "THEN", Whole: true}}}
	for _, l := range all {
		then := l.Then
		if l.Observe {
			then += " (observe)"
		}
		windows := make([]string, len(l.Windows))
		for i, w := range l.Windows {
			windows[i] = l.marked(w)
		}
		t.Rows = append(t.Rows, []string{l.Name, l.Per, l.Counts, strings.Join(windows, ","), l.marked(l.Burst), l.Kind, then})
	}
	return t
}

// marked is a window, and whether it only tells.
func (l *limitShown) marked(window string) string {
	if window != "" && slices.Contains(l.Tells, window) {
		return window + "*"
	}
	return window
}

func newLimitsDefaults() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "defaults",
		Short: "print the limits of a fresh install",
		Long: strings.TrimSpace(`
Prints the limits that are in force where the configuration names none, as the
configuration writes them. To change one, put them all into it: with one section
[[limit]] there are only those that are named.`),
		Example: "  relayguard limits defaults >> /etc/relayguard/relayguard.toml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limits := config.Default().Limits
			var err error
			if asJSON {
				all := make([]limitShown, len(limits))
				for i := range limits {
					all[i] = shownLimit(&limits[i])
				}
				err = render.JSON(cmd.OutOrStdout(), all)
			} else {
				_, err = fmt.Fprint(cmd.OutOrStdout(), config.LimitsTOML(limits))
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
