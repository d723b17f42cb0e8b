package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// asked reports whether a limit on that condition is asked about a message.
func asked(t *testing.T, when policy.When, at time.Time, in *time.Location, be func(*policy.Message)) bool {
	t.Helper()
	r := limited("when", limit.Account, policy.Hold, window(100, time.Hour))
	r.When = when
	h := newHouse(policy.Enforce)
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{r}, Store: h.buckets, Retries: h.retries, Location: in})
	h.Finder.UserName = func(uid int) string { return map[int]string{33: "www-data"}[uid] }
	h.Finder.Customers, _ = origin.NewCustomers([]origin.Customer{{Name: "acme", Logins: []string{"taro@example.jp"}}})
	m := h.mail("taro@example.jp", to(3)...)
	m.Size = 1000
	if be != nil {
		be(m)
	}
	d := h.Message(t.Context(), at, m)
	return len(d.Counters) > 0
}

func TestWhenByTheClock(t *testing.T) {
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	night, office := []policy.Hours{{From: 22 * 60, To: 6 * 60}}, []policy.Hours{{From: 9 * 60, To: 12 * 60}, {From: 13 * 60, To: 18*60 + 30}}
	friday, weekend := []time.Weekday{time.Friday}, []time.Weekday{time.Saturday, time.Sunday}
	utc := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		name string
		when policy.When
		in   *time.Location
		at   string
		want bool
	}{
		{"no condition", policy.When{}, nil, "2026-03-02T03:00:00Z", true},
		{"from the minute on", policy.When{Hours: office}, nil, "2026-03-02T09:00:00Z", true},
		{"until just before the minute", policy.When{Hours: office}, nil, "2026-03-02T11:59:59Z", true},
		{"not in the minute", policy.When{Hours: office}, nil, "2026-03-02T12:00:00Z", false},
		{"the second of two", policy.When{Hours: office}, nil, "2026-03-02T18:29:00Z", true},
		{"before midnight", policy.When{Hours: night}, nil, "2026-03-02T23:59:59Z", true},
		{"after midnight", policy.When{Hours: night}, nil, "2026-03-03T00:00:00Z", true},
		{"morning", policy.When{Hours: night}, nil, "2026-03-03T06:00:00Z", false},
		{"until midnight", policy.When{Hours: []policy.Hours{{From: 22 * 60, To: 24 * 60}}}, nil, "2026-03-03T00:00:00Z", false},
		{"all day", policy.When{Hours: []policy.Hours{{}}}, nil, "2026-03-03T00:00:00Z", true},
		{"Saturday", policy.When{Days: weekend}, nil, "2026-03-07T12:00:00Z", true},
		{"Monday", policy.When{Days: weekend}, nil, "2026-03-09T00:00:00Z", false},
		{"Friday night", policy.When{Hours: night, Days: friday}, nil, "2026-03-06T23:00:00Z", true},
		{"Friday night goes on", policy.When{Hours: night, Days: friday}, nil, "2026-03-07T05:59:00Z", true},
		{"that of Thursday", policy.When{Hours: night, Days: friday}, nil, "2026-03-06T05:59:00Z", false},
		{"nine in Tokyo", policy.When{Hours: office}, tokyo, "2026-03-02T00:00:00Z", true},
		{"nine in London", policy.When{Hours: office}, tokyo, "2026-03-02T09:30:00Z", false},
		{"Saturday in Tokyo", policy.When{Days: weekend}, tokyo, "2026-03-06T15:00:00Z", true},
		{"nine in winter", policy.When{Hours: office}, berlin, "2026-03-28T08:00:00Z", true},
		{"not yet nine in winter", policy.When{Hours: office}, berlin, "2026-03-28T07:30:00Z", false},
		{"nine in summer", policy.When{Hours: office}, berlin, "2026-03-30T07:00:00Z", true},
		{"the hour that is left out", policy.When{Hours: []policy.Hours{{From: 120, To: 180}}}, berlin, "2026-03-29T01:00:00Z", false},
		{"the hour that comes twice", policy.When{Hours: []policy.Hours{{From: 120, To: 180}}}, berlin, "2026-10-25T00:30:00Z", true},
		{"the hour that comes twice, again", policy.When{Hours: []policy.Hours{{From: 120, To: 180}}}, berlin, "2026-10-25T01:30:00Z", true},
	} {
		if got := asked(t, c.when, utc(c.at), c.in, nil); got != c.want {
			t.Errorf("%s: asked %v, want %v (%s)", c.name, got, c.want, c.when)
		}
	}
}

func TestWhenByTheMessage(t *testing.T) {
	header := func(name string) func(*policy.Message) {
		return func(m *policy.Message) { m.Header.Add([]byte(name), []byte("1")) }
	}
	local := func(uid int) func(*policy.Message) {
		return func(m *policy.Message) { m.Role, m.Login, m.UID = policy.Local, "", uid }
	}
	site := func(c origin.Confidence) func(*policy.Message) {
		return func(m *policy.Message) { local(33)(m); web(33, "shop.example.jp", "share", c)(m) }
	}
	from := func(patterns ...string) policy.When { return policy.When{Origins: patterns} }
	for _, c := range []struct {
		name string
		when policy.When
		be   func(*policy.Message)
		want bool
	}{
		{"large enough", policy.When{MinSize: 1000, MaxSize: 1000}, nil, true},
		{"too small", policy.When{MinSize: 1001}, nil, false},
		{"too large", policy.When{MaxSize: 999}, nil, false},
		{"recipients enough", policy.When{MinRecipients: 3, MaxRecipients: 3}, nil, true},
		{"too few", policy.When{MinRecipients: 4}, nil, false},
		{"too many", policy.When{MaxRecipients: 2}, nil, false},
		{"with a field", policy.When{Header: []string{"X-A", "list-unsubscribe"}}, header("List-Unsubscribe"), true},
		{"without it", policy.When{Header: []string{"X-A", "List-Unsubscribe"}}, nil, false},
		{"none of them", policy.When{NoHeader: []string{"X-A", "List-Unsubscribe"}}, nil, true},
		{"one of them", policy.When{NoHeader: []string{"X-A", "List-Unsubscribe"}}, header("x-a"), false},
		{"all must hold", policy.When{MinSize: 1, Header: []string{"X-A"}}, nil, false},
		{"login", from("login:taro@*"), nil, true},
		{"login in other case", from("login:TARO@example.jp"), nil, true},
		{"one of two", from("site:*", "login:*.jp"), nil, true},
		{"another login", from("login:hanako@*"), nil, false},
		{"a star in between", from("login:t*@*.jp"), nil, true},
		{"not the whole", from("login:taro"), nil, false},
		{"kind alone", from("login:"), nil, false},
		{"no kind", from("taro@example.jp"), nil, false},
		{"domain", from("domain:example.jp"), nil, true},
		{"customer", from("customer:acme"), nil, true},
		{"client", from("client:203.0.113.*"), nil, true},
		{"local user by name", from("local_user:www-*"), local(33), true},
		{"local user by uid", from("local_user:33"), local(33), true},
		{"another uid", from("local_user:33"), local(333), false},
		{"site", from("site:shop.*"), site(origin.Signed), true},
		{"plugin", from("plugin:share"), site(origin.Signed), true},
		{"claimed site", from("site:shop.*"), site(origin.Claimed), false},
		{"network", from("network:web"), func(m *policy.Message) {
			m.Role, m.Login, m.ClientIP = policy.Relay, "", netip.MustParseAddr("192.0.2.9")
		}, true},
	} {
		if got := asked(t, c.when, now, nil, c.be); got != c.want {
			t.Errorf("%s: asked %v, want %v (%s)", c.name, got, c.want, c.when)
		}
	}
}

func TestWhenInWords(t *testing.T) {
	w := policy.When{
		Origins: []string{"login:*@example.jp", "site:*"}, MinSize: 10, MaxSize: 20, MinRecipients: 2, MaxRecipients: 5,
		Hours: []policy.Hours{{From: 22 * 60, To: 6*60 + 30}}, Days: []time.Weekday{time.Saturday, time.Sunday}, Header: []string{"A", "B"}, NoHeader: []string{"C", "D"},
	}
	const want = "from login:*@example.jp or site:*, at least 10 bytes, at most 20 bytes, at least 2 recipients, at most 5 recipients, 22:00-06:30, sat sun, with A or B, without C and D"
	if w.String() != want || (policy.When{}).String() != "" {
		t.Errorf("%q", w)
	}
}

// What is not known at RCPT refuses nobody there.
func TestConditionsOnTheMessageAreNotAskedAtRCPT(t *testing.T) {
	for name, c := range map[string]struct {
		when policy.When
		want policy.Verdict
	}{
		"none":   {policy.When{}, policy.Defer},
		"hours":  {policy.When{Hours: []policy.Hours{{From: 0, To: 1440}}}, policy.Defer},
		"origin": {policy.When{Origins: []string{"login:*"}}, policy.Defer},
		"size":   {policy.When{MinSize: 1}, policy.Accept},
		"header": {policy.When{NoHeader: []string{"X"}}, policy.Accept},
		"number": {policy.When{MaxRecipients: 9}, policy.Accept},
	} {
		r := limited("hour", limit.Login, policy.Defer, window(1, time.Hour))
		r.When = c.when
		h := newHouse(policy.Enforce, r)
		m := h.mail("taro@example.jp", to(1)...)
		m.Size = 10
		h.Message(t.Context(), now, m)
		next := h.mail("taro@example.jp", to(1)...)
		next.Size = 10
		if d := h.Recipient(t.Context(), now, h.mail("taro@example.jp"), "friend@example.net"); d.Verdict != c.want {
			t.Errorf("%s: at RCPT %v", name, d.Verdict)
		}
		if d := h.Message(t.Context(), now, next); d.Verdict != policy.Defer {
			t.Errorf("%s: at the end %v", name, d.Verdict)
		}
	}
}

// "node" is mail of a web node that does not say whose it is, "local_user" that of
// a Unix account, wherever it is.
func TestWhenFromAWebNode(t *testing.T) {
	said := func() *stamp.NodeStamp {
		return &stamp.NodeStamp{UID: 1000, LocalUser: "site12", Site: "far.example.jp"}
	}
	for _, c := range []struct {
		origin           string
		unsigned, signed bool
	}{
		{"node:*", true, false}, {"node:web3", true, false}, {"node:web4", false, false}, {"local_user:*", false, true}, {"local_user:site12@web3", false, true},
		{"local_user:1000@web3", false, true}, {"local_user:1000", false, false}, {"local_user:site12", false, false}, {"network:web", true, true}, {"site:far.*", false, true},
	} {
		r := limited("when", limit.Server, policy.Hold, window(100, time.Hour))
		r.When.Origins = []string{c.origin}
		h := hosting(t, policy.Enforce, r)
		for name, m := range map[string]*policy.Message{"unsigned": h.nodeMail(nil, "x@example.net"), "signed": h.nodeMail(said(), "x@example.net")} {
			d := h.Message(t.Context(), now, m)
			if want := name == "unsigned" && c.unsigned || name == "signed" && c.signed; len(d.Counters) > 0 != want {
				t.Errorf("%s, %s: asked %v", c.origin, name, !want)
			}
		}
	}
}
