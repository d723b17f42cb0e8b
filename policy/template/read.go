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

	skeleton uint64
	links    []uint64
	hosts    []uint64
	lines    []uint64
	whole    int // whole lines that were kept
	parted   int // lines whose beginning and end were kept
}

func (r *reader) reset(k keys) {
	r.keys, r.line.seed = k, k.seed
	r.body.reset()
	r.shape.reset()
	r.skeleton, r.links, r.lines, r.hosts, r.whole, r.parted = 0, r.links[:0], r.lines[:0], r.hosts[:0], 0, 0
}

// result is the text, in memory of its own.
func (r *reader) result() Text {
	all := make([]uint64, 0, len(r.links)+len(r.lines)+len(r.hosts)+bands)
	all = append(append(append(all, r.links...), r.lines...), r.hosts...)
	l, h, n := len(r.links), len(r.links)+len(r.lines), len(all)
	all = append(all, r.shape.bands(r.keys.domain[domainShape], all[n:n])...)
	return Text{Skeleton: r.skeleton, Links: all[:l:l], Lines: all[l:h:h], Hosts: all[h:n:n], Shape: all[n:]}
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
// text. What comes behind a signature's mark counts only if nothing came before.
// When enough lines are known, the rest is looked through for links.
func (r *reader) text(b []byte) {
	for len(b) > 0 {
		if r.whole >= maxWhole {
			r.rest(b)
			return
		}
		var one []byte
		one, b, _ = bytes.Cut(b, []byte("\n"))
		one = bytes.TrimSpace(one)
		if len(one) == 0 || one[0] == '>' {
			continue
		}
		if len(one) == 2 && string(one) == "--" && r.whole+len(r.links) > 0 {
			return
		}
		for len(one) > maxLine {
			r.takeLine(one[:maxLine])
			one = one[maxLine:]
		}
		r.takeLine(one)
	}
}

func (r *reader) rest(b []byte) {
	for len(r.links) < maxLinks {
		i := bytes.Index(b, []byte("http"))
		if i < 0 {
			return
		}
		b = b[i:]
		end := 0
		for end < min(len(b), maxURL) && (b[end] >= utf8.RuneSelf || classes[b[end]]&inURL != 0) {
			end++
		}
		r.fold = fold(r.fold[:0], b[:end])
		r.takeLink(r.fold)
		b = b[len("http"):]
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
	if r.parted >= partLines {
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
// as a line.
func (r *reader) takeLink(url []byte) {
	if len(r.links) >= maxLinks || len(url) == 0 {
		return
	}
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
	r.hosts = add(r.hosts, r.hash(domainFront, host), maxHosts)
	if front {
		r.lines = add(r.lines, r.hash(domainFront, link), maxLines)
	} else {
		r.links = add(r.links, r.hash(domainLink, link), maxLinks)
	}
}

func (r *reader) hash(domain int, text []byte) uint64 {
	return nonzero(sip(r.keys.domain[domain], text))
}
