package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

// countOf charges a bucket of a day, whatever it counts, and tells how it stood.
func countOf(t *testing.T, s *state, name string, kind limit.Kind, amount int64) (used int64, shut bool) {
	t.Helper()
	out, err := limittest.Spend(t.Context(), s.budgets, time.Now(), []limit.Charge{{Key: limit.Key{Limit: name, Value: "login:taro@example.jp"}, Kind: kind,
		Windows: []limit.Window{{Count: 1_000_000, Length: 24 * time.Hour}}, Amount: amount}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Uses[0].Used, out.Latched[0]
}

// meaningConfig has limits that are each "counts kind".
func meaningConfig(c *config.Config, limits map[string]string) *config.Config {
	next := *c
	next.Limits = nil
	for name, text := range limits {
		counts, kind, _ := strings.Cut(text, " ")
		next.Limits = append(next.Limits, config.Limit{Name: name, Counts: counts, Kind: kind})
	}
	return &next
}

var (
	firstMeanings = map[string]string{"a": "bytes volume", "b": "bytes abuse", "c": "recipients abuse", "d": "recipients volume", "e": "bytes abuse", "f": "messages volume"}
	nextMeanings  = map[string]string{"a": "recipients volume", "b": "recipients abuse", "c": "recipients volume", "d": "recipients abuse", "e": "recipients volume"}
)

// fillMeanings fills a bucket of each limit; b, c and e are shut.
func fillMeanings(t *testing.T, s *state) {
	t.Helper()
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		countOf(t, s, name, limit.Volume, 1000)
	}
	for _, name := range []string{"b", "c", "e"} {
		countOf(t, s, name, limit.Abuse, 1_000_000)
	}
}

func checkMeanings(t *testing.T, s *state) {
	t.Helper()
	for _, c := range []struct {
		name string
		used int64
		shut bool
	}{{"a", 0, false}, {"b", 0, true}, {"c", 1000, false}, {"d", 1000, false}, {"e", 0, false}, {"f", 1000, false}} {
		if used, shut := countOf(t, s, c.name, limit.Volume, 0); used != c.used || shut != c.shut {
			t.Errorf("%s: %d used, shut %v; want %d, %v", c.name, used, shut, c.used, c.shut)
		}
	}
}

// Review 5, finding 4: a limit's octets became recipients, and what was shut
// under abuse stayed so under volume.
func TestReloadThatChangesWhatALimitCounts(t *testing.T) {
	s := aState(t, stateConfig(t))
	defer s.close(nil)
	var log bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	first := meaningConfig(s.config.Load(), firstMeanings)
	s.config.Store(first)
	s.renew(nil, first)
	s.work.Wait()
	fillMeanings(t, s)
	next := meaningConfig(first, nextMeanings)
	s.config.Store(next)
	s.renew(first, next)
	s.work.Wait()
	checkMeanings(t, s)
	if n := strings.Count(log.String(), "its budgets begin anew"); n != 3 || strings.Count(log.String(), "are open") != 1 || !strings.Contains(log.String(), "limit=a budgets=1 counted=bytes counts=recipients") || strings.Contains(log.String(), "taro") {
		t.Errorf("told %d times: %s", n, log.String())
	}
	countOf(t, s, "a", limit.Volume, 7)
	s.renew(next, next) // nothing has changed
	s.work.Wait()
	if used, _ := countOf(t, s, "a", limit.Volume, 0); used != 7 {
		t.Errorf("%d used: a reload is a fresh budget", used)
	}
}

func TestStartUnderAnotherConfiguration(t *testing.T) {
	c := stateConfig(t)
	s := aState(t, c)
	first := meaningConfig(c, firstMeanings)
	s.config.Store(first)
	s.renew(nil, first)
	s.work.Wait()
	fillMeanings(t, s)
	s.close(nil)

	s = aState(t, c)
	next := meaningConfig(c, nextMeanings)
	s.config.Store(next)
	s.renew(nil, next)
	s.work.Wait()
	checkMeanings(t, s)
	countOf(t, s, "a", limit.Volume, 7)
	s.close(nil)

	s = aState(t, c) // and f is back, of which there are buckets
	defer s.close(nil)
	next = meaningConfig(c, map[string]string{"a": "recipients volume", "f": "bytes volume"})
	s.config.Store(next)
	s.renew(nil, next)
	s.work.Wait()
	if used, _ := countOf(t, s, "a", limit.Volume, 0); used != 7 {
		t.Errorf("a: %d used, want 7", used)
	}
	if used, _ := countOf(t, s, "f", limit.Volume, 0); used != 0 {
		t.Errorf("f: %d used, want 0", used)
	}
}

// failing is a keeper that cannot be had.
type failing struct{ limit.Keeper }

func (failing) Each(context.Context, func(limit.Entry) error) error { return errors.New("away") }

// What could not be renewed before the end is at the next start.
func TestRenewalThatIsNotFinishedGoesOn(t *testing.T) {
	c := stateConfig(t)
	s := aState(t, c)
	first := meaningConfig(c, firstMeanings)
	s.config.Store(first)
	s.renew(nil, first)
	s.work.Wait()
	fillMeanings(t, s)
	s.budgets.whole = failing{}
	next := meaningConfig(c, nextMeanings)
	s.config.Store(next)
	s.renew(first, next)
	s.close(nil) // does not wait for it

	s = aState(t, c)
	defer s.close(nil)
	s.config.Store(next)
	s.renew(nil, next)
	s.work.Wait()
	checkMeanings(t, s)
}
