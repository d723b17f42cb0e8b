package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxSyntax bounds the work on a file that is no TOML at all: each error may
// cost a pass over the rest of the file.
const maxSyntax = 100

// parse makes the tree, reports what is not TOML, and goes on behind it.
func (r *report) parse() *table {
	b := &builder{report: r, root: newTable("", 0)}
	b.current = b.root
	if !r.readable() {
		b.root.broken = true
		return b.root
	}
	for base, n := 0, 0; base < len(r.data); n++ {
		if n == maxSyntax {
			r.add(base, "", "yet more that is not TOML", "valid TOML", "mend the lines above first: the rest was not read")
			b.root.broken = true
			break
		}
		base = b.pass(base)
	}
	return b.root
}

// readable reports that the bytes are text of a bearable size.
func (r *report) readable() bool {
	switch {
	case len(r.data) > maxFile:
		r.add(0, "", fmt.Sprintf("more than %d bytes", maxFile), "a smaller file", "put long lists of addresses into files named by address.files")
		return false
	case bytes.HasPrefix(r.data, []byte("\xef\xbb\xbf")):
		r.add(0, "", "a byte order mark", "plain UTF-8", "save the file without it")
		return false
	case !utf8.Valid(r.data):
		for i, line := range bytes.Split(r.data, []byte("\n")) {
			if j := firstInvalid(line); j >= 0 {
				r.add(r.lines[i]+j, "", fmt.Sprintf("the byte 0x%02x", line[j]), "UTF-8", "save the file as UTF-8")
			}
		}
		return false
	}
	return true
}

func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		c, size := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// pass reads from base to the first syntax error and returns where to go on.
func (b *builder) pass(base int) int {
	var p unstable.Parser
	p.Reset(b.data[base:])
	end := base
	for p.NextExpression() {
		end = b.expression(&p, base)
		if i := bytes.IndexByte(b.data[end:], '\n'); i >= 0 {
			end += i + 1
		} else {
			end = len(b.data)
		}
	}
	if p.Error() == nil {
		return len(b.data)
	}
	start := min(b.skipBlank(end), len(b.data)-1)
	at, message := start, p.Error().Error()
	var perr *unstable.ParserError
	if errors.As(p.Error(), &perr) {
		if off := cap(p.Data()) - cap(perr.Highlight); off >= start-base && off <= len(p.Data()) {
			at = base + off
		}
	}
	b.damage(start, at, message)
	return b.resume(start)
}

// skipBlank returns the first offset from at that is neither white space nor
// comment.
func (b *builder) skipBlank(at int) int {
	for at < len(b.data) {
		switch c := b.data[at]; {
		case c == ' ' || c == '\t' || c == '\n' || bytes.HasPrefix(b.data[at:], []byte("\r\n")):
			at++
		case c == '#':
			i := bytes.IndexByte(b.data[at:], '\n')
			if i < 0 || bytes.ContainsFunc(b.data[at:at+i], control) {
				return at
			}
			at += i
		default:
			return at
		}
	}
	return at
}

func control(c rune) bool { return c < ' ' && c != '\t' && c != '\r' || c == 0x7f }

var (
	brokenHeader = regexp.MustCompile(`^\[(\[?)[ \t]*([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)`)
	brokenKey    = regexp.MustCompile(`^([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)[ \t]*=`)
	bareValue    = regexp.MustCompile(`^[^\s"'\[\]{},#=]+`)

	// statement is a line at which reading can start again after an error.
	statement = regexp.MustCompile(`(?m)^[ \t]*(?:\[\[?[ \t]*[A-Za-z_][A-Za-z0-9_. \t-]*\]\]?[ \t]*(?:#.*)?\r?$|(?:[A-Za-z0-9_.-]+|"[^"\n]*"|'[^'\n]*')[ \t]*=)`)
)

// damage reports the statement that begins at start and breaks at at. What can
// be told of its key or header is remembered, so that its absence is not
// reported as well.
func (b *builder) damage(start, at int, message string) {
	rest := b.data[start:]
	key := ""
	if m := brokenHeader.FindSubmatch(rest); m != nil {
		key = string(m[2])
		b.current = b.guess(key, len(m[1]) > 0 || bytes.Contains(firstLine(rest), []byte("]]")), start)
	} else if rest[0] == '[' {
		b.current = newTable("", start) // of no known name: nobody will read its keys
	} else if m := brokenKey.FindSubmatch(rest); m != nil {
		key = string(m[1])
		key = strings.TrimPrefix(b.current.path+"."+key, ".")
	}
	b.current.broken = true
	if end := start + len(firstLine(rest)); strings.Contains(message, "incomplete") || at > end && (at >= len(b.data)-1 || statement.Match(b.lineOf(at))) {
		b.add(start, key, "a value that does not end", "valid TOML ("+printable(message)+")", "close it before the next key or header")
		return
	}
	found, remedy := b.syntaxRemedy(start, at, message)
	b.add(at, key, found, "valid TOML ("+printable(message)+")", remedy)
}

// remedies say what to do about the parser's messages, of which each names a
// part.
var remedies = []struct{ part, remedy string }{
	{"at start of value", "write a value behind the ="},
	{"expected '=' after key", "write key = value"},
	{"expected newline", "give each key and each header a line of its own"},
	{"new line", "close the text by its quote on the same line"},
	{"control character", "delete the control character"},
	{"escape", `write each \ twice, or put the text into '...'`},
	{"leading zeroes", "leave out the zeroes in front"},
	{"to close", "close the header by its brackets"},
	{"expected ',' or ']'", "put commas between the entries, and ] behind the last"},
	{"start of key", "begin comments with #, keys with a letter"},
}

func (b *builder) syntaxRemedy(start, at int, message string) (found, remedy string) {
	line := firstLine(b.data[at:])
	word := string(bareValue.Find(b.valueAt(start, at)))
	for _, part := range []string{"at start of value", "expected keyword", "must be quoted"} {
		if strings.Contains(message, part) && word != "" && len(word) <= 60 {
			return printable(word) + " without quotes", "put text into quotes: " + quote(word)
		}
	}
	found = quote(string(line))
	if len(line) == 0 {
		found = "the end of the line"
	}
	if bytes.HasPrefix(line, []byte("@")) {
		return found, "put a key with @ into quotes"
	}
	for _, r := range remedies {
		if strings.Contains(message, r.part) {
			return found, r.remedy
		}
	}
	return found, "mend the line"
}

func (b *builder) lineOf(at int) []byte {
	from := b.lines[b.line(at)-1]
	line, _, _ := bytes.Cut(b.data[from:], []byte("\n"))
	return line
}

// valueAt is the value around at, from behind the = that begins it.
func (b *builder) valueAt(start, at int) []byte {
	if i := bytes.LastIndexAny(b.data[start:at], "=[, \t\n"); i >= 0 {
		start += i + 1
	}
	return b.data[start:]
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return bytes.TrimSpace(line)
}

// guess enters the table that a damaged header names.
func (b *builder) guess(name string, array bool, at int) *table {
	var parts []part
	for _, s := range strings.Split(name, ".") {
		parts = append(parts, part{s, at})
	}
	n := len(b.problems)
	t := b.header(parts, array)
	b.problems = b.problems[:n] // the damage itself is enough
	return t
}

// resume is where to read on after a damaged statement: at the first line
// below its first that looks like a statement.
func (b *builder) resume(start int) int {
	next := len(b.data)
	if i := bytes.IndexByte(b.data[start:], '\n'); i >= 0 {
		next = start + i + 1
	}
	if m := statement.FindIndex(b.data[next:]); m != nil {
		return next + m[0]
	}
	return len(b.data)
}

// verify asks the library's own decoder, which knows rules of TOML that the
// tree does not (dates, mixed kinds of tables).
func (r *report) verify() {
	var all map[string]any
	err := toml.Unmarshal(r.data, &all)
	if err == nil {
		return
	}
	at := 0
	var derr *toml.DecodeError
	if errors.As(err, &derr) {
		line, column := derr.Position()
		at = r.offset(line, column)
	}
	r.add(at, "", quote(string(firstLine(r.data[min(at, len(r.data)):]))), "valid TOML ("+printable(strings.TrimPrefix(err.Error(), "toml: "))+")", "mend the line")
}
