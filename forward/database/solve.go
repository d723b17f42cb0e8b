package database

import "strings"

// solution is what a row says about the key. Empty strings are not known.
type solution struct {
	whole        string
	user, domain string
	labels       [10]string // of %1 to %9
	some         bool
}

// solve finds the key of which the row's equations hold: pairs are their values,
// free and keyed by turns. false: there is none, or it cannot be told.
func solve(equations []equation, pairs []string) (solution, bool) {
	var s solution
	for i, e := range equations {
		free, keyed := pairs[2*i], pairs[2*i+1]
		switch {
		case free == "":
			return s, false
		case e.whole:
			if s.whole != "" && !strings.EqualFold(s.whole, free) {
				return s, false
			}
			s.whole = free
		case keyed == markWhole && !strings.Contains(free, "@"):
			s.whole = free // a function of '%s' that leaves it as it is
		case !s.match(keyed, free):
			return s, false
		}
		s.some = true
	}
	return s, s.some && s.consistent()
}

// strange reports whether a row brings marks of its own, by which it could hide
// from its key.
func strange(equations []equation, pairs []string) bool {
	count := func(s string) (n int) {
		for _, r := range s {
			n += b2i(isMark(r))
		}
		return n
	}
	for i, e := range equations {
		if count(pairs[2*i]) > 0 && !e.whole || count(pairs[2*i+1]) > count(e.keyed) {
			return true
		}
	}
	return false
}

// match solves "pattern = value", where the pattern has marks in it.
func (s *solution) match(pattern, value string) bool {
	at := strings.IndexFunc(pattern, isMark)
	if at < 0 {
		return strings.EqualFold(strings.TrimRight(pattern, " "), strings.TrimRight(value, " "))
	}
	if len(value) < at || !strings.EqualFold(pattern[:at], value[:at]) {
		return false
	}
	mark, pattern, value := pattern[at], pattern[at+1:], value[at:]
	next := strings.IndexFunc(pattern, isMark)
	literal := pattern
	if next >= 0 {
		literal = pattern[:next]
	}
	end := len(value)
	switch {
	case next < 0:
		end = len(value) - len(literal)
	case literal == "":
		return false // two marks without anything between them
	default:
		end = lastFold(value, literal)
	}
	if end < 0 || !strings.EqualFold(value[end:min(len(value), end+len(literal))], literal) {
		return false
	}
	if !s.bind(mark, value[:end]) {
		return false
	}
	return next < 0 || s.match(pattern[next:], value[end+len(literal):])
}

func isMark(r rune) bool {
	return r == 2 || r == 3 || r > markLabel && r <= markLabel+9
}

// lastFold is the last index of an ASCII literal in s, in whatever case.
func lastFold(s, literal string) int {
	return strings.LastIndex(lowerASCII(s), lowerASCII(literal))
}

// lowerASCII keeps lengths, which strings.ToLower does not.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func (s *solution) bind(mark byte, value string) bool {
	into := &s.user
	switch {
	case mark == markDomain[0]:
		into = &s.domain
	case mark > markLabel:
		into = &s.labels[mark-markLabel]
	}
	if value == "" || *into != "" && !strings.EqualFold(*into, value) {
		return false
	}
	if mark != markUser[0] && strings.Contains(value, "@") || mark > markLabel && strings.Contains(value, ".") {
		return false
	}
	*into = value
	return true
}

// consistent completes what is known, and reports whether it goes together.
func (s *solution) consistent() bool {
	if s.domain == "" && s.labels[1] != "" && s.labels[2] != "" {
		for n := 9; n >= 1; n-- {
			if s.labels[n] != "" {
				s.domain += "." + s.labels[n]
			}
		}
		s.domain = s.domain[1:]
	}
	if s.whole == "" {
		return s.user != "" || s.domain != ""
	}
	user, domain, found := split(s.whole)
	if s.domain != "" && !(found && strings.EqualFold(s.domain, domain)) {
		return false
	}
	if s.user != "" && !strings.EqualFold(s.user, user) {
		return false
	}
	return true
}

// key is the key that was solved for; anyUser: every address of its domain is,
// and key is "@domain". With a user alone it is that user.
func (s *solution) key() (key string, anyUser bool) {
	switch {
	case s.whole != "":
		return s.whole, false
	case s.domain == "":
		return s.user, false
	case s.user == "":
		return "@" + s.domain, true
	}
	return s.user + "@" + s.domain, false
}

// put puts the key into a value that has marks, because the select list had the
// key in it.
func put(value, key, unknownUser string) string {
	if !strings.ContainsFunc(value, isMark) {
		return value
	}
	user, domain, found := split(key)
	if !found {
		value = strings.ReplaceAll(value, markWhole, key)
	}
	if user == "" {
		user = unknownUser
	}
	value = strings.ReplaceAll(value, markUser, user)
	value = strings.ReplaceAll(value, markDomain, domain)
	labels := strings.Split(domain, ".")
	for n := 1; n <= 9; n++ {
		if n <= len(labels) {
			value = strings.ReplaceAll(value, string(rune(markLabel+n)), labels[len(labels)-n])
		}
	}
	return value
}
