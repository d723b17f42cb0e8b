package incident_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"

	"relayguard/incident"
)

var update = flag.Bool("update", false, "write the letters anew")

// abused is an incident of a plugin as the book has it, and clients that a letter
// must not name.
func abused() incident.Incident {
	d := &incident.Details{Site: "shop.example.jp", Plugin: "share-by-mail",
		Entries:    []incident.Count{{Value: "ajax", Count: 57_000}, {Value: "page", Count: 2}},
		Scripts:    []incident.Count{{Value: "wp-content/plugins/share-by-mail/send.php:41", Count: 57_002}},
		WebClients: []incident.Count{{Value: "198.51.100.7", Count: 57_002}}}
	return incident.Incident{ID: "i-0d5kqw3m8x", Origin: "plugin:share-by-mail@shop.example.jp", Account: "local_user:site12", Cause: "plugin-first-time", Noticed: "mail was held",
		Opened: start, Updated: start.Add(26 * time.Hour), Stops: 57_002, Recipients: 57_010, Details: d,
		Notes: []incident.Note{{Time: start, Text: "complained of by hanako@example.net"}}}
}

func letterOf(i incident.Incident, lang string, stage incident.Stage) incident.Letter {
	l := incident.Letter{Incident: i, Lang: lang, Stage: stage, Kind: "abuse", Strangers: true, PassedMessages: 24, PassedRecipients: 25, Held: 480, Now: start.Add(48 * time.Hour), Location: time.FixedZone("JST", 9*3600)}
	if stage == incident.StageRecovered || stage == incident.StageAnalysis {
		l.Incident.Closed, l.Incident.Reopened = start.Add(40*time.Hour), 2
		l.Held, l.Released, l.Deleted = 0, 3, 477
	}
	return l
}

// resumedNote is what the time line has of a resumption.
func resumedNote(l *incident.Letter, text string) {
	l.Incident.Notes = append(l.Incident.Notes, incident.Note{Time: start.Add(38 * time.Hour), Text: text})
	l.Probation = start.Add((38 + 7*24) * time.Hour)
}

// letterCases are letters by the measure and by whose mail they are about.
var letterCases = map[string]struct {
	change func(*incident.Letter)
	stages []incident.Stage
}{
	"": {func(l *incident.Letter) {
		if !l.Incident.Open() {
			resumedNote(l, "resumed plugin:share-by-mail@shop.example.jp by root: opened plugin-first-time")
		}
	}, incident.Stages},
	"-site": {func(l *incident.Letter) { // it heals by itself
		l.Incident.Origin, l.Incident.Cause, l.Incident.Details = "site:shop.example.jp", "site-volume", &incident.Details{Site: "shop.example.jp"}
		l.Kind, l.Strangers, l.Waiting = "volume", false, l.Held
		if l.Released > 0 {
			l.Released, l.Paced, l.Deleted = 480, 480, 0
		}
	}, incident.Stages},
	"-text": {func(l *incident.Letter) {
		l.Incident.Origin, l.Incident.Cause, l.Incident.Details, l.Site = "template:ab12", "template-first-time", &incident.Details{Template: "ab12", Node: "web3"}, "blog.example.jp"
	}, []incident.Stage{incident.StageFirst, incident.StageAnalysis}},
	"-wordpress": {func(l *incident.Letter) {
		l.Incident.Origin, l.Incident.Details.Plugin, l.Incident.Details.Scripts = "plugin:wordpress@shop.example.jp", "wordpress", nil
	}, []incident.Stage{incident.StageFirst, incident.StageUpdate, incident.StageAnalysis}},
	"-script": {func(l *incident.Letter) {
		l.Incident.Origin, l.Incident.Details.Plugin = "plugin:script:contact/send.php@shop.example.jp", "script:contact/send.php"
		l.Incident.Details.Scripts[0].Value, l.Incident.Details.Entries[0].Value = "contact/send.php:12", "post"
	}, []incident.Stage{incident.StageFirst}},
	"-unlabelled": {func(l *incident.Letter) {
		l.Incident.Origin, l.Incident.Details = "plugin:unlabelled@shop.example.jp", &incident.Details{Site: "shop.example.jp", Plugin: "unlabelled"}
		l.PassedMessages, l.PassedRecipients = 0, 0
	}, []incident.Stage{incident.StageFirst, incident.StageAnalysis}},
	"-suspended": {func(l *incident.Letter) {
		l.Incident.Origin, l.Incident.Cause, l.Incident.Details = "local_user:site12", "suspended", &incident.Details{Site: "shop.example.jp"}
		l.Kind, l.Strangers, l.Suspended = "", false, "site:shop.example.jp"
	}, incident.Stages},
	"-open": {func(l *incident.Letter) { l.Incident.Closed = time.Time{} }, []incident.Stage{incident.StageRecovered, incident.StageAnalysis}},
	"-account": {func(l *incident.Letter) {
		l.Incident.Origin, l.Incident.Cause, l.Incident.Details = "local_user:site12", "local-user-volume", &incident.Details{Site: "shop.example.jp"}
		l.Kind, l.Strangers, l.Waiting = "volume", false, 400
	}, []incident.Stage{incident.StageFirst}},
}

func TestLetters(t *testing.T) {
	for name, c := range letterCases {
		for _, lang := range incident.LetterLanguages {
			for _, stage := range c.stages {
				l := letterOf(abused(), lang, stage)
				c.change(&l)
				subject, text, err := l.Write()
				if err != nil {
					t.Fatal(err)
				}
				all := "Subject: " + subject + "\n\n" + text
				path := filepath.Join("testdata", "letters", lang+"-"+string(stage)+name+".txt")
				if *update {
					if err := os.WriteFile(path, []byte(all), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if all != string(want) {
					t.Errorf("%s: got\n%s\nwant\n%s", path, all, want)
				}
				fitFor(t, path, text)
				for _, hidden := range []string{"198.51.100.7", "hanako", "-first-time", "-volume", "root"} {
					if strings.Contains(all, hidden) {
						t.Errorf("%s names %s", path, hidden)
					}
				}
			}
		}
	}
}

// Of a text it has to be said which site sent it.
func TestLettersAboutATextNeedASite(t *testing.T) {
	i := abused()
	i.Origin, i.Details = "template:ab12", &incident.Details{Template: "ab12", Node: "web3"}
	if l := letterOf(i, "ja", incident.StageFirst); !errors.Is(secondOf(l.Write()), incident.ErrWhichSite) {
		t.Error("no error for a text of nobody knows which site")
	}
}

// Issue 5, review finding H6: letters said what was not so.
func TestLettersSayNothingFalse(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage incident.Stage
		never [2][]string // en, ja
		says  [2][]string
	}{
		{"-wordpress", incident.StageFirst, [2][]string{{"switch", "remove it", "All other mail"}, {"別のもの", "サイト本体のメール(WordPress"}},
			[2][]string{{"Password resets and other notices of the site belong to this mail", "cannot tell which program sends it"}, {"パスワード再設定などサイトからの通知が含まれます", "特定できないもの"}}},
		{"", incident.StageFirst, [2][]string{{"switch it off or remove"}, {"必要ございません"}}, [2][]string{{"So is mail of the site of which our server cannot tell which program sends it"}, {"特定できないものも保留"}}},
		{"-suspended", incident.StageFirst, [2][]string{{"by itself, by", "bit by bit", "noticed"}, {"自動的に検知", "順次配送"}}, [2][]string{{"An administrator of our mail server has suspended", "end the suspension"}, {"弊社の管理者が", "送信停止を解除"}}},
		{"-suspended", incident.StageAnalysis, [2][]string{{"noticed"}, {"検知。"}}, [2][]string{{"An administrator had suspended", "still in force"}, {"弊社の管理者が", "措置を継続中"}}},
		{"-site", incident.StageFirst, [2][]string{{"We then", "half as much"}, {"送信を再開いたします", "半分"}}, [2][]string{{"They are delivered by themselves", "Nothing has to be done for new mail to flow"}, {"自動的に順次配送", "お手続きは不要です"}}},
		{"-site", incident.StageRecovered, [2][]string{{"half as much", "Thank you", "at once"}, {"半分", "ご対応いただき", "直ちに"}}, [2][]string{{"has room again by itself"}, {"余裕が生じて"}}},
		{"-site", incident.StageAnalysis, [2][]string{{"half as much"}, {"半分"}}, [2][]string{{"until 4 March 2026"}, {"までの間"}}},
		{"", incident.StageRecovered, [2][]string{nil, nil}, [2][]string{{"Thank you", "Until 11 March 2026, 08:00 JST the site may send half as much as usual"}, {"ご対応いただき", "2026年3月11日 08時00分 (JST) までは"}}},
		{"-text", incident.StageFirst, [2][]string{{"half as much", "Password resets", "password resets"}, {"半分", "パスワード再設定、"}}, [2][]string{{"Mail with other texts"}, {"その他の文面"}}},
		{"-open", incident.StageAnalysis, [2][]string{{"until the end", "is closed"}, {"終結までの", "本件を終結"}}, [2][]string{{"until now", "still in force"}, {"前日から現在まで", "措置を継続中"}}},
		{"-unlabelled", incident.StageAnalysis, [2][]string{{"no mail left"}, {"配送されたメールはございません"}}, [2][]string{nil, nil}},
		{"-account", incident.StageFirst, [2][]string{{"Other web sites and your mailboxes"}, {"他のサイトおよびメールアカウントは"}}, [2][]string{{"400 of them are delivered by themselves"}, {"このうち 400 通は"}}},
	} {
		for n, lang := range incident.LetterLanguages {
			l := letterOf(abused(), lang, c.stage)
			letterCases[c.name].change(&l)
			_, text, err := l.Write()
			if err != nil {
				t.Fatal(err)
			}
			joint := ""
			if lang == "en" {
				joint = " "
			}
			text = strings.Join(strings.Fields(text), joint)
			for _, never := range c.never[n] {
				if strings.Contains(text, strings.ReplaceAll(never, " ", joint)) {
					t.Errorf("%s, %s%s says %q:\n%s", lang, c.stage, c.name, never, text)
				}
			}
			for _, says := range c.says[n] {
				if !strings.Contains(text, strings.ReplaceAll(says, " ", joint)) {
					t.Errorf("%s, %s%s does not say %q:\n%s", lang, c.stage, c.name, says, text)
				}
			}
		}
	}
}

// What was resumed and stopped again, or suspended, was not let go; what opened
// nothing did not let go what a limit had shut.
func TestLettersKnowAResumptionByTheTimeLine(t *testing.T) {
	note := func(hours time.Duration, text string) incident.Note {
		return incident.Note{Time: start.Add(hours * time.Hour), Text: text}
	}
	for _, c := range []struct {
		notes []incident.Note
		want  bool
	}{
		{nil, false},
		{[]incident.Note{note(30, "resumed site:shop.example.jp by root: opened plugin-first-time")}, true},
		{[]incident.Note{note(30, "resumed site:shop.example.jp by root")}, false},
		{[]incident.Note{note(20, "resumed site:shop.example.jp by root: opened plugin-first-time")}, false}, // it was stopped again
		{[]incident.Note{note(30, "resumed site:shop.example.jp by root: opened plugin-first-time"), note(31, "suspended site:shop.example.jp by root")}, false},
	} {
		i := abused()
		i.Notes = c.notes
		l := letterOf(i, "en", incident.StageUpdate)
		_, text, err := l.Write()
		if err != nil || strings.Contains(text, "We let the mail go again on 4 March") != c.want {
			t.Errorf("%v: %v\n%s", c.notes, err, text)
		}
	}
}

func TestLettersHaveTheWholeCause(t *testing.T) {
	l := letterOf(abused(), "ja", incident.StageAnalysis)
	l.Cause = strings.Repeat("因", incident.MaxCause-1) + "終"
	_, text, err := l.Write()
	if joined := strings.Join(strings.Fields(text), ""); err != nil || !strings.Contains(joined, l.Cause) {
		t.Errorf("%v\n%s", err, text)
	}
	l.Cause += "外"
	if _, text, err = l.Write(); err != nil || strings.Contains(text, "外") {
		t.Errorf("beyond its bound: %v\n%s", err, text)
	}
}

func secondOf(_, _ string, err error) error { return err }

// fitFor fails if a letter is wider than 72 columns, or has what moves a cursor.
func fitFor(t *testing.T, what, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		n := 0
		for _, c := range line {
			switch width.LookupRune(c).Kind() {
			case width.EastAsianWide, width.EastAsianFullwidth:
				n++
			}
			n++
			if !unicode.IsPrint(c) {
				t.Errorf("%s: %U in %q", what, c, line)
			}
		}
		if n > 72 || line != strings.TrimRight(line, " ") {
			t.Errorf("%s: %d columns: %q", what, n, line)
		}
	}
	if !utf8.ValidString(text) || strings.Contains(text, "\n\n\n") || strings.Contains(text, "<no value>") || strings.HasPrefix(text, "\n") {
		t.Errorf("%s: %q", what, text)
	}
}

func TestLettersAreAboutWebSites(t *testing.T) {
	i := abused()
	i.Origin, i.Details = "login:taro@example.jp", nil
	l := letterOf(i, "en", incident.StageFirst)
	if _, _, err := l.Write(); !errors.Is(err, incident.ErrNoLetter) {
		t.Errorf("got %v", err)
	}
	for _, c := range []struct{ lang, stage string }{{"fr", "first"}, {"en", "second"}, {"en", "first-subject"}, {"", ""}} {
		l := letterOf(abused(), c.lang, incident.Stage(c.stage))
		if _, _, err := l.Write(); err == nil && c.stage != "first-subject" {
			t.Errorf("%q, %q: no error", c.lang, c.stage)
		}
	}
}

func TestLettersTellNoPathOfTheServer(t *testing.T) {
	for script, shown := range map[string]bool{"wp-content/a.php:3": true, "/var/www/shop/a.php:3": false, "../../etc/a.php:1": false, `C:\a.php:1`: false, "phar://x/a.php:1": false, "": false} {
		i := abused()
		i.Details.Scripts = []incident.Count{{Value: script, Count: 1}}
		l := letterOf(i, "en", incident.StageFirst)
		_, text, err := l.Write()
		if err != nil || strings.Contains(text, "File:") != shown {
			t.Errorf("%q: %v\n%s", script, err, text)
		}
	}
}

func TestLettersNameProgramsOfAllKinds(t *testing.T) {
	for plugin, want := range map[string]string{"wordpress": "WordPress itself", "theme:twenty": `the theme "twenty"`, "mu:x": `the must-use plugin "x"`, "script:contact/send.php": `the script "contact/send.php"`,
		"script:/etc/x.php": "a program of the web site", "odd:name": `the plugin "odd-name"`,
		"https://evil.example/pay": `the plugin "https---evil.example-pay"`, "theme:a@b\"c": `the theme "a-b-c"`, "unlabelled": "a program of the web site that our server cannot name",
		"script://evil.example/x.php": "a program of the web site", strings.Repeat("x", 100): `the plugin "` + strings.Repeat("x", 57) + `..."`} {
		i := abused()
		i.Origin, i.Details.Plugin = "plugin:"+plugin+"@shop.example.jp", plugin
		l := letterOf(i, "en", incident.StageFirst)
		_, text, err := l.Write()
		if err != nil || !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("%q: no %q: %v\n%s", plugin, want, err, text)
		}
	}
}

// FuzzLetter: whatever a site calls itself, the letter is one that can be sent.
func FuzzLetter(f *testing.F) {
	f.Fuzz(func(t *testing.T, site, plugin, script, cause string) {
		i := abused()
		i.Origin = "plugin:" + plugin + "@" + site
		i.Details = &incident.Details{Site: site, Plugin: plugin, Scripts: []incident.Count{{Value: script, Count: 1}}}
		for _, lang := range incident.LetterLanguages {
			l := letterOf(i, lang, incident.StageAnalysis)
			l.Cause, l.From = cause, site
			subject, text, err := l.Write()
			if errors.Is(err, incident.ErrNoLetter) {
				continue
			}
			if err != nil || strings.ContainsFunc(subject, unicode.IsControl) || strings.Contains(subject, "\n") {
				t.Fatalf("%q: %v", subject, err)
			}
			fitFor(t, lang, text)
		}
	})
}
