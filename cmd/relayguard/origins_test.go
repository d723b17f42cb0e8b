package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/incident"
	"relayguard/journal"
	"relayguard/policy"
)

// someRank is what a site's plugin sent.
func someRank(who string) originRank {
	return originRank{Who: "plugin:" + who + "@" + who, Account: "local_user:" + who, Accounts: 2, Site: who, Plugin: who, KnownBy: "signed", Template: who,
		Messages: 24, Recipients: 25, Stops: 480, StoppedRecipients: 481, First: noon, Last: noon.Add(time.Hour)}
}

// originsOf answers all that is asked about origins with what a sender chose.
func originsOf(t *testing.T, who string) *fakeDaemon {
	d := newFakeDaemon(t)
	d.always("GET /v1/origins", []originRank{someRank(who)})
	d.always("GET /v1/origins/with-plugin", []originRank{someRank(who)})
	decision := someDecision(who)
	decision.Site, decision.Plugin = who, who
	rank := someRank(who)
	d.always("GET /v1/origins/show", originShown{Who: "site:" + who, Since: noon, Sent: &rank, Sites: []originRank{rank}, Plugins: []originRank{rank},
		Limits:    []bucketShown{{Limit: "plugin-first-time", Key: "plugin:" + who + "@" + who, Window: 600, Used: 25, Count: 25, Latched: true}, {Limit: "site-volume", Key: "site:" + who, Window: 3600, Used: 300, Count: 300, FreeAt: time.Now().Add(time.Hour)}},
		Incidents: []incident.Incident{someIncident("plugin:" + who)}, Decisions: []desk.Decision{decision}})
	d.always("GET /v1/incidents", []incident.Incident{siteIncident(who)})
	d.always("GET /v1/notice", noticeFacts{Incident: siteIncident(who), More: []string{"i-other"}, Passed: rank, Held: 480})
	d.always("GET /v1/decisions", []desk.Decision{decision})
	return d
}

func siteIncident(site string) incident.Incident {
	i := someIncident("plugin:share-by-mail@" + site)
	i.Account, i.Cause = "local_user:www-data", "plugin-first-time"
	few := []incident.Count{{Value: site, Count: 7, Over: 2, First: noon, Last: noon}}
	i.Details = &incident.Details{Site: site, Plugin: "share-by-mail", Plugins: few, Entries: few, Scripts: few, WebClients: []incident.Count{{Value: "198.51.100.7", Count: 17, First: noon, Last: noon}, few[0]}, Software: site, Node: site, Template: site}
	return i
}

var originLookers = []string{
	"origins list", "origins list --by site", "origins list --by plugin --order stops", "origins list --by template", "origins show site:x", "origins with-plugin x",
	"incident show i-0d5kqw3m8x", "decisions", "notice x", "notice x --lang ja --stage analysis",
}

func TestWhatSitesChooseDoesNothingToATerminal(t *testing.T) {
	d := originsOf(t, hostile)
	for _, line := range originLookers {
		term := newTerminal(t, 80)
		code, shown, stderr := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		if code != exitFine || shown == "" {
			t.Errorf("%s: exit %d, shown %q, stderr %q", line, code, shown, stderr)
		}
		noTricks(t, line, shown)
		noTricks(t, line+" (stderr)", stderr)
		_, stdout, _ := d.run(append(strings.Fields(line), "--json")...)
		if !json.Valid([]byte(stdout)) {
			t.Errorf("%s: %q", line, stdout)
		}
		noTricks(t, line+" --json", stdout)
	}
}

func TestOriginTablesFit80Columns(t *testing.T) {
	d := originsOf(t, "a-rather-long-name-of-a-shop.a-long-domain-name.example.jp")
	for _, line := range originLookers[:6] {
		term := newTerminal(t, 80)
		_, shown, _ := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		if !strings.HasPrefix(line, "origins show") { // it has sentences
			fits(t, line, shown, 80)
		}
	}
}

func TestOriginsAskForWhatIsGiven(t *testing.T) {
	d := originsOf(t, "x")
	for line, want := range map[string]string{
		"origins list --by plugin --order stops --since 2026-03-02T09:00:00+09:00 --limit 7": "GET /v1/origins?by=plugin&limit=7&order=stops&since=2026-03-02T00%3A00%3A00Z",
		"origins show Taro@example.jp --since 2026-03-02T09:00:00+09:00":                     "GET /v1/origins/show?since=2026-03-02T00%3A00%3A00Z&who=login%3Ataro%40example.jp",
		"origins show PLUGIN:Share@Shop.example.jp --since 2026-03-02T09:00:00+09:00":        "GET /v1/origins/show?since=2026-03-02T00%3A00%3A00Z&who=login%3A",
		"origins show plugin:Share@Shop.example.jp --since 2026-03-02T09:00:00+09:00":        "GET /v1/origins/show?since=2026-03-02T00%3A00%3A00Z&who=plugin%3Ashare%40shop.example.jp",
		"origins with-plugin Share-by-Mail":                                                  "GET /v1/origins/with-plugin?limit=1000&plugin=share-by-mail",
		"notice shop.example.jp":                                                             "GET /v1/notice?who=shop.example.jp",
		"decisions --plugin Share@Shop.example.jp --template template:ab12 --node web3":      "GET /v1/decisions?limit=100&node=web3&plugin=share&site=shop.example.jp&template=ab12",
		"decisions --site site:shop.example.jp":                                              "GET /v1/decisions?limit=100&site=shop.example.jp",
	} {
		d.asked = nil
		d.run(strings.Fields(line)...)
		if got := strings.TrimSpace(d.lastAsked("GET")); got != want && !strings.HasSuffix(want, "login%3A") {
			t.Errorf("%s: asked %s\nwant %s", line, got, want)
		}
	}
	for line, says := range map[string]string{
		"origins list --by moon": "--by", "origins list --order moon": "--order", "origins list --limit 0": "--limit", "origins show site:": "WHO", "origins show": "WHO is missing", "origins with-plugin plugin:": "NAME",
		"notice x --lang fr": "--lang", "notice x --stage second": "--stage", "notice x --cause c": "--cause", "notice": "is missing", "notice x --out f --json": "out",
		"decisions --plugin a@b --site c": "--plugin", "held list --plugin @b": "--plugin",
	} {
		d.asked = nil
		if code, stdout, stderr := d.run(strings.Fields(line)...); code != exitUsage || stdout != "" || !strings.Contains(stderr, says) || d.asked != nil {
			t.Errorf("%s: exit %d, %q, %q, asked %q", line, code, stdout, stderr, d.asked)
		}
	}
}

func TestOriginsOfNobody(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("GET /v1/origins", []originRank{})
	d.always("GET /v1/origins/with-plugin", []originRank{})
	d.always("GET /v1/origins/show", originShown{Who: "site:x"})
	for line, want := range map[string]int{"origins list": exitFine, "origins with-plugin x": exitFinding, "origins show site:x": exitFinding} {
		if code, _, stderr := d.run(strings.Fields(line)...); code != want || stderr == "" {
			t.Errorf("%s: exit %d, %q", line, code, stderr)
		}
	}
}

// shareMail is the n-th message of a plugin; every third is held.
func shareMail(n int, site, account string) journal.Decision {
	d := journal.Decision{ID: "000000000000" + string(rune('a'+n)), Time: time.Now().Add(-time.Hour).Truncate(time.Microsecond), Stage: journal.StageMessage, Verdict: policy.Accept,
		Phase: policy.Enforce, Role: policy.Local, Account: account, Confidence: "kernel", LocalUser: strings.TrimPrefix(account, "local_user:"), UID: 33, QueueID: "Q" + string(rune('a'+n)), Recipients: 2,
		Site: site, SiteBy: "signed", Plugin: "share-by-mail", PluginBy: "signed", Entry: "ajax", Script: "wp-content/plugins/share-by-mail/send.php:41", WebClient: "198.51.100.7"}
	if n%3 == 0 {
		d.Verdict, d.Rule, d.Reason = policy.Hold, "plugin-first-time", "too many"
	}
	return d
}

// keep fills a journal with mail of two sites and an incident of one.
func keep(t *testing.T, j *journal.Journal) {
	t.Helper()
	for n := range 6 {
		if err := j.Append(shareMail(n, "shop.example.jp", "local_user:www-data")); err != nil {
			t.Fatal(err)
		}
	}
	i := siteIncident("shop.example.jp")
	kept, err := keptIncident(i)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(kept.State), "198.51.100.7") || !strings.Contains(string(kept.Addresses), "198.51.100.7") {
		t.Errorf("addresses are not apart: %s, %s", kept.State, kept.Addresses)
	}
	if back, err := incidentOf(kept); err != nil || len(back.Details.WebClients) != 2 || i.Details.WebClients == nil {
		t.Errorf("read back: %+v, %v", back.Details, err)
	}
	if err := j.Append(shareMail(7, "blog.example.jp", "local_user:www-data"), kept); err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTheDaemonTellsOfOrigins(t *testing.T) {
	s := aState(t, stateConfig(t))
	t.Cleanup(func() { s.close(nil) })
	keep(t, s.journal)
	for who, c := range map[string]struct {
		messages, stops   int64
		plugins, incident int
	}{
		"site:shop.example.jp":                 {4, 2, 1, 1},
		"plugin:share-by-mail@blog.example.jp": {1, 0, 0, 0},
		"plugin:share-by-mail":                 {5, 2, 0, 1},
		"local_user:www-data":                  {5, 2, 2, 1},
	} {
		got, err := showOrigin(t.Context(), s.journal, who, journal.RankQuery{Since: time.Now().Add(-aDay)})
		if err != nil || got.Sent == nil || got.Sent.Messages != c.messages || got.Sent.Stops != c.stops || len(got.Plugins) != c.plugins || len(got.Incidents) != c.incident || got.Sent.Who != who || len(got.Decisions) != int(c.messages+c.stops) {
			t.Errorf("%s: %+v %+v, %v", who, got, got.Sent, err)
		}
	}
	sites, err := withPlugin(t.Context(), s.journal, journal.RankQuery{Plugin: "share-by-mail"})
	if err != nil || len(sites) != 2 || sites[0].Site != "shop.example.jp" || sites[0].Account != "local_user:www-data" || sites[0].First.IsZero() || sites[1].Site != "blog.example.jp" {
		t.Errorf("%+v, %v", sites, err)
	}
	if facts, err := noticeOf(t.Context(), s.journal, s.knownOf(time.Now()), "shop.example.jp"); err != nil || facts.Held != 2 || facts.Passed.Messages != 4 || facts.Passed.Recipients != 8 {
		t.Errorf("%+v, %v", facts, err)
	}
	if _, err := noticeOf(t.Context(), s.journal, s.knownOf(time.Now()), "blog.example.jp"); answerOf(err).(*exitError).code != exitFinding {
		t.Errorf("a site without an incident: %v", err)
	}
}

// What a limit per plugin stopped comes to the incident, the journal and back.
func TestAPluginsIncidentComesBackAfterARestart(t *testing.T) {
	c := stateConfig(t)
	s := aState(t, c)
	now := time.Now()
	s.book.Observe(now, incident.Stop{Origin: "plugin:share-by-mail@shop.example.jp", Account: "local_user:www-data", Cause: "plugin-first-time", Verdict: policy.Hold, Recipients: 2, ID: "1",
		Buckets: []string{"plugin:share-by-mail@shop.example.jp"}, Where: incident.Where{Site: "shop.example.jp", WebClient: "198.51.100.7", Script: "a.php:1"}})
	s.close(nil)
	again := aState(t, c)
	t.Cleanup(func() { again.close(nil) })
	all := again.book.Open()
	if len(all) != 1 || all[0].Account != "local_user:www-data" || all[0].Details == nil || len(all[0].Details.WebClients) != 1 || all[0].Details.Scripts[0].Value != "a.php:1" {
		t.Fatalf("%+v", all)
	}
}

func TestRootReadsOriginsWithoutADaemon(t *testing.T) {
	if !isRoot() {
		t.Skip("only root does without the daemon")
	}
	config, _ := commandDir(t)
	j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(filepath.Dir(config), "journal")})
	if err != nil {
		t.Fatal(err)
	}
	keep(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"origins list --by site":                                  {"shop.example.jp", "blog.example.jp"},
		"origins list --by plugin":                                {"share-by-mail@shop.example.jp", "signed"},
		"origins show site:shop.example.jp":                       {"4 messages to 8 recipients", "2 messages to 4 recipients", "i-0d5kqw3m8x", "share-by-mail"},
		"origins with-plugin share-by-mail":                       {"shop.example.jp", "blog.example.jp", "local_user:www-data"},
		"notice shop.example.jp --lang ja --sign テスト":             {"shop.example.jp", "share-by-mail", "テスト", "2 通のメールを"},
		"decisions --plugin share-by-mail@blog.example.jp --json": {"198.51.100.7", `"entry": "ajax"`, `"plugin_by": "signed"`},
	} {
		code, stdout, stderr := runIn(t, append(strings.Fields(line), "--config", config)...)
		if code != exitFine || slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(stdout, w) }) || !strings.Contains(stderr, "root reads the journal") {
			t.Errorf("%s: exit %d, %s\n%s\nwant %q", line, code, stdout, stderr, want)
		}
	}
}

func TestExplainAndIncidentNameSiteAndPlugin(t *testing.T) {
	d := originsOf(t, "shop.example.jp")
	decision := someDecision("taro@example.jp")
	decision.Site, decision.SiteBy, decision.Plugin, decision.PluginBy, decision.Entry, decision.Script, decision.WebClient = "shop.example.jp", "signed", "share-by-mail", "signed", "ajax", "a.php:41", "198.51.100.7"
	d.always("GET /v1/explain/{id}", []desk.Explanation{{Decision: &decision}})
	for line, want := range map[string][]string{
		"explain 0d5kqw3m8x7ya":      {"site: shop.example.jp (known by: signed)", "plugin: share-by-mail (known by: signed)", "entry: ajax", "script: a.php:41", "web client: 198.51.100.7"},
		"incident show i-0d5kqw3m8x": {"account: local_user:www-data", "site: shop.example.jp", "plugin: share-by-mail", "web clients: 198.51.100.7 (17,", "(5 to 7,", "relayguard notice i-0d5kqw3m8x", "relayguard resume plugin:share-by-mail@shop.example.jp"},
	} {
		code, stdout, _ := d.run(strings.Fields(line)...)
		flat := strings.Join(strings.Fields(stdout), " ")
		for _, w := range want {
			if code != exitFine || !strings.Contains(flat, w) {
				t.Errorf("%s: exit %d, no %q in\n%s", line, code, w, stdout)
			}
		}
	}
}
