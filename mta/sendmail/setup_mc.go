package sendmail

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// macroCall is a call of an m4 macro as it stands in a .mc file.
type macroCall struct {
	name       string
	start, end int      // of the whole call in the text
	args       []string // without their quotes
}

var errChangequote = errors.New("it changes m4's quotes, and cannot be read here")

// macroCalls finds the calls of the named macros in the text of a .mc file. As
// m4 does, it passes over what dnl and # hide, and over what is quoted: a call
// inside another macro's argument may or may not come about.
func macroCalls(text string, names ...string) ([]macroCall, error) {
	var calls []macroCall
	for at := 0; at < len(text); {
		switch c := text[at]; {
		case c == '#':
			at = lineEnd(text, at)
		case c == '`':
			end, err := quoteEnd(text, at)
			if err != nil {
				return nil, err
			}
			at = end
		case isWord(c):
			end := at
			for end < len(text) && isWord(text[end]) {
				end++
			}
			word := text[at:end]
			if word == "changequote" {
				return nil, errChangequote
			}
			if word == "dnl" {
				at = lineEnd(text, at)
				continue
			}
			if end < len(text) && text[end] == '(' && slices.Contains(names, word) {
				args, after, err := macroArgs(text, end)
				if err != nil {
					return nil, err
				}
				calls = append(calls, macroCall{word, at, after, args})
				end = after
			}
			at = end
		default:
			at++
		}
	}
	return calls, nil
}

func isWord(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// lineEnd is where the line after at begins.
func lineEnd(text string, at int) int {
	if n := strings.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n + 1
	}
	return len(text)
}

// quoteEnd is where the quoted text that begins at at is over; quotes nest.
func quoteEnd(text string, at int) (int, error) {
	depth := 0
	for n := at; n < len(text); n++ {
		switch text[n] {
		case '`':
			depth++
		case '\'':
			if depth--; depth == 0 {
				return n + 1, nil
			}
		}
	}
	return 0, fmt.Errorf("line %d: a quote has no end", 1+strings.Count(text[:at], "\n"))
}

// macroArgs reads the arguments that begin with the bracket at open.
func macroArgs(text string, open int) (args []string, end int, err error) {
	var arg strings.Builder
	depth, blank := 0, true // of brackets; blank: unquoted space before an argument is dropped
	for at := open + 1; at < len(text); {
		switch c := text[at]; {
		case c == '`':
			end, err := quoteEnd(text, at)
			if err != nil {
				return nil, 0, err
			}
			arg.WriteString(text[at+1 : end-1])
			at, blank = end, false
			continue
		case c == ')' && depth == 0:
			return append(args, arg.String()), at + 1, nil
		case c == ',' && depth == 0:
			args = append(args, arg.String())
			arg.Reset()
			blank = true
		case blank && (c == ' ' || c == '\t' || c == '\n'):
		default:
			switch c {
			case '(':
				depth++
			case ')':
				depth--
			}
			arg.WriteByte(c)
			blank = false
		}
		at++
	}
	return nil, 0, fmt.Errorf("line %d: a call has no end", 1+strings.Count(text[:open], "\n"))
}

func (c macroCall) arg(n int) string {
	if n < len(c.args) {
		return strings.TrimSpace(c.args[n])
	}
	return ""
}

func (c macroCall) text(mc string) string { return mc[c.start:c.end] }

// The block that setup adds. What is between these lines is its own.
const (
	blockBegin = "dnl # BEGIN relayguard: made by relayguard setup sendmail, which also takes it out"
	blockEnd   = "dnl # END relayguard"
)

// block finds setup's block in a .mc file: its bounds, with the last line end.
func block(text string) (start, end int, found bool) {
	if start = lineOf(text, "dnl # BEGIN relayguard"); start < 0 {
		return 0, 0, false
	}
	length := lineOf(text[start:], blockEnd)
	if length < 0 {
		return 0, 0, false
	}
	return start, lineEnd(text, start+length), true
}

// lineOf is where the first line with this beginning is; -1: nowhere.
func lineOf(text, beginning string) int {
	if strings.HasPrefix(text, beginning) {
		return 0
	}
	if n := strings.Index(text, "\n"+beginning); n >= 0 {
		return n + 1
	}
	return -1
}

// replacement is one change of a .mc file: text[start:end] becomes with.
type replacement struct {
	start, end int
	with       string
}

// replaced makes the changes, which do not overlap.
func replaced(text string, changes []replacement) string {
	changes = slices.Clone(changes)
	// From the end; an insertion comes after what is replaced at its place.
	slices.SortStableFunc(changes, func(a, b replacement) int { return cmp.Or(b.start-a.start, b.end-a.end) })
	for _, c := range changes {
		text = text[:c.start] + c.with + text[c.end:]
	}
	return text
}

// blockPlace is where a block goes: before the line of the first of these calls,
// else at the end.
func blockPlace(text string, before ...string) (int, error) {
	// Without arguments a macro is no call to macroCalls.
	calls, err := macroCalls(text, before...)
	if err != nil {
		return 0, err
	}
	at := len(text)
	if len(calls) > 0 {
		at = calls[0].start
	}
	if n := lineOf(text, "MAILER_DEFINITIONS"); n >= 0 && n < at {
		at = n
	}
	return strings.LastIndexByte(text[:at], '\n') + 1, nil
}

// optionPairs splits the value of a DAEMON_OPTIONS or MAIL_FILTER line.
func optionPairs(value string) []string {
	var pairs []string
	for pair := range strings.SplitSeq(value, ",") {
		if pair = strings.TrimSpace(pair); pair != "" {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// optionOf is the value of the first pair whose key begins with this letter: that
// is all that Sendmail looks at.
func optionOf(value string, letter byte) (string, bool) {
	for _, pair := range optionPairs(value) {
		if key, v, found := strings.Cut(pair, "="); found && key != "" && key[0]|0x20 == letter|0x20 {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}

// withFilters gives the options of a daemon another list of milters; the text of
// the others stays.
func withFilters(value string, filters []string) string {
	var kept []string
	for pair := range strings.SplitSeq(value, ",") {
		if key := strings.TrimSpace(pair); key == "" || key[0]|0x20 != 'i' {
			kept = append(kept, pair)
		}
	}
	return strings.Join(append(kept, " InputMailFilters="+strings.Join(filters, ";")), ",")
}
