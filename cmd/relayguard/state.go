package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/guard"
	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/switches"
	"relayguard/cmd/internal/trail"
	"relayguard/incident"
	"relayguard/journal"
	"relayguard/mta/local"
	"relayguard/mta/maillog"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// state is what outlives a reload: what was counted, held, ordered and kept.
type state struct {
	journal  *journal.Journal
	board    *policy.Board
	switches *switches.File
	room     *holds.Room
	buckets  *limit.Memory
	retries  *limit.Retries
	trail    *trail.Trail
	follower *maillog.Follower // nil: the MTA's log is not read
	desk     *desk.Desk
	book     *incident.Book
	channels *incident.Channels
	log      *slog.Logger

	rules  atomic.Pointer[rules] // in force
	config atomic.Pointer[config.Config]
	stop   context.CancelFunc
	work   sync.WaitGroup
}

// nothingCounted is a state for rules that judge no mail.
func nothingCounted() *state {
	return &state{board: &policy.Board{}, buckets: limit.NewMemory(), retries: limit.NewRetries(1)}
}

// switchesFile is where the switches are, beside the journal.
func switchesFile(c *config.Config) string {
	return filepath.Join(filepath.Dir(c.Journal.Directory), "switches.json")
}

// logPosition is the journal's name for how far the MTA's log was read.
const logPosition = "maillog"

// openState opens what there is. What is broken is told and lived with: mail
// goes on. Only a second daemon is an error.
func openState(ctx context.Context, c *config.Config, users *local.Users, log *slog.Logger) (*state, error) {
	s := &state{board: &policy.Board{}, buckets: limit.NewMemory(), retries: limit.NewRetries(limit.DefaultUnits), room: holds.NewRoom(caps(c)), log: log}
	var err error
	s.journal, err = journal.Open(ctx, journal.Options{
		Dir: c.Journal.Directory, Log: log, AcceptedPerSecond: c.Journal.AcceptedPerSecond, MaxLogBytes: c.Journal.MaxLog,
		Retention: journal.Retention{Addresses: c.Journal.KeepAddresses, Totals: c.Journal.KeepTotals, Actions: c.Journal.KeepAdmin},
	})
	if err != nil {
		return nil, err
	}
	if s.switches, err = switches.Open(switchesFile(c), s.board, time.Now()); err != nil {
		log.Error("switches", "error", err)
	}
	s.loadBuckets(ctx)
	s.desk = &desk.Desk{
		Journal: s.journal, Queue: &queue.Client{Path: c.MTA.QueueHelper}, Switches: s.switches, Log: log, Room: s.room, Buckets: s.buckets,
		UID:      userID,
		UserName: users.Name,
		Shared:   func(uid int) bool { return s.rules.Load().shared[uid] },
		Limits:   func() []string { return s.rules.Load().limitNames },
	}
	s.trail = trail.New(trail.Options{
		Buckets: s.buckets, Retries: s.retries, Log: log, Note: s.journal.Note, Held: s.desk.HeldByMilter,
		Requeued: s.desk.Requeued, Copies: func() int { return s.rules.Load().copies },
	})
	if err := s.openLog(ctx, c); err != nil {
		log.Error("mta.log: what becomes of mail is not known", "error", err)
	}
	s.openIncidents(ctx, c)
	s.desk.Tell = func(now time.Time, account, text string) { s.book.NoteOrigin(now, account, text) }
	return s, nil
}

func caps(c *config.Config) holds.Caps {
	return holds.Caps{OriginMessages: int64(c.Hold.OriginMessages), OriginBytes: c.Hold.OriginBytes, ServerMessages: int64(c.Hold.ServerMessages),
		MinFree: c.Hold.MinFree, MinFreeInodes: c.Hold.MinFreeInodes}
}

// loadBuckets puts the counters back to where they were.
func (s *state) loadBuckets(ctx context.Context) {
	n := 0
	err := s.journal.Buckets(ctx, func(b journal.Bucket) error {
		var state limit.State
		err := json.Unmarshal(b.State, &state)
		if err == nil && state.Expired(time.Now()) {
			s.journal.Note(journal.Bucket{Limit: b.Limit, Value: b.Value}) // it makes no difference any more
			return nil
		}
		if err == nil {
			err = s.buckets.Load(state)
		}
		if err != nil {
			s.log.Warn("a counter cannot be read and begins at zero", "limit", b.Limit, "key", b.Value, "error", err)
			return nil
		}
		n++
		return nil
	})
	if err != nil {
		s.log.Error("the counters cannot be read and begin at zero", "error", err)
	}
	s.log.Info("counters read", "buckets", n)
}

// openLog prepares the reader of the MTA's log.
func (s *state) openLog(ctx context.Context, c *config.Config) error {
	o := maillog.Options{Log: s.log, Path: c.MTA.Log}
	switch c.MTA.Log {
	case config.LogNone:
		return nil
	case config.LogJournal:
		o.Path, o.Journal = "", true
		o.UIDs = []int{0}
		if u, err := user.Lookup("postfix"); err == nil {
			if uid, err := strconv.Atoi(u.Uid); err == nil {
				o.UIDs = append(o.UIDs, uid)
			}
		}
	}
	at, _, err := s.journal.Value(ctx, logPosition)
	if err != nil {
		s.log.Warn("how far the MTA's log was read is not known; it is read from its end", "error", err)
	}
	o.Checkpoint = at
	if s.follower, err = maillog.New(o); err != nil && at != "" { // of an older version, say
		s.log.Warn("how far the MTA's log was read cannot be understood; it is read from its end", "error", err)
		o.Checkpoint = ""
		s.follower, err = maillog.New(o)
	}
	return err
}

func (s *state) openIncidents(ctx context.Context, c *config.Config) {
	var channels []incident.Channel
	if c.Alert.Syslog {
		channels = append(channels, &incident.Syslog{})
	}
	if c.Alert.Command != "" {
		channels = append(channels, &incident.Command{Path: c.Alert.Command, Timeout: c.Alert.CommandTimeout, Log: s.log})
	}
	s.channels = incident.NewChannels(incident.ChannelsOptions{PerHour: c.Alert.PerHour, Timeout: c.Alert.CommandTimeout + 5*time.Second, Log: s.log}, channels...)
	s.book = incident.NewBook(incident.Options{
		UpdateEvery: c.Alert.UpdateEvery, Quiet: c.Alert.Quiet, Save: s.saveIncident, Alert: s.channels.Send, StillOver: s.stillOver,
	})
	saved, err := s.journal.Incidents(ctx, false)
	if err != nil {
		s.log.Error("open incidents cannot be read; they may be told again", "error", err)
	}
	all := make([]incident.Incident, 0, len(saved))
	for _, i := range saved {
		var in incident.Incident
		if err := json.Unmarshal(i.State, &in); err == nil {
			all = append(all, in)
		}
	}
	s.book.Load(all)
}

func (s *state) saveIncident(i incident.Incident) {
	text, err := json.Marshal(i)
	if err != nil {
		s.log.Error("keep incident", "incident", i.ID, "error", err)
		return
	}
	s.journal.Note(journal.Incident{ID: i.ID, Origin: i.Origin, Cause: i.Cause, Opened: i.Opened, Updated: i.Updated, Closed: i.Closed, State: text})
}

// stillOver keeps an incident open while the account's bucket is full or shut. A
// limit whose buckets are not accounts' (machine, sender_domain) is not asked: its
// incident ends when nothing more is stopped.
func (s *state) stillOver(account, cause string, now time.Time) bool {
	bucket, err := s.desk.Bucket(account)
	return err == nil && s.rules.Load().policy.Limits.Over(context.Background(), now, cause, bucket)
}

// watcher tells those who follow what the guard decided.
type watcher struct{ *state }

// Stopped implements guard.Watcher.
func (w watcher) Stopped(now time.Time, m *policy.Message, d *policy.Decision) {
	w.book.Observe(now, incident.Stop{Origin: d.Origin.Name(), Cause: d.Rule, Verdict: d.Verdict, Recipients: max(len(m.RcptTo)+m.RcptMore, 1), ID: d.ID, QueueID: m.QueueID})
}

// Accepted implements guard.Watcher.
func (w watcher) Accepted(_ time.Time, m *policy.Message, d *policy.Decision) {
	if kind, _ := d.Origin.Account(); kind != origin.KindUnknown {
		w.trail.Accepted(m.QueueID, d.Charges, len(m.RcptTo)+m.RcptMore)
	}
}

var _ guard.Watcher = watcher{}

// How often what is done in the background is done. Charges are on disk within
// 100 ms.
const (
	flushEvery  = 100 * time.Millisecond
	tickEvery   = time.Second
	diskEvery   = 5 * time.Second
	sweepEvery  = time.Minute
	maxPerFlush = 10_000
)

// run starts what goes on in the background.
func (s *state) run(g *guard.Guard, c *config.Config, queueDir string) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	every := func(period time.Duration, do func(now time.Time)) {
		s.work.Go(func() {
			tick := time.NewTicker(period)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case now := <-tick.C:
					do(now)
				}
			}
		})
	}
	every(flushEvery, func(time.Time) { s.flush() })
	every(tickEvery, func(now time.Time) {
		g.Tick(now)
		s.desk.Expire(ctx, now)
		s.notePosition()
	})
	every(sweepEvery, func(now time.Time) { s.buckets.Sweep(now) })
	if queueDir != "" {
		s.lookAtDisk(queueDir)
		every(diskEvery, func(time.Time) { s.lookAtDisk(queueDir) })
	}
	s.work.Go(func() { s.reconcile(ctx, c.Hold.ReconcileEvery) })
	s.work.Go(func() { s.book.Run(ctx) })
	if s.follower != nil {
		s.work.Go(func() {
			err := s.follower.Run(ctx, func(e maillog.Event, _ maillog.Position) error {
				s.trail.Event(ctx, time.Now(), e)
				return nil
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				s.log.Error("mta.log: what becomes of mail is no longer known", "error", err)
			}
		})
	}
}

// flush hands changed counters to the journal.
func (s *state) flush() {
	s.buckets.Dirty(maxPerFlush, func(b limit.State) {
		text, err := json.Marshal(b)
		if err != nil {
			s.log.Error("keep counter", "limit", b.Key.Limit, "key", b.Key.Value, "error", err)
			return
		}
		if b.Gone() {
			text = nil
		}
		s.journal.Note(journal.Bucket{Limit: b.Key.Limit, Value: b.Key.Value, State: text})
	})
}

// notePosition remembers how far the MTA's log was read; what was noted before
// of it is written before.
func (s *state) notePosition() {
	if s.follower == nil {
		return
	}
	if at := s.follower.Position().String(); at != "" {
		s.journal.Note(journal.Value{Name: logPosition, Value: at})
	}
}

func (s *state) lookAtDisk(queueDir string) {
	full, changed, err := s.room.Look(queueDir)
	switch {
	case err != nil:
		s.log.Warn("hold.min_free", "error", err)
	case changed && full != "":
		s.log.Error("nothing more is held, for want of room", "why", full)
	case changed:
		s.log.Info("mail can be held again")
	}
}

// reconcile compares journal and queue, at start and every few minutes. A root
// helper that is not there is told once until it is back.
func (s *state) reconcile(ctx context.Context, period time.Duration) {
	told := ""
	for {
		switch err := s.desk.Reconcile(ctx, time.Now()); {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != told:
			told = err.Error()
			s.log.Error("the hold queue cannot be looked at; held mail cannot be listed, released or deleted", "error", err)
		case err == nil && told != "":
			told = ""
			s.log.Info("the hold queue can be looked at again")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(period):
		}
	}
}

// close ends the background and writes what is left.
func (s *state) close(g *guard.Guard) {
	if s.stop != nil {
		s.stop()
		s.work.Wait()
	}
	if g != nil {
		g.Tick(time.Now().Add(time.Hour)) // nothing is repeated any more
	}
	s.book.SaveAll(time.Now())
	s.flush()
	s.notePosition()
	s.channels.Close()
	if err := s.journal.Close(); err != nil {
		s.log.Error("close the journal", "error", err)
	}
}

// makeStateDir makes the directory that holds journal and switches where no
// package has made it.
func makeStateDir(c *config.Config) error {
	if err := os.MkdirAll(filepath.Dir(c.Journal.Directory), 0o750); err != nil {
		return fmt.Errorf("journal.directory: %w", err)
	}
	return nil
}
