package policy_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// counted counts what a store is asked.
type counted struct {
	limit.Store
	asked int
}

func (c *counted) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	c.asked++
	return c.Store.Spend(ctx, now, step, out)
}

func (c *counted) Peek(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	c.asked++
	return c.Store.Peek(ctx, now, step, out)
}

// A message is one question to the store, however many recipients it has and
// whatever the limits of others would do at RCPT.
func TestOneMessageAsksTheStoreOnce(t *testing.T) {
	h := newHouse(policy.Enforce)
	store := &counted{Store: h.buckets}
	machines := limited("machines", limit.Machine, policy.Defer, window(500, time.Hour))
	tells := limited("tells", limit.Server, policy.Tell, window(5, time.Hour))
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Store: store, Retries: h.retries,
		Rules: []policy.LimitRule{limited("hour", limit.Login, policy.Hold, window(300, time.Hour)), machines, tells}})
	m := h.mail("taro@example.jp", to(50)...)
	for _, rcpt := range m.RcptTo {
		if d := h.Recipient(t.Context(), now, m, rcpt); d.Verdict != policy.Accept {
			t.Fatal(d.Verdict)
		}
	}
	if d := h.Message(t.Context(), now, m); d.Verdict != policy.Tell || store.asked != 1 {
		t.Errorf("%v, the store was asked %d times", d.Verdict, store.asked)
	}
}

// Windows that were set for a time are no fresh budget when they end, whatever
// their lengths.
func TestOverrideThatComesAndGoesIsNoFreshBudget(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(50, time.Hour), window(100, 24*time.Hour)))
	sw := set(policy.SubjectLogin, "taro@example.jp", 60)
	passed := 0
	for i := range 48 {
		at := now.Add(time.Duration(i) * 30 * time.Minute)
		h.order()
		if i%4 < 2 { // an hour on, an hour off
			h.order(sw)
		}
		for range 60 {
			m := h.mail("taro@example.jp", fmt.Sprintf("x%d@example.net", passed))
			d := h.Message(t.Context(), at, m)
			if d.Verdict.Stops() {
				break
			}
			passed++
			for _, c := range d.Counters {
				if c.Count == limit.MaxCount {
					t.Fatalf("a window without a bound is shown: %+v", c)
				}
			}
		}
		if i%4 >= 2 && h.used(t, "hour", "login:taro@example.jp") < 0 {
			t.Fatal("no bucket")
		}
	}
	// While it is set it lets 60 an hour pass: 12 hours of the day. The day's own
	// limit lets none pass beside these.
	if most := 60*13 + 100; passed > most {
		t.Errorf("%d passed in a day, want at most %d", passed, most)
	}
	h.order()
	if d := h.Message(t.Context(), now.Add(24*time.Hour), h.mail("taro@example.jp", "one@example.net")); d.Verdict != policy.Hold {
		t.Errorf("without it: %v, %+v", d.Verdict, d.Counters)
	}
}

// A rule that only tells stops nothing, also where a message would be charged to
// more buckets than a step can have.
func TestTooManyDomainsOfARuleThatTells(t *testing.T) {
	for then, want := range map[policy.Verdict]policy.Verdict{policy.Tell: policy.Accept, policy.Hold: policy.Reject} {
		r := limited("domains", limit.Login, then, window(500, time.Hour))
		r.Per = []limit.Per{limit.Login, limit.RecipientDomain}
		h := newHouse(policy.Enforce, r)
		var rcpts []string
		for i := range limit.MaxCharges + 76 {
			rcpts = append(rcpts, fmt.Sprintf("x@d%d.example.net", i))
		}
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", rcpts...)); d.Verdict != want {
			t.Errorf("then %v: %v (%s)", then, d.Verdict, d.Reason)
		}
	}
}

// Everyday mail does not use up what an admin allowed for a mailing.
func TestBulkOrderIsForWhatIsBeyondTheLimits(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(50, time.Hour)))
	sw := policy.Switch{ID: "b1", Kind: policy.Bulk, Subject: policy.SubjectLogin, Value: "taro@example.jp", Count: 80, Since: now, Until: now.Add(10 * time.Hour)}
	if err := sw.Check(); err != nil {
		t.Fatal(err)
	}
	h.order(sw)
	passed := 0
	for i := range 200 {
		if d := h.Message(t.Context(), now.Add(time.Duration(i)*time.Second), h.mail("taro@example.jp", fmt.Sprintf("x%d@example.net", i))); !d.Verdict.Stops() {
			passed++
		}
	}
	if passed != 130 {
		t.Errorf("%d passed, want 50 of its own and 80", passed)
	}
	if d := h.Message(t.Context(), now.Add(2*time.Hour), h.mail("taro@example.jp", to(50)...)); d.Verdict.Stops() {
		t.Errorf("two hours later, of its own: %v (%s)", d.Verdict, d.Reason)
	}
}

// heedful is a store that heeds its caller's time, as one over a network does.
type heedful struct{ limit.Store }

func (h heedful) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.Store.Spend(ctx, now, step, out)
}

// A slow address map takes none of the time that the limits have.
func TestSlowMapLeavesTheLimitsTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(policy.Enforce)
		h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Store: heedful{h.buckets}, Retries: h.retries,
			Rules: []policy.LimitRule{limited("hour", limit.Login, policy.Hold, window(5, time.Hour))}})
		h.Addresses.Map, h.Addresses.MapTimeout, h.Addresses.Slow, h.Addresses.Envelope = slowMap{}, time.Second, policy.Tell, policy.Hold
		m := h.mail("taro@example.jp", to(1)...)
		m.MailFrom = "somebody@example.jp"
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		d := h.Message(ctx, now, m)
		if d.Verdict != policy.Tell || d.Rule != policy.RuleMap || h.used(t, "hour", "login:taro@example.jp") != 1 {
			t.Errorf("%v by %s: %s", d.Verdict, d.Rule, d.Reason)
		}
	})
}

// While the guard learns a smaller limit does not let more pass.
func TestSmallerLimitWhileLearning(t *testing.T) {
	h := newHouse(policy.Learning, limited("hour", limit.Login, policy.Hold, burst(150, 10*time.Minute), window(300, time.Hour)))
	h.order(set(policy.SubjectLogin, "taro@example.jp", 50))
	passed := 0
	for i := range 400 {
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", fmt.Sprintf("x%d@example.net", i))); !d.Verdict.Stops() {
			passed++
		}
	}
	if passed != 150 {
		t.Errorf("%d passed at once, want the burst of 150", passed)
	}
}

// What an override does not bound is not shown, also on probation.
func TestUnboundedWindowsAreNotShown(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(10, 10*time.Minute), window(300, 24*time.Hour)))
	h.order(set(policy.SubjectLogin, "taro@example.jp", 50), order(policy.Probation, policy.SubjectLogin, "taro@example.jp"))
	d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
	if len(d.Counters) != 1 || d.Counters[0].Count != 25 {
		t.Errorf("%+v", d.Counters)
	}
}

// Held mail can be paid for when its limit counts first-time recipients since.
func TestMailHeldBeforeAFirstTimeRuleCanBePaidFor(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(1, time.Hour)))
	h.Message(t.Context(), now, h.mail("taro@example.jp", "a@example.net"))
	d := h.Message(t.Context(), now, h.mail("taro@example.jp", "b@example.net"))
	if d.Waits == nil {
		t.Fatalf("%+v", d)
	}
	r := limited("hour", limit.Login, policy.Hold, window(10, time.Hour))
	r.Counts = limit.FirstTime
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Store: limit.NewMemory(), Retries: h.retries, Rules: []policy.LimitRule{r}, Item: item})
	if paid, err := h.Limits.Pay(t.Context(), now, h.Switches.Load(), d.Waits, "x"); err != nil || !paid.Taken {
		t.Errorf("%+v, %v", paid, err)
	}
}
