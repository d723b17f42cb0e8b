package sendmail

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"relayguard/mta"
)

// maxClassFile bounds one file of class members.
const maxClassFile = 16 << 20

// Class is all members of a class ("w", "{TrustAuthMech}" by its bare name): of C
// and T lines and of files. See Unread for what is not in it.
func (s *Settings) Class(name string) []string {
	return slices.Clone(s.classes[strings.Trim(name, "{}")])
}

// ClassSources are the F lines.
func (s *Settings) ClassSources() []ClassSource { return slices.Clone(s.sources) }

// classSource reads "-o path format", "|command", "key@map:spec" (readcf.c).
func classSource(name, value string, line int) ClassSource {
	c := ClassSource{Class: name, Line: line}
	value = strings.TrimLeft(value, " \t\n")
	if strings.HasPrefix(value, "-o") {
		c.Optional = true
		at := strings.IndexAny(value, " \t\n")
		if at < 0 {
			return c
		}
		value = strings.TrimLeft(value[at:], " \t\n")
	}
	if strings.HasPrefix(value, "|") || c.isMap(value) {
		c.Source = value
		return c
	}
	path, format, _ := strings.Cut(value, " ")
	c.Source, c.Format = strings.Trim(path, `"`), strings.TrimLeft(format, " \t\n")
	return c
}

func (ClassSource) isMap(source string) bool {
	if strings.HasPrefix(source, "/") {
		return false
	}
	_, spec, found := strings.Cut(source, "@")
	return found && (spec == "LDAP" || strings.Index(spec, ":") > 0)
}

// readClasses reads the files of the F lines.
func (s *Settings) readClasses() {
	for _, c := range s.sources {
		setting := "F" + c.Class + " of " + s.Path
		if strings.HasPrefix(c.Source, "|") || c.isMap(c.Source) {
			s.unread = append(s.unread, mta.Unread{Setting: setting, Item: c.Source, Err: errNotFollowed})
			continue
		}
		data, err := []byte(nil), s.seen(c.Source)
		if err == nil {
			data, err = readFile(c.Source, maxClassFile)
		}
		if err != nil {
			if !c.Optional || !errors.Is(err, fs.ErrNotExist) {
				s.unread = append(s.unread, mta.Unread{Setting: setting, Item: c.Source, Err: err})
			}
			continue
		}
		for line := range strings.Lines(string(data)) {
			if line[0] != '#' {
				s.classes[c.Class] = append(s.classes[c.Class], c.words(line)...)
			}
		}
	}
}

// words are the members in one line, by the two formats that m4 writes: the first
// word, and all up to a "#".
func (c ClassSource) words(line string) []string {
	if strings.HasPrefix(c.Format, "%[^") {
		until, _, _ := strings.Cut(c.Format[len("%[^"):], "]")
		if at := strings.IndexAny(line, until); at >= 0 && until != "" {
			line = line[:at]
		}
		return strings.Fields(line)
	}
	return strings.Fields(line)[:min(1, len(strings.Fields(line)))]
}
