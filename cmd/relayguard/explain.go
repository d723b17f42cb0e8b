package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
	"relayguard/journal"
	"relayguard/policy"
)

func newExplain() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain ID",
		Short: "say why something was decided, and what became of it",
		Long: strings.TrimSpace(`
Says all that is known of a decision or a message: what was decided, by which
rule and why; who sent it, and how surely that is known; how each limit stood at
that moment, and when it is free again; what the client was told; what became of
the mail, and what to type next.

ID is that of a decision, as replies, the log and alerts have it, or a queue id
of the MTA. Queue ids are used again: of several messages the newest comes
first.

While the daemon is dead root reads the journal itself.

Exit status: 0; 3 nothing is known under the ID. That says little: rows about
accepted mail are left out under load, and go when their time is over.`),
		Example: "  relayguard explain 0d5kqw3m8x7ya\n  relayguard explain 4ZJ1k82Vz1y --json",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return explain(cmd, args[0], asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func explain(cmd *cobra.Command, id string, asJSON bool) error {
	if id == "" {
		return usage(cmd, "ID is empty")
	}
	all, err := look(cmd, func(c *control.Client) (all []desk.Explanation, err error) {
		err = c.Get(cmd.Context(), "/v1/explain/"+url.PathEscape(id), nil, &all)
		return all, err
	}, func(r *journal.Reader) ([]desk.Explanation, error) {
		return readerDesk(r).Explain(context.WithoutCancel(cmd.Context()), time.Now(), id)
	})
	if err != nil {
		return err
	}
	out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
	if asJSON {
		if err := render.JSON(out, all); err != nil {
			return &exitError{exitCannotTell, err}
		}
	}
	if len(all) == 0 {
		return &exitError{exitCannotTell, &escapedError{fmt.Errorf("nothing is known under %s: of accepted mail rows may have been left out under load (relayguard status counts them), and all go when their time is over", id)}}
	}
	if asJSON {
		return nil
	}
	if len(all) > 1 {
		remark(cmd, "%s of the name %s, the newest first", counted(len(all), "message"), id)
	}
	var b bytes.Buffer
	for i := range all {
		if i > 0 {
			b.WriteString("\n" + strings.Repeat("-", 40) + "\n\n")
		}
		if err := writeExplanation(&b, page, time.Now(), &all[i]); err != nil {
			return &exitError{exitCannotTell, err}
		}
	}
	if _, err := out.Write(b.Bytes()); err != nil {
		return &exitError{exitCannotTell, err}
	}
	return nil
}

// pairList collects labelled values and leaves out what is not known.
type pairList []render.Pair

func (l *pairList) add(label, format string, args ...any) {
	*l = append(*l, render.Pair{Label: label, Text: fmt.Sprintf(format, args...)})
}

func (l *pairList) known(label, text string) {
	if text != "" {
		*l = append(*l, render.Pair{Label: label, Text: text})
	}
}

func writeExplanation(b *bytes.Buffer, page render.Page, now time.Time, e *desk.Explanation) error {
	var l pairList
	d := e.Decision
	if d == nil {
		l.add("decision", "none is known; the hold below is")
	} else {
		l.decided(now, d)
		l.who(d)
		l.mail(d)
	}
	if s := e.Suspended; s != nil {
		l.add("suspended", "the account is now, %s, by %s: %s", untilWhen(now, s.Until, "until it is resumed"), s.By, s.Reason)
	}
	l.delivered(e)
	if err := page.Pairs(b, l); err != nil {
		return err
	}
	if d != nil {
		if err := writeLimits(b, page, now, d.Limits); err != nil {
			return err
		}
	}
	for i := range e.Held {
		b.WriteByte('\n')
		h := e.Held[i]
		if d != nil && h.Rule == d.Rule && h.Reason == d.Reason { // it stands above
			h.Rule, h.Reason = "", ""
		}
		if err := writeHold(b, page, now, &h); err != nil {
			return err
		}
	}
	return nil
}

// decided is what happened, when, by which rule and why.
func (l *pairList) decided(now time.Time, d *desk.Decision) {
	l.add("id", "%s", d.ID)
	verdict := d.Verdict
	if verdict == policy.Tell.String() {
		verdict += " (it passed; it would have been stopped where all rules act)"
	}
	switch d.Stage {
	case journal.StageRecipient:
		verdict += ", answered to a recipient"
	case journal.StageCall:
		verdict += ", answered to the sendmail wrapper before the MTA had it"
	}
	l.add("verdict", "%s", verdict)
	l.add("when", "%s, in phase %s", shortTime(now, d.Time), d.Phase)
	l.known("rule", d.Rule)
	l.known("why", d.Reason)
	for _, f := range d.Findings {
		if f.Rule != d.Rule || f.Reason != d.Reason {
			l.add("also found", "%s (asks for %s): %s", f.Rule, f.Verdict, f.Reason)
		}
	}
	l.known("reply", d.Reply)
	if d.Late {
		l.add("late", "it was decided too late: the MTA was told milter.on_timeout instead")
	}
	if d.Repeats > 0 {
		l.add("repeats", "%s answered with this id since, the last %s", counted(d.Repeats, "further refusal"), shortTime(now, d.LastRepeat))
	}
}

// who is who sent it, and how surely that is known.
func (l *pairList) who(d *desk.Decision) {
	sure := ""
	if d.Confidence != "" {
		sure = " (known by: " + d.Confidence + ")"
	}
	l.add("account", "%s%s", d.Account, sure)
	if d.Login != "" {
		by := ""
		if d.LoginBy != "" {
			by = ", proven by " + d.LoginBy
		}
		l.add("login", "%s%s", d.Login, by)
	}
	if d.UID != nil {
		l.add("local user", "%s, uid %d", d.LocalUser, *d.UID)
	} else {
		l.known("local user", d.LocalUser)
	}
	l.known("network", d.Network)
	l.known("node", d.Node)
	l.knownBy("site", d.Site, d.SiteBy)
	l.knownBy("plugin", d.Plugin, d.PluginBy)
	l.known("entry", d.Entry)
	l.known("script", d.Script)
	l.known("web client", d.WebClient)
	l.known("pool", d.Pool)
	l.known("looks like", d.Software)
	l.known("template", d.Template)
	var client []string
	name := d.ClientName
	if name == "unknown" || name == "["+d.ClientIP+"]" { // the MTA's words for none
		name = ""
	}
	for _, part := range []struct{ label, text string }{{"", d.ClientIP}, {"name ", name}, {"said HELO ", d.Helo}} {
		if part.text != "" {
			client = append(client, part.label+part.text)
		}
	}
	l.known("client", strings.Join(client, ", "))
	l.add("listener", "%s (role %s)", d.Listener, d.Role)
}

// knownBy is known, with how surely it is.
func (l *pairList) knownBy(label, text, by string) {
	if text != "" && by != "" {
		text += " (known by: " + by + ")"
	}
	l.known(label, text)
}

// mail is what is known of the message.
func (l *pairList) mail(d *desk.Decision) {
	l.add("mail from", "%s", sender(d.MailFrom))
	l.known("from", d.HeaderFrom)
	l.known("message-id", d.MessageID)
	l.known("queue id", d.QueueID)
	to := counted(d.Recipients, "recipient")
	if len(d.Domains) > 0 {
		to += ": " + domainList(d.Domains)
	}
	l.add("to", "%s", to)
	if d.Size > 0 {
		l.add("size", "%s", render.Bytes(d.Size))
	}
}

// delivered is what the MTA's log says of recipients.
func (l *pairList) delivered(e *desk.Explanation) {
	var parts []string
	for _, status := range []string{"sent", "deferred", "bounced", "expired"} {
		if n := e.Delivered[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	if len(parts) > 0 {
		l.add("deliveries", "%s, by the MTA's log", strings.Join(parts, ", "))
	}
}

// writeLimits has a line for each window of each limit.
func writeLimits(b *bytes.Buffer, page render.Page, now time.Time, all []desk.Counter) error {
	if len(all) == 0 {
		return nil
	}
	b.WriteString("\nlimits, as they stood before it:\n")
	t := &render.Table{Columns: []render.Column{{Title: "LIMIT", Min: 12}, {Title: "KEY", Min: 10}, {Title: "WINDOW", Whole: true}, {Title: "USED", Right: true, Whole: true},
		{Title: "IT TAKES", Right: true, Whole: true}, {Title: "STATE", Whole: true}, {Title: "FREE", Whole: true}}}
	for _, c := range all {
		state, free := "fits", ""
		switch {
		case c.Latched:
			state, free = "SHUT", "when resumed"
		case c.Over && c.Soft:
			state, free = "over, tells", freeAgain(page, now, c.FreeAt)
		case c.Over:
			state, free = "OVER", freeAgain(page, now, c.FreeAt)
		}
		t.Rows = append(t.Rows, []string{c.Limit, c.Key, secondsOf(c.Window), fmt.Sprintf("%d/%d", c.Used, c.Count), fmt.Sprintf("+%d %s", c.Amount, shortUnit(c.Unit)), state, free})
	}
	return t.Write(b, page)
}

func shortUnit(unit string) string {
	switch unit {
	case "recipients":
		return "rcpt"
	case "messages":
		return "msg"
	}
	return unit
}

// freeAgain is when what did not fit fits.
func freeAgain(page render.Page, now, at time.Time) string {
	switch {
	case at.IsZero():
		return "never: too many"
	case !at.After(now):
		return "by now"
	case page.Cut:
		return render.Ago(now, at)
	}
	return when(page, at)
}

// writeHold tells of a held message, and what can be done about it.
func writeHold(b *bytes.Buffer, page render.Page, now time.Time, h *desk.Held) error {
	l := pairList{{Label: "held", Text: fmt.Sprintf("as %s, %s", h.QueueID, shortTime(now, h.HeldAt))}}
	l.known("held for", strings.TrimPrefix(strings.Join([]string{h.Rule, h.Reason}, ": "), ": "))
	state := h.State
	if h.By != "" {
		state += ", by " + h.By
	}
	if !h.Changed.IsZero() && h.State != string(journal.StateHeld) {
		state += ", " + shortTime(now, h.Changed)
	}
	if h.Why != "" && h.Why != h.Reason {
		state += ": " + h.Why
	}
	l.add("state", "%s", state)
	l.known("now queued as", h.NewQueueID)
	if err := page.Pairs(b, l); err != nil {
		return err
	}
	if h.State == string(journal.StateHeld) {
		id := shellWord(h.QueueID, "ID")
		fmt.Fprintf(b, "what next:\n  relayguard held show %s\n  relayguard held release %s\n  relayguard held delete %s\n", id, id, id)
		if account := shellWord(h.Account, ""); account != "" && strings.Contains(account, ":") {
			fmt.Fprintf(b, "  relayguard suspend %s --reason '...'\n", account)
		}
	}
	return nil
}
