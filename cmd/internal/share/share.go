package share

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/cmd/internal/switches"
	"relayguard/policy"
)

// Options are what is shared with whom. All but Node, LocalUsers, Now, Arrived and
// Left are required.
type Options struct {
	Client goredis.UniversalClient
	Prefix string // the fleet's, as the buckets have it
	Relay  string // this relay's name: Redis shows who wrote last
	File   *switches.File
	Log    *slog.Logger

	// Node: this is a web node, not a relay. It takes orders and gives none, and
	// needs no right to write.
	Node bool

	// LocalUsers: the relays have the same Unix accounts, so orders about those
	// are shared, too.
	LocalUsers bool

	// Arrived is told of each switch of another relay that has come into force
	// here, Left of each that was taken back there. They are called by Run, one
	// after the other, and may wait.
	Arrived, Left func(context.Context, policy.Switch)

	Now func() time.Time // nil: this machine's clock
}

// Share is one relay's part. Safe for concurrent use.
type Share struct {
	o                    Options
	hash, token, channel string
	wake                 chan struct{}

	syncing sync.Mutex // guards version, told
	version string     // token of what is merged
	told    map[string]bool

	mu      sync.Mutex
	pending bool // the file has something that Redis may not have
	offset  time.Duration
	health  Health
	synced  chan struct{} // closed when an exchange has ended; then another
	effects effects
}

// Health says whether the relays have the same orders.
type Health struct {
	Away    bool
	Since   time.Time     // Away: since when
	Why     string        // Away: the error
	Waiting int           // orders of this relay since Redis was last reached
	Refused int           // entries in Redis that are none
	Over    int           // switches of other relays that are not in force here: there are too many
	Offset  time.Duration // Redis's clock is ahead by
}

// New makes a share, and dates the file's changes by Redis's clock as soon as it
// is known. It asks nothing of Redis yet.
func New(o Options) *Share {
	if o.Now == nil {
		o.Now = time.Now
	}
	key := hashOf(o.Prefix)
	s := &Share{o: o, hash: key, token: tokenOf(o.Prefix), channel: key, wake: make(chan struct{}, 1), told: map[string]bool{}, pending: true, synced: make(chan struct{}),
		effects: effects{next: map[switches.What]effect{}, wake: make(chan struct{}, 1)}}
	o.File.UseClock(s.now)
	o.File.OnChange(s.changed)
	return s
}

func hashOf(prefix string) string { return "{" + prefix + "}:switches" }

func tokenOf(prefix string) string { return hashOf(prefix) + ":version" }

// now is Redis's time, as far as it is known.
func (s *Share) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Now().Add(s.offset)
}

// changed hears of an order that was given here.
func (s *Share) changed() {
	if s.o.Node {
		return // nobody else's business
	}
	s.mu.Lock()
	s.pending = true
	s.health.Waiting++
	s.mu.Unlock()
	poke(s.wake)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Health tells how it goes.
func (s *Share) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health
}

// Remark says what an admin has to know who just gave an order; empty if the
// other relays can have it. It waits until Redis has taken it, is away, or ctx
// ends.
func (s *Share) Remark(ctx context.Context) string {
	for {
		s.mu.Lock()
		h, synced := s.health, s.synced
		s.mu.Unlock()
		switch {
		case h.Away:
			return fmt.Sprintf("the other relays do not know of it yet: Redis is away since %s: %s", h.Since.UTC().Format(time.RFC3339), h.Why)
		case h.Waiting == 0:
			return ""
		}
		select {
		case <-synced:
		case <-ctx.Done():
			return "the other relays do not know of it yet: Redis has not answered so far"
		}
	}
}

const (
	pollEvery = time.Second
	// restAfter is how long it rests after a call for haste: of many at once one is
	// heeded.
	restAfter = 20 * time.Millisecond
	// syncWithin bounds one exchange with a Redis that answers slowly.
	syncWithin = 20 * time.Second
)

// Run shares until ctx ends.
func (s *Share) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { s.act(ctx) })
	sub := s.o.Client.Subscribe(ctx, s.channel) // connects, and connects again, by itself
	defer sub.Close()
	haste := sub.Channel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		_ = s.Sync(ctx) // Health and the log tell
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			continue
		case <-s.wake:
		case _, ok := <-haste:
			if !ok {
				haste = nil
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(restAfter):
		}
	}
}

// Sync exchanges with Redis once: afterwards this relay has what is there, and
// Redis what is here. Run does so each second and after each order.
func (s *Share) Sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncWithin)
	defer cancel()
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	pending, waiting := s.pending, s.health.Waiting
	s.pending = false
	s.mu.Unlock()
	err := s.exchange(ctx, pending)
	s.mu.Lock()
	if err != nil {
		s.pending = s.pending || pending
	} else {
		s.health.Waiting -= waiting
	}
	s.mu.Unlock()
	s.tell(ctx, err)
	return err
}

// tell logs that Redis went away or came back, once.
func (s *Share) tell(ctx context.Context, err error) {
	if err != nil && ctx.Err() == context.Canceled {
		return // it is us who end
	}
	s.mu.Lock()
	close(s.synced)
	s.synced = make(chan struct{})
	was := s.health
	h := &s.health
	switch h.Away = err != nil; {
	case err == nil:
		h.Since, h.Why = time.Time{}, ""
	case !was.Away:
		h.Since = s.o.Now()
		fallthrough
	default: // perhaps for another reason than before
		h.Why = strings.ToValidUTF8(err.Error(), "")
	}
	s.mu.Unlock()
	switch {
	case err != nil && !was.Away:
		s.o.Log.Warn("switches are not shared: Redis is away; what is ordered is in force here and goes to the other relays later", "error", err)
	case err == nil && was.Away:
		s.o.Log.Info("switches are shared again", "away_since", was.Since)
	}
}

// shares reports whether orders about it concern other relays.
func (s *Share) shares(what switches.What) bool {
	if what.Kind == policy.Stop {
		return false
	}
	if s.o.LocalUsers {
		return true
	}
	if what.Subject == policy.SubjectKey {
		for part := range strings.SplitSeq(what.Value, " ") {
			if (strings.HasPrefix(part, "local_user:") || strings.HasPrefix(part, "shared_user:")) && !strings.Contains(part, "@") {
				return false
			}
		}
	}
	return what.Subject != policy.SubjectLocalUser || strings.Contains(what.Value, "@") // of a web node: the same for all
}
