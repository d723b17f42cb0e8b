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

	"relayguard/policy"
	"relayguard/policy/limit"
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

	// What is the cause, and what an admin ordered since.
	Kind      string    // of the limit: "abuse" (it stays shut), "volume" (it has room again by itself); "": it is none, or not known
	Strangers bool      // the limit counts first-time recipients: mail to others goes its way
	Suspended string    // what is suspended now of whom the incident is about: "site:shop.example.jp"; "": nothing
	Probation time.Time // until when the site or account has half of each limit; zero: it has not

	// What became of the mail, as far as is known. Passed is what left in the day
	// before the first stop and since.
	PassedMessages, PassedRecipients int64
	Held, Released, Deleted          int
	Waiting                          int // of Held: what goes by itself as the limit has room again
	Paced                            int // of Released: what went so

	Site  string // the site, where the incident does not know it; "": it has to
	From  string // who signs, at most MaxFrom characters; empty: the mail server's operators
	Cause string // for StageAnalysis, what somebody found, at most MaxCause characters; empty: what is known by itself

	Now      time.Time
	Location *time.Location // of the times in it; nil: UTC
}

// Bounds of what an admin puts into a letter, in characters. Longer is cut.
const (
	MaxCause = 2000
	MaxFrom  = 200
)

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

// letterView is what the templates have. All texts are clean. A text goes by the
// measure, and by whose mail it is about.
type letterView struct {
	ID, Site, What, Entry, Script, From, Cause          string
	Began, Last, Closed, Today                          string
	Stops, Recipients, PassedMessages, PassedRecipients string
	Held, Waiting, Released, Paced, Deleted, CameBack   string
	Open, Passed, Back, Refused                         bool
	AnyHeld, AnyWait, AllWait                           bool
	AnyReleased, AnyPaced, AnyDeleted                   bool

	// The measure: one of the first three, or a rule of which no more is known.
	Shut, Volume, Suspended bool
	Strangers               bool   // of Shut: mail to others than strangers goes its way
	InForce                 bool   // of Suspended
	Standing                bool   // it lasts until an admin ends it
	Ended                   bool   // it did, and not by an admin who is known
	Resumed, Probation      string // when an admin ended it; until when there is half of each limit
	WillProbation           bool   // there will be, when it is ended

	// Whose mail: a program's, of one of these kinds,
	Extension, Own, IsScript bool
	Program                  bool // any of these
	Timed                    bool // no request called it
	// or of the site that of no known program, all of it, one text, or that of an
	// account.
	Unlabelled, Whole, Text, Account bool
}

func (l *Letter) view() (*letterView, error) {
	i := &l.Incident
	v := &letterView{
		ID: plainText(i.ID, maxName), From: plainText(l.From, MaxFrom), Cause: plainText(l.Cause, MaxCause),
		Began: l.time(i.Opened), Last: l.time(i.Updated), Closed: l.time(i.Closed), Today: l.day(l.Now),
		Stops: grouped(i.Stops), Recipients: grouped(i.Recipients), PassedMessages: grouped(l.PassedMessages), PassedRecipients: grouped(l.PassedRecipients),
		CameBack: grouped(int64(i.Reopened)), Open: i.Open(), Passed: l.PassedRecipients > 0, Back: i.Reopened > 0,
	}
	if err := l.whose(v); err != nil {
		return nil, err
	}
	l.measure(v)
	l.mail(v)
	return v, nil
}

// whose fills in whose mail the letter is about.
func (l *Letter) whose(v *letterView) error {
	i, d := &l.Incident, l.Incident.Details
	of := i.Origin
	if i.Cause == policy.RuleSuspended && l.Suspended != "" {
		of = l.Suspended
	}
	site, plugin := SiteOf(of)
	v.Text = strings.HasPrefix(of, "template:")
	v.Account = site == "" && plugin == "" && !v.Text
	if i.Cause == policy.RuleSuspended && l.Suspended == "" && v.Account { // what it was is not known any more
		v.Account = false
	}
	program := plugin // as it is named: a text has the one that most of its mail is of
	if d != nil {
		site = cmp.Or(site, d.Site)
		if v.Text {
			program = cmp.Or(d.Plugin, first(d.Plugins))
		}
	}
	if site == "" && v.Text {
		site = l.Site
	}
	switch {
	case site == "" && v.Text:
		return fmt.Errorf("incident %s of %s: %w", i.ID, escape(i.Accounts()[0], maxName), ErrWhichSite)
	case site == "":
		return fmt.Errorf("incident %s of %s: %w", i.ID, escape(i.Origin, maxName), ErrNoLetter)
	}
	ja := l.Lang == "ja"
	v.Site, v.What = plainText(site, maxName), whatSent(program, ja)
	switch {
	case v.Text, v.Account:
	case plugin == policy.Unlabelled:
		v.Unlabelled = true
	case v.What == whatSent("", ja):
		v.Whole = plugin == ""
		v.Unlabelled = !v.Whole // of a program that cannot be named
	case plugin == origin.OwnSoftware:
		v.Own = true
	case strings.HasPrefix(plugin, "script:"):
		v.IsScript = true
	default:
		v.Extension = true
	}
	v.Program = v.Extension || v.Own || v.IsScript
	if d != nil {
		entry := first(d.Entries)
		v.Entry, v.Timed = entryWord(entry, ja), entry == "cron" || entry == "cli"
		v.Script = belowRoot(first(d.Scripts))
	}
	return nil
}

// measure fills in what stops the mail, and whether it still does.
func (l *Letter) measure(v *letterView) {
	i := &l.Incident
	v.Suspended = i.Cause == policy.RuleSuspended
	v.InForce = v.Suspended && l.Suspended != ""
	v.Shut = !v.Suspended && l.Kind == limit.Abuse.String()
	v.Volume = !v.Suspended && l.Kind == limit.Volume.String()
	v.Strangers = v.Shut && l.Strangers
	if !v.Volume && !v.InForce {
		v.Resumed = l.time(i.resumed(v.Shut))
	}
	v.Standing = v.InForce || v.Shut && v.Open && v.Resumed == ""
	v.Ended = !v.Volume && !v.Standing && v.Resumed == "" && (v.Suspended || !v.Open)
	if l.Probation.After(l.Now) {
		v.Probation = l.time(l.Probation)
	}
	v.WillProbation = v.Standing && !v.Text
}

// mail fills in what became of it.
func (l *Letter) mail(v *letterView) {
	waiting, paced := min(l.Waiting, l.Held), min(l.Paced, l.Released)
	v.Held, v.Waiting, v.Deleted = grouped(int64(l.Held)), grouped(int64(waiting)), grouped(int64(l.Deleted))
	v.Released, v.Paced = grouped(int64(l.Released-paced)), grouped(int64(paced))
	v.AnyHeld, v.AnyWait, v.AllWait = l.Held > 0, waiting > 0, waiting == l.Held
	v.AnyReleased, v.AnyPaced, v.AnyDeleted = l.Released > paced, paced > 0, l.Deleted > 0
	v.Refused = l.Held+l.Released+l.Deleted == 0
}

// resumed is when an admin last let the mail go again, by the time line; zero if
// nobody did, or if it was stopped again since. What a limit shut only opens if the
// resumption says that it opened something.
func (i *Incident) resumed(shut bool) (at time.Time) {
	for _, n := range i.Notes {
		switch {
		case strings.HasPrefix(n.Text, "suspended "):
			at = time.Time{}
		case strings.HasPrefix(n.Text, "resumed ") && (!shut || strings.Contains(n.Text, ": opened ")):
			at = n.Time
		}
	}
	if i.Open() && i.Updated.After(at) {
		return time.Time{}
	}
	return at
}

// plainText is text of at most so many characters that stays in its line and means
// nothing to a layout.
func plainText(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '\n', c == '\r', c == '\t':
			return ' '
		case !unicode.IsPrint(c):
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if all := []rune(s); len(all) > most {
		s = string(all[:most-3]) + "..."
	}
	return s
}

// belowRoot is a script's path if it is one below the site's root: others would
// tell of the server.
func belowRoot(script string) string {
	script = plainText(script, maxScript)
	if script == "" || path.IsAbs(script) || strings.ContainsAny(script, `\<>@`) || slices.Contains(strings.Split(script, "/"), "..") || strings.Contains(script, ":/") || strings.Contains(script, "//") {
		return ""
	}
	return script
}

// maxShown bounds the name of a program in a letter, in characters.
const maxShown = 60

// programName is a program's name, which is the site's own word, as a letter shows
// it: nothing in it is an address that a mail program would make a link of.
func programName(s string) string {
	return plainText(strings.Map(func(c rune) rune {
		if strings.ContainsRune(`:/\@<>"「」`, c) {
			return '-'
		}
		return c
	}, s), maxShown)
}

// whatSent names a program of a site.
func whatSent(plugin string, ja bool) string {
	say := func(en, word string) string {
		if ja {
			return word
		}
		return en
	}
	kind, name, found := strings.Cut(plugin, ":")
	words := map[string][2]string{"": {"the plugin", "プラグイン"}, "mu": {"the must-use plugin", "必須プラグイン"}, "theme": {"the theme", "テーマ"}, "script": {"the script", "スクリプト"}}
	word, known := words[kind]
	if !found || !known {
		word, name = words[""], plugin
	}
	if found && kind == "script" {
		name = belowRoot(strings.ReplaceAll(name, ":", "-"))
	} else {
		name = programName(name)
	}
	switch {
	case plugin == policy.Unlabelled:
		return say("a program of the web site that our server cannot name", "サイト内のプログラム(特定できないもの)")
	case plugin == origin.OwnSoftware:
		return say("the site's own software (WordPress itself)", "サイト本体(WordPress)のメール送信機能")
	case name == "":
		return say("a program of the web site", "サイト内のプログラム")
	}
	return say(word[0]+` "`+name+`"`, word[1]+"「"+name+"」")
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
