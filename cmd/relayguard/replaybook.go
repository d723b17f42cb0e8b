package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/incident"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/replay"
)

// replayBook keeps incidents for a replay, as the daemon does, and tells nobody.
type replayBook struct {
	book   *incident.Book
	abuses []string
	limits *policy.Limits // in force at the last tick
	all    map[string]replay.Incident
	open   int // incidents at the last tick; at least 1 if there may be one since
}

func newReplayBook(c *config.Config, board *policy.Board, lines *policy.Lines, accounts *replay.Accounts) *replayBook {
	b := &replayBook{abuses: abuseLimits(c), all: map[string]replay.Incident{}}
	b.book = incident.NewBook(incident.Options{
		UpdateEvery: c.Alert.UpdateEvery, Quiet: c.Alert.Quiet, Abuses: func() []string { return b.abuses }, Save: b.save,
		StillOver: func(account, cause, bucket string, now time.Time) bool {
			if name, local := strings.CutPrefix(account, "local_user:"); local {
				account = "local_user:" + strconv.Itoa(accounts.Find(name))
			}
			bucket = cmp.Or(bucket, account)
			return lines.Behind(limit.Key{Limit: cause, Value: bucket}, account) > 0 || b.limits.Over(context.Background(), now, board.Load(), cause, bucket)
		},
	})
	return b
}

func (b *replayBook) save(i incident.Incident) {
	one := replay.Incident{Origin: i.Origin, Cause: i.Cause, Opened: i.Opened}
	if !i.Closed.IsZero() {
		one.Closed = &i.Closed
	}
	b.all[i.ID] = one
}

// Stopped implements replay.Incidents.
func (b *replayBook) Stopped(now time.Time, m *policy.Message, d *policy.Decision) {
	for _, s := range incident.StopsOf(m, d, b.abuses, b.limits.Shares) {
		b.book.Observe(now, s)
	}
	b.open = max(b.open, 1)
}

// Tick implements replay.Incidents.
func (b *replayBook) Tick(now time.Time, p *policy.Policy) {
	b.limits = p.Limits
	b.book.Tick(now)
	b.open = b.book.Size().Open
}

// Open implements replay.Incidents.
func (b *replayBook) Open() int { return b.open }

// Abused implements replay.Incidents.
func (b *replayBook) Abused(w *policy.Waits, p *policy.Policy) bool {
	return abusedBy(b.book, w, p.Limits)
}

// All implements replay.Incidents.
func (b *replayBook) All() []replay.Incident {
	for _, i := range b.book.All() {
		b.save(i)
	}
	all := make([]replay.Incident, 0, len(b.all))
	for _, i := range b.all {
		all = append(all, i)
	}
	slices.SortFunc(all, func(x, y replay.Incident) int {
		return cmp.Or(x.Opened.Compare(y.Opened), strings.Compare(x.Origin, y.Origin), strings.Compare(x.Cause, y.Cause))
	})
	return all
}
