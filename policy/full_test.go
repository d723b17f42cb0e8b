package policy_test

import (
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

func TestFullBucketAtRCPT(t *testing.T) {
	const taro = "taro@example.jp"
	for _, c := range []struct {
		name string
		then policy.Verdict
		room int
		from string
		to   string
		want policy.Verdict
		rule string
		code int
	}{
		{"defer", policy.Defer, 9, taro, "friend@example.net", policy.Defer, "hour", 451},
		{"defer inside", policy.Defer, 9, taro, "hanako@example.jp", policy.Defer, "hour", 451},
		{"reject", policy.Reject, 9, taro, "friend@example.net", policy.Accept, "", 0}, // at the end: it may be a free retry
		{"hold", policy.Hold, 9, taro, "friend@example.net", policy.Accept, "", 0},
		{"hold without room", policy.Hold, 0, taro, "friend@example.net", policy.Defer, policy.RuleHoldCap, 452},
		{"tell", policy.Tell, 0, taro, "friend@example.net", policy.Accept, "", 0},
		{"postmaster", policy.Reject, 0, taro, "postmaster@example.jp", policy.Accept, "", 0},
		{"null sender to ours", policy.Reject, 0, "", "hanako@example.jp", policy.Accept, "", 0},
		{"null sender", policy.Reject, 9, "", "friend@example.net", policy.Accept, "", 0}, // held at the end
		{"null sender without room", policy.Reject, 0, "", "friend@example.net", policy.Defer, policy.RuleHoldCap, 452},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(policy.Enforce, limited("hour", limit.Login, c.then, window(10, time.Hour)))
			h.Room = &room{9}
			if d := h.Message(t.Context(), now, h.mail(taro, to(10)...)); d.Verdict != policy.Accept {
				t.Fatalf("%v", d.Verdict)
			}
			h.Room = &room{c.room}
			m := h.mail(taro)
			m.MailFrom = c.from
			for range 3 { // every one
				d := h.Recipient(t.Context(), now, m, c.to)
				if d.Verdict != c.want || d.Rule != c.rule || d.Reply.Code != c.code || (len(d.Counters) > 0) != d.Verdict.Stops() {
					t.Errorf("%v by %q, %v, %d counters; want %v by %q, %d", d.Verdict, d.Rule, d.Reply, len(d.Counters), c.want, c.rule, c.code)
				}
			}
			if d := h.Recipient(t.Context(), now, h.mail("hanako@example.jp"), "friend@example.net"); d.Verdict != policy.Accept {
				t.Errorf("the neighbour: %v", d.Verdict)
			}
			for _, phase := range []policy.Phase{policy.Observe, policy.Learning} { // without a burst, learning tells
				h.use(phase, limited("hour", limit.Login, c.then, window(10, time.Hour)))
				if d := h.Recipient(t.Context(), now, m, c.to); d.Verdict.Stops() {
					t.Errorf("%v: %v", phase, d.Verdict)
				}
			}
		})
	}
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Reject, window(10, time.Hour)))
	h.Message(t.Context(), now, h.mail(taro, to(9)...))
	if d := h.Recipient(t.Context(), now, h.mail(taro), "friend@example.net"); d.Verdict != policy.Accept {
		t.Errorf("with room for one: %v", d.Verdict)
	}
}

// What comes again needs no room, so nobody is rejected before the end of the
// message is there; but a bucket that is shut is shut for it, too.
func TestRejectAtRCPTOnlyWhatNoRetryPasses(t *testing.T) {
	for _, kind := range []limit.Kind{limit.Volume, limit.Abuse} {
		hour := limited("hour", limit.Login, policy.Reject, window(2, time.Hour))
		hour.Kind = kind
		h := newHouse(policy.Enforce, hour)
		first := h.mail("taro@example.jp", to(2)...)
		h.Message(t.Context(), now, first)
		first.QueueID = "again"
		if d := h.Recipient(t.Context(), now, first, "friend0@example.net"); d.Verdict != policy.Accept {
			t.Errorf("%v: a free retry at RCPT: %v %v", kind, d.Verdict, d.Reply)
		}
		if d := h.Message(t.Context(), now, first); d.Verdict != policy.Accept || d.Retry != 2 {
			t.Errorf("%v: a free retry: %v: %s", kind, d.Verdict, d.Reason)
		}
		next := h.mail("taro@example.jp", to(1)...)
		if d := h.Message(t.Context(), now, next); d.Verdict != policy.Reject || d.Rule != "hour" || d.Reply.Code != 550 {
			t.Errorf("%v: another message: %v %v", kind, d.Verdict, d.Reply)
		}
		want := map[limit.Kind]policy.Verdict{limit.Volume: policy.Accept, limit.Abuse: policy.Reject}[kind] // it is shut by now
		if d := h.Recipient(t.Context(), now, next, "friend0@example.net"); d.Verdict != want || want == policy.Reject && (d.Rule != "hour" || d.Reply.Code != 550) {
			t.Errorf("%v: then at RCPT: %v by %q, want %v", kind, d.Verdict, d.Rule, want)
		}
	}
}
