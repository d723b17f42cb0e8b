package fingerprint

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse adds to those of s what a text of them says (see the package), and returns
// every error found with its line, joined. s stays as it is.
func (s *Set) Parse(data []byte) (*Set, error) {
	added := &Set{}
	if s != nil {
		for _, p := range s.prints {
			added.prints = append(added.prints, print{p.name, slices.Clone(p.marks)})
		}
	}
	var errs []error
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		if err := added.line(strings.TrimRight(line, "\r\n")); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", number, err))
			if len(errs) == mostErrors {
				errs = append(errs, errors.New("and perhaps more after these; is it a file of fingerprints?"))
				break
			}
		}
	}
	if len(added.prints) > mostLines {
		errs = append(errs, fmt.Errorf("%d fingerprints with those that come with relayguard, want at most %d", len(added.prints), mostLines))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	added.index()
	return added, nil
}

// mostErrors is how many are told: more come of a file that is something else.
const mostErrors = 50

// line adds what a line says.
func (s *Set) line(line string) error {
	if !utf8.ValidString(line) {
		return errors.New("is not UTF-8; save it as UTF-8")
	}
	line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
	if line == "" || line[0] == '#' {
		return nil
	}
	name, rest := word(line)
	if !isName(name) {
		return fmt.Errorf(`name %.100q, want lower-case letters, digits, "-", "." and "_", at most %d`, name, longestName)
	}
	if rest == "never" {
		s.prints = slices.DeleteFunc(s.prints, func(p print) bool { return p.name == name })
		return nil
	}
	p := print{name: name}
	for {
		m, after, err := readMark(rest)
		if err != nil {
			return err
		}
		p.marks = append(p.marks, m)
		and, next := word(after)
		if and == "" {
			break
		}
		if and != "and" || len(p.marks) == 8 {
			return fmt.Errorf(`%.100q after a mark, want "and" and another, at most 8, or the end of the line`, strings.TrimSpace(after))
		}
		rest = next
	}
	slices.SortStableFunc(p.marks, func(a, b mark) int { return int(a.where) - int(b.where) })
	s.prints = append(s.prints, p)
	return nil
}

// word is the first word of s, and what comes after it.
func word(s string) (first, rest string) {
	s = strings.TrimLeft(s, " \t")
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimLeft(s[i:], " \t")
	}
	return s, ""
}

// readMark reads the mark that s begins with.
func readMark(s string) (m mark, rest string, err error) {
	place, rest := word(s)
	verb, rest := word(rest)
	field, isField := strings.CutSuffix(place, ":")
	how, ok := hows[verb]
	switch {
	case isField:
		m.where, m.field = inField, field
		if field == "" || len(field) > longestName || strings.ContainsFunc(field, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' || r == '"' }) {
			return m, "", fmt.Errorf(`field %.100q, want the name of a header field and a colon, as X-Mailer:`, place)
		}
	case place == "subject":
		m.where, ok = inSubject, ok && how != isPresent && how != isAlnum
	case place == "body":
		m.where, ok = inBody, ok && how == hasText
	default:
		return m, "", fmt.Errorf(`%.100q, want "subject", "body", a header field with its colon, or "never"`, place)
	}
	if !ok {
		return m, "", fmt.Errorf(`%.100q after %s, want one of: %s`, verb, place, verbs[m.where])
	}
	switch m.how = how; how {
	case isPresent:
	case isAlnum:
		rest, err = m.lengths(rest)
	default:
		rest, err = m.quoted(rest)
	}
	return m, rest, err
}

var verbs = [...]string{inField: "present, is, starts, ends, has, alnum", inSubject: "is, starts, ends, has", inBody: "has"}

// quoted reads the text that a mark compares with.
func (m *mark) quoted(s string) (rest string, err error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil || q[0] != '"' {
		return "", fmt.Errorf(`%.100q, want a text in double quotes`, s)
	}
	text, err := strconv.Unquote(q)
	least := 1
	if m.where == inBody {
		least = shortestText
	}
	switch {
	case err != nil || !utf8.ValidString(text):
		return "", fmt.Errorf(`text %.100s, want UTF-8`, q)
	case len(text) < least || len(text) > longestText:
		return "", fmt.Errorf(`text %.100s has %d octets, want %d to %d`, q, len(text), least, longestText)
	}
	m.text = text
	return s[len(q):], nil
}

// lengths reads MIN-MAX.
func (m *mark) lengths(s string) (rest string, err error) {
	w, rest := word(s)
	low, high, _ := strings.Cut(w, "-")
	from, err1 := strconv.Atoi(low)
	to, err2 := strconv.Atoi(high)
	if err1 != nil || err2 != nil || from < 1 || to < from || to > 255 {
		return "", fmt.Errorf(`%.100q after alnum, want the least and the most characters, as 37-43`, w)
	}
	m.low, m.high = from, to
	return rest, nil
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= longestName
}
