// Package guard stands between the wire and the policy: it gives each decision
// an id, asks the policy that is in force, has the journal keep what was decided
// before the MTA learns of it, and writes the one log line of each verdict. The
// trap: a message is the connection's; nothing of it may be kept past the call.
package guard

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// Journal keeps decisions. Append has written them when it returns; Note never
// waits. Spares reports whether there is room for a row about accepted mail, and
// counts the row if there is not.
type Journal interface {
	Append(...journal.Record) error
	Note(journal.Record)
	Spares() bool
}

// Watcher learns of decisions after they were kept. Its methods are called on
// the mail path: they must not wait, and keep nothing of the message.
type Watcher interface {
	Stopped(now time.Time, m *policy.Message, d *policy.Decision)
	Accepted(now time.Time, m *policy.Message, d *policy.Decision)
}

// Stages of a transaction at which the guard decides.
const (
	stageRcpt    = "rcpt"
	stageMessage = "message"
	stageCall    = "call"
)

// Guard asks the policy in force. It implements milter.Guard and is safe for
// concurrent use.
type Guard struct {
	// Journal and Watcher may be nil. Set them before use.
	Journal Journal
	Watcher Watcher

	policy   atomic.Pointer[policy.Policy]
	ids      idSource
	log      *slog.Logger
	stops    *slog.Logger
	refusals refusals
	Counts   Counts
}

// Counts are verdicts since the start, by name, of whole messages and of
// refused recipients.
type Counts struct {
	Messages [policy.Reject + 1]atomic.Int64
	Refused  atomic.Int64
	Called   atomic.Int64 // messages that were refused before the MTA had them
	Late     atomic.Int64 // decisions that came after the MTA had been answered; in neither of the others
	Joined   atomic.Int64 // refusals that were answered with the id of one like them
}

// New makes a guard. Verdicts that stop mail are logged to stops, all others to
// log.
func New(p *policy.Policy, log, stops *slog.Logger) *Guard {
	g := &Guard{log: log, stops: stops}
	g.ids.seed()
	g.policy.Store(p)
	return g
}

// Use puts another policy into force; messages under way finish with either.
func (g *Guard) Use(p *policy.Policy) { g.policy.Store(p) }

// Recipient implements milter.Guard.
func (g *Guard) Recipient(ctx context.Context, m *policy.Message, to string) policy.Decision {
	now := time.Now()
	p := g.policy.Load()
	d := p.Recipient(ctx, now, m, to)
	if !d.Verdict.Stops() {
		return d // the whole message gets its line at its end
	}
	if ctx.Err() == nil {
		g.Counts.Refused.Add(1)
	}
	g.keep(ctx, now, p, m, &d, stageRcpt)
	return d
}

// Message implements milter.Guard.
func (g *Guard) Message(ctx context.Context, m *policy.Message) policy.Decision {
	now := time.Now()
	p := g.policy.Load()
	d := p.Message(ctx, now, m)
	if ctx.Err() == nil {
		g.Counts.Messages[d.Verdict].Add(1)
	}
	g.keep(ctx, now, p, m, &d, stageMessage)
	return d
}

// Call decides about mail that is about to be handed in. What is not refused then
// is decided by Message, and leaves nothing here.
func (g *Guard) Call(ctx context.Context, m *policy.Message) policy.Decision {
	now := time.Now()
	p := g.policy.Load()
	d := p.Early(ctx, now, m)
	if !d.Verdict.Stops() {
		return d
	}
	if ctx.Err() == nil {
		g.Counts.Called.Add(1)
	}
	g.keep(ctx, now, p, m, &d, stageCall)
	return d
}

// keep seals the decision, and has it kept before it is answered.
func (g *Guard) keep(ctx context.Context, now time.Time, p *policy.Policy, m *policy.Message, d *policy.Decision, stage string) {
	late := ctx.Err() != nil // the MTA was told milter.on_timeout instead
	if late && d.Verdict == policy.Hold && p.Room != nil {
		p.Room.Give(p.Limits.RoomOf(&d.Origin), m.Size) // it is not held
	}
	kept, joined := g.seal(d, now, stage, late)
	if late {
		g.Counts.Late.Add(1)
	}
	if joined {
		g.Counts.Joined.Add(1)
	} else {
		g.write(ctx, now, p, m, d, stage, late)
	}
	if kept != nil {
		kept()
	}
	if g.Watcher != nil && !late {
		if d.Verdict.Stops() {
			g.Watcher.Stopped(now, m, d)
		} else {
			g.Watcher.Accepted(now, m, d)
		}
	}
}

// write has the journal and the log keep a decision.
func (g *Guard) write(ctx context.Context, now time.Time, p *policy.Policy, m *policy.Message, d *policy.Decision, stage string, late bool) {
	switch {
	case g.Journal == nil:
	case d.Verdict.Stops():
		// An error is told by the journal, which keeps the record until the disk
		// takes it; the decision stands.
		_ = g.Journal.Append(record(now, p.Phase, m, d, stage, late))
	case g.Journal.Spares():
		g.Journal.Note(record(now, p.Phase, m, d, stage, late))
	}
	g.line(ctx, m, d, stage, late)
}

// seal gives the decision its id and writes it into what the client is told, so
// that who asks why can be answered. Joined: the id is that of an earlier refusal
// like this one, which was kept; else kept, if not nil, is to be called once this
// one is.
func (g *Guard) seal(d *policy.Decision, now time.Time, stage string, late bool) (kept func(), joined bool) {
	if d.Verdict != policy.Reject && d.Verdict != policy.Defer {
		d.ID = g.ids.next(now)
		return nil, false
	}
	d.ID, kept = g.refusals.join(stage, d, now, late, func() string { return g.ids.next(now) })
	d.Reply.Text = fmt.Sprintf("%s (%s)", d.Reply.Text, d.ID)
	return kept, kept == nil
}

// Tick does what has to be done about every second: it tells the journal how
// often refusals were repeated.
func (g *Guard) Tick(now time.Time) {
	g.refusals.sweep(now, func(r journal.Repeat) {
		if g.Journal != nil {
			g.Journal.Note(r)
		}
	})
}

// line writes the line of a verdict. Recipients are only counted: they are third
// parties.
func (g *Guard) line(ctx context.Context, m *policy.Message, d *policy.Decision, stage string, late bool) {
	_, key := d.Origin.Account()
	attrs := make([]slog.Attr, 0, 30)
	attrs = append(attrs,
		slog.String("id", d.ID),
		slog.String("verdict", d.Verdict.String()),
		slog.String("stage", stage),
		slog.String("account", cut(d.Origin.Name())),
		slog.String("confidence", key.Confidence.String()),
		slog.String("role", m.Role.String()),
		slog.String("listener", m.Listener),
		slog.String("queue_id", m.QueueID),
		slog.String("client", d.Origin.ClientIP.Value),
		slog.String("mail_from", cut(m.MailFrom)),
		slog.String("from", cut(m.HeaderFrom)),
		slog.String("message_id", cut(m.MessageID)),
		slog.Int("recipients", len(m.RcptTo)+m.RcptMore),
		slog.Int64("size", m.Size),
	)
	if d.Rule != "" {
		attrs = append(attrs, slog.String("rule", d.Rule), slog.String("reason", cut(d.Reason)))
	}
	if d.Retry > 0 {
		attrs = append(attrs, slog.Int("retry", d.Retry))
	}
	if late {
		attrs = append(attrs, slog.Bool("overdue", true))
	}
	if n := d.Origin.Network.Value; n != "" {
		attrs = append(attrs, slog.String("network", n))
	}
	if by := d.Origin.LoginBy; by != "" {
		attrs = append(attrs, slog.String("login_by", by))
	}
	for _, a := range [...]struct{ name, value string }{
		{"site", d.Origin.Site.Value}, {"plugin", d.Origin.Plugin.Value}, {"node", d.Origin.Node.Value}, {"template", d.Origin.Template.Value},
		{"entry", d.Origin.Call.Entry}, {"script", d.Origin.Call.Script},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.name, cut(a.value)))
		}
	}
	log := g.log
	if d.Verdict.Stops() {
		log = g.stops
	}
	log.LogAttrs(ctx, slog.LevelInfo, "verdict", attrs...)
}

// maxAttr bounds what one value from the network takes in the log, before it is
// escaped: twice an address.
const maxAttr = 512

func cut(s string) string {
	if len(s) <= maxAttr {
		return s
	}
	return s[:maxAttr-3] + "..."
}
