package desk

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/mta/maillog"
	"relayguard/policy"
)

// What was released lately, of all lines together, and how many of its
// recipients must have bounced before a line stops for it.
const (
	maxOut       = 1000
	outFor       = 24 * time.Hour
	leastBounces = 3
	maxStopped   = 100 // lines that stopped and are not told of yet
)

// bounces are what became of mail that was released by itself. The zero value
// knows of none; safe for concurrent use.
type bounces struct {
	mu    sync.Mutex
	out   []*out // the oldest first
	byID  map[string]*out
	lines map[policy.LineKey]*tally
	news  []stoppedLine
}

// stoppedLine is a line that stopped for what bounced.
type stoppedLine struct{ account, limit, why string }

// out is a released message.
type out struct {
	ids                 []string // in the queue
	account             string
	lines               []policy.LineKey
	at                  time.Time
	recipients, bounced int
}

// tally counts recipients of what one line released.
type tally struct {
	released, bounced int
	told              bool // that there were too many
}

func (b *bounces) released(now time.Time, w *policy.Waiting, newID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byID == nil {
		b.byID, b.lines = map[string]*out{}, map[policy.LineKey]*tally{}
	}
	if len(b.out) >= maxOut {
		b.drop()
	}
	o := &out{account: w.Waits.Origin.Name(), lines: w.Waits.Lines(), at: now, recipients: max(w.Recipients, 1)}
	b.out = append(b.out, o)
	for _, id := range []string{w.QueueID, newID} {
		b.name(o, id)
	}
	for _, k := range o.lines {
		if b.lines[k] == nil {
			b.lines[k] = &tally{}
		}
		b.lines[k].released += o.recipients
	}
}

// name lets a message be found by a queue id; the newest that has it counts.
func (b *bounces) name(o *out, id string) {
	const requeues = 10 // of one message, that are followed
	if id == "" || len(o.ids) >= requeues || slices.Contains(o.ids, id) {
		return
	}
	o.ids = append(o.ids, strings.Clone(id))
	b.byID[o.ids[len(o.ids)-1]] = o
}

// drop forgets the message that went first.
func (b *bounces) drop() {
	o := b.out[0]
	b.out[0] = nil
	b.out = b.out[1:]
	for _, id := range o.ids {
		if b.byID[id] == o {
			delete(b.byID, id)
		}
	}
	for _, k := range o.lines {
		t := b.lines[k]
		if t == nil {
			continue
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
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.out) > 0 && now.Sub(b.out[0].at) >= outFor {
		b.drop()
	}
}

// forgive forgets what bounced of lines.
func (b *bounces) forgive(is func(policy.LineKey) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.out {
		if slices.ContainsFunc(o.lines, is) {
			for _, k := range o.lines {
				b.lines[k].bounced -= o.bounced
				b.lines[k].told = false
			}
			o.bounced = 0
		}
	}
}

// bounced counts recipients of a message that was released.
func (b *bounces) bounced(queueID string, n, percent int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.byID[queueID]
	if o == nil {
		return
	}
	n = max(min(n, o.recipients-o.bounced), 0) // a line that is read twice, or forged, counts no more
	o.bounced += n
	for _, k := range o.lines {
		t := b.lines[k]
		t.bounced += n
		if why := b.why(k, percent); why != "" && !t.told && len(b.news) < maxStopped {
			t.told = true
			b.news = append(b.news, stoppedLine{o.account, k.Bucket.Limit, why})
		}
	}
}

// follow learns that a message has another queue id.
func (b *bounces) follow(oldID, newID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o := b.byID[oldID]; o != nil {
		b.name(o, newID)
	}
}

// tooMany says why a line stops for what bounced, "" if it does not.
func (b *bounces) tooMany(k policy.LineKey, percent int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why(k, percent)
}

func (b *bounces) why(k policy.LineKey, percent int) string {
	t := b.lines[k]
	if t == nil || percent <= 0 || t.bounced < leastBounces || t.bounced*100 <= percent*t.released {
		return ""
	}
	return fmt.Sprintf("%d of %d recipients of what was released bounced, more than hold.bounce_percent (%d %%)", t.bounced, t.released, percent)
}

// Outcome learns from the MTA's log what became of n recipients of a message:
// "sent", "deferred", "bounced" or "expired". Of one that was not released by
// itself it learns nothing. It takes one lock; Pace tells.
func (d *Desk) Outcome(queueID, status string, n int) {
	if status == maillog.Bounced || status == maillog.Expire {
		d.bounces.bounced(queueID, n, d.pacing().BouncePercent)
	}
}

// tellBounces tells which lines stopped for what bounced.
func (d *Desk) tellBounces(now time.Time) {
	d.bounces.mu.Lock()
	news := d.bounces.news
	d.bounces.news = nil
	d.bounces.mu.Unlock()
	for _, s := range news {
		d.Log.Warn("held mail of a line is no longer released by itself", "account", s.account, "limit", s.limit, "why", s.why)
		d.tell(now, s.account, "what "+s.limit+" held is no longer released by itself: "+s.why)
	}
	if len(news) > 0 && d.Notice != nil {
		text := fmt.Sprintf("held mail of %s under %s is no longer released by itself: %s; relayguard held pace", news[0].account, news[0].limit, news[0].why)
		if len(news) > 1 {
			text += fmt.Sprintf("; and that of %d other lines", len(news)-1)
		}
		d.Notice(now, topicBounces, text)
	}
}

const topicBounces = "bounces" // of the notice
