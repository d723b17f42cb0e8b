package replay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/replay"
)

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// house is all that a trace is run through. Its buckets tell what was charged.
type house struct {
	replay.Options
	*limit.Memory

	taken []taken
	asked int // how often the buckets were
}

type taken struct {
	at   time.Time
	step limit.Step
}

// Spend implements limit.Store.
func (h *house) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	h.asked++
	err := h.Memory.Spend(ctx, now, step, out)
	if err == nil && out.Taken {
		copied := limit.Step{}
		for _, c := range step.Charges {
			copied.Charges = append(copied.Charges, limit.Charge{Key: c.Key, Amount: c.Amount, Tells: c.Tells})
		}
		h.taken = append(h.taken, taken{now, copied})
	}
	return err
}

// Peek implements limit.Store.
func (h *house) Peek(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	h.asked++
	return h.Memory.Peek(ctx, now, step, out)
}

func newHouse(rules ...policy.LimitRule) *house {
	h := &house{Memory: limit.NewMemory()}
	h.Options = replay.Options{Board: &policy.Board{}, Lines: policy.NewLines(1000), Buckets: h, Retries: limit.NewRetries(1000), Accounts: &replay.Accounts{}, Release: true, MaxAge: 12 * time.Hour, Bounced: 5}
	h.Learning, h.Enforce = h.in(policy.Learning, rules), h.in(policy.Enforce, rules)
	return h
}

func (h *house) in(phase policy.Phase, rules []policy.LimitRule) *policy.Policy {
	return &policy.Policy{
		Phase: phase, Inside: policy.Inside{"example.jp": true}, OwnUID: origin.NoUID, Switches: h.Board,
		Finder:    origin.Finder{UserName: h.Accounts.Name},
		Addresses: policy.Addresses{Envelope: policy.Tell, HeaderFrom: policy.Tell, Book: &policy.AddressBook{}},
		Limits: policy.NewLimits(policy.LimitsOptions{Phase: phase, Rules: rules, Store: h, Retries: h.Retries, Lines: h.Lines, Item: func(to string) limit.Item {
			item := limit.Item(14695981039346656037)
			for _, c := range []byte(to) {
				item = (item ^ limit.Item(c)) * 1099511628211
			}
			return item
		}}),
	}
}

func (h *house) run(t *testing.T, trace string) replay.Score {
	t.Helper()
	s, err := replay.Run(t.Context(), replay.NewReader(strings.NewReader(trace)), h.Options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func limited(name string, per limit.Per, counts limit.Unit, then policy.Verdict, windows ...limit.Window) policy.LimitRule {
	return policy.LimitRule{Limit: limit.Limit{Name: name, Per: []limit.Per{per}, Counts: counts, Kind: limit.Volume, Windows: windows}, Then: then}
}

func window(count int64, length time.Duration) limit.Window {
	return limit.Window{Count: count, Length: length}
}

// event is one line of a trace.
type event map[string]any

func lines(events ...event) string {
	var b strings.Builder
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&b, "%s\n", text)
	}
	return b.String()
}

func after(d time.Duration) string { return start.Add(d).Format(time.RFC3339Nano) }

var ids int

// mail is a message from a login to n recipients.
func mail(at time.Duration, login string, n int, more ...event) event {
	ids++
	to := make([]string, n)
	for i := range to {
		to[i] = fmt.Sprintf("friend%d@example.net", i)
	}
	e := event{"time": after(at), "event": "message", "id": fmt.Sprintf("m%d", ids), "login": login, "mail_from": login, "rcpt_to": to, "message_id": fmt.Sprintf("<%d@x>", ids)}
	for _, m := range more {
		maps.Copy(e, m)
	}
	return e
}

func told(at time.Duration, kind string, more event) event {
	e := event{"time": after(at), "event": kind}
	maps.Copy(e, more)
	return e
}

// sums are a tally as text: messages/recipients of accept, hold, defer, reject.
func sums(t replay.Tally) string {
	var all []string
	for _, s := range []replay.Sum{t.Accept, t.Hold, t.Defer, t.Reject} {
		all = append(all, fmt.Sprintf("%d/%d", s.Messages, s.Recipients))
	}
	return strings.Join(all, " ")
}
