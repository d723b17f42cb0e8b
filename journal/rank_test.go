package journal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// shared is a message that a site's plugin sent.
func shared(n int) journal.Decision {
	d := accepted(n)
	d.Account, d.Confidence, d.Login, d.LoginBy, d.LocalUser, d.UID, d.Role, d.Listener = "local_user:site12", "kernel", "", "", "site12", 1001, policy.Local, "local"
	d.Site, d.SiteBy, d.Plugin, d.PluginBy = "shop.example.jp", "signed", "share-by-mail", "signed"
	d.Node, d.Template, d.Entry, d.Script, d.WebClient, d.Pool, d.Software = "web3", "ab12", "ajax", "wp-content/plugins/share-by-mail/send.php:41", "198.51.100.7", "shop", "WP-EMail"
	return d
}

func TestLabelsComeBackAndAreSearchedFor(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	mine := shared(1)
	mine.Verdict, mine.Rule = policy.Hold, "plugin-first-time"
	other := shared(2)
	other.Site, other.Template, other.Node = "blog.example.jp", "cd34", "web4"
	core := shared(3)
	core.Plugin = "wordpress"
	all := []journal.Decision{mine, other, core, accepted(4)}
	for _, d := range all {
		must(t, j.Append(d))
	}
	if got := explain(t, j, mine.ID); len(got) != 1 || len(got[0].Holds) != 1 || got[0].Holds[0].Site != mine.Site || got[0].Holds[0].Plugin != mine.Plugin {
		t.Errorf("the hold: %+v", got)
	} else {
		same(t, "decision", got[0].Decision, mine)
	}
	must(t, j.Sync(t.Context()))
	check := func(what string, j journalRead) {
		t.Helper()
		for _, c := range []struct {
			q    journal.Query
			want []int
		}{
			{journal.Query{Site: "shop.example.jp"}, []int{3, 1}},
			{journal.Query{Plugin: "share-by-mail"}, []int{2, 1}},
			{journal.Query{Plugin: "share-by-mail", Site: "blog.example.jp"}, []int{2}},
			{journal.Query{Template: "ab12"}, []int{3, 1}},
			{journal.Query{Node: "web4"}, []int{2}},
			{journal.Query{Site: "none"}, nil},
		} {
			found, err := j.Decisions(t.Context(), c.q)
			must(t, err)
			var want []string
			for _, n := range c.want {
				want = append(want, newID(n))
			}
			if got := ids(found); !slices.Equal(got, want) {
				t.Errorf("%s: %+v: %q, want %q", what, c.q, got, want)
			}
		}
		for site, n := range map[string]int{"": 1, "shop.example.jp": 1, "blog.example.jp": 0} {
			holds, err := j.Holds(t.Context(), journal.HoldQuery{Site: site, Plugin: "share-by-mail"})
			must(t, err)
			if len(holds) != n {
				t.Errorf("%s: holds of %q: %+v", what, site, holds)
			}
		}
	}
	check("journal", j)
	must(t, j.Close())
	check("reader", reader(t, dir))
	must(t, os.Remove(filepath.Join(dir, "journal.db")))
	check("reader of the log alone", reader(t, dir))
}

func ids(all []journal.Decision) (ids []string) {
	for _, d := range all {
		ids = append(ids, d.ID)
	}
	return ids
}

// midnight is in the middle of what the rank tests append.
var midnight = start.Truncate(24 * time.Hour)

// ranked3 is a journal with three days of mail of two sites, and the same as a
// reader has it of which half is in the log only.
func ranked3(t *testing.T) (j *journal.Journal, dir string) {
	t.Helper()
	dir = t.TempDir()
	j = open(t, journal.Options{Dir: dir})
	n := 0
	add := func(at time.Time, change func(*journal.Decision)) {
		d := shared(n)
		d.Time = at
		n++
		change(&d)
		must(t, j.Append(d))
	}
	for _, at := range []time.Duration{-47 * time.Hour, -25 * time.Hour, -23 * time.Hour, -time.Hour, -time.Minute} {
		add(midnight.Add(at), func(*journal.Decision) {})
		add(midnight.Add(at), func(d *journal.Decision) { d.Verdict, d.Rule, d.Recipients = policy.Hold, "r", 5 })
		add(midnight.Add(at), func(d *journal.Decision) { d.Site, d.Account = "blog.example.jp", "local_user:www-data" })
		add(midnight.Add(at), func(d *journal.Decision) {
			d.Site, d.SiteBy, d.PluginBy, d.Account, d.Plugin = "shop.example.jp", "claimed", "fingerprint", "local_user:evil", "seen-only"
		})
		add(midnight.Add(at), func(d *journal.Decision) {
			*d = refused(n)
			d.ID, d.Time = newID(n-1), midnight.Add(at)
		})
	}
	must(t, j.Sync(t.Context()))
	return j, dir
}

func TestRanksCountWholeDaysAndTheirEdges(t *testing.T) {
	j, dir := ranked3(t)
	must(t, j.Close())
	readers := map[string]journalRead{"reader": reader(t, dir)}
	must(t, os.RemoveAll(filepath.Join(dir, "none")))
	j = open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	readers["journal"] = j
	at := func(d time.Duration) time.Time { return midnight.Add(d) }
	for what, j := range readers {
		for _, c := range []struct {
			since, until time.Time
			hits         int64 // of the five times
		}{
			{time.Time{}, time.Time{}, 5},
			{at(-48 * time.Hour), at(0), 5},
			{at(-24 * time.Hour), at(0), 3},
			{at(-24 * time.Hour), time.Time{}, 3},
			{at(-30 * time.Hour), at(-30 * time.Minute), 3},
			{at(-2 * time.Hour), at(-30 * time.Minute), 1},
			{at(-47 * time.Hour), at(-25 * time.Hour), 1},
			{time.Time{}, at(-24 * time.Hour), 2},
			{at(-time.Minute), at(time.Hour), 1},
		} {
			name := fmt.Sprintf("%s since %v until %v", what, c.since, c.until)
			q := journal.RankQuery{Since: c.since, Until: c.until}
			accounts := mustRanks(t, j, q)
			if len(accounts) != 4 || accounts[0].Account != "local_user:site12" || accounts[0].Messages != c.hits || accounts[0].Recipients != 2*c.hits ||
				accounts[0].Stops != c.hits || accounts[0].StoppedRecipients != 5*c.hits || accounts[3].Account != "unknown" || accounts[3].Stops != 0 || accounts[3].StoppedRecipients != c.hits {
				t.Errorf("%s: accounts: %+v", name, accounts)
			}
			q.By = journal.BySite
			sites := mustRanks(t, j, q)
			if len(sites) != 2 || sites[0].Site != "shop.example.jp" || sites[0].Messages != c.hits || sites[0].StoppedRecipients != 5*c.hits || sites[0].Plugin != "" ||
				sites[1].Site != "blog.example.jp" || sites[1].Account != "local_user:www-data" {
				t.Errorf("%s: sites: %+v", name, sites)
			}
			q.By = journal.ByPlugin
			plugins := mustRanks(t, j, q)
			if len(plugins) != 3 || plugins[0].Plugin != "share-by-mail" || plugins[0].Site != "shop.example.jp" || plugins[0].PluginBy != "signed" || plugins[1].Plugin != "seen-only" || plugins[1].Site != "" || plugins[1].PluginBy != "fingerprint" || plugins[2].Site != "blog.example.jp" {
				t.Errorf("%s: plugins: %+v", name, plugins)
			}
			q.By, q.Plugin = journal.ByUse, "share-by-mail"
			if use := mustRanks(t, j, q); len(use) != 2 || use[0].Account != "local_user:site12" || use[1].Site != "blog.example.jp" || use[0].First.IsZero() || use[0].First.After(use[0].Last) {
				t.Errorf("%s: use: %+v", name, use)
			}
			q.By, q.Plugin = journal.ByTemplate, ""
			if templates := mustRanks(t, j, q); len(templates) != 1 || templates[0].Template != "ab12" || templates[0].Messages != 3*c.hits || templates[0].Accounts != 3 {
				t.Errorf("%s: templates: %+v", name, templates)
			}
			q = journal.RankQuery{By: journal.ByPlugin, Site: "blog.example.jp", Since: c.since, Until: c.until, Order: journal.OrderStops, Limit: 1}
			if one := mustRanks(t, j, q); len(one) != 1 || one[0].Site != "blog.example.jp" || one[0].Messages != c.hits {
				t.Errorf("%s: plugins of a site: %+v", name, one)
			}
		}
	}
	if _, err := j.Ranks(t.Context(), journal.RankQuery{By: "moon"}); err == nil {
		t.Error("no error for what cannot be ranked")
	}
}

func mustRanks(t *testing.T, j journalRead, q journal.RankQuery) []journal.Rank {
	t.Helper()
	found, err := j.Ranks(context.WithoutCancel(t.Context()), q)
	must(t, err)
	return found
}

// What the log alone has and what the database has are counted together.
func TestReaderRanksWhatIsInTheLogOnly(t *testing.T) {
	j, dir := ranked3(t)
	must(t, j.Close())
	o, err := journal.OpenOffline(dir)
	must(t, err)
	more := shared(1000)
	more.Time = midnight.Add(-time.Minute)
	must(t, o.Append(more))
	must(t, o.Close())
	sites := mustRanks(t, reader(t, dir), journal.RankQuery{By: journal.BySite, Since: midnight.Add(-24 * time.Hour), Order: journal.OrderMessages})
	if len(sites) != 2 || sites[0].Site != "shop.example.jp" || sites[0].Messages != 4 || sites[0].Stops != 3 {
		t.Errorf("%+v", sites)
	}
}

// Totals outlive decisions; addresses of web clients go with these.
func TestLabelsAreKeptAsLongAsTheyMay(t *testing.T) {
	j, _ := ranked3(t)
	must(t, j.Append(journal.Incident{ID: "i-1", Origin: "plugin:share-by-mail@shop.example.jp", Account: "local_user:site12", Opened: start, Updated: start,
		State: []byte(`{"id":"i-1"}`), Addresses: []byte(`[{"value":"198.51.100.7"}]`)}))
	must(t, j.Sync(t.Context()))
	must(t, j.PurgeNow(t.Context(), start.Add(29*24*time.Hour)))
	incidents := func() journal.Incident {
		t.Helper()
		all, err := j.Incidents(t.Context(), false)
		must(t, err)
		if len(all) != 1 {
			t.Fatalf("incidents: %+v", all)
		}
		return all[0]
	}
	if i := incidents(); string(i.Addresses) != `[{"value":"198.51.100.7"}]` || i.Account != "local_user:site12" {
		t.Errorf("%+v", i)
	}
	must(t, j.PurgeNow(t.Context(), start.Add(40*24*time.Hour)))
	if i := incidents(); i.Addresses != nil || string(i.State) != `{"id":"i-1"}` {
		t.Errorf("after 40 days: %+v", i)
	}
	if found, err := j.Decisions(t.Context(), journal.Query{Site: "blog.example.jp"}); err != nil || len(found) > 0 {
		t.Errorf("after 40 days: %+v, %v", found, err)
	}
	if sites := mustRanks(t, j, journal.RankQuery{By: journal.BySite}); len(sites) != 2 || sites[0].Messages != 5 {
		t.Errorf("after 40 days: %+v", sites)
	}
	must(t, j.PurgeNow(t.Context(), start.Add(402*24*time.Hour)))
	if sites := mustRanks(t, j, journal.RankQuery{By: journal.BySite}); len(sites) != 0 {
		t.Errorf("after 402 days: %+v", sites)
	}
}

func TestPurgedAccountHasNoTotalsAndIncidents(t *testing.T) {
	j, _ := ranked3(t)
	must(t, j.Append(journal.Incident{ID: "i-1", Origin: "plugin:share-by-mail@shop.example.jp", Account: "local_user:site12", Opened: start.Add(-time.Hour), Closed: start.Add(-time.Minute)}))
	must(t, j.PurgeAccount(t.Context(), "local_user:site12"))
	if sites := mustRanks(t, j, journal.RankQuery{By: journal.BySite}); len(sites) != 1 || sites[0].Site != "blog.example.jp" {
		t.Errorf("%+v", sites)
	}
	if all, err := j.Incidents(t.Context(), false); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
}
