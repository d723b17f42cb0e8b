package policy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

var perHour = []limit.Window{{Count: 10, Length: time.Hour}}

// amount is an order of a kind that allows so much.
func amount(kind policy.SwitchKind, subject policy.Subject, value string) policy.Switch {
	s := policy.Switch{Kind: kind, Subject: subject, Value: value, Reason: "newsletter", By: "ops", Since: now}
	switch kind {
	case policy.Set:
		s.Rule, s.Windows = "hour", perHour
	case policy.Bulk:
		s.Count, s.Until = 5000, now.Add(24*time.Hour)
	}
	return s
}

func TestCheckOfAmounts(t *testing.T) {
	const day = 24 * time.Hour
	window := func(count int64, length time.Duration) limit.Window {
		return limit.Window{Count: count, Length: length}
	}
	burst := limit.Window{Count: 1, Length: time.Minute, Burst: true}
	for name, c := range map[string]struct {
		kind   policy.SwitchKind
		change func(*policy.Switch)
		fault  string // part of the error; empty: none
	}{
		"set": {policy.Set, nil, ""},
		"set of six windows": {policy.Set, func(s *policy.Switch) {
			s.Windows = []limit.Window{burst, window(2, time.Hour), window(3, 2*time.Hour), window(4, day), window(5, 2*day), window(1<<53, 400*day)}
		}, ""},
		"set without a limit":     {policy.Set, func(s *policy.Switch) { s.Rule = "" }, "want the name of the limit"},
		"set without windows":     {policy.Set, func(s *policy.Switch) { s.Windows = nil }, "found 0 windows, want 1 to 6"},
		"set of seven windows":    {policy.Set, func(s *policy.Switch) { s.Windows = make([]limit.Window, 7) }, "found 7 windows, want 1 to 6"},
		"set of nothing":          {policy.Set, func(s *policy.Switch) { s.Windows = []limit.Window{window(0, time.Hour)} }, "got 0, want at least 1"},
		"set of too much":         {policy.Set, func(s *policy.Switch) { s.Windows = []limit.Window{window(1<<53+1, time.Hour)} }, "want at most"},
		"set of half a second":    {policy.Set, func(s *policy.Switch) { s.Windows = []limit.Window{window(1, time.Second/2)} }, "length"},
		"set of two alike":        {policy.Set, func(s *policy.Switch) { s.Windows = []limit.Window{window(1, time.Hour), window(2, time.Hour)} }, "different lengths"},
		"set of a long burst":     {policy.Set, func(s *policy.Switch) { s.Windows = []limit.Window{burst, window(2, time.Second)} }, "shortest"},
		"set with a count":        {policy.Set, func(s *policy.Switch) { s.Count = 1 }, "only bulk has one"},
		"bulk":                    {policy.Bulk, nil, ""},
		"bulk of the most":        {policy.Bulk, func(s *policy.Switch) { s.Count, s.Until = 1e9, now.Add(400*day) }, ""},
		"bulk that is yet to be":  {policy.Bulk, func(s *policy.Switch) { s.Since = time.Time{} }, ""},
		"bulk of none":            {policy.Bulk, func(s *policy.Switch) { s.Count = 0 }, "found count 0, want 1 to 1000000000"},
		"bulk of less":            {policy.Bulk, func(s *policy.Switch) { s.Count = -1 }, "found count -1"},
		"bulk of more":            {policy.Bulk, func(s *policy.Switch) { s.Count = 1e9 + 1 }, "found count 1000000001"},
		"bulk without an end":     {policy.Bulk, func(s *policy.Switch) { s.Until = time.Time{} }, "found no end"},
		"bulk for too long":       {policy.Bulk, func(s *policy.Switch) { s.Until = now.Add(400*day + 1) }, "at most 400 days"},
		"bulk that ended before":  {policy.Bulk, func(s *policy.Switch) { s.Until = now }, "at most 400 days"},
		"bulk with windows":       {policy.Bulk, func(s *policy.Switch) { s.Windows = perHour }, "only set has them"},
		"bulk of a rule":          {policy.Bulk, func(s *policy.Switch) { s.Rule = "hour" }, "want none"},
		"pause":                   {policy.Pause, nil, ""},
		"pause with a count":      {policy.Pause, func(s *policy.Switch) { s.Count = 1 }, "only bulk has one"},
		"suspension with windows": {policy.Suspend, func(s *policy.Switch) { s.Windows = perHour }, "only set has them"},
	} {
		s := amount(c.kind, policy.SubjectLogin, "taro@example.jp")
		if c.change != nil {
			c.change(&s)
		}
		err := s.Check()
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v; want %q", name, err, c.fault)
		}
	}
}

func TestSubjectsOfAmounts(t *testing.T) {
	values := map[policy.Subject][2]string{ // as typed, in their one form
		policy.SubjectLogin: {"Taro@example.jp", "taro@example.jp"}, policy.SubjectLocalUser: {"033", "33"}, policy.SubjectTrusted: {"web", "web"},
		policy.SubjectDomain: {"例え.jp", "xn--r8jz45g.jp"}, policy.SubjectCustomer: {"Acme", "Acme"}, policy.SubjectSite: {"Shop.example.jp", "shop.example.jp"},
		policy.SubjectPlugin: {" Share-By-Mail", "share-by-mail"}, policy.SubjectKey: {"login:taro@example.jp  x", "login:taro@example.jp  x"},
		policy.SubjectClient: {"192.0.2.1", ""}, policy.SubjectNetwork: {"192.0.2.0/24", ""}, policy.SubjectHelo: {"x", ""}, policy.SubjectMailFrom: {"a@b.jp", ""}, policy.SubjectTarget: {"b.jp", ""}, "": {"", ""},
	}
	accounts := []policy.Subject{policy.SubjectLogin, policy.SubjectLocalUser, policy.SubjectTrusted}
	for kind, others := range map[policy.SwitchKind][]policy.Subject{
		policy.Set:       {policy.SubjectDomain, policy.SubjectCustomer, policy.SubjectSite, policy.SubjectPlugin, policy.SubjectKey},
		policy.Bulk:      {},
		policy.Pause:     {policy.SubjectSite},
		policy.Suspend:   {policy.SubjectSite, policy.SubjectPlugin},
		policy.Probation: {policy.SubjectSite, policy.SubjectPlugin},
	} {
		for subject, value := range values {
			may := slices.Contains(accounts, subject) || slices.Contains(others, subject)
			s := amount(kind, subject, value[0])
			if err := s.Check(); (err == nil) != may || may && s.Value != value[1] {
				t.Errorf("%s %q: %q, %v", kind, subject, s.Value, err)
			}
			if empty := amount(kind, subject, " "); empty.Check() == nil {
				t.Errorf("%s %q of nothing is a switch", kind, subject)
			}
		}
	}
}

// sender is a message with every key that there is.
func sender() *origin.Origin {
	return &origin.Origin{
		Login: origin.Key{Value: "taro@example.jp", Confidence: origin.Kernel}, LocalUser: origin.Key{Value: "www-data", Confidence: origin.Kernel}, UID: 33,
		Network: origin.Key{Value: "web", Confidence: origin.Address}, Site: origin.Key{Value: "shop.example.jp", Confidence: origin.Signed},
		Plugin: origin.Key{Value: "share", Confidence: origin.Signed}, Customer: origin.Key{Value: "Acme", Confidence: origin.Kernel},
	}
}

func TestOverrideAboutTheLeastCounts(t *testing.T) {
	levels := []policy.Switch{ // the later counts
		amount(policy.Set, policy.SubjectCustomer, "Acme"),
		amount(policy.Set, policy.SubjectDomain, "example.jp"),
		amount(policy.Set, policy.SubjectLogin, "taro@example.jp"),
		amount(policy.Set, policy.SubjectSite, "shop.example.jp"),
		amount(policy.Set, policy.SubjectPlugin, "share"),
		amount(policy.Set, policy.SubjectKey, "login:taro@example.jp"),
	}
	never := []policy.Switch{amount(policy.Set, policy.SubjectLocalUser, "33"), amount(policy.Set, policy.SubjectTrusted, "web"), amount(policy.Set, policy.SubjectLogin, "hanako@example.jp")}
	for i := range levels {
		s := policy.NewSwitches(slices.Concat(never, levels[:i+1]))
		got := s.Override(now, sender(), "hour", "login:taro@example.jp")
		if got == nil || got.About() != levels[i].About() {
			t.Errorf("of %d levels %v counts", i+1, got)
		}
		if got := s.Override(now, sender(), "day", "login:taro@example.jp"); got != nil {
			t.Errorf("another limit has that of %s", got.About())
		}
		ended := slices.Clone(levels[:i+1])
		ended[i].Until = now
		got = policy.NewSwitches(ended).Override(now, sender(), "hour", "login:taro@example.jp")
		if i == 0 && got != nil || i > 0 && (got == nil || got.About() != levels[i-1].About()) {
			t.Errorf("with the last of %d ended %v counts", i+1, got)
		}
	}
}

// A label that the sender can choose opens no other budget, and hides none.
func TestUnprovenSite(t *testing.T) {
	o := sender()
	o.Site.Confidence, o.Plugin.Confidence = origin.Claimed, origin.Fingerprint
	s := policy.NewSwitches([]policy.Switch{amount(policy.Set, policy.SubjectSite, "shop.example.jp"), amount(policy.Set, policy.SubjectPlugin, "share"),
		order(policy.Suspend, policy.SubjectPlugin, "share"), order(policy.Probation, policy.SubjectSite, "shop.example.jp"), order(policy.Pause, policy.SubjectSite, "shop.example.jp")})
	if got := s.Override(now, o, "hour", "server"); got != nil {
		t.Errorf("overridden for %s", got.About())
	}
	if s.Suspended(now, o) == nil || !s.OnProbation(now, o) || s.Paused(now, o) == nil {
		t.Error("its own word is not enough to stop it")
	}
	o.Site.Value, o.Plugin.Value = "blog.example.jp", ""
	if s.Suspended(now, o) != nil || s.OnProbation(now, o) || s.Paused(now, o) != nil {
		t.Error("another site is stopped, too")
	}
}

func TestBulkAndPauseAreOfAccounts(t *testing.T) {
	taro, www, web := &origin.Origin{Login: origin.Key{Value: "taro@example.jp"}, UID: origin.NoUID}, &origin.Origin{LocalUser: origin.Key{Value: "www-data"}, UID: 33}, &origin.Origin{Network: origin.Key{Value: "web"}, UID: origin.NoUID}
	webmail := &origin.Origin{Login: taro.Login, LocalUser: www.LocalUser, UID: 33}
	for _, c := range []struct {
		subject policy.Subject
		value   string
		bulk    []*origin.Origin // who may send more
		pause   []*origin.Origin
	}{
		{policy.SubjectLogin, "taro@example.jp", []*origin.Origin{taro, webmail}, []*origin.Origin{taro, webmail}},
		{policy.SubjectLocalUser, "33", []*origin.Origin{www}, []*origin.Origin{www, webmail}},
		{policy.SubjectTrusted, "web", []*origin.Origin{web}, []*origin.Origin{web}},
	} {
		s := policy.NewSwitches([]policy.Switch{amount(policy.Bulk, c.subject, c.value), amount(policy.Pause, c.subject, c.value)})
		for _, o := range []*origin.Origin{taro, www, web, webmail, {UID: origin.NoUID}} {
			if got := s.Bulk(now, o) != nil; got != slices.Contains(c.bulk, o) {
				t.Errorf("%s: bulk of %s: %v", c.subject, o.Name(), got)
			}
			if got := s.Paused(now, o) != nil; got != slices.Contains(c.pause, o) {
				t.Errorf("%s: pause of %s: %v", c.subject, o.Name(), got)
			}
			if s.Bulk(now.Add(24*time.Hour), o) != nil {
				t.Errorf("%s: bulk goes on after its end", c.subject)
			}
		}
	}
}

func TestLookingForWhatIsNotThereAllocatesNothing(t *testing.T) {
	o := sender()
	o.UID = 1000 // a number that strconv has not at hand
	o.Login, o.Network = origin.Key{}, origin.Key{}
	look := func(s *policy.Switches) func() {
		return func() {
			if s.Override(now, o, "hour", "local_user:1000") != nil || s.Bulk(now, o) != nil || s.Paused(now, o) != nil || s.Suspended(now, o) != nil || s.OnProbation(now, o) {
				t.Error("something is found")
			}
		}
	}
	var none *policy.Switches
	for name, s := range map[string]*policy.Switches{
		"nil": none, "none": policy.NewSwitches(nil),
		"others": policy.NewSwitches([]policy.Switch{amount(policy.Set, policy.SubjectLogin, "x"), amount(policy.Set, policy.SubjectDomain, "example.com"), amount(policy.Set, policy.SubjectKey, "x"), amount(policy.Set, policy.SubjectPlugin, "x"),
			amount(policy.Bulk, policy.SubjectLogin, "x"), amount(policy.Pause, policy.SubjectSite, "x"), order(policy.Suspend, policy.SubjectTrusted, "x")}),
	} {
		if n := testing.AllocsPerRun(100, look(s)); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
