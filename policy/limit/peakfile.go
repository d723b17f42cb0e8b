package limit

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Peaks on a disk: a line that names the format, numbers as unsigned varints, and
// last the SHA-256 of all before it:
//
//	second since, number of buckets, and of each:
//	its limit and value (length and octets), day of the last note,
//	number of days that are void and each of them,
//	number of windows and of each: its seconds, number of days, and of each the day and the count,
//	number of sites and accounts, and of each: the name, the second in which it was met,
//	1 if an admin has begun anew, number of days that are void and each of them
const peaksHead = "relayguard peaks 2\n"

// maxPeaksFile bounds what is read: twice what DefaultPeaks can come to.
const maxPeaksFile = 256 << 20

// Save writes what is remembered: each bucket as it was at one moment, though not
// all at the same. It holds up others for a fraction of a millisecond at a time.
func (p *Peaks) Save(w io.Writer) error {
	since, buckets := p.encodeBuckets()
	abodes := p.encodeAbodes()
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), pieceSize)
	out.WriteString(peaksHead)
	out.Write(binary.AppendUvarint(nil, uint64(since)))
	for _, all := range [][]encoded{inOrder(buckets), inOrder(abodes)} {
		out.Write(binary.AppendUvarint(nil, uint64(len(all))))
		for _, one := range all {
			out.Write(one.data)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("save peaks: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("save peaks: %w", err)
	}
	return nil
}

// encoded is one bucket, or one site or account by Key.Value.
type encoded struct {
	key  Key
	data []byte
}

// pieceSize is how much is encoded under the lock at a time: of buckets with long
// histories some hundred.
const pieceSize = 32 << 10

// pieces are encoded under the lock one after the other. Between two of them who
// waits for the lock has it. A map that is ranged over meanwhile may be changed; of
// what comes and goes one may be told twice.
type pieces struct {
	p   *Peaks
	b   []byte
	all []encoded
}

// add ends one, begun at that octet.
func (s *pieces) add(k Key, from int) {
	s.all = append(s.all, encoded{k, s.b[from:len(s.b):len(s.b)]})
	if len(s.b) < pieceSize {
		return
	}
	s.p.mu.Unlock()
	runtime.Gosched()
	s.b = make([]byte, 0, pieceSize+pieceSize/8)
	s.p.mu.Lock()
}

func (s *pieces) number(n int64) { s.b = binary.AppendUvarint(s.b, uint64(n)) }

func (s *pieces) text(t string) {
	s.number(int64(len(t)))
	s.b = append(s.b, t...)
}

func (s *pieces) days(days voidDays) {
	s.number(int64(len(days)))
	for _, day := range days {
		s.number(int64(day))
	}
}

func (p *Peaks) encodeBuckets() (since int64, all []encoded) {
	s := pieces{p: p, all: make([]encoded, 0, p.Len()+looked)}
	p.mu.Lock()
	defer p.mu.Unlock()
	since = p.since
	for k, b := range p.buckets {
		if len(k.Limit) > maxKey || len(k.Value) > maxKey {
			continue
		}
		from := len(s.b)
		s.text(k.Limit)
		s.text(k.Value)
		s.number(int64(b.last))
		s.days(b.void)
		s.number(int64(len(b.windows)))
		for _, w := range b.windows {
			s.number(int64(w.length / time.Second))
			s.number(int64(len(w.days)))
			for _, d := range w.days {
				s.number(int64(d.day()))
				s.number(d.count())
			}
		}
		s.add(k, from)
	}
	return since, s.all
}

func (p *Peaks) encodeAbodes() []encoded {
	p.mu.Lock()
	n := len(p.abodes)
	p.mu.Unlock()
	s := pieces{p: p, all: make([]encoded, 0, n+looked)}
	p.mu.Lock()
	defer p.mu.Unlock()
	for who, a := range p.abodes {
		from := len(s.b)
		s.text(who)
		s.number(a.met)
		granted := int64(0)
		if a.granted {
			granted = 1
		}
		s.number(granted)
		s.days(a.void)
		s.add(Key{Value: who}, from)
	}
	return s.all
}

// inOrder sorts by key, each once.
func inOrder(all []encoded) []encoded {
	slices.SortFunc(all, func(a, b encoded) int {
		return cmp.Or(strings.Compare(a.key.Limit, b.key.Limit), strings.Compare(a.key.Value, b.key.Value))
	})
	return slices.CompactFunc(all, func(a, b encoded) bool { return a.key == b.key })
}

// Load reads what Save wrote, in place of what is remembered. After an error
// nothing has changed: then every limit is its own until more is known.
func (p *Peaks) Load(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxPeaksFile+1))
	if err != nil {
		return fmt.Errorf("load peaks: %w", err)
	}
	body := data[:max(len(data)-sha256.Size, 0)]
	sum := sha256.Sum256(body)
	switch {
	case len(data) > maxPeaksFile:
		return fmt.Errorf("load peaks: got more than %d octets", maxPeaksFile)
	case !bytes.HasPrefix(body, []byte(peaksHead)):
		return errors.New("load peaks: got a file of another kind or version; remove it, and they are learnt anew")
	case !bytes.Equal(sum[:], data[len(body):]):
		return errors.New("load peaks: the checksum is another; remove the file, and they are learnt anew")
	}
	read := reader{data: body[len(peaksHead):]}
	since := read.number(MaxCount)
	buckets := read.peaks(p.most)
	abodes := read.abodes(p.most)
	if read.err == nil && len(read.data) > 0 {
		read.fail("got %d octets too many", len(read.data))
	}
	if read.err != nil {
		return fmt.Errorf("load peaks: %w; remove the file, and they are learnt anew", read.err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.buckets, p.abodes = since, buckets, abodes
	return nil
}

// abodes reads sites and accounts, and keeps so many.
func (r *reader) abodes(most int) map[string]*abode {
	abodes := map[string]*abode{}
	for range r.number(MaxCount) {
		who := r.text()
		a := &abode{met: r.number(MaxCount), granted: r.number(1) == 1, void: r.days(who)}
		if r.err != nil {
			return nil
		}
		if len(abodes) < most {
			abodes[who] = a
		}
	}
	return abodes
}

// days reads days that are void, in order.
func (r *reader) days(of string) (void voidDays) {
	for range r.number(keptDays) {
		void = append(void, r.day())
	}
	if !slices.IsSortedFunc(void, func(x, y int32) int { return cmp.Or(cmp.Compare(x, y), -1) }) {
		r.fail("got days out of order of %q", of)
	}
	return void
}

// peaks reads all buckets, and keeps so many.
func (r *reader) peaks(most int) map[Key]*peaks {
	buckets := map[Key]*peaks{}
	for range r.number(MaxCount) {
		k := Key{Limit: r.text(), Value: r.text()}
		b := &peaks{last: r.day(), void: r.days(k.Value)}
		for range r.number(MaxWindows) {
			w := windowPeaks{length: time.Duration(r.number(int64(MaxLength/time.Second))) * time.Second}
			for range r.number(keptDays) {
				w.days = append(w.days, newDayPeak(r.day(), r.number(maxPeak)))
			}
			if b.window(w.length) != nil || !slices.IsSortedFunc(w.days, dayPeak.before) {
				r.fail("got days out of order in bucket %q", k)
			}
			b.windows = append(b.windows, w)
		}
		if r.err != nil {
			return nil
		}
		if len(buckets) < most {
			buckets[k] = b
		}
	}
	return buckets
}

// before is for days in order, each once: none is equal to another.
func (d dayPeak) before(o dayPeak) int { return cmp.Or(cmp.Compare(d.day(), o.day()), -1) }

func (r *reader) day() int32 { return int32(r.number(maxDay)) }

func (r *reader) text() string {
	n := r.number(maxKey)
	if int64(len(r.data)) < n {
		r.fail("got no end")
		return ""
	}
	s := string(r.data[:n])
	r.data = r.data[n:]
	return s
}
