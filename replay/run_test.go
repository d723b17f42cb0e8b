package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/replay"
)

func TestEmptyTrace(t *testing.T) {
	for _, trace := range []string{"", "\n\n", lines(told(0, "delivery", event{"id": "m1", "status": "bounced"}), told(time.Hour, "complaint", event{"id": "m1"}), told(2*time.Hour, "release", event{"origin": "unknown"}))} {
		got, err := json.Marshal(newHouse(limited("hour", limit.Login, limit.Recipients, policy.Hold, window(3, time.Hour))).run(t, trace))
		if want := `{"labels":{},"stops":[],"incidents":[]}`; err != nil || string(got) != want {
			t.Errorf("%q: %s %v, want %s", trace, got, err, want)
		}
	}
}

// What an hour has no room for waits: what goes within a quarter of an hour is
// accepted, what goes later is held. The clock goes on after the last line.
func TestWithinAQuarterOfAnHour(t *testing.T) {
	for _, c := range []struct {
		window time.Duration
		later  []event
		want   string
	}{
		{10 * time.Minute, nil, "4/4 1/1 0/0 0/0"}, // 2 at once, 2 after ten minutes
		{10 * time.Minute, []event{mail(time.Hour, "other@example.jp", 1)}, "5/5 1/1 0/0 0/0"},
		{16 * time.Minute, nil, "2/2 3/3 0/0 0/0"},
		{16 * time.Minute, []event{mail(time.Hour, "other@example.jp", 1)}, "3/3 3/3 0/0 0/0"},
	} {
		all := []event{}
		for i := range 5 {
			all = append(all, mail(time.Duration(i)*time.Second, "taro@example.jp", 1))
		}
		h := newHouse(limited("hour", limit.Login, limit.Recipients, policy.Hold, window(2, c.window)))
		s := h.run(t, lines(append(all, c.later...)...))
		if got := sums(s.Labels[""]); got != c.want {
			t.Errorf("%v, %d later: %s, want %s", c.window, len(c.later), got, c.want)
		}
		if len(c.later) > 0 && len(h.taken) != 6 {
			t.Errorf("%v: %d were charged, want all", c.window, len(h.taken))
		}
	}
}

func TestNothingIsReleasedThatIsTooOldOrNotToBe(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*replay.Options)
		charged int
	}{
		{"as usual", func(*replay.Options) {}, 6},
		{"max_age", func(o *replay.Options) { o.MaxAge = 90 * time.Minute }, 5}, // two after an hour
		{"release off", func(o *replay.Options) { o.Release = false }, 3},
		{"no room in the lines", func(o *replay.Options) { o.Lines.SetMost(1) }, 4},
	} {
		var all []event
		for i := range 5 {
			all = append(all, mail(time.Duration(i)*time.Second, "taro@example.jp", 1))
		}
		all = append(all, mail(20*time.Hour, "taro@example.jp", 1))
		h := newHouse(limited("hour", limit.Login, limit.Recipients, policy.Hold, window(2, time.Hour)))
		c.change(&h.Options)
		s := h.run(t, lines(all...))
		if got := sums(s.Labels[""]); got != "3/3 3/3 0/0 0/0" || len(h.taken) != c.charged {
			t.Errorf("%s: %s, %d charged, want %d", c.name, got, len(h.taken), c.charged)
		}
	}
}

func TestStopsSayWhereEachRuleStoppedWhomFirst(t *testing.T) {
	h := newHouse(limited("hour", limit.Login, limit.Recipients, policy.Hold, window(5, time.Hour)), limited("day", limit.Login, limit.Messages, policy.Reject, window(3, 24*time.Hour)))
	legit, abuse := event{"label": "legit"}, event{"label": "abuse"}
	s := h.run(t, lines(
		mail(0, "taro@example.jp", 1, legit), mail(time.Minute, "Taro@example.jp", 2, abuse), mail(2*time.Minute, "taro@example.jp", 3, abuse),
		mail(3*time.Minute, "taro@example.jp", 3, abuse), mail(90*time.Minute, "taro@example.jp", 1, legit), mail(90*time.Minute+1500*time.Millisecond, "taro@example.jp", 1, legit)))
	got, err := json.MarshalIndent(s.Stops, "", " ")
	want := `[
 {
  "origin": "login:taro@example.jp",
  "label": "abuse",
  "rule": "hour",
  "verdict": "hold",
  "time": "2026-03-02T09:02:00Z",
  "after_recipients": 2,
  "after_seconds": 60
 },
 {
  "origin": "login:taro@example.jp",
  "label": "legit",
  "rule": "day",
  "verdict": "reject",
  "time": "2026-03-02T10:30:00Z",
  "after_recipients": 1,
  "after_seconds": 5400
 }
]`
	if err != nil || string(got) != want {
		t.Errorf("%s %v", got, err)
	}
}

// A recipient that is refused at RCPT does not get the message; the others do.
func TestRefusedRecipients(t *testing.T) {
	h := newHouse(limited("domain", limit.RecipientDomain, limit.Recipients, policy.Defer, window(2, time.Hour)))
	to := func(all ...string) event { return event{"rcpt_to": all} }
	s := h.run(t, lines(
		mail(0, "taro@example.jp", 0, to("a@example.net", "b@example.net")),
		mail(time.Minute, "taro@example.jp", 0, to("a@example.org", "c@example.net", "d@example.net")),
		mail(2*time.Minute, "taro@example.jp", 0, to("e@example.net"))))
	if got := sums(s.Labels[""]); got != "2/3 0/0 1/3 0/0" || len(s.Stops) != 1 || s.Stops[0].AfterRecipients != 2 {
		t.Errorf("%s, %+v", got, s.Stops)
	}
}

// The same messages, asked by hand, get the same verdicts.
func TestReplayDecidesAsThePolicyDoes(t *testing.T) {
	rules := []policy.LimitRule{
		limited("login-hour", limit.Login, limit.Recipients, policy.Hold, window(20, time.Hour), window(8, 10*time.Minute)),
		limited("site-day", limit.Site, limit.Messages, policy.Hold, window(15, 24*time.Hour)),
		limited("plugin-new", limit.Plugin, limit.FirstTime, policy.Hold, window(6, 24*time.Hour)),
		limited("mail", limit.Server, limit.Bytes, policy.Defer, window(60_000, time.Hour)),
	}
	rules[2].Kind = limit.Abuse
	random := rand.New(rand.NewPCG(1, 2))
	var trace []event
	by := newHouse(rules...)
	want := map[string]string{}
	for i := range 400 {
		at, n, who := time.Duration(i)*37*time.Second, 1+random.IntN(4), random.IntN(4)
		e := mail(at, "", n, event{"label": fmt.Sprint(i), "size": 1000 + random.IntN(5000)})
		m := &policy.Message{Role: policy.Submission, Time: start.Add(at), Evidence: origin.NewEvidence(), RcptTo: e["rcpt_to"].([]string)}
		if who < 2 {
			e["login"] = fmt.Sprintf("user%d@example.jp", who)
			m.Login = e["login"].(string)
		} else {
			delete(e, "login")
			e["local_user"], e["site"], e["plugin"] = "web", fmt.Sprintf("shop%d.example.jp", who), []string{"", "share"}[random.IntN(2)]
			m.Role, m.Submitted, m.UID, m.Site, m.SiteConfidence = policy.Local, true, 5, e["site"].(string), origin.Signed
			m.Plugin, m.PluginConfidence = e["plugin"].(string), origin.Signed
			for j := range m.RcptTo { // each plugin finds new people at times
				m.RcptTo[j] = fmt.Sprintf("friend%d@example.net", random.IntN(12))
			}
		}
		m.MailFrom, m.QueueID = "", fmt.Sprint("q", i)
		e["mail_from"] = ""
		m.Header.Add([]byte("Message-ID"), []byte(" "+e["message_id"].(string)))
		trace = append(trace, e)

		all := m.RcptTo
		m.RcptTo = nil
		verdict := policy.Verdict(0)
		for _, to := range all {
			if d := by.Enforce.Recipient(t.Context(), m.Time, m, to); d.Verdict.Stops() {
				verdict = d.Verdict
			} else {
				m.RcptTo = append(m.RcptTo, to)
			}
		}
		if m.Size = int64(e["size"].(int)); len(m.RcptTo) > 0 {
			verdict = by.Enforce.Message(t.Context(), m.Time, m).Verdict
		}
		want[fmt.Sprint(i)] = map[policy.Verdict]string{policy.Accept: "accept", policy.Tell: "accept", policy.Hold: "hold", policy.Defer: "defer", policy.Reject: "reject"}[verdict]
	}
	h := newHouse(rules...)
	h.Release = false // which nobody does by hand
	s := h.run(t, lines(trace...))
	counts := map[string]int{}
	for label, verdict := range want {
		tally, got := s.Labels[label], "?"
		for name, sum := range map[string]replay.Sum{"accept": tally.Accept, "hold": tally.Hold, "defer": tally.Defer, "reject": tally.Reject} {
			if sum.Messages == 1 {
				got = name
			}
		}
		counts[got]++
		if got != verdict {
			t.Errorf("message %s: %s, by hand %s", label, got, verdict)
		}
	}
	if counts["accept"] < 20 || counts["hold"] < 20 || counts["defer"] < 20 {
		t.Errorf("%v: not much of each", counts)
	}
}

// someTrace is traffic of every kind, in any order.
func someTrace(random *rand.Rand, n int) []event {
	var all []event
	at := time.Duration(0)
	for range n {
		at += time.Duration(random.ExpFloat64() * float64([]time.Duration{time.Second, time.Minute, 20 * time.Minute}[random.IntN(3)]))
		login := fmt.Sprintf("user%d@example.jp", random.IntN(4))
		e := mail(at, login, 1+random.IntN(4), event{"label": fmt.Sprintf("label%d", random.IntN(3))})
		switch random.IntN(12) {
		case 0:
			e = told(at, "delivery", event{"id": fmt.Sprintf("m%d", max(1, ids-random.IntN(40))), "status": []string{"sent", "bounced", "deferred"}[random.IntN(3)]})
		case 1:
			e = told(at, []string{"suspend", "resume", "resume", "release"}[random.IntN(4)], event{"origin": "login:" + login})
		case 2:
			e = told(at, "complaint", event{"login": login})
		case 3:
			delete(e, "login")
			e["local_user"], e["site"], e["plugin"] = "web", "shop.example.jp", "share"
		}
		all = append(all, e)
	}
	return all
}

func someRules() []policy.LimitRule {
	rules := []policy.LimitRule{
		limited("login", limit.Login, limit.Recipients, policy.Hold, window(5, 10*time.Minute), window(12, time.Hour), window(60, 24*time.Hour)),
		limited("server", limit.Server, limit.Messages, policy.Hold, window(15, 30*time.Minute)),
		limited("distinct", limit.Login, limit.Distinct, policy.Hold, window(3, time.Hour)),
		limited("abuse", limit.Account, limit.Messages, policy.Reject, window(40, 24*time.Hour)),
		limited("bounces", limit.Login, limit.Bounces, policy.Hold, window(3, time.Hour)),
	}
	rules[3].Kind = limit.Abuse
	return rules
}

// What passed, at once or later, an exact count over every interval allows.
func TestWhatPassesAnExactCountAllows(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 7))
		ids = 0
		h := newHouse(someRules()...)
		h.run(t, lines(someTrace(random, 400)...))
		passed := map[limit.Key][]taken{}
		for _, s := range h.taken {
			for _, c := range s.step.Charges {
				passed[c.Key] = append(passed[c.Key], taken{s.at, limit.Step{Charges: []limit.Charge{c}}})
			}
		}
		for _, r := range someRules() {
			if r.Counts != limit.Recipients && r.Counts != limit.Messages {
				continue
			}
			for key, all := range passed {
				if key.Limit != r.Name {
					continue
				}
				for _, w := range r.Windows {
					if n := most(all, w.Length); n > w.Count {
						t.Errorf("seed %d: %v let %d pass in %v, of %d", seed, key, n, w.Length, w.Count)
					}
				}
			}
		}
		if len(h.taken) < 50 {
			t.Errorf("seed %d: only %d passed", seed, len(h.taken))
		}
	}
}

// most is the largest sum of any interval of a length.
func most(all []taken, length time.Duration) (n int64) {
	for i := range all {
		sum := int64(0)
		for j := i; j < len(all) && all[j].at.Sub(all[i].at) <= length; j++ {
			sum += all[j].step.Charges[0].Amount
		}
		n = max(n, sum)
	}
	return n
}

// The same trace gives the same score; and other labels give the same one, under
// their names.
func TestLabelsAndChanceDecideNothing(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 11))
		ids = 0
		trace := someTrace(random, 300)
		first := newHouse(someRules()...)
		want := first.run(t, lines(trace...))
		again := newHouse(someRules()...)
		if got := again.run(t, lines(trace...)); !reflect.DeepEqual(got, want) || !reflect.DeepEqual(again.taken, first.taken) {
			t.Fatalf("seed %d: the second time\n%+v\nthe first\n%+v", seed, got, want)
		}
		names := map[string]string{"label0": "label2", "label1": "label0", "label2": "label1"}
		for _, e := range trace {
			if l, ok := e["label"].(string); ok {
				e["label"] = names[l]
			}
		}
		other := newHouse(someRules()...)
		got := other.run(t, lines(trace...))
		if !reflect.DeepEqual(other.taken, first.taken) {
			t.Errorf("seed %d: other labels, and other mail passed", seed)
		}
		for from, to := range names {
			if got.Labels[to] != want.Labels[from] {
				t.Errorf("seed %d: %s: %s, want %s", seed, to, sums(got.Labels[to]), sums(want.Labels[from]))
			}
		}
		for i := range want.Stops {
			want.Stops[i].Label = names[want.Stops[i].Label]
		}
		for _, s := range want.Stops {
			if !slices.Contains(got.Stops, s) {
				t.Errorf("seed %d: no stop %+v", seed, s)
			}
		}
	}
}

func TestLearningComesFirst(t *testing.T) {
	rule := limited("hour", limit.Login, limit.Recipients, policy.Reject, window(2, time.Hour))
	for learning, want := range map[time.Duration]string{0: "2/4 0/0 0/0 2/4", 48 * time.Hour: "3/6 0/0 0/0 1/2", 10 * 24 * time.Hour: "4/8 0/0 0/0 0/0"} {
		h := newHouse(rule)
		h.LearningFor = learning
		day := 48 * time.Hour
		s := h.run(t, lines(mail(0, "taro@example.jp", 2), mail(time.Minute, "taro@example.jp", 2), mail(day, "taro@example.jp", 2), mail(day+time.Minute, "taro@example.jp", 2)))
		if got := sums(s.Labels[""]); got != want {
			t.Errorf("%v: %s, want %s", learning, got, want)
		}
	}
}

func TestWhoseAMessageIs(t *testing.T) {
	networks, errs := origin.NewNetworks([]origin.Network{{Name: "web", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Reason: "web nodes", Owner: "ops"}})
	if errs != nil {
		t.Fatal(errs)
	}
	local := func(e event) event { e["login"] = ""; return e }
	var all []event
	for i, e := range []event{
		{}, local(event{"local_user": "site12"}), local(event{"local_user": "site12", "uid": 1012}), local(event{"uid": 4711}), local(event{"client_ip": "192.0.2.9"}),
		local(event{"client_ip": "198.51.100.9"}), local(event{"client_ip": "198.51.100.9", "rcpt_to": "taro@example.jp"}), {"client_ip": "192.0.2.9", "uid": 12},
	} {
		all = append(all, mail(time.Duration(i)*time.Second, "Taro@Example.jp", 1, e, event{"label": fmt.Sprint(i)}))
	}
	h := newHouse(limited("none", limit.Account, limit.Recipients, policy.Hold, window(1, time.Hour)))
	h.Learning.Finder.Networks, h.Enforce.Finder.Networks = networks, networks
	s := h.run(t, lines(append(all, all...)[:len(all)]...))
	got := map[string]string{}
	for _, stop := range s.Stops {
		got[stop.Label] = stop.Origin + " " + stop.Rule
	}
	if want := (map[string]string{"2": "local_user:site12 none", "5": "unknown auth", "7": "login:taro@example.jp none"}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What attribution proved counts for limits on sites and plugins; an empty plugin
// is the site's own software, none at all is not known.
func TestSiteAndPlugin(t *testing.T) {
	var all []event
	for i, e := range []event{{"site": "a.jp", "plugin": "P"}, {"site": "A.jp", "plugin": "p"}, {"site": "a.jp", "plugin": ""}, {"site": "a.jp", "plugin": "wordpress"}, {"site": "a.jp"}, {"site": "a.jp"}, {"site": "b.jp", "plugin": "p"}} {
		e["local_user"], e["login"], e["label"] = "web", "", fmt.Sprint(i)
		all = append(all, mail(time.Duration(i)*time.Second, "", 1, e))
	}
	s := newHouse(limited("plugin", limit.Plugin, limit.Messages, policy.Hold, window(1, time.Hour)), limited("site", limit.Site, limit.Messages, policy.Hold, window(5, time.Hour))).run(t, lines(all...))
	var got []string
	for _, stop := range s.Stops {
		got = append(got, stop.Label+" "+stop.Rule)
	}
	if want := []string{"1 plugin", "3 plugin"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMoreThanTheGuardReads(t *testing.T) {
	h := newHouse()
	h.Recipients, h.HeaderFields = 3, 5
	headers := event{"headers": event{"Received": []string{"a", "b", "c", "d", "e"}}}
	s := h.run(t, lines(mail(0, "taro@example.jp", 3), mail(1, "taro@example.jp", 4, event{"label": "many"}), mail(2, "taro@example.jp", 1, headers, event{"label": "large"})))
	if sums(s.Labels[""]) != "1/3 0/0 0/0 0/0" || sums(s.Labels["many"]) != "0/0 1/4 0/0 0/0" || sums(s.Labels["large"]) != "0/0 1/1 0/0 0/0" || len(s.Stops) != 2 {
		t.Errorf("%+v", s)
	}
}

func TestErrorsAndProgress(t *testing.T) {
	trace := lines(mail(0, "taro@example.jp", 1), told(1, "suspend", event{"origin": "machine:192.0.2.1"}), mail(2, "taro@example.jp", 1))
	h := newHouse()
	var seen []int
	h.Progress = func(line int) { seen = append(seen, line) }
	_, err := replay.Run(t.Context(), replay.NewReader(strings.NewReader(trace)), h.Options)
	var format *replay.FormatError
	if !errors.As(err, &format) || format.Line != 2 || err.Error() != `line 2: found origin "machine:192.0.2.1", want login:NAME, local_user:NAME, network:NAME, site:NAME or plugin:NAME` {
		t.Errorf("%v", err)
	}
	if !slices.Equal(seen, []int{1}) {
		t.Errorf("told of lines %v", seen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := replay.Run(ctx, replay.NewReader(strings.NewReader(trace)), newHouse().Options); !errors.Is(err, context.Canceled) || errors.As(err, &format) {
		t.Errorf("%v", err)
	}
}

// Budget that accounts share goes round among those that wait: who has more mail
// waiting gets no more of it.
func TestSharedBudgetGoesRound(t *testing.T) {
	var all []event
	for i := range 6 {
		all = append(all, labelled(time.Duration(i), fmt.Sprintf("many%d", i), "many@example.jp"))
	}
	all = append(all, labelled(time.Second, "one", "one@example.jp"))
	got := verdicts(t, newHouse(limited("server", limit.Server, limit.Messages, policy.Hold, window(1, 5*time.Minute))), all...)
	if got["one"] != passes || got["many1"] != passes || got["many3"] != held {
		t.Errorf("%v", got)
	}
}
