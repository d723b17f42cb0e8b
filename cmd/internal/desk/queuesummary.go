package desk

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// ageBounds are those of qshape(1): each is twice the one before.
var ageBounds = []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute,
	160 * time.Minute, 320 * time.Minute, 640 * time.Minute, 1280 * time.Minute}

const (
	maxShares = 2000          // of one kind in a summary; further ones are added up
	maxRanked = 2 * maxShares // that are counted at a time
	maxCauses = 4             // that are counted of one share; the answer has 2
)

// QueueSummary answers what is stuck, whose it is, where it goes and why, of what
// the filter chooses. It reads the queue once. Its memory is bounded: where there
// are more than some thousand names of a kind, the smallest are added up.
func (d *Desk) QueueSummary(ctx context.Context, now time.Time, f QueueFilter) (QueueSummary, error) {
	queues, origins, destinations, causes, senders := newRanking(now), newRanking(now), newRanking(now), newRanking(now), newRanking(now)
	end, _, err := d.scan(ctx, now, &f, nil, func(m *found) error {
		why := ""
		if m.Error != "" {
			why = strings.Clone(cause(m.Error))
			why = causes.add(m, why, "")
		}
		queues.add(m, m.Queue, "")
		origins.add(m, originOf(&m.Queued), why)
		senders.add(m, cmp.Or(m.MailFrom, "<>"), "")
		for domain := range m.Domains {
			destinations.add(m, cmp.Or(domain, "unknown"), why)
		}
		return nil
	})
	if err != nil {
		return QueueSummary{}, err
	}
	return QueueSummary{QueueEnd: end, Looked: now, Bounds: ageBounds, Queues: queues.shares(), Origins: origins.shares(),
		Destinations: destinations.shares(), Errors: causes.shares(), Senders: senders.shares()}, nil
}

// originOf names the least that is known to have sent a message, as commands take
// it for an account.
func originOf(m *Queued) string {
	switch {
	case m.Plugin != "" && m.Site != "":
		return "plugin:" + m.Plugin + "@" + m.Site
	case m.Site != "":
		return "site:" + m.Site
	case m.Plugin != "":
		return "plugin:" + m.Plugin
	}
	return cmp.Or(m.Account, unknownAccount)
}

// ranking adds up messages by name. When there are too many names, the smaller half
// becomes the rest: what is large stays, if it is large all the while.
type ranking struct {
	now  time.Time
	all  map[string]*count
	rest *count
}

type count struct {
	Share
	causes []causeCount
}

type causeCount struct {
	text string
	n    int
}

func newRanking(now time.Time) *ranking { return &ranking{now: now, all: map[string]*count{}} }

func newCount(name string) *count {
	return &count{Share: Share{Name: name, Ages: make([]int, len(ageBounds)+1), Queues: map[string]int{}}}
}

// add counts a message, and returns the name as it is kept.
func (t *ranking) add(m *found, name, why string) string {
	c := t.all[name]
	if c == nil {
		if len(t.all) >= maxRanked {
			t.shrink(maxShares)
		}
		c = newCount(name)
		t.all[name] = c
	}
	c.Messages++
	c.Bytes += m.Size
	c.Queues[m.Queue]++
	c.Ages[ageClass(t.now.Sub(m.Arrival))]++
	if c.Oldest.IsZero() || m.Arrival.Before(c.Oldest) {
		c.Oldest = m.Arrival
	}
	if why != "" {
		c.because(why)
	}
	return c.Name
}

func ageClass(age time.Duration) int {
	for i, b := range ageBounds {
		if age < b {
			return i
		}
	}
	return len(ageBounds)
}

// because counts an error; of more than there is room for, the rarest gives way.
func (c *count) because(why string) {
	least := -1
	for i := range c.causes {
		if c.causes[i].text == why {
			c.causes[i].n++
			return
		}
		if least < 0 || c.causes[i].n < c.causes[least].n {
			least = i
		}
	}
	if len(c.causes) < maxCauses {
		c.causes = append(c.causes, causeCount{why, 1})
		return
	}
	c.causes[least] = causeCount{why, c.causes[least].n + 1}
}

// shrink adds all but the largest up.
func (t *ranking) shrink(keep int) {
	order := t.sorted()
	for _, c := range order[min(keep, len(order)):] {
		if t.rest == nil {
			t.rest = newCount("")
		}
		t.rest.merge(c)
		t.rest.Others++
		delete(t.all, c.Name)
	}
}

func (c *count) merge(o *count) {
	c.Messages += o.Messages
	c.Bytes += o.Bytes
	for i := range c.Ages {
		c.Ages[i] += o.Ages[i]
	}
	for q, n := range o.Queues {
		c.Queues[q] += n
	}
	if c.Oldest.IsZero() || o.Oldest.Before(c.Oldest) {
		c.Oldest = o.Oldest
	}
}

// sorted has the largest first.
func (t *ranking) sorted() []*count {
	return slices.SortedFunc(maps.Values(t.all), func(a, b *count) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
	})
}

// shares are the result, the rest last.
func (t *ranking) shares() []Share {
	t.shrink(maxShares)
	out := make([]Share, 0, len(t.all)+1)
	for _, c := range t.sorted() {
		slices.SortStableFunc(c.causes, func(a, b causeCount) int { return cmp.Compare(b.n, a.n) })
		for _, why := range c.causes[:min(2, len(c.causes))] {
			c.Errors = append(c.Errors, why.text)
		}
		out = append(out, c.Share)
	}
	if t.rest != nil {
		out = append(out, t.rest.Share)
	}
	return out
}
