package wrapper

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxHead is how much of a message is read before it goes on: a longer header
// goes through like all else, only that the daemon sees its beginning alone.
const maxHead = 256 << 10

// head is the beginning of a message: its header, and what of the body was read
// with it.
type head struct {
	text   []byte
	start  int // of the header: behind a line "From ..." of mbox format
	end    int // of the header; at its blank line, or where what is no header begins
	cut    bool
	opener bool // a field may be put before start without changing what follows
}

// readHead reads until the header is there. It waits for no more than that, for
// a message may be typed. The error is one of reading; an end is none.
func readHead(r io.Reader) (*head, error) {
	h := &head{text: make([]byte, 0, 8<<10)}
	s := scan{}
	for {
		n, err := r.Read(h.text[len(h.text):cap(h.text)])
		h.text = h.text[:len(h.text)+n]
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return nil, err
		}
		switch {
		case s.lines(h.text, ended), ended:
			h.start, h.end, h.opener = s.start, s.next, s.opener
			return h, nil
		case len(h.text) == maxHead:
			h.start, h.end, h.opener, h.cut = s.start, s.next, s.opener, true
			return h, nil
		case len(h.text) == cap(h.text):
			more := make([]byte, len(h.text), min(4*cap(h.text), maxHead))
			copy(more, h.text)
			h.text = more
		}
	}
}

// scan finds the end of a header that comes piece by piece.
type scan struct {
	next   int  // where the next line begins
	start  int  // of the header
	fields int  // lines of the header
	mbox   bool // there was a line "From ..."
	opener bool
}

// lines looks at the lines that are there; true: the header's end is found.
// ended: the text ends here.
func (s *scan) lines(text []byte, ended bool) bool {
	for s.next < len(text) {
		line := text[s.next:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		} else if !ended {
			return false
		}
		if s.fields == 0 {
			if bytes.HasPrefix(line, []byte("From ")) && !s.mbox {
				s.mbox = true
				s.next += len(line)
				s.start = s.next
				continue
			}
			s.opener = opens(line)
		}
		if !isField(line) && (s.fields == 0 || line[0] != ' ' && line[0] != '\t') {
			return true
		}
		s.fields++
		s.next += len(line)
	}
	if ended && s.fields == 0 {
		s.opener = true // nothing follows
	}
	return ended
}

// opens reports whether a field put before this first line changes nothing of
// what the MTA makes of it. A blank at its beginning would continue our field; a
// line "From " in mbox format is left out by the MTA only at the very beginning.
func opens(line []byte) bool {
	return line[0] != ' ' && line[0] != '\t' && !bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From "))
}

// isField reports whether a line begins a header field: RFC 5322 §2.2, with
// blanks before the colon, which MTAs take.
func isField(line []byte) bool {
	name, _, found := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !found || len(name) == 0 {
		return false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// header is what the daemon is told of it.
func (h *head) header() []byte { return h.text[h.start:h.end] }

// with returns the beginning of the message with a field before all others, in
// two pieces, the second being text from where the first ends. The field's line
// ends as the message's first line does.
func (h *head) with(name, value string) (before, after []byte) {
	if !h.opener {
		return nil, h.text
	}
	eol := "\n"
	if first, _, found := strings.Cut(string(h.text), "\n"); found && strings.HasSuffix(first, "\r") {
		eol = "\r\n"
	}
	before = append(before, h.text[:h.start]...)
	if h.start > 0 && before[len(before)-1] != '\n' { // nothing but "From ..."
		return nil, h.text
	}
	before = append(before, name+": "+value+eol...)
	return before, h.text[h.start:]
}
