package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

func newQueueList() *cobra.Command {
	var f queueFlags
	var order string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [ID...]",
		Short: "list mail in the MTA's queues",
		Long: strings.TrimSpace(`
Lists queued mail as it is found: the first lines come at once, however long the
queue is. IDs are queue ids or ids of decisions. What is given must all hold.

On a terminal WHO is the account that sent it, or its plugin and site, as far as the
journal knows, else the envelope sender in angle brackets; in a pipe each has a column
of its own, and ERROR is whole. QUEUE says of the hold queue who holds it, if that is
not relayguard.

--sort waits for the whole list first; with --limit it is then the first so many of
that order. In JSON the list is written as it comes, "end" last: an object without it
is cut short.

Exit status: 0, also if nothing is queued; 1 an ID is not in the queue; 2 usage; 3
cannot tell, or not all of it: the queue or the journal could not be read.`),
		Example: "  relayguard queue list --queue deferred --older-than 4h\n  relayguard queue list --to-domain example.net --error 'timed out' --sort age --limit 20\n  relayguard queue list --json | jq -r '.messages[].queue_id'",
		RunE: func(cmd *cobra.Command, ids []string) error {
			filter, err := f.filter(cmd, ids)
			if err != nil {
				return err
			}
			by, known := queueOrders[order]
			if order != "" && !known {
				return usage(cmd, "--sort: found %q, want one of %s", order, strings.Join(slices.Sorted(maps.Keys(queueOrders)), ", "))
			}
			return queueList(cmd, filter, by, asJSON)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&order, "sort", "", "by this `column`, once all are known: "+strings.Join(slices.Sorted(maps.Keys(queueOrders)), ", "))
	jsonFlag(cmd, &asJSON)
	return cmd
}

// queueWriter writes messages in one form.
type queueWriter interface {
	message(m *desk.Queued) error
	end(e *desk.QueueEnd) error
}

func queueList(cmd *cobra.Command, f desk.QueueFilter, by func(*desk.Queued) sortKey, asJSON bool) error {
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, cancel := context.WithCancel(cmd.Context()) // a reader that has enough ends it
	defer cancel()
	var out queueWriter = newQueueTable(cmd.OutOrStdout(), time.Now())
	if asJSON {
		out = &queueJSON{render.NewJSONList(cmd.OutOrStdout(), "messages")}
	}
	if by != nil {
		littleGarbage()
		s := &queueSorter{to: out, by: by, limit: f.Limit, told: newProgress(cmd.ErrOrStderr())}
		defer s.told.stop()
		out, f.Limit = s, 0
	}
	var last *desk.QueueEnd
	var writing error
	missing := newMissing(f.IDs)
	err = h.Queue(ctx, f, func(l desk.QueueLine) error {
		switch {
		case l.Message != nil:
			missing.found(l.Message.QueueID, l.Message.ID)
			writing = out.message(l.Message)
		case l.End != nil:
			last = l.End
		}
		return writing
	})
	return queueListed(cmd, out, missing, last, writing, err)
}

// queueListed ends a list, and says whether it is whole.
func queueListed(cmd *cobra.Command, out queueWriter, missing *missing, last *desk.QueueEnd, writing, err error) error {
	if err == nil && last == nil {
		err = errors.New("the daemon's answer has no end")
	}
	if writing != nil {
		return wroteAll(writing)
	}
	if writing = out.end(last); writing != nil {
		return wroteAll(writing)
	}
	if err != nil {
		return cutShort(cmd, err)
	}
	tellQueueEnd(cmd, last)
	switch {
	case last.Skipped > 0 || last.NoJournal != "":
		return &exitError{code: exitCannotTell}
	case missing.any():
		return missing.error(errNotQueued)
	}
	return nil
}

// cutShort says that a list is not whole. An answer that was a refusal has no list.
func cutShort(cmd *cobra.Command, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		remark(cmd, "the list is cut short")
	}
	return answerOf(err)
}

func tellQueueEnd(cmd *cobra.Command, e *desk.QueueEnd) {
	line := fmt.Sprintf("%s (%s)", counted(e.Messages, "message"), render.Bytes(e.Bytes))
	switch {
	case e.More:
		line += "; there may be more, --limit ended the list"
	case e.Seen > e.Messages:
		line += fmt.Sprintf(" of %d in the queue", e.Seen)
	}
	remark(cmd, "%s", line)
	tellQueueGaps(cmd, e)
}

// tellQueueGaps says what is not known.
func tellQueueGaps(cmd *cobra.Command, e *desk.QueueEnd) {
	if e.Skipped > 0 {
		remark(cmd, "%s of the queue could not be read: %s", counted(e.Skipped, "file"), e.Problem)
	}
	if e.NoJournal != "" {
		remark(cmd, "whose mail it is is not known: %s", e.NoJournal)
	}
}

// queueTable writes messages as lines of a table.
type queueTable struct {
	rows *render.Stream
	page render.Page
	now  time.Time
}

func newQueueTable(w io.Writer, now time.Time) *queueTable {
	page := render.PageOf(w).Headings(w)
	return &queueTable{render.NewStream(w, page, queueColumns(page)), page, now}
}

func (t *queueTable) message(m *desk.Queued) error { return t.rows.Row(queueRow(t.page, t.now, m)...) }
func (t *queueTable) end(*desk.QueueEnd) error     { return t.rows.Close() }

func queueColumns(page render.Page) []render.Column {
	id := render.Column{Title: "QUEUE ID", Whole: true, Min: 11}
	size := render.Column{Title: "SIZE", Right: true, Whole: true, Min: 6}
	why := render.Column{Title: "ERROR", Weight: 3}
	switch {
	case !page.Cut:
		var all []render.Column
		for _, title := range []string{"QUEUE ID", "INSTANCE", "QUEUE", "HELD BY", "ARRIVED", "SIZE", "RCPTS", "DOMAINS", "ACCOUNT", "SITE", "PLUGIN", "RULE", "ID", "FROM", "ERROR"} {
			all = append(all, render.Column{Title: title, Right: title == "SIZE" || title == "RCPTS"})
		}
		return all
	case roomy(page):
		return []render.Column{id, {Title: "QUEUE", Whole: true, Min: 8}, {Title: "AGE", Right: true, Whole: true, Min: 3}, size, {Title: "RCPTS", Right: true, Whole: true},
			{Title: "WHO", Weight: 2, Min: 14}, {Title: "FROM", Weight: 2, Min: 12}, {Title: "TO", Min: 10}, {Title: "RULE", Min: 6}, why}
	}
	why.Min = 12
	return []render.Column{id, {Title: "QUEUE", Whole: true, Min: 8}, {Title: "AGE", Right: true, Whole: true, Min: 3}, {Title: "WHO", Weight: 2, Min: 14}, {Title: "TO", Weight: 1, Min: 8}, why}
}

func queueRow(page render.Page, now time.Time, m *desk.Queued) []string {
	if !page.Cut {
		return []string{m.QueueID, m.Instance, m.Queue, m.HeldBy, when(page, m.Arrival), number(m.Size), recipientCount(m.Recipients), strings.Join(largestDomains(m.Domains), ","),
			m.Account, m.Site, m.Plugin, m.Rule, m.ID, sender(m.MailFrom), m.Error}
	}
	row := []string{m.QueueID, whichQueue(m), render.Ago(now, m.Arrival)}
	if roomy(page) {
		return append(row, render.Bytes(m.Size), recipientCount(m.Recipients), who(m), sender(m.MailFrom), mainDomain(m.Domains), m.Rule, core(m.Error))
	}
	return append(row, cmp.Or(who(m), "<"+m.MailFrom+">"), mainDomain(m.Domains), core(m.Error))
}

// core is what another server said, without which one and when: on a terminal there
// is room for little.
func core(why string) string {
	if _, said, found := strings.Cut(why, " said: "); found {
		return said
	}
	return why
}

// whichQueue is where a message is, and in whose hold.
func whichQueue(m *desk.Queued) string {
	name := m.Queue
	if m.HeldBy != "" && m.HeldBy != "relayguard" {
		name += "/" + m.HeldBy
	}
	if m.Instance != "" {
		name = m.Instance + ":" + name
	}
	return name
}

// who sent it, by the narrowest name that the journal has; "" if it has none.
func who(m *desk.Queued) string {
	switch {
	case m.Plugin != "":
		return pluginAt(m.Plugin, m.Site)
	case m.Site != "":
		return "site:" + m.Site
	}
	return m.Account
}

// recipientCount is how many are left; a message may have too many to count.
func recipientCount(n int) string {
	if n < 0 {
		return "many"
	}
	return number(n)
}

func largestDomains(domains map[string]int) []string {
	return slices.SortedFunc(maps.Keys(domains), func(a, b string) int {
		return cmp.Or(cmp.Compare(domains[b], domains[a]), strings.Compare(a, b))
	})
}

// mainDomain is where most of it goes, and how many others there are.
func mainDomain(domains map[string]int) string {
	all := largestDomains(domains)
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s +%d", all[0], len(all)-1)
}

// queueJSON writes messages as JSON.
type queueJSON struct{ list *render.JSONList }

func (j *queueJSON) message(m *desk.Queued) error { return j.list.Add(m) }

func (j *queueJSON) end(e *desk.QueueEnd) error {
	if e == nil {
		return j.list.Flush()
	}
	return j.list.End(struct {
		End *desk.QueueEnd `json:"end"`
	}{e})
}

// missing are ids that were asked for and did not come yet.
type missing struct {
	ids   []string
	there map[string]bool
}

func newMissing(ids []string) *missing {
	m := &missing{ids: ids, there: map[string]bool{}}
	for _, id := range ids {
		m.there[id] = false
	}
	return m
}

// found takes the names of a message that came.
func (m *missing) found(names ...string) {
	for _, name := range names {
		if _, asked := m.there[name]; asked {
			m.there[name] = true
		}
	}
}

func (m *missing) any() bool {
	return slices.ContainsFunc(m.ids, func(id string) bool { return !m.there[id] })
}

// error has a line for each.
func (m *missing) error(say func(id string) error) error {
	var all []error
	for _, id := range m.ids {
		if !m.there[id] {
			all = append(all, say(id))
		}
	}
	return &exitError{exitFinding, &escapedError{errors.Join(all...)}}
}
