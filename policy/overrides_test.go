package policy_test

import (
	"slices"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// set gives the limit "hour" another window for somebody.
func set(about policy.Subject, value string, count int64) policy.Switch {
	return checked(policy.Switch{Kind: policy.Set, Subject: about, Value: value, Rule: "hour", Windows: []limit.Window{window(count, time.Hour)}, By: "ops"})
}

func checked(sw policy.Switch) policy.Switch {
	if err := sw.Check(); err != nil {
		panic(err)
	}
	return sw
}

// The windows about the least count, of the same those ordered by hand.
func TestWhoseWindowsCount(t *testing.T) {
	login := set(policy.SubjectLogin, "taro@example.jp", 20)
	domain, customer := set(policy.SubjectDomain, "example.jp", 30), set(policy.SubjectCustomer, "acme", 40)
	key, plugin, site := set(policy.SubjectKey, "login:taro@example.jp", 50), set(policy.SubjectPlugin, "share", 60), set(policy.SubjectSite, "shop.example.jp", 70)
	byHand := set(policy.SubjectDomain, "example.jp", 31)
	halved := order(policy.Probation, policy.SubjectLogin, "taro@example.jp")
	ended := set(policy.SubjectLogin, "taro@example.jp", 21)
	ended.Until = now
	other := set(policy.SubjectLogin, "taro@example.jp", 22)
	other.Rule = "day"
	for _, c := range []struct {
		name   string
		orders []policy.Switch
		file   []policy.Switch
		want   int64
	}{
		{"the rule's own", nil, nil, 10},
		{"of another", []policy.Switch{set(policy.SubjectLogin, "hanako@example.jp", 99)}, []policy.Switch{set(policy.SubjectDomain, "example.org", 99)}, 10},
		{"of another rule", []policy.Switch{other}, nil, 10},
		{"the file's", nil, []policy.Switch{domain}, 30},
		{"by hand", []policy.Switch{domain}, nil, 30},
		{"by hand before the file's", []policy.Switch{byHand}, []policy.Switch{domain}, 31},
		{"the file's about less before by hand", []policy.Switch{byHand}, []policy.Switch{login}, 20},
		{"by hand about less", []policy.Switch{login}, []policy.Switch{domain}, 20},
		{"domain before customer", nil, []policy.Switch{customer, domain}, 30},
		{"login before domain", nil, []policy.Switch{customer, domain, login}, 20},
		{"site before login", nil, []policy.Switch{login, site}, 70},
		{"plugin before site", nil, []policy.Switch{site, plugin}, 60},
		{"key before all", []policy.Switch{plugin}, []policy.Switch{key}, 50},
		{"ended", []policy.Switch{ended}, nil, 10},
		{"halved", []policy.Switch{halved}, nil, 5},
		{"halved by hand", []policy.Switch{login, halved}, nil, 10},
		{"halved of the file's", []policy.Switch{halved}, []policy.Switch{customer}, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := limited("hour", limit.Login, policy.Hold, window(10, time.Hour))
			h := newHouse(policy.Enforce)
			h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{r}, Overrides: c.file, Store: h.buckets, Retries: h.retries})
			h.Finder.Customers, _ = origin.NewCustomers([]origin.Customer{{Name: "acme", Domains: []string{"example.jp"}}})
			h.order(c.orders...)
			send := func(n int) policy.Decision {
				m := h.mail("taro@example.jp", to(n)...)
				web(origin.NoUID, "shop.example.jp", "share", origin.Signed)(m)
				return h.Message(t.Context(), now, m)
			}
			d := send(int(c.want))
			if d.Verdict != policy.Accept || d.Counters[0].Count != c.want {
				t.Fatalf("%v, %+v, want %d", d.Verdict, d.Counters, c.want)
			}
			if d := send(1); d.Verdict != policy.Hold {
				t.Errorf("one more: %v", d.Verdict)
			}
			value := "login:taro@example.jp"
			if !h.Limits.Over(t.Context(), now, h.Switches.Load(), "hour", value) {
				t.Error("the full bucket is not over")
			}
		})
	}
}

// A set of a limit on probation, in learning or that only tells is softened as
// the limit is.
func TestOverridesAreSoftenedLikeTheLimit(t *testing.T) {
	sw := set(policy.SubjectLogin, "taro@example.jp", 1)
	sw.Windows = []limit.Window{burst(3, time.Minute), window(5, time.Hour)}
	for _, c := range []struct {
		phase policy.Phase
		then  policy.Verdict
		want  []policy.Verdict // of messages to two each
	}{
		{policy.Enforce, policy.Hold, []policy.Verdict{policy.Accept, policy.Hold}},
		{policy.Enforce, policy.Tell, []policy.Verdict{policy.Accept, policy.Tell}},
		{policy.Learning, policy.Hold, []policy.Verdict{policy.Accept, policy.Hold}},
		{policy.Observe, policy.Hold, []policy.Verdict{policy.Accept, policy.Tell}},
	} {
		h := newHouse(c.phase, limited("hour", limit.Login, c.then, burst(1000, time.Minute), window(1000, time.Hour)))
		h.order(sw)
		for i, want := range c.want {
			if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(2)...)); d.Verdict != want {
				t.Errorf("%v, %v: message %d: %v", c.phase, c.then, i, d.Verdict)
			}
		}
		found := h.Limits.InForce(now, h.Switches.Load(), "hour", "login:taro@example.jp")
		if soft := c.phase == policy.Learning || c.then == policy.Tell; found.Windows[1].Soft != soft || found.Windows[1].Count != 5 {
			t.Errorf("%v, %v: in force %+v", c.phase, c.then, found)
		}
	}
}

func bulkOrder(login string, count int64) policy.Switch {
	return checked(policy.Switch{ID: "b1", Kind: policy.Bulk, Subject: policy.SubjectLogin, Value: login, Count: count, Since: now.Add(-time.Hour), Until: now.Add(48 * time.Hour), By: "ops"})
}

func TestBulk(t *testing.T) {
	abuse := limited("abuse", limit.Login, policy.Hold, window(70, 24*time.Hour))
	abuse.Kind = limit.Abuse
	all := []policy.LimitRule{limited("hour", limit.Login, policy.Hold, window(10, time.Hour)), counting(limit.Distinct, 20), counting(limit.Messages, 100), limited("server", limit.Server, policy.Hold, window(200, time.Hour))}
	t.Run("in place of the account's own", func(t *testing.T) {
		h := newHouse(policy.Enforce, all...)
		h.order(bulkOrder("taro@example.jp", 80))
		send := func(login string, n int) policy.Decision {
			return h.Message(t.Context(), now, h.mail(login, to(n)...))
		}
		d := send("taro@example.jp", 79)
		if d.Verdict != policy.Accept || len(d.Counters) != 2 || d.Counters[0].Limit != "bulk" || d.Counters[0].Key != "login:taro@example.jp b1" || d.Counters[0].Count != 80 || d.Counters[1].Limit != "server" {
			t.Fatalf("%v: %s, %+v", d.Verdict, d.Reason, d.Counters)
		}
		if len(d.Charges) != 2 || d.Charges[0].Key.Limit != "bulk" || h.used(t, "server", "server") != 79 {
			t.Errorf("charges %+v", d.Charges)
		}
		if h.used(t, "hour", "login:taro@example.jp") > 0 {
			t.Error("the account's own limit is charged, too")
		}
		if d := send("taro@example.jp", 10); d.Verdict != policy.Accept || d.Counters[0].Limit != "hour" { // no room for 10: as usual
			t.Errorf("the rest of the bulk is too small: %v, %+v", d.Verdict, d.Counters)
		}
		if d := send("taro@example.jp", 1); d.Verdict != policy.Accept || d.Counters[0].Limit != "bulk" {
			t.Errorf("the last of the bulk: %v, %+v", d.Verdict, d.Counters)
		}
		if d := send("taro@example.jp", 1); d.Verdict != policy.Hold || d.Rule != "hour" {
			t.Errorf("over both: %v by %q", d.Verdict, d.Rule)
		}
		if d := send("hanako@example.jp", 11); d.Verdict != policy.Reject {
			t.Errorf("another's mail: %v", d.Verdict)
		}
		if d := h.Message(t.Context(), now.Add(72*time.Hour), h.mail("taro@example.jp", to(11)...)); d.Verdict != policy.Reject {
			t.Errorf("after its end: %v", d.Verdict)
		}
	})
	t.Run("not in place of abuse and of parents", func(t *testing.T) {
		h := newHouse(policy.Enforce, append(slices.Clone(all), abuse)...)
		h.order(bulkOrder("taro@example.jp", 8000))
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(71)...)); d.Verdict != policy.Hold || d.Rule != "abuse" {
			t.Errorf("%v by %q", d.Verdict, d.Rule)
		}
		h = newHouse(policy.Enforce, all...)
		h.order(bulkOrder("taro@example.jp", 8000))
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(200)...))
		d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
		if d.Verdict != policy.Hold || d.Rule != "server" {
			t.Fatalf("%v by %q", d.Verdict, d.Rule)
		}
		if d.Waits == nil || len(d.Waits.Charges) != 4 || d.Waits.Keys[0].Limit != "server" {
			t.Errorf("waits %+v, want all that it takes without the bulk order", d.Waits)
		}
	})
	t.Run("at RCPT", func(t *testing.T) {
		h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Defer, window(10, time.Hour)))
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(10)...))
		if d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), "x@example.net"); d.Verdict != policy.Defer {
			t.Fatalf("%v", d.Verdict)
		}
		h.order(bulkOrder("taro@example.jp", 8000))
		if d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), "x@example.net"); d.Verdict != policy.Accept {
			t.Errorf("with a bulk order: %v", d.Verdict)
		}
	})
}
