package report_test

import (
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/report"
	"relayguard/rbl"
)

// TestTheVerdictNeverTakesUnknownForClean goes through what a day can be.
func TestTheVerdictNeverTakesUnknownForClean(t *testing.T) {
	listing := func(change func(*report.Listing)) func(*report.Report) {
		return func(r *report.Report) {
			l := report.Listing{Subject: "203.0.113.5", Zone: "a.example", Severity: rbl.Medium, Since: at(1, 1, 0), Confirmed: true}
			change(&l)
			r.Listings = append(r.Listings, l)
		}
	}
	silence := func(r *report.Report) {
		for i := range r.Addresses {
			r.Addresses[i].Clean, r.Addresses[i].Unknown = 4, 5
		}
	}
	for name, c := range map[string]struct {
		changes []func(*report.Report)
		en, ja  string
	}{
		"clean":                          {nil, "all clean", "すべて掲載なし"},
		"nobody asked":                   {[]func(*report.Report){func(r *report.Report) { r.Addresses = nil }}, "cannot tell", "判定できません"},
		"no round yet":                   {[]func(*report.Report){func(r *report.Report) { r.Addresses[0].At = time.Time{} }}, "cannot tell for 1 of 3", "3 個のうち 1 個"},
		"the round was before":           {[]func(*report.Report){func(r *report.Report) { r.Addresses[1].At = today.Add(-time.Second) }}, "cannot tell for 1 of 3", "判定できません"},
		"most are silent":                {[]func(*report.Report){silence}, "cannot tell whether", "判定できません"},
		"all refuse":                     {[]func(*report.Report){func(r *report.Report) { r.Addresses[0].Refused, r.Addresses[0].Clean = 47, 0 }}, "cannot tell for 1 of 3", "判定できません"},
		"the history is gone":            {[]func(*report.Report){func(r *report.Report) { r.Missing = []report.Missing{{Section: report.SectionBlocklists, Why: "x"}} }}, "cannot tell whether", "判定できません"},
		"an address is not known":        {[]func(*report.Report){func(r *report.Report) { r.Missing = []report.Missing{{Section: report.SectionAddresses, Why: "x"}} }}, "not listed as far as is known", "未確認の送信アドレス"},
		"a list has a warning":           {[]func(*report.Report){func(r *report.Report) { r.Missing = []report.Missing{{Section: report.SectionLists, Why: "x"}} }}, "all clean", "すべて掲載なし"},
		"some lists are silent":          {[]func(*report.Report){func(r *report.Report) { r.Zones.Healthy = 44 }}, "clean on 44 blocklists, unknown on 3", "3 個は不明"},
		"listed":                         {[]func(*report.Report){listing(func(*report.Listing) {})}, "listed on 1 blocklist (", "1 個のブラックリストに掲載"},
		"listed twice on one":            {[]func(*report.Report){listing(func(*report.Listing) {}), listing(func(l *report.Listing) { l.Code = "127.0.0.9" })}, "listed on 1 blocklist (", "1 個のブラックリストに掲載"},
		"listed on two":                  {[]func(*report.Report){listing(func(*report.Listing) {}), listing(func(l *report.Listing) { l.Zone = "b.example" })}, "listed on 2 blocklists (", "2 個のブラックリストに掲載"},
		"listed, and the rest is silent": {[]func(*report.Report){silence, listing(func(*report.Listing) {})}, "listed on 1 blocklist (", "1 個のブラックリストに掲載"},
		"listed, the list is silent":     {[]func(*report.Report){listing(func(l *report.Listing) { l.Unasked = at(1, 3, 0) })}, "listed on 1 blocklist (", "1 個のブラックリストに掲載"},
		"not confirmed":                  {[]func(*report.Report){listing(func(l *report.Listing) { l.Confirmed = false })}, "perhaps listed: 1 sighting not confirmed", "掲載の疑い"},
		"not confirmed, all silent":      {[]func(*report.Report){silence, listing(func(l *report.Listing) { l.Confirmed, l.Subject = false, "x" })}, "cannot tell", "判定できません"},
		"a range":                        {[]func(*report.Report){listing(func(l *report.Listing) { l.Scope = rbl.ScopeRange })}, "not listed ourselves, but our network is on 1 blocklist (", "所属ネットワーク"},
		"information, counted":           {[]func(*report.Report){listing(func(l *report.Listing) { l.Severity = rbl.Info }), func(r *report.Report) { r.Addresses[0].Info = 1 }}, "all clean", "すべて掲載なし"},
		"an answer that nobody explains": {[]func(*report.Report){func(r *report.Report) { r.Addresses[0].Listed = 1 }}, "perhaps listed", "掲載の疑い"},
		"information":                    {[]func(*report.Report){listing(func(l *report.Listing) { l.Severity = rbl.Info })}, "all clean", "すべて掲載なし"},
		"an incident":                    {[]func(*report.Report){func(r *report.Report) { r.Incidents = []report.Incident{{ID: "I1", Opened: at(1, 1, 0)}} }}, "all clean; 1 incident open", "インシデント 1 件"},
		"an incident that is over": {[]func(*report.Report){func(r *report.Report) {
			r.Incidents = []report.Incident{{ID: "I1", Opened: at(1, 1, 0), Closed: at(1, 2, 0)}}
		}}, "all clean (", "すべて掲載なし ("},
		"stopped": {[]func(*report.Report){func(r *report.Report) { r.Stopped = &report.Span{Since: at(1, 1, 0)} }}, "ALL MAIL STOPPED; all clean", "全送信停止中"},
	} {
		r := clean()
		for _, change := range c.changes {
			change(r)
		}
		if got := report.Subject(r, "en"); !strings.Contains(got, c.en) || !strings.HasPrefix(got, "mail1.example.jp: ") {
			t.Errorf("%s: %q, want %q", name, got, c.en)
		}
		if got := report.Subject(r, "ja"); !strings.Contains(got, c.ja) {
			t.Errorf("%s: %q, want %q", name, got, c.ja)
		}
		text, page := both(t, r, "en")
		if clean := strings.Contains(c.en, "clean"); strings.Contains(page, `<div class="verdict good"`) != clean {
			t.Errorf("%s: is the verdict shown as clean?", name)
		}
		if name == "most are silent" && strings.Contains(text, "[clean]") {
			t.Errorf("%s: an address is shown as clean", name)
		}
	}
}

// TestWhatIsMissingIsNotShownAsANumber takes sections away, one by one.
func TestWhatIsMissingIsNotShownAsANumber(t *testing.T) {
	for section, c := range map[string]struct{ says, silent string }{
		report.SectionMail:        {"How much mail there was could not be found out", "14,870"},
		report.SectionDeliveries:  {"What became of deliveries could not be found out", "2,318"},
		report.SectionHeld:        {"What is held could not be found out", "4.8 MB"},
		report.SectionForwards:    {"Forwarding rules could not be looked at", "36 rules"},
		report.SectionNeighbours:  {"How the addresses around ours stand could not be found out", "9 of 256"},
		report.SectionIncidents:   {"Which incidents there are could not be found out", "\x00"},
		report.SectionSuspensions: {"Who is suspended could not be found out", "\x00"},
		report.SectionGuard:       {"Whether the guard was well all the time could not be found out", "It was well"},
		report.SectionGaps:        {"Whether there are gaps in the evidence could not be found out", "no gaps"},
		report.SectionSender:      {"could not all be looked at", "\x00"},
		report.SectionChanges:     {"What changed could not be found out", "Nothing changed"},
		report.SectionUsual:       {"usual number not known yet", "7,200"},
		report.SectionBlocklists:  {"This is not \"clean\"", "All clean"},
		report.SectionHistory:     {"on the days before could not be found out", "\x00"},
	} {
		r := listed()
		r.Missing = []report.Missing{{Section: section, Why: "the disk is gone"}}
		text, _ := both(t, r, "en")
		text = strings.Join(strings.Fields(text), " ")
		if !strings.Contains(text, c.says) || !strings.Contains(text, "the disk is gone") {
			t.Errorf("%s: the report does not say %q", section, c.says)
		}
		if strings.Contains(text, c.silent) {
			t.Errorf("%s: the report says %q all the same", section, c.silent)
		}
	}
}

func TestChangesAndStepsOfAnyKindAreSentences(t *testing.T) {
	for _, kind := range []string{report.ChangeListed, report.ChangeSuspected, report.ChangeUnlisted, report.ChangeZone, report.ChangeZoneWell, report.ChangeSender, report.ChangeSenderWell,
		report.ChangeDropped, report.ChangeIncident, report.ChangeClosed, report.ChangeSuspended, report.ChangeResumed, report.ChangeForward, report.ChangeForwardGone, report.ChangeDegraded,
		report.ChangeVolume, report.ChangeStopped, report.ChangeStarted, "of_tomorrow"} {
		for _, further := range []string{"", "further"} {
			r := clean()
			r.Changes = []report.Change{{Level: report.Look, Kind: kind, What: "the-thing", By: "the-one", Text: further}}
			got := text(t, r, "en")
			if !strings.Contains(got, "the-thing") && !strings.Contains(got, "the-one") {
				t.Errorf("change %s: nothing is said of what it is about", kind)
			}
		}
	}
	for _, kind := range []string{report.StepSuspend, report.StepProve, report.StepRemoval, report.StepHeld, report.StepForwards, report.StepSender, report.StepZone, report.StepDegraded, report.StepIncident, "of_tomorrow"} {
		for _, further := range []string{"", "further", "form", "wild"} {
			r := clean()
			r.Steps = []report.Step{{Kind: kind, What: "the-thing", By: "the-one", Text: further}}
			if got := text(t, r, "ja"); !strings.Contains(got, "the-thing") {
				t.Errorf("step %s: nothing is said of what it is about", kind)
			}
		}
	}
}

// TestTheWayOutIsInOrder reads the steps of a listing that another one blocks.
func TestTheWayOutIsInOrder(t *testing.T) {
	text, _ := both(t, listed(), "en")
	_, text, _ = strings.Cut(text, "The way out, in this order")
	last := -1
	for _, want := range []string{"1. Stop it: share-by-mail@shop.example.jp", "$ relayguard suspend plugin:share-by-mail", "2. See for some hours", "3. First this has to end", "4. Ask for removal with the list's form", "https://check.spamhaus.org/", "5. If that does not help"} {
		i := strings.Index(text, want)
		if i <= last {
			t.Errorf("%q is at %d, after %d", want, i, last)
		}
		last = i
	}
}

func TestNumbersOfTheDayStandAgainstTheUsual(t *testing.T) {
	r := clean()
	r.Senders = []report.Sender{
		{Kind: "site", Name: "much", Recipients: 300, Usual: 100}, {Kind: "site", Name: "little", Recipients: 49, Usual: 1},
		{Kind: "site", Name: "usual", Recipients: 299, Usual: 100}, {Kind: "site", Name: "new", Recipients: 300, Usual: -1},
	}
	text, _ := both(t, r, "en")
	for name, far := range map[string]bool{"much": true, "little": false, "usual": false, "new": false} {
		_, after, _ := strings.Cut(text, " "+name+" ")
		row, _, _ := strings.Cut(after, "\n")
		under, _, _ := strings.Cut(strings.TrimPrefix(after, row+"\n"), "\n")
		if strings.Contains(under, "far above its usual") != far {
			t.Errorf("%s: %q", name, under)
		}
	}
}

func TestAnUnknownLanguageIsAnError(t *testing.T) {
	var b strings.Builder
	if err := report.Text(&b, clean(), "xx"); err == nil || !strings.Contains(err.Error(), `"xx"`) || b.Len() > 0 {
		t.Errorf("text: %v", err)
	}
	if err := report.HTML(&b, clean(), "../en"); err == nil || b.Len() > 0 {
		t.Errorf("HTML: %v", err)
	}
	if _, err := report.Letter(clean(), "", "a@example.jp", []string{"b@example.jp"}, "1@example.jp"); err == nil {
		t.Error("letter: no error")
	}
}

func TestTimesAreInTheServersZone(t *testing.T) {
	r := clean()
	r.Held = report.Held{Messages: 1, Bytes: 1, Oldest: at(1, 0, 30).UTC()}
	text, _ := both(t, r, "en")
	if !strings.Contains(text, "since 1 Mar 00:30") || !strings.Contains(text, "JST") {
		t.Errorf("the oldest mail of 00:30 JST: %s", text)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	r.Since, r.Until, r.Made = time.Date(2026, 3, 29, 0, 0, 0, 0, berlin), time.Date(2026, 3, 30, 0, 0, 0, 0, berlin), time.Date(2026, 3, 30, 6, 0, 0, 0, berlin) // 23 hours
	if text, _ := both(t, r, "en"); !strings.Contains(text, "Monday, 30 March 2026: 23 hours until 30 Mar 00:00 CEST. Made 30 Mar 06:00.") {
		t.Errorf("a day of 23 hours: %.160s", text)
	}
}
