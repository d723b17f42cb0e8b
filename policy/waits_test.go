package policy_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// lines are what waits of taro, by the bucket's value.
type lines map[string]int

func (l lines) Behind(key limit.Key, account string) int {
	if account != "login:taro@example.jp" {
		return 0
	}
	return l[key.Value]
}

// queued gives the house limits with lines.
func (h *house) queued(l policy.Queue, all ...policy.LimitRule) {
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: h.Phase, Rules: all, SharedUIDs: []int{33}, Store: h.buckets, Retries: h.retries, Item: item, Lines: l})
}

func TestWhatWaits(t *testing.T) {
	hour := limited("hour", limit.Account, policy.Hold, window(10, time.Hour))
	server := limited("server", limit.Server, policy.Hold, window(10, 2*time.Hour))
	with := func(r policy.LimitRule, change func(*policy.LimitRule)) policy.LimitRule {
		change(&r)
		return r
	}
	abuse := with(limited("abuse", limit.Account, policy.Hold, window(10, time.Hour)), func(r *policy.LimitRule) { r.Kind = limit.Abuse })
	for _, c := range []struct {
		name  string
		phase policy.Phase
		all   []policy.LimitRule
		be    func(*house, *policy.Message)
		want  policy.Verdict
		keys  string // empty: it does not wait
	}{
		{"for one limit", policy.Enforce, []policy.LimitRule{hour}, nil, policy.Hold, "hour/login:taro@example.jp"},
		{"for two", policy.Enforce, []policy.LimitRule{hour, server}, nil, policy.Hold, "hour/login:taro@example.jp server/server"},
		{"a rule that tells, too", policy.Enforce, []policy.LimitRule{hour, with(server, func(r *policy.LimitRule) { r.Then = policy.Tell })}, nil, policy.Hold, "hour/login:taro@example.jp"},
		{"abuse", policy.Enforce, []policy.LimitRule{abuse}, nil, policy.Hold, ""},
		{"abuse, too", policy.Enforce, []policy.LimitRule{hour, abuse}, nil, policy.Hold, ""},
		{"deferred", policy.Enforce, []policy.LimitRule{with(hour, func(r *policy.LimitRule) { r.Then = policy.Defer })}, nil, policy.Defer, ""},
		{"deferred local mail", policy.Enforce, []policy.LimitRule{with(server, func(r *policy.LimitRule) { r.Then = policy.Defer })}, func(_ *house, m *policy.Message) {
			m.Role, m.Login, m.UID = policy.Local, "", 1000
		}, policy.Hold, "server/server"},
		{"rejected", policy.Enforce, []policy.LimitRule{hour, with(server, func(r *policy.LimitRule) { r.Then = policy.Reject })}, nil, policy.Reject, ""},
		{"a null sender's that would be rejected", policy.Enforce, []policy.LimitRule{with(server, func(r *policy.LimitRule) { r.Then = policy.Reject })}, func(_ *house, m *policy.Message) { m.MailFrom = "" }, policy.Hold, ""},
		{"without room to hold it", policy.Enforce, []policy.LimitRule{hour}, func(h *house, _ *policy.Message) { h.Room = &room{0} }, policy.Defer, ""},
		{"while all is stopped", policy.Enforce, []policy.LimitRule{hour}, func(h *house, _ *policy.Message) { h.order(order(policy.Stop, "", "")) }, policy.Hold, "hour/login:taro@example.jp"},
		{"observing", policy.Observe, []policy.LimitRule{hour}, nil, policy.Tell, ""},
		{"learning, without a burst", policy.Learning, []policy.LimitRule{hour}, nil, policy.Tell, ""},
		{"held by another rule", policy.Enforce, []policy.LimitRule{hour}, func(h *house, m *policy.Message) {
			h.Addresses.Envelope = policy.Hold
			m.MailFrom = "ceo@example.org"
		}, policy.Hold, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(c.phase, c.all...)
			if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(8)...)); d.Verdict != policy.Accept || d.Waits != nil {
				t.Fatalf("%v, %+v", d.Verdict, d.Waits)
			}
			h.Message(t.Context(), now, h.mail("hanako@example.jp", to(2)...))
			m := h.mail("taro@example.jp", to(3)...)
			if c.be != nil {
				c.be(h, m)
			}
			d := h.Message(t.Context(), now, m)
			var keys []string
			if d.Waits != nil {
				for _, k := range d.Waits.Keys {
					keys = append(keys, k.String())
				}
				if len(d.Waits.Charges) != len(c.all) || d.Waits.Recipients == 0 && len(c.all) == 1 && c.all[0].Name == "hour" || d.Waits.Origin.Name() != d.Origin.Name() {
					t.Errorf("%+v", d.Waits)
				}
			}
			if d.Verdict != c.want || strings.Join(keys, " ") != c.keys {
				t.Errorf("%v, waits for %q, want %v for %q", d.Verdict, keys, c.want, c.keys)
			}
		})
	}
}

func TestWaitsIsKeptAsJSON(t *testing.T) {
	h := newHouse(policy.Enforce, counting(limit.FirstTime, 100), counting(limit.Distinct, 3), counting(limit.Bytes, 1e6))
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(3)...))
	w := h.Message(t.Context(), now, h.mail("taro@example.jp", "x@example.net", "y@example.net")).Waits
	if w == nil || len(w.Known.Items) != 2 || w.Known.Account != "login:taro@example.jp" || len(w.Charges) != 3 {
		t.Fatalf("%+v", w)
	}
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	var again policy.Waits
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(&again, w) {
		t.Errorf("%v\n%+v\n%+v", err, again, w)
	}
	if strings.Contains(string(text), "x@example.net") {
		t.Errorf("it has a recipient: %s", text)
	}
}

func TestNewMailQueuesBehindWhatWaits(t *testing.T) {
	hour, day := limited("hour", limit.Login, policy.Hold, window(10, time.Hour)), limited("server", limit.Server, policy.Hold, window(100, time.Hour))
	abuse := limited("abuse", limit.Login, policy.Hold, window(10, time.Hour))
	abuse.Kind = limit.Abuse
	waiting := lines{"login:taro@example.jp": 2}
	for _, c := range []struct {
		name    string
		all     []policy.LimitRule
		lines   lines
		n       int
		want    policy.Verdict
		reason  string
		waits   bool
		latched bool
	}{
		{"nothing waits", []policy.LimitRule{hour, day}, lines{"login:hanako@example.jp": 2}, 1, policy.Accept, "", false, false},
		{"two wait", []policy.LimitRule{hour, day}, waiting, 1, policy.Hold, "2 messages of login:taro@example.jp wait under this limit, this one queues behind them", true, false},
		{"one waits", []policy.LimitRule{hour, day}, lines{"server": 1}, 1, policy.Hold, "1 message of login:taro@example.jp waits under this limit, this one queues behind it", true, false},
		{"and there is no room", []policy.LimitRule{hour, day}, waiting, 10, policy.Hold, "1 of 10 recipients in 1h", true, false},
		{"and there never will be", []policy.LimitRule{hour, day}, waiting, 11, policy.Reject, "1 of 10 recipients in 1h", false, false},
		{"under a rule that tells", []policy.LimitRule{func() policy.LimitRule { r := hour; r.Then = policy.Tell; return r }()}, waiting, 1, policy.Accept, "", false, false},
		{"under one that defers", []policy.LimitRule{func() policy.LimitRule { r := hour; r.Then = policy.Defer; return r }()}, waiting, 1, policy.Accept, "", false, false},
		{"beside abuse", []policy.LimitRule{hour, abuse}, waiting, 1, policy.Hold, "2 messages of", true, false},
		{"and it is abuse", []policy.LimitRule{hour, abuse}, waiting, 10, policy.Hold, "1 of 10 recipients in 1h", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(policy.Enforce)
			h.queued(nil, c.all...)
			h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
			h.queued(c.lines, c.all...)
			m := h.mail("taro@example.jp", to(c.n)...)
			d := h.Message(t.Context(), now, m)
			if d.Verdict != c.want || !strings.HasPrefix(d.Reason, c.reason) || (d.Waits != nil) != c.waits {
				t.Errorf("%v: %s, waits %+v", d.Verdict, d.Reason, d.Waits)
			}
			want := int64(1)
			if c.want == policy.Accept && c.all[0].Then != policy.Tell {
				want = 2
			}
			if used := h.used(t, c.all[0].Name, "login:taro@example.jp"); used != want && c.want != policy.Accept {
				t.Errorf("%d are charged, want %d", used, want)
			}
			latched := h.peek(t, now, abuse.Charge("login:taro@example.jp", 0, nil)).Latched[0]
			if latched != c.latched {
				t.Errorf("shut: %v", latched)
			}
		})
	}
	h := newHouse(policy.Enforce)
	h.queued(nil, hour)
	first := h.mail("taro@example.jp", to(1)...)
	h.Message(t.Context(), now, first)
	h.queued(waiting, hour)
	first.QueueID = "again"
	if d := h.Message(t.Context(), now, first); d.Verdict != policy.Accept {
		t.Errorf("a free retry queues: %v: %s", d.Verdict, d.Reason)
	}
	h.Room = &room{0}
	if d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), "x@example.net"); d.Verdict != policy.Defer || d.Rule != policy.RuleHoldCap {
		t.Errorf("at RCPT, without room to hold more: %v by %q", d.Verdict, d.Rule)
	}
}

func TestPay(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(10, time.Hour))
	first, bounces := counting(limit.FirstTime, 100), counting(limit.Bounces, 5)
	all := []policy.LimitRule{hour, first, bounces, limited("watch", limit.Login, policy.Tell, window(100, time.Hour))}
	abuse := limited("abuse", limit.Login, policy.Hold, window(10, time.Hour))
	abuse.Kind = limit.Abuse
	for _, c := range []struct {
		name  string
		after time.Duration
		be    func(h *house)
		want  policy.Paid
		used  int64 // of hour, then
	}{
		{"no room yet", time.Minute, nil, policy.Paid{FreeAt: now.Add(time.Hour + time.Microsecond), Reason: "hour: 10 of 10 recipients in 1h used by login:taro@example.jp, this message has 4; free again at 2026-03-02T10:00:00Z"}, 10},
		{"room", 2 * time.Hour, nil, policy.Paid{Taken: true}, 4},
		{"the limit is gone", time.Minute, func(h *house) { h.use(policy.Enforce, first) }, policy.Paid{Taken: true}, -1},
		{"all limits are gone", time.Minute, func(h *house) { h.use(policy.Enforce) }, policy.Paid{Taken: true}, -1},
		{"it is larger now", time.Minute, func(h *house) { h.order(set(policy.SubjectLogin, "taro@example.jp", 14)) }, policy.Paid{Taken: true}, 14},
		{"it is too small now", 2 * time.Hour, func(h *house) { h.order(set(policy.SubjectDomain, "example.jp", 3)) }, policy.Paid{Never: true, Reason: "hour: 0 of 3 recipients in 1h used by login:taro@example.jp, this message has 4; more than may ever be in one message"}, 0},
		{"probation", 2 * time.Hour, func(h *house) {
			h.order(order(policy.Probation, policy.SubjectLogin, "taro@example.jp"), set(policy.SubjectLogin, "taro@example.jp", 6))
		}, policy.Paid{Never: true, Reason: "hour: 0 of 3 recipients in 1h used by login:taro@example.jp, this message has 4; more than may ever be in one message"}, 0},
		{"it is lifted", time.Minute, func(h *house) { h.order(allowed(policy.SubjectLogin, "taro@example.jp", "hour")) }, policy.Paid{Taken: true}, 10},
		{"bulk", time.Minute, func(h *house) { h.order(bulkOrder("taro@example.jp", 100)) }, policy.Paid{Taken: true}, 10},
		{"bulk that is used up", time.Minute, func(h *house) { h.order(bulkOrder("taro@example.jp", 3)) }, policy.Paid{FreeAt: now.Add(time.Hour + time.Microsecond), Reason: "hour: 10 of 10 recipients in 1h used by login:taro@example.jp, this message has 4; free again at 2026-03-02T10:00:00Z"}, 10},
		{"too many bounced meanwhile", 2 * time.Hour, func(h *house) {
			h.add(t, now.Add(90*time.Minute), bounces.Charge("login:taro@example.jp", 5, nil))
		}, policy.Paid{FreeAt: now.Add(150*time.Minute + time.Microsecond), Reason: "bounces: 5 of 5 bounces in 1h used by login:taro@example.jp; free again at 2026-03-02T11:30:00Z"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(policy.Enforce, all...)
			h.Message(t.Context(), now, h.mail("taro@example.jp", to(10)...))
			d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(4)...))
			if d.Verdict != policy.Hold || d.Waits == nil {
				t.Fatalf("%v, %+v", d.Verdict, d.Waits)
			}
			if c.be != nil {
				c.be(h)
			}
			later := now.Add(c.after)
			paid, err := h.Limits.Pay(t.Context(), later, h.Switches.Load(), d.Waits, "release:1")
			charges, bounced := paid.Charges, paid.Bounces
			paid.Charges, paid.Bounces = nil, nil
			if err != nil || !reflect.DeepEqual(paid, c.want) {
				t.Errorf("%+v, %v, want %+v", paid, err, c.want)
			}
			if (len(charges)+len(bounced) > 0) != (paid.Taken && (h.Limits.Find("hour") != nil)) {
				t.Errorf("charges %+v, bounces %+v", charges, bounced)
			}
			if found := h.Limits.Find("hour"); found != nil {
				if used := h.peek(t, later, found.Charge("login:taro@example.jp", 0, nil)).Uses[0].Used; used != c.used {
					t.Errorf("%d are used, want %d", used, c.used)
				}
			}
			if attempts := h.peek(t, later, hour.Charge("login:taro@example.jp", 0, nil)).Attempts[0]; c.after < time.Hour && attempts != 4 {
				t.Errorf("%d attempts, want the 4 from when it came", attempts)
			}
		})
	}
	t.Run("it only tells now", func(t *testing.T) {
		h := newHouse(policy.Enforce, hour)
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(10)...))
		w := h.Message(t.Context(), now, h.mail("taro@example.jp", to(4)...)).Waits
		r := hour
		r.Then = policy.Tell
		h.use(policy.Enforce, r)
		if paid, err := h.Limits.Pay(t.Context(), now, nil, w, "release:1"); err != nil || !paid.Taken || len(paid.Charges) != 0 || h.used(t, "hour", "login:taro@example.jp") != 10 {
			t.Errorf("%+v, %v", paid, err)
		}
	})
	t.Run("shut", func(t *testing.T) {
		h := newHouse(policy.Enforce, hour, abuse)
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(5)...))
		h.queued(lines{"login:taro@example.jp": 1}, hour, abuse)
		w := h.Message(t.Context(), now, h.mail("taro@example.jp", to(4)...)).Waits
		h.queued(nil, hour, abuse)
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(9)...))
		paid, err := h.Limits.Pay(t.Context(), now.Add(5*time.Hour), nil, w, "release:1")
		if err != nil || paid.Taken || !paid.Never || !paid.FreeAt.IsZero() || !strings.HasSuffix(paid.Reason, "shut until it is resumed") {
			t.Errorf("%+v, %v", paid, err)
		}
	})
	t.Run("knows whom it went to", func(t *testing.T) {
		h := newHouse(policy.Enforce, all...)
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(10)...))
		w := h.Message(t.Context(), now, h.mail("taro@example.jp", "x@example.net", "y@example.net")).Waits
		if paid, err := h.Limits.Pay(t.Context(), now.Add(2*time.Hour), nil, w, "r"); err != nil || !paid.Taken {
			t.Fatalf("%+v, %v", paid, err)
		}
		d := h.Message(t.Context(), now.Add(2*time.Hour), h.mail("taro@example.jp", "x@example.net"))
		if i := slices.IndexFunc(d.Counters, func(c policy.Counter) bool { return c.Limit == "first_time" }); d.Counters[i].Amount != 0 {
			t.Errorf("%+v", d.Counters[i])
		}
	})
	t.Run("store away", func(t *testing.T) {
		h := newHouse(policy.Enforce, hour)
		h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{hour}, Store: away{}, Retries: h.retries})
		w := &policy.Waits{Charges: []policy.WaitCharge{{Limit: "hour", Value: "login:taro@example.jp", Amount: 1}}}
		if paid, err := h.Limits.Pay(t.Context(), now, nil, w, "r"); err == nil || paid.Taken {
			t.Errorf("%+v, %v", paid, err)
		}
	})
}

// What waits must not share memory with the next message.
func TestWaitsIsItsOwn(t *testing.T) {
	h := newHouse(policy.Enforce, counting(limit.Distinct, 3), counting(limit.FirstTime, 100))
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(3)...))
	w := h.Message(t.Context(), now, h.mail("taro@example.jp", "x@example.net", "y@example.net")).Waits
	before := fmt.Sprintf("%+v", w)
	for range 100 {
		h.Message(t.Context(), now, h.mail("hanako@example.jp", to(3)...))
	}
	if after := fmt.Sprintf("%+v", w); after != before {
		t.Errorf("%s\n%s", before, after)
	}
}

// A thief's held mail under a limit that all share is nobody else's to wait for,
// while there is room for theirs.
func TestOthersDoNotQueueBehindAnAccount(t *testing.T) {
	for per, key := range map[limit.Per]string{limit.Server: "server", limit.Domain: "domain:example.jp"} {
		h, waiting := newHouse(policy.Enforce), policy.NewLines(100)
		h.queued(waiting, limited("shared", per, policy.Hold, window(10, time.Hour)))
		h.Message(t.Context(), now, h.mail("thief@example.jp", to(8)...))
		m := h.mail("thief@example.jp", to(5)...)
		d := h.Message(t.Context(), now, m)
		waiting.Add(policy.Waiting{ID: "d1", QueueID: m.QueueID, HeldAt: now, Waits: d.Waits})
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Accept {
			t.Errorf("%v: %v: %s", per, d.Verdict, d.Reason)
		}
		if d := h.Message(t.Context(), now, h.mail("thief@example.jp", to(1)...)); d.Verdict != policy.Hold || d.Waits == nil {
			t.Errorf("%v: his own: %v: %s", per, d.Verdict, d.Reason)
		}
		for login, want := range map[string]int{"taro@example.jp": 0, "thief@example.jp": 1} {
			if got, err := h.Limits.Ask(t.Context(), now, nil, who(login), 1); err != nil || got.Standings[0].Waiting != want || got.Standings[0].Key != key {
				t.Errorf("%s: %v, %+v, want %d waiting", login, err, got.Standings, want)
			}
		}
	}
}

func TestPayCountsInTheUnitInForce(t *testing.T) {
	rule := func(unit limit.Unit) policy.LimitRule {
		r := limited("rule", limit.Login, policy.Hold, window(1e6, time.Hour))
		r.Counts, r.Scope = unit, policy.OutsideOnly
		return r
	}
	full, items := limited("full", limit.Server, policy.Hold, window(1, time.Hour)), counting(limit.FirstTime, 100)
	full.Counts, items.Then = limit.Messages, policy.Tell
	for _, c := range []struct {
		then, now limit.Unit
		items     bool // recipients are remembered by who they are
		want      int64
	}{
		{limit.Bytes, limit.Bytes, false, 5000},
		{limit.Bytes, limit.Recipients, false, 3},
		{limit.Bytes, limit.Messages, false, 1},
		{limit.Bytes, limit.Bounces, false, 0},
		{limit.Bytes, limit.Distinct, false, 0},
		{limit.Bytes, limit.Distinct, true, 4}, // of all of the message: more is not known
		{limit.Recipients, limit.Bytes, false, 5000},
		{limit.Messages, limit.Recipients, false, 3},
		{limit.Distinct, limit.FirstTime, true, 3},
	} {
		extra := []policy.LimitRule{full}
		if c.items {
			extra = append(extra, items)
		}
		h := newHouse(policy.Enforce, append(extra, rule(c.then))...)
		h.Message(t.Context(), now, h.mail("hanako@example.jp", to(1)...))
		m := h.mail("taro@example.jp", append(to(3), "inside@example.jp")...)
		m.Size = 5000
		d := h.Message(t.Context(), now, m)
		if d.Waits == nil {
			t.Fatalf("%v: %s", d.Verdict, d.Reason)
		}
		r := rule(c.now)
		h.use(policy.Enforce, r)
		if paid, err := h.Limits.Pay(t.Context(), now, nil, d.Waits, "r"); err != nil || !paid.Taken {
			t.Fatalf("%+v, %v", paid, err)
		}
		if used := h.used(t, "rule", "login:taro@example.jp"); used != c.want && !(used == -1 && c.want == 0) {
			t.Errorf("held under %v, paid under %v: %d, want %d", c.then, c.now, used, c.want)
		}
	}
}

// What an alias stands for is in the charges of what waits, which are not to be
// raised by it once more.
func TestWaitsKnowsWhatAliasesStoodFor(t *testing.T) {
	r, per := limited("hour", limit.Login, policy.Hold, window(100, time.Hour)), limited("domain", limit.RecipientDomain, policy.Hold, window(100, time.Hour))
	h := newHouse(policy.Enforce)
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{r, per}, Store: h.buckets, Retries: h.retries, Expansions: expansions{"all@example.jp": 40}})
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(90)...))
	w := h.Message(t.Context(), now, h.mail("taro@example.jp", "all@example.jp", "a@example.net")).Waits
	if w == nil || w.Counted != 41 {
		t.Fatalf("%+v", w)
	}
	for _, c := range w.Charges {
		want := map[string]int64{"login:taro@example.jp": 41, "recipient_domain:example.jp": 40, "recipient_domain:example.net": 1}[c.Value]
		if c.Amount != want || c.Recipients != want || c.Unit != "recipients" {
			t.Errorf("%+v, want %d recipients", c, want)
		}
	}
}

func TestBucketsOfADecision(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(3, time.Hour))
	both := limited("both", limit.Login, policy.Hold, window(2, time.Hour))
	both.Per, both.Kind = []limit.Per{limit.Login, limit.RecipientDomain}, limit.Abuse
	for name, c := range map[string]struct {
		all  []policy.LimitRule
		rcpt []string
		want []string
	}{
		"it passes":       {[]policy.LimitRule{hour}, to(1), nil},
		"one":             {[]policy.LimitRule{hour}, to(2), []string{"login:taro@example.jp"}},
		"not another's":   {[]policy.LimitRule{hour, limited("server", limit.Server, policy.Tell, window(3, time.Hour))}, to(2), []string{"login:taro@example.jp"}},
		"of two that are": {[]policy.LimitRule{both}, []string{"1@a.example", "2@a.example", "3@a.example", "1@b.example", "1@c.example", "2@c.example", "3@c.example"}, []string{"login:taro@example.jp recipient_domain:a.example", "login:taro@example.jp recipient_domain:c.example"}},
	} {
		h := newHouse(policy.Enforce, c.all...)
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(2)...))
		d := h.Message(t.Context(), now, h.mail("taro@example.jp", c.rcpt...))
		if got := d.Buckets(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v by %s: %q, want %q", name, d.Verdict, d.Rule, got, c.want)
		}
	}
	h := newHouse(policy.Enforce)
	h.queued(lines{"login:taro@example.jp": 1}, hour)
	d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
	if got := d.Buckets(); !slices.Equal(got, []string{"login:taro@example.jp"}) {
		t.Errorf("behind others: %q", got)
	}
}
