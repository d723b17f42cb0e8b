package policy_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// What users of other systems complain of, year after year: issue 4. The
// complaints about alarms that close too early and about a Redis that is down
// have their tests where incidents and stores are.

// "It counts messages": a thousand recipients in ten messages passed as ten.
func TestComplaintRecipientsNotMessages(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Hold, window(300, time.Hour)))
	passed := 0
	for i := range 10 {
		d := h.Message(t.Context(), now.Add(time.Duration(i)*time.Minute), h.mail("taro@example.jp", to(100)...))
		if d.Verdict == policy.Accept {
			passed += 100
		}
		if d.Counters[0].Amount != 100 {
			t.Errorf("message %d counts %d", i, d.Counters[0].Amount)
		}
	}
	if passed != 300 {
		t.Errorf("%d recipients pass, want 300", passed)
	}
}

// "One wrong newsletter and I cannot write to my customers all day": what was
// refused or held was charged.
func TestComplaintRefusedMailDoesNotEatTheBudget(t *testing.T) {
	for _, then := range []policy.Verdict{policy.Hold, policy.Defer, policy.Reject} {
		hour, ceiling := limited("hour", limit.Login, then, window(10, time.Hour)), limited("server", limit.Server, then, window(1000, time.Hour))
		h := newHouse(policy.Enforce, hour, ceiling)
		h.Message(t.Context(), now, h.mail("taro@example.jp", to(6)...))
		for range 50 {
			for _, n := range []int{5, 500} { // more than is left; more than ever fits
				if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(n)...)); !d.Verdict.Stops() || len(d.Charges) != 0 {
					t.Fatalf("%v: %d recipients: %v", then, n, d.Verdict)
				}
			}
		}
		if d := h.Message(t.Context(), now, h.mail("taro@example.jp", to(4)...)); d.Verdict != policy.Accept || d.Counters[0].Used != 6 || d.Counters[1].Used != 6 {
			t.Errorf("%v: what is left: %v: %s", then, d.Verdict, d.Reason)
		}
	}
}

// "A greylisted message was counted at each try until the account was dead."
func TestComplaintRetriesAreNotCountedAgain(t *testing.T) {
	h := newHouse(policy.Enforce, limited("hour", limit.Login, policy.Defer, window(10, time.Hour)), counting(limit.Messages, 1), counting(limit.Bytes, 5000))
	m := h.mail("taro@example.jp", to(10)...)
	m.Size = 5000
	for i := range 1 + limit.RetryTries {
		m.QueueID = fmt.Sprint("4q-try", i)
		d := h.Message(t.Context(), now.Add(time.Duration(i)*5*time.Minute), m)
		if d.Verdict != policy.Accept || i > 0 && d.Retry != 10 {
			t.Errorf("try %d: %v, %d free: %s", i, d.Verdict, d.Retry, d.Reason)
		}
	}
	for name, want := range map[string]int64{"hour": 10, "messages": 1, "bytes": 5000} {
		if used := h.used(t, name, "login:taro@example.jp"); used != want {
			t.Errorf("%s: %d are charged for four tries, want %d", name, used, want)
		}
	}
}

// "Only the last of my three windows does anything."
func TestComplaintAllWindowsAreEnforced(t *testing.T) {
	windows := []limit.Window{window(5, time.Minute), window(8, time.Hour), window(10, 24*time.Hour)}
	for order, all := range map[string][]limit.Window{"short first": windows, "long first": {windows[2], windows[1], windows[0]}, "mixed": {windows[1], windows[2], windows[0]}} {
		h := newHouse(policy.Enforce, limited("all", limit.Login, policy.Hold, all...))
		for i, c := range []struct {
			at   time.Duration
			n    int
			over time.Duration // the window that stops it; 0: none
		}{
			{0, 5, 0},
			{time.Second, 1, time.Minute},
			{2 * time.Minute, 3, 0},
			{4 * time.Minute, 1, time.Hour},
			{2 * time.Hour, 2, 0},
			{4 * time.Hour, 1, 24 * time.Hour},
			{26 * time.Hour, 5, 0},
		} {
			d := h.Message(t.Context(), now.Add(c.at), h.mail("taro@example.jp", to(c.n)...))
			if (d.Verdict == policy.Hold) != (c.over > 0) {
				t.Errorf("%s, message %d: %v: %s", order, i, d.Verdict, d.Reason)
			}
			for _, n := range d.Counters {
				if n.Over != (n.Window == c.over) {
					t.Errorf("%s, message %d: %+v", order, i, n)
				}
			}
		}
	}
}

// "A limit of 20 let 203 through": everybody read before anybody wrote.
func TestComplaintTwentyLetNoTwentyFirstThrough(t *testing.T) {
	h := newHouse(policy.Enforce, limited("twenty", limit.Login, policy.Hold, window(20, time.Hour)), limited("server", limit.Server, policy.Hold, window(1000, time.Hour)))
	const senders = 64
	all := make([][]*policy.Message, senders)
	for i := range all {
		for range 10 {
			all[i] = append(all[i], h.mail("taro@example.jp", to(1)...))
		}
	}
	var passed atomic.Int64
	var begin, done sync.WaitGroup
	begin.Add(1)
	for _, own := range all {
		done.Go(func() {
			begin.Wait()
			for _, m := range own {
				if h.Message(context.Background(), now, m).Verdict == policy.Accept {
					passed.Add(int64(len(m.RcptTo)))
				}
			}
		})
	}
	begin.Done()
	done.Wait()
	if passed.Load() != 20 {
		t.Errorf("%d recipients pass, want 20", passed.Load())
	}
	if used := h.used(t, "server", "server"); used != 20 {
		t.Errorf("the server's limit counts %d", used)
	}
}

// "There is no way to see 33 of 1000 used."
func TestComplaint33Of1000Used(t *testing.T) {
	day := limited("day", limit.Login, policy.Hold, window(1000, 24*time.Hour))
	h := newHouse(policy.Enforce, day)
	h.Message(t.Context(), now, h.mail("taro@example.jp", to(33)...))
	got, err := h.Limits.Ask(t.Context(), now.Add(time.Hour), nil, who("taro@example.jp"), 10)
	if err != nil || got.Verdict != policy.Accept || len(got.Standings) != 1 || len(got.Standings[0].Windows) != 1 {
		t.Fatalf("%v, %+v", err, got)
	}
	if w := got.Standings[0].Windows[0]; w.Used != 33 || w.Count != 1000 || w.Window != 24*time.Hour {
		t.Errorf("%+v", w)
	}
	if got, err := h.Limits.Ask(t.Context(), now, nil, who("taro@example.jp"), 968); err != nil || got.Verdict != policy.Hold || got.Rule != "day" || !got.Standings[0].Windows[0].FreeAt.After(now) {
		t.Errorf("one more than is left: %v, %+v", err, got)
	}
}

// "The first message of a fresh account may have any number of recipients":
// there was no row yet to compare with.
func TestComplaintFirstMessageOfAFreshAccount(t *testing.T) {
	for name, be := range map[string]func(*policy.Message){
		"login":      func(m *policy.Message) {},
		"local user": func(m *policy.Message) { m.Role, m.Login, m.UID = policy.Local, "", 1000 },
		"site": func(m *policy.Message) {
			m.Role, m.Login = policy.Local, ""
			web(33, "new.example.jp", "", origin.Signed)(m)
		},
	} {
		h := newHouse(policy.Enforce, limited("account", limit.Account, policy.Hold, window(150, 10*time.Minute)), limited("site", limit.Site, policy.Hold, window(150, 10*time.Minute)))
		m := h.mail("new@example.jp", to(151)...)
		be(m)
		if d := h.Message(t.Context(), now, m); !d.Verdict.Stops() || len(d.Charges) != 0 {
			t.Errorf("%s: %d recipients in the first message: %v", name, len(m.RcptTo), d.Verdict)
		}
		m = h.mail("new@example.jp", to(150)...)
		be(m)
		if d := h.Message(t.Context(), now, m); d.Verdict != policy.Accept {
			t.Errorf("%s: as many as may be: %v: %s", name, d.Verdict, d.Reason)
		}
	}
}

// "At the end of the month our bills are refused for good." They are held, not
// counted while they are, and all go out in time and in order.
func TestComplaintMonthEndBills(t *testing.T) {
	hour := limited("hour", limit.Login, policy.Hold, window(100, time.Hour))
	h := newHouse(policy.Enforce)
	waiting := policy.NewLines(1000)
	h.queued(waiting, hour)
	var first policy.Waiting
	for i := range 250 {
		at := now.Add(time.Duration(i) * time.Second)
		m := h.mail("bills@example.jp", fmt.Sprintf("customer%d@example.net", i))
		d := h.Message(t.Context(), at, m)
		switch {
		case i < 100 && d.Verdict != policy.Accept:
			t.Fatalf("bill %d: %v: %s", i, d.Verdict, d.Reason)
		case i < 100:
			continue
		case d.Verdict != policy.Hold || d.Waits == nil:
			t.Fatalf("bill %d: %v: %s", i, d.Verdict, d.Reason)
		}
		w := policy.Waiting{ID: fmt.Sprintf("d%03d", i), QueueID: m.QueueID, HeldAt: at, Recipients: 1, Waits: d.Waits}
		if i == 100 {
			first = w
		}
		waiting.Add(w)
	}
	if used := h.used(t, "hour", "login:bills@example.jp"); used != 100 {
		t.Errorf("%d are charged while 150 are held", used)
	}
	if heads := waiting.Heads(now.Add(5 * time.Minute)); len(heads) != 1 || heads[0].ID != first.ID {
		t.Fatalf("first comes %+v", heads)
	}
	sent, at := []string{}, now
	for ; waiting.Len() > 0 && at.Before(now.Add(4*time.Hour)); at = at.Add(time.Minute) {
		for range 1000 {
			heads := waiting.Heads(at)
			if len(heads) == 0 {
				break
			}
			paid, err := h.Limits.Pay(t.Context(), at, nil, heads[0].Waits, "release:"+heads[0].ID)
			if err != nil || paid.Never {
				t.Fatalf("%+v, %v", paid, err)
			}
			if !paid.Taken {
				break
			}
			waiting.Remove(heads[0].QueueID, heads[0].ID)
			sent = append(sent, heads[0].ID)
		}
	}
	if len(sent) != 150 || at.Sub(now) > 2*time.Hour+30*time.Minute {
		t.Errorf("%d bills went out by %s", len(sent), at)
	}
	for i, id := range sent {
		if id != fmt.Sprintf("d%03d", 100+i) {
			t.Fatalf("bill %d is %s: not the oldest first", i, id)
		}
	}
	if d := h.Message(t.Context(), at.Add(2*time.Hour), h.mail("bills@example.jp", to(1)...)); d.Verdict != policy.Accept {
		t.Errorf("afterwards: %v: %s", d.Verdict, d.Reason)
	}
}

// "One bucket is shared by all tenants, because the key was empty."
func TestComplaintEmptyKey(t *testing.T) {
	tenants := []func(*policy.Message){
		func(m *policy.Message) { m.Login = "taro@one.example" },
		func(m *policy.Message) { m.Login = "hanako@two.example" },
		func(m *policy.Message) { m.Login = "jiro" }, // of no domain
		func(m *policy.Message) { m.Login, m.MailFrom = "saburo", "" },
		func(m *policy.Message) { m.Role, m.Login, m.UID = policy.Local, "", 1000 },
		func(m *policy.Message) { m.Role, m.Login = policy.Local, ""; web(33, "", "share", origin.Signed)(m) },
		func(m *policy.Message) { m.Role, m.Login = policy.Relay, ""; from("192.0.2.9")(m) },
	}
	for _, name := range limit.Pers() {
		per, _ := limit.ParsePer(name)
		if per == limit.Server || per == limit.RecipientDomain { // these are shared by their meaning
			continue
		}
		for _, parts := range [][]limit.Per{{per}, {per, limit.Server}, {limit.Server, per}} {
			r := limited("r", per, policy.Hold, window(1, time.Hour))
			r.Per = parts
			h := newHouse(policy.Enforce, r)
			seen := map[string]int{}
			for i, be := range tenants {
				m := h.mail("", to(1)...)
				m.ClientIP = tenantIP(i)
				m.MailFrom = fmt.Sprintf("x@t%d.example", i)
				be(m)
				d := h.Message(t.Context(), now, m)
				if d.Verdict != policy.Accept {
					t.Errorf("%v: tenant %d pays for another: %v: %s", parts, i, d.Verdict, d.Reason)
				}
				for _, n := range d.Counters {
					if other, shared := seen[n.Key]; shared {
						t.Errorf("%v: tenants %d and %d share %q", parts, other, i, n.Key)
					}
					seen[n.Key] = i
				}
			}
		}
	}
}
