package report_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"relayguard/cmd/internal/report"
	"relayguard/rbl"
)

var (
	japan = time.FixedZone("JST", 9*60*60)
	today = time.Date(2026, 3, 1, 0, 0, 0, 0, japan)
	made  = time.Date(2026, 3, 2, 7, 0, 0, 0, japan)
)

// cases are the days that the snapshots show.
func cases() map[string]*report.Report {
	return map[string]*report.Report{
		"clean":    clean(),
		"listed":   listed(),
		"unknown":  unknown(),
		"notasked": notAsked(),
		"firstday": firstDay(),
		"year":     year(),
		"hostile":  hostile(),
	}
}

func at(day, hour, minute int) time.Time {
	return today.AddDate(0, 0, day-1).Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
}

// mailDays are so many days of a shop's host, quieter at weekends.
func mailDays(n int, last report.Verdicts) []report.DayMail {
	r := rand.New(rand.NewPCG(1, 2))
	var all []report.DayMail
	for i := n - 1; i >= 0; i-- {
		day := today.AddDate(0, 0, -i)
		v := report.Verdicts{Accepted: 9000 + r.Int64N(2500), Held: r.Int64N(30), Rejected: 20 + r.Int64N(60), Deferred: r.Int64N(8)}
		if w := day.Weekday(); w == time.Saturday || w == time.Sunday {
			v.Accepted /= 2
		}
		if i == 0 {
			v = last
		}
		all = append(all, report.DayMail{Day: day, Verdicts: v})
	}
	return all
}

func states(n int, odd map[int]string) []report.DayState {
	var all []report.DayState
	for i := n - 1; i >= 0; i-- {
		s := "clean"
		if o, ok := odd[i]; ok {
			s = o
		}
		all = append(all, report.DayState{Day: today.AddDate(0, 0, -i), State: s})
	}
	return all
}

func clean() *report.Report {
	total := report.Verdicts{Accepted: 5120, Held: 12, Rejected: 41, Deferred: 3}
	return &report.Report{
		Host: "mail1.example.jp", Version: "1.4.0", Made: made, Since: today, Until: today.AddDate(0, 0, 1),
		First: today.AddDate(0, -2, 0), Phase: "enforce",
		Addresses: []report.Checked{
			{Subject: "203.0.113.5", How: "smtp_bind_address of main.cf", Clean: 47, At: at(2, 6, 12), Days: states(60, map[int]string{40: "unknown"})},
			{Subject: "2001:db8:10:5::25", How: "smtp_bind_address6 of main.cf", Clean: 18, At: at(2, 6, 12), Days: states(60, nil)},
			{Subject: "example.jp", How: "domain of our own", Clean: 9, At: at(2, 6, 12), Days: states(60, nil)},
		},
		Zones:      report.ZoneCounts{Asked: 47, Healthy: 47, Queries: 1316, Resolver: "127.0.0.1:53"},
		Neighbours: &report.Neighbours{At: at(-3, 4, 0), Ranges: []report.Neighbour{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Zone: "dnsbl-2.uceprotect.net", Asked: 256, Before: 0}}},
		Sender: []report.Fact{
			{Subject: "203.0.113.5", Check: "ptr", State: "ok", Found: "mail1.example.jp"},
			{Subject: "203.0.113.5", Check: "forward", State: "ok", Found: "203.0.113.5"},
			{Subject: "mail1.example.jp at 203.0.113.5", Check: "helo", State: "ok", Found: "mail1.example.jp"},
			{Subject: "example.jp from 203.0.113.5", Check: "spf", State: "ok", Found: "pass"},
		},
		Mail: report.Mail{
			Total: total, Usual: &report.Verdicts{Accepted: 7200, Held: 15, Rejected: 50, Deferred: 4}, Days: mailDays(40, total),
			Sent: 5012, Bounced: 38, Deferred: 70,
		},
		Senders: []report.Sender{
			{Kind: "site", Name: "shop.example.jp", Messages: 1800, Recipients: 1822, Usual: 1700, Bounced: 9},
			{Kind: "account", Name: "login:newsletter@example.jp", Messages: 12, Recipients: 1400, Usual: 1390, Bounced: 20},
			{Kind: "account", Name: "login:taro@example.jp", Messages: 60, Recipients: 75, Usual: 70, Bounced: 0},
		},
		Plugins:  []report.Sender{{Kind: "plugin", Name: "woocommerce@shop.example.jp", Messages: 1700, Recipients: 1710, Usual: 1600, Bounced: 8}},
		Held:     report.Held{Released: 12},
		Forwards: report.Forwards{Watched: true, Known: 34},
	}
}

func listed() *report.Report {
	r := clean()
	total := report.Verdicts{Accepted: 14870, Told: 9120, Held: 310, Rejected: 44, Deferred: 12}
	r.Mail.Total, r.Mail.Days = total, mailDays(40, total)
	r.Mail.Sent, r.Mail.Bounced, r.Mail.Deferred = 11020, 2318, 1532
	suspend := "relayguard suspend plugin:share-by-mail@shop.example.jp --reason 'listed on zen.spamhaus.org' --for 3d"
	suspects := []report.Suspect{
		{Kind: "plugin", Name: "share-by-mail@shop.example.jp", Recipients: 9120, Usual: 14, Bounced: 2190, FirstTime: 9067, Stopped: 0, Share: 0.83, Command: suspend, Tightened: "would", From: at(1, 3, 40), To: at(1, 9, 40)},
		{Kind: "site", Name: "shop.example.jp", Recipients: 9980, Usual: 800, Bounced: 2200, FirstTime: 9400, Stopped: 30, Share: 0.91, From: at(1, 3, 40), To: at(1, 9, 40)},
		{Kind: "account", Name: "login:hanako@example.jp", Recipients: 140, Usual: -1, Bounced: 18, FirstTime: 120, Released: 3, Share: 0.012, From: at(1, 3, 40), To: at(1, 9, 40)},
	}
	r.Listings = []report.Listing{
		{
			Subject: "203.0.113.5", Zone: "zen.spamhaus.org", Operator: "Spamhaus Project", Means: "CSS automated", Code: "127.0.0.3", Severity: rbl.Critical, Scope: rbl.ScopeAddress,
			Since: at(1, 9, 40), Confirmed: true, Reasons: []string{"https://www.spamhaus.org/query/ip/203.0.113.5"}, Searched: true, Suspects: suspects, Waits: "SBL (127.0.0.2)",
			Removal: rbl.Removal{URL: "https://check.spamhaus.org/", How: []string{"form", "expires"}, Expires: 72 * time.Hour, First: "127.0.0.2"},
		},
		{
			Subject: "203.0.113.5", Zone: "bl.spamcop.net", Operator: "SpamCop", Means: "listed", Code: "127.0.0.2", Severity: rbl.High, Scope: rbl.ScopeAddress,
			Since: at(1, 11, 5), Confirmed: true, Reasons: []string{"Blocked - see https://www.spamcop.net/bl.shtml?203.0.113.5"}, Searched: true, Unasked: at(2, 0, 12),
			Removal: rbl.Removal{URL: "https://www.spamcop.net/bl.shtml", How: []string{"expires"}, Expires: 24 * time.Hour, Paid: "optional"},
		},
		{
			Subject: "203.0.113.5", Zone: "dnsbl-3.uceprotect.net", Operator: "UCEPROTECT", Means: "network of the provider", Code: "127.0.0.2", Severity: rbl.Low, Scope: rbl.ScopeASN,
			Since: at(-8, 11, 5), Confirmed: true, Removal: rbl.Removal{URL: "http://www.uceprotect.net/en/rblcheck.php", How: []string{"expires", "none"}, Expires: 7 * 24 * time.Hour, Paid: "optional"},
		},
		{
			Subject: "2001:db8:10:5::25", Zone: "psbl.surriel.com", Means: "spam trap", Code: "127.0.0.2", Severity: rbl.Medium, Scope: rbl.ScopeAddress,
			Since: at(2, 6, 12), Removal: rbl.Removal{URL: "https://psbl.org/listing", How: []string{"form"}},
		},
	}
	r.Ended = []report.Listing{
		{Subject: "example.jp", Zone: "dbl.spamhaus.org", Severity: rbl.High, Since: at(-2, 4, 0), Ended: at(1, 16, 0)},
		{Subject: "198.51.100.7", Zone: "bl.spamcop.net", Since: at(-2, 4, 0), Ended: at(1, 17, 0), Dropped: true, Severity: rbl.High},
	}
	r.Addresses[0] = report.Checked{Subject: "203.0.113.5", How: "smtp_bind_address of main.cf", Listed: 2, Wide: 1, Info: 1, Clean: 40, Unknown: 2, Refused: 1, At: at(2, 6, 12), Days: states(60, map[int]string{0: "listed", 12: "unknown", 13: "unknown", 40: "listed", 41: "listed"})}
	r.Addresses[1].Unknown, r.Addresses[1].Clean = 1, 17
	r.Zones = report.ZoneCounts{Asked: 47, Healthy: 43, Queries: 1402, Resolver: "127.0.0.1:53", Trouble: []report.ZoneTrouble{
		{Zone: "bl.spamcop.net", State: rbl.Silent, Why: "timeout after 5s", Since: at(2, 0, 12), Severity: rbl.High},
		{Zone: "b.barracudacentral.org", State: rbl.Refusing, Why: "the resolver's address is not registered", Since: at(-20, 0, 0), Severity: rbl.High},
		{Zone: "bl.example-list.net", State: rbl.Wild, Why: "a name of random letters is listed", Since: at(1, 12, 0), Severity: rbl.Medium},
		{Zone: "rbl.example-filter.net", State: rbl.Filtered, Why: "NOERROR without an answer for the test entry", Since: at(1, 12, 0), Severity: rbl.Low},
		{Zone: "zen.dq.spamhaus.net", State: rbl.NotAsked, Why: "needs a key of spamhaus", Severity: rbl.Critical},
	}}
	r.Neighbours.Ranges[0].Listed, r.Neighbours.Ranges[0].Unknown = 9, 3
	r.Neighbours.Ranges = append(r.Neighbours.Ranges, report.Neighbour{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Zone: "dnsbl-3.uceprotect.net", Asked: 256, Listed: 256, Before: -1})
	r.Sender[2] = report.Fact{Subject: "mail1.example.jp at 203.0.113.5", Check: "helo", State: "unknown", Found: "SERVFAIL", Since: at(1, 12, 0)}
	r.Sender[3] = report.Fact{Subject: "example.jp from 203.0.113.5", Check: "spf", State: "wrong", Found: "softfail (\"v=spf1 mx ~all\")", Wanted: "add ip4:203.0.113.5 to the TXT record \"v=spf1 mx ~all\"", Since: at(-4, 0, 0)}
	r.Changes = []report.Change{
		{Level: report.Act, Kind: report.ChangeListed, What: "203.0.113.5", By: "zen.spamhaus.org", Text: "CSS automated", At: at(1, 9, 40)},
		{Level: report.Act, Kind: report.ChangeListed, What: "203.0.113.5", By: "bl.spamcop.net", At: at(1, 11, 5)},
		{Level: report.Look, Kind: report.ChangeIncident, What: "plugin:share-by-mail@shop.example.jp", By: "plugin-strangers", At: at(1, 4, 2)},
		{Level: report.Look, Kind: report.ChangeVolume, What: "site:shop.example.jp", Count: 9980, Text: "1700"},
		{Level: report.Look, Kind: report.ChangeSuspected, What: "2001:db8:10:5::25", By: "psbl.surriel.com", At: at(2, 6, 12)},
		{Level: report.Look, Kind: report.ChangeSender, What: "example.jp from 203.0.113.5", By: "spf", Text: "softfail", At: at(1, 12, 0)},
		{Level: report.Look, Kind: report.ChangeForward, What: "info@example.jp", By: "sieve", Text: "someone@example.org", At: at(1, 13, 0)},
		{Level: report.Notice, Kind: report.ChangeZone, What: "bl.example-list.net", Text: "wild", At: at(1, 12, 0)},
		{Level: report.Notice, Kind: report.ChangeHeld, Count: 310},
		{Level: report.Good, Kind: report.ChangeUnlisted, What: "example.jp", By: "dbl.spamhaus.org", At: at(1, 16, 0)},
		{Level: report.Notice, Kind: report.ChangeDropped, What: "198.51.100.7", By: "bl.spamcop.net", At: at(1, 17, 0)},
	}
	r.Steps = []report.Step{
		{Kind: report.StepSuspend, What: "share-by-mail@shop.example.jp", Text: "9,120 recipients in 6 hours, usually 14; 9,067 never written to before", Command: suspend},
		{Kind: report.StepProve, What: "share-by-mail@shop.example.jp", By: report.BySuspect, Command: "relayguard origins show shop.example.jp --since 6h"},
		{Kind: report.StepRemoval, What: "203.0.113.5", By: "zen.spamhaus.org", Text: "form", URL: "https://check.spamhaus.org/"},
		{Kind: report.StepRemoval, What: "203.0.113.5", By: "bl.spamcop.net", Text: "expires"},
		{Kind: report.StepHeld, What: "login:hanako@example.jp", Command: "relayguard held list --account login:hanako@example.jp"},
		{Kind: report.StepSender, What: "example.jp from 203.0.113.5", By: "spf", Text: "add ip4:203.0.113.5 to the TXT record \"v=spf1 mx ~all\""},
		{Kind: report.StepForwards, Command: "relayguard forwards list --due"},
		{Kind: report.StepZone, What: "zen.dq.spamhaus.net", By: "not_asked", Text: "it is asked with a key of Spamhaus: get one (https://www.spamhaus.com/free-trial/free-trial-for-data-query-service/) and name its file under [[zone_key]], operator = \"spamhaus\""},
		{Kind: report.StepZone, What: "b.barracudacentral.org", By: "refusing", Text: "the resolver's address is not registered"},
		{Kind: report.StepDegraded, What: "daemon", Text: "the daemon does not answer", Command: "systemctl start relayguard"},
	}
	r.Senders = append([]report.Sender{{Kind: "site", Name: "shop.example.jp", Messages: 9900, Recipients: 9980, Usual: 1700, Stopped: 30, Bounced: 2200}}, r.Senders[1:]...)
	r.Senders = append(r.Senders, report.Sender{Kind: "account", Name: "login:hanako@example.jp", Messages: 2, Recipients: 140, Usual: -1, Stopped: 310, Bounced: -1})
	r.Plugins = append([]report.Sender{{Kind: "plugin", Name: "share-by-mail@shop.example.jp", Messages: 9120, Recipients: 9120, Usual: 14, Bounced: 2190}}, r.Plugins...)
	r.Held = report.Held{
		Messages: 322, Bytes: 4_812_000, Oldest: at(0, 2, 0), Foreign: 4, Released: 12, Deleted: 1,
		By: []report.HeldBy{
			{Account: "login:hanako@example.jp", Rule: "login-burst", Messages: 310, Oldest: at(1, 8, 0)},
			{Account: "local:site12", Rule: "plugin-strangers", Messages: 12, Oldest: at(0, 2, 0)},
		},
	}
	r.Incidents = []report.Incident{
		{ID: "I7f3a21", Origin: "plugin:share-by-mail@shop.example.jp", Cause: "plugin-strangers", Opened: at(1, 4, 2), Stops: 9120, Recipients: 9120},
		{ID: "I6b0c11", Origin: "login:hanako@example.jp", Cause: "login-burst", Opened: at(1, 8, 0), Closed: at(1, 8, 40), Stops: 2, Recipients: 310},
	}
	r.Suspended = []report.Suspended{
		{Name: "login:jiro@example.jp", By: "root", Reason: "password stolen", Since: at(-1, 10, 0), Until: at(9, 10, 0)},
		{Name: "site:old.example.jp", By: "admin2", Since: at(-40, 10, 0)},
	}
	r.Forwards = report.Forwards{Watched: true, Known: 36, Due: 1, Unreviewed: 3, More: 2, New: []report.Forward{
		{ID: "F4f84698f6b3b", Owner: "info@example.jp", Target: "someone@example.org", Mechanism: "sieve", Due: true, Since: at(1, 13, 0)},
		{ID: "F41b71678b888", Owner: "taro", Target: "taro.private@example.net", Mechanism: "forward", Since: at(1, 15, 0)},
	}}
	r.Degraded = []report.Span{{What: "redis", Why: "connection refused; counted by itself", Since: at(1, 2, 0), Until: at(1, 2, 20)}}
	r.Gaps = []report.Span{{What: "mail log", Why: "it was rotated before it was read to its end", Since: at(1, 5, 0)}}
	return r
}

func unknown() *report.Report {
	r := clean()
	for i := range r.Addresses {
		a := &r.Addresses[i]
		a.Unknown, a.Clean = a.Clean, 0
		a.Days[59].State, a.Days[58].State = "unknown", "unknown"
	}
	r.Addresses[1].At = time.Time{}
	r.Addresses[2].At = at(-1, 6, 12)
	r.Zones = report.ZoneCounts{Asked: 47, Queries: 470, Resolver: "192.0.2.53:53", Warning: "192.0.2.53 takes answers in 127.0.0.0/8 away: its protection against rebinding is on", Trouble: []report.ZoneTrouble{
		{Zone: "zen.spamhaus.org", State: rbl.Filtered, Why: "NOERROR without an answer", Since: at(1, 0, 12), Severity: rbl.Critical},
		{Zone: "bl.spamcop.net", State: rbl.Rewritten, Why: "a name that does not exist has the address 198.51.100.7", Since: at(1, 0, 12), Severity: rbl.High},
		{Zone: "psbl.surriel.com", State: rbl.Silent, Why: "SERVFAIL", Since: at(1, 0, 12), Severity: rbl.Medium},
	}}
	r.Sender = nil
	r.Neighbours = nil
	r.Senders, r.Plugins = nil, nil
	r.Forwards = report.Forwards{}
	r.Missing = []report.Missing{
		{Section: report.SectionBlocklists, Why: "47 of 47 lists gave no answer that can be believed"},
		{Section: report.SectionNeighbours, Why: "no list of ranges answered"},
		{Section: report.SectionSender, Why: "the resolver did not answer"},
		{Section: report.SectionMail, Why: "open /var/lib/relayguard/journal.db: disk I/O error"},
		{Section: report.SectionHeld, Why: "the queue could not be read"},
		{Section: report.SectionForwards, Why: "no scan since 27 February"},
		{Section: report.SectionIncidents, Why: "open /var/lib/relayguard/incidents: permission denied"},
		{Section: report.SectionSuspensions, Why: "the daemon does not answer"},
		{Section: report.SectionGuard, Why: "the journal could not be read"},
		{Section: report.SectionGaps, Why: "the ledger of forwarding rules could not be read"},
	}
	r.Steps = []report.Step{{Kind: report.StepResolver, Text: "192.0.2.53 filters and rewrites"}}
	r.Changes = []report.Change{{Level: report.Look, Kind: report.ChangeDegraded, What: "blocklists", Text: "no list can be believed", At: at(1, 0, 12)}}
	return r
}

// notAsked is a day as installed: what matters most is not asked for want of a key.
func notAsked() *report.Report {
	r := clean()
	const why = "free for non-commercial use only (https://www.spamhaus.org/): get a key of Spamhaus Project, then zen.dq.spamhaus.net is asked in its place"
	r.Zones = report.ZoneCounts{Asked: 37, Healthy: 37, Queries: 1016, Resolver: "127.0.0.1:53", Trouble: []report.ZoneTrouble{
		{Zone: "zen.spamhaus.org", State: rbl.NotAsked, Why: why, Severity: rbl.Critical},
		{Zone: "b.barracudacentral.org", State: rbl.NotAsked, Why: "the address of the resolver has to be registered there first", Severity: rbl.High},
		{Zone: "bl.example.net", State: rbl.NotAsked, Why: "it is not wanted", Severity: rbl.Low},
	}}
	r.Addresses[0].Clean, r.Addresses[0].Info = 36, 1
	r.Steps = []report.Step{{Kind: report.StepZone, What: "zen.spamhaus.org", By: "not_asked", Text: why}}
	r.Since, r.Until = made.AddDate(0, 0, -1), made
	return r
}

func firstDay() *report.Report {
	r := clean()
	r.First, r.Phase = at(1, 14, 0), "learning"
	r.Since, r.Until, r.Made = at(1, 14, 0), at(1, 18, 5), at(1, 18, 5)
	for i := range r.Addresses {
		r.Addresses[i].Days, r.Addresses[i].At = nil, at(1, 14, 3)
	}
	r.Neighbours = nil
	r.Mail = report.Mail{Total: report.Verdicts{Accepted: 37}, Days: []report.DayMail{{Day: today, Verdicts: report.Verdicts{Accepted: 37}}}}
	r.Senders = []report.Sender{{Kind: "account", Name: "login:taro@example.jp", Messages: 30, Recipients: 37, Usual: -1, Bounced: -1}}
	r.Plugins = nil
	r.Forwards = report.Forwards{Watched: true, Known: 34, Unreviewed: 34}
	r.Held = report.Held{}
	return r
}

func year() *report.Report {
	r := clean()
	r.First = today.AddDate(-1, 0, 0)
	odd := map[int]string{}
	for i := 200; i < 206; i++ {
		odd[i] = "listed"
	}
	for i := 90; i < 93; i++ {
		odd[i] = "unknown"
	}
	for i := 300; i < 330; i++ {
		odd[i] = ""
	}
	r.Mail.Days = mailDays(365, r.Mail.Total)
	for i := range r.Addresses {
		r.Addresses[i].Days = states(365, odd)
	}
	r.Mail.Days[164].Held = 48_000
	r.Mail.Days = append(r.Mail.Days[:250], r.Mail.Days[262:]...) // the guard was away
	r.Mail.Days = append(r.Mail.Days[:345], r.Mail.Days[347:]...)
	return r
}

// hostile is a day on which all names were chosen by who means ill.
func hostile() *report.Report {
	r := listed()
	const (
		markup  = `</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>"'><a href=https://evil.example/>`
		bidi    = "login:\u202egnp.exe\u2066x\u200b\u00a0@example.jp"
		hebrew  = "site:חנות-שלי.example (123)"
		control = "a\x1b[31mred\x1b]0;title\x07\r\nBcc: x@example.org\x00\xff"
		marks   = "Z̸̷̵̶̡̢̧̛̖̗̘̙a"
	)
	long := strings.Repeat("verylongname", 40) + "@" + strings.Repeat("l", 200) + ".example"
	names := []string{markup, bidi, hebrew, control, marks, long, "", "{{.Host}} {what} ${x} %s"}
	next := 0
	name := func() string { next++; return names[next%len(names)] }
	r.Host = "mail1.example.jp<b>\u202e\r\nBcc: x@example.org"
	r.Phase = markup
	r.Stopped = &report.Span{What: "all", Why: control, Since: at(1, 9, 0)}
	for i := range r.Changes {
		r.Changes[i].What, r.Changes[i].By, r.Changes[i].Text = name(), name(), name()
	}
	r.Changes = append([]report.Change{{Level: report.Look, Kind: "of tomorrow<i>", What: name(), By: name(), Text: name()}}, r.Changes...)
	for i := range r.Steps {
		r.Steps[i].What, r.Steps[i].By, r.Steps[i].Text = name(), name(), name()
	}
	r.Steps[0].Command, r.Steps[0].URL = "relayguard suspend '"+markup+"'", "javascript:alert(1)"
	r.Steps[1].Command, r.Steps[1].URL = "relayguard suspend \u202eevil", "https://user:pass@evil.example/"
	r.Steps[2].Command, r.Steps[2].URL = long+long, "https://list.example/\"><script>"
	r.Steps[3].URL = "https://list.example/remove?ip=203.0.113.5&x=1"
	for i := range r.Listings {
		l := &r.Listings[i]
		l.Subject, l.Zone, l.Operator, l.Means, l.Code, l.Waits = name(), name(), name(), name(), name(), name()
		l.Reasons = []string{markup, control, long}
		l.Removal.URL = []string{"javascript:alert(1)", "data:text/html,x", "HTTPS://list.example/", "https://"}[i]
		l.Removal.How = append([]string{name()}, l.Removal.How...)
		for k := range l.Suspects {
			l.Suspects[k].Name, l.Suspects[k].Kind, l.Suspects[k].Command = name(), name(), name()
			l.Suspects[k].Share = []float64{-1, 2, 0.5}[k%3]
		}
	}
	for i := range r.Ended {
		r.Ended[i].Subject, r.Ended[i].Zone = name(), name()
	}
	for i := range r.Addresses {
		r.Addresses[i].Subject, r.Addresses[i].How = name(), name()
	}
	for i := range r.Zones.Trouble {
		r.Zones.Trouble[i].Zone, r.Zones.Trouble[i].Why = name(), name()
	}
	r.Zones.Resolver, r.Zones.Warning = markup, bidi
	for i := range r.Neighbours.Ranges {
		r.Neighbours.Ranges[i].Zone = name()
	}
	for i := range r.Sender {
		f := &r.Sender[i]
		f.Subject, f.Check, f.State, f.Found, f.Wanted = name(), name(), []string{"wrong", "unknown", "odd"}[i%3], name(), name()
	}
	for _, all := range [][]report.Sender{r.Senders, r.Plugins} {
		for i := range all {
			all[i].Name, all[i].Kind = name(), name()
		}
	}
	for i := range r.Held.By {
		r.Held.By[i].Account, r.Held.By[i].Rule = name(), name()
	}
	for i := range r.Incidents {
		r.Incidents[i].ID, r.Incidents[i].Origin, r.Incidents[i].Cause = name(), name(), name()
	}
	for i := range r.Suspended {
		r.Suspended[i].Name, r.Suspended[i].By, r.Suspended[i].Reason = name(), name(), name()
	}
	for i := range r.Forwards.New {
		f := &r.Forwards.New[i]
		f.ID, f.Owner, f.Target, f.Mechanism = name(), name(), name(), name()
	}
	r.Degraded[0].What, r.Degraded[0].Why = name(), name()
	r.Gaps[0].What, r.Gaps[0].Why = name(), name()
	r.Missing = []report.Missing{{Section: name(), Why: name()}, {Section: "deliveries", Why: markup}}
	return r
}
