package policy_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// orders are sent by a plugin of the shop over a working day, each to a new
// customer; it returns how many went.
func (h *house) orders(t *testing.T, day time.Time, n int, plugin string) (went int) {
	t.Helper()
	for i := range n {
		at := day.Add(time.Duration(i) * 10 * time.Hour / time.Duration(n))
		m := h.local(1000, "Your order", "")
		m.RcptTo = []string{h.person()}
		if d := h.Message(t.Context(), at, h.stamped(m, at, shop, plugin)); !d.Verdict.Stops() {
			went++
		}
	}
	return went
}

func TestShopAndItsSaleDay(t *testing.T) {
	peaks := limit.NewPeaks(0)
	h := hosting(t, policy.Learning)
	h.limit(policy.Learning, peaks, defaults()...)
	day := now
	for i, n := range []int{150, 150, 150, 150, 350, 150, 150} { // it learns for 14 days; from the fourth on what is usual counts
		if went := h.orders(t, day, n, "cart"); went != n {
			t.Fatalf("day %d: %d of %d orders went", i, went, n)
		}
		day = day.AddDate(0, 0, 1)
	}
	h.limit(policy.Enforce, peaks, defaults()...)
	asked, err := h.Limits.Ask(t.Context(), day.AddDate(0, 0, 1), nil, &origin.Origin{UID: 1000, Site: origin.Key{Value: shop.Name, Confidence: origin.Kernel}, Plugin: origin.Key{Value: "cart", Confidence: origin.Kernel}}, 1)
	if err != nil || len(asked.Standings) == 0 {
		t.Fatal(err, asked)
	}
	for _, s := range asked.Standings {
		if s.Rule == "plugin-first-time" && (s.Source != "default; adapted: 3 times its largest day" || s.Windows[1].Count != 1050) {
			t.Errorf("%+v", s)
		}
	}
	if in := h.Limits.InForce(day, nil, "plugin-first-time", "plugin:cart@shop.example.jp"); in.Windows[1].Count != 1050 || in.Windows[0].Count != 350 { // a third of the day within a burst: a sale begins at ten
		t.Errorf("%+v", in)
	}
	if went := h.orders(t, day, 400, "cart"); went != 400 {
		t.Errorf("%d of 400 went", went)
	}
	// An order of an admin counts more.
	tight := checked(policy.Switch{Kind: policy.Set, Subject: policy.SubjectPlugin, Value: "cart@shop.example.jp", Rule: "plugin-first-time", Windows: []limit.Window{window(5, 24*time.Hour)}, Reason: "r"})
	in := h.Limits.InForce(day, policy.NewSwitches([]policy.Switch{tight}), "plugin-first-time", "plugin:cart@shop.example.jp")
	if in.Windows[0].Count != 5 {
		t.Errorf("%+v", in)
	}
	probation := policy.NewSwitches([]policy.Switch{order(policy.Probation, policy.SubjectSite, shop.Name)})
	if in := h.Limits.InForce(day, probation, "plugin-first-time", "plugin:cart@shop.example.jp"); in.Windows[1].Count != 525 {
		t.Errorf("on probation %+v", in)
	}
	if in := h.Limits.InForce(day, nil, "plugin-first-time", "plugin:other@shop.example.jp"); in.Windows[1].Count != 40 {
		t.Errorf("another plugin has %+v", in)
	}
}

// What is usual is not known on the day of installation; a burst stops even then.
func TestWhileNothingIsUsualOnlyBurstsAct(t *testing.T) {
	h, all := hosting(t, policy.Learning), defaults()
	for i := range all {
		all[i].Warn = 80
	}
	h.limit(policy.Learning, limit.NewPeaks(0), all...)
	if went := h.orders(t, now, 150, "cart"); went != 150 {
		t.Errorf("%d of 150 orders went", went)
	}
	near := 0 // what will be over once it is known what is usual is told
	for range 20 {
		at := now.Add(11 * time.Hour)
		for _, c := range h.Message(t.Context(), at, h.stamped(h.local(1000, "Form", h.person()), at, shop, "form")).Near {
			if c.Limit == "plugin-first-time" {
				near++
			}
		}
	}
	for range 21 {
		at := now.Add(12 * time.Hour)
		for _, c := range h.Message(t.Context(), at, h.stamped(h.local(1000, "Form", h.person()), at, shop, "form")).Near {
			if c.Limit == "plugin-first-time" && c.Window == 24*time.Hour && c.Count == 40 && c.Used+c.Amount == 40 {
				near += 100
			}
		}
	}
	if near/100 != 1 {
		t.Errorf("told %d times that a day is over", near/100)
	}
	stopped := 0
	for i := range 100 {
		at := now.Add(24*time.Hour + time.Duration(i)*time.Second)
		if d := h.Message(t.Context(), at, h.stamped(h.local(1000, "Look", h.person()), at, shop, "share")); d.Verdict == policy.Hold && d.Rule == "plugin-first-time" {
			stopped++
		}
	}
	if stopped != 75 {
		t.Errorf("%d of a burst of 100 are stopped, want 75", stopped)
	}
	h.limit(policy.Enforce, limit.NewPeaks(0), defaults()...) // who does not learn has the limit as it is
	if went := h.orders(t, now.AddDate(0, 0, 3), 150, "fresh"); went != 40 {
		t.Errorf("%d of 150 went, want 40", went)
	}
}

// Whoever begins to learn in another phase, or is told of a site, is patient with
// the days too: that shop's orders did not begin today. Bursts act.
func TestPatienceInEveryPhase(t *testing.T) {
	for name, grant := range map[string]func(h *house, peaks *limit.Peaks){
		"a guard that begins to learn": func(_ *house, peaks *limit.Peaks) { peaks.Grant(now, policy.Everybody) },
		"a site that was registered":   func(_ *house, peaks *limit.Peaks) { peaks.Grant(now, "site:"+shop.Name) },
	} {
		t.Run(name, func(t *testing.T) {
			h, peaks := hosting(t, policy.Enforce), limit.NewPeaks(0)
			h.limit(policy.Enforce, peaks, defaults()...)
			grant(h, peaks)
			for day := range 6 {
				if went := h.orders(t, now.AddDate(0, 0, day), 150, "cart"); went != 150 {
					t.Errorf("day %d: %d of 150 orders went", day, went)
				}
			}
			at := now.AddDate(0, 0, 1)
			if went := h.flood(t, 100, func(_ int, _ time.Time) *policy.Message {
				return h.stamped(h.local(1000, "Look", h.person()), at, shop, "share")
			}); went > 25 {
				t.Errorf("%d of a burst went", went)
			}
		})
	}
}

// A site that a web node begins to sign for was registered there: its orders did not
// begin today either.
func TestPatienceWithASiteOfANode(t *testing.T) {
	h := hosting(t, policy.Enforce)
	h.limit(policy.Enforce, limit.NewPeaks(0), defaults()...)
	for day := range 6 {
		for i := range 100 {
			m := h.nodeMail(&stamp.NodeStamp{Node: "web3", UID: 1001, LocalUser: "site12", Site: "far.example.jp", Labelled: true, Plugin: "cart"}, h.person())
			at := now.AddDate(0, 0, day).Add(time.Duration(i) * 6 * time.Minute)
			if d := h.Message(t.Context(), at, m); d.Verdict != policy.Accept {
				t.Fatalf("day %d, order %d: %v: %s", day, i, d.Verdict, d.Reason)
			}
		}
	}
}

// What observe would stop does not become usual by that.
func TestObserveDoesNotLearnFromWhatItWouldStop(t *testing.T) {
	stops := func(phase policy.Phase) (all []int) {
		h := hosting(t, phase, defaults()...)
		for day := range 6 {
			n := 0
			for i := range 100 {
				m := h.local(33, "[Shared Post] Our autumn menu is here", h.person())
				m.Body = fmt.Appendf(nil, "Person %d thinks you may be interested in the following post:\r\n\r\nOur autumn menu is here\r\nhttps://far.example.jp/autumn-menu/\r\n", i)
				d := h.Message(t.Context(), now.AddDate(0, 0, day).Add(time.Duration(i)*20*time.Second), m)
				if slices.ContainsFunc(d.Findings, func(f policy.Finding) bool { return f.Rule == "template-first-time" }) {
					n++
				}
			}
			all = append(all, n)
		}
		return all
	}
	if got := stops(policy.Observe); slices.Min(got) < 40 {
		t.Errorf("would-be stops a day: %v of 100", got)
	}
}

// Abuse at a pace below every burst, begun at any time of the day, also across
// midnight, when the day before is over.
func TestSlowAbuse(t *testing.T) {
	for _, hour := range []int{0, 9, 20, 22, 23} {
		t.Run(fmt.Sprintf("from %d h", hour), func(t *testing.T) {
			peaks := limit.NewPeaks(0)
			h := hosting(t, policy.Learning)
			h.limit(policy.Learning, peaks, defaults()...)
			day := now
			for i := range 14 {
				if i == 4 {
					h.limit(policy.Enforce, peaks, defaults()...)
				}
				n := []int{3, 13, 7}[i%3]
				if went := h.orders(t, day, n, "share"); went != n {
					t.Fatalf("day %d: %d of %d", i, went, n)
				}
				day = day.AddDate(0, 0, 1)
			}
			begun := time.Date(day.Year(), day.Month(), day.Day(), hour, 0, 0, 0, time.UTC)
			left := 0
			send := func(at time.Time) {
				if d := h.Message(t.Context(), at, h.stamped(h.local(1000, "Look", h.person()), at, shop, "share")); !d.Verdict.Stops() {
					left++
				}
			}
			for i := range 40 { // half an hour at one each 45 s
				send(begun.Add(time.Duration(i) * 45 * time.Second))
			}
			for i := range 7 * 24 * 17 {
				send(begun.Add(30*time.Minute + time.Duration(i)*time.Hour/17))
			}
			if left > 60 {
				t.Errorf("%d left", left)
			}
			if in := h.Limits.InForce(begun.AddDate(0, 0, 9), nil, "plugin-first-time", "plugin:share@shop.example.jp"); in.Windows[1].Count != 40 {
				t.Errorf("after it the limit is %d", in.Windows[1].Count)
			}
		})
	}
	for _, perHour := range []int{2, 5, 17} { // from the beginning at that pace
		peaks := limit.NewPeaks(0)
		h := hosting(t, policy.Enforce)
		h.limit(policy.Enforce, peaks, defaults()...)
		left, begun := 0, time.Date(2026, 3, 2, 21, 30, 0, 0, time.UTC)
		for i := range 7 * 24 * perHour {
			at := begun.Add(time.Duration(i) * time.Hour / time.Duration(perHour))
			if d := h.Message(t.Context(), at, h.stamped(h.local(1000, "Look", h.person()), at, shop, "share")); !d.Verdict.Stops() {
				left++
			}
		}
		if left > 60 {
			t.Errorf("%d an hour: %d left", perHour, left)
		}
	}
}

// While one plugin of a site is abused, what its others send is no measure either.
func TestDayOfAbuseCountsForNothing(t *testing.T) {
	peaks := limit.NewPeaks(0)
	h := hosting(t, policy.Enforce)
	h.limit(policy.Enforce, peaks, defaults()...)
	h.orders(t, now, 40, "cart")
	h.orders(t, now, 60, "share") // trips
	h.orders(t, now.Add(4*time.Hour), 30, "form")
	later := now.AddDate(0, 0, 3)
	for _, plugin := range []string{"cart", "share", "form"} {
		if in := h.Limits.InForce(later, nil, "plugin-first-time", "plugin:"+plugin+"@shop.example.jp"); in.Windows[1].Count != 40 {
			t.Errorf("%s: %d", plugin, in.Windows[1].Count)
		}
	}
	var file bytes.Buffer
	if err := peaks.Save(&file); err != nil {
		t.Fatal(err)
	}
	again := limit.NewPeaks(0)
	if err := again.Load(&file); err != nil || !again.Voided(now, limit.Key{Value: "site:shop.example.jp"}) {
		t.Errorf("a restart forgets it: %v", err)
	}
}

// A limit of its own kind that adapts, on what accounts send.
func TestVolumeLimitAdapts(t *testing.T) {
	day := limited("day", limit.Login, policy.Hold, window(10, 24*time.Hour))
	day.Adapt = limit.Adapt{Times: 2, Days: 7}
	peaks := limit.NewPeaks(0)
	h := newHouse(policy.Enforce)
	h.limit(policy.Enforce, peaks, day)
	count := func(at time.Time) int64 {
		return h.Limits.InForce(at, nil, "day", "login:taro@example.jp").Windows[0].Count
	}
	for i, n := range []int{10, 10, 20, 20, 40} {
		at := now.AddDate(0, 0, i).Add(time.Duration(i) * 2 * time.Hour)
		d := h.Message(t.Context(), at, h.mail("taro@example.jp", to(n)...))
		if d.Verdict != policy.Accept {
			t.Fatalf("day %d: %v: %s", i, d.Verdict, d.Reason)
		}
	}
	if got := count(now.AddDate(0, 0, 6)); got != 80 {
		t.Errorf("%d, want 80", got)
	}
	if got := count(now.AddDate(0, 0, 12)); got != 10 {
		t.Errorf("%d, want 10: all is forgotten", got)
	}
	asked, _ := h.Limits.Ask(t.Context(), now.AddDate(0, 0, 6), nil, who("taro@example.jp"), 1)
	if len(asked.Standings) != 1 || !strings.HasSuffix(asked.Standings[0].Source, "adapted: 2 times its largest day") {
		t.Errorf("%+v", asked.Standings)
	}
}
