package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

func counting(unit limit.Unit, count int64) policy.LimitRule {
	r := limited(unit.String(), limit.Login, policy.Hold, window(count, time.Hour))
	r.Counts = unit
	return r
}

func TestWhatIsCounted(t *testing.T) {
	known := []string{"a@example.net", "A@example.net", "b@example.net", "hanako@example.jp"}
	for _, c := range []struct {
		unit   limit.Unit
		scope  policy.Scope
		rcpts  []string
		amount []int64 // of the message, and of one more like it
	}{
		{limit.Messages, policy.Everyone, known, []int64{1, 1}},
		{limit.Messages, policy.OutsideOnly, known, []int64{1, 1}},
		{limit.Messages, policy.OutsideOnly, known[3:], nil},
		{limit.Recipients, policy.Everyone, known, []int64{4, 4}},
		{limit.Recipients, policy.OutsideOnly, known, []int64{3, 3}},
		{limit.Recipients, policy.InsideOnly, known, []int64{1, 1}},
		{limit.Recipients, policy.OutsideOnly, known[3:], nil},
		{limit.Bytes, policy.Everyone, known, []int64{2000, 2000}},
		{limit.Bytes, policy.OutsideOnly, known[3:], nil},
		{limit.Distinct, policy.Everyone, known, []int64{3, 0}},
		{limit.Distinct, policy.OutsideOnly, known, []int64{2, 0}},
		{limit.FirstTime, policy.Everyone, known, []int64{3, 0}},
		{limit.FirstTime, policy.OutsideOnly, known, []int64{2, 0}},
		{limit.Bounces, policy.Everyone, known, []int64{0, 0}},
	} {
		t.Run(fmt.Sprintf("%v/%v/%d", c.unit, c.scope, len(c.rcpts)), func(t *testing.T) {
			r := counting(c.unit, 5000)
			r.Scope = c.scope
			h := newHouse(policy.Enforce, r)
			for i := range 2 {
				m := h.mail("taro@example.jp", c.rcpts...)
				m.Size = 2000
				d := h.Message(t.Context(), now, m)
				if d.Verdict != policy.Accept || d.Counted != len(c.rcpts) {
					t.Fatalf("%v: %s; counted %d", d.Verdict, d.Reason, d.Counted)
				}
				if c.amount == nil {
					if len(d.Counters) != 0 {
						t.Errorf("counters %+v, want none", d.Counters)
					}
					continue
				}
				if len(d.Counters) != 1 || d.Counters[0].Amount != c.amount[i] || d.Counters[0].Used != int64(i)*c.amount[0] {
					t.Errorf("message %d: %+v, want %d", i, d.Counters, c.amount[i])
				}
			}
		})
	}
}

// Whom the account wrote to is remembered whichever limits were asked, so that
// the nights's limit knows the day's friends.
func TestFirstTimeKnowsWhomNoRuleCounted(t *testing.T) {
	r := counting(limit.FirstTime, 1)
	r.When.Hours = []policy.Hours{{From: 10 * 60, To: 24 * 60}}
	h := newHouse(policy.Enforce, r)
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(20)...)); d.Verdict != policy.Accept || len(d.Counters) != 0 {
		t.Fatalf("by day: %v, %+v", d.Verdict, d.Counters)
	}
	night := now.Add(12 * time.Hour)
	if d := h.Message(t.Context(), night, h.mail("taro@example.jp", to(20)...)); d.Verdict != policy.Accept || d.Counters[0].Amount != 0 {
		t.Errorf("known: %v, %+v", d.Verdict, d.Counters)
	}
	if d := h.Message(t.Context(), night, h.mail("taro@example.jp", to(22)...)); d.Verdict != policy.Reject || d.Counters[0].Amount != 2 {
		t.Errorf("two more: %v, %+v", d.Verdict, d.Counters)
	}
	if d := h.Message(t.Context(), night, h.mail("hanako@example.jp", to(1)...)); d.Verdict != policy.Accept || d.Counters[0].Amount != 1 {
		t.Errorf("whom another knows: %v, %+v", d.Verdict, d.Counters)
	}
}

// An abuse limit on strangers that was tripped lets mail to old friends pass.
func TestShutFirstTimeBucketLetsOldFriendsPass(t *testing.T) {
	r := counting(limit.FirstTime, 5)
	r.Kind = limit.Abuse
	h := newHouse(policy.Enforce, r)
	send := func(after time.Duration, rcpts ...string) policy.Decision {
		return h.Message(t.Context(), now.Add(after), h.mail("taro@example.jp", rcpts...))
	}
	if d := send(0, to(3)...); d.Verdict != policy.Accept {
		t.Fatalf("%v: %s", d.Verdict, d.Reason)
	}
	if d := send(time.Minute, to(9)...); d.Verdict != policy.Hold || !d.Counters[0].Latched || d.Waits != nil {
		t.Fatalf("over it: %v, %+v, waits %+v", d.Verdict, d.Counters, d.Waits)
	}
	if d := send(3*time.Hour, to(3)...); d.Verdict != policy.Accept {
		t.Errorf("old friends: %v: %s", d.Verdict, d.Reason)
	}
	if d := send(3*time.Hour, to(4)...); d.Verdict != policy.Hold || d.Rule != "first_time" {
		t.Errorf("one more: %v by %q", d.Verdict, d.Rule)
	}
}

func TestBouncesUsedUp(t *testing.T) {
	h := newHouse(policy.Enforce, counting(limit.Bounces, 3))
	d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(100)...))
	if d.Verdict != policy.Accept || len(d.Bounces) != 1 || d.Bounces[0].Amount != 1 || d.Bounces[0].Key.Value != "login:taro@example.jp" || len(d.Charges) != 0 {
		t.Fatalf("%v, bounces %+v, charges %+v", d.Verdict, d.Bounces, d.Charges)
	}
	for i := range 3 {
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Accept {
			t.Errorf("after %d bounces: %v: %s", i, d.Verdict, d.Reason)
		}
		h.add(t, now, d.Bounces...)
	}
	d = h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
	if d.Verdict != policy.Hold || !strings.HasPrefix(d.Reason, "3 of 3 bounces in 1h used by login:taro@example.jp; free again at") || d.Waits == nil {
		t.Errorf("%v: %s; waits %+v", d.Verdict, d.Reason, d.Waits)
	}
}

// expansions are aliases that are known.
type expansions map[string]int

func (e expansions) Of(rcptTo string) int { return e[rcptTo] }

func TestKnownExpansionsAreChargedInAdvance(t *testing.T) {
	r := limited("hour", limit.Login, policy.Hold, window(100, time.Hour))
	h := newHouse(policy.Enforce, r)
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{r}, Store: h.buckets, Retries: h.retries, Expansions: expansions{"all@example.jp": 40, "postmaster@example.jp": 3}})
	m := h.mail("taro@example.jp", "all@example.jp", "friend@example.net", "postmaster@example.jp")
	d := h.Message(t.Context(), now, m)
	if d.Verdict != policy.Accept || d.Counted != 44 || d.Counters[0].Amount != 41 || d.Charges[0].Amount != 41 {
		t.Errorf("%v, counted %d, %+v", d.Verdict, d.Counted, d.Counters)
	}
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "all@example.jp", "friend@example.net")); d.Verdict != policy.Accept || d.Counted != 41 {
		t.Errorf("again: %v, counted %d", d.Verdict, d.Counted)
	}
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "all@example.jp")); d.Verdict != policy.Hold || d.Waits.Charges[0].Amount != 40 {
		t.Errorf("over it: %v", d.Verdict)
	}
	m.QueueID = "again"
	if d := h.Message(t.Context(), now, m); d.Verdict != policy.Accept || d.Retry != 3-1 || d.Counters[0].Amount != 0 {
		t.Errorf("retry: %v, %d free, %+v", d.Verdict, d.Retry, d.Counters)
	}
}

// A message that can never fit is told so, and does not wait for ever.
func TestMessageThatNeverFits(t *testing.T) {
	for _, unit := range []struct {
		limit.Unit
		says string
	}{
		{limit.Recipients, "This message counts 11 recipients, more than the 10 that may ever be sent at once; send it in smaller parts"},
		{limit.Distinct, "This message counts 11 different recipients, more than the 10 that may ever be sent at once; send it in smaller parts"},
		{limit.Bytes, "This message counts 11 bytes, more than the 10 that may ever be sent at once; send it in smaller parts"},
	} {
		for _, then := range []policy.Verdict{policy.Hold, policy.Defer, policy.Reject} {
			for _, c := range []struct {
				name string
				role policy.Role
				from string
				want policy.Verdict
			}{
				{"SMTP", policy.Submission, "taro@example.jp", policy.Reject},
				{"local", policy.Local, "taro@example.jp", policy.Hold},
				{"null sender", policy.Submission, "", policy.Hold},
			} {
				t.Run(fmt.Sprintf("%v/%v/%s", unit.Unit, then, c.name), func(t *testing.T) {
					r := limited("hour", limit.Account, then, window(30, time.Minute), window(10, time.Hour), window(10_000, 24*time.Hour))
					r.Counts = unit.Unit
					h := newHouse(policy.Enforce, r)
					m := h.mail("taro@example.jp", to(11)...)
					m.Role, m.MailFrom, m.Size = c.role, c.from, 11
					if c.role == policy.Local {
						m.Login, m.UID = "", 1000
					}
					d := h.Message(t.Context(), now, m)
					if d.Verdict != c.want || d.Rule != "hour" || !strings.HasSuffix(d.Reason, "more than may ever be in one message") {
						t.Errorf("%v by %q: %s", d.Verdict, d.Rule, d.Reason)
					}
					if d.Waits != nil {
						t.Errorf("it waits for room that never comes: %+v", d.Waits)
					}
					if c.want == policy.Reject && (d.Reply.Code != 550 || d.Reply.Enhanced != "5.7.1" || d.Reply.Text != unit.says) {
						t.Errorf("reply %v", d.Reply)
					}
				})
			}
		}
	}
	soft := limited("hour", limit.Login, policy.Hold, window(10, time.Hour))
	soft.Observe = true
	h := newHouse(policy.Enforce, soft)
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(11)...)); d.Verdict != policy.Tell || d.Reply.Code != 0 {
		t.Errorf("of a rule that observes: %v %v", d.Verdict, d.Reply)
	}
}

func TestWarningOnceACrossing(t *testing.T) {
	r := limited("hour", limit.Login, policy.Hold, window(10, time.Hour), window(100, 24*time.Hour))
	r.Warn = 80
	watch := limited("watch", limit.Login, policy.Tell, window(10, time.Hour))
	watch.Warn = 80
	h := newHouse(policy.Enforce, r, watch, limited("other", limit.Login, policy.Hold, window(10, time.Hour)))
	for i, c := range []struct {
		after time.Duration
		n     int
		warns int
		want  policy.Verdict
	}{
		{0, 7, 0, policy.Accept},
		{0, 1, 1, policy.Accept}, // 8 of 10
		{0, 1, 0, policy.Accept}, // 9: was told
		{0, 5, 0, policy.Hold},
		{0, 1, 0, policy.Accept},             // full
		{2 * time.Hour, 9, 1, policy.Accept}, // it had room again
		{4 * time.Hour, 8, 1, policy.Accept}, // and once more
	} {
		d := h.Message(t.Context(), now.Add(c.after), h.mail("taro@example.jp", to(c.n)...))
		if d.Verdict != c.want || len(d.Near) != c.warns {
			t.Errorf("message %d: %v, near %+v, want %d", i, d.Verdict, d.Near, c.warns)
		}
		for _, n := range d.Near {
			if n.Limit != "hour" || n.Window != time.Hour || n.Used+n.Amount < 8 {
				t.Errorf("message %d: near %+v", i, n)
			}
		}
	}
	all := limited("hour", limit.Login, policy.Hold, window(3, time.Hour))
	all.Warn = 100
	h = newHouse(policy.Enforce, all)
	for i := range 3 {
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); len(d.Near) != i/2 {
			t.Errorf("100 %%: near %+v after %d of 3", d.Near, i+1)
		}
	}
}

func TestInsideRecipientsAreFree(t *testing.T) {
	r := limited("hour", limit.Login, policy.Defer, window(2, time.Hour))
	r.Scope = policy.OutsideOnly
	h := newHouse(policy.Enforce, r)
	for range 5 {
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "hanako@example.jp", "jiro@example.jp", "saburo@example.jp")); d.Verdict != policy.Accept || len(d.Counters) != 0 {
			t.Fatalf("inside: %v, %+v", d.Verdict, d.Counters)
		}
	}
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "hanako@example.jp", "a@example.net", "b@example.net")); d.Verdict != policy.Accept || d.Counters[0].Amount != 2 {
		t.Errorf("mixed: %v, %+v", d.Verdict, d.Counters)
	}
	for to, want := range map[string]policy.Verdict{"hanako@example.jp": policy.Accept, "a@example.net": policy.Defer} {
		if d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), to); d.Verdict != want {
			t.Errorf("full, at RCPT %s: %v", to, d.Verdict)
		}
	}
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "hanako@example.jp")); d.Verdict != policy.Accept {
		t.Errorf("full, inside: %v", d.Verdict)
	}
}

func TestEachRecipientDomainHasItsOwnBudget(t *testing.T) {
	r := limited("per-domain", limit.Login, policy.Defer, window(2, time.Hour))
	r.Per = []limit.Per{limit.Login, limit.RecipientDomain}
	h := newHouse(policy.Enforce, r)
	d := h.Message(t.Context(), now, h.mail("taro@example.jp", "a@one.example", "b@ONE.example.", "c@two.example"))
	if d.Verdict != policy.Accept || len(d.Counters) != 2 || d.Counters[0].Amount != 2 || d.Counters[1].Amount != 1 {
		t.Fatalf("%v, %+v", d.Verdict, d.Counters)
	}
	for to, want := range map[string]policy.Verdict{"x@one.example": policy.Defer, "x@two.example": policy.Accept, "x@three.example": policy.Accept} {
		if d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), to); d.Verdict != want {
			t.Errorf("at RCPT %s: %v", to, d.Verdict)
		}
	}
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "x@one.example", "x@two.example")); d.Verdict != policy.Defer {
		t.Errorf("one of two is full: %v", d.Verdict)
	}
	if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "x@two.example")); d.Verdict != policy.Accept {
		t.Errorf("the other was not charged: %v", d.Verdict)
	}
}

// A retry of those in one scope needs no room there, if its bucket was filled
// meanwhile; it must not stop what is new in another.
func TestFreeRetryInOneScopeStopsNothingInAnother(t *testing.T) {
	in, out := limited("in", limit.Login, policy.Hold, window(3, time.Hour)), limited("out", limit.Login, policy.Hold, window(3, time.Hour))
	in.Scope, out.Scope = policy.InsideOnly, policy.OutsideOnly
	h := newHouse(policy.Enforce, in, out)
	m := h.mail("taro@example.jp", "hanako@example.jp")
	h.Message(t.Context(), now, m)
	h.add(t, now, in.Charge("login:taro@example.jp", 50, nil)) // an alias
	m.QueueID, m.RcptTo = "again", []string{"hanako@example.jp", "a@example.net"}
	if d := h.Message(t.Context(), now, m); d.Verdict != policy.Accept || d.Retry != 1 {
		t.Errorf("%v by %q, %d free: %s", d.Verdict, d.Rule, d.Retry, d.Reason)
	}
	if used := h.used(t, "out", "login:taro@example.jp"); used != 1 {
		t.Errorf("the new one is charged %d", used)
	}
}
