package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// Options are what a trace is run through. All but the callbacks are needed.
type Options struct {
	Learning    *policy.Policy // in force for the first LearningFor of the trace
	Enforce     *policy.Policy // and then; both share board, buckets, lines and room
	LearningFor time.Duration  // 0: never

	Board    *policy.Board
	Lines    *policy.Lines
	Buckets  limit.Store
	Retries  *limit.Retries
	Accounts *Accounts
	Release  bool          // what waits for budget is let go by itself
	MaxAge   time.Duration // older mail leaves its line; 0: none does
	Bounced  int           // percent of what a line let go that may bounce

	// What the guard reads of one message; 0: all.
	Recipients   int
	HeaderBytes  int
	HeaderFields int
	BodyBytes    func(policy.Role) int // of mail that came in by a role; nil: all

	// Incidents learns of stops and of time that passes; nil: none are kept.
	Incidents Incidents
	// Progress is told of each line read; nil: nobody is.
	Progress func(line int)
}

// Incidents keeps incidents as the daemon does.
type Incidents interface {
	Stopped(now time.Time, m *policy.Message, d *policy.Decision)
	Tick(now time.Time, p *policy.Policy) // the one in force
	Open() int                            // incidents that may change as time passes
	// Abused reports whether an incident of abuse is open that concerns the message.
	Abused(w *policy.Waits, p *policy.Policy) bool
	All() []Incident // in order of time; called at the end
}

// run is a replay under way.
type run struct {
	Options
	judge    *judge
	now      time.Time
	enforced time.Time // when learning ends
	ticked   time.Time // Incidents
	stopped  time.Time // the last message
	messages int
	held     holds
	alarms   alarms
	turns    uint64 // alarms that were set
	sent     memory
	bounces  bounces
	orders   orders
	events   int
	unknown  map[string]int // events by kind
}

// Run reads the trace to its end. An error has the number of its line; it is a
// FormatError if the line is to blame.
func Run(ctx context.Context, trace *Reader, o Options) (Score, error) {
	r := &run{Options: o, judge: newJudge(), held: newHolds(), sent: newMemory(), orders: newOrders(), unknown: map[string]int{}}
	for {
		e, err := trace.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = at(trace.Line(), r.event(ctx, &e))
		}
		if err != nil {
			return Score{}, err
		}
		if r.Progress != nil {
			r.Progress(trace.Line())
		}
	}
	if r.events > 0 { // what is held by now may be let go in time
		if err := r.pass(ctx, r.now.Add(Within)); err != nil {
			return Score{}, err
		}
	}
	for _, h := range r.held.waiting {
		r.judge.add(h.label, policy.Hold, 1, h.recipients)
	}
	s := r.judge.score()
	s.Events, s.Unknown = r.events, r.unknown
	if r.Incidents != nil {
		s.Incidents = append(s.Incidents, r.Incidents.All()...)
	}
	return s, nil
}

// at gives an error the number of its line.
func at(line int, err error) error {
	var format *FormatError
	switch {
	case errors.As(err, &format):
		return &FormatError{line, format.Err}
	case err != nil:
		return fmt.Errorf("line %d: %w", line, err)
	}
	return nil
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
		return r.receive(ctx, e)
	case KindDelivery:
		return r.delivered(ctx, e)
	case KindComplaint:
		return r.complaint(e)
	case KindRelease:
		r.release(e)
		return nil
	case KindSuspend:
		return r.suspend(e)
	case KindResume:
		return r.resume(ctx, e)
	case KindLoginFailed:
		return nil // nothing that decides asks for it yet
	}
	if _, told := r.unknown[e.Kind]; told || len(r.unknown) < maxUnknown {
		r.unknown[e.Kind]++
	}
	return nil
}

// maxUnknown bounds the kinds of events that are told of and not known.
const maxUnknown = 10

// policy is the one in force.
func (r *run) policy() *policy.Policy {
	if r.now.Before(r.enforced) {
		return r.Learning
	}
	return r.Enforce
}

// receive has a message judged.
func (r *run) receive(ctx context.Context, e *Event) error {
	r.messages++
	r.settle()
	m := r.message(e)
	d, refused := r.decide(ctx, m, e)
	recipients := len(m.RcptTo) + m.RcptMore
	if recipients == 0 { // nobody is left to get it
		d = refused[0].Decision
	}
	d.ID = m.QueueID
	who := whose{d.Origin.Name(), e.Label}
	s := &sent{origin: d.Origin, queueID: m.QueueID, recipients: recipients, bounces: d.Bounces, through: !d.Verdict.Stops()}
	r.sent.put(e.ID, s)
	waits := r.Release && d.Verdict == policy.Hold && d.Waits != nil
	if err := r.judge.message(r.now, who, recipients, &d, refused, waits); err != nil {
		return err
	}
	if !s.through && recipients > 0 {
		r.stop(m, &d)
	}
	if d.Verdict == policy.Hold {
		r.hold(m, &d, who, s, waits)
	}
	return nil
}

// refusal is what became of recipients that were refused.
type refusal struct {
	policy.Decision
	recipients int
}

// decide asks as the wire does: each recipient, then the message, which goes to
// those that are left.
func (r *run) decide(ctx context.Context, m *policy.Message, e *Event) (d policy.Decision, refused []refusal) {
	p := r.policy()
	for _, to := range e.RcptTo {
		d := p.Recipient(ctx, r.now, m, to)
		switch {
		case d.Verdict.Stops():
			r.stop(m, &d)
			refused = refuse(refused, &d)
		case r.Recipients > 0 && len(m.RcptTo) >= r.Recipients:
			m.RcptMore++
		default:
			m.RcptTo = append(m.RcptTo, to)
		}
	}
	if len(m.RcptTo) > 0 {
		r.content(m, e)
		d = p.Message(ctx, r.now, m)
	}
	return d, refused
}

// refuse counts a refused recipient with those that were refused alike.
func refuse(all []refusal, d *policy.Decision) []refusal {
	for i := range all {
		if all[i].Rule == d.Rule && all[i].Verdict == d.Verdict {
			all[i].recipients++
			return all
		}
	}
	return append(all, refusal{*d, 1})
}

// stop tells of a message or a recipient that is stopped.
func (r *run) stop(m *policy.Message, d *policy.Decision) {
	r.orders.note(d)
	if r.Incidents == nil {
		return
	}
	if r.now.Sub(r.ticked) >= r.tickEvery() { // or what has ended long ago would go on
		r.tick()
	}
	r.stopped = r.now
	r.Incidents.Stopped(r.now, m, d)
}

// delivered learns what became of a message that was let go, for one recipient.
// What is told of a message that would have been stopped never happened.
func (r *run) delivered(ctx context.Context, e *Event) error {
	s := r.sent.of(e.ID)
	if s == nil || !s.through {
		return nil
	}
	r.Retries.Queued(s.queueID)
	if e.Status != "bounced" && e.Status != "expired" || s.bounced >= s.recipients {
		return nil
	}
	s.bounced++
	r.bounces.bounced(s.out)
	if len(s.bounces) == 0 {
		return nil
	}
	return r.Buckets.Add(ctx, r.now, &limit.Step{Charges: s.bounces})
}

// sent is what is remembered of a message until it is told what became of it.
type sent struct {
	origin     origin.Origin
	queueID    string
	recipients int
	bounced    int
	bounces    []limit.Charge // for each recipient that bounces
	through    bool           // it was let go, at once or later
	out        *out           // by paced release
}

// maxSent bounds the messages whose deliveries can be told; the newest are.
const maxSent = 200_000

// memory are messages by their id in the trace.
type memory struct {
	byID  map[string]*sent
	order []string // a ring
	next  int
}

func newMemory() memory { return memory{byID: map[string]*sent{}} }

// put remembers a message. One without an id is never asked for.
func (m *memory) put(id string, s *sent) {
	if id == "" {
		return
	}
	if _, again := m.byID[id]; !again {
		if len(m.order) < maxSent {
			m.order = append(m.order, id)
		} else {
			delete(m.byID, m.order[m.next])
			m.order[m.next] = id
			m.next = (m.next + 1) % maxSent
		}
	}
	m.byID[id] = s
}

func (m *memory) of(id string) *sent { return m.byID[id] }
