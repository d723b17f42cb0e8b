package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/guard"
	"relayguard/cmd/internal/queue"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/mta/local"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

// stateConfig is a configuration whose state is in a directory of the test.
func stateConfig(t *testing.T) *config.Config {
	t.Helper()
	dir := t.TempDir()
	c := config.Default()
	c.Journal.Directory = filepath.Join(dir, "journal")
	c.MTA.Log, c.MTA.QueueHelper = config.LogNone, filepath.Join(dir, "no-helper.sock")
	c.Alert.Syslog = false
	return c
}

// aState is the daemon's state without listeners. It is closed by the test.
func aState(t *testing.T, c *config.Config) *state {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	users, err := local.NewUsers(log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(users.Close)
	s, err := openState(t.Context(), c, users, log)
	if err != nil {
		t.Fatal(err)
	}
	s.rules.Store(&rules{policy: &policy.Policy{Limits: policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Store: s.budgets, Retries: s.retries})}})
	s.config.Store(c)
	return s
}

// aGuard decides nothing here.
func aGuard(s *state) *guard.Guard {
	log := slog.New(slog.DiscardHandler)
	return guard.New(s.rules.Load().policy, log, log)
}

// until polls for a condition.
func until(t *testing.T, what string, deadline time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, deadline)
		}
	}
}

// spend charges n senders so much each.
func spend(t *testing.T, s *state, n int, amount int64) {
	t.Helper()
	for i := range n {
		charge := limit.Charge{Key: limit.Key{Limit: "login-volume", Value: fmt.Sprintf("login:u%d@example.jp", i)}, Kind: limit.Volume,
			Windows: []limit.Window{{Count: 1000, Length: time.Hour}}, Amount: amount}
		if out, err := limittest.Spend(t.Context(), s.budgets, time.Now(), []limit.Charge{charge}); err != nil || !out.Taken {
			t.Fatal(out, err)
		}
	}
}

// keptCounters is how many counters an earlier run's store has, and how many of them
// stand at want.
func keptCounters(t *testing.T, c *config.Config, want int64) (all, right int) {
	t.Helper()
	s := aState(t, c)
	defer s.close(nil)
	err := s.budgets.Each(t.Context(), func(e limit.Entry) error {
		if e.State == nil {
			return nil
		}
		all++
		out, err := limittest.Peek(t.Context(), s.budgets, time.Now(), []limit.Charge{{Key: e.State.Key, Kind: limit.Volume, Windows: []limit.Window{{Count: 1000, Length: time.Hour}}}})
		if err == nil && out.Uses[0].Used == want {
			right++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, right
}

// As many senders as an attack or a busy hour has are not forgotten for a
// restart.
func TestCloseKeepsAllCounters(t *testing.T) {
	t.Parallel()
	c := stateConfig(t)
	const senders = 25_000
	s := aState(t, c)
	spend(t, s, senders, 1)
	s.close(nil)
	if all, right := keptCounters(t, c, 1); all != senders || right != senders {
		t.Errorf("%d counters are kept, %d of them right; want %d", all, right, senders)
	}
}

// hung is a root helper that does not answer.
type hung struct {
	queue.Operator
	asked chan struct{}
	once  sync.Once
}

func (h *hung) List(context.Context, func(mta.QueueFile) error) error { return nil }

func (h *hung) Status(context.Context) (queue.Status, error) { return queue.Status{}, nil }

func (h *hung) AllowSubmit(ctx context.Context, _ string) error {
	h.once.Do(func() { close(h.asked) })
	<-ctx.Done()
	return ctx.Err()
}

// That the end of a suspension cannot be told to the MTA holds up nothing else
// that is done each second.
func TestHungHelperHoldsUpNothing(t *testing.T) {
	t.Parallel()
	c := stateConfig(t)
	c.MTA.Log = filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(c.MTA.Log, []byte("Nov 22 08:00:01 mx postfix/qmgr[1]: 2E117986156: removed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := aState(t, c)
	helper := &hung{asked: make(chan struct{})}
	s.desk.Queue, s.desk.UserName = helper, func(int) string { return "games" }
	if _, err := s.switches.Set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "1000", Since: time.Now(), Until: time.Now()}); err != nil {
		t.Fatal(err)
	}
	s.run(aGuard(s), c)
	<-helper.asked
	position := func() string {
		at, _, err := s.journal.Value(t.Context(), logPosition)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	first := ""
	until(t, "the position in the MTA's log is kept", 10*time.Second, func() bool { first = position(); return first != "" })
	f, err := os.OpenFile(c.MTA.Log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, "Nov 22 08:00:02 mx postfix/qmgr[1]: 2E117986157: removed\n"); err != nil {
		t.Fatal(err)
	}
	until(t, "and goes on", 10*time.Second, func() bool { return position() != first })
	s.close(nil)
}

// Postfix is not there yet when the daemon starts, and is when it reloads.
func TestDiskIsWatchedWhereTheRulesInForceSay(t *testing.T) {
	t.Parallel()
	c := stateConfig(t)
	c.Hold.MinFree = math.MaxInt64
	s := aState(t, c)
	defer s.close(nil)
	s.desk.Queue = &hung{}
	s.run(aGuard(s), c)
	if s.room.Full("login:taro@example.jp") {
		t.Fatal("the disk is full before anybody knows which")
	}
	queueDir := t.TempDir()
	in := *s.rules.Load()
	in.queueDir = queueDir
	s.rules.Store(&in)
	until(t, "the disk of the queue is watched", 4*diskEvery, func() bool { return s.room.Full("login:taro@example.jp") })

	out := in
	out.queueDir = "" // another reload, and Postfix cannot be asked
	s.rules.Store(&out)
	caps := caps(c)
	caps.MinFree = 0
	s.room.SetCaps(caps)
	until(t, "it goes on to be watched", 4*diskEvery, func() bool { return !s.room.Full("login:taro@example.jp") })
}

var _ guard.Journal = (*journal.Journal)(nil)
