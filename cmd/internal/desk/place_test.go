package desk_test

import (
	"slices"
	"strings"
	"testing"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/policy"
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
