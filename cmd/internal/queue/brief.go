package queue

import (
	"strings"

	"relayguard/mta"
)

// brief makes queued messages small, of which there may be 100,000 at a time: without
// why they wait, of recipients the domains, and what many have in common once.
type brief struct {
	texts   map[string]string
	domains map[string][]string // of recipients, by all in one
}

const mostBrief = 50_000 // texts that are kept once, and lists

func newBrief() *brief { return &brief{map[string]string{}, map[string][]string{}} }

func (b *brief) text(s string) string {
	if known, ok := b.texts[s]; ok {
		return known
	}
	if len(b.texts) < mostBrief {
		b.texts[s] = s
	}
	return s
}

// of is a message made small. Its recipients are not to be changed: they are many
// messages'.
func (b *brief) of(q mta.QueueFile) mta.QueueFile {
	q.Instance, q.Queue, q.Sender, q.HoldReason, q.Reason = b.text(q.Instance), b.text(q.Queue), b.text(q.Sender), "", ""
	var all strings.Builder
	for i, to := range q.Recipients {
		q.Recipients[i] = to[strings.LastIndexByte(to, '@')+1:]
		if len(q.Recipients[i]) < len(to) {
			q.Recipients[i] = "@" + q.Recipients[i]
		}
		all.WriteString(q.Recipients[i])
		all.WriteByte('\n')
	}
	if known, ok := b.domains[all.String()]; ok {
		q.Recipients = known
		return q
	}
	for i, to := range q.Recipients {
		q.Recipients[i] = b.text(to)
	}
	if len(b.domains) < mostBrief {
		b.domains[all.String()] = q.Recipients
	}
	return q
}
