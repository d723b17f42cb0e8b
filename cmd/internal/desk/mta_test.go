package desk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/cmd/internal/queue"
	"relayguard/mta"
)

// mta is a queue in memory, with the semantics of queue.Direct over Postfix: it
// compares each target before it acts, and touches only the queues concerned.
type mailServer struct {
	queue.Operator // nil: what is not below is not asked for here

	mu        sync.Mutex
	files     []mta.QueueFile
	texts     map[string]string // by id
	acts      []string          // "release 3F1"
	calls     map[string]int    // of acts, by verb
	forbidden map[string]bool
	stopped   bool
	stopGone  []string // settings of the stop that somebody changed
	byStop    []mta.Target
	grace     []string          // ids of deleted mail
	tooOld    map[string]string // id that a release requeues, and its new one

	// What goes wrong. The maps are by verb; before and after see the call that
	// has not yet, or has, done it; an error of theirs is what the caller gets.
	before, after map[string]func() error
	unsure        map[string]bool // ids whose result is ErrUnsure; true: it was done
	fails         map[string]error
	miss          map[string]int // ids that so many scans do not see
	skipped       int            // lines that a scan cannot read
	remark        error          // beside the results of a release
	stopError     error          // beside what Stop held
}

var _ queue.Operator = (*mailServer)(nil)

func newMTA() *mailServer {
	return &mailServer{texts: map[string]string{}, calls: map[string]int{}, forbidden: map[string]bool{}, tooOld: map[string]string{}, before: map[string]func() error{},
		after: map[string]func() error{}, unsure: map[string]bool{}, fails: map[string]error{}, miss: map[string]int{}}
}

func (m *mailServer) put(q mta.QueueFile) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = append(m.files, q)
}

// set changes the fake while it may be in use.
func (m *mailServer) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// where is the queue that has a message, "" for none.
func (m *mailServer) where(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, q := range m.files {
		if q.ID == id {
			return q.Queue
		}
	}
	return ""
}

func (m *mailServer) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = slices.DeleteFunc(m.files, func(q mta.QueueFile) bool { return q.ID == id })
}

func (m *mailServer) did() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.acts)
}

// hook runs one without the lock: it may look into the queue.
func (m *mailServer) hook(hooks map[string]func() error, verb string) error {
	m.mu.Lock()
	f := hooks[verb]
	m.mu.Unlock()
	if f == nil {
		return nil
	}
	return f()
}

func (m *mailServer) List(ctx context.Context, fn func(mta.QueueFile) error) error {
	if err := errors.Join(ctx.Err(), m.hook(m.before, "list")); err != nil {
		return err
	}
	m.mu.Lock()
	all := slices.Clone(m.files)
	all = slices.DeleteFunc(all, func(q mta.QueueFile) bool {
		missed := m.miss[q.ID] > 0
		if missed {
			m.miss[q.ID]--
		}
		return missed
	})
	skipped := m.skipped
	m.mu.Unlock()
	for _, q := range all {
		if err := fn(q); err != nil {
			return err
		}
	}
	if skipped > 0 {
		return &mta.SkippedError{Lines: skipped, First: errors.New("a line that is too long")}
	}
	return m.hook(m.after, "list")
}

// act changes each message that matches and is in one of the queues.
func (m *mailServer) act(ctx context.Context, verb string, targets []mta.Target, from []string, change func(q *mta.QueueFile) (newID string)) ([]mta.Result, error) {
	m.set(func() { m.calls[verb]++ })
	if err := errors.Join(ctx.Err(), m.hook(m.before, verb)); err != nil {
		return nil, err
	}
	m.mu.Lock()
	results := make([]mta.Result, len(targets))
	place := make(map[string][]int, len(m.files))
	for i, q := range m.files {
		place[q.ID] = append(place[q.ID], i)
	}
	for n, t := range targets {
		results[n] = mta.Result{ID: t.ID, Fate: mta.Gone}
		unsure, isUnsure := m.unsure[t.ID]
		if err := m.fails[t.ID]; err != nil {
			results[n].Fate, results[n].Err = mta.Failed, err
			continue
		}
		for _, i := range place[t.ID] {
			q := &m.files[i]
			if !slices.Contains(from, q.Queue) {
				continue
			}
			if !t.Matches(*q) {
				if results[n].Fate != mta.Done { // else that was of another instance
					results[n].Fate = mta.Changed
				}
				continue
			}
			results[n].Fate = mta.Done
			if !isUnsure || unsure {
				m.acts = append(m.acts, verb+" "+t.ID)
				results[n].NewID = change(q)
			}
		}
		if isUnsure {
			results[n] = mta.Result{ID: t.ID, Err: fmt.Errorf("%s: %w", verb, queue.ErrUnsure)}
		}
	}
	m.files = slices.DeleteFunc(m.files, func(q mta.QueueFile) bool { return q.Queue == "" })
	m.mu.Unlock()
	if err := m.hook(m.after, verb); err != nil {
		return nil, err
	}
	return results, nil
}

var onItsWay = []string{"incoming", "active", "deferred"}

func (m *mailServer) Hold(ctx context.Context, targets []mta.Target, reason string) ([]mta.Result, error) {
	return m.act(ctx, "hold", targets, onItsWay, func(q *mta.QueueFile) string { q.Queue = "hold"; return "" })
}

func (m *mailServer) Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	results, err := m.act(ctx, "release", targets, []string{"hold"}, func(q *mta.QueueFile) string {
		q.Queue = "active"
		if id := m.tooOld[q.ID]; id != "" {
			q.ID = id
			return id
		}
		return ""
	})
	if err == nil {
		err = m.remark
	}
	return results, err
}

func (m *mailServer) Delete(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return m.act(ctx, "delete", targets, []string{"hold"}, func(q *mta.QueueFile) string {
		m.grace = append(m.grace, q.ID)
		q.Queue = ""
		return ""
	})
}

func (m *mailServer) DeleteForGood(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return m.act(ctx, "delete for good", targets, []string{"hold"}, func(q *mta.QueueFile) string {
		q.Queue = ""
		return ""
	})
}

func (m *mailServer) DeleteQueued(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return m.act(ctx, "delete queued", targets, append([]string{"hold"}, onItsWay...), func(q *mta.QueueFile) string {
		m.grace = append(m.grace, q.ID)
		q.Queue = ""
		return ""
	})
}

// Requeue gives a message the id that tooOld says, or its own with an R before it.
func (m *mailServer) Requeue(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return m.act(ctx, "requeue", targets, append([]string{"hold"}, onItsWay...), func(q *mta.QueueFile) string {
		q.Queue, q.ID = "incoming", "R"+q.ID
		return q.ID
	})
}

func (m *mailServer) show(ctx context.Context, verb string, t mta.Target) ([]byte, error) {
	if err := errors.Join(ctx.Err(), m.hook(m.before, verb)); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acts = append(m.acts, verb+" "+t.ID)
	for _, q := range m.files {
		if q.ID == t.ID && q.Queue == "hold" && t.Matches(q) {
			if text, cut := strings.CutSuffix(m.texts[q.ID], "..."); cut {
				return []byte(text), fmt.Errorf("show message %s: %w", t.ID, mta.ErrCut)
			}
			return []byte(m.texts[q.ID]), nil
		}
	}
	return nil, mta.ErrGone
}

func (m *mailServer) Headers(ctx context.Context, t mta.Target) ([]byte, error) {
	return m.show(ctx, "headers", t)
}

func (m *mailServer) Content(ctx context.Context, t mta.Target) ([]byte, error) {
	return m.show(ctx, "content", t)
}

// Stop holds what is on its way to the outside: recipients at example.net.
func (m *mailServer) Stop(ctx context.Context) (mta.Stopped, error) {
	if err := errors.Join(ctx.Err(), m.hook(m.before, "stop")); err != nil {
		return mta.Stopped{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out mta.Stopped
	out.Already, m.stopped = m.stopped, true
	for i := range m.files {
		q := &m.files[i]
		inside := slices.ContainsFunc(q.Recipients, func(to string) bool { return !strings.HasSuffix(to, "@example.net") })
		if !slices.Contains(onItsWay, q.Queue) || inside {
			continue
		}
		if err := m.fails[q.ID]; err != nil {
			out.Failed = append(out.Failed, mta.Result{ID: q.ID, Err: err})
			continue
		}
		out.Held, m.byStop = append(out.Held, *q), append(m.byStop, q.Target())
		q.Queue = "hold"
	}
	return out, m.stopError
}

func (m *mailServer) Start(ctx context.Context, keep bool) (mta.Started, error) {
	if err := errors.Join(ctx.Err(), m.hook(m.before, "start")); err != nil {
		return mta.Started{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopped {
		return mta.Started{}, fmt.Errorf("start outgoing mail: %w", mta.ErrNotStopped)
	}
	out := mta.Started{Kept: m.byStop}
	if !keep { // for a desk without a journal alone: else it lets go of mail itself
		out = mta.Started{}
		for i := range m.files {
			q := &m.files[i]
			if q.Queue == "hold" && slices.ContainsFunc(m.byStop, func(t mta.Target) bool { return t.Matches(*q) }) {
				q.Queue = "active"
				out.Released = append(out.Released, mta.Result{ID: q.ID, Fate: mta.Done})
			}
		}
	}
	m.stopped, m.byStop = false, nil
	return out, nil
}

func (m *mailServer) ForbidSubmit(ctx context.Context, user string) error {
	return m.submit(ctx, "forbid", user, true)
}

func (m *mailServer) AllowSubmit(ctx context.Context, user string) error {
	return m.submit(ctx, "allow", user, false)
}

func (m *mailServer) submit(ctx context.Context, verb, user string, forbidden bool) error {
	if err := errors.Join(ctx.Err(), m.hook(m.before, verb)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acts = append(m.acts, verb+" "+user)
	m.forbidden[user] = forbidden
	return nil
}

// Status is what it stops.
func (m *mailServer) Status(ctx context.Context) (queue.Status, error) {
	if err := errors.Join(ctx.Err(), m.hook(m.before, "status")); err != nil {
		return queue.Status{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var s queue.Status
	s.Stop = mta.StopStatus{Stopped: m.stopped, Held: len(m.byStop), Missing: m.stopGone}
	for name, is := range m.forbidden {
		if is {
			s.Forbidden = append(s.Forbidden, name)
		}
	}
	return s, nil
}

// file is a message on hold with one recipient outside.
func file(id string, arrival time.Time) mta.QueueFile {
	return mta.QueueFile{Queue: "hold", ID: id, Arrival: arrival.Truncate(time.Second), Size: 1000, Sender: "taro@example.jp", Recipients: []string{"a@example.net"}}
}
