package incident

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"relayguard/policy"
)

// Bounds of what is told of accounts that come near their limits.
const (
	nearEvery = time.Hour   // at most one notice
	nearWait  = time.Minute // from the first of them, so that one notice has them all
	maxNear   = 100         // pairs of an account and a limit that are remembered at once
	nearNamed = 6           // of them in a notice
	topicNear = "near"
)

// near are accounts that came near a limit since the last notice.
type near struct {
	seen  map[key]*nearing // cause is the limit
	more  bool             // there were others, for which there was no room
	first time.Time
	told  time.Time
}

// nearing is the fullest window of a limit.
type nearing struct {
	used, count int64
	window      time.Duration
	logged      bool
}

func (n *nearing) part() float64 { return float64(n.used) / float64(max(n.count, 1)) }

// Near learns that a message of the account brought a window of a limit to where
// the admin wants to know. It is called on the mail path: it takes one lock and
// calls nobody. Tick tells: one line in the log for each account and limit, and
// one notice of all, at most once an hour.
func (b *Book) Near(now time.Time, account string, c policy.Counter) {
	k := key{name(account), name(c.Limit)}
	is := nearing{used: c.Used + c.Amount, count: c.Count, window: c.Window}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := &b.near
	switch before := n.seen[k]; {
	case before != nil && before.part() >= is.part():
	case before != nil:
		is.logged = before.logged
		*before = is
	case len(n.seen) >= maxNear:
		n.more = true
	default:
		if n.seen == nil {
			n.seen, n.first = map[key]*nearing{}, now
		}
		n.seen[key{strings.Clone(k.origin), strings.Clone(k.cause)}] = &is
	}
}

// tellNear tells what was learnt: the log now, the admin if it is time. The turn
// is ours.
func (b *Book) tellNear(now time.Time) {
	var lines []func()
	b.mu.Lock()
	n := &b.near
	for k, is := range n.seen {
		if is.logged {
			continue
		}
		is.logged = true
		attrs := []any{"account", escape(k.origin, maxName), "limit", k.cause, "used", is.used, "count", is.count, "window", is.window}
		lines = append(lines, func() { b.opts.Log.Warn("an account comes near a limit", attrs...) })
	}
	since := now.Sub(n.told)
	quiet := len(n.seen) == 0 || now.Sub(n.first) < nearWait || !n.told.IsZero() && since >= 0 && since < nearEvery
	text := ""
	if !quiet {
		text = n.text()
		b.near = near{told: now}
	}
	b.mu.Unlock()
	for _, line := range lines {
		line()
	}
	if text != "" && b.opts.Alert != nil {
		b.opts.Alert(NewNotice(now, topicNear, text))
	}
}

// text names the fullest.
func (n *near) text() string {
	all := slices.SortedFunc(maps.Keys(n.seen), func(x, y key) int {
		return cmp.Or(cmp.Compare(n.seen[y].part(), n.seen[x].part()), strings.Compare(x.origin, y.origin), strings.Compare(x.cause, y.cause))
	})
	var s strings.Builder
	s.WriteString("near their limits:")
	for _, k := range all[:min(len(all), nearNamed)] {
		fmt.Fprintf(&s, " %s %s %d of %d,", escape(k.origin, 60), escape(k.cause, 24), n.seen[k].used, n.seen[k].count)
	}
	switch more := len(all) - nearNamed; {
	case n.more:
		fmt.Fprintf(&s, " and more than %d others,", more)
	case more > 0:
		fmt.Fprintf(&s, " and %d others,", more)
	}
	return strings.TrimSuffix(s.String(), ",") + "; relayguard limits list --top 10"
}
