package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// Options are what a trace is run through. All but the callbacks are needed.
type Options struct {
	Learning    *policy.Policy // in force for the first LearningFor of the trace
	Enforce     *policy.Policy // and then; both share board, buckets and lines
	LearningFor time.Duration  // 0: never

	Board    *policy.Board
	Lines    *policy.Lines
	Buckets  limit.Store
	Retries  *limit.Retries
	Accounts *Accounts
	Release  bool          // what waits for budget is let go by itself
	MaxAge   time.Duration // older mail leaves its line
	Bounced  int           // percent of what a line let go that may bounce

	// Incidents learns of stops and of time that passes; nil: none are kept.
	Incidents Incidents
	// Progress is told of each line read; nil: nobody is.
	Progress func(line int)
}

// Incidents keeps incidents as the daemon does.
type Incidents interface {
	Stopped(now time.Time, m *policy.Message, d *policy.Decision)
	Tick(now time.Time)
	Busy() bool // something changes as time passes
	Abused(account string) bool
	All() []Incident
}

// run is a replay under way.
type run struct {
	Options
	judge    *judge
	now      time.Time
	enforced time.Time // when learning ends
	ticked   time.Time // of Incidents
	messages int
	waits    map[string]*waiting // by decision id
	sent     map[string]*sent    // by id of the trace, what was let through
	bounces  map[string]*fate    // of paced release, by origin
	events   int
}

// waiting is a message that is held for want of budget.
type waiting struct {
	id, origin, label string
	since             time.Time
	recipients        int
	sent              *sent
	waits             *policy.Waits
	freeAt            time.Time // it is not asked for before
}

// sent is what is remembered of a message until its deliveries are told.
type sent struct {
	origin  string
	bounces []limit.Charge
	through bool // it was let go, at once or paced
	paced   bool
}

// fate counts what became of what paced release let go.
type fate struct{ sent, bounced int }

// maxSent bounds what is remembered for deliveries; the newest are.
const maxSent = 200_000

// tickEvery is how often incidents are looked at.
const tickEvery = time.Minute

// Run reads the trace to its end. An error has the number of its line.
func Run(ctx context.Context, trace *Reader, o Options) (Score, error) {
	r := &run{Options: o, judge: newJudge(), waits: map[string]*waiting{}, sent: map[string]*sent{}, bounces: map[string]*fate{}}
	for {
		e, err := trace.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			if err = r.event(ctx, &e); err != nil {
				err = fmt.Errorf("line %d: %w", trace.Line(), err)
			}
		}
		if err != nil {
			return Score{}, err
		}
		if r.Progress != nil {
			r.Progress(trace.Line())
		}
	}
	if err := r.finish(ctx); err != nil {
		return Score{}, err
	}
	s := r.judge.score()
	s.Events = r.events
	if r.Incidents != nil {
		s.Incidents = append(s.Incidents, r.Incidents.All()...)
	}
	return s, nil
}

// event lets time pass up to an event, and has it happen.
func (r *run) event(ctx context.Context, e *Event) error {
	if r.events++; r.events == 1 {
		r.now, r.ticked, r.enforced = e.Time, e.Time, e.Time.Add(r.LearningFor)
	}
	if err := r.pass(ctx, e.Time); err != nil {
		return err
	}
	switch e.Kind {
	case KindMessage:
		r.receive(ctx, e)
		return nil
	case KindDelivery:
		return r.delivered(ctx, e)
	case KindComplaint:
		r.complaint(e)
		return nil
	case KindRelease:
		r.release(e.Origin)
		return nil
	case KindSuspend, KindResume:
		return r.pull(e)
	}
	return nil // login_failed and what later versions write
}

// finish lets the last waiting mail run out of its line, or be let go.
func (r *run) finish(ctx context.Context) error {
	if len(r.waits) > 0 {
		if err := r.pass(ctx, r.now.Add(Within+time.Second)); err != nil {
			return err
		}
	}
	for _, w := range r.waits {
		r.judge.add(w.label, policy.Hold, w.recipients)
	}
	return nil
}

// policy is the one in force.
func (r *run) policy() *policy.Policy {
	if r.now.Before(r.enforced) {
		return r.Learning
	}
	return r.Enforce
}

// receive has a message judged.
func (r *run) receive(ctx context.Context, e *Event) {
	r.messages++
	p, m := r.policy(), r.message(e)
	d := r.decide(ctx, p, m)
	name, recipients := d.Origin.Name(), len(m.RcptTo)
	d.ID = m.QueueID
	s := &sent{origin: name, bounces: d.Bounces, through: !d.Verdict.Stops()}
	if e.ID != "" && len(r.sent) < maxSent {
		r.sent[e.ID] = s
	}
	if s.through {
		r.Retries.Queued(m.QueueID) // recorded traffic was queued
	} else if r.Incidents != nil {
		r.Incidents.Stopped(r.now, m, &d)
	}
	waits := r.Release && d.Verdict == policy.Hold && d.Waits != nil
	r.judge.message(r.now, name, e.Label, recipients, &d, waits)
	if waits {
		r.waits[d.ID] = &waiting{id: d.ID, origin: name, label: e.Label, since: r.now, recipients: recipients, sent: s, waits: d.Waits}
		r.Lines.Add(policy.Waiting{ID: d.ID, QueueID: m.QueueID, HeldAt: r.now, Size: m.Size, Recipients: recipients, Waits: d.Waits})
	}
}

// decide asks as the wire does: each recipient, then the message. A recipient
// that is refused gets nothing; a message without any is refused.
func (r *run) decide(ctx context.Context, p *policy.Policy, m *policy.Message) policy.Decision {
	all := m.RcptTo
	m.RcptTo = nil
	var refused policy.Decision
	header := m.Header
	m.Header = policy.Header{} // not known before the end
	for _, to := range all {
		d := p.Recipient(ctx, r.now, m, to)
		if d.Verdict.Stops() {
			refused = d
			continue
		}
		m.RcptTo = append(m.RcptTo, to)
	}
	m.Header = header
	if len(m.RcptTo) == 0 {
		m.RcptTo = all
		return refused
	}
	return p.Message(ctx, r.now, m)
}

// delivered learns what became of a message that was let go.
func (r *run) delivered(ctx context.Context, e *Event) error {
	s := r.sent[e.ID]
	if s == nil || !s.through {
		return nil
	}
	bounced := e.Status == "bounced" || e.Status == "expired"
	if s.paced {
		f := r.bounces[s.origin]
		if f.sent++; bounced {
			f.bounced++
		}
	}
	if !bounced || len(s.bounces) == 0 {
		return nil
	}
	return r.Buckets.Add(ctx, r.now, &limit.Step{Charges: s.bounces})
}

// complaint ends the paced release of an origin.
func (r *run) complaint(e *Event) {
	name := "login:" + strings.ToLower(e.Login)
	if s := r.sent[e.ID]; s != nil {
		name = s.origin
	}
	r.fateOf(name).bounced = 1 << 30
}

// release lets an origin's held mail go by an admin's word, uncharged. What a
// configuration would have held stays held in the score.
func (r *run) release(name string) {
	for id, w := range r.waits {
		if w.origin == name {
			w.sent.through = true
			r.judge.add(w.label, policy.Hold, w.recipients)
			r.drop(id)
		}
	}
}

// pull suspends or resumes an origin.
func (r *run) pull(e *Event) error {
	s, err := r.switchOf(e)
	if err != nil {
		return err
	}
	var all []policy.Switch
	for _, o := range r.Board.Load().All() {
		if o.Kind != s.Kind || o.About() != s.About() {
			all = append(all, o)
		}
	}
	if e.Kind == KindSuspend {
		all = append(all, s)
	}
	r.Board.Store(policy.NewSwitches(all))
	return nil
}

func (r *run) switchOf(e *Event) (policy.Switch, error) {
	kind, value, _ := strings.Cut(e.Origin, ":")
	s := policy.Switch{ID: e.Origin, Kind: policy.Suspend, Value: value, Reason: "the trace says so", By: "replay", Since: e.Time}
	switch kind {
	case "login":
		s.Subject = policy.SubjectLogin
	case "local_user":
		s.Subject, s.Value = policy.SubjectLocalUser, fmt.Sprint(r.Accounts.UID(value, nil))
	case "network":
		s.Subject = policy.SubjectTrusted
	default:
		return s, fmt.Errorf("%s: found origin %q, want login:NAME, local_user:NAME or network:NAME", e.Kind, e.Origin)
	}
	return s, s.Check()
}
