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
	l := incident.Letter{Incident: i, Lang: lang, Stage: stage, PassedMessages: 24, PassedRecipients: 25, Held: 480, Now: start.Add(48 * time.Hour), Location: time.FixedZone("JST", 9*3600)}
	if stage == incident.StageRecovered || stage == incident.StageAnalysis {
		l.Incident.Closed, l.Incident.Reopened = start.Add(40*time.Hour), 2
		l.Held, l.Released, l.Deleted = 0, 3, 477
	}
	return l
}

func TestLetters(t *testing.T) {
	withSite := abused()
	withSite.Origin, withSite.Cause = "site:shop.example.jp", "site-volume"
	withSite.Details = &incident.Details{Site: "shop.example.jp"}
	ofText := abused()
	ofText.Origin, ofText.Details = "template:ab12", &incident.Details{Template: "ab12", Node: "web3"}
	if l := letterOf(ofText, "ja", incident.StageFirst); !errors.Is(secondOf(l.Write()), incident.ErrWhichSite) {
		t.Error("no error for a text of nobody knows which site")
	}
	for name, i := range map[string]incident.Incident{"": abused(), "-site": withSite, "-text": ofText} {
		for _, lang := range incident.LetterLanguages {
			for _, stage := range incident.Stages {
				if name != "" && stage != incident.StageFirst && stage != incident.StageAnalysis {
					continue
				}
				l := letterOf(i, lang, stage)
				if name == "-text" {
					l.Site = "blog.example.jp"
				}
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
				for _, hidden := range []string{"198.51.100.7", "hanako", "plugin-first-time", "site-volume"} {
					if strings.Contains(all, hidden) {
						t.Errorf("%s names %s", path, hidden)
					}
				}
			}
		}
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
		"script:/etc/x.php": "a program of the web site", "odd:name": `the plugin "odd:name"`} {
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
