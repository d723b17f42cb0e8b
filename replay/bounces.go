package replay

import (
	"slices"
	"time"

	"relayguard/policy"
)

// What paced release let go lately, and how many of its recipients must have
// bounced before a line stops for it: as the daemon has it.
const (
	maxOut       = 1000
	outFor       = 24 * time.Hour
	leastBounces = 3
)

// bounces are what became of mail that was let go, by line.
type bounces struct {
	out   []*out // the oldest first
	lines map[policy.LineKey]*tally
}

// out is a message that was let go.
type out struct {
	lines               []policy.LineKey
	at                  time.Time
	recipients, bounced int
	dropped             bool
}

// tally counts recipients of what one line let go.
type tally struct{ released, bounced int }

func (b *bounces) add(now time.Time, lines []policy.LineKey, recipients int) *out {
	if b.lines == nil {
		b.lines = map[policy.LineKey]*tally{}
	}
	if len(b.out) >= maxOut {
		b.drop()
	}
	o := &out{lines: lines, at: now, recipients: recipients}
	b.out = append(b.out, o)
	for _, k := range lines {
		if b.lines[k] == nil {
			b.lines[k] = &tally{}
		}
		b.lines[k].released += recipients
	}
	return o
}

// drop forgets the message that went first.
func (b *bounces) drop() {
	o := b.out[0]
	b.out = b.out[1:]
	o.dropped = true
	for _, k := range o.lines {
		t := b.lines[k]
		if t == nil {
			continue // the key was named twice
		}
		t.released -= o.recipients
		t.bounced -= o.bounced
		if t.released <= 0 {
			delete(b.lines, k)
		}
	}
}

// forget drops what went too long ago to say anything of now.
func (b *bounces) forget(now time.Time) {
	for len(b.out) > 0 && now.Sub(b.out[0].at) >= outFor {
		b.drop()
	}
}

// bounced counts a recipient of a message that was let go; no more than it has.
func (b *bounces) bounced(o *out) {
	if o == nil || o.dropped || o.bounced >= o.recipients {
		return
	}
	o.bounced++
	for _, k := range o.lines {
		b.lines[k].bounced++
	}
}

// forgive forgets what bounced of an account's lines.
func (b *bounces) forgive(is func(policy.LineKey) bool) {
	for _, o := range b.out {
		if slices.ContainsFunc(o.lines, is) {
			for _, k := range o.lines {
				b.lines[k].bounced -= o.bounced
			}
			o.bounced = 0
		}
	}
}

// tooMany reports whether a line stops for what bounced.
func (b *bounces) tooMany(k policy.LineKey, percent int) bool {
	t := b.lines[k]
	return t != nil && percent > 0 && t.bounced >= leastBounces && t.bounced*100 > percent*t.released
}
