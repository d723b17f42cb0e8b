package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Goals of commands over a large queue.
const (
	mostFirstLineSeconds = 1
	mostQueueMB          = 100 // of each of our processes
)

// mostQueued is as many as there are ids for.
const mostQueued = 250_000

// queueLimit bounds each part of what is measured, whatever hangs: the others have
// their turn.
const queueLimit = 10 * time.Minute

// queueConfig has room for any stock, and copies of all that is deleted.
const queueConfig = "[hold]\norigin_messages = 1000000\nserver_messages = 1000000\ngrace_bytes = 10000000000\nrelease = false\n"

// queue measures commands over a large queue of a private Postfix and a private
// Sendmail, with daemon and root helper. What fails is said and loses nothing else.
func (b *bench) queue(ctx context.Context) error {
	for _, server := range queueServers {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.queueOf(ctx, server)
	}
	return nil
}

func (b *bench) queueOf(ctx context.Context, server *queueServer) {
	failed := func(what string, err error) {
		if err != nil {
			b.skipped = append(b.skipped, fmt.Sprintf("queue/%s/%s: %v", server.name, what, err))
		}
	}
	at := &queueBench{bench: b, server: server, table: &queueTable{server: server.name, each: b.queued}}
	var err error
	b.progress("queue: %s, %d messages and as many held", server.name, b.queued)
	if at.stock, err = b.takeStock(ctx, server); err != nil {
		failed("all", err)
		return
	}
	b.queues = append(b.queues, at.table)
	failed("lists", at.within(ctx, "lists", at.lists))
	failed("references of acts", at.within(ctx, "the server's own tools", at.plainActs))
	for _, act := range queueActs {
		failed(act.name, at.within(ctx, act.name, func(ctx context.Context, h *queueHouse) error { return at.act(ctx, h, act) }))
	}
}

// queueBench measures one mail server.
type queueBench struct {
	*bench
	server *queueServer
	stock  *stock
	table  *queueTable
	plain  map[string]cost // of acts, by verb
}

// within measures something over a queue that has the whole stock.
func (b *queueBench) within(ctx context.Context, what string, do func(context.Context, *queueHouse) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, queueLimit)
	defer cancel()
	b.progress("queue: %s, %s: making the queue", b.server.name, what)
	h, err := b.furnish(ctx, b.server, b.stock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	b.progress("queue: %s, %s", b.server.name, what)
	return do(ctx, h)
}

// lists measures what looks at the whole queue.
func (b *queueBench) lists(ctx context.Context, h *queueHouse) error {
	if err := b.stock.guarded(ctx, h); err != nil {
		return err
	}
	each := b.stock.each
	all := []*struct {
		name    string
		titles  int
		least   int // lines
		goal    bool
		plain   *plainTool
		took    []ours
		plainly []cost
	}{
		{name: "queue list", titles: 1, least: 2 * each, goal: true, plain: &b.server.list},
		{name: "queue summary", least: 1, plain: &b.server.list},
		{name: "held list", titles: 1, least: each, goal: true, plain: b.server.held},
	}
	var failed error
	for round := range min(b.rounds, 3) {
		for _, l := range all {
			b.progress("queue: %s, %s, round %d", b.server.name, l.name, round+1)
			took, err := h.measured(func() (cost, error) {
				return stopwatch(h.start, h.command(ctx, strings.Fields(l.name)...), l.titles)
			})
			if err == nil && took.lines < l.least {
				err = fmt.Errorf("%d lines, want %d at least", took.lines, l.least)
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", l.name, err))
				continue
			}
			l.took = append(l.took, took)
			if l.plain == nil {
				continue
			}
			plain, err := plainly(h.start, l.plain.titles, l.plain.cmds(ctx, h)...)
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			l.plainly = append(l.plainly, plain)
		}
	}
	for _, l := range all {
		if len(l.took) == 0 {
			continue
		}
		r := queueRow{name: l.name, ours: medianOurs(l.took), goal: l.goal}
		if len(l.plainly) > 0 {
			r.reference, r.plain = l.plain.name, medianCost(l.plainly)
		}
		b.table.rows = append(b.table.rows, r)
	}
	return failed
}

// queueAct is a bulk act of the guard on half of the stock.
type queueAct struct {
	name string
	verb string // of the server's own tool that does the like
	held bool   // on what is held, else on what is deferred
	args []string
}

var queueActs = []queueAct{
	{"queue hold", "hold", false, []string{"--queue", "deferred", "--all"}},
	{"queue release", "release", true, []string{"--queue", "hold", "--all"}},
	{"queue delete", "delete", false, []string{"--queue", "deferred", "--all"}},
	{"held release", "release", true, []string{"--all"}},
	{"held delete", "delete", true, []string{"--all"}},
}

// after is what is queued and on hold when it is done.
func (a *queueAct) after(each int) (queued, held int) {
	switch a.verb {
	case "hold":
		return 0, 2 * each
	case "release":
		return 2 * each, 0
	}
	if a.held {
		return each, 0
	}
	return 0, each
}

// plainActs has the mail server's own tools hold, release and delete what is
// deferred, while the guard is away.
func (b *queueBench) plainActs(ctx context.Context, h *queueHouse) error {
	var ids []string
	for n := range b.stock.each {
		ids = append(ids, b.server.id(b.stock, n))
	}
	b.plain = map[string]cost{}
	for _, verb := range []string{"hold", "release", "delete"} {
		c, err := plainly(h.start, 0, b.server.acts[verb].cmd(ctx, h, ids))
		queued, held := b.stock.each, b.stock.each
		switch verb {
		case "hold":
			queued, held = 0, 2*b.stock.each
		case "delete":
			queued = 0
		}
		if err == nil {
			err = b.server.holds(h, queued, held)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
		b.plain[verb] = c
	}
	return nil
}

// act measures one of the guard's.
func (b *queueBench) act(ctx context.Context, h *queueHouse, a queueAct) error {
	if err := b.stock.guarded(ctx, h); err != nil {
		return err
	}
	args := append(strings.Fields(a.name), append(a.args, "--yes", "--reason", "bench")...)
	took, err := h.measured(func() (cost, error) { return onTerminal(h.start, h.command(ctx, args...)) })
	if err == nil {
		queued, held := a.after(b.stock.each)
		err = b.server.holds(h, queued, held)
	}
	if err != nil {
		return err
	}
	r := queueRow{name: a.name, ours: took}
	if c, ok := b.plain[a.verb]; ok {
		r.reference, r.plain = b.server.acts[a.verb].name, c
	}
	b.table.rows = append(b.table.rows, r)
	return nil
}
