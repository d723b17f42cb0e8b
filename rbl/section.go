package rbl

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxNote bounds a text of the file, in octets: a report shows it.
const maxNote = 500

// section is one table of the file while it is read. Every key that is asked for is
// one that may be there; done reports the others.
type section struct {
	*report
	zone  string
	path  string // of the keys, with its final dot
	t     *table
	known []string
}

func (r *report) section(zone, path string, t *table) *section {
	return &section{report: r, zone: zone, path: path, t: t}
}

// value is what a key is set to; nil: nothing, or something of another kind, which
// is a problem.
func (s *section) value(key string, kind kindOf, wanted string) *value {
	s.known = append(s.known, key)
	v := s.t.values[key]
	if v == nil || v.kind == kind {
		return v
	}
	s.wrong(v.line, key, v.String(), wanted, "")
	return nil
}

func (s *section) wrong(line int, key, found, wanted, remedy string) {
	s.add(line, s.zone, s.path+key, found, wanted, remedy)
}

// missing reports a key that must be there.
func (s *section) missing(key, wanted string) { s.wrong(s.t.line, key, "nothing", wanted, "") }

// done reports the keys that nobody asked for.
func (s *section) done() {
	for _, key := range s.t.keys {
		if !slices.Contains(s.known, key) {
			s.add(s.t.values[key].line, s.zone, "", "the key "+quote(s.path+key), "one of "+either(s.known), "delete it")
		}
	}
}

// line is where a key is, or else where its table begins.
func (s *section) line(key string) int {
	if v := s.t.values[key]; v != nil {
		return v.line
	}
	return s.t.line
}

// text is a line of text; "" if there is none.
func (s *section) text(key string) string {
	v := s.value(key, aText, "a text")
	if v == nil || !s.shown(key, v) {
		return ""
	}
	return v.text
}

// shown reports that a text can be shown.
func (s *section) shown(key string, v *value) bool {
	unfit := func(c rune) bool { return !unicode.IsPrint(c) || blank(c) }
	switch {
	case strings.TrimSpace(v.text) == "":
		s.wrong(v.line, key, "an empty text", "a text", "delete the key")
	case len(v.text) > maxNote:
		s.wrong(v.line, key, fmt.Sprintf("%d octets", len(v.text)), fmt.Sprintf("at most %d", maxNote), "")
	case strings.IndexFunc(v.text, unfit) >= 0:
		s.wrong(v.line, key, quote(v.text), "one line of plain text", "take out what does not show")
	default:
		return true
	}
	return false
}

// texts are a list of lines of text.
func (s *section) texts(key string) []string {
	list := s.value(key, aList, "a list of texts")
	if list == nil {
		return nil
	}
	var all []string
	for _, v := range list.list {
		switch {
		case v.kind != aText:
			s.wrong(v.line, key, v.String(), "a list of texts", "")
		case s.shown(key, v):
			all = append(all, v.text)
		}
	}
	return all
}

func (s *section) flag(key string) bool {
	v := s.value(key, aBool, "true or false")
	return v != nil && v.text == "true"
}

// count is a whole number from 1 on; 0 if there is none.
func (s *section) count(key string) int {
	const most = 1 << 40
	wanted := "a whole number from 1 on"
	v := s.value(key, aNumber, wanted)
	if v == nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 10, 64)
	if err != nil || n < 1 || n > most {
		s.wrong(v.line, key, v.String(), wanted, "delete the key where there is no such number")
		return 0
	}
	return int(n)
}

// rate is how often in a second; 0 if nothing is said.
func (s *section) rate(key string) float64 {
	const least, most = 0.001, 1e6
	const wanted = "a number above 0, of queries a second"
	v := s.value(key, aNumber, wanted)
	if v == nil {
		return 0
	}
	rate, err := strconv.ParseFloat(strings.ReplaceAll(v.text, "_", ""), 64)
	if err != nil || !(rate >= least && rate <= most) { // NaN is no rate either
		s.wrong(v.line, key, v.String(), wanted, "delete the key where there is no such number")
		return 0
	}
	return rate
}

// duration is one as "24h", "90m" or "15d"; 0 if there is none.
func (s *section) duration(key string) time.Duration {
	v := s.value(key, aText, `a time as "24h" or "15d"`)
	if v == nil {
		return 0
	}
	d, err := time.ParseDuration(v.text)
	if days, found := strings.CutSuffix(v.text, "d"); found {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		s.wrong(v.line, key, v.String(), `a time as "24h" or "15d"`, "delete the key where none is known")
		return 0
	}
	return d
}

// link is the address of a web page; "" if there is none.
func (s *section) link(key string) string {
	text := s.text(key)
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || strings.ContainsAny(text, " \"'<>\\`") {
		s.wrong(s.line(key), key, quote(text), "the address of a web page", "write https://...")
		return ""
	}
	return text
}

// word is one of some words; "" if there is none.
func (s *section) word(key string, words ...string) string {
	wanted := "one of " + either(words)
	v := s.value(key, aText, wanted)
	if v == nil {
		return ""
	}
	if !slices.Contains(words, v.text) {
		s.wrong(v.line, key, v.String(), wanted, "")
		return ""
	}
	return v.text
}

// words are a list of some words, each once.
func (s *section) words(key string, words ...string) []string {
	all := s.texts(key)
	for i, word := range all {
		switch {
		case !slices.Contains(words, word):
			s.wrong(s.line(key), key, quote(word), "some of "+either(words), "")
		case slices.Contains(all[:i], word):
			s.wrong(s.line(key), key, quote(word)+" a second time", "it once", "")
		default:
			continue
		}
		return nil
	}
	return all
}

// sub is the table below a key; an empty one if there is none.
func (s *section) sub(key string) *section {
	t := newTable(s.t.line)
	if v := s.value(key, aTable, "a table"); v != nil {
		t = v.table
	}
	return s.section(s.zone, s.path+key+".", t)
}

// subs are the tables of a list.
func (s *section) subs(key string) []*section {
	v := s.value(key, aList, "a list of tables")
	if v == nil {
		return nil
	}
	var all []*section
	for _, one := range v.list {
		if one.kind != aTable {
			s.wrong(one.line, key, one.String(), "a list of tables", "")
			continue
		}
		all = append(all, s.section(s.zone, s.path+key+".", one.table))
	}
	return all
}
