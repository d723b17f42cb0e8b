package sendmail

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ConfigFile is the file that Sendmail reads; a package for tests may read
// another.
const ConfigFile = "/etc/mail/sendmail.cf"

// Config is what a sendmail.cf says about where mail goes.
type Config struct {
	Options map[string]string // O Name=value; names in lower case
	Macros  map[string]string // D; the last of a name counts
	Classes map[string][]string
	Files   map[string][]string // F: files with members of a class
	Maps    map[string]Map      // K
	Milters []string            // X: "name, S=local:..."
	Lines   map[string]int      // where it stands: "O aliasfile", "D S", "K virtuser"
	Rules   string              // SHA-256 of the rewriting rules, hex
}

// Map is one K line.
type Map struct {
	Class string
	Flags []string
	Name  string // the file, or what the class takes
}

// Parse reads a sendmail.cf. What it does not know it leaves out; it takes time
// and memory in proportion to data.
func Parse(data []byte) Config {
	c := Config{Options: map[string]string{}, Macros: map[string]string{}, Classes: map[string][]string{},
		Files: map[string][]string{}, Maps: map[string]Map{}, Lines: map[string]int{}}
	rules := sha256.New()
	for _, line := range cfLines(string(data)) {
		body := line.text[1:]
		switch line.text[0] {
		case 'O':
			c.option(body, line.number)
		case 'D':
			name, value := macroName(body)
			c.Macros[name] = strings.TrimSpace(value)
			c.Lines["D "+name] = line.number
		case 'C':
			name, value := macroName(body)
			c.Classes[name] = append(c.Classes[name], strings.Fields(value)...)
		case 'F':
			name, value := macroName(body)
			if fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(value), "-o")); len(fields) > 0 {
				c.Files[name] = append(c.Files[name], fields[0])
			}
		case 'K':
			c.mapping(body, line.number)
		case 'X':
			c.Milters = append(c.Milters, strings.TrimSpace(body))
		case 'S', 'R', 'M':
			rules.Write([]byte(line.text + "\n"))
		}
	}
	c.Rules = hex.EncodeToString(rules.Sum(nil))
	return c
}

func (c *Config) option(body string, line int) {
	name, value, found := strings.Cut(body, "=")
	if !found || !strings.HasPrefix(body, " ") {
		return
	}
	name = strings.ToLower(strings.TrimSpace(name))
	c.Options[name] = strings.TrimSpace(value)
	c.Lines["O "+name] = line
}

// mapping reads "name class -flags file". The first file of a sequence stands
// for it; a map with a name that was there is replaced.
func (c *Config) mapping(body string, line int) {
	fields := strings.Fields(body)
	if len(fields) < 2 {
		return
	}
	m := Map{Class: strings.ToLower(fields[1])}
	for n, field := range fields[2:] {
		if !strings.HasPrefix(field, "-") {
			m.Name = strings.Join(fields[2+n:], " ")
			break
		}
		m.Flags = append(m.Flags, field)
	}
	name := strings.ToLower(fields[0])
	c.Maps[name] = m
	c.Lines["K "+name] = line
}

// macroName cuts a macro's or class's name off: a character, or a word in
// braces.
func macroName(s string) (name, rest string) {
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if name, rest, ok = strings.Cut(inner, "}"); ok {
			return name, rest
		}
	}
	if s == "" {
		return "", ""
	}
	return s[:1], s[1:]
}

type cfLine struct {
	text   string
	number int
}

// cfLines joins lines that go on with white space, and drops comments.
func cfLines(text string) []cfLine {
	var lines []cfLine
	var joined strings.Builder
	start, number := 0, 0
	flush := func() {
		if start > 0 {
			lines = append(lines, cfLine{joined.String(), start})
		}
		joined.Reset()
		start = 0
	}
	for raw := range strings.Lines(text) {
		number++
		line := strings.TrimRight(raw, "\r\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if start > 0 {
				joined.WriteByte(' ')
				joined.WriteString(strings.TrimSpace(line))
			}
		default:
			flush()
			start = number
			joined.WriteString(line)
		}
	}
	flush()
	return lines
}
