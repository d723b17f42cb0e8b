package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/milter"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

// limitedState has the limit login-volume of 1000 in an hour, and a burst.
func limitedState(t *testing.T, phase policy.Phase) *state {
	t.Helper()
	c := stateConfig(t)
	c.Limits = []config.Limit{{Name: "login-volume", Per: []string{"login"}, Recipients: "all", Counts: "recipients", Kind: "volume", Then: policy.Hold,
		Windows: []config.Window{{Count: 1000, Length: time.Hour}}, Burst: config.Window{Count: 700, Length: 10 * time.Minute}}}
	s := aState(t, c)
	t.Cleanup(func() { s.close(nil) })
	l := policy.LimitRule{Then: policy.Hold}
	l.Name, l.Per, l.Counts, l.Kind = "login-volume", []limit.Per{limit.Login}, limit.Recipients, limit.Volume
	l.Windows = []limit.Window{{Count: 1000, Length: time.Hour}, {Count: 700, Length: 10 * time.Minute, Burst: true}}
	s.rules.Store(&rules{limitNames: []string{"login-volume"}, policy: &policy.Policy{Switches: s.board, Limits: policy.NewLimits(policy.LimitsOptions{Phase: phase, Rules: []policy.LimitRule{l}, Store: s.budgets, Retries: s.retries})}})
	return s
}

func listed(t *testing.T, s *state, account string) limitList {
	t.Helper()
	out, err := s.listLimits(t.Context(), time.Now(), account, "", maxShown)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Review 2, finding 11.
func TestLimitsOfAnAccountOnProbationAreHalf(t *testing.T) {
	s := limitedState(t, policy.Enforce)
	spend(t, s, 2, 400)
	if _, err := s.switches.Set(policy.Switch{Kind: policy.Probation, Subject: policy.SubjectLogin, Value: "u0@example.jp", Since: time.Now(), Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for account, want := range map[string]int64{"u0@example.jp": 500, "login:u1@example.jp": 1000} {
		out := listed(t, s, account)
		i := slices.IndexFunc(out.Buckets, func(b bucketShown) bool { return b.Window == 3600 })
		if i < 0 || out.Buckets[i].Count != want || out.Buckets[i].Used != 400 {
			t.Errorf("%s: %+v, want 400 of %d", account, out.Buckets, want)
		}
	}
}

func TestLimitsShowWhatOnlyTells(t *testing.T) {
	for phase, want := range map[policy.Phase][]string{policy.Enforce: nil, policy.Learning: {"1000/1h"}} {
		out := listed(t, limitedState(t, phase), "")
		if len(out.Limits) != 1 || !slices.Equal(out.Limits[0].Tells, want) || !slices.Equal(out.Limits[0].Windows, []string{"1000/1h"}) {
			t.Errorf("%v: %+v, want %q to tell only", phase, out.Limits, want)
		}
	}
}

// Review 2, findings 5 and 17.
func TestStatusTellsWhatTheMTAStopsAndWhatWasForgotten(t *testing.T) {
	s := limitedState(t, policy.Enforce)
	queued := &fakeQueue{stopped: true, forbidden: []string{"games"}}
	s.desk.Queue = queued
	s.budgets = memoryBudgets(limit.NewMemoryOf(limit.MemoryOptions{Buckets: 1}))
	spend(t, s, 1000, 1)
	d := &daemon{state: s, guard: aGuard(s), server: &milter.Server{}}
	if err := s.desk.Reconcile(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := d.status(t.Context(), time.Now()); !strings.Contains(got.MTAStop, "still stops") || !slices.Equal(got.Forbidden, []string{"games"}) {
		t.Errorf("got %q, %q", got.MTAStop, got.Forbidden)
	}
	if got := d.status(t.Context(), time.Now()); got.Store.Forgotten == 0 || got.Store.Forgotten != 1000-uint64(got.Store.Buckets) {
		t.Errorf("%d buckets, %d forgotten of 1000", got.Store.Buckets, got.Store.Forgotten)
	}
	queued.stopped, queued.forbidden = false, nil
	if got := d.status(t.Context(), time.Now()); got.MTAStop != "" || len(got.Forbidden) > 0 {
		t.Errorf("after it was mended: %q, %q", got.MTAStop, got.Forbidden)
	}
}

func TestLimitsOfWhatIsNobodysAccount(t *testing.T) {
	s := limitedState(t, policy.Enforce)
	for _, value := range []string{"server", "machine:192.0.2.7", "sender_domain:example.jp", "login:server"} {
		charge := limit.Charge{Key: limit.Key{Limit: "login-volume", Value: value}, Kind: limit.Volume, Windows: []limit.Window{{Count: 1000, Length: time.Hour}}, Amount: 7}
		if _, err := limittest.Spend(t.Context(), s.budgets, time.Now(), []limit.Charge{charge}); err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range []string{"server", "machine:192.0.2.7", "sender_domain:example.jp", "login:server"} {
		out := listed(t, s, value)
		if len(out.Buckets) == 0 || slices.ContainsFunc(out.Buckets, func(b bucketShown) bool { return b.Key != value }) {
			t.Errorf("%s: %+v", value, out.Buckets)
		}
	}
	if _, err := s.listLimits(t.Context(), time.Now(), "planet:mars", "", maxShown); err == nil {
		t.Error("a kind that there is not")
	}
}
