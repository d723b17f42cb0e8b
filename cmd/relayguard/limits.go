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
	return group("limits", "show the limits, and who is near them", `
What a sender may send is in the sections [[limit]] of the configuration; without
any there are those that limits defaults prints. relayguard allow frees one account
of one of them for a time.`,
		newLimitsList(), newLimitsShow(), newLimitsDefaults())
}

func newLimitsList() *cobra.Command {
	var account string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list the fullest budgets, or those of an account",
		Long: strings.TrimSpace(`
Lists what was used of each window of each limit, the fullest first, at most 200.
FREE AGAIN is when the next message fits; a shut one waits for relayguard resume.
An account on probation has half of each limit, which is what is shown then. Beside
accounts there are budgets of machine:ADDRESS, sender_domain:DOMAIN and server.

Exit status: 0; 2 usage; 3 cannot tell.`),
		Example: "  relayguard limits list\n  relayguard limits list --account taro@example.jp",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if account != "" {
				query.Set("account", account)
			}
			l, err := get[limitList](cmd, "/v1/limits", query)
			if err != nil {
				return err
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
			if err != nil {
				return &exitError{exitCannotTell, err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "of this `account`: login:NAME, local_user:NAME or network:NAME; or of machine:ADDRESS, sender_domain:DOMAIN, server")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func bucketTable(page render.Page, now time.Time, all []bucketShown) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "LIMIT", Min: 12}, {Title: "WHOSE", Min: 12, Weight: 2}, {Title: "WINDOW", Whole: true}, {Title: "USED", Right: true, Whole: true},
		{Title: "OF", Right: true, Whole: true}, {Title: "FREE AGAIN", Whole: true}}}
	for _, b := range all {
		free := "now"
		switch {
		case b.Latched:
			free = "SHUT"
		case b.FreeAt.After(now) && page.Cut:
			free = render.Ago(now, b.FreeAt)
		case b.FreeAt.After(now):
			free = when(page, b.FreeAt)
		}
		t.Rows = append(t.Rows, []string{b.Limit, b.Key, secondsOf(b.Window), number(b.Used), number(b.Count), free})
	}
	return t
}

func newLimitsShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "show the limits in force",
		Long:    "Shows the limits that the daemon goes by. Over a window marked with\n* nothing is stopped in the phase that is in force: it only tells.\n\nExit status: 0; 2 usage; 3 cannot tell.",
		Example: "  relayguard limits show",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := get[limitList](cmd, "/v1/limits", nil)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				err = render.JSON(out, l.Limits)
			} else {
				err = limitTable(l.Limits).Write(out, render.PageOf(out))
				if slices.ContainsFunc(l.Limits, func(one limitShown) bool { return len(one.Tells) > 0 }) {
					remark(cmd, "* in this phase nothing is stopped over it: it only tells")
				}
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
				_, err = fmt.Fprint(cmd.OutOrStdout(), limitsTOML(limits))
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

// limitsTOML writes limits as the configuration has them.
func limitsTOML(all []config.Limit) string {
	var b strings.Builder
	for i, l := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		windows := make([]string, len(l.Windows))
		for j, w := range l.Windows {
			windows[j] = strconv.Quote(w.String())
		}
		fmt.Fprintf(&b, "[[limit]]\nname = %q\nper = %q\nwindows = [%s]\n", l.Name, l.Per, strings.Join(windows, ", "))
		if l.Burst != (config.Window{}) {
			fmt.Fprintf(&b, "burst = %q\n", l.Burst)
		}
		fmt.Fprintf(&b, "counts = %q\nkind = %q\nthen = %q\nobserve = %t\n", l.Counts, l.Kind, l.Then, l.Observe)
	}
	return b.String()
}
