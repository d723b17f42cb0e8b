package procmail

import "bytes"

// eof is what a source returns at its end.
const eof = -1

// source reads the octets of an rcfile, or of a text that is parsed again.
type source struct {
	data []byte
	at   int

	counted, lines int // newlines before counted
}

func (s *source) get() int {
	if s.at >= len(s.data) {
		return eof
	}
	s.at++
	return int(s.data[s.at-1])
}

func (s *source) unget(c int) {
	if c != eof {
		s.at--
	}
}

// test takes the next octet if it is c.
func (s *source) test(c int) bool {
	got := s.get()
	if got == c {
		return true
	}
	s.unget(got)
	return false
}

func (s *source) skipSpace() {
	for s.test(' ') || s.test('\t') {
	}
}

func (s *source) skipLine() {
	for c := s.get(); c != '\n' && c != eof; c = s.get() {
	}
}

// line is that of the next octet, from 1.
func (s *source) line() int {
	if s.at < s.counted {
		s.counted, s.lines = 0, 0
	}
	s.lines += bytes.Count(s.data[s.counted:s.at], []byte("\n"))
	s.counted = s.at
	return s.lines + 1
}

// logical reads a line with its continuations: a backslash before a newline stays
// there, unless it is alone on its line (getlline of cstdio.c).
func (s *source) logical() string {
	var text []byte
	for {
		start := s.at
		end := bytes.IndexByte(s.data[start:], '\n')
		last := end < 0
		if last {
			end = len(s.data) - start
		}
		part := s.data[start : start+end]
		s.at = min(start+end+1, len(s.data))
		text = append(text, part...)
		if last || len(part) == 0 || part[len(part)-1] != '\\' {
			return cut(string(text))
		}
		if len(part) == 1 {
			text = text[:len(text)-1]
		}
		text = append(text, '\n')
	}
}

// name reads the name of a variable, and whether what follows lets it be one
// (gobenv of variables.c).
func (s *source) name() (string, bool) {
	start := s.at
	c := s.get()
	for found := kind(c) == letter; found; c = s.get() {
		found = kind(c) != other
		if !found {
			break
		}
	}
	s.unget(c)
	name := string(s.data[start:s.at])
	return name, name != "" && (c == ' ' || c == '\t' || c == '\n' || c == '=')
}

const (
	other = iota
	letter
	digit
)

func kind(c int) int {
	switch {
	case '0' <= c && c <= '9':
		return digit
	case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', c == '_':
		return letter
	}
	return other
}

// cut ends a text where C ends it.
func cut(s string) string {
	if n := bytes.IndexByte([]byte(s), 0); n >= 0 {
		return s[:n]
	}
	return s
}
