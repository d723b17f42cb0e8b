package journal_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// scene makes records in the days before midnight and the six hours from noon of the
// day before it, which the tests ask for.
type scene struct {
	n       int
	records []journal.Record
}

// add makes a message at a time; change may be nil.
func (s *scene) add(at time.Time, recipients int, change func(*journal.Decision)) journal.Decision {
	d := shared(s.n)
	d.Time, d.Recipients = at, recipients
	s.n++
	if change != nil {
		change(&d)
	}
	s.records = append(s.records, d)
	return d
}

var sixHours = journal.ActivityQuery{Since: noon, Until: noon.Add(6 * time.Hour), UsualDays: 10}

func firstTimers(n int64) func(*journal.Decision) {
	return func(d *journal.Decision) {
		d.Counters = []policy.Counter{
			{Limit: "site-volume", Unit: "recipients", Kind: "volume", Window: time.Hour, Count: 300, Amount: 100},
			{Limit: "plugin-first-time", Unit: "first_time", Kind: "abuse", Window: 10 * time.Minute, Count: 25, Amount: n},
			{Limit: "plugin-first-time", Unit: "first_time", Kind: "abuse", Window: 24 * time.Hour, Count: 40, Amount: n},
		}
	}
}

// notOurs are roles of mail that came in, or was seen when it came in already.
var notOurs = []policy.Role{policy.Inbound, policy.Egress}

// abuse is a plugin that sends more than ever: 14 days of 2 recipients a day before,
// then in six hours 10 that passed, 4 of them would-be stops, 7 of them first-time
// ones, and 12 that were held, of which one message was let go.
func abuse() (s *scene) {
	s = &scene{}
	for i := 14; i > 0; i-- {
		s.add(noon.Add(time.Duration(-24*i)*time.Hour), 2, nil)
	}
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	s.records = append(s.records, journal.Delivery{QueueID: shared(8).QueueID, Time: at(-5), Status: "bounced", N: 9}) // of six days before
	for i := 14; i > 0; i-- {
		for _, role := range notOurs {
			s.add(noon.Add(time.Duration(-24*i)*time.Hour), 300, func(d *journal.Decision) { d.Role = role })
		}
	}
	s.add(at(-1), 50, nil)  // before
	s.add(at(360), 70, nil) // after
	one := s.add(at(0), 6, firstTimers(3))
	s.add(at(1), 4, func(d *journal.Decision) { firstTimers(4)(d); d.Verdict, d.Rule = policy.Tell, "plugin-first-time" })
	var holds []journal.Decision
	for i := range 3 {
		holds = append(holds, s.add(at(2+i), 4, func(d *journal.Decision) {
			firstTimers(4)(d)
			d.Verdict, d.Rule, d.Reason = policy.Hold, "plugin-first-time", "too many"
		}))
	}
	s.add(at(30), 3, func(d *journal.Decision) {
		d.Account, d.Site, d.SiteBy = "local_user:evil", "shop.example.jp", "claimed"
	})
	s.add(at(31), 5, func(d *journal.Decision) {
		d.Account, d.Site, d.SiteBy, d.Plugin, d.PluginBy, d.Template = "login:taro@example.jp", "", "", "", "", ""
	})
	for _, role := range notOurs {
		s.add(at(32), 1000, func(d *journal.Decision) { d.Role = role })
	}
	forwarded := s.add(at(33), 6, func(d *journal.Decision) { d.Role, d.Verdict, d.Rule = policy.Egress, policy.Hold, "forward" })
	s.records = append(s.records, journal.HoldChange{QueueID: forwarded.QueueID, DecisionID: forwarded.ID, Time: at(99), State: journal.StateReleased})
	s.records = append(s.records,
		journal.HoldChange{QueueID: holds[0].QueueID, DecisionID: holds[0].ID, Time: at(100), State: journal.StateReleased},
		journal.HoldChange{QueueID: holds[1].QueueID, DecisionID: holds[1].ID, Time: at(101), State: journal.StateDeleted},
		journal.Delivery{QueueID: one.QueueID, Time: at(5), Status: "sent", N: 4},
		journal.Delivery{QueueID: one.QueueID, Time: at(5), Status: "deferred", N: 1},
		journal.Delivery{QueueID: one.QueueID, Time: at(5), Status: "bounced", N: 2})
	return s
}

// want is of those six hours; ten days before are usual, of which nine are known to
// have had 2 recipients and one, the day of noon itself, is not among them.
func want(account, site, plugin, template string, by journal.RankBy) journal.Activity {
	return journal.Activity{
		By: by, Account: account, Site: site, Plugin: plugin, Template: template,
		Messages: 2, Recipients: 10, Stopped: 12, Told: 4, FirstTime: 7, Sent: 4, Deferred: 1, Bounced: 2, Held: 1, Released: 1,
		Usual: 0.5, UsualBounced: 9.0 / 10 / 4, UsualMost: 2,
	}
}

func activity(t *testing.T, j journalRead, q journal.ActivityQuery) []journal.Activity {
	t.Helper()
	got, err := j.Activity(context.WithoutCancel(t.Context()), q)
	must(t, err)
	return got
}

func TestActivityOfAccountsSitesPluginsAndTemplates(t *testing.T) {
	const account, site, plugin, template = "local_user:site12", "shop.example.jp", "share-by-mail", "ab12"
	other := journal.Activity{Messages: 1, FirstTime: -1}
	taro, evil, unproven, text := other, other, other, want(account, "", "", template, journal.ByTemplate)
	taro.By, taro.Account, taro.Recipients = journal.ByAccount, "login:taro@example.jp", 5
	evil.By, evil.Account, evil.Recipients = journal.ByAccount, "local_user:evil", 3
	unproven.By, unproven.Account, unproven.Recipients, unproven.Plugin = journal.ByPlugin, "local_user:evil", 3, plugin
	text.Messages, text.Recipients = 3, 13 // of two accounts
	all := []journal.Activity{
		want(account, "", "", "", journal.ByAccount), taro, evil,
		want(account, site, "", "", journal.BySite),
		want(account, site, plugin, "", journal.ByPlugin), unproven,
		text,
	}
	records := abuse().records
	for name, make := range map[string]func(t *testing.T) journalRead{
		"journal": func(t *testing.T) journalRead {
			j := open(t, journal.Options{Dir: t.TempDir()})
			must(t, j.Append(records...))
			return j
		},
		"reader": func(t *testing.T) journalRead {
			dir := t.TempDir()
			j := open(t, journal.Options{Dir: dir})
			must(t, j.Append(records...))
			must(t, j.Close())
			return reader(t, dir)
		},
		"reader, half of it in the log": func(t *testing.T) journalRead { return reader(t, behind(t, records[:17], records[17:])) },
		"reader, changes of holds in the log": func(t *testing.T) journalRead {
			n := len(records)
			return reader(t, behind(t, append(records[:n-5:n-5], records[n-3:]...), records[n-5:n-3]))
		},
		"filled anew": func(t *testing.T) journalRead {
			dir := t.TempDir()
			j := open(t, journal.Options{Dir: dir})
			must(t, j.Append(records...))
			must(t, j.Close())
			must(t, os.Remove(filepath.Join(dir, "journal.db")))
			j = open(t, journal.Options{Dir: dir})
			must(t, j.Sync(t.Context()))
			return j
		},
	} {
		t.Run(name, func(t *testing.T) {
			same(t, "activity", activity(t, make(t), sixHours), all)
		})
	}
	if got := all[4].Name() + " " + all[5].Name() + " " + all[0].Name() + " " + all[3].Name() + " " + all[6].Name(); got != "share-by-mail@shop.example.jp share-by-mail local_user:site12 shop.example.jp ab12" {
		t.Error(got)
	}
}

// On the first day there is nothing to compare with.
func TestActivityOfTheFirstDayHasNothingUsual(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	s := &scene{}
	s.add(noon, 6, nil)
	must(t, j.Append(s.records...))
	got := activity(t, j, sixHours)
	if len(got) != 4 {
		t.Fatalf("%+v", got)
	}
	for _, a := range got {
		if a.Usual != -1 || a.UsualBounced != -1 || a.UsualMost != -1 || a.FirstTime != -1 || a.Recipients != 6 {
			t.Errorf("%+v", a)
		}
	}
	later := sixHours
	later.Since, later.Until = noon.Add(24*time.Hour), noon.Add(30*time.Hour)
	s = &scene{n: 1}
	s.add(later.Since, 1, nil)
	must(t, j.Append(s.records...))
	for _, a := range activity(t, j, later) {
		if a.Usual != 1.5 || a.UsualMost != 6 {
			t.Errorf("on the second day: %+v", a)
		}
	}
}

// Bounces, and what is usual of a template, are known as long as decisions are.
func TestUsualIsKnownAsFarBackAsItIsKept(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir(), Retention: journal.Retention{Addresses: 5 * day}})
	must(t, j.Append(abuse().records...))
	must(t, j.Sync(t.Context()))
	must(t, j.PurgeNow(t.Context(), noon))
	for _, a := range activity(t, j, sixHours) {
		if a.Account != "local_user:site12" {
			continue
		}
		// Nine days before, and of those that are kept the oldest is not whole.
		if a.By != journal.ByTemplate && (a.Usual != 0.5 || a.UsualMost != 2) || a.By == journal.ByTemplate && a.Usual != 0.5 {
			t.Errorf("%+v", a)
		}
		if a.UsualBounced != 0 { // those were of a message that is forgotten
			t.Errorf("bounces: %+v", a)
		}
	}
}

func TestActivityWantsATime(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	for _, q := range []journal.ActivityQuery{{}, {Since: noon}, {Since: noon, Until: noon}, {Until: noon}} {
		if got, err := j.Activity(t.Context(), q); err == nil {
			t.Errorf("%+v: %+v", q, got)
		}
	}
	if got := activity(t, j, sixHours); len(got) != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}

// A template of a few recipients tells nothing, and what is usual of many takes long.
func TestActivityHasTheLargestTemplatesOnly(t *testing.T) {
	var first, then scene
	then.n = 1000
	text := func(i int) func(*journal.Decision) {
		return func(d *journal.Decision) { d.Template = string(rune('A'+i/26)) + string(rune('a'+i%26)) }
	}
	for i := range 99 {
		first.add(noon, 10, text(i))
	}
	first.add(noon, 3, text(100)) // together six
	then.add(noon, 3, text(100))
	first.add(noon, 4, text(101))
	then.add(noon, 5, text(102)) // the 101st
	first.add(noon.Add(-day), 50, text(101))
	names := func(j journalRead) (found []string) {
		for _, a := range activity(t, j, sixHours) {
			if a.By == journal.ByTemplate {
				found = append(found, a.Template)
			}
		}
		return found
	}
	r := reader(t, behind(t, first.records, then.records))
	if got := names(r); len(got) != 100 || got[98] != "Dv" && got[99] != "Dw" {
		t.Errorf("%d templates: %q", len(got), got)
	}
	j := open(t, journal.Options{Dir: t.TempDir()})
	must(t, j.Append(append(first.records, then.records...)...))
	same(t, "templates", names(j), names(r))
	j = open(t, journal.Options{Dir: t.TempDir()})
	must(t, j.Append(first.records[99:]...))
	must(t, j.Append(then.records[1:]...))
	same(t, "templates of few", names(j), []string{"Dy"})
}

// What an account sent before it was forgotten is usual of nobody.
func TestUsualOfAPurgedAccountIsForgotten(t *testing.T) {
	const mine = "login:hanako@example.jp"
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	both := func(s *scene, at time.Time) {
		s.add(at, 40, nil)
		s.add(at, 40, func(d *journal.Decision) { d.Account, d.Site = mine, "blog.example.jp" })
	}
	var before, after scene
	after.n = 1000
	for i := range 5 {
		both(&before, noon.Add(time.Duration(i-5)*day))
	}
	both(&after, noon)
	must(t, j.Append(before.records...))
	must(t, j.PurgeAccount(t.Context(), mine))
	check := func(what string, j journalRead) {
		t.Helper()
		usual := map[string]float64{}
		for _, a := range activity(t, j, sixHours) {
			usual[a.Name()] = a.Usual
		}
		same(t, what, usual, map[string]float64{
			"local_user:site12": 10, "shop.example.jp": 10, "share-by-mail@shop.example.jp": 10, "ab12": 10,
			mine: 0, "blog.example.jp": 0, "share-by-mail@blog.example.jp": 0,
		})
	}
	must(t, j.Append(after.records...))
	check("journal", j)
	must(t, j.Close())
	check("reader", reader(t, dir))
}

// Until version 5 totals did not tell what came in.
func TestUsualOfAnOlderDatabaseIsOfWhatLeft(t *testing.T) {
	records := abuse().records
	for _, version := range []int{3, 4} {
		dir := olderOf(t, version, records...)
		check := func(what string, j journalRead) {
			t.Helper()
			n := 0
			for _, a := range activity(t, j, sixHours) {
				if a.Account != "local_user:site12" {
					continue
				}
				if n++; a.Usual != 0.5 || a.UsualMost != 2 || a.Stopped != 12 {
					t.Errorf("version %d, %s: %+v", version, what, a)
				}
			}
			if n != map[int]int{3: 1, 4: 4}[version] {
				t.Errorf("version %d, %s: %d", version, what, n)
			}
			volumes, err := j.Volumes(t.Context(), time.Time{}, noon.Add(-day))
			must(t, err)
			if len(volumes) != 13 {
				t.Errorf("version %d, %s: %+v", version, what, volumes)
			}
			for _, v := range volumes {
				if v.Messages != 1 || v.Recipients != 2 || v.Verdict != policy.Accept {
					t.Errorf("version %d, %s: %+v", version, what, v)
				}
			}
			ranks, err := j.Ranks(t.Context(), journal.RankQuery{Until: noon.Add(-12 * time.Hour)})
			must(t, err)
			if len(ranks) != 1 || ranks[0].Recipients != 14*602 {
				t.Errorf("version %d, %s: ranks count everything: %+v", version, what, ranks)
			}
		}
		check("reader", reader(t, dir))
		check("journal", open(t, journal.Options{Dir: dir}))
	}
}
