package policy_test

import (
	"fmt"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

func TestRetries(t *testing.T) {
	send := func(h *house, id, queue string, digest byte, rcpts ...string) policy.Decision {
		m := message(policy.Submission, "taro@example.jp", rcpts...)
		m.Login, m.QueueID, m.Digest[0] = "taro@example.jp", queue, digest
		if id != "" {
			m.Header.Add([]byte("Message-ID"), []byte(id))
		}
		return h.Message(t.Context(), now, m)
	}
	hour := limited("hour", limit.Login, policy.Hold, window(100_000, time.Hour))
	for name, c := range map[string]struct {
		queued bool
		id     string
		least  int64
	}{
		"never queued":       {false, "<1@x>", 997},
		"queued":             {true, "<1@x>", 1000},
		"without Message-ID": {false, "", 1000},
	} {
		h := newHouse(policy.Enforce, hour)
		for i := range 1000 {
			queue := fmt.Sprint("4q", i)
			if d := send(h, c.id, queue, 1, "friend@example.net"); d.Verdict != policy.Accept {
				t.Fatalf("%v: %s", d.Verdict, d.Reason)
			}
			if c.queued {
				h.retries.Queued(queue)
			}
		}
		if used := h.used(t, "hour", "login:taro@example.jp"); used < c.least || used > 1000 {
			t.Errorf("%s: %d of 1000 are charged, want at least %d", name, used, c.least)
		}
	}
	h := newHouse(policy.Enforce, hour)
	send(h, "<1@x>", "a", 1, to(5)...)
	if d := send(h, "<1@x>", "b", 1, to(7)...); d.Retry != 5 || h.used(t, "hour", "login:taro@example.jp") != 7 {
		t.Errorf("5 of 7 are tried again: %d free, %d used", d.Retry, h.used(t, "hour", "login:taro@example.jp"))
	}
	if d := send(h, "<1@x>", "c", 2, to(5)...); d.Retry != 0 {
		t.Errorf("other content: %d free", d.Retry)
	}
}

// A message that was charged and comes again needs no room; but a bucket that
// is shut is shut for it, too. And what an alias makes of it is charged then.
func TestFreeRetry(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(3, time.Hour))
	for _, kind := range []limit.Kind{limit.Volume, limit.Abuse} {
		hour.Kind = kind
		counted := limited("messages", limit.Login, policy.Hold, window(1000, time.Hour))
		counted.Counts = limit.Messages
		h := newHouse(policy.Enforce, hour, counted)
		first := h.mail("taro@example.jp", to(2)...)
		h.Message(t.Context(), now, first)
		first.QueueID = "again"
		d := h.Message(t.Context(), now, first)
		if d.Verdict != policy.Accept || d.Retry != 2 {
			t.Errorf("%v: %v, %d free", kind, d.Verdict, d.Retry)
		}
		if len(d.Charges) != 1 || d.Charges[0].Key.Limit != "hour" || d.Charges[0].Amount != 0 {
			t.Errorf("%v: more recipients would be charged to %+v", kind, d.Charges)
		}
		if h.used(t, "hour", "login:taro@example.jp") != 2 || h.used(t, "messages", "login:taro@example.jp") != 1 {
			t.Errorf("%v: a retry is charged", kind)
		}
		h.add(t, now, hour.Charge("login:taro@example.jp", 50, nil)) // an alias
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(1)...)); d.Verdict != policy.Hold {
			t.Errorf("%v: over it %v", kind, d.Verdict)
		}
		first.QueueID = "once more"
		want := map[limit.Kind]policy.Verdict{limit.Volume: policy.Accept, limit.Abuse: policy.Hold}[kind]
		if d := h.Message(t.Context(), now, first); d.Verdict != want {
			t.Errorf("%v: a free retry into a full bucket: %v: %s", kind, d.Verdict, d.Reason)
		}
	}
}

func TestHeldMailIsNoChargedTry(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(3, time.Hour)))
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(3)...))
	m := h.mail("taro@example.jp", to(2)...)
	for i := range 3 {
		m.QueueID = fmt.Sprint("held", i)
		if d := h.Message(t.Context(), now, m); d.Verdict != policy.Hold || d.Retry != 0 {
			t.Errorf("%v, %d free", d.Verdict, d.Retry)
		}
	}
	if d := h.Message(t.Context(), now.Add(2*time.Hour), m); d.Verdict != policy.Accept || d.Retry != 0 || len(d.Charges) != 1 {
		t.Errorf("with room again: %v, %d free, charges %v", d.Verdict, d.Retry, d.Charges)
	}
}

// A retry that was stopped for its other recipients has used up nothing.
func TestStoppedRetryCountsAsNone(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(3, 10*time.Hour)))
	m := h.mail("taro@example.jp", to(2)...)
	h.Message(t.Context(), now, m)
	m.RcptTo = to(5)
	for i := range 10 {
		m.QueueID = fmt.Sprint("held", i)
		if d := h.Message(t.Context(), now, m); d.Verdict != policy.Hold || d.Retry != 2 {
			t.Errorf("try %d: %v, %d free", i, d.Verdict, d.Retry)
		}
	}
	m.RcptTo, m.QueueID = to(2), "again"
	if d := h.Message(t.Context(), now, m); d.Verdict != policy.Accept || d.Retry != 2 {
		t.Errorf("%v, %d free: %s", d.Verdict, d.Retry, d.Reason)
	}
}
