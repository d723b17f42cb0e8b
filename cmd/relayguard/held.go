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
	"relayguard/journal"
)

func newHeld() *cobra.Command {
	return group("held", "list, look at, release, delete and undelete held mail", `
Held mail waits in the MTA's own queue: on hold, or in quarantine. These commands
find it by id or by whatever it is known by, and touch only what relayguard held: what others put on
hold is listed as such and left alone.

While the daemon is dead root does all of this without it.`,
		newHeldList(), newHeldShow(),
		newHeldAct("release", "let held mail go its way", `
Releases held mail: it is delivered, past every limit, for an admin wants it so.
What is near the end of the MTA's patience is queued anew; on Postfix it gets
another queue id, which is told.`),
		newHeldAct("delete", "delete held mail", `
Deletes held mail. A copy of each stays in a folder of root's alone, for as long
as hold.grace says; relayguard held undelete brings it back. Where there is no room
for copies nothing is deleted but with --no-copy: that is for good.
Nobody is told: senders do not get it back.`),
		newHeldDeleted(), newHeldUndelete(), newHeldPace())
}

// heldFlags choose among held mail.
type heldFlags struct {
	account, login, localUser, rule, from string
	site, plugin, template                string
	olderThan, newerThan                  span
	all                                   bool
	limit                                 int
}

func (f *heldFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.account, "account", "", "of this `account`: login:NAME, local_user:NAME, network:NAME or unknown; or of site:NAME, plugin:NAME@SITE, plugin:NAME, template:NAME")
	flags.StringVar(&f.login, "login", "", "of this SASL `login`")
	flags.StringVar(&f.localUser, "local-user", "", "of this Unix `account`")
	flags.StringVar(&f.rule, "rule", "", "held by this `rule`")
	flags.StringVar(&f.site, "site", "", "of this web `site`")
	flags.StringVar(&f.plugin, "plugin", "", "of this plugin: `NAME or NAME@SITE`")
	flags.StringVar(&f.template, "template", "", "that looks like this `text`, as incidents name it")
	flags.StringVar(&f.from, "from", "", "with this envelope sender's `address`; '<>' is the null sender")
	flags.Var(&f.olderThan, "older-than", "held for longer than this `time`: 90m, 2h, 3d")
	flags.Var(&f.newerThan, "newer-than", "held for less than this `time`")
	flags.IntVar(&f.limit, "limit", 0, "at most so many, the ones held longest")
}

// filter is what was chosen; ids are arguments.
func (f *heldFlags) filter(cmd *cobra.Command, ids []string) (desk.Filter, error) {
	switch {
	case cmd.Flags().Changed("limit") && (f.limit < 1 || f.limit > journal.MaxLimit):
		return desk.Filter{}, usage(cmd, "--limit: got %d, want 1 to %d", f.limit, journal.MaxLimit)
	case cmd.Flags().Changed("from") && f.from == "":
		return desk.Filter{}, usage(cmd, "--from is empty; the null sender is --from '<>'")
	case f.olderThan != 0 && f.newerThan != 0 && f.newerThan <= f.olderThan:
		return desk.Filter{}, usage(cmd, "--newer-than %v leaves nothing of --older-than %v", f.newerThan.String(), f.olderThan.String())
	case slices.Contains(ids, ""):
		return desk.Filter{}, usage(cmd, "an ID is empty")
	}
	site, plugin, err := siteAndPlugin(cmd, f.site, f.plugin)
	if err != nil {
		return desk.Filter{}, err
	}
	return desk.Filter{IDs: ids, Site: site, Plugin: plugin, Template: strings.TrimPrefix(f.template, "template:"), Account: accountOf(f.account), Login: strings.ToLower(f.login), LocalUser: f.localUser, Rule: f.rule, MailFrom: f.from,
		OlderThan: time.Duration(f.olderThan), NewerThan: time.Duration(f.newerThan), All: f.all, Limit: f.limit}, nil
}

// narrows reports whether anything but ids chooses.
func narrows(f desk.Filter) bool {
	return f.Account != "" || f.Login != "" || f.LocalUser != "" || f.Rule != "" || f.Site != "" || f.Plugin != "" || f.Template != "" || f.MailFrom != "" || f.OlderThan != 0 || f.NewerThan != 0
}

func newHeldList() *cobra.Command {
	var f heldFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [ID...]",
		Short: "list held mail",
		Long: strings.TrimSpace(`
Lists held mail, the oldest first, as it is found. IDs are queue ids or ids of
decisions. What is given must all hold. Without any, what others put on hold is
listed, too, as held by other. In JSON the list is written as it comes, the totals
last: an object without them is cut short. messages and bytes are of what relayguard
and admins hold in this list; more: --limit ended it, and there are others; foreign:
all that others hold.

Exit status: 0, also if nothing is held; 2 usage; 3 cannot tell, or the queue could
not be looked at: then the list is what the journal says.`),
		Example: "  relayguard held list\n  relayguard held list --login taro@example.jp --older-than 2h\n  relayguard held list --json | jq -r '.held[].queue_id'",
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
			return heldList(cmd, h, filter, asJSON)
		},
	}
	f.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// byOther is how desk calls those who are not the guard.
const byOther = "other"

// heldList writes held mail as it comes.
func heldList(cmd *cobra.Command, h queueHands, f desk.Filter, asJSON bool) error {
	ctx, cancel := context.WithCancel(cmd.Context()) // a reader that has enough ends it
	defer cancel()
	var last *desk.HeldEnd
	var writing error
	others := 0
	write, end := heldWriter(cmd.OutOrStdout(), asJSON)
	err := h.ListHeld(ctx, f, func(l desk.HeldLine) error {
		switch {
		case l.Message != nil:
			if l.Message.HeldBy == byOther {
				others++
			}
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
		writing = end(last)
	}
	switch {
	case writing != nil:
		return wroteAll(writing)
	case err != nil:
		return cutShort(cmd, err)
	}
	tellTotals(cmd, last, others)
	if last.Stale != "" {
		return &exitError{code: exitCannotTell}
	}
	return nil
}

// heldWriter writes held messages in one form; end is nil after a list that was
// cut short.
func heldWriter(w io.Writer, asJSON bool) (write func(*desk.Held) error, end func(*desk.HeldEnd) error) {
	if asJSON {
		list := render.NewJSONList(w, "held")
		return func(h *desk.Held) error { return list.Add(h) }, func(e *desk.HeldEnd) error {
			if e == nil {
				return list.Flush()
			}
			return list.End(e)
		}
	}
	page, now := render.PageOf(w).Headings(w), time.Now()
	rows := render.NewStream(w, page, heldColumns(page))
	return func(h *desk.Held) error { return rows.Row(heldRow(page, now, h)...) }, func(*desk.HeldEnd) error { return rows.Close() }
}

func tellTotals(cmd *cobra.Command, e *desk.HeldEnd, others int) {
	line := fmt.Sprintf("%s (%s) held by relayguard", counted(e.Messages, "message"), render.Bytes(e.Bytes))
	if e.More {
		line += "; there are more, --limit ended the list"
	}
	if e.Foreign > 0 {
		line += fmt.Sprintf(", %d by others", e.Foreign)
		if others < e.Foreign {
			line += fmt.Sprintf(" (%d of them listed)", others)
		}
	}
	remark(cmd, "%s", line)
	if e.Stale != "" {
		remark(cmd, "the queue could not be looked at (%s); this is what the journal says; last looked at: %s", e.Stale, shortTime(time.Now(), e.Looked))
	} else if e.Older {
		remark(cmd, "a look at the queue takes long, so this is what the journal says; last looked at: %s", shortTime(time.Now(), e.Looked))
	}
}

// heldColumns are those of a line for each message. On a narrow page there is no
// room for senders beside account and rule.
func heldColumns(page render.Page) []render.Column {
	all := []render.Column{{Title: "QUEUE ID", Whole: true, Min: 11}, {Title: "HELD", Whole: true, Min: 3}, {Title: "ACCOUNT", Weight: 3, Min: 10}, {Title: "RULE", Weight: 2, Min: 8},
		{Title: "RCPTS", Right: true, Whole: true}, {Title: "SIZE", Right: true, Whole: true, Min: 6}, {Title: "STATE", Whole: true}}
	if !page.Cut {
		all = append(all, render.Column{Title: "HELD BY", Whole: true})
	}
	if roomy(page) {
		all = append(all, render.Column{Title: "ID", Whole: true, Min: 13}, render.Column{Title: "FROM", Weight: 2})
	}
	return all
}

func heldRow(page render.Page, now time.Time, h *desk.Held) []string {
	if !page.Cut {
		return []string{h.QueueID, when(page, h.HeldAt), h.Account, h.Rule, number(h.Recipients), number(h.Size), h.State, h.HeldBy, h.ID, sender(h.MailFrom)}
	}
	state := h.State
	if h.HeldBy != "" && h.HeldBy != "relayguard" {
		state = "by " + h.HeldBy
	}
	row := []string{h.QueueID, render.Ago(now, h.HeldAt), h.Account, h.Rule, number(h.Recipients), render.Bytes(h.Size), state}
	if roomy(page) {
		row = append(row, h.ID, sender(h.MailFrom))
	}
	return row
}

// writeHeld tells of one held message, without its content.
func writeHeld(w io.Writer, page render.Page, now time.Time, h *desk.Held) error {
	l := pairList{}
	l.add("queue id", "%s", h.QueueID)
	l.known("decision", h.ID)
	l.add("account", "%s", h.Account)
	l.known("site", h.Site)
	l.known("plugin", h.Plugin)
	l.known("template", h.Template)
	l.known("rule", h.Rule)
	l.known("why", h.Reason)
	l.add("held", "since %s, by %s", shortTime(now, h.HeldAt), h.HeldBy)
	if !h.Arrival.IsZero() {
		l.add("arrived", "%s", shortTime(now, h.Arrival))
	}
	if h.State != string(journal.StateHeld) {
		l.add("state", "%s, by %s %s", h.State, h.By, h.Why)
	}
	l.add("mail from", "%s", sender(h.MailFrom))
	to := counted(h.Recipients, "recipient")
	if len(h.Domains) > 0 {
		to += ": " + domainList(h.Domains)
	}
	l.add("to", "%s", to)
	l.add("size", "%s", render.Bytes(h.Size))
	return page.Pairs(w, l)
}
