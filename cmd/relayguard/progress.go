package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"relayguard/cmd/internal/render"
)

// progress tells how far something is, if it takes a while: on one line of a
// terminal that is written anew, elsewhere on a line of its own every few seconds.
// Stop it before anything else is written there. Safe for concurrent use; nil
// tells nothing.
type progress struct {
	w    io.Writer
	page render.Page

	mu    sync.Mutex
	text  string
	quit  chan struct{}
	ended chan struct{}
}

// How often it is told: to somebody who looks, and to a log.
const (
	progressSeen   = 200 * time.Millisecond
	progressLogged = 5 * time.Second
)

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, page: render.PageOf(w), quit: make(chan struct{}), ended: make(chan struct{})}
	go p.tell()
	return p
}

// set says how far it is now.
func (p *progress) set(text string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.text = text
	p.mu.Unlock()
}

// stop clears the line. A second call does nothing.
func (p *progress) stop() {
	if p == nil {
		return
	}
	p.mu.Lock()
	select {
	case <-p.quit:
	default:
		close(p.quit)
	}
	p.mu.Unlock()
	<-p.ended
}

func (p *progress) tell() {
	defer close(p.ended)
	every := progressLogged
	if p.page.Cut {
		every = progressSeen
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for told := ""; ; {
		select {
		case <-p.quit:
			if told != "" && p.page.Cut {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		case <-tick.C:
			p.mu.Lock()
			text := render.Escape(p.text)
			p.mu.Unlock()
			if text == told || text == "" {
				continue
			}
			told = text
			if p.page.Cut {
				fmt.Fprint(p.w, "\r"+render.Lines(text, p.page.Width-1)[0]+"\x1b[K")
			} else {
				fmt.Fprintln(p.w, text)
			}
		}
	}
}

// progressLine writes how far something is on one line of a terminal, and only if it
// takes a while; form has two %d, done and all. Elsewhere it writes nothing, and
// progress is nil. Call stop before writing anything else; a second call does nothing.
func progressLine(w io.Writer, form string) (stop func(), tell func(done, all int)) {
	if !render.PageOf(w).Cut { // no terminal
		return func() {}, nil
	}
	p := newProgress(w)
	return p.stop, func(done, all int) {
		if all > 0 {
			p.set(fmt.Sprintf(form, done, all))
		}
	}
}
