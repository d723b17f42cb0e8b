package replay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/replay"
)

// However far apart events are, only what can happen between them is work.
func TestGapsOfYearsAreNoWork(t *testing.T) {
	h := newHouse(limited("day", limit.Login, limit.Recipients, policy.Hold, window(1, 24*time.Hour)))
	d := &diary{open: 1} // an incident of abuse stays open for ever
	h.Incidents, d.abused = d, true
	var all []event
	for i := range 10 {
		login := fmt.Sprintf("user%d@example.jp", i)
		year := time.Duration(i) * 19 * 365 * 24 * time.Hour
		all = append(all, mail(year, login, 1), mail(year+1, login, 1), mail(year+2, login, 1))
	}
	h.run(t, lines(all...))
	if d.ticks > 20_000 || h.asked > 1000 {
		t.Errorf("%d looks at incidents, %d at buckets", d.ticks, h.asked)
	}
}

// A line that is stopped for long is not asked about all the time.
func TestStoppedLinesAreNoWork(t *testing.T) {
	h := newHouse(limited("login", limit.Login, limit.Recipients, policy.Hold, window(1, 10*time.Minute)))
	var all []event
	for i := range 200 {
		login := fmt.Sprintf("user%d@example.jp", i)
		all = append(all, mail(time.Duration(2*i), login, 1), mail(time.Duration(2*i+1), login, 1))
	}
	all = append(all, mail(11*time.Hour, "other@example.jp", 1))
	h.run(t, lines(all...))
	if h.asked > 3000 {
		t.Errorf("%d looks at buckets", h.asked)
	}
}

func TestTooMuchIsAnErrorWithItsLine(t *testing.T) {
	many := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"time":"2026-03-02T09:00:00Z","event":%s}`+"\n", line(i))
		}
		return b.String()
	}
	for name, c := range map[string]struct{ trace, want string }{
		"recipients": {many(1, func(int) string {
			return `"message","login":"a","rcpt_to":["a@b"` + strings.Repeat(`,"a@b"`, 100_000) + `]`
		}), "line 1: rcpt_to: found 100001, want at most 100000"},
		"labels": {many(10_002, func(i int) string {
			return fmt.Sprintf(`"message","login":"a","rcpt_to":"a@b","label":"%d"`, i)
		}), "line 10001: more than 10000 labels; a label says what kind of mail it is, not which"},
	} {
		_, err := replay.Run(t.Context(), replay.NewReader(strings.NewReader(c.trace)), newHouse().Options)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// One origin a line, each held: what waits has a bound.
func TestManyOrigins(t *testing.T) {
	h := newHouse(limited("none", limit.Login, limit.Recipients, policy.Hold, window(1, time.Hour)))
	h.Lines.SetMost(100)
	var b strings.Builder
	for i := range 3000 {
		for range 2 {
			fmt.Fprintf(&b, `{"time":"2026-03-02T09:00:00Z","event":"message","login":"user%d","rcpt_to":"a@b"}`+"\n", i)
		}
	}
	s := h.run(t, b.String())
	if got := sums(s.Labels[""]); got != "3000/3000 3000/3000 0/0 0/0" || h.Lines.Len() > 100 || len(s.Stops) != 3000 {
		t.Errorf("%s, %d wait, %d stops", got, h.Lines.Len(), len(s.Stops))
	}
}

func TestHugeMessage(t *testing.T) {
	h := newHouse(limited("hour", limit.Login, limit.Recipients, policy.Hold, window(100_000, time.Hour)))
	s := h.run(t, lines(mail(0, "taro@example.jp", 100_000), mail(1, "taro@example.jp", 1)))
	if got := sums(s.Labels[""]); got != "1/100000 1/1 0/0 0/0" {
		t.Errorf("%s", got)
	}
}

// What later versions write is ignored, and told.
func TestUnknownKindsAreTold(t *testing.T) {
	var all []event
	for i := range 30 {
		all = append(all, told(time.Duration(i), fmt.Sprintf("kind%02d", i/2), nil))
	}
	s := newHouse().run(t, lines(all...))
	if s.Events != 30 || len(s.Unknown) != 10 || s.Unknown["kind00"] != 2 {
		t.Errorf("%d events, %v", s.Events, s.Unknown)
	}
}
