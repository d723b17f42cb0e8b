package journal_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

func TestHoldsOfASiteOrPlugin(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	for i, c := range []struct{ site, plugin string }{{"shop.example.jp", "share"}, {"shop.example.jp", "wordpress"}, {"blog.example.jp", "share"}, {"", ""}} {
		d := journal.Decision{ID: newID(i + 1), Time: start.Add(time.Duration(i) * time.Second), Stage: journal.StageMessage, Verdict: policy.Accept, Account: "local_user:www-data", UID: 33,
			QueueID: fmt.Sprintf("4Q%d", i), MailFrom: "www@example.jp", Recipients: 1}
		if d.Site = c.site; c.site != "" {
			d.SiteBy, d.Plugin, d.PluginBy = "signed", c.plugin, "signed"
		}
		must(t, j.Append(d))
	}
	must(t, j.Sync(t.Context()))
	must(t, j.Append(journal.Held{QueueID: "4Q0", DecisionID: newID(1), Account: "local_user:www-data", Rule: policy.RuleSuspended, HeldAt: start.Add(time.Minute)}))
	must(t, j.Sync(t.Context()))
	held, err := j.Holds(t.Context(), journal.HoldQuery{Site: "shop.example.jp", Plugin: "share"})
	must(t, err)
	if len(held) != 1 || held[0].QueueID != "4Q0" || held[0].Site != "shop.example.jp" || held[0].Plugin != "share" {
		t.Errorf("held of the plugin: %+v", held)
	}
}

func TestHoldsOfAText(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	for i, template := range []string{"t1", "t2", ""} {
		d := held(i)
		d.Template = template
		must(t, j.Append(d))
	}
	late := journal.Decision{ID: newID(7), Time: start, Stage: journal.StageMessage, Verdict: policy.Accept, Account: "local_user:www-data", QueueID: "4Q7", Template: "t1", Recipients: 1}
	must(t, j.Append(late, journal.Held{QueueID: "4Q7", DecisionID: late.ID, Account: late.Account, Rule: policy.RuleSuspended, HeldAt: start}))
	must(t, j.Sync(t.Context()))
	find := func(who interface {
		Holds(context.Context, journal.HoldQuery) ([]journal.Hold, error)
	}) {
		t.Helper()
		for template, want := range map[string]int{"t1": 2, "t2": 1, "t3": 0, "": 4} {
			all, err := who.Holds(t.Context(), journal.HoldQuery{Template: template})
			must(t, err)
			if len(all) != want || template != "" && want > 0 && all[0].Template != template {
				t.Errorf("%q: %+v, want %d", template, all, want)
			}
		}
	}
	find(j)
	must(t, j.Close())
	find(reader(t, dir)) // decisions stay in the file
}
