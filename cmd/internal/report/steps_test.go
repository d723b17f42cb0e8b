package report_test

import (
	"encoding/json"
	"strings"
	"testing"

	"relayguard/cmd/internal/report"
	"relayguard/rbl"
)

// flat is a report as text, on one line.
func flat(t *testing.T, r *report.Report, lang string) string {
	t.Helper()
	return strings.Join(strings.Fields(text(t, r, lang)), " ")
}

// A page that is not https is the only way out of some lists: its address is shown,
// and leads nowhere by itself.
func TestAPageWithoutTLSIsShownAndNoLink(t *testing.T) {
	const page = "http://wiki.list.example/index.php/Removal?ip=203.0.113.5"
	r := clean()
	r.Listings = []report.Listing{{Subject: "203.0.113.5", Zone: "a.example", Severity: rbl.High, Confirmed: true, Removal: rbl.Removal{URL: page, How: []string{"form"}}}}
	r.Steps = []report.Step{{Kind: report.StepRemoval, What: "203.0.113.5", By: "a.example", Text: "form", URL: page}}
	asText, asPage := both(t, r, "en")
	if n := strings.Count(asText, " "+page+"\n"); n != 2 {
		t.Errorf("%d times in the text, want 2", n)
	}
	if n := strings.Count(asPage, ">"+page+"</code>"); n != 2 || strings.Contains(asPage, "<a ") {
		t.Errorf("%d times in the page, want 2 and no link", n)
	}
	r.Listings[0].Removal = rbl.Removal{URL: page} // how is not known
	if asText, _ := both(t, r, "en"); strings.Count(asText, page) != 2 {
		t.Error("without a way it is not shown")
	}
	for _, bad := range []string{"http://user:pass@a.example/", "http://", "http:a.example", "HTTP://a.example/", "ftp://a.example/", "http://a.example/ x", "http://a.example/\u202e", "http://" + strings.Repeat("a", 600)} {
		r.Steps[0].URL, r.Listings[0].Removal.URL = bad, bad
		if asText, asPage := both(t, r, "en"); strings.Contains(asText, bad) || strings.Contains(asPage, bad) {
			t.Errorf("%.60q is shown", bad)
		}
	}
}

func TestStepsSayWhatTheyAreAbout(t *testing.T) {
	const remedy = `it is asked with a key of Spamhaus: get one (https://www.spamhaus.com/free-trial/) and name its file under [[zone_key]], operator = "spamhaus"`
	for name, c := range map[string]struct {
		step   report.Step
		en, ja string
	}{
		"a list without a key": {report.Step{Kind: report.StepZone, What: "zen.example", By: "not_asked", Text: remedy}, "Have zen.example asked; or name it in rbl.disable if you do not want it. " + remedy, "zen.example に問い合わせできるように"},
		"one to register with": {report.Step{Kind: report.StepZone, What: "b.example", By: "not_asked", Text: "the address of the resolver has to be registered there first"}, "Have b.example asked; or name it in rbl.disable if you do not want it. the address of the resolver has to be registered there first", "rbl.disable"},
		"a list that refuses":  {report.Step{Kind: report.StepZone, What: "b.example", By: "refusing", Text: "127.255.255.254"}, "b.example refuses our questions: use a resolver of your own, a key, or register it. 127.255.255.254", "b.example が問い合わせを拒否"},
		"a state of tomorrow":  {report.Step{Kind: report.StepZone, What: "b.example", By: "asleep"}, "See why b.example cannot be believed: asleep.", "b.example の回答を信頼できない原因"},
		"a suspect":            {report.Step{Kind: report.StepProve, What: "site:shop.example.jp", By: report.BySuspect}, "See that site:shop.example.jp has stopped before", "site:shop.example.jp が止まったことを確認"},
		"no suspect":           {report.Step{Kind: report.StepProve, What: "203.0.113.5"}, "See that what 203.0.113.5 is listed for has stopped before", "203.0.113.5 の掲載の原因が止まったことを確認"},
		"nobody":               {report.Step{Kind: report.StepProve}, "See that it has stopped before", "原因が止まったことを確認"},
		"a daemon":             {report.Step{Kind: report.StepDegraded, What: "daemon", Text: "it does not answer", Command: "systemctl start relayguard"}, "See to daemon: it is not well. it does not answer $ systemctl start relayguard ", "$ systemctl start relayguard "},
	} {
		r := clean()
		r.Steps = []report.Step{c.step}
		if got := flat(t, r, "en"); !strings.Contains(got, c.en) {
			t.Errorf("%s: no %q in %s", name, c.en, got)
		}
		if got := flat(t, r, "ja"); !strings.Contains(strings.ReplaceAll(got, " ", ""), strings.ReplaceAll(c.ja, " ", "")) {
			t.Errorf("%s: no %q in %s", name, c.ja, got)
		}
	}
}

func TestTheAddressOfAPageInASentenceIsNotCut(t *testing.T) {
	const url = "https://list.example/a/page/that/tells"
	for before := 200; before < 320; before++ {
		r := clean()
		r.Steps = []report.Step{{Kind: report.StepZone, What: "zen.example", By: "not_asked", Text: strings.Repeat("x ", before/2) + "(" + url + ") and more words behind that are too many"}}
		_, page := both(t, r, "en")
		if part := strings.Contains(page, "https:"); part != strings.Contains(page, url) {
			t.Fatalf("%d characters before it: a part of the address is shown", before)
		}
	}
}

func TestWhatStillWaitsIsNotComparedWithTheDayBefore(t *testing.T) {
	r := clean()
	r.Changes = []report.Change{{Level: report.Look, Kind: report.ChangeHeld, Count: 310}}
	if got := flat(t, r, "en"); !strings.Contains(got, "310 messages that were held in these 24 hours still wait") || strings.Contains(got, "more") {
		t.Error(got)
	}
	if got := text(t, r, "ja"); !strings.Contains(got, "この 24 時間に保留したメールのうち、310 通がまだ保留中です") || strings.Contains(got, "前日より") {
		t.Error(got)
	}
}

func TestAListingThatNobodyChecksIsNotOver(t *testing.T) {
	dropped := report.Listing{Subject: "198.51.100.7", Zone: "gone.example", Severity: rbl.High, Confirmed: true, Since: at(-2, 1, 0), Ended: at(1, 4, 0), Dropped: true, Removal: rbl.Removal{How: []string{"form"}}}
	for lang, says := range map[string]struct{ dropped, ended, change, never string }{
		"en": {"198.51.100.7 on gone.example [high] [this address] [no longer checked]", "198.51.100.7 on gone.example: no longer checked since 1 Mar 04:00", "198.51.100.7 on gone.example is no longer checked", "no longer listed"},
		"ja": {"[確認終了]", "1日 04:00 から確認していません", "198.51.100.7 の gone.example への掲載は確認しなくなりました", "終わりました"},
	} {
		r := clean()
		r.Listings, r.Ended = []report.Listing{dropped}, []report.Listing{dropped}
		r.Changes = []report.Change{{Level: report.Good, Kind: report.ChangeDropped, What: "198.51.100.7", By: "gone.example", At: at(1, 4, 0)}}
		got := flat(t, r, lang)
		for _, want := range []string{says.dropped, says.ended, says.change} {
			if !strings.Contains(strings.ReplaceAll(got, " ", ""), strings.ReplaceAll(want, " ", "")) {
				t.Errorf("%s: no %q in %s", lang, want, got)
			}
		}
		for _, never := range []string{says.never, "[better]", "[解消]", "The way out", "解除までの手順"} {
			if strings.Contains(got, never) {
				t.Errorf("%s: %q in %s", lang, never, got)
			}
		}
	}
}

func TestAListingWithoutAnAnswerMayBeOver(t *testing.T) {
	r := clean()
	r.Listings = []report.Listing{{Subject: "203.0.113.5", Zone: "a.example", Severity: rbl.High, Confirmed: true, Since: at(-2, 1, 0), Unasked: at(1, 4, 0)}}
	if got := flat(t, r, "en"); !strings.Contains(got, "[unknown] No answer that can be believed since 1 Mar 04:00: it may be over.") || !strings.Contains(got, "[no answer now]") {
		t.Error(got)
	}
	if got := flat(t, r, "ja"); !strings.Contains(got, "3月1日 04:00 から信頼できる回答がありません") {
		t.Error(got)
	}
}

// Welcome lists have us, and that is no listing.
func TestWhatOnlyInformsIsNotCountedAsListed(t *testing.T) {
	r := clean()
	r.Addresses = r.Addresses[:1]
	a := &r.Addresses[0]
	a.Info, a.Wide = 2, 1
	r.Listings = []report.Listing{{Subject: a.Subject, Zone: "list.dnswl.example", Severity: rbl.Info, Confirmed: true}}
	r.Ended = []report.Listing{{Subject: a.Subject, Zone: "wl.example", Severity: rbl.Info, Since: at(-1, 1, 0), Ended: at(1, 1, 0)}}
	got := flat(t, r, "en")
	if !strings.Contains(got, "[clean] 203.0.113.5 0 listed, 47 clean, 0 unknown, 0 refused. 2 Mar 06:12 1 names a range or network that it is in. 2 inform only.") {
		t.Error(got)
	}
	for _, never := range []string{"listed on", "2 listed", "[better]"} {
		if strings.Contains(strings.ReplaceAll(got, "no longer listed on", ""), never) {
			t.Errorf("%q in %s", never, got)
		}
	}
	a.Info, a.Wide = 0, 0
	if got := flat(t, r, "en"); strings.Contains(got, "inform") && strings.Contains(got, "inform only") || strings.Contains(got, "names a range") {
		t.Error(got)
	}
}

// What nobody fills is not in the JSON of a report.
func TestASenderHasNoTrend(t *testing.T) {
	text, err := json.Marshal(report.Sender{Kind: "site", Name: "x"})
	if err != nil || strings.Contains(string(text), "days") {
		t.Errorf("%s, %v", text, err)
	}
}
