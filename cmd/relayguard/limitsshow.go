package main

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/policy"
)

// limitsOf is how an account stands under every limit that is for it.
type limitsOf struct {
	Who        string     `json:"who"`
	Recipients int        `json:"recipients"` // of the message that was asked about
	Verdict    string     `json:"verdict"`    // what it would get now
	Rule       string     `json:"rule,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Limits     []standing `json:"limits"` // the last may be "bulk": an announced mailing under way
}

// standing is one limit of an account.
type standing struct {
	Limit   string        `json:"limit"`
	Key     string        `json:"key"`
	Per     string        `json:"per"`
	Counts  string        `json:"counts"`
	Kind    string        `json:"kind"`
	Then    string        `json:"then"`
	Scope   string        `json:"recipients"` // which of them count: all, outside, inside
	When    string        `json:"when,omitempty"`
	Source  string        `json:"source"` // where its windows come from
	Windows []windowShown `json:"windows"`
	Latched bool          `json:"latched,omitempty"`
	Waiting int           `json:"waiting,omitempty"` // held messages that wait for it
}

// windowShown is how one window stands.
type windowShown struct {
	Seconds float64   `json:"seconds"`
	Used    int64     `json:"used"`
	Count   int64     `json:"count"`
	Over    bool      `json:"over,omitempty"` // the message that was asked about does not fit
	Tells   bool      `json:"tells,omitempty"`
	FreeAt  time.Time `json:"free_at,omitzero"`
}

// askedRecipients is how many people the message is for that limits show asks
// about.
const askedRecipients = 10

func newLimitsShow() *cobra.Command {
	var asJSON bool
	recipients := askedRecipients
	cmd := &cobra.Command{
		Use:   "show [WHO]",
		Short: "show the limits in force, or how one account stands under them",
		Long: strings.TrimSpace(`
Shows the limits that the daemon goes by. Over a window marked with * nothing is
stopped in the phase that is in force: it only tells.

With WHO, shows each limit that is for it: where its windows come from (the
configuration, an override of the account, its domain or its customer, what it is
used to, probation), what was used, when it is free again or that it is shut, and what
a message to 10 people, all of them new to it, would get right now. WHO is a login, or
login:NAME, local_user:NAME, network:NAME, site:NAME, plugin:NAME@SITE, template:NAME.

Exit status: 0; 2 usage; 3 cannot tell.`),
		Example: "  relayguard limits show\n  relayguard limits show taro@example.jp\n  relayguard limits show plugin:share-by-mail@shop.example.jp\n  relayguard limits show local_user:www-data --recipients 1 --json",
		Args:    atMost("WHO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case recipients < 1:
				return usage(cmd, "--recipients: got %d, want at least 1", recipients)
			case len(args) == 1 && strings.TrimSpace(args[0]) == "":
				return usage(cmd, "WHO is empty")
			case len(args) == 1:
				return showLimitsOf(cmd, args[0], recipients, asJSON)
			}
			l, err := get[limitList](cmd, "/v1/limits", url.Values{"top": {"1"}})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return shown(render.JSON(out, l.Limits))
			}
			err = limitTable(l.Limits).Write(out, render.PageOf(out))
			if slices.ContainsFunc(l.Limits, func(one limitShown) bool { return len(one.Tells) > 0 }) {
				remark(cmd, "* in this phase nothing is stopped over it: it only tells")
			}
			if err == nil {
				err = showOverrides(cmd)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&recipients, "recipients", askedRecipients, "with WHO: of a message to so `many`")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func showLimitsOf(cmd *cobra.Command, who string, recipients int, asJSON bool) error {
	l, err := get[limitsOf](cmd, "/v1/limits/of", url.Values{"who": {who}, "recipients": {strconv.Itoa(recipients)}})
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if asJSON {
		return shown(render.JSON(out, l))
	}
	page := render.PageOf(out)
	if len(l.Limits) == 0 {
		remark(cmd, "no limit is for it")
	} else if err := standingTable(page, time.Now(), l.Limits).Write(out, page); err != nil {
		return shown(err)
	}
	return shown(writeStanding(out, page, &l))
}

// standingTable has a line for each window.
func standingTable(page render.Page, now time.Time, all []standing) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "LIMIT", Min: 12}, {Title: "COUNTS", Whole: true}, {Title: "WINDOW", Whole: true}, {Title: "USED", Right: true, Whole: true}, {Title: "OF", Right: true, Whole: true},
		{Title: "FREE AGAIN", Whole: true}, {Title: "FROM", Min: 10, Weight: 2}}}
	for _, s := range all {
		for i, w := range s.Windows {
			row := []string{"", "", secondsOf(w.Seconds), number(w.Used), number(w.Count), untilFree(page, now, s.Latched, w.FreeAt), ""}
			if w.Tells {
				row[4] += "*"
			}
			if i == 0 {
				row[0], row[1], row[6] = s.Limit, s.Counts, s.Source
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// untilFree is when a message fits again.
func untilFree(page render.Page, now time.Time, latched bool, at time.Time) string {
	switch {
	case latched:
		return "SHUT"
	case at.After(now) && page.Cut:
		return render.Ago(now, at)
	case at.After(now):
		return when(page, at)
	}
	return "now"
}

// writeStanding says what is not in the table.
func writeStanding(w io.Writer, page render.Page, l *limitsOf) error {
	var pairs []render.Pair
	add := func(label, text string) { pairs = append(pairs, render.Pair{Label: label, Text: text}) }
	for _, s := range l.Limits {
		text := ""
		switch {
		case s.When != "" && s.Scope != "all":
			text = fmt.Sprintf("counts %s recipients, when %s", s.Scope, s.When)
		case s.When != "":
			text = "when " + s.When
		case s.Scope != "all":
			text = fmt.Sprintf("counts %s recipients only", s.Scope)
		}
		if s.Waiting > 0 {
			text = strings.TrimPrefix(fmt.Sprintf("%s; %s held until there is room: relayguard held pace list", text, counted(s.Waiting, "message")), "; ")
		}
		if text != "" {
			add(s.Limit, text)
		}
	}
	verdict := fmt.Sprintf("a message to %s: %s", counted(int64(l.Recipients), "recipient"), l.Verdict)
	if l.Rule != "" {
		verdict += fmt.Sprintf(" (%s: %s)", l.Rule, l.Reason)
	}
	add("right now", verdict)
	return page.Pairs(w, pairs)
}

// showOverrides lists what was set and announced by command, if there is any.
func showOverrides(cmd *cobra.Command) error {
	kinds := []policy.SwitchKind{policy.Set, policy.Bulk}
	all, err := switchesOf(cmd, kinds...)
	if err != nil || len(all) == 0 {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout())
	return showKinds(cmd, kinds, all)
}
