package limit

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// The binary form of a State, for stores that keep many. It begins with its
// version, all numbers are unsigned varints, and times of events are how long
// before the newest they were, in microseconds:
//
//	version, latched, newest, number of windows, 1 if Distinct else 0,
//	the seconds of each window,
//	of each window (none if Distinct) and of the attempts: number of cells, and of each age and count,
//	if Distinct: level, thrown (not an age), number of items, and of each the item in 8 octets, big endian, and age
const binaryVersion = 1

// AppendBinary appends the binary form, without the key: whoever keeps it has
// that beside it. There is no error.
func (s *State) AppendBinary(b []byte) ([]byte, error) {
	newest, distinct := micros(s.Newest()), uint64(0)
	if s.Distinct != nil {
		distinct = 1
	}
	put := func(n int64) { b = binary.AppendUvarint(b, uint64(n)) }
	b = append(b, binaryVersion)
	if s.Latched.IsZero() {
		put(0)
	} else {
		put(micros(s.Latched))
	}
	put(newest)
	put(int64(len(s.Windows)))
	put(int64(distinct))
	for _, w := range s.Windows {
		put(int64(w.Length / time.Second))
	}
	run := func(cells []Cell) {
		put(int64(len(cells)))
		for _, c := range cells {
			put(newest - c.Last)
			put(c.Count)
		}
	}
	for _, w := range s.Windows {
		if s.Distinct == nil {
			run(w.Cells)
		}
	}
	run(s.Attempts)
	if d := s.Distinct; d != nil {
		put(int64(d.Level))
		put(d.Thrown)
		put(int64(len(d.Items)))
		for _, i := range d.Items {
			b = binary.BigEndian.AppendUint64(b, uint64(i.Item))
			put(newest - i.Last)
		}
	}
	return b, nil
}

// UnmarshalBinary reads the binary form and checks it. The key stays as it is,
// and what room the windows have is used. After an error the state is of no use.
func (s *State) UnmarshalBinary(data []byte) error {
	r := reader{data: data}
	s.read(&r)
	if r.err == nil && len(r.data) > 0 {
		r.fail("got %d octets too many", len(r.data))
	}
	if r.err == nil {
		r.err = s.checkContent()
	}
	if r.err != nil {
		return fmt.Errorf("binary state of bucket %q: %w", s.Key, r.err)
	}
	return nil
}

func (s *State) read(r *reader) {
	if v := r.number(255); v != binaryVersion {
		r.fail("got version %d, want %d", v, binaryVersion)
	}
	s.Latched, s.Distinct = time.Time{}, nil
	if latched := r.number(MaxCount); latched != 0 {
		s.Latched = fromMicros(latched)
	}
	newest := r.number(MaxCount)
	windows, distinct := r.number(MaxWindows), r.number(1) == 1
	s.Windows = slices.Grow(s.Windows[:0], int(windows))[:windows]
	for i := range s.Windows {
		s.Windows[i].Length = time.Duration(r.number(int64(MaxLength/time.Second))) * time.Second
	}
	for i := range s.Windows {
		if w := &s.Windows[i]; distinct {
			w.Cells = nil
		} else {
			w.Cells = r.cells(w.Cells[:0], newest)
		}
	}
	s.Attempts = r.cells(s.Attempts[:0], newest)
	if distinct {
		s.Distinct = r.distinct(newest)
	}
}

// reader reads numbers until something is wrong; from then on they are 0.
type reader struct {
	data []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.data = nil
}

// number is the next one, 0 to most.
func (r *reader) number(most int64) int64 {
	v, n := binary.Uvarint(r.data)
	switch {
	case r.err != nil:
		return 0
	case n <= 0:
		r.fail("got no end")
		return 0
	case v > uint64(most):
		r.fail("got %d, want at most %d", v, most)
		return 0
	}
	r.data = r.data[n:]
	return int64(v)
}

func (r *reader) cells(room []Cell, newest int64) []Cell {
	n := r.number(maxCells)
	if n == 0 {
		return nil
	}
	room = slices.Grow(room, int(n))
	for range n {
		last := newest - r.number(newest)
		room = append(room, Cell{Last: last, Count: r.number(MaxCount)})
	}
	return room
}

func (r *reader) distinct(newest int64) *DistinctState {
	d := &DistinctState{Level: int(r.number(maxLevel)), Thrown: r.number(MaxCount)}
	n := r.number(maxItems)
	for range min(n, int64(len(r.data)/9+1)) { // more there cannot be
		if len(r.data) < 8 {
			r.fail("got no end")
			break
		}
		item := Item(binary.BigEndian.Uint64(r.data))
		r.data = r.data[8:]
		d.Items = append(d.Items, DistinctItem{item, newest - r.number(newest)})
	}
	if int64(len(d.Items)) != n {
		r.fail("got no end")
	}
	return d
}
