package watchhelper

import (
	"context"
	"errors"
	"sync"

	"relayguard/forward"
	"relayguard/forward/files/wire"
	"relayguard/forward/watch"
)

// maxWatched bounds the octets of what a connection watches.
const maxWatched = 256 << 20

// watching is the watch of one connection.
type watching struct {
	watcher *watch.Watcher
	cancel  context.CancelFunc
	work    sync.WaitGroup
	leave   func()

	paths  []string // of a set that has not come whole
	octets int
}

// watch takes a frame of a set, and puts it in force when it is whole.
func (c *session) watch(ctx context.Context, q wire.Request) error {
	if c.watching == nil {
		if err := c.beginWatch(ctx); err != nil {
			return err
		}
	}
	w := c.watching
	for _, p := range q.Paths {
		w.octets += len(p)
	}
	if w.octets > maxWatched {
		return errors.New("more paths than are watched")
	}
	w.paths = append(w.paths, q.Paths...)
	if q.More {
		return nil
	}
	paths := w.paths
	w.paths, w.octets = nil, 0
	if err := w.watcher.Watch(paths); err != nil {
		c.Log.Warn("some paths are not watched", "error", err)
	}
	blind := w.watcher.Blind()
	c.Log.Info("watching", "method", w.watcher.Method(), "paths", len(paths), "blind", blind)
	return c.send(&wire.Response{ID: q.ID, Kind: wire.Watching, Method: w.watcher.Method(), Blind: blind})
}

func (c *session) beginWatch(ctx context.Context) error {
	select {
	case c.watches <- struct{}{}:
	default:
		return errors.New("too many connections watch")
	}
	watcher, err := watch.New(watch.Options{Log: c.Log, Method: c.Method})
	if err != nil {
		<-c.watches
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{watcher: watcher, cancel: cancel, leave: func() { <-c.watches }}
	c.watching = w
	w.work.Go(func() {
		err := watcher.Run(ctx, func(change forward.Change) {
			c.send(&wire.Response{Kind: wire.Changes, Changes: []forward.Change{change}})
		})
		if err != nil {
			c.Log.Error("the watch ended", "error", err)
			c.end(0, err, forward.Info{})
			c.conn.Close()
		}
	})
	return nil
}

func (w *watching) end() {
	w.cancel()
	w.work.Wait()
	w.leave()
}
