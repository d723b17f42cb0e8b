// Package guard stands between the wire and the policy: it gives each decision
// an id, asks the policy that is in force, and writes the one log line of each
// verdict. The trap: a message is the connection's; nothing of it may be kept
// past the call.
package guard

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"relayguard/policy"
)

// Guard asks the policy in force. It implements milter.Guard and is safe for
// concurrent use.
type Guard struct {
	policy atomic.Pointer[policy.Policy]
	ids    idSource
	log    *slog.Logger
	stops  *slog.Logger
	Counts Counts
}

// Counts are verdicts since the start, by name, of whole messages and of
// refused recipients.
type Counts struct {
	Messages [policy.Reject + 1]atomic.Int64
	Refused  atomic.Int64
	Late     atomic.Int64 // decisions that came after the MTA had been answered; in neither of the others
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
	d := g.policy.Load().Recipient(ctx, now, m, to)
	if !d.Verdict.Stops() {
		return d // the whole message gets its line at its end
	}
	if ctx.Err() == nil {
		g.Counts.Refused.Add(1)
	}
	g.seal(&d, now)
	g.record(ctx, m, &d, slog.String("stage", "rcpt"))
	return d
}

// Message implements milter.Guard.
func (g *Guard) Message(ctx context.Context, m *policy.Message) policy.Decision {
	now := time.Now()
	d := g.policy.Load().Message(ctx, now, m)
	if ctx.Err() == nil {
		g.Counts.Messages[d.Verdict].Add(1)
	}
	g.seal(&d, now)
	g.record(ctx, m, &d, slog.String("stage", "message"))
	return d
}

// seal gives the decision its id and writes it into what the client is told, so
// that who asks why can be answered.
func (g *Guard) seal(d *policy.Decision, now time.Time) {
	d.ID = g.ids.next(now)
	if d.Verdict == policy.Reject || d.Verdict == policy.Defer {
		d.Reply.Text = fmt.Sprintf("%s (%s)", d.Reply.Text, d.ID)
	}
}

// record writes the line of a verdict. Recipients are only counted: they are
// third parties.
func (g *Guard) record(ctx context.Context, m *policy.Message, d *policy.Decision, stage slog.Attr) {
	_, key := d.Origin.Account()
	attrs := make([]slog.Attr, 0, 24)
	attrs = append(attrs,
		slog.String("id", d.ID),
		slog.String("verdict", d.Verdict.String()),
		stage,
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
	if ctx.Err() != nil { // the MTA was told milter.on_timeout instead
		g.Counts.Late.Add(1)
		attrs = append(attrs, slog.Bool("overdue", true))
	}
	if n := d.Origin.Network.Value; n != "" {
		attrs = append(attrs, slog.String("network", n))
	}
	if by := d.Origin.LoginBy; by != "" {
		attrs = append(attrs, slog.String("login_by", by))
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
