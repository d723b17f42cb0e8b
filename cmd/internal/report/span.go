package report

import (
	"net/url"
	"strings"
	"unicode"

	"relayguard/cmd/internal/render"
)

// kind is what a piece of a line is, for a format to show.
type kind string

const (
	plain  kind = ""
	named  kind = "name"   // somebody else's word: it stands for itself, whatever direction it is written in
	said   kind = "said"   // English whatever the language: what a server or the guard said
	strong kind = "strong" // the word of a line that counts
	quiet  kind = "quiet"
	when   kind = "when" // a time, beside what was then
	code   kind = "code" // a command
	chip   kind = "chip" // a label
)

// tone is how much something matters. Every format shows it by a word or a sign,
// never by colour alone.
type tone string

const (
	toneNone    tone = "none"
	toneGood    tone = "good"
	toneNotice  tone = "notice"
	toneUnknown tone = "unknown"
	toneLook    tone = "look"
	toneAct     tone = "act"
)

func toneOf(l Level) tone {
	switch l {
	case Good:
		return toneGood
	case Notice:
		return toneNotice
	case Look:
		return toneLook
	}
	return toneAct
}

// span is a piece of a line. Text is fit to be shown: what is invisible in it has
// been made visible; a format escapes what means something to it.
type span struct {
	Kind kind
	Text string
	Tone tone // of a chip
}

// line is text of one line or paragraph.
type line []span

func (l line) text(s string) line {
	if s == "" {
		return l
	}
	return append(l, span{Text: s})
}

// String is the text alone.
func (l line) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.Text)
	}
	return b.String()
}

// maxMarks are the marks above a letter that are shown: more of them would cover
// the lines above.
const maxMarks = 3

// clean is a foreign text fit to be shown in one line of at most most characters.
// What it is made of was bounded by nobody: only its head is read.
func clean(s string, most int) string {
	var b strings.Builder
	n, marks := 0, 0
	for i, c := range s {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		size := len(string(c))
		if c == unicode.ReplacementChar && !strings.HasPrefix(s[i:], "\ufffd") {
			size = 1
		}
		if unicode.Is(unicode.M, c) {
			marks++
		} else {
			marks = 0
		}
		if marks > maxMarks {
			b.WriteString("·")
			continue
		}
		b.WriteString(render.Escape(s[i : i+size]))
	}
	return b.String()
}

// maxLink bounds a link; none is cut.
const maxLink = 500

// linkTo is where a link may lead: an https address with a host and nothing strange.
// "": nowhere.
func linkTo(s string) string {
	if len(s) > maxLink || !strings.HasPrefix(s, "https://") {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return ""
	}
	for _, c := range s {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune(`"<>\^{|}`+"`", c) {
			return ""
		}
	}
	return s
}
