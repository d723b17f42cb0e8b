package policy_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// Mail that only the red switch holds goes out after start: what is charged now
// is all that goes out then.
func TestLimitsCountWhileAllIsStopped(t *testing.T) {
	for _, then := range []policy.Verdict{policy.Hold, policy.Defer, policy.Reject} {
		for _, kind := range []limit.Kind{limit.Volume, limit.Abuse} {
			t.Run(fmt.Sprintf("%v/%v", then, kind), func(t *testing.T) {
				hour := limited("hour", limit.Login, then, window(5, time.Hour))
				hour.Kind = kind
				h := newHouse(policy.Enforce, hour)
				h.order(order(policy.Stop, "", ""))
				send := func(n int) policy.Decision {
					return h.Message(t.Context(), now, h.mail("taro@example.jp", to(n)...))
				}
				for i, n := range []int{2, 3} {
					d := send(n)
					if d.Verdict != policy.Hold || d.Rule != policy.RuleStopped || len(d.Findings) != 1 || len(d.Counters) != 1 || len(d.Charges) != 1 {
						t.Errorf("message %d: %v by %q, findings %v, counters %v, charges %v", i, d.Verdict, d.Rule, d.Findings, d.Counters, d.Charges)
					}
				}
				d := send(1)
				if d.Verdict != then || d.Rule != "hour" || len(d.Charges) != 0 {
					t.Errorf("over the limit: %v by %q, charges %v", d.Verdict, d.Rule, d.Charges)
				}
				if !slices.ContainsFunc(d.Findings, func(f policy.Finding) bool { return f.Rule == policy.RuleStopped }) {
					t.Errorf("findings do not tell that all is stopped: %v", d.Findings)
				}
				if used := h.used(t, "hour", "login:taro@example.jp"); used != 5 {
					t.Errorf("charged %d, want the 5 that go out after start", used)
				}
				if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "hanako@example.jp")); d.Verdict != then {
					t.Errorf("inside, over the limit: %v", d.Verdict)
				}
				if d := h.Message(t.Context(), now, h.mail("taro@example.jp", "postmaster@example.jp")); d.Verdict != policy.Accept {
					t.Errorf("postmaster: %v by %q", d.Verdict, d.Rule)
				}
			})
		}
	}
}

// What another rule stops is not charged, stopped or not, and cites that rule:
// it does not go out after start.
func TestWhatAnotherRuleHoldsIsNotHeldAsStopped(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(100, time.Hour))
	local := limited("local", limit.LocalUser, policy.Hold, window(100, time.Hour))
	suspend := order(policy.Suspend, policy.SubjectLogin, "taro@example.jp")
	for _, c := range []struct {
		name   string
		phase  policy.Phase
		change func(h *house, m *policy.Message)
		want   policy.Verdict
		rule   string
		used   int64
	}{
		{"nothing", policy.Enforce, nil, policy.Hold, policy.RuleStopped, 2},
		{"learning", policy.Learning, nil, policy.Hold, policy.RuleStopped, 2},
		{"observe", policy.Observe, nil, policy.Hold, policy.RuleStopped, 2},
		{"envelope", policy.Enforce, func(_ *house, m *policy.Message) { m.MailFrom = "ceo@example.org" }, policy.Hold, policy.RuleEnvelope, -1},
		{"envelope, learning", policy.Learning, func(_ *house, m *policy.Message) { m.MailFrom = "ceo@example.org" }, policy.Hold, policy.RuleStopped, 2},
		{"envelope, observe", policy.Observe, func(_ *house, m *policy.Message) { m.MailFrom = "ceo@example.org" }, policy.Hold, policy.RuleStopped, -1},
		{"suspended", policy.Enforce, func(h *house, _ *policy.Message) { h.order(suspend, order(policy.Stop, "", "")) }, policy.Reject, policy.RuleSuspended, -1},
		{"suspended null sender", policy.Enforce, func(h *house, m *policy.Message) {
			m.MailFrom = ""
			h.order(suspend, order(policy.Stop, "", ""))
		}, policy.Hold, policy.RuleSuspended, -1},
		{"suspended local", policy.Enforce, func(h *house, m *policy.Message) {
			m.Role, m.Login, m.UID = policy.Local, "", 1000
			h.order(order(policy.Suspend, policy.SubjectLocalUser, "1000"), order(policy.Stop, "", ""))
		}, policy.Hold, policy.RuleSuspended, -1},
		{"denied", policy.Enforce, func(h *house, _ *policy.Message) {
			h.order(order(policy.Deny, policy.SubjectTarget, "example.net"), order(policy.Stop, "", ""))
		}, policy.Reject, policy.RuleDenied, -1},
		{"store away", policy.Enforce, func(h *house, _ *policy.Message) {
			h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{hour}, Store: away{}, Retries: h.retries})
		}, policy.Defer, policy.RuleLimits, -1},
		{"egress", policy.Enforce, func(_ *house, m *policy.Message) { m.Role = policy.Egress }, policy.Hold, policy.RuleStopped, -1},
		{"allowed", policy.Enforce, func(h *house, _ *policy.Message) {
			h.order(allowed(policy.SubjectLogin, "taro@example.jp", "hour"), order(policy.Stop, "", ""))
		}, policy.Hold, policy.RuleStopped, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(c.phase, hour, local)
			h.Addresses.Envelope = policy.Hold
			h.order(order(policy.Stop, "", ""))
			held := &room{3}
			h.Room = held
			m := h.mail("taro@example.jp", to(2)...)
			if c.change != nil {
				c.change(h, m)
			}
			d := h.Message(t.Context(), now, m)
			if d.Verdict != c.want || d.Rule != c.rule {
				t.Errorf("%v by %q, want %v by %q: %v", d.Verdict, d.Rule, c.want, c.rule, d.Findings)
			}
			if used := h.used(t, "hour", "login:taro@example.jp"); used != c.used {
				t.Errorf("charged %d, want %d", used, c.used)
			}
			if want := map[bool]int{true: 2, false: 3}[c.want == policy.Hold]; held.left != want {
				t.Errorf("room for %d is left, want %d", held.left, want)
			}
		})
	}
}

// A client that comes again while its mail is held has its mail twice in the
// queue, and both go out after start.
func TestRepeatOfWhatIsHeldIsCharged(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(5, time.Hour)))
	m := h.mail("taro@example.jp", to(2)...)
	late, cancel := context.WithCancel(t.Context())
	cancel()
	h.order(order(policy.Stop, "", ""))
	h.Message(late, now, m) // was told to try again
	for i, c := range []struct {
		free int
		rule string
		used int64
	}{{2, policy.RuleStopped, 2}, {0, policy.RuleStopped, 4}, {0, "hour", 4}} {
		m.QueueID = fmt.Sprint("again", i)
		d := h.Message(t.Context(), now, m)
		if d.Verdict != policy.Hold || d.Rule != c.rule || d.Retry != c.free || h.used(t, "hour", "login:taro@example.jp") != c.used {
			t.Errorf("try %d: %v by %q, %d free, %d used; want %+v", i, d.Verdict, d.Rule, d.Retry, h.used(t, "hour", "login:taro@example.jp"), c)
		}
	}
}

func TestNoRoomWhileAllIsStopped(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		h := newHouse(phase, limited("hour", limit.Login, policy.Hold, window(100, time.Hour)), limited("local", limit.LocalUser, policy.Hold, window(100, time.Hour)))
		h.order(order(policy.Stop, "", ""))
		h.Room = &room{1}
		send := func(change func(*policy.Message)) policy.Decision {
			m := h.mail("taro@example.jp", to(1)...)
			change(m)
			return h.Message(t.Context(), now, m)
		}
		same := func(*policy.Message) {}
		local := func(m *policy.Message) { m.Role, m.Login, m.UID = policy.Local, "", 1000 }
		bounce := func(m *policy.Message) { local(m); m.UID, m.MailFrom = -1, "" }
		if d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), "friend@example.net"); d.Verdict != policy.Accept {
			t.Errorf("%v: with room, at RCPT %v", phase, d.Verdict)
		}
		if d := send(same); d.Rule != policy.RuleStopped {
			t.Errorf("%v: %v by %q", phase, d.Verdict, d.Rule)
		}
		for name, c := range map[string]struct {
			change func(*policy.Message)
			want   policy.Verdict
			code   int
		}{
			"SMTP":              {same, policy.Defer, 452},
			"null sender":       {func(m *policy.Message) { m.MailFrom = "" }, policy.Defer, 452},
			"local":             {local, policy.Reject, 550},
			"bounce of Postfix": {bounce, policy.Defer, 452},
		} {
			if d := send(c.change); d.Verdict != c.want || d.Rule != policy.RuleHoldCap || d.Reply.Code != c.code || len(d.Charges) != 0 {
				t.Errorf("%v, %s: %v by %q, %v, charges %v", phase, name, d.Verdict, d.Rule, d.Reply, d.Charges)
			}
		}
		if login, site := h.used(t, "hour", "login:taro@example.jp"), h.used(t, "local", "local_user:1000"); login != 1 || site > 0 {
			t.Errorf("%v: what was refused is charged: %d, %d", phase, login, site)
		}
		for to, want := range map[string]policy.Verdict{"friend@example.net": policy.Defer, "hanako@example.jp": policy.Accept, "postmaster@example.jp": policy.Accept, "friend%example.net@example.jp": policy.Defer} {
			d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), to)
			if d.Verdict != want || want == policy.Defer && (d.Rule != policy.RuleHoldCap || d.Reply.Code != 452) {
				t.Errorf("%v: %s at RCPT: %v by %q, want %v", phase, to, d.Verdict, d.Rule, want)
			}
		}
		m := h.mail("")
		local(m)
		if d := h.Recipient(t.Context(), now, m, "friend@example.net"); d.Verdict != policy.Accept {
			t.Errorf("%v: local mail is answered at RCPT: %v", phase, d.Verdict)
		}
	}
}

// Room is taken once, whatever becomes of the message after.
func TestPlaceThatIsNotNeededIsGivenBack(t *testing.T) {
	for then, want := range map[policy.Verdict]int{policy.Hold: 4, policy.Defer: 5, policy.Reject: 5} {
		h := newHouse(policy.Enforce, limited("hour", limit.Login, then, window(1, time.Hour)))
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...))
		h.order(order(policy.Stop, "", ""))
		left := &room{5}
		h.Room = left
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != then || d.Rule != "hour" || left.left != want {
			t.Errorf("%v by %q: room for %d is left, want %d", d.Verdict, d.Rule, left.left, want)
		}
	}
}
