package policy_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

func window(count int64, length time.Duration) limit.Window {
	return limit.Window{Count: count, Length: length}
}

func burst(count int64, length time.Duration) limit.Window {
	return limit.Window{Count: count, Length: length, Burst: true}
}

func limited(name string, per limit.Per, then policy.Verdict, windows ...limit.Window) policy.LimitRule {
	return policy.LimitRule{Limit: limit.Limit{Name: name, Per: []limit.Per{per}, Counts: limit.Recipients, Kind: limit.Volume, Windows: windows}, Then: then}
}

// house is a policy with limits, and what they count in.
type house struct {
	*policy.Policy
	buckets *limit.Memory
	retries *limit.Retries
	n       int // messages sent
	people  int // made up
}

func newHouse(phase policy.Phase, all ...policy.LimitRule) *house {
	h := &house{Policy: rules(phase), buckets: limit.NewMemory(), retries: limit.NewRetries(1000)}
	h.Switches = new(policy.Board)
	h.use(phase, all...)
	return h
}

// use is a reload.
func (h *house) use(phase policy.Phase, all ...policy.LimitRule) {
	h.Phase, h.Limits = phase, policy.NewLimits(policy.LimitsOptions{Phase: phase, Rules: all, SharedUIDs: []int{33}, Store: h.buckets, Retries: h.retries, Item: item})
}

func (h *house) order(all ...policy.Switch) { h.Switches.Store(policy.NewSwitches(all)) }

// addIPv6 gives the network web IPv6, too.
func (h *house) addIPv6() {
	networks, errs := origin.NewNetworks([]origin.Network{{Name: "web", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}, Reason: "web nodes", Owner: "ops"}})
	if errs != nil {
		panic(errs)
	}
	h.Finder.Networks = networks
}

// mail is a message of its own from a login.
func (h *house) mail(login string, to ...string) *policy.Message {
	h.n++
	m := message(policy.Submission, login, to...)
	m.Login, m.QueueID = login, fmt.Sprintf("4q%d", h.n)
	m.Header.Add([]byte("Message-ID"), fmt.Appendf(nil, "<%d@example.jp>", h.n))
	m.Digest[0] = 1
	return m
}

// to is n different recipients outside.
func to(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("friend%d@example.net", i)
	}
	return all
}

// item is a digest of a recipient in lower case.
func item(rcptTo string) limit.Item {
	h := fnv.New64a()
	h.Write([]byte(strings.ToLower(rcptTo)))
	return limit.Item(h.Sum64())
}

// used is how much the fullest window of a bucket has, -1 if there is no bucket.
func (h *house) used(t *testing.T, name, value string) int64 {
	t.Helper()
	used := int64(-1)
	err := h.buckets.Each(t.Context(), func(e limit.Entry) error {
		if e.State == nil || e.State.Key != (limit.Key{Limit: name, Value: value}) {
			return nil
		}
		used = 0
		for _, u := range h.peek(t, now, h.Limits.Find(name).Charge(value, 0, nil)).Uses {
			used = max(used, u.Used)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

func (h *house) peek(t *testing.T, at time.Time, charges ...limit.Charge) (out limit.Outcome) {
	t.Helper()
	if err := h.buckets.Peek(t.Context(), at, &limit.Step{Charges: charges, Known: limit.Known{Account: "x"}}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (h *house) add(t *testing.T, at time.Time, charges ...limit.Charge) {
	t.Helper()
	if err := h.buckets.Add(t.Context(), at, &limit.Step{Charges: charges}); err != nil {
		t.Fatal(err)
	}
}

func TestNeverMoreThanTheLimit(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(100, time.Hour)))
	var passed atomic.Int64
	var workers sync.WaitGroup
	var all []*policy.Message
	for range 300 {
		all = append(all, h.mail("taro@example.jp", to(1)...))
	}
	for i := range 50 {
		workers.Go(func() {
			for _, m := range all[i*6 : i*6+6] {
				if d := h.Message(context.Background(), now, m); d.Verdict == policy.Accept {
					passed.Add(1)
				} else if d.Verdict != policy.Hold || d.Rule != "hour" {
					t.Errorf("%v by %q", d.Verdict, d.Rule)
				}
			}
		})
	}
	workers.Wait()
	if passed.Load() != 100 {
		t.Errorf("%d recipients pass, want 100", passed.Load())
	}
	if d := h.Message(t.Context(), now.Add(time.Hour+time.Minute), h.mail("taro@example.jp", to(100)...)); d.Verdict != policy.Accept {
		t.Errorf("an hour later: %v: %s", d.Verdict, d.Reason)
	}
}

func TestWhatIsNotCharged(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(100, time.Hour))
	forge := func(m *policy.Message) { m.MailFrom = "ceo@example.org" }
	for _, c := range []struct {
		name   string
		phase  policy.Phase
		change func(*policy.Message)
		to     []string
		want   int64 // -1: no bucket
	}{
		{"postmaster and abuse", policy.Enforce, nil, []string{"postmaster@example.jp", "ABUSE@example.jp"}, -1},
		{"each for itself", policy.Enforce, nil, []string{"postmaster@example.jp", "hanako@example.jp", "friend@example.net"}, 2},
		{"postmaster elsewhere", policy.Enforce, nil, []string{"postmaster@example.net"}, 1},
		{"null sender to ours", policy.Enforce, func(m *policy.Message) { m.MailFrom = "" }, []string{"hanako@example.jp", "jiro@example.jp"}, -1},
		{"null sender to both", policy.Enforce, func(m *policy.Message) { m.MailFrom = "" }, []string{"hanako@example.jp", "friend@example.net"}, 1},
		{"ours to ours", policy.Enforce, nil, []string{"hanako@example.jp"}, 1},
		{"held by an address rule", policy.Enforce, forge, to(3), -1},
		{"would be held by one, observing", policy.Observe, forge, to(3), -1},
		{"would be held by one, learning", policy.Learning, forge, to(3), 3}, // it goes out
		{"observing", policy.Observe, nil, to(3), 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(c.phase, hour)
			h.Addresses.Envelope = policy.Hold
			m := h.mail("taro@example.jp", c.to...)
			if c.change != nil {
				c.change(m)
			}
			d := h.Message(t.Context(), now, m)
			if got := h.used(t, "hour", "login:taro@example.jp"); got != c.want {
				t.Errorf("%v by %q: charged %d, want %d", d.Verdict, d.Rule, got, c.want)
			}
			if (len(d.Charges) > 0) != (c.want > 0) {
				t.Errorf("charges %+v", d.Charges)
			}
		})
	}
}

func TestPhasesOfALimit(t *testing.T) {
	windows := []limit.Window{burst(10, 10*time.Minute), window(15, time.Hour), window(20, 24*time.Hour)}
	for _, c := range []struct {
		phase   policy.Phase
		first   policy.Verdict // 10 that fit
		over    policy.Verdict // 1 over the burst
		hour    policy.Verdict // 10 more, eleven minutes later: over the hour
		day     int64          // used in the day in the end
		inHour  int64
		reports int // windows over at hour
	}{
		{policy.Enforce, policy.Accept, policy.Hold, policy.Hold, 10, 10, 1},
		{policy.Learning, policy.Accept, policy.Hold, policy.Tell, 20, 10, 1},
		{policy.Observe, policy.Accept, policy.Tell, policy.Tell, 10, 10, 1},
	} {
		t.Run(c.phase.String(), func(t *testing.T) {
			h := newHouse(c.phase, limited("login-volume", limit.Login, policy.Hold, windows...))
			send := func(after time.Duration, n int) policy.Decision {
				return h.Message(t.Context(), now.Add(after), h.mail("taro@example.jp", to(n)...))
			}
			if d := send(0, 10); d.Verdict != c.first || d.Rule != "" || len(d.Charges) != 1 {
				t.Errorf("first %v by %q", d.Verdict, d.Rule)
			}
			d := send(time.Minute, 1)
			if d.Verdict != c.over || d.Rule != "login-volume" || len(d.Charges) != 0 {
				t.Errorf("over the burst %v by %q, charges %v", d.Verdict, d.Rule, d.Charges)
			}
			if want := "10 of 10 recipients in 10m used by login:taro@example.jp, this message has 1; free again at 2026-03-02T09:10:00Z"; d.Reason != want {
				t.Errorf("reason %q, want %q", d.Reason, want)
			}
			if n := d.Counters[0]; !n.Over || n.Used != 10 || n.Amount != 1 || n.Latched || n.FreeAt.IsZero() || n.Soft {
				t.Errorf("counter %+v", n)
			}
			d = send(11*time.Minute, 10)
			over := 0
			for _, n := range d.Counters {
				if n.Over {
					over++
				}
			}
			if d.Verdict != c.hour || over != c.reports || len(d.Findings) != 1 {
				t.Errorf("over the hour %v, %d windows over, findings %v", d.Verdict, over, d.Findings)
			}
			out := h.peek(t, now.Add(11*time.Minute), limit.Charge{Key: limit.Key{Limit: "login-volume", Value: "login:taro@example.jp"}, Kind: limit.Volume, Windows: windows})
			if out.Uses[1].Used != c.inHour || out.Uses[2].Used != c.day {
				t.Errorf("used %+v; want %d in the hour, %d in the day", out.Uses, c.inHour, c.day)
			}
		})
	}
}

func TestRuleThatOnlyTells(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Learning, policy.Enforce} {
		for name, r := range map[string]policy.LimitRule{
			"then tell": limited("watch", limit.Login, policy.Tell, burst(2, time.Minute), window(5, time.Hour)),
			"observe":   {Limit: limited("watch", limit.Login, policy.Hold, burst(2, time.Minute), window(5, time.Hour)).Limit, Then: policy.Reject, Observe: true},
		} {
			t.Run(fmt.Sprintf("%v/%s", phase, name), func(t *testing.T) {
				h := newHouse(phase, r, limited("hour", limit.Login, policy.Hold, burst(10, time.Hour)))
				for i := range 10 {
					d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
					want := policy.Accept
					if i >= 2 {
						want = policy.Tell
					}
					if d.Verdict != want || want == policy.Tell && d.Rule != "watch" {
						t.Errorf("message %d: %v by %q, want %v", i, d.Verdict, d.Rule, want)
					}
				}
				if h.used(t, "watch", "login:taro@example.jp") != 2 {
					t.Errorf("what it would have stopped is charged to it: %d", h.used(t, "watch", "login:taro@example.jp"))
				}
				if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Hold || d.Rule != "hour" || len(d.Findings) != 2 {
					t.Errorf("over both: %v by %q, %v", d.Verdict, d.Rule, d.Findings)
				}
			})
		}
	}
}

// What is stopped is charged to no limit, whatever its rule would do.
func TestStoppedMailIsNotChargedToARuleThatTells(t *testing.T) {
	h := newHouse(policy.Enforce, limited("watch", limit.Login, policy.Tell, window(100, time.Hour)), limited("hour", limit.Login, policy.Hold, window(1, time.Hour)))
	for range 3 {
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
	}
	if used := h.used(t, "watch", "login:taro@example.jp"); used != 1 {
		t.Errorf("%d are charged, 1 went out", used)
	}
}

func TestRuleThatTellsShutsNothing(t *testing.T) {
	abuse := limited("abuse", limit.Login, policy.Hold, window(1, time.Hour))
	abuse.Kind, abuse.Observe = limit.Abuse, true
	h := newHouse(policy.Enforce, abuse)
	send := func(after time.Duration) policy.Decision {
		return h.Message(t.Context(), now.Add(after), h.mail("taro@example.jp", to(1)...))
	}
	send(0)
	if d := send(0); d.Verdict != policy.Tell || len(d.Counters) != 1 || !d.Counters[0].Soft || !d.Counters[0].Over || d.Counters[0].Latched || d.Counters[0].Kind != "abuse" {
		t.Errorf("%v, %+v", d.Verdict, d.Counters)
	}
	if d := send(2 * time.Hour); d.Verdict != policy.Accept {
		t.Errorf("two hours later %v: %s", d.Verdict, d.Reason)
	}
}

// The first day of enforce must not find the server shut.
func TestObserveShutsNothing(t *testing.T) {
	abuse := limited("abuse", limit.Server, policy.Hold, window(1, time.Hour))
	abuse.Kind = limit.Abuse
	h := newHouse(policy.Observe, abuse)
	for i := range 3 {
		d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
		if want := map[bool]policy.Verdict{true: policy.Accept, false: policy.Tell}[i == 0]; d.Verdict != want || d.Counters[0].Latched || d.Counters[0].Kind != "abuse" {
			t.Errorf("message %d: %v, %+v", i, d.Verdict, d.Counters)
		}
	}
	for _, phase := range []policy.Phase{policy.Learning, policy.Enforce} {
		h.use(phase, abuse)
		if h.Limits.Over(t.Context(), now.Add(3*time.Hour), nil, "abuse", "server") {
			t.Errorf("%v begins with a shut bucket", phase)
		}
	}
	if d := h.Message(t.Context(), now.Add(3*time.Hour), h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Accept {
		t.Errorf("%v: %s", d.Verdict, d.Reason)
	}
	if d := h.Message(t.Context(), now.Add(3*time.Hour), h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Hold || !d.Counters[0].Latched {
		t.Errorf("in enforce it shuts: %v, %+v", d.Verdict, d.Counters)
	}
	h.use(policy.Observe, abuse) // and is not opened by observing
	if d := h.Message(t.Context(), now.Add(9*time.Hour), h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Tell || !d.Counters[0].Latched {
		t.Errorf("observing what is shut: %v, %+v", d.Verdict, d.Counters)
	}
}

// A bucket that an abuse limit shut stays shut when its rule is told to observe
// only; then it must not keep the other limits from being charged.
func TestShutBucketOfARuleThatTellsStopsNoCharge(t *testing.T) {
	abuse := limited("abuse", limit.Login, policy.Hold, window(1, time.Hour))
	abuse.Kind = limit.Abuse
	hour := limited("hour", limit.Login, policy.Hold, window(5, 24*time.Hour))
	for name, soften := range map[string]func(*policy.LimitRule){
		"observe":   func(r *policy.LimitRule) { r.Observe = true },
		"then tell": func(r *policy.LimitRule) { r.Then = policy.Tell },
	} {
		h := newHouse(policy.Enforce, abuse, hour)
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(2)...)); d.Verdict != policy.Hold || d.Rule != "abuse" || !d.Counters[0].Latched {
			t.Fatalf("%v by %q", d.Verdict, d.Rule)
		}
		if d := h.Message(t.Context(), now.Add(3*time.Hour), h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Hold || !strings.Contains(d.Reason, "shut until it is resumed") {
			t.Errorf("three hours later %v: %s", d.Verdict, d.Reason)
		}
		soft := abuse
		soften(&soft)
		h.use(policy.Enforce, soft, hour)
		for i := range 7 {
			d := h.Message(t.Context(), now.Add(3*time.Hour), h.mail("taro@example.jp", to(1)...))
			if want := map[bool]policy.Verdict{true: policy.Tell, false: policy.Hold}[i < 5]; d.Verdict != want {
				t.Errorf("%s: message %d: %v by %q, want %v", name, i, d.Verdict, d.Rule, want)
			}
		}
	}
}

func TestAbuseLatchesInLearningToo(t *testing.T) {
	abuse := limited("abuse", limit.Login, policy.Hold, window(3, time.Hour))
	abuse.Kind = limit.Abuse
	h := newHouse(policy.Learning, abuse)
	key := limit.Key{Limit: "abuse", Value: "login:taro@example.jp"}
	for i, want := range []policy.Verdict{policy.Accept, policy.Hold, policy.Hold} {
		if d := h.Message(t.Context(), now.Add(time.Duration(i)*3*time.Hour), h.mail("taro@example.jp", to(2+2*(i%2))...)); d.Verdict != want {
			t.Errorf("message %d: %v", i, d.Verdict)
		}
	}
	later := now.Add(9 * time.Hour)
	if !h.Limits.Over(t.Context(), later, nil, key.Limit, key.Value) {
		t.Error("a shut bucket is not over")
	}
	if err := h.buckets.Resume(t.Context(), later, key); err != nil {
		t.Fatal(err)
	}
	if d := h.Message(t.Context(), later, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Accept || h.Limits.Over(t.Context(), later, nil, key.Limit, key.Value) {
		t.Errorf("resumed: %v: %s", d.Verdict, d.Reason)
	}
}

func TestThen(t *testing.T) {
	for _, c := range []struct {
		name string
		role policy.Role
		then policy.Verdict
		from string
		n    int
		want policy.Verdict
		code int
	}{
		{"hold", policy.Submission, policy.Hold, "x@example.org", 1, policy.Hold, 0},
		{"defer", policy.Relay, policy.Defer, "x@example.org", 1, policy.Defer, 451},
		{"reject", policy.Relay, policy.Reject, "x@example.org", 1, policy.Reject, 550},
		{"defer local mail", policy.Local, policy.Defer, "x@example.org", 1, policy.Hold, 0},
		{"defer local mail that never fits", policy.Local, policy.Defer, "x@example.org", 11, policy.Hold, 0},
		{"reject a null sender", policy.Relay, policy.Reject, "", 1, policy.Hold, 0},
		{"defer a null sender that never fits", policy.Relay, policy.Defer, "", 11, policy.Hold, 0},
		{"reject a local null sender", policy.Local, policy.Reject, "", 1, policy.Hold, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(policy.Enforce, limited("hour", limit.LocalUser, c.then, window(10, time.Hour)), limited("hour-login", limit.Login, c.then, window(10, time.Hour)))
			send := func(n int, from string) policy.Decision {
				m := h.mail("taro@example.jp", to(n)...)
				m.MailFrom, m.Role = from, c.role
				if c.role == policy.Local {
					m.Login, m.UID = "", 1000
				}
				return h.Message(t.Context(), now, m)
			}
			send(10, "x@example.org")
			d := send(c.n, c.from)
			if d.Verdict != c.want || d.Reply.Code != c.code || !strings.HasPrefix(d.Rule, "hour") {
				t.Errorf("%v by %q, %v; want %v, %d", d.Verdict, d.Rule, d.Reply, c.want, c.code)
			}
			if s := d.Reply.Text; strings.Contains(s, "taro") || strings.Contains(s, "hour") || strings.Contains(s, "10") || strings.Contains(s, "1000") {
				t.Errorf("the reply tells %q", s)
			}
		})
	}
}

func TestShutBucketThatDefersGoesOnToDefer(t *testing.T) {
	abuse := limited("abuse", limit.Machine, policy.Defer, window(3, time.Hour))
	abuse.Kind = limit.Abuse
	h := newHouse(policy.Enforce, abuse)
	for i, want := range []policy.Verdict{policy.Reject, policy.Defer} { // 4 never fit; 1 does when an admin opens it
		m := message(policy.Relay, "x@example.org", to(4-3*i)...)
		m.ClientIP = netip.MustParseAddr("192.0.2.9")
		if d := h.Message(t.Context(), now.Add(3*time.Hour), m); d.Verdict != want {
			t.Errorf("message %d: %v: %s", i, d.Verdict, d.Reason)
		}
	}
}

func TestProbationHalvesAndAllowLifts(t *testing.T) {
	all := []policy.LimitRule{limited("hour", limit.Login, policy.Hold, window(10, time.Hour)), limited("day", limit.Login, policy.Hold, window(100, 24*time.Hour))}
	for name, c := range map[string]struct {
		order  policy.Switch
		fits   int
		counts []int64
	}{
		"nothing":               {order(policy.Suspend, policy.SubjectLogin, "other@example.jp"), 10, []int64{10, 100}},
		"probation":             {order(policy.Probation, policy.SubjectLogin, "taro@example.jp"), 5, []int64{5, 50}},
		"probation of others":   {order(policy.Probation, policy.SubjectLogin, "hanako@example.jp"), 10, []int64{10, 100}},
		"probation of its site": {order(policy.Probation, policy.SubjectLocalUser, "1000"), 5, []int64{5, 50}},
		"allow":                 {allowed(policy.SubjectLogin, "taro@example.jp", "hour"), 100, []int64{100}},
		"allow for others":      {allowed(policy.SubjectLogin, "hanako@example.jp", "hour"), 10, []int64{10, 100}},
		"allow for its site":    {allowed(policy.SubjectLocalUser, "1000", "hour"), 10, []int64{10, 100}},
	} {
		h := newHouse(policy.Enforce, all...)
		h.order(c.order)
		send := func(n int) policy.Decision {
			m := h.mail("taro@example.jp", to(n)...)
			m.UID = 1000 // by way of a webmail, say
			return h.Message(t.Context(), now, m)
		}
		if d := send(c.fits + 1); d.Verdict != policy.Reject { // more than may ever be sent at once
			t.Errorf("%s: %d: %v", name, c.fits+1, d.Verdict)
		}
		d := send(c.fits)
		if d.Verdict != policy.Accept || len(d.Counters) != len(c.counts) {
			t.Errorf("%s: %d do not pass: %s", name, c.fits, d.Reason)
		}
		for i, n := range d.Counters {
			if n.Count != c.counts[i] {
				t.Errorf("%s: counter %+v, want %d", name, n, c.counts[i])
			}
		}
	}
	one := limited("one", limit.Login, policy.Hold, window(1, time.Hour))
	h := newHouse(policy.Enforce, one)
	h.order(order(policy.Probation, policy.SubjectLogin, "taro@example.jp"))
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Accept {
		t.Errorf("half of one: %v", d.Verdict)
	}
}

func TestAllowLiftsAnAddressRule(t *testing.T) {
	h := newHouse(policy.Enforce)
	h.Addresses.Envelope = policy.Hold
	send := func(login string) policy.Verdict {
		m := h.mail(login, to(1)...)
		m.MailFrom = "list@example.org"
		return h.Message(t.Context(), now, m).Verdict
	}
	h.order(allowed(policy.SubjectLogin, "taro@example.jp", policy.RuleEnvelope))
	if a, b := send("taro@example.jp"), send("hanako@example.jp"); a != policy.Accept || b != policy.Hold {
		t.Errorf("taro %v, hanako %v", a, b)
	}
}

// away is a store that cannot be asked.
type away struct{ limit.Store }

func (away) Spend(context.Context, time.Time, *limit.Step, *limit.Outcome) error {
	return errors.New("dial 10.0.0.1:6379: refused")
}

func (away) Peek(context.Context, time.Time, *limit.Step, *limit.Outcome) error {
	return errors.New("dial 10.0.0.1:6379: refused")
}

func TestStoreThatIsAwayOpensNothing(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		for _, role := range []policy.Role{policy.Submission, policy.Local} {
			h := newHouse(phase)
			h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: phase, Rules: []policy.LimitRule{limited("hour", limit.Server, policy.Reject, burst(10, time.Hour))}, Store: away{}, Retries: h.retries})
			m := h.mail("taro@example.jp", to(1)...)
			m.Role = role
			if d := h.Recipient(t.Context(), now, m, "friend@example.net"); d.Verdict != policy.Accept {
				t.Errorf("%v, %v: at RCPT %v", phase, role, d.Verdict)
			}
			want := policy.Defer
			switch {
			case phase == policy.Observe:
				want = policy.Tell
			case role == policy.Local:
				want = policy.Hold
			}
			d := h.Message(t.Context(), now, m)
			if d.Verdict != want || d.Rule != policy.RuleLimits || strings.Contains(d.Reply.Text, "10.0") || want == policy.Defer && d.Reply.Code != 451 {
				t.Errorf("%v, %v: %v by %q, %v; want %v", phase, role, d.Verdict, d.Rule, d.Reply, want)
			}
		}
	}
}

// unsure says no, and not why.
type unsure struct{ limit.Store }

func (unsure) Spend(_ context.Context, _ time.Time, _ *limit.Step, out *limit.Outcome) error {
	*out = limit.Outcome{Uses: []limit.Use{}, Latched: []bool{false}, Attempts: []int64{0}}
	return nil
}

func TestStoreThatSaysNoForNoReasonOpensNothing(t *testing.T) {
	h := newHouse(policy.Enforce)
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{limited("hour", limit.Server, policy.Hold, window(10, time.Hour))}, Store: unsure{}, Retries: h.retries})
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Defer || d.Rule != policy.RuleLimits {
		t.Errorf("%v by %q", d.Verdict, d.Rule)
	}
}

// A limit that was shut, and whose windows an admin set to such as only tell while
// the guard learns, stops nothing then; and what passes is charged to the others.
func TestShutBucketOfWindowsThatTellStopsNoCharge(t *testing.T) {
	hour, server := limited("hour", limit.Login, policy.Hold, burst(1, time.Hour)), limited("server", limit.Server, policy.Hold, burst(100, time.Hour))
	hour.Kind = limit.Abuse
	h := newHouse(policy.Enforce, hour, server)
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(2)...))
	hour.Kind = limit.Volume
	h.use(policy.Learning, hour, server)
	h.order(set(policy.SubjectLogin, "taro@example.jp", 10))
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(2)...)); d.Verdict != policy.Tell || h.used(t, "server", "server") != 2 {
		t.Errorf("%v by %q, %d used", d.Verdict, d.Rule, h.used(t, "server", "server"))
	}
}

func TestHoldsOfALimitHaveACap(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(1, time.Hour)))
	h.Room = &room{2}
	want := []policy.Verdict{policy.Accept, policy.Hold, policy.Hold, policy.Defer, policy.Defer}
	for i, v := range want {
		d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
		if d.Verdict != v || v == policy.Defer && (d.Rule != policy.RuleHoldCap || d.Reply.Code != 452 || !strings.HasPrefix(d.Reason, "hour: 1 of 1")) {
			t.Errorf("message %d: %v by %q, %v: %s", i, d.Verdict, d.Rule, d.Reply, d.Reason)
		}
	}
}

func TestFindAndOver(t *testing.T) {
	h := newHouse(policy.Learning, limited("a", limit.Login, policy.Hold, burst(2, time.Minute), window(9, time.Hour)), limited("b", limit.Login, policy.Tell, window(1, time.Hour)))
	if l := h.Limits.Find("a"); l == nil || l.Windows[0].Soft || !l.Windows[1].Soft {
		t.Errorf("a is %+v", l)
	}
	if l := h.Limits.Find("b"); l == nil || !l.Windows[0].Soft {
		t.Errorf("b is %+v", l)
	}
	punished := policy.NewSwitches([]policy.Switch{order(policy.Probation, policy.SubjectLogin, "taro@example.jp")})
	if l := h.Limits.InForce(now, punished, "a", "login:taro@example.jp"); l == nil || l.Windows[0].Count != 1 || l.Windows[1].Count != 4 || !l.Windows[1].Soft {
		t.Errorf("a on probation is %+v", l)
	}
	if l := h.Limits.Find("a"); l.Windows[0].Count != 2 {
		t.Errorf("a is %+v after it was asked for probation", l)
	}
	over := func(name string) bool { return h.Limits.Over(t.Context(), now, nil, name, "login:taro@example.jp") }
	if over("a") || over("b") || over("c") {
		t.Error("over before there was mail")
	}
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(2)...))
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
	if !over("a") {
		t.Error("a is full, and not over")
	}
	var none *policy.Limits
	if none.Find("a") != nil || none.InForce(now, nil, "a", "x") != nil || none.Over(t.Context(), now, nil, "a", "x") || h.Limits.Find("c") != nil || h.Limits.InForce(now, nil, "c", "x") != nil {
		t.Error("what is not there is found")
	}
}
