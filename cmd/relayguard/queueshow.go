package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

func newQueueShow() *cobra.Command {
	var instance string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID...",
		Short: "show what is known of queued mail, without its content",
		Long: strings.TrimSpace(`
Shows what the MTA and the journal know of queued messages: where they wait and why,
who sent them, which rule decided. Never a recipient's address, never content: that of
held mail is behind relayguard held show --headers.

IDs are queue ids or ids of decisions.

Exit status: 0; 1 an ID is not in the queue; 2 usage; 3 cannot tell.`),
		Example: "  relayguard queue show 4ZJ1k82Vz1y",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if len(ids) == 0 || slices.Contains(ids, "") {
				return usage(cmd, "ID is missing; relayguard queue list lists them")
			}
			return queueShow(cmd, ids, instance, asJSON)
		},
	}
	cmd.Flags().StringVar(&instance, "instance", "", "only of this `instance` of the MTA, where there are several")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func queueShow(cmd *cobra.Command, ids []string, instance string, asJSON bool) error {
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	all, err := h.QueueShow(cmd.Context(), desk.QueueLook{IDs: ids, Instance: instance})
	if err != nil {
		return answerOf(err)
	}
	none := newMissing(ids)
	for i := range all {
		none.found(all[i].QueueID, all[i].ID)
	}
	out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
	var b bytes.Buffer
	if asJSON {
		err = render.JSON(&b, all)
	}
	for i := 0; i < len(all) && !asJSON && err == nil; i++ {
		if i > 0 {
			b.WriteByte('\n')
		}
		err = writeQueued(&b, page, time.Now(), &all[i])
	}
	if err == nil {
		_, err = out.Write(b.Bytes())
	}
	if err != nil {
		return wroteAll(err)
	}
	for i := 0; i < len(all) && !asJSON; i++ {
		tellLooks(cmd, &all[i])
	}
	if none.any() {
		return none.error(errNotQueued)
	}
	return nil
}

func errNotQueued(id string) error {
	return fmt.Errorf("nothing is in the queue under %s; relayguard explain %s may know what became of it", id, shellWord(id, "ID"))
}

// tellLooks says how to see more of it.
func tellLooks(cmd *cobra.Command, m *desk.QueueShown) {
	switch {
	case m.Queue == "hold" && m.HeldBy != byOther:
		remark(cmd, "its header: relayguard held show %s --headers --reason '...'", shellWord(m.QueueID, "ID"))
	case m.ID != "":
		remark(cmd, "why it was let through: relayguard explain %s", shellWord(m.ID, "ID"))
	}
}

// writeQueued tells of one message, without its content.
func writeQueued(w io.Writer, page render.Page, now time.Time, m *desk.QueueShown) error {
	l := pairList{}
	l.add("queue id", "%s", m.QueueID)
	l.known("instance", m.Instance)
	where := m.Queue
	if m.HeldBy != "" {
		where += ", by " + m.HeldBy
	}
	l.add("queue", "%s", where)
	l.add("arrived", "%s", shortTime(now, m.Arrival))
	l.known("stuck for", m.Error)
	l.add("mail from", "%s", sender(m.MailFrom))
	to := "more recipients than are counted"
	if m.Recipients >= 0 {
		to = counted(m.Recipients, "recipient")
	}
	if len(m.Domains) > 0 {
		to += ": " + domainList(m.Domains)
	}
	l.add("to", "%s", to)
	l.add("size", "%s", render.Bytes(m.Size))
	l.known("decision", m.ID)
	l.known("account", m.Account)
	l.known("site", m.Site)
	l.known("plugin", m.Plugin)
	l.known("template", m.Template)
	verdict := m.Verdict
	if m.Rule != "" {
		verdict += ", rule " + m.Rule
	}
	l.known("verdict", verdict)
	if m.Decision != nil {
		l.known("why", m.Decision.Reason)
	}
	if m.ID == "" {
		l.add("journal", "knows nothing of it")
	}
	for i := range m.Held {
		l.add("held", "%s", heldBefore(now, &m.Held[i]))
	}
	return page.Pairs(w, l)
}

// heldBefore is one hold of the journal in a line.
func heldBefore(now time.Time, h *desk.Held) string {
	text := fmt.Sprintf("since %s, by %s", shortTime(now, h.HeldAt), h.HeldBy)
	if h.Rule != "" {
		text += ", rule " + h.Rule
	}
	if h.State != "" && h.State != "held" {
		text += "; " + h.State
		if h.By != "" {
			text += " by " + h.By
		}
	}
	return text
}
