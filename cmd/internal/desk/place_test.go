package desk_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

// passFrom is accepted mail of a plugin of a site that is still in the queue.
func (s *site) passFrom(name, plugin, id string) {
	s.t.Helper()
	d := journal.Decision{ID: "d" + strings.ToLower(id), Time: s.start, Stage: journal.StageMessage, Verdict: policy.Accept, Account: "local_user:www-data", QueueID: id,
		MailFrom: "taro@example.jp", Size: 1000, Recipients: 1, UID: 33, Site: name, SiteBy: "signed", Plugin: plugin, PluginBy: "signed"}
	if err := s.journal.Append(d); err != nil {
		s.t.Fatal(err)
	}
	q := file(id, s.start)
	q.Queue = "deferred"
	s.mta.put(q)
}

func TestSuspendedPluginAndSite(t *testing.T) {
	s := open(t)
	s.passFrom("shop.example.jp", "share", "A1A1A1")
	s.passFrom("shop.example.jp", "wordpress", "A2A2A2")
	s.passFrom("blog.example.jp", "share", "B1B1B1")
	out := s.suspend("plugin:Share@Shop.example.jp")
	if out.Account != "plugin:share@shop.example.jp" || out.Held != 1 || len(out.Remarks) != 0 || !strings.Contains(out.Local, "status 75") {
		t.Errorf("the plugin: %+v", out)
	}
	s.wantIn("hold", "A1A1A1")
	if h := s.entries("A1A1A1"); len(h) != 1 || h[0].Account != "local_user:www-data" || h[0].Site != "shop.example.jp" || h[0].Rule != policy.RuleSuspended {
		t.Errorf("entry: %+v", h)
	}
	if out := s.suspend("site:shop.example.jp"); out.Account != "site:shop.example.jp" || out.Held != 1 {
		t.Errorf("the site: %+v", out)
	}
	s.wantIn("hold", "A1A1A1", "A2A2A2")
	s.wantIn("deferred", "B1B1B1")
	s.wantRoom(2)
	for account, want := range map[string]int{"site:shop.example.jp": 2, "plugin:share@shop.example.jp": 1, "plugin:share": 1, "local_user:www-data": 2, "site:blog.example.jp": 0} {
		if l, err := s.d.List(t.Context(), s.now, desk.Filter{Account: account}); err != nil || len(l.Held) != want {
			t.Errorf("held of %s: %d, %v, want %d", account, len(l.Held), err, want)
		}
	}
	for account, held := range map[string]int{"site:Shop.example.jp": 2, "plugin:share@shop.example.jp": 1} {
		r, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: account, Cause: "updated"})
		if err != nil || !r.Was || r.Held != held || !strings.Contains(r.Probation, "half of each limit") {
			t.Errorf("resume %s: %+v, %v", account, r, err)
		}
	}
	if slices.Contains(s.inForce("site:shop.example.jp"), policy.Suspend) || slices.Contains(s.inForce("plugin:share@shop.example.jp"), policy.Suspend) {
		t.Error("still suspended")
	}
}

// holdOf is mail of the plugin that looks like a text, held by the limit of that.
func (s *site) holdOf(name, plugin, template, id string) {
	s.t.Helper()
	d := journal.Decision{ID: "d" + strings.ToLower(id), Time: s.start, Stage: journal.StageMessage, Verdict: policy.Hold, Rule: "template-first-time", Account: "local_user:www-data", QueueID: id,
		MailFrom: "taro@example.jp", Size: 1000, Recipients: 1, UID: 33, Site: name, SiteBy: "kernel", Plugin: plugin, PluginBy: "fingerprint", Template: template}
	if err := s.journal.Append(d); err != nil {
		s.t.Fatal(err)
	}
	q := file(id, s.start)
	q.Queue = "hold"
	s.mta.put(q)
}

func TestHeldMailOfAPlace(t *testing.T) {
	s := open(t)
	s.holdOf("shop.example.jp", "share", "t1", "A1A1A1")
	s.holdOf("shop.example.jp", "cart", "t2", "A2A2A2")
	s.holdOf("blog.example.jp", "share", "t1", "B1B1B1")
	for _, c := range []struct {
		of   desk.Filter
		want int
	}{
		{desk.Filter{Account: "template:t1"}, 2},
		{desk.Filter{Template: "t1"}, 2},
		{desk.Filter{Template: "t1", Account: "site:shop.example.jp"}, 1},
		{desk.Filter{Account: "plugin:share"}, 2},
		{desk.Filter{Account: "plugin:Share@Shop.example.jp"}, 1},
		{desk.Filter{Account: "plugin:share", Site: "shop.example.jp"}, 1},
		{desk.Filter{Account: "plugin:share@shop.example.jp", Site: "blog.example.jp"}, 0}, // both must hold
		{desk.Filter{Account: "template:t1", Template: "t2"}, 0},
		{desk.Filter{Account: "site:"}, 0}, // of nobody, not of all
		{desk.Filter{Account: "plugin:"}, 0},
		{desk.Filter{Account: "plugin:@shop.example.jp"}, 0},
		{desk.Filter{Account: "plugin:share@"}, 0},
		{desk.Filter{Account: "template:"}, 0},
		{desk.Filter{Account: "template:t3"}, 0},
	} {
		if l, err := s.d.List(t.Context(), s.now, c.of); err != nil || len(l.Held) != c.want {
			t.Errorf("held of %+v: %d, %v, want %d", c.of, len(l.Held), err, c.want)
		}
	}
	if l, err := s.d.List(t.Context(), s.now, desk.Filter{Account: "template:t2"}); err != nil || len(l.Held) != 1 || l.Held[0].Template != "t2" {
		t.Errorf("%+v, %v", l, err)
	}
	s.shut("template:t1")
	r, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "template:t1", Cause: "button removed"})
	if err != nil || !slices.Equal(r.Opened, []string{"abuse"}) || r.Held != 2 {
		t.Errorf("resume: %+v, %v", r, err)
	}
	if want := "template:t1: resumed template:t1 by root: opened abuse"; len(s.told) == 0 || s.told[len(s.told)-1] != want {
		t.Errorf("told %q, want %q at last", s.told, want)
	}
	gone, err := deleteHeld(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Account: "template:t1"}})
	if err != nil || gone.Counts["done"] != 2 {
		t.Errorf("deleted: %+v, %v", gone, err)
	}
	s.wantIn("hold", "A2A2A2")
	freed, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Account: "plugin:cart@shop.example.jp"}})
	if err != nil || freed.Counts["done"] != 1 {
		t.Errorf("released: %+v, %v", freed, err)
	}
}

// A bucket that is resumed is full: half of its limit would be over at once.
func TestResumedBucketsCountAnew(t *testing.T) {
	s := open(t)
	for account, value := range map[string]string{"plugin:share@shop.example.jp": "plugin:share@shop.example.jp", "template:t1": "template:t1", taro: taro} {
		key := limit.Key{Limit: "abuse", Value: value}
		charge := func(amount int64) []limit.Charge {
			return []limit.Charge{{Key: key, Kind: limit.Abuse, Windows: []limit.Window{{Count: 10, Length: 24 * time.Hour}}, Amount: amount}}
		}
		for _, amount := range []int64{10, 1} {
			if _, err := limittest.Spend(t.Context(), s.d.Buckets, s.start, charge(amount)); err != nil {
				t.Fatal(err)
			}
		}
		r, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: account, Cause: "updated"})
		if err != nil || !slices.Equal(r.Opened, []string{"abuse"}) || !strings.Contains(r.Note, "from nothing again") {
			t.Errorf("resume %s: %+v, %v", account, r, err)
		}
		out, err := limittest.Spend(t.Context(), s.d.Buckets, s.now, charge(5))
		if err != nil || !out.Taken || out.Uses[0].Used != 0 {
			t.Errorf("%s, resumed: %+v, %v", account, out, err)
		}
	}
}

// Issue 5, review finding M3: who misspelt a site was told that it is suspended.
func TestSuspendingWhatNobodyKnowsIsSaid(t *testing.T) {
	s := open(t)
	s.passFrom("shop.example.jp", "share", "A1A1A1")
	s.d.Registered = func(site string) bool { return site == "new.example.jp" }
	for account, known := range map[string]bool{
		"site:Shop.example.jp": true, "site:shop.example.jp.": true, "site:new.example.jp": true, "site:typo.example": false,
		"plugin:share@shop.example.jp": true, "plugin:share@shop.example.jp.": true, "plugin:share": true, "plugin:unlabelled@shop.example.jp": true, "plugin:wordpress@new.example.jp": true,
		"plugin:nope@shop.example.jp": false, "plugin:share@nosite.jp": false, "plugin:nope": false, "login:nobody@example.jp": true,
	} {
		out := s.suspend(account)
		said := slices.ContainsFunc(out.Remarks, func(r string) bool { return strings.Contains(r, "nothing is known of "+out.Account) })
		if said == known || strings.HasSuffix(out.Account, ".") || out.Switch.ID == "" {
			t.Errorf("%s: %+v", account, out)
		}
	}
	if _, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: "site:.", Reason: "r"}); err == nil {
		t.Error("a dot is no site")
	}
}
