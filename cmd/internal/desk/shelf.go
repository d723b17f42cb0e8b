package desk

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"
	"time"
)

// Shelf keeps messages of the queue, packed: some 60 octets each, what many have in
// common one time, and nothing that the garbage collector must follow. There may be
// 200,000. The zero value is empty. Not for concurrent use.
type Shelf struct {
	// MostDomains bounds the octets of recipient domains; beyond it they are kept as
	// others, "". 0: no bound.
	MostDomains int

	chunks  [][]byte
	at      []Text          // of the messages
	known   map[uint64]Text // texts that are kept one time, by their hash
	domains int             // octets
}

// Text is a text on a Shelf: the number of its chunk and where it is in that. 0 is none.
type Text uint32

const chunkOctets = 1 << 16

// seed of all hashes: what strangers choose does not collide.
var seed = maphash.MakeSeed()

// Len is how many there are.
func (s *Shelf) Len() int { return len(s.at) }

// Add keeps a message under the number Len.
func (s *Shelf) Add(m *Queued) { s.at = append(s.at, s.pack(m)) }

// Set puts another message in the place of one.
func (s *Shelf) Set(n int, m *Queued) { s.at[n] = s.pack(m) }

// Keep keeps a text beside the messages, one time, as it keeps their errors.
func (s *Shelf) Keep(text string) Text { return s.once(appendText(nil, text)) }

// Kept is such a text: not to be changed.
func (s *Shelf) Kept(t Text) []byte {
	p := packed(s.octets(t))
	return p.octets()
}

func (s *Shelf) pack(m *Queued) Text {
	var b []byte
	for _, text := range []string{m.QueueID, m.ID, m.MailFrom} {
		b = appendText(b, text)
	}
	b = binary.AppendVarint(b, m.Arrival.UnixMicro())
	b = binary.AppendVarint(b, m.Size)
	b = binary.AppendVarint(b, int64(m.Recipients))
	var of []byte
	for _, text := range []string{m.Instance, m.Queue, m.HeldBy, m.Account, m.Site, m.Plugin, m.Template, m.Verdict, m.Rule} {
		of = appendText(of, text)
	}
	for _, common := range []Text{s.once(of), s.Keep(m.Error), s.packDomains(m.Domains)} {
		b = binary.AppendUvarint(b, uint64(common))
	}
	return s.put(b)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// put keeps octets, which are whole in one chunk.
func (s *Shelf) put(b []byte) Text {
	if len(s.chunks) == 0 { // so that nothing is at 0
		s.chunks = append(s.chunks, make([]byte, 1, chunkOctets))
	}
	last := len(s.chunks) - 1
	if len(s.chunks[last])+len(b) > chunkOctets {
		s.chunks, last = append(s.chunks, make([]byte, 0, max(chunkOctets, len(b)))), last+1
	}
	to := &s.chunks[last]
	at := Text(last)*chunkOctets + Text(len(*to))
	*to = append(*to, b...)
	return at
}

func (s *Shelf) octets(at Text) []byte { return s.chunks[at/chunkOctets][at%chunkOctets:] }

// once keeps octets one time. What has another's hash is kept each time.
func (s *Shelf) once(b []byte) Text {
	if at := s.find(b); at != 0 {
		return at
	}
	if s.known == nil {
		s.known = map[uint64]Text{}
	}
	at := s.put(b)
	s.known[maphash.Bytes(seed, b)] = at
	return at
}

// find is where octets are that once kept; 0: nowhere.
func (s *Shelf) find(b []byte) Text {
	if at, there := s.known[maphash.Bytes(seed, b)]; there && bytes.HasPrefix(s.octets(at), b) {
		return at
	}
	return 0
}

func (s *Shelf) packDomains(all map[string]int) Text {
	if all == nil {
		return 0
	}
	b := binary.AppendUvarint(nil, uint64(len(all)))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b = binary.AppendVarint(appendText(b, name), int64(all[name]))
	}
	if at := s.find(b); at != 0 {
		return at
	}
	if s.MostDomains > 0 && s.domains+len(b) > s.MostDomains && (len(all) > 1 || all[""] == 0) {
		others := 0
		for _, k := range all {
			others += k
		}
		return s.packDomains(map[string]int{"": others})
	}
	s.domains += len(b)
	return s.once(b)
}

// At is a message as it was kept. Its domains are the caller's.
func (s *Shelf) At(n int) Queued {
	r := packed(s.octets(s.at[n]))
	m := Queued{QueueID: r.text(), ID: r.text(), MailFrom: r.text(), Arrival: time.UnixMicro(r.number()).UTC(), Size: r.number(), Recipients: int(r.number())}
	of, why, domains := packed(s.octets(r.place())), r.place(), r.place()
	for _, to := range []*string{&m.Instance, &m.Queue, &m.HeldBy, &m.Account, &m.Site, &m.Plugin, &m.Template, &m.Verdict, &m.Rule} {
		*to = of.text()
	}
	m.Error = string(s.Kept(why))
	if domains != 0 {
		r = packed(s.octets(domains))
		n := r.count()
		m.Domains = make(map[string]int, n)
		for range n {
			name := r.text()
			m.Domains[name] = int(r.number())
		}
	}
	return m
}

// id is a message's queue id, for now: not to be changed or kept.
func (s *Shelf) id(n int) []byte {
	r := packed(s.octets(s.at[n]))
	return r.octets()
}

// packed is what was kept, read from its beginning.
type packed []byte

func (p *packed) count() int {
	n, w := binary.Uvarint(*p)
	*p = (*p)[w:]
	return int(n)
}

func (p *packed) place() Text { return Text(p.count()) }

func (p *packed) number() int64 {
	n, w := binary.Varint(*p)
	*p = (*p)[w:]
	return n
}

func (p *packed) octets() []byte {
	n := p.count()
	b := (*p)[:n:n]
	*p = (*p)[n:]
	return b
}

func (p *packed) text() string { return string(p.octets()) }
