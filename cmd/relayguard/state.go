package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/guard"
	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/share"
	"relayguard/cmd/internal/switches"
	"relayguard/cmd/internal/trail"
	"relayguard/incident"
	"relayguard/journal"
	"relayguard/mta/local"
	"relayguard/mta/maillog"
	"relayguard/mta/sendmail"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// state is what outlives a reload: what was counted, held, ordered and kept.
type state struct {
	journal       *journal.Journal
	board         *policy.Board
	switches      *switches.File
	room          *holds.Room
	budgets       *budgets
	items         *items
	retries       *limit.Retries
	lines         *policy.Lines
	expansions    *trail.Expansions
	aliases       string       // where they are kept
	share         *share.Share // nil: no other relay shares orders
	learnt        *recognition
	trail         *trail.Trail
	follower      *maillog.Follower // nil: the MTA's log is not read
	desk          *desk.Desk
	book          *incident.Book
	channels      *incident.Channels
	forwarding    *forwarding     // nil: forwarding rules are not watched
	forwardsOff   string          // why not
	blocklists    *blocklistWatch // nil: own addresses are not checked
	blocklistsOff string          // why not
	tokens        tokens
	log           *slog.Logger

	rules   atomic.Pointer[rules] // in force
	config  atomic.Pointer[config.Config]
	noRoom  atomic.Pointer[string] // why the disk takes no more held mail; empty if it does
	again   bool                   // there was a journal, well or not
	began   time.Time              // zero, or what the MTA logged before tells of holds only
	stop    context.CancelFunc
	broke   chan struct{} // has one when the root helper died in the midst of an act
	listing sync.Mutex    // a list of budgets looks at all of them: one at a time
	garbage gcPace
	work    sync.WaitGroup
}

// nothingCounted is a state for rules that judge no mail.
func nothingCounted() *state {
	return &state{board: &policy.Board{}, budgets: memoryBudgets(limit.NewMemoryOf(limit.MemoryOptions{})), retries: limit.NewRetries(1), items: &items{}, learnt: freshRecognition(config.Default(), [16]byte{})}
}

// switchesFile is where the switches are, beside the journal.
func switchesFile(c *config.Config) string {
	return filepath.Join(filepath.Dir(c.Journal.Directory), "switches.json")
}

// holdLookBack is how far back the MTA's log is read for holds if the journal was
// there and does not know how far it was read.
const holdLookBack = 14 * 24 * time.Hour

// logPosition is the journal's name for how far the MTA's log was read.
const logPosition = "maillog"

// openState opens what there is. What is broken is told and lived with: mail
// goes on. Only a second daemon is an error.
func openState(ctx context.Context, c *config.Config, users *local.Users, log *slog.Logger) (*state, error) {
	s := &state{board: &policy.Board{}, retries: limit.NewRetries(limit.DefaultUnits), lines: policy.NewLines(c.Hold.ServerMessages), room: holds.NewRoom(caps(c)), broke: make(chan struct{}, 1), log: log}
	var err error
	if left, err := os.ReadDir(c.Journal.Directory); err == nil {
		s.again = len(left) > 0
	}
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
	s.catchUp(ctx)
	if err := s.openLimits(ctx, c); err != nil {
		return nil, err
	}
	s.learnt = openRecognition(c, *s.items.key.Load(), log)
	s.desk = &desk.Desk{
		Journal: s.journal, Queue: &queue.Client{Path: c.MTA.QueueHelper, Broke: s.helperDied}, Switches: s.switches, Log: log, Room: s.room, Buckets: s.budgets,
		UID:           userID,
		UserName:      users.Name,
		Shared:        func(uid int) bool { return s.rules.Load().shared[uid] },
		SharedAccount: func(name string) bool { return s.rules.Load().policy.Limits.SharedAccount(name) },
		Dropped:       func() int64 { return s.journal.Stats().DroppedAccepted },
		Limits:        func() []string { return s.rules.Load().limitNames },
		Waiting:       s.lines,
		Pay: func(ctx context.Context, now time.Time, w *policy.Waits, id string) (policy.Paid, error) {
			return s.rules.Load().policy.Limits.Pay(ctx, now, s.board.Load(), w, id)
		},
		Pacing: s.pacing,
		Abused: func(w *policy.Waits) bool {
			return abusedBy(s.book, w, s.rules.Load().policy.Limits)
		},
		Shut:   func(account string) []string { return s.book.ShutBuckets(account) },
		Notice: func(now time.Time, topic, text string) { s.channels.Send(incident.NewNotice(now, topic, text)) },
	}
	s.trail = trail.New(trail.Options{
		Buckets: s.budgets, Retries: s.retries, Expansions: s.expansions, Log: log, Note: s.journal.Note, Held: s.desk.HeldByMilter,
		Requeued: s.desk.Requeued, Outcome: s.desk.Outcome, Copies: func() int { return s.rules.Load().copies },
	})
	if err := s.openLog(ctx, c); err != nil {
		log.Error("mta.log: what becomes of mail is not known", "error", err)
	}
	s.openIncidents(ctx, c)
	s.forwarding = s.openForwarding(ctx, c)
	s.blocklists = s.openBlocklists(ctx, c)
	s.desk.Releasing = s.passForwarded
	s.desk.Released = func(_ time.Time, w policy.Waiting, paid policy.Paid) {
		s.trail.Accepted(w.QueueID, trail.Passed{Charges: paid.Charges, Bounces: paid.Bounces, Recipients: w.Recipients, Counted: w.Waits.Counted})
	}
	s.desk.Registered = func(site string) bool {
		return slices.ContainsFunc(s.learnt.sites(), func(known stamp.Site) bool { return known.Name == site })
	}
	s.openShare(c)
	s.openNodes()
	s.desk.Tell = func(now time.Time, account, text string) { s.book.NoteOrigin(now, account, text) }
	return s, nil
}

// abusedBy reports whether an incident of abuse concerns a message that waits: one
// of its account, or where many share that, one of its own site or text.
func abusedBy(book *incident.Book, w *policy.Waits, limits *policy.Limits) bool {
	if limits.Shares(&w.Origin) {
		return book.AbusedMail(incident.MailOf(w))
	}
	return book.Abused(w.Origin.Name())
}

func caps(c *config.Config) holds.Caps {
	return holds.Caps{OriginMessages: int64(c.Hold.OriginMessages), OriginBytes: c.Hold.OriginBytes, ServerMessages: int64(c.Hold.ServerMessages),
		MinFree: c.Hold.MinFree, MinFreeInodes: c.Hold.MinFreeInodes}
}

// bound has what outlives a reload keep to a configuration's bounds.
func (s *state) bound(c *config.Config) {
	s.room.SetCaps(caps(c))
	s.lines.SetMost(c.Hold.ServerMessages)
	s.learnt.plugins.SetMost(c.Origin.MaxPlugins)
}

// seedRoom counts what the journal says is held, until the queue can be looked at.
// The rules are in force by then: they say which accounts are shared.
func (s *state) seedRoom(ctx context.Context) {
	limits, totals := s.rules.Load().policy.Limits, map[string]holds.Total{}
	if err := s.journal.EachHold(ctx, journal.HoldQuery{}, func(h *journal.Hold) error {
		room := policy.RoomName(h.Account, limits.SharedAccount(h.Account), h.Site, h.Template)
		t := totals[room]
		totals[room] = holds.Total{Messages: t.Messages + 1, Bytes: t.Bytes + h.Size}
		return nil
	}); err != nil {
		s.log.Error("what is held is not known before the queue was looked at", "error", err)
		return
	}
	s.room.Set(totals)
}

// catchUp waits until the database has what the log has of an earlier run: after
// kill -9 the newest, after the loss of the database all of it.
func (s *state) catchUp(ctx context.Context) {
	const longest = 15 * time.Second // Postfix waits 30 s for a milter
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := s.journal.Sync(ctx); err != nil {
		s.log.Error("the journal's database does not have all of its log", "error", err)
	}
}

// logOptions say where the MTA's log is.
func (s *state) logOptions(c *config.Config) maillog.Options {
	o := maillog.Options{Log: s.log, Path: c.MTA.Log}
	if c.MTA.Log == config.LogJournal {
		o.Path, o.Journal = "", true
		o.UIDs = []int{0}
		accounts := []string{"postfix"}
		if c.MTA.Kind == config.KindSendmail {
			accounts = []string{"smmta", "smmsp"}
			name, _ := sendmail.SubmitUser(c.MTA.ConfigDirectory) // that it cannot be read is told where whose word counts is
			if _, err := believedSubmitter(c, name, userID); err == nil && !slices.Contains(accounts, name) {
				accounts = append(accounts, name)
			}
		}
		for _, name := range accounts {
			if uid, err := userID(name); err == nil {
				o.UIDs = append(o.UIDs, uid)
			}
		}
	}
	return o
}

// openLog prepares the reader of the MTA's log.
func (s *state) openLog(ctx context.Context, c *config.Config) error {
	if c.MTA.Log == config.LogNone {
		return nil
	}
	o := s.logOptions(c)
	if problem := unreadable(o.Path); o.Path != "" && problem != "" {
		s.log.Warn("mta.log: what becomes of mail is not known until it can be read", "error", problem)
	}
	at, _, err := s.journal.Value(ctx, logPosition)
	if err != nil {
		s.log.Warn("how far the MTA's log was read is not known; it is read from its end", "error", err)
	}
	o.Checkpoint = at
	if at == "" && s.again { // so that what an earlier guard held is not taken for somebody else's
		s.began = time.Now()
		o.From = s.began.Add(-holdLookBack)
	}
	if s.follower, err = maillog.New(o); err != nil && at != "" { // of an older version, say
		s.log.Warn("how far the MTA's log was read cannot be understood; it is read from its end", "error", err)
		o.Checkpoint = ""
		s.follower, err = maillog.New(o)
	}
	return err
}

// unreadable says why this process cannot read a file; "" if it can.
func unreadable(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	f.Close()
	return ""
}

func (s *state) openIncidents(ctx context.Context, c *config.Config) {
	s.channels = s.newChannels(c)
	s.book = incident.NewBook(incident.Options{
		UpdateEvery: c.Alert.UpdateEvery, Quiet: c.Alert.Quiet, Save: s.saveIncident, Alert: s.channels.Send, StillOver: s.stillOver,
		Abuses: func() []string { return s.rules.Load().abuses }, Log: s.log,
	})
	saved, err := s.journal.Incidents(ctx, false)
	if err != nil {
		s.log.Error("open incidents cannot be read; they may be told again", "error", err)
	}
	all := make([]incident.Incident, 0, len(saved))
	for _, i := range saved {
		if in, err := incidentOf(i); err == nil {
			all = append(all, in)
		}
	}
	s.book.Load(all)
}

// newChannels are all that the configuration names, with a number of alerts an hour
// of their own.
func (s *state) newChannels(c *config.Config) *incident.Channels {
	channels := outsideChannels(c)
	if c.Alert.Syslog {
		channels = append(channels, &incident.Syslog{})
	}
	if c.Alert.Command != "" {
		channels = append(channels, &incident.Command{Path: c.Alert.Command, Timeout: c.Alert.CommandTimeout, Log: s.log})
	}
	return incident.NewChannels(incident.ChannelsOptions{PerHour: c.Alert.PerHour, Timeout: c.Alert.CommandTimeout + 5*time.Second, Log: s.log}, channels...)
}

// outsideChannels lead out of this machine.
func outsideChannels(c *config.Config) (channels []incident.Channel) {
	host, _ := os.Hostname()
	if c.Alert.Webhook != "" {
		channels = append(channels, &incident.Webhook{URL: c.Alert.Webhook, TokenFile: c.Alert.WebhookTokenFile, Host: host})
	}
	if c.Alert.SyslogServer != "" {
		channels = append(channels, &incident.LogServer{URL: c.Alert.SyslogServer, Host: host})
	}
	return channels
}

func (s *state) saveIncident(i incident.Incident) {
	kept, err := keptIncident(i)
	if err != nil {
		s.log.Error("keep incident", "incident", i.ID, "error", err)
		return
	}
	s.journal.Note(kept)
}

// stillOver keeps an incident open while a bucket that stopped mail is full or
// shut, or mail of the account waits for it.
func (s *state) stillOver(account, cause, bucket string, now time.Time) bool {
	stable, err := s.desk.Bucket(account)
	if err != nil { // a Unix account that is gone
		stable = account
	}
	if bucket == "" {
		bucket = stable
	}
	return s.lines.Behind(limit.Key{Limit: cause, Value: bucket}, stable) > 0 || s.rules.Load().policy.Limits.Over(context.Background(), now, s.board.Load(), cause, bucket)
}

// watcher tells those who follow what the guard decided.
type watcher struct{ *state }

// Stopped implements guard.Watcher.
func (w watcher) Stopped(now time.Time, m *policy.Message, d *policy.Decision) {
	w.forwarding.seen(now, m)
	w.heard(now, m, d)
	w.desk.NoteShut(now, d)
	rules := w.rules.Load()
	abuses := rules.abuses
	if d.Waits != nil && slices.ContainsFunc(d.Counters, func(c policy.Counter) bool { return c.Limit == d.Rule && c.Kind == limit.Abuse.String() }) { // at this relay's share, while Redis is away: nothing is shut
		away := *d
		away.Rule, d, abuses = policy.RuleLimits, &away, nil
	}
	for _, s := range incident.StopsOf(m, d, abuses, rules.policy.Limits.Shares) {
		w.book.Observe(now, s)
	}
	switch {
	case d.Verdict == policy.Hold && d.Waits != nil:
		w.desk.Enqueue(policy.Waiting{ID: d.ID, QueueID: m.QueueID, HeldAt: now, Size: m.Size, Recipients: len(m.RcptTo) + m.RcptMore, Waits: d.Waits})
	case d.Verdict == policy.Hold && d.Rule == policy.RuleStopped: // it was charged, and goes on after start
		w.Accepted(now, m, d)
	}
}

// Accepted implements guard.Watcher.
func (w watcher) Accepted(now time.Time, m *policy.Message, d *policy.Decision) {
	w.forwarding.seen(now, m)
	w.heard(now, m, d)
	if kind, _ := d.Origin.Account(); kind == origin.KindUnknown {
		return
	}
	w.trail.Accepted(m.QueueID, trail.Passed{Charges: d.Charges, Bounces: d.Bounces, Recipients: len(m.RcptTo) + m.RcptMore, Counted: d.Counted, Rcpts: m.RcptTo})
	w.near(now, d.Origin.Name(), d.Near)
}

var _ guard.Watcher = watcher{}

// How often what is done in the background is done.
const (
	tickEvery  = time.Second
	diskEvery  = 5 * time.Second
	sweepEvery = time.Minute

	learntEvery = 5 * time.Minute // what a crash forgets of it
)

// run starts what goes on in the background. Where the MTA's queue is, the rules
// in force say each time: a reload may be the first to know.
func (s *state) run(g *guard.Guard, c *config.Config, more ...func(context.Context)) {
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
	s.work.Go(func() { s.budgets.run(ctx) })
	s.work.Go(func() { s.shareItems(ctx) })
	if s.share != nil {
		s.work.Go(func() { s.share.Run(ctx) })
	}
	s.work.Go(func() { s.desk.RunNodes(ctx) })
	every(tickEvery, func(now time.Time) {
		g.Tick(now)
		s.notePosition()
	})
	every(tickEvery, func(now time.Time) { s.desk.Expire(ctx, now) }) // waits for the root helper
	every(tickEvery, func(now time.Time) { s.desk.Pace(ctx, now) })
	every(sweepEvery, func(now time.Time) { s.desk.Remind(ctx, now) })
	every(sweepEvery, func(now time.Time) {
		s.budgets.sweep(now)
		s.expansions.Sweep(now)
		s.keepExpansions()
	})
	s.work.Go(func() { s.learnt.keep(ctx, learntEvery) })
	queueDir := s.lookAtDisk("")
	every(diskEvery, func(time.Time) { queueDir = s.lookAtDisk(queueDir) })
	s.work.Go(func() { s.reconcile(ctx, c.Hold.ReconcileEvery) })
	s.work.Go(func() { s.book.Run(ctx) })
	if s.forwarding != nil {
		s.forwarding.run(ctx, &s.work, c.Forward.Heartbeat)
	}
	if s.blocklists != nil {
		s.blocklists.run(ctx, &s.work)
	}
	for _, one := range more {
		s.work.Go(func() { one(ctx) })
	}
	if s.follower != nil {
		s.work.Go(func() {
			err := s.follower.Run(ctx, func(e maillog.Event, _ maillog.Position) error {
				if e.Kind == maillog.Held || !e.Time.Before(s.began) {
					s.trail.Event(ctx, time.Now(), e)
				}
				return nil
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				s.log.Error("mta.log: what becomes of mail is no longer known", "error", err)
			}
		})
	}
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

// lookAtDisk asks whether the disk that has the queue takes more, and returns
// where the queue is. Rules that do not know that leave it where it was.
func (s *state) lookAtDisk(before string) (queueDir string) {
	if queueDir = s.rules.Load().queueDir; queueDir == "" {
		queueDir = before
	}
	if queueDir == "" {
		return ""
	}
	full, changed, err := s.room.Look(queueDir)
	if err == nil {
		s.noRoom.Store(&full)
	}
	switch {
	case err != nil:
		s.log.Warn("hold.min_free", "error", err)
	case changed && full != "":
		s.log.Error("nothing more is held, for want of room", "why", full)
	case changed:
		s.log.Info("mail can be held again")
	}
	return queueDir
}

// helperDied has what an act left half done settled without waiting for the next
// look at the queue.
func (s *state) helperDied() {
	select {
	case s.broke <- struct{}{}:
	default: // it is known
	}
}

// reconcile compares journal and queue, at start and every few minutes; at once, and
// a little later once more, when the root helper died in the midst of an act: its
// tools may have gone on without it. A queue that cannot be looked at is told once
// until it can, and looked at sooner: at boot the daemon is there before the MTA.
func (s *state) reconcile(ctx context.Context, period time.Duration) {
	told, again, died := "", firstAgain, false
	for {
		wait, broke := period, s.broke
		over := s.garbage.bulky()
		err := s.desk.Reconcile(ctx, time.Now())
		over()
		select {
		case <-broke: // what was done again broke off, too
			died = true
		default:
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != told:
			told = err.Error()
			s.log.Error("the hold queue cannot be looked at; held mail cannot be listed, released or deleted", "error", err)
		case err == nil && told != "":
			told = ""
			s.log.Info("the hold queue can be looked at again")
		}
		if err != nil || died {
			wait, broke = min(again, period), nil // a helper that dies each time is not asked without a pause
			again = min(2*again, period)
		} else {
			again = firstAgain
		}
		died = false
		select {
		case <-ctx.Done():
			return
		case <-broke:
			died = true
		case <-time.After(wait):
		}
	}
}

// firstAgain is how soon a queue is looked at again that could not be, or in which an
// act broke off: twice as long after each further time, up to hold.reconcile_every.
const firstAgain = 2 * time.Second

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
	s.keepExpansions()
	s.learnt.save()
	if err := s.budgets.close(); err != nil {
		s.log.Error("some budgets cannot be kept; after a restart they begin lower than they are", "error", err)
	}
	s.notePosition()
	s.forwarding.close()
	s.blocklists.close()
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
