package incident_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/incident"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// sharing is a message of a site's plugin that a limit per plugin stopped, of the
// account that many sites share.
func sharing(site, plugin string) (*policy.Message, *policy.Decision) {
	m := &policy.Message{Role: policy.Local, RcptTo: []string{"a@example.net", "b@example.net"}}
	m.QueueID = "4q1"
	d := &policy.Decision{ID: "06f0000000001", Verdict: policy.Hold, Rule: "plugin-first-time"}
	d.Origin.UID, d.Origin.LocalUser = 33, origin.Key{Value: "www-data", Confidence: origin.Kernel}
	d.Origin.Site, d.Origin.Plugin = origin.Key{Value: site, Confidence: origin.Signed}, origin.Key{Value: plugin, Confidence: origin.Signed}
	d.Origin.Call = origin.Call{Entry: "ajax", Script: "wp-content/plugins/share/send.php:41", WebClient: "198.51.100.7", Software: "WP-EMail"}
	d.Counters = []policy.Counter{{Limit: "plugin-first-time", Key: "plugin:" + plugin + "@" + site, Kind: "abuse", Over: true, Latched: true}}
	return m, d
}

var pluginAbuse = func() []string { return []string{"plugin-first-time"} }

func observe(b *incident.Book, now time.Time, site, plugin string, change func(*policy.Decision)) {
	m, d := sharing(site, plugin)
	if change != nil {
		change(d)
	}
	for _, s := range incident.StopsOf(m, d, pluginAbuse(), nil) {
		b.Observe(now, s)
	}
}

func TestEachSiteOfASharedAccountHasItsOwnIncident(t *testing.T) {
	b, d := newBook(incident.Options{Abuses: pluginAbuse})
	for range 3 {
		observe(b, start, "shop.example.jp", "share", nil)
	}
	observe(b, start, "blog.example.jp", "share", nil)
	b.Tick(start)
	wantEvents(t, d, incident.Opened, incident.Opened)
	open := b.Open()
	if len(open) != 2 {
		t.Fatalf("%+v", open)
	}
	i := open[slices.IndexFunc(open, func(i incident.Incident) bool { return i.Stops == 3 })]
	if i.Origin != "plugin:share@shop.example.jp" || i.Account != "local_user:www-data" || i.Details == nil || i.Details.Site != "shop.example.jp" || i.Details.Plugin != "share" ||
		len(i.Details.Scripts) != 1 || i.Details.Scripts[0].Count != 3 || i.Details.Entries[0].Value != "ajax" || i.Details.WebClients[0].Value != "198.51.100.7" || i.Details.Software != "WP-EMail" {
		t.Errorf("%+v, %+v", i, i.Details)
	}
	if !b.Abused("local_user:www-data") || b.Abused("plugin:share@shop.example.jp") || b.Abused("local_user:other") {
		t.Error("the account is abused, and it alone")
	}
	if got := b.ShutBuckets("local_user:www-data"); !slices.Equal(got, []string{"plugin:share@blog.example.jp", "plugin:share@shop.example.jp"}) {
		t.Errorf("shut: %q", got)
	}
	for who, n := range map[string]int{"local_user:www-data": 2, "site:shop.example.jp": 1, "plugin:share": 2, "plugin:share@blog.example.jp": 1, "site:example.jp": 0, "plugin:other": 0} {
		if got := b.NoteOrigin(start, who, "looked at"); got != n {
			t.Errorf("%s: noted in %d, want %d", who, got, n)
		}
	}
}

// A site's mail without a label is charged to its tightest plugin.
func TestUnlabelledMailJoinsThePluginsIncident(t *testing.T) {
	b, _ := newBook(incident.Options{Abuses: pluginAbuse})
	observe(b, start, "shop.example.jp", "share", nil)
	observe(b, start, "shop.example.jp", "share", func(d *policy.Decision) { d.Origin.Plugin, d.Origin.Call = origin.Key{}, origin.Call{} })
	observe(b, start, "shop.example.jp", "share", func(d *policy.Decision) {
		d.Origin.LocalUser, d.Origin.UID = origin.Key{Value: "site12", Confidence: origin.Kernel}, 1001
	})
	open := b.Open()
	if len(open) != 1 || open[0].Stops != 3 || !slices.Equal(open[0].Accounts(), []string{"local_user:www-data", "local_user:site12"}) {
		t.Fatalf("%+v", open)
	}
	if !b.Abused("local_user:site12") || !b.Abused("local_user:www-data") {
		t.Error("both accounts send as the site")
	}
}

func TestTextsAndSitesAreOrigins(t *testing.T) {
	for bucket, want := range map[string]string{
		"template:ab12": "template:ab12", "site:shop.example.jp": "site:shop.example.jp", "site:shop.example.jp recipient_domain:example.net": "site:shop.example.jp",
		"local_user:33": "local_user:www-data", "recipient_domain:example.net": "local_user:www-data",
	} {
		m, d := sharing("shop.example.jp", "share")
		d.Counters[0].Key = bucket
		if got := incident.StopOf(m, d, nil); got.Origin != want || got.Account != "local_user:www-data" {
			t.Errorf("%s: %+v, want %s", bucket, got, want)
		}
	}
}

// What only claims to be of a site does not lay the blame on it.
func TestClaimsAreNoDetails(t *testing.T) {
	m, d := sharing("shop.example.jp", "share")
	d.Origin.Site.Confidence, d.Origin.Plugin.Confidence, d.Counters[0].Key = origin.Claimed, origin.Claimed, "local_user:33"
	if w := incident.StopOf(m, d, nil).Where; w.Site != "" || w.Plugin != "" || w.Script == "" {
		t.Errorf("%+v", w)
	}
}

func TestDetailsAreBounded(t *testing.T) {
	b, d := newBook(incident.Options{})
	for n := range 2000 {
		observe(b, start, "shop.example.jp", "share", func(d *policy.Decision) {
			d.Origin.Call.WebClient = fmt.Sprint("2001:db8::", n)
			d.Origin.Call.Script = fmt.Sprint(n) + strings.Repeat("x", 1000)
			d.Origin.Call.Entry = fmt.Sprint(n, "\xff")
			d.Origin.LocalUser.Value = fmt.Sprint("user", n)
			d.Origin.Plugin.Value = fmt.Sprint("rotating", n)
			if n%3 == 0 {
				d.Origin.Call.WebClient = "198.51.100.7"
			}
		})
	}
	b.SaveAll(start)
	all := d.all()
	if len(all) != 1 || all[0].Stops != 2000 {
		t.Fatalf("%+v", all)
	}
	text, err := json.Marshal(all[0])
	if err != nil || len(text) > 12_000 {
		t.Errorf("%d octets, %v", len(text), err)
	}
	c := all[0].Details.WebClients
	if len(c) != 10 || c[0].Value != "198.51.100.7" || c[0].Count-c[0].Over > 667 || c[0].Count < 667 || len(all[0].Details.Scripts) != 5 || len(all[0].Details.Plugins) != 5 || len(all[0].Others) != 16 {
		t.Errorf("%+v", all[0].Details)
	}
}

func TestAlertsNameTheSiteAndNoClient(t *testing.T) {
	b, d := newBook(incident.Options{})
	observe(b, start, "shop.example.jp", "share", nil)
	b.Tick(start)
	a := d.alerts[0]
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"shop.example.jp", "share", "ajax", "wp-content/plugins/share/send.php:41", "since 2026-03-02 09:00Z", "last 2026-03-02 09:00Z", "relayguard explain 06f0000000001"} {
		if !strings.Contains(a.Text, want) {
			t.Errorf("no %q in %s", want, a.Text)
		}
	}
	for _, want := range []string{`"site":"shop.example.jp"`, `"plugin":"share"`, `"account":"local_user:www-data"`, `"script":"wp-content`, `"entry":"ajax"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Contains(string(text)+fmt.Sprintf("%+v", a.Incident.Details), "198.51.100.7") {
		t.Errorf("names a web client: %s", text)
	}
	if i := b.Open()[0]; len(i.Details.WebClients) != 1 {
		t.Errorf("the incident lost it: %+v", i.Details)
	}
}

func TestLongNamesLeaveAnAlertItsCommand(t *testing.T) {
	b, d := newBook(incident.Options{})
	observe(b, start, strings.Repeat("long.", 60)+"jp", strings.Repeat("p", 200), func(d *policy.Decision) { d.Origin.Call.Script = strings.Repeat("s", 400) })
	b.Tick(start)
	if a := d.alerts[0]; len(a.Text) > 700 || !strings.HasSuffix(a.Text, "relayguard explain 06f0000000001") {
		t.Errorf("%d octets: %s", len(a.Text), a.Text)
	}
}

// A web client's address is kept no longer than others, however long the incident
// is open.
func TestOldWebClientsAreForgotten(t *testing.T) {
	b, d := newBook(incident.Options{Abuses: pluginAbuse, StillOver: func(account, cause, bucket string, _ time.Time) bool {
		if account != "local_user:www-data" || bucket != "plugin:share@shop.example.jp" {
			t.Errorf("asked of %s, %s", account, bucket)
		}
		return true
	}})
	observe(b, start, "shop.example.jp", "share", nil)
	b.Tick(start.Add(29 * 24 * time.Hour))
	if i := b.Open()[0]; len(i.Details.WebClients) != 1 {
		t.Errorf("too early: %+v", i.Details)
	}
	b.Tick(start.Add(31 * 24 * time.Hour))
	if i := b.Open()[0]; len(i.Details.WebClients) != 0 || len(i.Details.Scripts) != 1 {
		t.Errorf("%+v", i.Details)
	}
	if i := d.all()[0]; len(i.Details.WebClients) != 0 {
		t.Errorf("saved: %+v", i.Details)
	}
}

func TestDetailsSurviveARestart(t *testing.T) {
	b, d := newBook(incident.Options{Abuses: pluginAbuse})
	observe(b, start, "shop.example.jp", "share", nil)
	b.SaveAll(start)
	text, err := json.Marshal(d.all())
	var saved []incident.Incident
	if err != nil || json.Unmarshal(text, &saved) != nil {
		t.Fatal(err)
	}
	old := incident.Incident{ID: "i-0000000001", Origin: "login:taro@example.jp", Cause: "plugin-first-time", Opened: start, Updated: start, Stops: 1} // of an earlier version
	b, _ = newBook(incident.Options{Abuses: pluginAbuse})
	b.Load(append(saved, old))
	observe(b, start.Add(time.Second), "shop.example.jp", "share", nil)
	open := b.Open()
	if len(open) != 2 || open[0].Stops != 2 || open[0].Details.Scripts[0].Count != 2 || !b.Abused("local_user:www-data") || !b.Abused("login:taro@example.jp") {
		t.Errorf("%+v", open)
	}
	b.Tick(start.Add(3 * time.Hour)) // quiet
	b.Tick(start.Add(40 * time.Hour))
	if b.Abused("local_user:www-data") || b.Abused("login:taro@example.jp") || b.Size() != (incident.Size{}) {
		t.Errorf("afterwards: %+v", b.Size())
	}
}

// Else the next site of www-data that is suspended or has its room full joins the
// incident of the first.
func TestSuspensionAndFullRoomAreTheSitesWhereManyShareAnAccount(t *testing.T) {
	many := func(o *origin.Origin) bool { return o.LocalUser.Value == "www-data" }
	for _, c := range []struct {
		rule, user string
		confidence origin.Confidence
		shares     func(*origin.Origin) bool
		want       string
	}{
		{policy.RuleSuspended, "www-data", origin.Signed, many, "site:shop.example.jp"},
		{policy.RuleHoldCap, "www-data", origin.Signed, many, "site:shop.example.jp"},
		{policy.RuleHoldCap, "www-data", origin.Claimed, many, "local_user:www-data"},
		{policy.RuleSuspended, "site12", origin.Signed, many, "local_user:site12"},
		{policy.RuleSuspended, "www-data", origin.Signed, nil, "local_user:www-data"},
		{policy.RuleStopped, "www-data", origin.Signed, many, "local_user:www-data"},
	} {
		m, d := sharing("shop.example.jp", "share")
		d.Rule, d.Counters, d.Origin.LocalUser.Value, d.Origin.Site.Confidence = c.rule, nil, c.user, c.confidence
		if got := incident.StopOf(m, d, c.shares); got.Origin != c.want || got.Account != "local_user:"+c.user {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}
