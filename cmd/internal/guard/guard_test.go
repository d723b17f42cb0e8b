package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/cmd/internal/guard"
	"relayguard/cmd/internal/holds"
	"relayguard/milter"
	"relayguard/policy"
	"relayguard/policy/origin"
)

var _ milter.Guard = (*guard.Guard)(nil)

// logged collects JSON lines.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) lines(t *testing.T) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(l.text()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

func rules(phase policy.Phase) *policy.Policy {
	return &policy.Policy{
		Phase:     phase,
		Inside:    policy.Inside{"example.jp": true},
		UIDHeader: milter.UIDHeader,
		OwnUID:    origin.NoUID,
		Addresses: policy.Addresses{Envelope: policy.Hold, HeaderFrom: policy.Tell},
	}
}

// counting is the log of stops: the same one, and counts them.
type counting struct {
	log   *logged
	stops *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	c.stops.Add(1)
	return c.log.Write(p)
}

func newGuard(phase policy.Phase) (g *guard.Guard, log *logged, stops *atomic.Int64) {
	log, stops = new(logged), new(atomic.Int64)
	g = guard.New(rules(phase), slog.New(slog.NewJSONHandler(log, nil)), slog.New(slog.NewJSONHandler(counting{log, stops}, nil)))
	return g, log, stops
}

func message(login, from string, to ...string) *policy.Message {
	m := &policy.Message{Listener: "submission", Role: policy.Submission, Evidence: origin.NewEvidence(), RcptTo: to, Size: 2310}
	m.Login, m.MailFrom, m.QueueID = login, from, "4bX9q"
	m.Header.Add([]byte("From"), []byte(from))
	m.Header.Add([]byte("Message-ID"), []byte("<1@example.jp>"))
	return m
}

func TestOneLineAMessage(t *testing.T) {
	for want, m := range map[string]*policy.Message{
		"accept": message("taro@example.jp", "taro@example.jp", "friend@example.net", "other@example.net"),
		"hold":   message("taro@example.jp", "ceo@example.org", "friend@example.net", "other@example.net"),
		"reject": message("", "taro@example.jp", "friend@example.net", "other@example.net"),
	} {
		t.Run(want, func(t *testing.T) {
			g, log, stops := newGuard(policy.Enforce)
			m.RcptMore = 0
			d := g.Message(t.Context(), m)
			lines := log.lines(t)
			if len(lines) != 1 {
				t.Fatalf("%d lines: %s", len(lines), log.text())
			}
			line := lines[0]
			for key, value := range map[string]any{
				"msg": "verdict", "level": "INFO", "verdict": want, "id": d.ID, "stage": "message", "role": "submission", "listener": "submission",
				"queue_id": "4bX9q", "mail_from": m.MailFrom, "message_id": "<1@example.jp>", "recipients": 2.0, "size": 2310.0,
			} {
				if line[key] != value {
					t.Errorf("%s is %v, want %v", key, line[key], value)
				}
			}
			if stopped := want != "accept"; (line["rule"] != nil) != stopped || (stops.Load() == 1) != stopped {
				t.Errorf("rule %v, stops %d times", line["rule"], stops.Load())
			}
			if strings.Contains(log.text(), "example.net") {
				t.Errorf("a recipient is in the log: %s", log.text())
			}
			if n := g.Counts.Messages[d.Verdict].Load(); n != 1 {
				t.Errorf("%d counted", n)
			}
		})
	}
}

func TestRecipientHasALineOnlyIfRefused(t *testing.T) {
	g, log, stops := newGuard(policy.Enforce)
	if d := g.Recipient(t.Context(), message("taro@example.jp", "taro@example.jp"), "friend@example.net"); d.Verdict != policy.Accept || log.text() != "" {
		t.Errorf("%v, log %q", d.Verdict, log.text())
	}
	d := g.Recipient(t.Context(), message("", "taro@example.jp"), "friend@example.net")
	lines := log.lines(t)
	if d.Verdict != policy.Reject || len(lines) != 1 || lines[0]["stage"] != "rcpt" || lines[0]["id"] != d.ID || lines[0]["account"] != "unknown" {
		t.Errorf("%v, log %s", d.Verdict, log.text())
	}
	if strings.Contains(log.text(), "friend") || stops.Load() != 1 || g.Counts.Refused.Load() != 1 {
		t.Errorf("stops %d, refused %d, log %s", stops.Load(), g.Counts.Refused.Load(), log.text())
	}
}

func TestReplyCarriesTheID(t *testing.T) {
	g, _, _ := newGuard(policy.Enforce)
	for name, d := range map[string]policy.Decision{
		"rcpt":    g.Recipient(t.Context(), message("", "taro@example.jp"), "friend@example.net"),
		"message": g.Message(t.Context(), message("", "taro@example.jp", "friend@example.net")),
	} {
		if d.Reply.Code != 530 || !strings.HasSuffix(d.Reply.Text, "("+d.ID+")") || d.ID == "" {
			t.Errorf("%s: reply %v of decision %q", name, d.Reply, d.ID)
		}
	}
	if d := g.Message(t.Context(), message("taro@example.jp", "ceo@example.org", "friend@example.net")); d.Verdict != policy.Hold || d.Reply != (policy.Reply{}) {
		t.Errorf("hold: %v %v", d.Verdict, d.Reply)
	}
}

func TestHostileValuesAreEscaped(t *testing.T) {
	const evil = "x\r\nlevel=ERROR msg=\"forged\" \x1b[2J\x00@example.org"
	for name, handler := range map[string]func(*logged) slog.Handler{
		"text": func(l *logged) slog.Handler { return slog.NewTextHandler(l, nil) },
		"json": func(l *logged) slog.Handler { return slog.NewJSONHandler(l, nil) },
	} {
		log := new(logged)
		g := guard.New(rules(policy.Enforce), slog.New(handler(log)), slog.New(handler(log)))
		m := message(evil, evil, "friend@example.net")
		m.Listener, m.QueueID, m.AuthType, m.ClientName, m.Helo = evil, evil, evil, evil, evil
		m.Header.Reset(0)
		m.Header.Add([]byte("From"), []byte("\"a\" <"+evil+">"))
		m.Header.Add([]byte("Message-ID"), []byte(evil))
		g.Message(t.Context(), m)
		text := log.text()
		if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") || strings.ContainsAny(text, "\r\x00\x1b") || strings.Contains(text, ` level=ERROR msg="forged"`) {
			t.Errorf("%s: %q", name, text)
		}
	}
}

var idForm = regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{13}$`)

func TestIDsAreUnique(t *testing.T) {
	g, _, _ := newGuard(policy.Enforce)
	var all sync.Map
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			m := message("taro@example.jp", "taro@example.jp", "friend@example.net")
			for range 2000 {
				id := g.Message(t.Context(), m).ID
				if _, seen := all.LoadOrStore(id, true); seen || !idForm.MatchString(id) {
					t.Errorf("id %q, seen before: %v", id, seen)
				}
			}
		})
	}
	workers.Wait()
}

func TestUsePutsAWholePolicyIntoForce(t *testing.T) {
	g, _, _ := newGuard(policy.Enforce)
	all := []*policy.Policy{rules(policy.Enforce), rules(policy.Observe)}
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			m := message("taro@example.jp", "ceo@example.org", "friend@example.net")
			for {
				select {
				case <-stop:
					return
				default:
				}
				if d := g.Message(context.Background(), m); d.Verdict != policy.Hold && d.Verdict != policy.Tell || len(d.Findings) != 2 {
					t.Errorf("%v with %d findings", d.Verdict, len(d.Findings))
					return
				}
			}
		})
	}
	for i := range 200 {
		g.Use(all[i%2])
	}
	close(stop)
	workers.Wait()
	m := message("taro@example.jp", "ceo@example.org", "friend@example.net")
	verdicts := map[policy.Verdict]bool{}
	for _, p := range all {
		g.Use(p)
		verdicts[g.Message(t.Context(), m).Verdict] = true
	}
	if got := slices.Sorted(maps.Keys(verdicts)); !slices.Equal(got, []policy.Verdict{policy.Tell, policy.Hold}) {
		t.Errorf("verdicts %v", got)
	}
}

// FuzzID holds ids against the clock: a later millisecond sorts later, whatever
// happened between.
func FuzzID(f *testing.F) {
	f.Fuzz(func(t *testing.T, start, step uint32, between uint8) {
		synctest.Test(t, func(t *testing.T) {
			g, _, _ := newGuard(policy.Enforce)
			m := message("taro@example.jp", "taro@example.jp", "friend@example.net")
			time.Sleep(time.Duration(start) * time.Hour / 1000)
			seen := map[string]bool{}
			first := g.Message(t.Context(), m).ID
			for range between {
				seen[g.Message(t.Context(), m).ID] = true
			}
			time.Sleep(time.Duration(step)*time.Millisecond + time.Millisecond)
			last := g.Message(t.Context(), m).ID
			if !idForm.MatchString(first) || first >= last || seen[first] || seen[last] || len(seen) != int(between) {
				t.Fatalf("first %q, last %q, %d of %d between", first, last, len(seen), between)
			}
		})
	})
}

func TestLateDecisionIsNotCountedAsWhatBecameOfTheMail(t *testing.T) {
	g, log, _ := newGuard(policy.Enforce)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := message("taro@example.jp", "taro@example.jp", "a@example.net")
	d := g.Message(ctx, m)
	if n := g.Counts.Messages[d.Verdict].Load(); n != 0 || g.Counts.Late.Load() != 1 || !strings.Contains(log.text(), `"overdue":true`) {
		t.Errorf("counted %d, late %d, log %s", n, g.Counts.Late.Load(), log.text())
	}
}

func TestLateHoldLeavesItsPlace(t *testing.T) {
	late, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		from string
		want int64
	}{
		"in time":         {t.Context(), "ceo@example.org", 1},
		"late":            {late, "ceo@example.org", 0}, // the MTA was told milter.on_timeout
		"late and passed": {late, "taro@example.jp", 0},
	} {
		p := rules(policy.Enforce)
		held := holds.NewRoom(holds.Caps{OriginMessages: 9, OriginBytes: 1 << 20, ServerMessages: 9})
		p.Room = held
		log := slog.New(slog.DiscardHandler)
		g := guard.New(p, log, log)
		g.Message(c.ctx, message("taro@example.jp", c.from, "friend@example.net"))
		if got := held.Totals(); got.Messages != c.want || got.Bytes != 2310*c.want {
			t.Errorf("%s: %+v are counted as held", name, got)
		}
	}
	p := rules(policy.Enforce)
	log := slog.New(slog.DiscardHandler)
	if d := guard.New(p, log, log).Message(late, message("taro@example.jp", "ceo@example.org", "friend@example.net")); d.Verdict != policy.Hold {
		t.Errorf("without caps: %v", d.Verdict)
	}
}
