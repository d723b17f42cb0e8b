package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	connections = 64
	loops       = 2 // threads of the generator in the closed loop
	parked      = 2000
	warmUp      = 300 * time.Millisecond
)

// throughput is one round of the closed loop.
type throughput struct {
	perSecond    float64 // messages
	cpu          float64 // of the milter, seconds per 10,000 messages
	generatorCPU float64
	foreign      float64 // share of the machine that others took, 0 to 1
}

// closedLoop keeps all connections busy: each sends its next message as soon as
// the last one is answered.
func closedLoop(ctx context.Context, m *running, mails []mail, window time.Duration) (throughput, error) {
	defer m.forget()
	return busy(ctx, m, window, func(i int) (*load, error) {
		l, err := newLoad(m.socket, mails)
		if err == nil {
			l.next = i * len(mails) / loops
		}
		return l, err
	})
}

// closedLoopOf is closedLoop with mail of which no two are alike.
func closedLoopOf(ctx context.Context, m *running, s *stream, window time.Duration) (throughput, error) {
	return busy(ctx, m, window, func(int) (*load, error) {
		l, err := newLoad(m.socket, []mail{s.mail()}) // from which the dialogue begins
		if err == nil {
			l.stream = s
		}
		return l, err
	})
}

// busy keeps the connections of some loads busy.
func busy(ctx context.Context, m *running, window time.Duration, open func(i int) (*load, error)) (throughput, error) {
	var stop atomic.Bool
	var group sync.WaitGroup
	all := make([]*load, loops)
	errs := make([]error, loops)
	for i := range all {
		l, err := open(i)
		if err != nil {
			return throughput{}, err
		}
		l.ready = func(c *conn) error { return c.send(time.Time{}) }
		all[i] = l
	}
	for i, l := range all {
		group.Go(func() {
			defer l.close()
			errs[i] = l.run(&stop, connections/loops)
		})
	}
	count := func() (n int64) {
		for _, l := range all {
			n += l.messages.Load()
		}
		return n
	}
	pause(ctx, warmUp)
	before, err := takeMeter(m.process, count())
	pause(ctx, window)
	after, err2 := takeMeter(m.process, count())
	stop.Store(true)
	group.Wait()
	for _, err := range append(errs, err, err2, ctx.Err()) {
		if err != nil {
			return throughput{}, fmt.Errorf("%s, closed loop: %w", m.name, err)
		}
	}
	return after.since(before)
}

// run opens connections and serves them until stop.
func (l *load) run(stop *atomic.Bool, n int) error {
	if err := l.connect(n); err != nil {
		return err
	}
	last, since := int64(0), time.Now()
	for !stop.Load() {
		if _, err := l.poll(100 * time.Millisecond); err != nil {
			return err
		}
		if err := l.notStalled(&last, &since); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) notStalled(last *int64, since *time.Time) error {
	n := l.messages.Load()
	if n != *last {
		*last, *since = n, time.Now()
		return nil
	}
	if time.Since(*since) > stall {
		return fmt.Errorf("no answer for %v", stall)
	}
	return nil
}

// meter is what is read at both ends of a window.
type meter struct {
	at                   time.Time
	messages             int64
	milter, own, machine float64 // seconds of CPU
}

func takeMeter(p *process, messages int64) (meter, error) {
	cpu, err := p.cpu()
	return meter{time.Now(), messages, cpu, ownCPU(), machineCPU()}, err
}

func (m meter) since(b meter) (throughput, error) {
	n, seconds := float64(m.messages-b.messages), m.at.Sub(b.at).Seconds()
	if n == 0 {
		return throughput{}, fmt.Errorf("no message in %.1f s", seconds)
	}
	ours := m.milter - b.milter + m.own - b.own
	others := m.machine - b.machine - ours
	return throughput{
		perSecond:    n / seconds,
		cpu:          (m.milter - b.milter) / n * 1e4,
		generatorCPU: (m.own - b.own) / n * 1e4,
		foreign:      min(max(others/seconds/float64(processors), 0), 1),
	}, nil
}

// latency is one round of the open loop.
type latency struct {
	messageP50, messageP99 time.Duration // from when the message was due to the answer at its end
	dotP50, dotP99         time.Duration // from the client's final dot to that answer
	messages               int
}

// openLoop sends messages at a fixed rate, whatever the answers take: one that
// finds no free connection waits, and its latency counts from when it was due.
func openLoop(ctx context.Context, m *running, mails []mail, rate float64, window time.Duration) (latency, error) {
	fail := func(err error) (latency, error) { return latency{}, fmt.Errorf("%s, open loop: %w", m.name, err) }
	l, err := newLoad(m.socket, mails)
	if err != nil {
		return fail(err)
	}
	defer l.close()
	period := time.Duration(float64(time.Second) / rate)
	total := int((warmUp + window) / period)
	s := schedule{load: l, period: period, skip: int(warmUp / period)}
	l.ready, l.sent = s.ready, s.sent
	if err := l.connect(connections); err != nil {
		return fail(err)
	}
	for deadline := time.Now().Add(stall); len(s.free) < connections; {
		if _, err := l.poll(10 * time.Millisecond); err != nil {
			return fail(err)
		}
		if time.Now().After(deadline) {
			return fail(fmt.Errorf("not connected after %v", stall))
		}
	}
	t, err := newTicker(period)
	if err != nil {
		return fail(err)
	}
	defer t.close()
	if err := l.poller.add(t.fd, -1); err != nil {
		return fail(err)
	}
	s.start = time.Now()
	deadline := s.start.Add(2*(warmUp+window) + stall)
	for s.done < total {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		if time.Now().After(deadline) {
			return fail(fmt.Errorf("%d of %d messages answered in %v", s.done, total, time.Since(s.start)))
		}
		ticked, err := l.poll(100 * time.Millisecond)
		if err != nil {
			return fail(err)
		}
		if ticked {
			s.due = min(s.due+t.ticks(), total)
		}
		if err := s.dispatch(); err != nil {
			return fail(err)
		}
	}
	m.forget()
	return s.latency(), nil
}

// schedule hands messages that are due to connections that are free.
type schedule struct {
	load      *load
	start     time.Time
	period    time.Duration
	due, next int // messages due by now; the next to be handed out
	skip      int // the first so many are warming up
	done      int
	free      []*conn

	message, dot []time.Duration
}

func (s *schedule) ready(c *conn) error {
	s.free = append(s.free, c)
	return s.dispatch()
}

func (s *schedule) dispatch() error {
	for s.next < s.due && len(s.free) > 0 {
		c := s.free[0] // the one that is idle longest, as with separate clients
		s.free = slices.Delete(s.free, 0, 1)
		s.next++
		if err := c.send(s.start.Add(time.Duration(s.next) * s.period)); err != nil {
			return err
		}
	}
	return nil
}

func (s *schedule) sent(c *conn) {
	now := time.Now()
	if s.done++; s.done > s.skip {
		s.message = append(s.message, now.Sub(c.scheduled))
		s.dot = append(s.dot, now.Sub(c.dot))
	}
}

func (s *schedule) latency() latency {
	slices.Sort(s.message)
	slices.Sort(s.dot)
	return latency{
		messageP50: percentile(s.message, 0.5), messageP99: percentile(s.message, 0.99),
		dotP50: percentile(s.dot, 0.5), dotP99: percentile(s.dot, 0.99),
		messages: len(s.message),
	}
}

// residence is the memory of a milter in MB.
type residence struct {
	afterLoad, peakOfLoad float64
	parked                float64 // with many open connections
}

// park opens many connections, sends a message on each, and looks at the
// milter's memory while all are open.
func park(ctx context.Context, m *running, mails []mail) (residence, error) {
	fail := func(err error) (residence, error) {
		return residence{}, fmt.Errorf("%s, %d connections: %w", m.name, parked, err)
	}
	var r residence
	var err error
	pause(ctx, 500*time.Millisecond) // the connections of the load are gone by then
	if r.afterLoad, r.peakOfLoad, err = m.memory(); err != nil {
		return fail(err)
	}
	l, err := newLoad(m.socket, mails)
	if err != nil {
		return fail(err)
	}
	defer l.close()
	l.ready = func(c *conn) error {
		if c.left < perConnection {
			return nil // it had its message
		}
		return c.send(time.Time{})
	}
	deadline := time.Now().Add(stall)
	for len(l.conns) < parked {
		// A few at a time, as clients come.
		if err := l.connect(min(50, parked-len(l.conns))); err != nil {
			return fail(err)
		}
		for l.messages.Load() < int64(len(l.conns)) {
			if _, err := l.poll(100 * time.Millisecond); err != nil {
				return fail(err)
			}
			if time.Now().After(deadline) || ctx.Err() != nil {
				return fail(fmt.Errorf("%d messages answered in %v", l.messages.Load(), stall))
			}
		}
	}
	pause(ctx, time.Second)
	if r.parked, _, err = m.memory(); err != nil {
		return fail(err)
	}
	m.forget()
	return r, ctx.Err()
}

// pause waits, or less if the program is to end.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
