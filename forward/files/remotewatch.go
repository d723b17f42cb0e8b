package files

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"relayguard/forward"
	"relayguard/forward/files/wire"
)

// remoteWatch is what is to be watched, and how far the helper knows it.
type remoteWatch struct {
	wake chan struct{} // the set has changed

	mu     sync.Mutex
	paths  []string
	set    uint32    // counts the sets
	known  uint32    // the last set that is in force; 0: none
	missed bool      // Watch returned when its set was not in force
	news   chan bool // closed and made anew when known or live changes
	live   bool      // connected
	method string    // of the helper; empty: not connected yet
	blind  []string  // likewise
}

const (
	watchWait   = 30 * time.Second // for a set to be in force
	redialFirst = 100 * time.Millisecond
	redialMost  = 5 * time.Second
	maxUntold   = 10_000 // changes that wait for the one who is told
)

// Method is how the helper watches; empty: it is not known, for there is no
// connection.
func (r *Remote) Method() string {
	r.watch.mu.Lock()
	defer r.watch.mu.Unlock()
	if !r.watch.live {
		return ""
	}
	return r.watch.method
}

// Blind says what the helper cannot watch, and why; as of the last Watch.
func (r *Remote) Blind() []string {
	r.watch.mu.Lock()
	defer r.watch.mu.Unlock()
	return slices.Clone(r.watch.blind)
}

// Watch replaces what is watched, as watch.Watcher's does. While Run is connected
// it returns when the set is in force. Else it returns at once, and Run tells
// Change{Lost: true} when it is.
func (r *Remote) Watch(paths []string) error {
	for _, p := range paths {
		if _, err := clean("watch", p); err != nil {
			return err
		}
		if len(p) > wire.Part {
			return wrap("watch", p[:100]+"...", errors.New("a path of more octets than can be"))
		}
	}
	w := &r.watch
	w.mu.Lock()
	w.paths = slices.Clone(paths)
	w.set++
	mine := w.set
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(watchWait)
	defer timer.Stop()
	for {
		w.mu.Lock()
		if w.known >= mine {
			w.mu.Unlock()
			return nil
		}
		if !w.live {
			w.missed = true
			w.mu.Unlock()
			return nil
		}
		news := w.newsLocked()
		w.mu.Unlock()
		select {
		case <-news:
		case <-timer.C:
			w.mu.Lock()
			w.missed = w.missed || w.known < mine
			w.mu.Unlock()
			return nil
		}
	}
}

func (w *remoteWatch) newsLocked() chan bool {
	if w.news == nil {
		w.news = make(chan bool)
	}
	return w.news
}

// change changes the state and tells those who wait for it.
func (w *remoteWatch) change(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
	if w.news != nil {
		close(w.news)
		w.news = nil
	}
}

// Run tells fn of each change until ctx ends, and returns nil then. When the
// helper cannot be reached it tries again, and tells Change{Lost: true} when
// that helped. One Run at a time.
func (r *Remote) Run(ctx context.Context, fn func(forward.Change)) error {
	t := &teller{wake: make(chan struct{}, 1)}
	var telling sync.WaitGroup
	telling.Go(func() { t.run(ctx, fn) })
	defer telling.Wait()
	for wait := redialFirst; ctx.Err() == nil; {
		worked, err := r.hearChanges(ctx, t)
		if ctx.Err() != nil {
			break
		}
		if r.Problem != nil {
			r.Problem(err)
		}
		if worked {
			wait = redialFirst
		}
		pause(ctx, wait)
		wait = min(2*wait, redialMost)
	}
	return nil
}

// hearChanges is Run over one connection. worked reports that a set came in
// force.
func (r *Remote) hearChanges(ctx context.Context, t *teller) (worked bool, err error) {
	conn, err := r.dial(ctx)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	w := &r.watch
	w.change(func() { w.live, w.known = true, 0 })
	ended := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { w.send(conn, ended) })
	defer func() {
		close(ended)
		conn.Close()
		w.change(func() { w.live, w.missed = false, w.missed || w.set > 0 })
		sending.Wait()
	}()
	in := bufio.NewReaderSize(conn, 64<<10)
	var buf []byte
	for {
		b, err := wire.ReadFrame(in, &buf)
		if err != nil {
			return worked, fmt.Errorf("hear of changes: %w: %w", ErrCut, err)
		}
		answer, err := wire.ParseResponse(b)
		if err != nil {
			return worked, fmt.Errorf("hear of changes: %w", err)
		}
		switch answer.Kind {
		case wire.Watching:
			worked = true
			w.inForce(&answer, t)
		case wire.Changes:
			for _, c := range answer.Changes {
				t.add(c)
			}
		case wire.End:
			if err := answer.Err(); err != nil {
				return worked, fmt.Errorf("hear of changes: %w", err)
			}
		}
	}
}

// inForce notes that a set is.
func (w *remoteWatch) inForce(answer *wire.Response, t *teller) {
	w.change(func() {
		w.known, w.method, w.blind = answer.ID, answer.Method, answer.Blind
		if w.missed && w.known == w.set {
			w.missed = false
			t.add(forward.Change{Lost: true, Writer: forward.UnknownWriter, Time: time.Now()})
		}
	})
}

// send sends each new set.
func (w *remoteWatch) send(conn net.Conn, ended chan struct{}) {
	sent := uint32(0)
	for {
		w.mu.Lock()
		paths, set := w.paths, w.set
		w.mu.Unlock()
		if set != sent {
			if sendSet(conn, set, paths) != nil {
				conn.Close()
				return
			}
			sent = set
		}
		select {
		case <-w.wake:
		case <-ended:
			return
		}
	}
}

func sendSet(conn net.Conn, set uint32, paths []string) error {
	for {
		n := batch(paths)
		q := wire.Request{ID: set, Verb: wire.Watch, Paths: paths[:n], More: n < len(paths)}
		conn.SetWriteDeadline(time.Now().Add(writeWait))
		if _, err := conn.Write(q.Append(nil)); err != nil {
			return err
		}
		if paths = paths[n:]; !q.More {
			return nil
		}
	}
}

// teller hands changes over, so that the one who hears them may take his time.
type teller struct {
	wake chan struct{}
	mu   sync.Mutex
	all  []forward.Change
}

func (t *teller) add(c forward.Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case c.Lost, len(t.all) >= maxUntold:
		t.all = []forward.Change{{Lost: true, Writer: forward.UnknownWriter, Time: c.Time}}
	default:
		t.all = append(t.all, c)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *teller) run(ctx context.Context, fn func(forward.Change)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		t.mu.Lock()
		all := t.all
		t.all = nil
		t.mu.Unlock()
		for _, c := range all {
			if ctx.Err() != nil {
				return
			}
			fn(c)
		}
	}
}
