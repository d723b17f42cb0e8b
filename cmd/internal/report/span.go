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

// Tone is how much something matters. Every format shows it by a word or a sign,
// never by colour alone.
type Tone string

// Tones.
const (
	ToneNone    Tone = "none" // of a figure that says nothing good or bad
	ToneGood    Tone = "good"
	ToneNote    Tone = "note"    // to be known, no alarm
	ToneUnknown Tone = "unknown" // nobody can tell
	ToneLook    Tone = "look"    // somebody should look at it today
	ToneAct     Tone = "act"     // now
)

func toneOf(l Level) Tone {
	switch l {
	case Good:
		return ToneGood
	case Notice:
		return ToneNote
	case Look:
		return ToneLook
	}
	return ToneAct
}

// span is a piece of a line. Text is fit to be shown: what is invisible in it has
// been made visible; a format escapes what means something to it.
type span struct {
	Kind kind
	Text string
	Tone Tone // of a chip
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
// What it is made of was bounded by nobody: only its head is read. The address of a
// page is shown whole or not at all: half of one leads elsewhere.
func clean(s string, most int) string {
	var b strings.Builder
	n, marks := 0, 0
	word, shown := 0, 0 // where the last word begins in s, and in b
	for i, c := range s {
		between := strings.ContainsRune(" \"'<>()[]", c)
		if n++; n > most {
			if !between && (strings.HasPrefix(s[word:], "https://") || strings.HasPrefix(s[word:], "http://")) {
				return b.String()[:shown] + "…"
			}
			return b.String() + "…"
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
		if between {
			word, shown = i+size, b.Len()
		}
	}
	return b.String()
}

// maxLink bounds a link; none is cut.
const maxLink = 500

// webPage is the address of a page: a link if it is https, else only text, for who
// reads an http page may read what somebody on the way made of it.
type webPage struct{ link, text string }

// pageAt is the page at an address; none if anything about that is strange.
func pageAt(s string) webPage {
	switch s = address(s); {
	case strings.HasPrefix(s, "https://"):
		return webPage{link: s}
	default:
		return webPage{text: s}
	}
}

// address is a http or https address with a host and nothing strange; "": it is none.
func address(s string) string {
	if len(s) > maxLink || !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
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
