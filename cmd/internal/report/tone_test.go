package report_test

import (
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/report"
	"relayguard/rbl"
)

// TestTheToneIsThatOfTheHeadline goes through what an exit status tells apart.
func TestTheToneIsThatOfTheHeadline(t *testing.T) {
	trouble := func(zone string, state rbl.State, s rbl.Severity) func(*report.Report) {
		return func(r *report.Report) {
			r.Zones.Healthy = 37
			if r.Zones.Asked = 37; state != rbl.NotAsked {
				r.Zones.Asked = 38
			}
			r.Zones.Trouble = append(r.Zones.Trouble, report.ZoneTrouble{Zone: zone, State: state, Severity: s})
		}
	}
	listing := func(change func(*report.Listing)) func(*report.Report) {
		return func(r *report.Report) {
			l := report.Listing{Subject: "203.0.113.5", Zone: "a.example", Severity: rbl.Medium, Since: at(1, 1, 0), Confirmed: true}
			change(&l)
			r.Listings = append(r.Listings, l)
		}
	}
	first := func(change func(*report.Checked)) func(*report.Report) {
		return func(r *report.Report) { change(&r.Addresses[0]) }
	}
	lacking := func(section string) func(*report.Report) {
		return func(r *report.Report) { r.Missing = append(r.Missing, report.Missing{Section: section, Why: "x"}) }
	}
	type changes []func(*report.Report)
	for name, c := range map[string]struct {
		changes changes
		tone    report.Tone
		en, ja  string
	}{
		"clean":                     {nil, report.ToneGood, "all clean", "すべて掲載なし"},
		"a list that matters":       {changes{trouble("zen.example", rbl.NotAsked, rbl.Critical)}, report.ToneNote, "clean on 37 blocklists; zen.example is not asked (", "問い合わせ対象外: zen.example ("},
		"several, the worst last":   {changes{trouble("high.example", rbl.NotAsked, rbl.High), trouble("zen.example", rbl.NotAsked, rbl.Critical), trouble("low.example", rbl.NotAsked, rbl.Low)}, report.ToneNote, "clean on 37 blocklists; zen.example and 1 more are not asked (", "zen.example ほか 1 個"},
		"not asked, others silent":  {changes{trouble("zen.example", rbl.NotAsked, rbl.Critical), func(r *report.Report) { r.Zones.Asked = 40 }}, report.ToneNote, "clean on 37 blocklists, unknown on 3; zen.example is not asked", "3 個は不明、問い合わせ対象外"},
		"none that matters":         {changes{trouble("low.example", rbl.NotAsked, rbl.Medium)}, report.ToneGood, "all clean", "すべて掲載なし"},
		"silent":                    {changes{trouble("zen.example", rbl.Silent, rbl.High)}, report.ToneUnknown, "cannot tell for zen.example (silent); clean on 37", "判定できないリストあり: zen.example(回答なし)"},
		"refusing":                  {changes{trouble("zen.example", rbl.Refusing, rbl.High)}, report.ToneUnknown, "cannot tell for zen.example (refuses us)", "zen.example"},
		"emptied":                   {changes{trouble("zen.example", rbl.Emptied, rbl.High)}, report.ToneUnknown, "cannot tell for zen.example", "zen.example"},
		"dead":                      {changes{trouble("zen.example", rbl.Dead, rbl.High)}, report.ToneUnknown, "cannot tell for zen.example", "zen.example"},
		"wild":                      {changes{trouble("zen.example", rbl.Wild, rbl.High)}, report.ToneUnknown, "cannot tell for zen.example", "zen.example"},
		"parked":                    {changes{trouble("zen.example", rbl.Parked, rbl.High)}, report.ToneUnknown, "cannot tell for zen.example", "zen.example"},
		"filtered":                  {changes{trouble("zen.example", rbl.Filtered, rbl.High)}, report.ToneUnknown, "cannot tell for zen.example", "zen.example"},
		"rewritten, and one more":   {changes{trouble("bl.example", rbl.Silent, rbl.High), trouble("zen.example", rbl.Rewritten, rbl.Critical)}, report.ToneUnknown, "cannot tell for zen.example and 1 more (rewritten by the resolver)", "zen.example ほか 1 個(リゾルバーが書き換え)"},
		"silent and of little use":  {changes{trouble("low.example", rbl.Silent, rbl.Medium)}, report.ToneGood, "clean on 37 blocklists, unknown on 1", "1 個は不明"},
		"silent, and a range":       {changes{trouble("zen.example", rbl.Silent, rbl.High), listing(func(l *report.Listing) { l.Scope = rbl.ScopeRange })}, report.ToneUnknown, "cannot tell for zen.example", "zen.example"},
		"silent, and listed":        {changes{trouble("zen.example", rbl.Silent, rbl.High), listing(func(*report.Listing) {})}, report.ToneAct, "listed on 1 blocklist (", "掲載"},
		"listed":                    {changes{listing(func(*report.Listing) {})}, report.ToneAct, "listed on 1", "掲載"},
		"listed, no answer since":   {changes{listing(func(l *report.Listing) { l.Unasked = at(1, 3, 0) })}, report.ToneAct, "listed on 1", "掲載"},
		"listed, the check is dead": {changes{listing(func(*report.Listing) {}), lacking(report.SectionBlocklists)}, report.ToneAct, "listed on 1", "掲載"},
		"no longer checked":         {changes{listing(func(l *report.Listing) { l.Dropped = true })}, report.ToneGood, "all clean", "すべて掲載なし"},
		"not confirmed":             {changes{listing(func(l *report.Listing) { l.Confirmed = false })}, report.ToneLook, "perhaps listed", "掲載の疑い"},
		"a range":                   {changes{listing(func(l *report.Listing) { l.Scope = rbl.ScopeRange })}, report.ToneLook, "our network", "所属ネットワーク"},
		"a range not confirmed":     {changes{listing(func(l *report.Listing) { l.Scope, l.Confirmed = rbl.ScopeRange, false })}, report.ToneGood, "all clean", "すべて掲載なし"},
		"counts that say nothing":   {changes{first(func(a *report.Checked) { a.Info, a.Wide = 2, 3 })}, report.ToneGood, "all clean", "すべて掲載なし"},
		"only those answered":       {changes{first(func(a *report.Checked) { a.Info, a.Wide, a.Clean, a.Unknown = 2, 3, 0, 5 })}, report.ToneGood, "all clean", "すべて掲載なし"},
		"a hit beside information":  {changes{listing(func(l *report.Listing) { l.Severity = rbl.Info }), first(func(a *report.Checked) { a.Info, a.Listed = 1, 1 })}, report.ToneLook, "perhaps listed: 1", "掲載の疑い"},
		"a hit beside a range":      {changes{listing(func(l *report.Listing) { l.Scope = rbl.ScopeRange }), first(func(a *report.Checked) { a.Wide, a.Listed = 1, 1 })}, report.ToneLook, "perhaps listed: 1", "掲載の疑い"},
		"no address":                {changes{func(r *report.Report) { r.Addresses = nil }}, report.ToneUnknown, "cannot tell whether", "判定できません"},
		"no round": {changes{func(r *report.Report) {
			for i := range r.Addresses {
				r.Addresses[i].At = time.Time{}
			}
		}}, report.ToneUnknown, "cannot tell whether", "判定できません"},
		"an old round": {changes{func(r *report.Report) {
			for i := range r.Addresses {
				r.Addresses[i].At = r.Since.Add(-time.Second)
			}
		}}, report.ToneUnknown, "cannot tell whether", "判定できません"},
		"fewer answers than silence": {changes{first(func(a *report.Checked) { a.Clean, a.Unknown, a.Refused = 4, 3, 2 })}, report.ToneUnknown, "cannot tell for 1 of 3", "判定できません"},
		"the check does not run":     {changes{lacking(report.SectionBlocklists)}, report.ToneUnknown, "cannot tell whether", "判定できません"},
		"a remark about lists":       {changes{lacking(report.SectionLists)}, report.ToneGood, "all clean", "すべて掲載なし"},
		"all mail is stopped":        {changes{func(r *report.Report) { r.Stopped = &report.Span{Since: at(1, 1, 0)} }}, report.ToneGood, "ALL MAIL STOPPED; all clean", "すべて掲載なし"},
	} {
		r := clean()
		for _, change := range c.changes {
			change(r)
		}
		if got := r.Tone(); got != c.tone {
			t.Errorf("%s: %s, want %s", name, got, c.tone)
		}
		if got := report.Subject(r, "en"); !strings.Contains(got, c.en) || strings.Contains(got, "all clean") != strings.Contains(c.en, "all clean") {
			t.Errorf("%s: %q, want %q", name, got, c.en)
		}
		if got := report.Subject(r, "ja"); !strings.Contains(got, c.ja) || strings.Contains(got, "すべて掲載なし") != strings.Contains(c.ja, "すべて掲載なし") {
			t.Errorf("%s: %q, want %q", name, got, c.ja)
		}
		if _, page := both(t, r, "en"); !strings.Contains(page, `<div class="verdict `+string(c.tone)+`"`) {
			t.Errorf("%s: the verdict is not shown as %s", name, c.tone)
		}
	}
	if got := (&report.Report{}).Tone(); got != report.ToneUnknown {
		t.Errorf("of nothing: %s", got)
	}
}

// head is a report as text until its first heading, on one line.
func head(t *testing.T, r *report.Report) string {
	t.Helper()
	before, _, found := strings.Cut(text(t, r, "en"), "What changed")
	if !found {
		t.Fatal("no heading")
	}
	return strings.Join(strings.Fields(before), " ")
}

func TestACheckThatDoesNotRunIsNamedAtTheTop(t *testing.T) {
	for name, r := range map[string]*report.Report{"clean": clean(), "listed": listed()} {
		r.Missing = []report.Missing{{Section: report.SectionBlocklists, Why: "the check cannot run: open /etc/relayguard/zones.toml: permission denied"}}
		if got := head(t, r); !strings.Contains(got, "the check cannot run: open /etc/relayguard/zones.toml: permission denied") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestTheHeadNamesListsThatMatterWhateverTheVerdict(t *testing.T) {
	got := head(t, listed())
	for _, want := range []string{"Listed on 2 blocklists", "bl.spamcop.net and 1 more among them", " zen.dq.spamhaus.net is not asked.", "1 of these listings gets no answer now: it may be over."} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

func TestAReportHasOneDate(t *testing.T) {
	r := clean()
	r.Made = time.Date(2026, 3, 2, 6, 30, 0, 0, japan)
	r.Since, r.Until = r.Made.AddDate(0, 0, -1), r.Made
	for lang, want := range map[string][2]string{
		"en": {"(2 Mar)", "Monday, 2 March 2026: 24 hours until 2 Mar 06:30 JST."},
		"ja": {"(3月2日)", "2026年3月2日(月): 3月2日 06:30 JST までの 24 時間。"},
	} {
		if got := report.Subject(r, lang); !strings.HasSuffix(got, want[0]) {
			t.Errorf("subject %q, want %s", got, want[0])
		}
		text, page := both(t, r, lang)
		for _, got := range []string{text[:300], page[strings.Index(page, "<body>"):][:400]} {
			if !strings.Contains(got, want[1]) || strings.Contains(got, "1 Mar") || strings.Contains(got, "3月1日") {
				t.Errorf("head %q, want %q", got, want[1])
			}
		}
		if title := page[strings.Index(page, "<title>"):]; !strings.Contains(title[:200], want[0]) {
			t.Errorf("title %.200q, want %s", title, want[0])
		}
	}
}
