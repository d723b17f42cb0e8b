package policy_test

import (
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// who is a login as limits show asks about it.
func who(login string) *origin.Origin {
	e := origin.NewEvidence()
	e.Login = login
	o := new(origin.Finder).Find(&e)
	return &o
}

func TestAskShowsHowAnOriginStands(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(10, time.Hour), window(100, 24*time.Hour))
	night := limited("night", limit.Domain, policy.Reject, window(20, time.Hour))
	night.When.Hours, night.Scope = []policy.Hours{{From: 22 * 60, To: 6 * 60}}, policy.OutsideOnly
	watch := counting(limit.FirstTime, 50)
	watch.Observe = true
	large := counting(limit.Bytes, 1000)
	large.When.MinSize = 10_000
	all := []policy.LimitRule{hour, night, watch, large, limited("site", limit.Site, policy.Hold, window(1, time.Hour)), limited("domains", limit.RecipientDomain, policy.Hold, window(100, time.Hour))}
	h := newHouse(policy.Enforce, all...)
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(3)...))
	h.queued(lines{"login:taro@example.jp": 4}, all...)
	got, err := h.Limits.Ask(t.Context(), now, h.Switches.Load(), who("taro@example.jp"), 5)
	if err != nil {
		t.Fatal(err)
	}
	want := []policy.Standing{
		{Rule: "hour", Per: "login", Key: "login:taro@example.jp", Counts: "recipients", Kind: "volume", Then: "hold", Scope: "all", Applies: true, Source: "file", Waiting: 4},
		{Rule: "night", Per: "domain", Key: "domain:example.jp", Counts: "recipients", Kind: "volume", Then: "reject", Scope: "outside", When: "22:00-06:00", Source: "file"},
		{Rule: "bytes", Per: "login", Key: "login:taro@example.jp", Counts: "bytes", Kind: "volume", Then: "hold", Scope: "all", When: "at least 10000 bytes", Source: "file", Waiting: 4},
		{Rule: "first_time", Per: "login", Key: "login:taro@example.jp", Counts: "first_time", Kind: "volume", Then: "tell", Scope: "all", Applies: true, Source: "file", Waiting: 4},
	}
	if len(got.Standings) != len(want) {
		t.Fatalf("%+v", got.Standings)
	}
	for i, s := range got.Standings {
		windows := s.Windows
		s.Windows = nil
		if !equal(s, want[i]) || len(windows) != map[string]int{"hour": 2}[s.Rule]+map[bool]int{true: 1}[s.Rule != "hour"] {
			t.Errorf("%+v, %d windows, want %+v", s, len(windows), want[i])
		}
	}
	if w := got.Standings[0].Windows[0]; w.Used != 3 || w.Count != 10 || w.Amount != 5 || w.Over {
		t.Errorf("%+v", w)
	}
	if got.Verdict != policy.Hold || got.Rule != "hour" || !strings.HasPrefix(got.Reason, "4 messages of") {
		t.Errorf("behind what waits: %v by %q: %s", got.Verdict, got.Rule, got.Reason)
	}
}

func equal(a, b policy.Standing) bool {
	a.Windows, b.Windows = nil, nil
	return a.Rule == b.Rule && a.Per == b.Per && a.Key == b.Key && a.Counts == b.Counts && a.Kind == b.Kind && a.Then == b.Then && a.Scope == b.Scope &&
		a.When == b.When && a.Applies == b.Applies && a.Source == b.Source && a.Latched == b.Latched && a.Waiting == b.Waiting
}

// What Ask foretells is what a message then gets, and asking changes nothing.
func TestAskForetells(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(10, time.Hour))
	lifted := allowed(policy.SubjectLogin, "taro@example.jp", "hour")
	abuse := limited("abuse", limit.Login, policy.Defer, window(12, time.Hour))
	abuse.Kind = limit.Abuse
	ceiling := limited("ceiling", limit.Server, policy.Reject, window(30, 24*time.Hour))
	for _, phase := range []policy.Phase{policy.Enforce, policy.Observe, policy.Learning} {
		for name, orders := range map[string][]policy.Switch{
			"nothing": nil, "set": {set(policy.SubjectLogin, "taro@example.jp", 12)}, "bulk": {bulkOrder("taro@example.jp", 40)}, "bulk too small": {bulkOrder("taro@example.jp", 2)},
			"probation": {order(policy.Probation, policy.SubjectLogin, "taro@example.jp")}, "lifted": {lifted},
		} {
			for _, n := range []int{1, 5, 7, 8, 11, 28, 40} {
				h := newHouse(phase, hour, abuse, ceiling, counting(limit.Distinct, 25), counting(limit.FirstTime, 26))
				h.order(orders...)
				h.Message(t.Context(), now, h.mail("taro@example.jp", "a@example.net", "b@example.net", "c@example.net"))
				for range 3 {
					asked, err := h.Limits.Ask(t.Context(), now, h.Switches.Load(), who("taro@example.jp"), n)
					if err != nil {
						t.Fatal(err)
					}
					if want, _ := h.Limits.Ask(t.Context(), now, h.Switches.Load(), who("taro@example.jp"), n); want.Verdict != asked.Verdict {
						t.Fatal("it changes by asking")
					}
					if asked.Verdict == policy.Accept {
						continue
					}
					again := newHouse(phase, hour, abuse, ceiling, counting(limit.Distinct, 25), counting(limit.FirstTime, 26))
					again.order(orders...)
					again.Message(t.Context(), now, again.mail("taro@example.jp", "a@example.net", "b@example.net", "c@example.net"))
					if d := again.Message(t.Context(), now, again.mail("taro@example.jp", to(n)...)); d.Verdict != asked.Verdict || d.Rule != asked.Rule {
						t.Errorf("%v, %s, %d recipients: %v by %q, foretold %v by %q", phase, name, n, d.Verdict, d.Rule, asked.Verdict, asked.Rule)
					}
				}
				asked, _ := h.Limits.Ask(t.Context(), now, h.Switches.Load(), who("taro@example.jp"), n)
				if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(n)...)); d.Verdict != asked.Verdict {
					t.Errorf("%v, %s, %d recipients: %v, foretold %v", phase, name, n, d.Verdict, asked.Verdict)
				}
			}
		}
	}
}

func TestAskSaysWhereWindowsComeFrom(t *testing.T) {
	byHand := set(policy.SubjectDomain, "example.jp", 99)
	byHand.Rule, byHand.Until = "login-volume", now.Add(time.Hour)
	inFile := set(policy.SubjectLogin, "hanako@example.jp", 98)
	inFile.Rule = "login-volume"
	lifted := allowed(policy.SubjectLogin, "jiro@example.org", "login-volume")
	var all []policy.LimitRule
	for _, l := range limit.Defaults() {
		if l.Name == "login-volume" {
			all = append(all, policy.LimitRule{Limit: l.Limit, Then: policy.Hold})
		}
	}
	h := newHouse(policy.Enforce)
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: all, Overrides: []policy.Switch{inFile}, Store: h.buckets, Retries: h.retries})
	h.order(byHand, lifted, order(policy.Probation, policy.SubjectLogin, "taro@example.jp"))
	for login, want := range map[string]string{
		"taro@example.jp":   "set for domain:example.jp by ops, until 2026-03-02T10:00:00Z; halved: probation",
		"hanako@example.jp": "file, for login:hanako@example.jp",
		"taro@example.org":  "default",
		"jiro@example.org":  "default; does not count: allowed",
	} {
		got, err := h.Limits.Ask(t.Context(), now, h.Switches.Load(), who(login), 1)
		if err != nil || len(got.Standings) != 1 || got.Standings[0].Source != want {
			t.Errorf("%s: %v, %+v, want %q", login, err, got.Standings, want)
		}
	}
	h.order(bulkOrder("taro@example.org", 500))
	got, err := h.Limits.Ask(t.Context(), now, h.Switches.Load(), who("taro@example.org"), 400)
	if err != nil || got.Verdict != policy.Accept || len(got.Standings) != 2 {
		t.Fatalf("%v, %+v", err, got)
	}
	if s := got.Standings[1]; s.Rule != "bulk" || s.Source != "allowed by ops, until 2026-03-04T09:00:00Z" || len(s.Windows) != 1 || s.Windows[0].Count != 500 || got.Standings[0].Applies {
		t.Errorf("%+v", got.Standings)
	}
}

func TestAskOfNobody(t *testing.T) {
	h := newHouse(policy.Enforce, perAll()...)
	e := origin.NewEvidence()
	nobody := new(origin.Finder).Find(&e)
	if got, err := h.Limits.Ask(t.Context(), now, nil, &nobody, 10); err != nil || got.Verdict != policy.Accept || len(got.Standings) != 1 || got.Standings[0].Key != "server" {
		t.Errorf("%v, %+v", err, got)
	}
	var none *policy.Limits
	if got, err := none.Ask(t.Context(), now, nil, &nobody, 10); err != nil || got.Verdict != policy.Accept {
		t.Errorf("%v, %+v", err, got)
	}
}

// An alarm must not close because the store cannot be asked.
func TestOverWhileTheStoreIsAway(t *testing.T) {
	h := newHouse(policy.Enforce)
	l := policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{limited("hour", limit.Login, policy.Hold, window(10, time.Hour))}, Store: away{}, Retries: h.retries})
	if !l.Over(t.Context(), now, nil, "hour", "login:taro@example.jp") {
		t.Error("a bucket that cannot be asked counts as one with room")
	}
	if l.Over(t.Context(), now, nil, "day", "login:taro@example.jp") {
		t.Error("a limit that is not there is over")
	}
}

// A bucket's value does not name the customer, and what is set for one counts.
func TestOverKnowsTheCustomer(t *testing.T) {
	h := newHouse(policy.Enforce)
	h.Finder.Customers, _ = origin.NewCustomers([]origin.Customer{{Name: "acme", Domains: []string{"example.jp"}}})
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{limited("hour", limit.Login, policy.Reject, window(10, time.Hour))}, Store: h.buckets, Retries: h.retries, Customers: h.Finder.Customers.Find})
	h.order(set(policy.SubjectCustomer, "acme", 3))
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(3)...))
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Reject {
		t.Fatalf("%v, want the fourth refused", d.Verdict)
	}
	const value = "login:taro@example.jp"
	if !h.Limits.Over(t.Context(), now, h.Switches.Load(), "hour", value) {
		t.Error("what is full by its customer's limit is not over")
	}
	if in := h.Limits.InForce(now, h.Switches.Load(), "hour", value); in.Windows[0].Count != 3 {
		t.Errorf("in force: %+v, want the customer's", in.Windows)
	}
}
