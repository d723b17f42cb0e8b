package policy_test

import (
	"errors"
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

// flood sends so many messages to new people, one a second, and returns how many
// went.
func (h *house) flood(t *testing.T, n int, mail func(i int, at time.Time) *policy.Message) (went int) {
	t.Helper()
	for i := range n {
		at := now.Add(time.Duration(i) * time.Second)
		if d := h.Message(t.Context(), at, mail(i, at)); !d.Verdict.Stops() {
			went++
		}
	}
	return went
}

// What a site says of itself is its own word: whatever it says, it gets no more
// than the site.
func TestASiteThatLiesGetsNoMoreThanItsOwn(t *testing.T) {
	const plugin, site = 25, 150 // in ten minutes
	for _, c := range []struct {
		name string
		mail func(h *house, i int, at time.Time) *policy.Message
		most int
	}{
		{"true", func(h *house, i int, at time.Time) *policy.Message {
			return h.stamped(h.local(1000, "Look", h.person()), at, shop, "share")
		}, plugin},
		{"another plugin's name", func(h *house, i int, at time.Time) *policy.Message {
			return h.stamped(h.local(1000, "Look", h.person()), at, shop, "cart")
		}, plugin},
		{"a new name each time", func(h *house, i int, at time.Time) *policy.Message {
			return h.stamped(h.local(1000, "Look", h.person()), at, shop, fmt.Sprintf("plugin%d", i))
		}, site},
		{"no stamp", func(h *house, i int, at time.Time) *policy.Message { return h.local(1000, fmt.Sprint(i), h.person()) }, plugin},
		{"a stamp that is no longer true", func(h *house, i int, at time.Time) *policy.Message {
			return h.stamped(h.local(1000, fmt.Sprint(i), h.person()), at.Add(-48*time.Hour), shop, fmt.Sprintf("plugin%d", i))
		}, plugin},
		{"sometimes a stamp", func(h *house, i int, at time.Time) *policy.Message {
			m := h.local(1000, fmt.Sprint(i), h.person())
			if i%2 == 0 {
				return h.stamped(m, at, shop, "share")
			}
			return m
		}, plugin * 2}, // each has its own, and mail without a label ends with the first plugin that is shut
		{"another site's stamp", func(h *house, i int, at time.Time) *policy.Message {
			return h.stamped(h.local(1000, fmt.Sprint(i), h.person()), at, blog, "share")
		}, plugin},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hosting(t, policy.Enforce, defaults()...)
			if went := h.flood(t, 500, func(i int, at time.Time) *policy.Message { return c.mail(h, i, at) }); went > c.most {
				t.Errorf("%d went, want at most %d", went, c.most)
			}
			if names := h.Attribution.Sites.Names(shop.Name); len(names) > 11 { // and those without a name
				t.Errorf("%d names are remembered", len(names))
			}
			// Nobody else is worse off: who has an account of its own, or another site.
			other := h.stamped(h.local(33, "Reset", h.person()), now, blog, "")
			if d := h.Message(t.Context(), now.Add(10*time.Minute), other); d.Verdict != policy.Accept {
				t.Errorf("another site: %v: %s", d.Verdict, d.Reason)
			}
		})
	}
}

// Another tenant charges a site nothing, whatever it writes.
func TestAnotherTenantChargesASiteNothing(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	h.flood(t, 100, func(i int, at time.Time) *policy.Message {
		m := h.stamped(h.local(1001, fmt.Sprint(i), h.person()), at, shop, "share")
		if field(m, stamp.CallHeader, "t1000"); i%2 == 0 { // its own call, which says that it was made in the shop's directory
			m = h.local(1001, fmt.Sprint(i), h.person())
			field(m, stamp.CallHeader, "t1001")
		}
		field(m, stamp.NodeHeader, stamp.Sign(at, web3.Key, &stamp.NodeStamp{Node: "web3", Queue: m.QueueID, Time: at, UID: 1000, Site: shop.Name, Labelled: true, Plugin: "share"}, &stamp.Mail{RcptTo: m.RcptTo}))
		return m
	})
	if err := h.buckets.Each(t.Context(), func(e limit.Entry) error {
		if e.State != nil && strings.Contains(e.State.Key.Value, shop.Name) {
			t.Errorf("%s is charged", e.State.Key)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if names := h.Attribution.Sites.Names(shop.Name); len(names) > 0 {
		t.Errorf("the site has %q", names)
	}
}

// A name beyond those that a site may have is none: its mail is charged like mail
// without a label.
func TestANameTooManyIsNoName(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...) // ten names a site
	for i := range 11 {
		at := now.Add(time.Duration(i) * time.Minute)
		d := h.Message(t.Context(), at, h.stamped(h.local(1000, "Hi", h.person()), at, shop, fmt.Sprintf("plugin%02d", i)))
		if d.Verdict != policy.Accept || d.Origin.Plugin.Proven() != (i < 10) {
			t.Errorf("name %d: %v, proven %v", i, d.Verdict, d.Origin.Plugin.Proven())
		}
	}
	if used := h.used(t, "plugin-first-time", "plugin:unlabelled@"+shop.Name); used != 1 {
		t.Errorf("without a label: %d", used)
	}
}

// A token that somebody else was given tells nothing.
func TestAStolenTokenTellsNothing(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	for uid, pool := range map[int]string{1000: "shop", 1001: ""} {
		m := h.local(uid, "Hi", h.person())
		field(m, stamp.CallHeader, "t1000")
		if d := h.Message(t.Context(), now, m); d.Origin.Call.Pool != pool || d.Origin.UID != uid {
			t.Errorf("uid %d: pool %q, uid %d", uid, d.Origin.Call.Pool, d.Origin.UID)
		}
	}
}

// A plugin that is shut gets on no further without its label, and one that is busy
// shuts nothing that has no label.
func TestMailWithoutALabelEndsWithAPluginThatIsShut(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	for i := range 38 { // a cart's honest day: nearly all that it may
		at := now.Add(time.Duration(i) * 20 * time.Minute)
		if d := h.Message(t.Context(), at, h.stamped(h.local(1000, "Order", h.person()), at, shop, "cart")); d.Verdict != policy.Accept {
			t.Fatal(i, d.Reason)
		}
	}
	at := now.Add(13 * time.Hour)
	for i := range 20 {
		if d := h.Message(t.Context(), at, h.local(1000, fmt.Sprint("cron ", i), h.person())); d.Verdict != policy.Accept {
			t.Fatalf("mail %d without a label: %v: %s", i, d.Verdict, d.Reason)
		}
	}
	at = at.Add(11 * time.Minute)
	for range 60 {
		h.Message(t.Context(), at, h.stamped(h.local(1000, "Look", h.person()), at, shop, "share"))
	}
	if d := h.Message(t.Context(), at, h.local(1000, "Look", h.person())); d.Verdict != policy.Hold || !slices.Contains(d.Buckets(), "plugin:share@"+shop.Name) {
		t.Errorf("without its label: %v by %q: %s", d.Verdict, d.Buckets(), d.Reason)
	}
	if d := h.Message(t.Context(), at, h.stamped(h.local(1000, "Reset", h.person()), at, shop, "")); d.Verdict != policy.Accept {
		t.Errorf("a password reset: %v: %s", d.Verdict, d.Reason)
	}
}

// The site's own software and its other plugins go on while one is shut; so do old
// customers of that one.
func TestOnlyTheAbusedPluginIsStopped(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	old := h.person()
	if d := h.Message(t.Context(), now.Add(-time.Hour), h.stamped(h.local(1000, "Look", old), now.Add(-time.Hour), shop, "share")); d.Verdict != policy.Accept {
		t.Fatal(d.Verdict, d.Reason)
	}
	h.flood(t, 60, func(i int, at time.Time) *policy.Message {
		return h.stamped(h.local(1000, "Look", h.person()), at, shop, "share")
	})
	at := now.Add(time.Hour)
	for name, c := range map[string]struct {
		m    *policy.Message
		want policy.Verdict
	}{
		"reset":        {h.stamped(h.local(1000, "Reset", h.person()), at, shop, ""), policy.Accept},
		"form":         {h.stamped(h.local(1000, "Form", h.person()), at, shop, "form"), policy.Accept},
		"old customer": {h.stamped(h.local(1000, "Look", old), at, shop, "share"), policy.Accept},
		"share":        {h.stamped(h.local(1000, "Look", h.person()), at, shop, "share"), policy.Hold},
		"unlabelled":   {h.local(1000, "Look", h.person()), policy.Hold},
		"neighbour":    {h.stamped(h.local(33, "Look", h.person()), at, blog, "share"), policy.Accept},
	} {
		d := h.Message(t.Context(), at, c.m)
		if d.Verdict != c.want || c.want == policy.Hold && (d.Rule != "plugin-first-time" || !slices.Equal(d.Buckets(), []string{"plugin:share@shop.example.jp"})) {
			t.Errorf("%s: %v by %q in %q: %s", name, d.Verdict, d.Rule, d.Buckets(), d.Reason)
		}
	}
}

func TestUnlabelledMailWhileTheStoreIsAway(t *testing.T) {
	h := hosting(t, policy.Enforce)
	h.Attribution.Sites.Admit(now, shop.Name, "share")
	h.Limits = policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: defaults(), Store: away{}, Retries: h.retries, Item: item})
	if d := h.Message(t.Context(), now, h.local(1000, "Hi", h.person())); d.Verdict != policy.Hold || d.Rule != policy.RuleLimits {
		t.Errorf("%v by %q", d.Verdict, d.Rule)
	}
}

// Nothing is installed, all sites run as www-data: the page that is sent to many
// strangers is stopped, other mail flows; and so for mail of which nobody knows
// the account, and that of a node that does not sign.
func TestTemplateOfASharedAccount(t *testing.T) {
	for name, send := range map[string]func(h *house, subject string, to string) *policy.Message{
		"www-data":        func(h *house, subject, to string) *policy.Message { return h.local(33, subject, to) },
		"unknown account": func(h *house, subject, to string) *policy.Message { return h.local(origin.NoUID, subject, to) },
		"unsigned node": func(h *house, subject, to string) *policy.Message {
			m := h.nodeMail(nil, to)
			return m
		},
	} {
		h := hosting(t, policy.Enforce, defaults()...)
		went, others := 0, 0
		for i := range 400 {
			at := now.Add(time.Duration(i) * 10 * time.Second)
			m := send(h, fmt.Sprintf("Person%d shares a post with you", i), h.person())
			m.Body = fmt.Appendf(nil, "Hello,\r\n\r\nPerson%d thinks you may be interested in the following post:\r\nWonderful bargains for all of you\r\nhttps://blog.example.jp/2026/03/bargains/\r\n", i)
			if d := h.Message(t.Context(), at, m); !d.Verdict.Stops() {
				went++
			} else if d.Rule != "template-first-time" || !strings.HasPrefix(d.Buckets()[0], "template:") {
				t.Fatalf("%s: message %d: by %q: %s", name, i, d.Rule, d.Reason)
			}
			if i%20 == 0 {
				m := send(h, fmt.Sprintf("Invoice %d of the garden shop", i), h.person())
				m.Body = fmt.Appendf(nil, "Dear customer %d,\r\nyour order of seeds left our house today and should arrive tomorrow.\r\nhttps://garden.example.jp/orders/%d\r\n", i, i)
				if d := h.Message(t.Context(), at, m); !d.Verdict.Stops() {
					others++
				}
			}
		}
		if went > 100 || others != 20 {
			t.Errorf("%s: %d of 400 went, and %d of 20 others", name, went, others)
		}
	}
}

// A limit per template asks nothing of mail that it is not about.
func TestTemplatesAreReadWhereALimitAsks(t *testing.T) {
	for name, c := range map[string]struct {
		mail func(h *house) *policy.Message
		want bool
	}{
		"local": {func(h *house) *policy.Message { return h.local(33, "Hello there", "x@example.net") }, true},
		"labelled": {func(h *house) *policy.Message {
			return h.stamped(h.local(1000, "Hello there", "x@example.net"), now, shop, "share")
		}, false},
		"only inside":     {func(h *house) *policy.Message { return h.local(33, "Hello there", "x@example.jp") }, false},
		"login":           {func(h *house) *policy.Message { return h.mail("taro@example.jp", "x@example.net") }, false},
		"login, webmail":  {func(h *house) *policy.Message { m := h.mail("taro@example.jp", "x@example.net"); m.UID = 33; return m }, false},
		"the guard's own": {func(h *house) *policy.Message { return h.local(ownUID, "Hello there", "x@example.net") }, false},
	} {
		for _, asks := range []bool{true, false} {
			h := hosting(t, policy.Enforce, defaults()...)
			if !asks {
				h.limit(policy.Enforce, nil, limited("hour", limit.Account, policy.Hold, window(10, time.Hour)))
			}
			m := c.mail(h)
			m.Body = []byte("This is a line of some length that says something.\r\nhttps://blog.example.jp/page\r\n")
			d := h.Message(t.Context(), now, m)
			if got := d.Origin.Template.Known(); got != (c.want && asks) {
				t.Errorf("%s, a limit asks: %v: template %+v", name, asks, d.Origin.Template)
			}
		}
	}
}

func TestSitesRememberSoManyNames(t *testing.T) {
	s := policy.NewSites(3, 5)
	admitted := func(at time.Time, site string, names ...string) (all string) {
		for _, name := range names {
			if s.Admit(at, site, name) {
				all += name
			}
		}
		return all
	}
	if got := admitted(now, "a", "x", "y", "z", "u", "x", policy.Unlabelled); got != "xyzx"+policy.Unlabelled {
		t.Errorf("admitted %s", got)
	}
	if got := admitted(now.AddDate(0, 0, 20), "a", "x", "u"); got != "x" {
		t.Errorf("after 20 days %s", got)
	}
	if got := admitted(now.AddDate(0, 0, 22), "a", "u", "x", "y"); got != "uxy" {
		t.Errorf("after 22 days %s", got)
	}
	if got := admitted(now.AddDate(0, 0, 23), "b", "p", "q", "r"); got != "pqr" {
		t.Errorf("another site %s", got)
	}
	if all := s.All(); len(all) != 5 {
		t.Errorf("%d are remembered, want 5: %v", len(all), all)
	}
	s.SetMost(2)
	if got := admitted(now.AddDate(0, 0, 23), "b", "p", "s"); got != "p" {
		t.Errorf("after a reload %s", got)
	}
	if s := policy.NewSites(100, 2); !s.Admit(now, "a", "x") || !s.Admit(now, "a", "y") || s.Admit(now, "a", "z") {
		t.Error("one site pushes out its own names")
	}
}

// A name whose bucket is shut is not forgotten: mail without a name meets it.
func TestShutPluginIsNotForgotten(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	h.flood(t, 60, func(i int, at time.Time) *policy.Message {
		return h.stamped(h.local(1000, "Look", h.person()), at, shop, "share")
	})
	for i := range 20 {
		h.Attribution.Sites.Admit(now.AddDate(0, 0, 30+i), shop.Name, fmt.Sprint(i))
	}
	var file strings.Builder
	if err := h.Attribution.Sites.Save(&file); err != nil {
		t.Fatal(err)
	}
	h.Attribution.Sites = policy.NewSites(10, 0)
	if err := h.Attribution.Sites.Load(strings.NewReader(file.String())); err != nil {
		t.Fatal(err)
	}
	at := now.AddDate(0, 0, 60)
	if d := h.Message(t.Context(), at, h.local(1000, "Look", h.person())); d.Verdict != policy.Hold || !slices.Contains(d.Buckets(), "plugin:share@shop.example.jp") {
		t.Errorf("%v: %s", d.Verdict, d.Reason)
	}
	if err := h.buckets.Resume(t.Context(), at, limit.Key{Limit: "plugin-first-time", Value: "plugin:share@shop.example.jp"}); err != nil {
		t.Fatal(err)
	}
	if d := h.Message(t.Context(), at, h.local(1000, "Look", h.person())); d.Verdict != policy.Accept {
		t.Errorf("resumed: %v: %s", d.Verdict, d.Reason)
	}
}

func TestSitesOutliveARestart(t *testing.T) {
	s := policy.NewSites(0, 0)
	for i := range 50 {
		s.Admit(now.Add(time.Duration(i)*time.Second), fmt.Sprintf("site%d", i%7), fmt.Sprintf("plugin%d", i))
	}
	var file strings.Builder
	if err := s.Save(&file); err != nil {
		t.Fatal(err)
	}
	again := policy.NewSites(0, 0)
	if err := again.Load(strings.NewReader(file.String())); err != nil || !slices.Equal(s.All(), again.All()) {
		t.Errorf("%v, %v", err, again.All())
	}
	for i := range file.Len() {
		damaged := []byte(file.String())
		damaged[i] ^= 1
		if again.Load(strings.NewReader(string(damaged))) == nil {
			t.Fatalf("octet %d is another, and nothing is said", i)
		}
	}
	if again.Load(strings.NewReader(file.String()[:file.Len()-1])) == nil || again.Load(broken{}) == nil || !slices.Equal(s.All(), again.All()) {
		t.Error("a file that cannot be read has changed what is known")
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("input/output error") }
