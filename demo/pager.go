package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// pager plays a machine that gets the guard's alerts and that nobody who owns the
// mail server can silence: what alert.webhook names.
type pager struct {
	URL    string
	server *http.Server

	mu   sync.Mutex
	got  []page
	more chan struct{} // closed with the next page
}

// page is one alert, as far as the demo reads it.
type page struct {
	Event  string `json:"event"`
	Text   string `json:"text"`
	Detail struct {
		Kind     string `json:"kind"`
		Count    int    `json:"count"`
		Forwards []struct {
			ID    string `json:"id"`
			Owner string `json:"owner"`
		} `json:"forwards"`
	} `json:"detail"`
}

// newPager listens on loopback. Close it.
func newPager() (*pager, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for alerts: %w", err)
	}
	p := &pager{URL: "http://" + l.Addr().String() + "/", more: make(chan struct{})}
	p.server = &http.Server{Handler: p, ReadTimeout: 10 * time.Second}
	go p.server.Serve(l) // Close ends it
	return p, nil
}

// ServeHTTP takes one alert.
func (p *pager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var posted struct {
		Alert page `json:"alert"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&posted); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, posted.Alert)
	close(p.more)
	p.more = make(chan struct{})
}

// wait returns the first alert that is wanted, as soon as it is there.
func (p *pager) wait(ctx context.Context, wanted func(*page) bool) (page, error) {
	for seen := 0; ; {
		p.mu.Lock()
		got, more := p.got, p.more
		p.mu.Unlock()
		for ; seen < len(got); seen++ {
			if wanted(&got[seen]) {
				return got[seen], nil
			}
		}
		select {
		case <-ctx.Done():
			return page{}, fmt.Errorf("wait for an alert, after %d others: %w", seen, ctx.Err())
		case <-more:
		}
	}
}

// Close implements io.Closer.
func (p *pager) Close() error {
	if err := p.server.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
