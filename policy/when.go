package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/policy/origin"
)

// Scope says which recipients of a message a limit counts. The zero value is
// all of them.
type Scope uint8

const (
	Everyone Scope = iota
	OutsideOnly
	InsideOnly
)

func (s Scope) String() string {
	switch s {
	case OutsideOnly:
		return "outside"
	case InsideOnly:
		return "inside"
	}
	return "all"
}

func (s Scope) has(inside bool) bool { return s == Everyone || inside == (s == InsideOnly) }

// When says which messages a limit is asked about: those for which everything
// that is set holds. Zero: all.
type When struct {
	// Origins are patterns: "login:*@example.jp", "local_user:www-data" (or by its
	// uid), "network:web*", "node:web*", "site:*", "plugin:", "template:", "domain:",
	// "customer:", "client:". One must match a key that is proven.
	Origins []string

	MinSize, MaxSize             int64 // octets of header and body; 0: no bound
	MinRecipients, MaxRecipients int   // of the message, all of them; 0: no bound

	Hours    []Hours
	Days     []time.Weekday // that on which the hours began
	Header   []string       // one of these fields is there
	NoHeader []string       // none of these is
}

// Hours are a part of the day, in minutes since midnight by the clock on the wall:
// From, and on until just before To. If To is not later, they end on the next day.
type Hours struct{ From, To int }

// has reports whether a minute is in the hours, and whether they began the day
// before.
func (h Hours) has(minute int) (in, yesterday bool) {
	if h.From < h.To {
		return minute >= h.From && minute < h.To, false
	}
	return minute >= h.From || minute < h.To, minute < h.From && minute < h.To
}

func (h Hours) String() string {
	return fmt.Sprintf("%02d:%02d-%02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60)
}

// String is the conditions as a human reads them; empty for none.
func (w When) String() string {
	var all []string
	say := func(set bool, format string, args ...any) {
		if set {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	say(len(w.Origins) > 0, "from %s", strings.Join(w.Origins, " or "))
	say(w.MinSize > 0, "at least %d bytes", w.MinSize)
	say(w.MaxSize > 0, "at most %d bytes", w.MaxSize)
	say(w.MinRecipients > 0, "at least %d recipients", w.MinRecipients)
	say(w.MaxRecipients > 0, "at most %d recipients", w.MaxRecipients)
	say(len(w.Hours) > 0, "%s", join(w.Hours, Hours.String))
	say(len(w.Days) > 0, "%s", join(w.Days, func(d time.Weekday) string { return strings.ToLower(d.String()[:3]) }))
	say(len(w.Header) > 0, "with %s", strings.Join(w.Header, " or "))
	say(len(w.NoHeader) > 0, "without %s", strings.Join(w.NoHeader, " and "))
	return strings.Join(all, ", ")
}

func join[T any](all []T, text func(T) string) string {
	var b strings.Builder
	for i, v := range all {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(text(v))
	}
	return b.String()
}

// when is a When made ready.
type when struct {
	When
	origins []pattern
	timed   bool
	atEnd   bool // not known before the end of the message
}

func newWhen(w When) when {
	n := when{When: w, timed: len(w.Hours) > 0 || len(w.Days) > 0}
	n.atEnd = w.MinSize > 0 || w.MaxSize > 0 || w.MinRecipients > 0 || w.MaxRecipients > 0 || len(w.Header) > 0 || len(w.NoHeader) > 0
	for _, o := range w.Origins {
		kind, glob, _ := strings.Cut(o, ":")
		if kind != "network" && kind != "local_user" && kind != "node" { // whose names have a case
			glob = strings.ToLower(glob)
		}
		n.origins = append(n.origins, pattern{kind, glob})
	}
	return n
}

// message reports whether the conditions on the message itself hold.
func (w *when) message(m *Message) bool {
	if !w.atEnd {
		return true
	}
	n := len(m.RcptTo) + m.RcptMore
	present := func(name string) bool { return m.Header.Count(name) > 0 }
	return m.Size >= w.MinSize && (w.MaxSize == 0 || m.Size <= w.MaxSize) &&
		n >= w.MinRecipients && (w.MaxRecipients == 0 || n <= w.MaxRecipients) &&
		(len(w.Header) == 0 || slices.ContainsFunc(w.Header, present)) && !slices.ContainsFunc(w.NoHeader, present)
}

// at reports whether the conditions on the time hold.
func (w *when) at(now time.Time, in *time.Location) bool {
	if !w.timed {
		return true
	}
	local := now.In(in)
	minute, today := local.Hour()*60+local.Minute(), local.Weekday()
	on := func(d time.Weekday) bool { return len(w.Days) == 0 || slices.Contains(w.Days, d) }
	if len(w.Hours) == 0 {
		return on(today)
	}
	return slices.ContainsFunc(w.Hours, func(h Hours) bool {
		in, yesterday := h.has(minute)
		if yesterday {
			return in && on((today+6)%7)
		}
		return in && on(today)
	})
}

// from reports whether the conditions on the origin hold.
func (w *when) from(o *origin.Origin) bool {
	return len(w.origins) == 0 || slices.ContainsFunc(w.origins, func(p pattern) bool { return p.matches(o) })
}

// maybe is from before it is known what the text looks like.
func (w *when) maybe(o *origin.Origin) bool {
	return w.from(o) || slices.ContainsFunc(w.origins, func(p pattern) bool { return p.kind == "template" })
}

// pattern is one of When.Origins.
type pattern struct{ kind, glob string }

func (p pattern) matches(o *origin.Origin) bool {
	key := func(k origin.Key) bool { return k.Proven() && match(p.glob, k.Value) }
	switch p.kind {
	case "login":
		return key(o.Login)
	case "local_user":
		if kind, _ := o.Account(); kind == origin.KindUnknown { // only mail of sendmail(1) comes that far: of some account
			return p.glob == "*"
		}
		return key(o.LocalUser) || o.LocalUser.Proven() && match(p.glob, o.LocalID())
	case "node": // that does not say whose mail it is
		kind, k := o.Account()
		return kind == origin.KindNode && match(p.glob, k.Value)
	case "network":
		return key(o.Network)
	case "client":
		return key(o.ClientIP)
	case "site":
		return key(o.Site)
	case "plugin":
		return key(o.Plugin)
	case "customer":
		return key(o.Customer)
	case "template":
		return o.Template.Confidence >= origin.Fingerprint && match(p.glob, o.Template.Value)
	case "domain":
		d := o.Domain()
		return d != "" && match(p.glob, d)
	}
	return false
}

// match reports whether s is what glob says, in which * stands for anything. Its
// time is at most the product of the lengths.
func match(glob, s string) bool {
	star, from := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(glob) && glob[i] == '*':
			star, from = i, j
			i++
		case i < len(glob) && glob[i] == s[j]:
			i, j = i+1, j+1
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(glob[i:], "*") == ""
}
