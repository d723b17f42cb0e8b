package main

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"relayguard/cmd/internal/render"
)

// progressLine writes how far something is on one line of a terminal, and only if it
// takes a while; form has two %d, done and all. Elsewhere it writes nothing, and
// progress is nil. Call stop before writing anything else; a second call does nothing.
func progressLine(w io.Writer, form string) (stop func(), progress func(done, all int)) {
	if !render.PageOf(w).Cut { // no terminal
		return func() {}, nil
	}
	var done, all atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for shown := false; ; {
			select {
			case <-ctx.Done():
				if shown {
					fmt.Fprint(w, "\r\x1b[K")
				}
				return
			case <-tick.C:
				if n := all.Load(); n > 0 {
					shown = true
					fmt.Fprintf(w, "\r"+form+"\x1b[K", done.Load(), n)
				}
			}
		}
	}()
	return func() { cancel(); <-ended }, func(d, n int) {
		done.Store(int64(d))
		all.Store(int64(n))
	}
}
