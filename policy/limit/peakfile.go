package limit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
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
//	number of those who were met, and of each: the name, the second, 1 if an admin has begun anew
const peaksHead = "relayguard peaks 1\n"

// maxPeaksFile bounds what is read: twice what DefaultPeaks can come to.
const maxPeaksFile = 256 << 20

// Save writes what is remembered. It holds up others only while it copies.
func (p *Peaks) Save(w io.Writer) error {
	data := p.append(nil)
	sum := sha256.Sum256(data)
	if _, err := w.Write(append(data, sum[:]...)); err != nil {
		return fmt.Errorf("save peaks: %w", err)
	}
	return nil
}

func (p *Peaks) append(b []byte) []byte {
	put := func(n int64) { b = binary.AppendUvarint(b, uint64(n)) }
	text := func(s string) {
		put(int64(len(s)))
		b = append(b, s...)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b = append(b, peaksHead...)
	put(p.since)
	keys := make([]Key, 0, len(p.buckets))
	for k := range p.buckets {
		if len(k.Limit) <= maxKey && len(k.Value) <= maxKey {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(strings.Compare(a.Limit, b.Limit), strings.Compare(a.Value, b.Value))
	})
	put(int64(len(keys)))
	for _, k := range keys {
		one := p.buckets[k]
		text(k.Limit)
		text(k.Value)
		put(int64(one.last))
		put(int64(len(one.void)))
		for _, day := range one.void {
			put(int64(day))
		}
		put(int64(len(one.windows)))
		for _, w := range one.windows {
			put(int64(w.length / time.Second))
			put(int64(len(w.days)))
			for _, d := range w.days {
				put(int64(d.day()))
				put(d.count())
			}
		}
	}
	put(int64(len(p.met)))
	for _, who := range slices.Sorted(maps.Keys(p.met)) {
		text(who)
		put(p.met[who].first)
		granted := int64(0)
		if p.met[who].granted {
			granted = 1
		}
		put(granted)
	}
	return b
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
	met := read.met(p.most)
	if read.err == nil && len(read.data) > 0 {
		read.fail("got %d octets too many", len(read.data))
	}
	if read.err != nil {
		return fmt.Errorf("load peaks: %w; remove the file, and they are learnt anew", read.err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.buckets, p.met = since, buckets, met
	return nil
}

// met reads who was met, and keeps so many.
func (r *reader) met(most int) map[string]meeting {
	met := map[string]meeting{}
	for range r.number(MaxCount) {
		who := r.text()
		m := meeting{r.number(MaxCount), r.number(1) == 1}
		if r.err != nil {
			return nil
		}
		if len(met) < most {
			met[who] = m
		}
	}
	return met
}

// peaks reads all buckets, and keeps so many.
func (r *reader) peaks(most int) map[Key]*peaks {
	buckets := map[Key]*peaks{}
	for range r.number(MaxCount) {
		k := Key{Limit: r.text(), Value: r.text()}
		b := &peaks{last: r.day()}
		for range r.number(MaxPeakDays + 2) {
			b.void = append(b.void, r.day())
		}
		for range r.number(MaxWindows) {
			w := windowPeaks{length: time.Duration(r.number(int64(MaxLength/time.Second))) * time.Second}
			for range r.number(MaxPeakDays + 2) {
				w.days = append(w.days, newDayPeak(r.day(), r.number(maxPeak)))
			}
			if b.window(w.length) != nil || !slices.IsSortedFunc(w.days, dayPeak.before) {
				r.fail("got days out of order in bucket %q", k)
			}
			b.windows = append(b.windows, w)
		}
		if !slices.IsSortedFunc(b.void, func(x, y int32) int { return cmp.Or(cmp.Compare(x, y), -1) }) {
			r.fail("got days out of order in bucket %q", k)
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
