package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/cmd/internal/guard"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// kept is a Journal that remembers what it was given, in order.
type kept struct {
	mu    sync.Mutex
	calls []string // "append ID", "note ID", "stopped ID", "accepted ID"
	all   map[string]journal.Decision
	again map[string]int64 // repeats by id
	err   error
	wait  chan struct{} // Append waits for it
}

func (k *kept) add(how string, r journal.Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch r := r.(type) {
	case journal.Decision:
		k.calls = append(k.calls, how+" "+r.ID)
		if k.all == nil {
			k.all = map[string]journal.Decision{}
		}
		k.all[r.ID] = r
	case journal.Repeat:
		if k.again == nil {
			k.again = map[string]int64{}
		}
		k.again[r.ID] += r.N
	}
}

func (k *kept) Append(all ...journal.Record) error {
	if k.wait != nil {
		<-k.wait
	}
	for _, r := range all {
		k.add("append", r)
	}
	return k.err
}

func (k *kept) Note(r journal.Record) { k.add("note", r) }

func (k *kept) Spares() bool { return true }

func (k *kept) Stopped(_ time.Time, _ *policy.Message, d *policy.Decision) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, "stopped "+d.ID)
}

func (k *kept) Accepted(_ time.Time, _ *policy.Message, d *policy.Decision) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, "accepted "+d.ID)
}

// told is the journal's entry that an answer names.
func (k *kept) told(t *testing.T, d policy.Decision) journal.Decision {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	r, ok := k.all[d.ID]
	if !ok || !strings.HasSuffix(d.Reply.Text, "("+d.ID+")") {
		t.Errorf("answered %v of %q, which is not in the journal", d.Reply, d.ID)
	}
	return r
}

func newKept(p *policy.Policy) (*guard.Guard, *kept) {
	k := new(kept)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	g := guard.New(p, log, log)
	g.Journal, g.Watcher = k, k
	return g, k
}

func TestOneRecordADecisionBeforeItsAnswer(t *testing.T) {
	for want, m := range map[string]*policy.Message{
		"note %s accepted %s":  message("taro@example.jp", "taro@example.jp", "friend@example.net"),
		"append %s stopped %s": message("taro@example.jp", "ceo@example.org", "friend@example.net"),
	} {
		g, k := newKept(rules(policy.Enforce))
		d := g.Message(t.Context(), m)
		if got := strings.Join(k.calls, " "); got != fmt.Sprintf(want, d.ID, d.ID) {
			t.Errorf("%v: %s", d.Verdict, got)
		}
		r := k.all[d.ID]
		if r.Verdict != d.Verdict || r.Rule != d.Rule || r.Reason != d.Reason || r.Stage != "message" || r.Phase != policy.Enforce || r.Account != "login:taro@example.jp" ||
			r.Login != "taro@example.jp" || r.QueueID != "4bX9q" || r.MessageID != "<1@example.jp>" || r.Recipients != 1 || r.Size != 2310 || r.UID != -1 || r.Late ||
			r.MailFrom != m.MailFrom || r.Confidence != "kernel" || r.Domains["example.net"] != 1 || len(r.Findings) != len(d.Findings) {
			t.Errorf("record %+v", r)
		}
	}
	g, k := newKept(rules(policy.Enforce))
	if g.Recipient(t.Context(), message("taro@example.jp", "taro@example.jp"), "friend@example.net"); len(k.calls) != 0 {
		t.Errorf("a recipient that is not refused: %q", k.calls)
	}
	d := g.Recipient(t.Context(), message("", "taro@example.jp"), "friend@example.net")
	if r := k.told(t, d); r.Stage != "rcpt" || r.Reply != d.Reply.String() || r.Rule != policy.RuleAuth {
		t.Errorf("record %+v", r)
	}
}

func TestJournalThatCannotKeepStillAnswers(t *testing.T) {
	g, k := newKept(rules(policy.Enforce))
	k.err = errors.New("no space left on device")
	if d := g.Message(t.Context(), message("taro@example.jp", "ceo@example.org", "friend@example.net")); d.Verdict != policy.Hold || len(k.calls) != 2 {
		t.Errorf("%v, %q", d.Verdict, k.calls)
	}
	if d := g.Message(t.Context(), message("", "taro@example.jp", "friend@example.net")); d.Verdict != policy.Reject || d.Reply.Code != 530 {
		t.Errorf("%v", d.Reply)
	}
	g.Journal, g.Watcher = nil, nil
	if d := g.Message(t.Context(), message("", "taro@example.jp", "friend@example.net")); d.Verdict != policy.Reject {
		t.Errorf("without a journal: %v", d.Verdict)
	}
	g.Tick(time.Now())
}

func TestLateDecisionIsKeptAsLateAndJoinsNoOther(t *testing.T) {
	g, k := newKept(rules(policy.Enforce))
	late, cancel := context.WithCancel(t.Context())
	cancel()
	m := message("", "taro@example.jp")
	first := g.Recipient(late, m, "friend@example.net")
	second := g.Recipient(t.Context(), m, "friend@example.net")
	third := g.Recipient(late, m, "friend@example.net")
	if first.ID == second.ID || third.ID == second.ID {
		t.Errorf("ids %q, %q, %q", first.ID, second.ID, third.ID)
	}
	if !k.told(t, first).Late || k.told(t, second).Late {
		t.Error("late is told wrongly")
	}
	for _, call := range k.calls {
		if call == "stopped "+first.ID {
			t.Error("those who follow learn of an answer that nobody got")
		}
	}
	if g.Counts.Late.Load() != 2 || g.Counts.Refused.Load() != 1 {
		t.Errorf("late %d, refused %d", g.Counts.Late.Load(), g.Counts.Refused.Load())
	}
}

func TestNoRecipientIsKept(t *testing.T) {
	p := rules(policy.Enforce)
	p.Switches = new(policy.Board)
	p.Switches.Store(policy.NewSwitches([]policy.Switch{{Kind: policy.Deny, Subject: policy.SubjectTarget, Value: "evil.example", Reason: "abuse"}}))
	p.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{{Limit: limit.Limit{Name: "hour", Per: []limit.Per{limit.Login}, Counts: limit.Recipients, Kind: limit.Volume, Windows: []limit.Window{{Count: 1, Length: time.Hour}}}, Then: policy.Hold}}, Store: limit.NewMemory(), Retries: limit.NewRetries(10)})
	g, k := newKept(p)
	rcpts := []string{"secret.person@example.net", `"secret person"@example.net`, "secret", "secret%person@example.jp", "a!secret@example.jp", "secret@person@evil.example", "secret@bad domain", `secret@"person`}
	for _, login := range []string{"taro@example.jp", ""} {
		for _, from := range []string{"taro@example.jp", "ceo@example.org", ""} {
			m := message(login, from, rcpts...)
			for _, to := range rcpts {
				g.Recipient(t.Context(), m, to)
			}
			g.Message(t.Context(), m)
			g.Message(t.Context(), message(login, from, rcpts[:2]...))
		}
	}
	text, err := json.Marshal(k.all)
	if err != nil || len(k.all) < 8 {
		t.Fatalf("%d records, %v", len(k.all), err)
	}
	for _, s := range []string{"secret", "person"} {
		if strings.Contains(string(text), s) {
			t.Errorf("%q is in the journal: %s", s, text)
		}
	}
}

func TestDomainsAreBounded(t *testing.T) {
	g, k := newKept(rules(policy.Enforce))
	rcpts := []string{"postmaster", "a@", "x@EXAMPLE.net", "y@example.net."}
	for i := range 1000 {
		rcpts = append(rcpts, fmt.Sprintf("x@d%d.example.net", i))
	}
	d := g.Message(t.Context(), message("taro@example.jp", "taro@example.jp", rcpts...))
	all := k.all[d.ID].Domains
	sum := 0
	for _, n := range all {
		sum += n
	}
	if len(all) > journal.MaxDomains+1 || all["example.net"] != 2 || all[""] < 900 || sum != len(rcpts) {
		t.Errorf("%d domains, %d recipients of %d", len(all), sum, len(rcpts))
	}
}

// denied is a policy with so many denied targets, d0.example and on.
func denied(n int) *policy.Policy {
	p := rules(policy.Enforce)
	var all []policy.Switch
	for i := range n {
		all = append(all, policy.Switch{Kind: policy.Deny, Subject: policy.SubjectTarget, Value: fmt.Sprintf("d%d.example", i), Reason: "abuse"})
	}
	p.Switches = new(policy.Board)
	p.Switches.Store(policy.NewSwitches(all))
	return p
}

func TestRefusalsAtRCPTAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, k := newKept(denied(2))
		m := message("taro@example.jp", "taro@example.jp")
		ids := map[string]int64{}
		for range 1000 {
			d := g.Recipient(t.Context(), m, "x@d0.example")
			k.told(t, d)
			ids[d.ID]++
		}
		if len(ids) != 1 || len(k.all) != 1 || g.Counts.Joined.Load() != 999 || g.Counts.Refused.Load() != 1000 {
			t.Errorf("%d ids, %d records, %d joined", len(ids), len(k.all), g.Counts.Joined.Load())
		}
		other := g.Recipient(t.Context(), m, "x@d1.example")
		neighbour := g.Recipient(t.Context(), message("hanako@example.jp", "hanako@example.jp"), "x@d0.example")
		if r := k.told(t, other); !strings.Contains(r.Reason, "d1.example") {
			t.Errorf("another deny is told as %q", r.Reason)
		}
		if r := k.told(t, neighbour); r.Account != "login:hanako@example.jp" {
			t.Errorf("hanako is told of %q", r.Account)
		}
		for range 90 { // whoever asks meanwhile, no count is lost
			time.Sleep(time.Second)
			g.Tick(time.Now())
			ids[g.Recipient(t.Context(), m, "x@d0.example").ID]++
		}
		time.Sleep(2 * time.Minute)
		g.Tick(time.Now())
		if len(ids) != 2 || len(k.again) != 2 {
			t.Errorf("%d ids in a minute and a half, repeats of %d", len(ids), len(k.again))
		}
		for id, n := range ids {
			if k.again[id] != n-1 {
				t.Errorf("%q answered %d, the journal knows 1 and %d", id, n, k.again[id])
			}
		}
	})
}

// The entry of a minute ago makes room the moment the next refusal comes, which
// is long before the next Tick.
func TestRepeatsAreToldThoughTheNextMinuteBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, k := newKept(denied(1))
		m := message("taro@example.jp", "taro@example.jp")
		first := g.Recipient(t.Context(), m, "x@d0.example")
		for range 9 {
			g.Recipient(t.Context(), m, "x@d0.example")
		}
		time.Sleep(time.Minute)
		second := g.Recipient(t.Context(), m, "x@d0.example")
		g.Tick(time.Now())
		if second.ID == first.ID || k.again[first.ID] != 9 {
			t.Errorf("ids %q, %q; repeats %v", first.ID, second.ID, k.again)
		}
	})
}

func TestRefusedMessagesHaveTwentyEntriesAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, k := newKept(denied(1))
		answers := map[string]int64{}
		for range 100 {
			d := g.Message(t.Context(), message("taro@example.jp", "taro@example.jp", "x@d0.example"))
			k.told(t, d)
			answers[d.ID]++
		}
		time.Sleep(time.Minute)
		g.Tick(time.Now())
		if len(answers) != 20 || len(k.all) != 20 {
			t.Errorf("%d ids, %d records", len(answers), len(k.all))
		}
		for id, n := range answers {
			if k.again[id] != n-1 {
				t.Errorf("%q answered %d, the journal knows 1 and %d", id, n, k.again[id])
			}
		}
	})
}

func TestStrangersFloodNeitherJournalNorMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := rules(policy.Enforce)
		p.Switches = new(policy.Board)
		p.Switches.Store(policy.NewSwitches([]policy.Switch{{Kind: policy.Deny, Subject: policy.SubjectHelo, Value: "bad.example", Reason: "abuse"}}))
		g, k := newKept(p)
		const clients = 250_000
		answers := map[string]int64{}
		m := message("", "x@example.org")
		for i := range clients {
			m.ClientIP = netip.AddrFrom4([4]byte{byte(10 + i>>24), byte(i >> 16), byte(i >> 8), byte(i)})
			m.Helo = "good.example"
			if i%3 == 0 {
				m.Helo = "bad.example"
			}
			d := g.Recipient(t.Context(), m, "friend@example.net")
			answers[d.ID]++
			if r := k.told(t, d); r.Rule != d.Rule || r.Reason != d.Reason || r.Stage != "rcpt" || r.Verdict != d.Verdict {
				t.Fatalf("client %d was refused by %q, its id tells of %q", i, d.Rule, r.Rule)
			}
		}
		if len(k.all) > 110 {
			t.Errorf("%d records of %d refusals", len(k.all), clients)
		}
		time.Sleep(time.Minute)
		g.Tick(time.Now())
		sum := int64(len(k.all))
		for _, n := range k.again {
			sum += n
		}
		if sum != clients {
			t.Errorf("%d refusals are known of %d", sum, clients)
		}
		// What a minute brought is forgotten: the next has entries of its own.
		before := len(k.all)
		if d := g.Recipient(t.Context(), m, "friend@example.net"); k.told(t, d).ClientIP != m.ClientIP.String() || len(k.all) != before+1 {
			t.Error("a client of the next minute has no entry")
		}
	})
}

func TestStrangersOfOneNetworkAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, k := newKept(rules(policy.Enforce))
		m := message("", "x@example.org")
		for i := range 100 {
			m.ClientIP = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i))
			k.told(t, g.Recipient(t.Context(), m, "friend@example.net"))
		}
		if len(k.all) != 1 {
			t.Errorf("%d records", len(k.all))
		}
		m.ClientIP = netip.MustParseAddr("2001:db8:0:1::1")
		if g.Recipient(t.Context(), m, "friend@example.net"); len(k.all) != 2 {
			t.Error("its neighbour shares its entry")
		}
	})
}

// full is a room that holds nothing.
type full struct{}

func (full) Full(string) bool        { return true }
func (full) Take(string, int64) bool { return false }
func (full) Give(string, int64)      {}

func TestWhatIsDeferredIsNotToldAsRejected(t *testing.T) {
	p := rules(policy.Enforce)
	p.Room = full{}
	g, k := newKept(p)
	for i := range 50 {
		m := message("", []string{"taro@example.jp", ""}[i/25], "friend@example.net")
		m.Role, m.Submitted, m.UID = policy.Local, true, 1000
		m.RcptMore = 1 // would be held
		d := g.Message(t.Context(), m)
		if r := k.told(t, d); r.Verdict != d.Verdict || d.Rule != policy.RuleHoldCap || d.Verdict != []policy.Verdict{policy.Reject, policy.Defer}[i/25] {
			t.Errorf("message %d: %v by %q, its id tells %v", i, d.Verdict, d.Rule, r.Verdict)
		}
	}
}

// More kinds of refusals than are remembered: each is still told by an entry of
// its own account and reason, and all are counted.
func TestMoreKindsThanAreRemembered(t *testing.T) {
	const kinds = 21_000
	synctest.Test(t, func(t *testing.T) {
		g, k := newKept(denied(kinds))
		m := message("taro@example.jp", "taro@example.jp")
		for range 2 {
			for i := range kinds {
				d := g.Recipient(t.Context(), m, fmt.Sprintf("x@d%d.example", i))
				if r := k.told(t, d); r.Reason != d.Reason {
					t.Fatalf("refused for %q, its id tells %q", d.Reason, r.Reason)
				}
			}
		}
		time.Sleep(time.Minute)
		g.Tick(time.Now())
		sum := int64(len(k.all))
		for _, n := range k.again {
			sum += n
		}
		if len(k.all) <= kinds {
			t.Errorf("%d records: all kinds are remembered", len(k.all))
		}
		if sum != 2*kinds {
			t.Errorf("%d refusals are known of %d", sum, 2*kinds)
		}
	})
}

// An id that is still on its way into the journal is not given to others.
func TestNoAnswerNamesAnEntryThatIsNotYetKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, k := newKept(denied(1))
		k.wait = make(chan struct{})
		var mu sync.Mutex
		answered := 0
		for range 10 {
			go func() {
				d := g.Recipient(t.Context(), message("taro@example.jp", "taro@example.jp"), "x@d0.example")
				k.told(t, d)
				mu.Lock()
				defer mu.Unlock()
				answered++
			}()
		}
		synctest.Wait()
		if answered != 0 {
			t.Errorf("%d are answered before the journal has their reason", answered)
		}
		close(k.wait)
		synctest.Wait()
		if answered != 10 {
			t.Errorf("%d are answered", answered)
		}
	})
}

func TestRefusalsRace(t *testing.T) {
	g, k := newKept(denied(3))
	var workers sync.WaitGroup
	const each = 500
	for w := range 8 {
		workers.Go(func() {
			m := message([]string{"", "taro@example.jp", "hanako@example.jp"}[w%3], "taro@example.jp")
			for i := range each {
				d := g.Recipient(t.Context(), m, fmt.Sprintf("x@d%d.example", i%3))
				if r := k.told(t, d); r.Rule != d.Rule || r.Reason != d.Reason || r.Account != d.Origin.Name() {
					t.Errorf("refused by %q for %q, its id tells %q of %q", d.Rule, d.Reason, r.Reason, r.Account)
				}
				g.Tick(time.Now())
			}
		})
	}
	workers.Wait()
	g.Tick(time.Now().Add(time.Hour))
	sum := int64(len(k.all))
	for _, n := range k.again {
		sum += n
	}
	if sum != 8*each {
		t.Errorf("%d refusals are known of %d", sum, 8*each)
	}
}
