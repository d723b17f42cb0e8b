package incident

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"

	"relayguard/policy/origin"
)

// Stage is where things stand when a letter is written.
type Stage string

const (
	StageFirst     Stage = "first"     // it was found and stopped
	StageUpdate    Stage = "update"    // it goes on
	StageRecovered Stage = "recovered" // it is over
	StageAnalysis  Stage = "analysis"  // what it was, afterwards
)

// Stages and LetterLanguages are those there are letters for.
var (
	Stages          = []Stage{StageFirst, StageUpdate, StageRecovered, StageAnalysis}
	LetterLanguages = []string{"en", "ja"}
)

// Errors that a caller can tell apart.
var (
	// ErrNoLetter: the incident is not about mail of a web site, and the letters are.
	ErrNoLetter = errors.New("it is not about a web site's mail")
	// ErrWhichSite: it is, and Letter.Site has to say of which.
	ErrWhichSite = errors.New("it is about one text, and which site sent it is not known")
)

// Letter is what is written to the owner of a web site about an incident. It has
// neither recipients nor content, nor whose requests they were: who reads it is not
// who wrote or got the mail. All that others chose is cleaned in it.
type Letter struct {
	Incident Incident
	Lang     string // of LetterLanguages
	Stage    Stage

	// What became of the mail, as far as is known. Passed is what left in the day
	// before the first stop and since.
	PassedMessages, PassedRecipients int64
	Held, Released, Deleted          int

	Site  string // the site, where the incident does not know it; "": it has to
	From  string // who signs; empty: the mail server's operators
	Cause string // for StageAnalysis, what somebody found; empty: what is known by itself

	Now      time.Time
	Location *time.Location // of the times in it; nil: UTC
}

//go:embed letters/*.txt
var letterFiles embed.FS

// letters has the templates "en-first", "ja-analysis", each with a subject:
// "en-first-subject".
var letters = template.Must(template.New("").ParseFS(letterFiles, "letters/*.txt"))

// letterWidth is the columns of a letter: a reply that quotes it fits 80.
const letterWidth = 72

// Write gives the letter's subject, one line, and its text in lines of at most 72
// columns. An error is ErrNoLetter, ErrWhichSite, or about Lang and Stage.
func (l *Letter) Write() (subject, text string, err error) {
	name := l.Lang + "-" + string(l.Stage)
	if letters.Lookup(name) == nil {
		return "", "", fmt.Errorf("letter %q: want a language of %v and a stage of %v", name, LetterLanguages, Stages)
	}
	v, err := l.view()
	if err != nil {
		return "", "", err
	}
	var b bytes.Buffer
	if err := letters.ExecuteTemplate(&b, name+"-subject", v); err != nil {
		return "", "", fmt.Errorf("write letter %s: %w", name, err)
	}
	subject = strings.TrimSpace(b.String())
	b.Reset()
	if err := letters.ExecuteTemplate(&b, name, v); err != nil {
		return "", "", fmt.Errorf("write letter %s: %w", name, err)
	}
	return subject, layOut(b.String(), letterWidth, l.Lang != "ja"), nil
}

// letterView is what the templates have. All texts are clean.
type letterView struct {
	ID, Site, What, Entry, Script, From, Cause                    string
	Began, Last, Closed, Today                                    string
	Stops, Recipients, PassedMessages, PassedRecipients           string
	Held, Released, Deleted, CameBack                             string
	Whole                                                         bool // the whole site is limited, not one program of it
	Text                                                          bool // one text is, whoever sends it
	Open, Passed, AnyHeld, AnyReleased, AnyDeleted, Back, Refused bool
}

func (l *Letter) view() (*letterView, error) {
	i, d := &l.Incident, l.Incident.Details
	site, plugin := SiteOf(i.Origin)
	text := strings.HasPrefix(i.Origin, "template:")
	if d != nil {
		site, plugin = cmp.Or(site, d.Site), cmp.Or(plugin, d.Plugin)
		if text && plugin == "" {
			plugin = first(d.Plugins)
		}
	}
	if site == "" && text {
		site = l.Site
	}
	switch {
	case site == "" && text:
		return nil, fmt.Errorf("incident %s of %s: %w", i.ID, escape(i.Accounts()[0], maxName), ErrWhichSite)
	case site == "":
		return nil, fmt.Errorf("incident %s of %s: %w", i.ID, escape(i.Origin, maxName), ErrNoLetter)
	}
	ja := l.Lang == "ja"
	v := &letterView{
		ID: plainText(i.ID), Site: plainText(site), What: whatSent(plugin, ja), From: plainText(l.From), Cause: plainText(l.Cause),
		Began: l.time(i.Opened), Last: l.time(i.Updated), Closed: l.time(i.Closed), Today: l.day(l.Now),
		Stops: grouped(i.Stops), Recipients: grouped(i.Recipients), PassedMessages: grouped(l.PassedMessages), PassedRecipients: grouped(l.PassedRecipients),
		Held: grouped(int64(l.Held)), Released: grouped(int64(l.Released)), Deleted: grouped(int64(l.Deleted)), CameBack: grouped(int64(i.Reopened)),
		Whole: plugin == "" && !text, Text: text, Open: i.Open(), Passed: l.PassedRecipients > 0, AnyHeld: l.Held > 0, AnyReleased: l.Released > 0, AnyDeleted: l.Deleted > 0,
		Back: i.Reopened > 0, Refused: l.Held+l.Released+l.Deleted == 0,
	}
	if d != nil {
		v.Entry = entryWord(first(d.Entries), ja)
		v.Script = belowRoot(first(d.Scripts))
	}
	return v, nil
}

// plainText is text that stays in its line and means nothing to a layout.
func plainText(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '\n', c == '\r', c == '\t':
			return ' '
		case !unicode.IsPrint(c):
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	return bound(strings.Join(strings.Fields(s), " "), maxName)
}

// belowRoot is a script's path if it is one below the site's root: others would
// tell of the server.
func belowRoot(script string) string {
	script = plainText(script)
	if script == "" || path.IsAbs(script) || strings.ContainsAny(script, `\<>`) || slices.Contains(strings.Split(script, "/"), "..") || strings.Contains(script, ":/") {
		return ""
	}
	return script
}

// whatSent names a program of a site.
func whatSent(plugin string, ja bool) string {
	kind, name, found := strings.Cut(plugin, ":")
	if !found {
		kind, name = "", plugin
	}
	name = plainText(name)
	switch {
	case plugin == "" && ja:
		return "サイト内のプログラム"
	case plugin == "":
		return "a program of the web site"
	case plugin == origin.OwnSoftware && ja:
		return "サイト本体(WordPress)のメール送信機能"
	case plugin == origin.OwnSoftware:
		return "the site's own software (WordPress itself)"
	}
	words := map[string][2]string{"": {"the plugin", "プラグイン"}, "mu": {"the must-use plugin", "必須プラグイン"}, "theme": {"the theme", "テーマ"}, "script": {"the script", "スクリプト"}}
	word, known := words[kind]
	if !known {
		word, name = words[""], plainText(plugin)
	}
	if kind == "script" && known {
		if name = belowRoot(name); name == "" {
			return whatSent("", ja)
		}
	}
	if ja {
		return word[1] + "「" + name + "」"
	}
	return word[0] + ` "` + name + `"`
}

// entryWord says how a site was called, in words for people.
func entryWord(entry string, ja bool) string {
	words := map[string][2]string{
		"ajax":   {"AJAX requests (admin-ajax.php)", "AJAX による呼び出し(admin-ajax.php)"},
		"admin":  {"the administration pages", "管理画面"},
		"cron":   {"scheduled tasks (wp-cron)", "定期実行(wp-cron)"},
		"rest":   {"the REST interface", "REST API"},
		"xmlrpc": {"XML-RPC", "XML-RPC"},
		"cli":    {"the command line", "コマンドライン"},
		"page":   {"a public page", "公開ページ"},
		"post":   {"a form on a public page", "公開ページのフォーム送信"},
	}[entry]
	if ja {
		return words[1]
	}
	return words[0]
}

func (l *Letter) in(t time.Time) time.Time {
	if l.Location == nil {
		return t.UTC()
	}
	return t.In(l.Location)
}

// time is a time with its zone.
func (l *Letter) time(t time.Time) string {
	switch t = l.in(t); {
	case t.IsZero():
		return ""
	case l.Lang == "ja":
		return t.Format("2006年1月2日 15時04分 (MST)")
	}
	return t.Format("2 January 2006, 15:04 MST")
}

func (l *Letter) day(t time.Time) string {
	if t = l.in(t); l.Lang == "ja" {
		return t.Format("2006年1月2日")
	}
	return t.Format("2 January 2006")
}

// grouped is a number with commas: "57,000".
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
