package rbl_test

import (
	"database/sql"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // the history of listings

	"relayguard/journal"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/rbl"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/history"
	"relayguard/systemtest/forward/forwardtest"
	"relayguard/systemtest/relay"
)

// TestReport is about the daemon's watch and the daily report, after real mail.
func TestReport(t *testing.T) {
	postfixtest.Need(t)
	dnstest.Need(t)
	binary, err := relay.Build(t.Context(), t.TempDir(), "-race")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(t *testing.T, binary string){
		"names who got us listed":                                     namesWhoGotUsListed,
		"is mailed though all is stopped and every limit is used up":  isMailedWhateverIsStopped,
		"is made once a day, over restarts too, and not on the first": isMadeOnceADay,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, binary)
		})
	}
}

// Our address, and the lists of the story: one of addresses, one that lists ranges,
// and one that some day lists everybody.
const (
	ours   = "198.51.100.25"
	trap   = "bl.trap.example"
	ranges = "ranges.trap.example"
	other  = "bl.other.example"

	trapRemoval = "https://trap.example/remove"
)

const scenarioZones = `[[zone]]
name = "bl.trap.example"
operator = "Trap"
kinds = ["ip4"]
severity = "high"
means = "mail to a trap"
removal = { url = "` + trapRemoval + `", how = ["form", "expires"], expires = "7d" }

[[zone]]
name = "ranges.trap.example"
kinds = ["ip4"]
severity = "high"
scope = "range"
means = "a bad neighbourhood"

[[zone]]
name = "bl.other.example"
kinds = ["ip4"]
severity = "critical"
means = "spam"
`

// everybody is what rbldnsd lists all addresses by.
const everybody = "0.0.0.0/1\n128.0.0.0/1"

// story is the scene with the lists, and the machine that gets the alerts.
type story struct {
	*scene
	list *dnstest.RBLDNSD
	hook *forwardtest.Webhook

	shop, news *website
}

// What the two sites and taro do on each day: it is usual.
const (
	shared     = 3   // posts of the shop, by its share button
	orders     = 20  // of each site
	newsletter = 120 // of taro, once a week
)

const (
	shareButton = "share-by-mail"
	orderMail   = "shop-orders"
	culprit     = shareButton + "@shop.example.jp"
)

func startStory(t *testing.T, binary string) *story {
	s := &story{hook: forwardtest.NewWebhook(t)}
	s.list = dnstest.StartRBLDNSD(t, ip4(trap), ip4(ranges), ip4(other))
	resolver := dnstest.StartUnbound(t, dnstest.Unbound{Stubs: map[string]string{trap: s.list.Addr, ranges: s.list.Addr, other: s.list.Addr}})
	zones := filepath.Join(t.TempDir(), "zones.toml")
	if err := os.WriteFile(zones, []byte(scenarioZones), 0o644); err != nil {
		t.Fatal(err)
	}
	builtin, _, err := rbl.Builtin().Choose(rbl.Choice{Commercial: true})
	if err != nil {
		t.Fatal(err)
	}
	var disable []string
	for i := range builtin {
		disable = append(disable, fmt.Sprintf("%q", builtin[i].Name))
	}
	config := fmt.Sprintf(`[rbl]
resolvers = [%q]
addresses = [%q]
zones_file = %q
disable = [%s]
confirm = "1m"

[report]
at = ""
to = [%q]

[alert]
syslog = false
webhook = %q
per_hour = 1000
`, resolver.Addr, ours, zones, strings.Join(disable, ", "), hanako, s.hook.URL)
	var before []journal.Record
	for day := 2; day <= 16; day++ {
		before = append(before,
			passed(1, day, shared, ofSite("games", games, "shop.example.jp", shareButton)),
			passed(2, day, orders, ofSite("games", games, "shop.example.jp", orderMail)),
			passed(3, day, orders, ofSite("lp", lp, "news.example.jp", orderMail)))
		if day%7 == 0 {
			before = append(before, passed(4, day, newsletter, ofLogin(taro)))
		}
	}
	s.scene = startScene(t, binary, "observe", config, before...)
	s.shop, s.news = s.host("shop.example.jp", games, 'a'), s.host("news.example.jp", lp, 'b')
	return s
}

// alerts are those about blocklists, each as "event topic".
func (s *story) alerts() (all []string) {
	for _, a := range s.hook.Since(0) {
		if strings.HasPrefix(a.Topic, "rbl ") {
			all = append(all, a.Event+" "+a.Topic)
		}
	}
	return all
}

// told waits for one more alert about blocklists, the last of these.
func (s *story) told(want ...string) forwardtest.Alert {
	s.t.Helper()
	seen := map[time.Time]bool{}
	a, err := s.hook.Wait(s.within(3*time.Minute), 0, func(a *forwardtest.Alert) bool { // lists are looked at again after a minute
		if strings.HasPrefix(a.Topic, "rbl ") {
			seen[a.Came] = true
		}
		return len(seen) == len(want)
	})
	if err != nil {
		s.t.Fatalf("alerts %q, want %q: %v", s.alerts(), want, err)
	}
	s.wantAlerts(want...)
	return a
}

// wantAlerts: these were told, and no others.
func (s *story) wantAlerts(want ...string) {
	s.t.Helper()
	if got := s.alerts(); !slices.Equal(got, want) {
		s.t.Fatalf("alerts\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// anHourLater: the daemon was away for that long. What waits for a second look has
// waited an hour more.
func (s *story) anHourLater() {
	s.t.Helper()
	s.away(func() {
		db, err := sql.Open("sqlite3", "file:"+filepath.Join(s.StateDir(), "blocklists", "history.db")+"?mode=rw")
		s.must(err)
		defer db.Close()
		_, err = db.ExecContext(s.soon(), "UPDATE listing SET doubt = doubt - ?1, due = due - ?1 WHERE due <> 0", time.Hour.Microseconds())
		s.must(err)
	})
}

// abuse is a day's mail: everybody sends what is usual, and somebody presses the
// shop's share button a hundred times, often for addresses that do not exist.
func (s *story) abuse() {
	s.t.Helper()
	victims := strangers("victim", 100)
	var gone []string
	for i := 0; i < len(victims); i += 8 {
		gone = append(gone, victims[i])
		s.Sink.Refuse(victims[i], noSuchUser)
	}
	customers, readers := strangers("customer", orders), strangers("reader", orders)
	for i, to := range victims {
		s.shop.sends(shareButton, fmt.Sprintf("A post for you (%d)", i), to)
		if i%5 == 0 {
			s.shop.sends(orderMail, fmt.Sprintf("Your order %d", i), customers[i/5])
			s.news.sends(orderMail, fmt.Sprintf("Your order %d", i), readers[i/5])
		}
	}
	login := s.client(relay.Submission)
	if r, err := login.Auth(taro, "secret"); err != nil || !r.Positive() {
		s.t.Fatalf("AUTH: %+v, %v", r, err)
	}
	for some := range slices.Chunk(strangers("subscriber", newsletter), 40) {
		sent, err := login.Send(taro, some, "From: "+taro+"\r\nSubject: The week\r\nMessage-ID: <"+some[0]+">\r\n\r\nAll that has happened.\r\n")
		if err != nil || !sent.Accepted() {
			s.t.Fatalf("the newsletter: %+v, %v", sent, err)
		}
	}
	s.must(s.WaitEmpty(s.soon()))
	for _, to := range slices.Concat(customers, readers, victims) {
		if n := len(s.Sink.To(to)); n != 1 && !slices.Contains(gone, to) {
			s.t.Errorf("%d mails arrived for %s: a guard that observes stops nothing", n, to)
		}
	}
	s.eventually("the journal knows all of it", func() bool {
		for _, p := range s.report().Plugins {
			if p.Name == culprit && p.Recipients == int64(len(victims)) && p.Bounced == int64(len(gone)) {
				return true
			}
		}
		return false
	})
}

// A share button is abused while the guard only observes. Then a list lists us: the
// admin is told once, and the report names that site and plugin before all others,
// with what to do. Then the end of it, its return, and lists that go wild.
func namesWhoGotUsListed(t *testing.T, binary string) {
	s := startStory(t, binary)
	s.abuse()
	if l := s.look(); len(l) != 0 {
		t.Fatalf("listed before any list does: %+v", l)
	}

	s.list.Set(t, trap, "ip4set", listedHere(ours+" :127.0.0.2:trap hit, see https://trap.example/?$"))
	s.list.Set(t, ranges, "ip4set", listedHere("198.51.100.0/24"))
	seen := s.look()
	if l := seen[trap]; l.Phase != history.Suspected || l.Subject.String() != ours {
		t.Fatalf("at first sight: %+v", seen)
	}
	s.wantAlerts()
	if r := s.report(); len(r.Listings) != 2 || r.Listings[0].Confirmed || len(r.Listings[0].Suspects) == 0 {
		t.Errorf("listings of the report before the second look: %+v", r.Listings)
	}

	const began = "warning rbl began " + trap + " " + ours
	a := s.told(began)
	for _, want := range []string{ours, trap, "mail to a trap", "relayguard report"} {
		if !strings.Contains(a.Text, want) {
			t.Errorf("the alert does not say %q: %s", want, a.Text)
		}
	}
	s.wantCause(s.report())
	s.wantShown()
	s.wantOnlyObserved()
	s.suspendAsPrinted()

	s.list.Set(t, trap, "ip4set", listedHere())
	if l := s.look(); l[trap].Phase != history.Ending {
		t.Fatalf("when it was not seen once: %+v", l)
	}
	s.wantAlerts(began)
	s.anHourLater()
	const over = "notice rbl over " + trap + " " + ours
	if a := s.told(began, over); !strings.Contains(a.Text, "no longer listed") {
		t.Errorf("the end is told as %s", a.Text)
	}
	if r := s.report(); len(r.Listings) != 1 || r.Listings[0].Zone != ranges || len(r.Ended) != 1 || r.Ended[0].Zone != trap || !hasChange(r, "unlisted", ours) {
		t.Errorf("after the end: listings %+v, ended %+v, changes %+v", r.Listings, r.Ended, r.Changes)
	}

	s.list.Set(t, trap, "ip4set", listedHere(ours))
	s.look()
	s.anHourLater()
	s.told(began, over, began)

	s.goWild(began, over, began)
	s.mailed()
}

func hasChange(r *dailyReport, kind, what string) bool {
	return slices.ContainsFunc(r.Changes, func(c change) bool { return c.Kind == kind && c.What == what })
}

// listedHere are the lines of a list that is well.
func listedHere(lines ...string) string { return ip4("", lines...).Lines }

// wantCause: the plugin stands first, its site next, each with its numbers and how to
// stop it; who sends as much as ever, however much, does not stand there.
func (s *story) wantCause(r *dailyReport) {
	s.t.Helper()
	if len(r.Listings) != 2 || r.Listings[0].Zone != trap || r.Listings[1].Zone != ranges {
		s.t.Fatalf("listings %+v", r.Listings)
	}
	l := r.Listings[0]
	if !l.Confirmed || l.Subject != ours || l.Scope != rbl.ScopeAddress || l.Removal.URL != trapRemoval || !slices.Equal(l.Reasons, []string{"trap hit, see https://trap.example/?" + ours}) {
		s.t.Errorf("listing %+v", l)
	}
	if len(r.Listings[1].Suspects) != 0 || !r.Listings[1].Scope.Wide() {
		s.t.Errorf("listing of the range %+v", r.Listings[1])
	}
	if len(l.Suspects) < 2 {
		s.t.Fatalf("suspects %+v", l.Suspects)
	}
	first, second := l.Suspects[0], l.Suspects[1]
	if first.Kind != "plugin" || first.Name != culprit || first.Recipients != 100 || first.Usual != shared || first.Bounced != 13 || first.FirstTime < 25 ||
		first.Command != "relayguard suspend plugin:"+culprit+" --reason 'before a blocklisting'" {
		s.t.Errorf("first suspect %+v", first)
	}
	if second.Kind != "site" || second.Name != "shop.example.jp" || second.Recipients != 100+orders || second.Usual != shared+orders {
		s.t.Errorf("second suspect %+v", second)
	}
	for _, who := range l.Suspects {
		if strings.Contains(who.Name, "news.example.jp") || strings.Contains(who.Name, taro) || strings.Contains(who.Name, orderMail) || strings.Contains(who.Name, "lp") {
			s.t.Errorf("a suspect that sends as much as ever: %+v", who)
		}
	}
	if len(r.Steps) == 0 || r.Steps[0].Kind != "suspend" || r.Steps[0].Command != first.Command {
		s.t.Errorf("steps %+v", r.Steps)
	}
	removal := slices.IndexFunc(r.Steps, func(s step) bool { return s.Kind == "removal" })
	prove := slices.IndexFunc(r.Steps, func(s step) bool { return s.Kind == "prove" })
	if prove < 1 || removal < prove || r.Steps[removal].URL != trapRemoval {
		s.t.Errorf("steps %+v, want removal after the proof, that after the stop", r.Steps)
	}
	if !hasChange(r, "listed", ours) || r.Changes[0].Level != act || r.Changes[0].Kind != "listed" {
		s.t.Errorf("changes %+v", r.Changes)
	}
	if !hasChange(r, "volume", culprit) || hasChange(r, "volume", "login:"+taro) {
		s.t.Errorf("who sent more than usual: %+v", r.Changes)
	}
}

// wantShown: what is read has it, too.
func (s *story) wantShown() {
	s.t.Helper()
	for form, shown := range map[string]string{"txt": s.shown("txt"), "html": html.UnescapeString(s.shown("html"))} {
		at := 0
		for _, want := range []string{ours, trap, culprit, "relayguard suspend plugin:" + culprit + " --reason 'before a blocklisting'", trapRemoval} {
			i := strings.Index(shown, want)
			if i < 0 {
				s.t.Errorf("%s does not have %s:\n%s", form, want, shown)
				return
			}
			at = max(at, i)
		}
		if i := strings.Index(shown, taro); i >= 0 && i < strings.Index(shown, culprit) {
			s.t.Errorf("%s names who sends as ever before the plugin:\n%s", form, shown)
		}
	}
	code, _, _ := s.command("report")
	if code != 1 {
		s.t.Errorf("relayguard report: status %d, want 1: we are listed", code)
	}
}

// wantOnlyObserved: that the likeliest's limits would be halved is noted, no more.
func (s *story) wantOnlyObserved() {
	s.t.Helper()
	s.eventually("the journal has what the guard would do", func() bool {
		return strings.Contains(s.order(0, "journal", "actions"), "observed: would halve each of its limits")
	})
	s.eventually("the report says so", func() bool {
		for _, l := range s.report().Listings {
			if l.Zone == trap && len(l.Suspects) > 0 {
				return l.Suspects[0].Tightened == "would"
			}
		}
		return false
	})
	if _, status, _ := s.command("status"); strings.Contains(status, "probation") {
		s.t.Errorf("status:\n%s", status)
	}
}

// suspendAsPrinted: the plugin stops, the orders of the same site do not.
func (s *story) suspendAsPrinted() {
	s.t.Helper()
	s.typed(s.report().Listings[0].Suspects[0].Command)
	s.shop.sends(shareButton, "One more post for you", "late@example.net")
	s.shop.sends(orderMail, "Your order 100", "late-customer@example.net")
	if _, err := s.WaitHeld(s.soon(), "late@example.net"); err != nil {
		s.t.Error(err)
	}
	if _, err := s.Sink.WaitFor(s.soon(), "late-customer@example.net"); err != nil {
		s.t.Error(err)
	}
	r := s.report()
	if len(r.Suspended) != 1 || r.Suspended[0].Name != "plugin:"+culprit {
		s.t.Errorf("suspended %+v", r.Suspended)
	}
	for _, step := range r.Steps {
		if step.Kind == "suspend" && step.What == culprit {
			s.t.Errorf("what is suspended is to be suspended: %+v", step)
		}
	}
}

// goWild: two lists list everybody for a while. That is one note about both, once, and
// neither a listing nor the end of one.
func (s *story) goWild(told ...string) {
	s.t.Helper()
	for _, zone := range []string{other, trap} {
		s.list.Set(s.t, zone, "ip4set", listedHere(everybody))
	}
	l := s.look()
	if _, is := l[other]; is {
		s.t.Errorf("a wild list is believed: %+v", l)
	}
	if l[trap].Phase != history.Standing || l[trap].Unasked.IsZero() {
		s.t.Errorf("the listing on a list that went wild: %+v", l[trap])
	}
	told = append(told, "notice rbl zone_bad "+other+" and 1 more")
	if a := s.told(told...); !strings.Contains(a.Text, other+" is wild") || !strings.Contains(a.Text, trap+" is wild") {
		s.t.Errorf("the note about two lists: %s", a.Text)
	}
	s.anHourLater()
	s.look()
	r := s.report()
	for _, zone := range []string{other, trap} {
		if !slices.ContainsFunc(r.Zones.Trouble, func(z zoneTrouble) bool { return z.Zone == zone && z.State == rbl.Wild }) {
			s.t.Errorf("the report does not say that %s is wild: %+v", zone, r.Zones)
		}
	}
	if i := slices.IndexFunc(r.Listings, func(l listing) bool { return l.Zone == trap }); i < 0 || r.Listings[i].Unasked.IsZero() {
		s.t.Errorf("the listing that nobody can ask about: %+v", r.Listings)
	}
	s.list.Set(s.t, other, "ip4set", listedHere())
	s.list.Set(s.t, trap, "ip4set", listedHere(ours))
	if l := s.look(); l[trap].Phase != history.Standing || !l[trap].Unasked.IsZero() || len(l) != 2 {
		s.t.Errorf("when the lists are well again: %+v", l)
	}
	s.anHourLater()
	s.look()
	s.wantAlerts(told...)
}

// mailed: the letter has what the report has.
func (s *story) mailed() {
	s.t.Helper()
	s.order(0, "report", "--mail")
	letter := s.letters(1)[0]
	for _, part := range []string{letter.text, html.UnescapeString(letter.html)} {
		for _, want := range []string{ours, trap, culprit} {
			if !strings.Contains(part, want) {
				s.t.Errorf("the letter does not have %s:\n%s", want, part)
			}
		}
	}
	if !strings.Contains(letter.subject, "listed") {
		s.t.Errorf("subject %q", letter.subject)
	}
}
