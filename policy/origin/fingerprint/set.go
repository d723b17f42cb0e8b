package fingerprint

import (
	_ "embed"
	"sync"
)

// Bounds of what is read and looked at.
const (
	mostBody     = 8 << 10 // octets of a body
	mostLines    = 1000    // fingerprints of a set
	longestText  = 200     // octets
	shortestText = 8       // octets of a text in a body; the shorter, the slower the search for all
	longestName  = 100     // octets
)

// Set is what is recognised; nil and the zero value recognise nothing. Not changed
// once made; safe for concurrent use.
type Set struct {
	prints []print

	// What to look at first, each with the prints that it may show.
	fields  []fieldPrints
	subject []int
	body    []int
	needles *needles // texts of bodies
}

// print is one fingerprint.
type print struct {
	name  string
	marks []mark // all must be there; the first is what it is found by
}

// fieldPrints are the prints that are found by one field.
type fieldPrints struct {
	field  string
	prints []int
}

// Fields gives the first field of a name, unfolded; it may be encoded.
type Fields interface {
	Get(name string) (string, bool)
}

//go:embed fingerprints.txt
var known string

var defaults = sync.OnceValues(func() (*Set, error) { return new(Set).Parse([]byte(known)) })

// Default are the fingerprints that come with relayguard.
func Default() *Set {
	s, err := defaults()
	if err != nil {
		panic(err) // our own file, which a test reads
	}
	return s
}

// Names are all that Find may return but "", each once, in the order of their
// first lines.
func (s *Set) Names() []string {
	if s == nil {
		return nil
	}
	var names []string
	seen := map[string]bool{}
	for _, p := range s.prints {
		if !seen[p.name] {
			seen[p.name] = true
			names = append(names, p.name)
		}
	}
	return names
}

// Find is the software that a message looks like, "" if like none. The subject is
// decoded, the body as it arrived.
func (s *Set) Find(fields Fields, subject string, body []byte) string {
	if s == nil {
		return ""
	}
	m := message{fields: fields, subject: subject}
	if s.needles != nil {
		m.hits = s.needles.find(unbroken(body[:min(len(body), mostBody)]))
	}
	last := -1
	for _, f := range s.fields {
		value, ok := fields.Get(f.field)
		if !ok {
			continue
		}
		for _, i := range f.prints {
			if i > last && s.prints[i].marks[0].in(value) && m.has(s.prints[i].marks[1:]) {
				last = i
			}
		}
	}
	last = m.last(s, s.subject, last)
	if m.hits != nil {
		last = m.last(s, s.body, last)
	}
	if last < 0 {
		return ""
	}
	return s.prints[last].name
}

// message is what marks are looked for in.
type message struct {
	fields  Fields
	subject string
	hits    []bool // by needle; nil: none
}

// last is the last of the prints that the message has, if it is after the one
// found before.
func (m *message) last(s *Set, prints []int, before int) int {
	for _, i := range prints {
		if i > before && m.has(s.prints[i].marks) {
			before = i
		}
	}
	return before
}

func (m *message) has(marks []mark) bool {
	for i := range marks {
		k := &marks[i]
		switch k.where {
		case inSubject:
			if !k.in(m.subject) {
				return false
			}
		case inBody:
			if m.hits == nil || !m.hits[k.needle] {
				return false
			}
		default:
			if value, ok := m.fields.Get(k.field); !ok || !k.in(value) {
				return false
			}
		}
	}
	return true
}

// index makes ready what Find looks at.
func (s *Set) index() {
	var texts []string
	byText, byField := map[string]int{}, map[string]int{}
	for i := range s.prints {
		marks := s.prints[i].marks
		for j := range marks {
			if marks[j].where == inBody {
				n, ok := byText[marks[j].text]
				if !ok {
					n = len(texts)
					byText[marks[j].text] = n
					texts = append(texts, marks[j].text)
				}
				marks[j].needle = n
			}
		}
		switch first := &marks[0]; first.where {
		case inSubject:
			s.subject = append(s.subject, i)
		case inBody:
			s.body = append(s.body, i)
		default:
			n, ok := byField[first.key()]
			if !ok {
				n = len(s.fields)
				byField[first.key()] = n
				s.fields = append(s.fields, fieldPrints{field: first.field})
			}
			s.fields[n].prints = append(s.fields[n].prints, i)
		}
	}
	if len(texts) > 0 {
		s.needles = newNeedles(texts)
	}
}
