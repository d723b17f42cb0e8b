package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
)

// queueOperations are those on all mail in the queue, and those on held mail that
// answer as they go.
func (d *daemon) queueOperations(m *control.Mux) {
	s, acts := d.state, &underWay{all: map[string]context.CancelFunc{}}
	control.Converse(m, "POST /v1/queue/list", control.Read, func(ctx context.Context, _ control.Peer, f desk.QueueFilter, send func(desk.QueueLine) error) error {
		defer s.garbage.bulky()()
		return askedOf(streamQueue(ctx, s.desk, f, send))
	})
	control.Handle(m, "POST /v1/queue/summary", control.Read, func(ctx context.Context, _ *http.Request, _ control.Peer, f desk.QueueFilter) (desk.QueueSummary, error) {
		defer s.garbage.bulky()()
		return asked(s.desk.QueueSummary(ctx, time.Now(), f))
	})
	control.Handle(m, "POST /v1/queue/show", control.Read, func(ctx context.Context, _ *http.Request, _ control.Peer, l desk.QueueLook) ([]desk.QueueShown, error) {
		return asked(s.desk.QueueShow(ctx, time.Now(), l))
	})
	control.Converse(m, "POST /v1/queue/act", control.Admin, func(ctx context.Context, p control.Peer, o desk.QueueOrder, send func(desk.Step) error) error {
		ctx, over := acts.begin(ctx, o.Ticket)
		defer over()
		defer s.garbage.bulky()()
		return askedOf(s.desk.ActOnQueue(ctx, time.Now(), byPeer(p), o, send))
	})
	control.Converse(m, "POST /v1/held/list/stream", control.Read, func(ctx context.Context, _ control.Peer, f desk.Filter, send func(desk.HeldLine) error) error {
		defer s.garbage.bulky()()
		return askedOf(streamHeld(ctx, s.desk, f, send))
	})
	control.Converse(m, "POST /v1/held/act/stream", control.Admin, func(ctx context.Context, p control.Peer, o desk.HeldOrder, send func(desk.Step) error) error {
		ctx, over := acts.begin(ctx, o.Ticket)
		defer over()
		defer s.garbage.bulky()()
		return askedOf(s.desk.ActOnHeld(ctx, time.Now(), byPeer(p), o, send))
	})
	control.Converse(m, "POST /v1/held/deleted/stream", control.Read, func(ctx context.Context, _ control.Peer, f desk.DeletedFilter, send func(desk.DeletedLine) error) error {
		return askedOf(streamDeleted(ctx, s.desk, f, send))
	})
	control.Converse(m, "POST /v1/held/undelete/stream", control.Admin, func(ctx context.Context, p control.Peer, o desk.DeletedOrder, send func(desk.Step) error) error {
		ctx, over := acts.begin(ctx, o.Ticket)
		defer over()
		defer s.garbage.bulky()()
		return askedOf(s.desk.ActOnDeleted(ctx, time.Now(), byPeer(p), o, send))
	})
	control.Handle(m, "POST /v1/acts/cut", control.Admin, func(_ context.Context, _ *http.Request, _ control.Peer, c desk.Cut) (nothing, error) {
		if !acts.cut(c.Ticket) {
			return nothing{}, control.Errorf(http.StatusNotFound, "no act is under way with that ticket")
		}
		return nothing{}, nil
	})
}

func askedOf(err error) error {
	_, err = asked(nothing{}, err)
	return err
}

// streamQueue streams the queue, and ends with what it came to.
func streamQueue(ctx context.Context, d *desk.Desk, f desk.QueueFilter, send func(desk.QueueLine) error) error {
	end, err := d.QueueList(ctx, time.Now(), f, func(m desk.Queued) error { return send(desk.QueueLine{Message: &m}) })
	if err != nil {
		return err
	}
	return send(desk.QueueLine{End: &end})
}

// streamHeld streams what is held, and ends with what it came to.
func streamHeld(ctx context.Context, d *desk.Desk, f desk.Filter, send func(desk.HeldLine) error) error {
	end, err := d.EachHeld(ctx, time.Now(), f, func(h desk.Held) error { return send(desk.HeldLine{Message: &h}) })
	if err != nil {
		return err
	}
	return send(desk.HeldLine{End: &end})
}

// streamDeleted streams what can be restored, and ends with what it came to.
func streamDeleted(ctx context.Context, d *desk.Desk, f desk.DeletedFilter, send func(desk.DeletedLine) error) error {
	end, err := d.EachDeleted(ctx, time.Now(), f, func(m desk.Deleted) error { return send(desk.DeletedLine{Message: &m}) })
	if err != nil {
		return err
	}
	return send(desk.DeletedLine{End: &end})
}

// underWay are bulk acts that may be told to end early. Safe for concurrent use.
type underWay struct {
	mu  sync.Mutex
	all map[string]context.CancelFunc // by ticket
}

// begin returns a context that ends early when somebody says so, or with ctx.
func (u *underWay) begin(ctx context.Context, ticket string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, taken := u.all[ticket]; ticket == "" || taken {
		return ctx, cancel
	}
	u.all[ticket] = cancel
	return ctx, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.all, ticket)
		cancel()
	}
}

func (u *underWay) cut(ticket string) (known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	cancel, known := u.all[ticket]
	if known {
		cancel()
	}
	return known
}
