package desk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// A month's bills are more than the account may send in an hour. All of them go
// out by themselves, in order and within the limit, through policy, journal and
// queue, while the daemon is started again and again. Mail under another limit
// does not wait for them.
func TestMonthEndBillsGoByThemselves(t *testing.T) {
	const bills, hourly = 60, 10
	s := paced(t, 0)
	store := limit.NewMemory()
	rule := policy.LimitRule{Then: policy.Hold, Limit: limit.Limit{Name: "hour", Per: []limit.Per{limit.Login}, Counts: limit.Recipients, Kind: limit.Volume,
		Windows: []limit.Window{{Count: hourly, Length: time.Hour}}}}
	var p *policy.Policy
	start := func() {
		s.restart()
		p = &policy.Policy{Phase: policy.Enforce, Inside: policy.Inside{"example.jp": true}, OwnUID: 4711, Switches: s.board,
			Limits: policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{rule}, Store: store, Retries: limit.NewRetries(10), Lines: s.lines})}
		s.d.Pay = func(ctx context.Context, now time.Time, w *policy.Waits, id string) (policy.Paid, error) {
			return p.Limits.Pay(ctx, now, s.board.Load(), w, id)
		}
	}
	var out []time.Time // of each that went out
	send := func(login, id string) policy.Verdict {
		m := &policy.Message{Role: policy.Submission, Time: s.now, Evidence: origin.NewEvidence(), RcptTo: []string{"customer@example.net"}, Size: 1000}
		m.Login, m.QueueID, m.MailFrom = login, id, login
		d := p.Message(t.Context(), s.now, m)
		if d.Verdict == policy.Accept {
			out = append(out, s.now)
			return d.Verdict
		}
		if d.Waits == nil {
			t.Fatalf("%s of %s: %v, %s: it waits for nothing", id, login, d.Verdict, d.Reason)
		}
		waits, err := json.Marshal(d.Waits)
		if err != nil {
			t.Fatal(err)
		}
		record := journal.Decision{ID: "d" + id, Time: s.now, Stage: journal.StageMessage, Verdict: d.Verdict, Rule: d.Rule, Account: d.Origin.Name(), QueueID: id,
			MailFrom: "taro@example.jp", Size: 1000, Recipients: 1, UID: -1, Waits: waits}
		if err := s.journal.Append(record); err != nil {
			t.Fatal(err)
		}
		s.mta.put(file(id, s.now))
		s.d.Room.Add(d.Origin.Name(), 1000)
		s.d.Enqueue(policy.Waiting{ID: record.ID, QueueID: id, HeldAt: s.now, Size: 1000, Recipients: 1, Waits: d.Waits})
		return d.Verdict
	}
	start()
	var want []string
	for i := range bills {
		s.now = s.now.Add(10 * time.Second)
		id := fmt.Sprintf("A%05X", i)
		if verdict := send("bills@example.jp", id); (verdict == policy.Accept) != (i < hourly) {
			t.Fatalf("bill %d: %v", i, verdict)
		} else if i >= hourly {
			want = append(want, "release "+id)
		}
	}
	for i, end := 0, s.now.Add(8*time.Hour); s.now.Before(end); i++ {
		before := len(s.mta.did())
		s.goOn(20*time.Second, 20*time.Second)
		for range len(s.mta.did()) - before {
			out = append(out, s.now)
		}
		if i%100 == 50 {
			start()
		}
		if i == 30 && send("bills@example.jp", "B1B1B1") != policy.Hold {
			t.Error("new mail did not queue behind what waits")
		}
		if i == 31 && send("reset@example.jp", "C1C1C1") != policy.Accept {
			t.Error("another account's mail waits")
		}
	}
	if did := s.mta.did(); !slices.Equal(did, append(want, "release B1B1B1")) {
		t.Errorf("released %s, want all in order, and what came later last", strings.Join(did, ", "))
	}
	for i := range out {
		n := 0
		for _, at := range out {
			if !at.Before(out[i]) && at.Sub(out[i]) < time.Hour {
				n++
			}
		}
		if n > hourly+1 { // and one of the other account
			t.Fatalf("%d went out within the hour from %v, the limit is %d", n, out[i], hourly)
		}
	}
	s.reconcile()
	s.wantRoom(0)
	if took := out[len(out)-1].Sub(out[0]); took > 6*time.Hour*17/16+10*time.Minute {
		t.Errorf("it took %v, want hardly more than the six hours that the limit asks for", took)
	}
}
