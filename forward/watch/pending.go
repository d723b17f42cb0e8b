package watch

import (
	"context"
	"sync"
	"time"

	"relayguard/forward"
)

// pending is what waits to be told: of each path and writer once, in the order
// of the first time.
type pending struct {
	most int
	wake chan struct{}

	mu    sync.Mutex
	order []pendingKey
	by    map[pendingKey]forward.Change
	lost  time.Time // when; zero: nothing is
}

type pendingKey struct {
	path string
	pid  int
	uid  int
}

func newPending(most int) *pending {
	return &pending{most: most, wake: make(chan struct{}, 1), by: map[pendingKey]forward.Change{}}
}

func (p *pending) add(c forward.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := pendingKey{c.Path, c.Writer.PID, c.Writer.UID}
	if _, waits := p.by[k]; waits {
		p.by[k] = c
		return
	}
	if len(p.order) >= p.most {
		p.loseLocked(c.Time)
		return
	}
	p.order = append(p.order, k)
	p.by[k] = c
	p.signal()
}

// lose puts "everything is to be read again" in the place of all that waits.
func (p *pending) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loseLocked(time.Now())
}

func (p *pending) loseLocked(when time.Time) {
	p.lost = when
	p.order = nil
	clear(p.by)
	p.signal()
}

func (p *pending) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take empties it.
func (p *pending) take() []forward.Change {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []forward.Change
	if !p.lost.IsZero() {
		all = append(all, forward.Change{Writer: forward.UnknownWriter, Time: p.lost, Lost: true})
	}
	for _, k := range p.order {
		all = append(all, p.by[k])
	}
	p.lost, p.order = time.Time{}, nil
	clear(p.by)
	return all
}

// tell hands everything over until ctx ends.
func (p *pending) tell(ctx context.Context, fn func(forward.Change)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for _, c := range p.take() {
			if ctx.Err() != nil {
				return
			}
			fn(c)
		}
	}
}
