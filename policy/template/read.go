package template

import (
	"bytes"
	"strings"
	"sync"
	"unicode/utf8"
)

// Fields gives the first header field of a name, unfolded; it may be encoded.
type Fields interface {
	Get(name string) (string, bool)
}

// Domains keep hashes of different things apart.
const (
	domainSubject = iota + 1
	domainLink
	domainLine
	domainFront // of a site, among the lines
	domainShape
	domainSender
	domainCheck
)

// Read takes a text apart. Fields are header fields by name, unfolded, as they
// arrived; body is the beginning of the body as it arrived. It never fails: what
// cannot be decoded counts as it is, or not at all.
func (m *Memory) Read(fields Fields, body []byte) Text {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	r.reset(m.keys)
	if subject, ok := fields.Get("Subject"); ok {
		r.subject(subject)
	}
	contentType, _ := fields.Get("Content-Type")
	encoding, _ := fields.Get("Content-Transfer-Encoding")
	r.body.read(contentType, encoding, "", body[:min(len(body), maxBody)], 0)
	r.text(r.body.plain)
	// "Please use a reader that shows HTML" is not all that there is.
	if len(r.body.html) > 0 && len(r.links) == 0 && r.whole < 3 {
		r.room = fromHTML(r.room[:0], r.body.html, r.link)
		r.text(r.room)
	}
	return r.result()
}

var readers = sync.Pool{New: func() any {
	r := &reader{}
	r.link = r.takeLink
	return r
}}

// keys are those of a Memory: of words, and of each domain.
type keys struct {
	seed   uint64
	domain [domainCheck + 1][16]byte
}

func keysOf(key [16]byte) (k keys) {
	k.seed = sip(key, []byte("word"))
	for i := range k.domain {
		k.domain[i] = key
		k.domain[i][0] ^= byte(i)
	}
	return k
}

// reader is the room for taking one message apart.
type reader struct {
	keys  keys
	body  body
	line  line
	shape shape
	link  func(url []byte) // takeLink
	room  []byte           // text of HTML
	fold  []byte           // a line
	url   []byte

	skeleton  uint64
	links     []uint64
	lines     []uint64
	hosts     []byte // one behind the other
	ends      []int  // of each
	more      bool   // hosts
	fronts    int    // of sites, among the lines
	signature bool   // its mark was read
	whole     int    // whole lines that were kept
	parted    int    // lines whose beginning and end were kept
	partLines int    // of those that there may be so far
}

func (r *reader) reset(k keys) {
	r.keys, r.line.seed = k, k.seed
	r.body.reset()
	r.shape.reset()
	r.skeleton, r.links, r.lines, r.whole, r.parted = 0, r.links[:0], r.lines[:0], 0, 0
	r.hosts, r.ends, r.more, r.fronts = r.hosts[:0], r.ends[:0], false, 0
	r.signature = false
}

// result is the text, in memory of its own.
func (r *reader) result() Text {
	all := make([]uint64, 0, len(r.links)+len(r.lines)+bands)
	all = append(append(all, r.links...), r.lines...)
	l, n := len(r.links), len(all)
	all = append(all, r.shape.bands(r.keys.domain[domainShape], all[n:n])...)
	t := Text{Skeleton: r.skeleton, Links: all[:l:l], Lines: all[l:n:n], Shape: all[n:], More: r.more}
	if len(r.ends) > 0 {
		t.Hosts = make([]string, len(r.ends))
		names, from := string(r.hosts), 0
		for i, end := range r.ends {
			t.Hosts[i], from = names[from:end], end
		}
	}
	return t
}

// subject reads the subject. "TITLE" of "[Tag] TITLE" and of "Recommended by
// NAME: TITLE" counts as a line, as it does where the text has it.
func (r *reader) subject(value string) {
	s := decodeField(value)
	r.fold = fold(r.fold[:0], []byte(s[:min(len(s), maxSubject)]))
	b := withoutReply(bytes.TrimSpace(r.fold))
	r.line.read(b, r.link)
	if text := r.line.text(0, len(r.line.tokens), minSubjectLetters); text != nil {
		r.skeleton = r.hash(domainSubject, text)
	}
	for _, t := range r.line.tokens {
		r.shape.word(t.hash)
	}
	title := b
	if _, rest, ok := bytes.Cut(title, []byte("] ")); ok && title[0] == '[' {
		title = rest
	}
	if i := bytes.LastIndex(title, []byte(": ")); i >= 0 {
		title = title[i+2:]
	}
	if len(title) < len(b) {
		r.line.read(title, r.link)
		if text := r.line.text(0, len(r.line.tokens), minLetters); text != nil {
			r.lines = add(r.lines, r.hash(domainLine, text), maxLines)
		}
	}
}

// withoutReply takes away the marks of answers and forwarded mail.
func withoutReply(b []byte) []byte {
	for range 8 {
		mark, rest, ok := bytes.Cut(b, []byte(":"))
		if !ok || len(mark) > 3 || !strings.Contains(" re fw fwd aw wg sv vs ", " "+string(mark)+" ") {
			break
		}
		b = bytes.TrimSpace(rest)
	}
	return b
}

// text reads decoded text, line by line. Quoted lines are of somebody else's
// text. The first lines are read and the last ones: what somebody writes into a
// form stands before what the form says, or behind it, and cannot push all of that
// out. What is between them is looked through for links. A signature is read too,
// as its mark may be part of what was written into a form; links in it are lines.
func (r *reader) text(b []byte) {
	if r.partLines = partLines; bytes.Count(b, []byte("\n")) > maxWhole {
		r.partLines -= lastParted
	}
	b = r.read(b, firstWhole)
	if len(b) == 0 {
		return
	}
	last := lastLines(b, maxWhole-firstWhole)
	r.middle(b[:last])
	r.partLines = partLines
	r.read(b[last:], maxWhole)
}

// read takes lines until so many were kept; it returns what is left.
func (r *reader) read(b []byte, most int) []byte {
	for len(b) > 0 && r.whole < most {
		var one []byte
		one, b, _ = bytes.Cut(b, []byte("\n"))
		one = bytes.TrimSpace(one)
		if len(one) == 0 || one[0] == '>' {
			continue
		}
		if len(one) == 2 && string(one) == "--" && r.whole+len(r.links) > 0 {
			r.signature = true
			continue
		}
		for len(one) > maxLine {
			r.takeLine(one[:maxLine])
			one = one[maxLine:]
		}
		r.takeLine(one)
	}
	return b
}

// lastLines is where the last n lines begin that may be worth to be kept.
func lastLines(b []byte, n int) int {
	end := len(b)
	for end > 0 {
		start := bytes.LastIndexByte(b[:end], '\n') + 1
		if mayCount(b[start:end]) {
			if n--; n == 0 {
				return max(start, end-maxLine)
			}
		}
		end = max(start-1, 0)
	}
	return 0
}

// mayCount reports whether a line has minLetters octets of letters.
func mayCount(b []byte) bool {
	if len(b) > 0 && b[0] == '>' {
		return false
	}
	letters := 0
	for _, c := range b {
		if c >= utf8.RuneSelf || classes[c]&letter != 0 {
			if letters++; letters >= minLetters {
				return true
			}
		}
	}
	return false
}

// middle looks for links in what is not read by lines.
func (r *reader) middle(b []byte) {
	for n := 0; ; n++ {
		i := bytes.Index(b, []byte("://"))
		if i < 0 {
			return
		}
		if n == maxMiddle {
			r.more = true
			return
		}
		from := i
		for from > 0 && i-from < len("https") && classes[b[from-1]]&letter != 0 {
			from--
		}
		end := i
		for end < min(len(b), from+maxURL) && (b[end] >= utf8.RuneSelf || classes[b[end]]&inURL != 0) {
			end++
		}
		r.fold = fold(r.fold[:0], b[from:end])
		r.takeLink(r.fold)
		b = b[i+len("://"):]
	}
}

func (r *reader) takeLine(b []byte) {
	r.fold = fold(r.fold[:0], b)
	r.line.read(r.fold, r.link)
	for _, t := range r.line.tokens {
		r.shape.word(t.hash)
	}
	text := r.line.text(0, len(r.line.tokens), minLetters)
	if text == nil {
		return
	}
	r.whole++
	r.lines = add(r.lines, r.hash(domainLine, text), maxLines)
	if r.parted >= r.partLines {
		return
	}
	if head, tail := r.line.parts(); head != nil || tail != nil {
		r.parted++
		if tail != nil {
			r.lines = add(r.lines, r.hash(domainLine, tail), maxLines)
		}
		if head != nil {
			r.lines = add(r.lines, r.hash(domainLine, head), maxLines)
		}
	}
}

// takeLink keeps a link. The front of a site is in mail of every kind: it counts
// as a line, and so does what a signature links to.
func (r *reader) takeLink(url []byte) {
	if url = url[:urlLen(url)]; len(url) == 0 {
		return
	}
	link, front := normalLink(r.url[:0], url)
	if link == nil {
		return
	}
	r.url = link[:0]
	host, _, _ := bytes.Cut(link, []byte("/"))
	host, _, _ = bytes.Cut(host, []byte("?"))
	r.takeHost(host)
	most := maxFronts
	switch {
	case r.signature:
		most *= 2
	case !front:
		r.links = addLast(r.links, r.hash(domainLink, link), maxLinks)
		return
	}
	if n := len(r.lines); r.fronts < most {
		r.lines = add(r.lines, r.hash(domainFront, link), maxLines)
		r.fronts += len(r.lines) - n
	}
}

// takeHost keeps what a link leads to.
func (r *reader) takeHost(host []byte) {
	from := 0
	for _, end := range r.ends {
		if bytes.Equal(r.hosts[from:end], host) {
			return
		}
		from = end
	}
	if len(r.ends) == maxHosts {
		r.more = true
		return
	}
	r.hosts = append(r.hosts, host...)
	r.ends = append(r.ends, len(r.hosts))
}

func (r *reader) hash(domain int, text []byte) uint64 {
	return nonzero(sip(r.keys.domain[domain], text))
}
