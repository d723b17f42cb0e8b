package aliases

import (
	"strings"
	"unicode/utf8"
)

// Entry is one alias of a text.
type Entry struct {
	Key   string // lower case, without quotes: as it is stored
	Value string // the right side, as postalias(1) stores it
	Line  int    // of its beginning, from 1
	// Broken says why the entry does not get into the compiled table; the
	// mail system warns of it. Empty: it does.
	Broken string
}

// ParseFile reads a text in the form of aliases(5), as postalias(1) does, or
// as Sendmail's newaliases if sendmail is set: there a backslash at the end of
// a line continues it, and "#" is a comment in the first column only. Entries with the same key are all given: which of
// them counts the table decides.
func ParseFile(data []byte, sendmail bool) []Entry {
	var entries []Entry
	for _, line := range logicalLines(data, sendmail) {
		if sendmail {
			if entry, ok := sendmailEntry(line.text); ok {
				entry.Line = line.number
				entries = append(entries, entry)
			}
			continue
		}
		entry := postfixEntry(line.text)
		if line.text[0] == ' ' || line.text[0] == '\t' {
			entry.Broken = "it continues nothing"
		}
		entry.Line = line.number
		entries = append(entries, entry)
	}
	return entries
}

type logicalLine struct {
	text   string
	number int
}

// logicalLines joins continued lines and drops comments and empty lines; a
// comment does not end what is continued after it.
func logicalLines(data []byte, sendmail bool) []logicalLine {
	var lines []logicalLine
	var text strings.Builder
	start := 0
	flush := func() {
		if start > 0 {
			lines = append(lines, logicalLine{text.String(), start})
		}
		text.Reset()
		start = 0
	}
	number, joined := 0, false
	for raw := range strings.Lines(string(data)) {
		number++
		line := strings.TrimSuffix(raw, "\n")
		bare := strings.TrimLeft(line, " \t\r\v\f")
		comment := strings.HasPrefix(bare, "#")
		if sendmail {
			comment = strings.HasPrefix(line, "#")
		}
		if !joined && (bare == "" || comment) {
			continue
		}
		if !joined && (line[0] != ' ' && line[0] != '\t' || start == 0) {
			flush()
			start = number
		}
		joined = false
		if sendmail {
			line, joined = strings.CutSuffix(strings.TrimSuffix(line, "\r"), `\`)
		}
		text.WriteString(line)
	}
	flush()
	return lines
}

func postfixEntry(line string) Entry {
	if !utf8.ValidString(line) {
		return Entry{Key: bareKey(line), Broken: "it is not UTF-8"}
	}
	if key, value, found := strings.Cut(line, ":"); found && len(line) > MaxRight {
		return Entry{Key: bareKey(key), Value: strings.TrimSpace(value)} // ParseTargets tells that it is too long
	}
	tokens := scan(line)
	colon := -1
	for n, t := range tokens {
		if t.kind == ':' {
			colon = n
			break
		}
	}
	if colon <= 0 || colon == len(tokens)-1 {
		return Entry{Key: bareKey(line), Broken: "it is not name: value"}
	}
	for _, t := range tokens[:colon] {
		switch t.kind {
		case ',':
			return Entry{Key: bareKey(line), Broken: "it is not name: value"}
		case '@', '%':
			return Entry{Key: bareKey(line), Broken: "the name is not local"}
		}
	}
	entry := Entry{Key: strings.ToLower(internal(tokens[:colon])), Value: external(tokens[colon+1:])}
	if entry.Value == "" {
		entry.Broken = "the value is empty"
	}
	return entry
}

func bareKey(line string) string {
	key, _, _ := strings.Cut(line, ":")
	return strings.ToLower(strings.TrimSpace(key))
}

// sendmailEntry reads "name: value" as newaliases does: the value is kept as
// it stands.
func sendmailEntry(line string) (Entry, bool) {
	colon, inQuotes := -1, false
	for n := 0; n < len(line) && colon < 0; n++ {
		switch line[n] {
		case '\\':
			n++
		case '"':
			inQuotes = !inQuotes
		case ':':
			if !inQuotes {
				colon = n
			}
		}
	}
	if colon < 0 {
		return Entry{Key: strings.ToLower(strings.TrimSpace(line)), Broken: "it is not name: value"}, strings.TrimSpace(line) != ""
	}
	entry := Entry{
		Key:   strings.ToLower(strings.Trim(strings.TrimSpace(line[:colon]), `"`)),
		Value: strings.TrimSpace(line[colon+1:]),
	}
	if entry.Value == "" {
		entry.Broken = "the value is empty"
	}
	return entry, true
}
