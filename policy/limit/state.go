package limit

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// State is all there is to know of a bucket, as plain data. A state without
// windows says that the bucket was forgotten. As JSON it is short; times are
// microseconds since the epoch, lengths seconds:
//
//	{"limit":"login-volume","value":"login:taro@example.jp","latched":1772442000000000,
//	 "windows":[{"s":600,"c":[1772441990000000,12]}],"attempts":[1772442000000000,5]}
type State struct {
	Key      Key
	Latched  time.Time     // since when the bucket is shut; zero if it is open
	Windows  []WindowState // of different lengths
	Attempts []Cell        // what was stopped, over the longest of the windows
}

// WindowState is one window's cells: oldest first, one a slot.
type WindowState struct {
	Length time.Duration
	Cells  []Cell
}

// Gone: the bucket was forgotten.
func (s State) Gone() bool { return len(s.Windows) == 0 }

// Newest is the last event; zero without one.
func (s State) Newest() time.Time {
	newest := int64(0)
	for _, w := range s.Windows {
		for _, c := range w.Cells {
			newest = max(newest, c.Last)
		}
	}
	for _, c := range s.Attempts {
		newest = max(newest, c.Last)
	}
	if newest == 0 {
		return time.Time{}
	}
	return fromMicros(newest)
}

// Expired: the bucket makes no difference at now, nor later. A shut one does.
func (s State) Expired(now time.Time) bool {
	return s.Latched.IsZero() && s.Expires().Before(now)
}

// Expires is when the bucket makes no difference any more if nothing comes; zero
// for one that is shut.
func (s State) Expires() time.Time {
	if !s.Latched.IsZero() {
		return time.Time{}
	}
	longest := time.Duration(0)
	for _, w := range s.Windows {
		longest = max(longest, w.Length)
	}
	return s.Newest().Add(longest)
}

// Check says why no bucket can have this state.
func (s State) Check() error {
	if err := s.check(); err != nil {
		return fmt.Errorf("state of bucket %q: %w", s.Key, err)
	}
	return nil
}

// maxKey bounds what a file can make us keep; keys are addresses and names.
const maxKey = 1024

func (s State) check() error {
	switch {
	case s.Key.Limit == "" || s.Key.Value == "":
		return errors.New("got an empty key")
	case len(s.Key.Limit) > maxKey || len(s.Key.Value) > maxKey:
		return fmt.Errorf("got a key of %d and %d octets, want at most %d", len(s.Key.Limit), len(s.Key.Value), maxKey)
	case !s.Latched.IsZero() && micros(s.Latched) == 0:
		return fmt.Errorf("shut since %s, want a time after 1970", s.Latched)
	case len(s.Windows) > MaxWindows:
		return fmt.Errorf("got %d windows, want at most %d", len(s.Windows), MaxWindows)
	case s.Gone() && (len(s.Attempts) > 0 || !s.Latched.IsZero()):
		return errors.New("got no windows, but more than a forgotten bucket has")
	}
	longest := time.Duration(0)
	for i, w := range s.Windows {
		if err := (Window{Count: 1, Length: w.Length}).check("window"); err != nil {
			return err
		}
		if slices.ContainsFunc(s.Windows[:i], func(o WindowState) bool { return o.Length == w.Length }) {
			return fmt.Errorf("got two windows of %s", w.Length)
		}
		if err := checkCells(w.Cells, w.Length); err != nil {
			return err
		}
		longest = max(longest, w.Length)
	}
	return checkCells(s.Attempts, longest)
}

func checkCells(cells []Cell, length time.Duration) error {
	if len(cells) > maxCells {
		return fmt.Errorf("got %d cells in a window, want at most %d", len(cells), maxCells)
	}
	for i, c := range cells {
		switch {
		case c.Count < 1 || c.Count > MaxCount:
			return fmt.Errorf("got a cell of %d, want 1 to %d", c.Count, int64(MaxCount))
		case c.Last < 0 || c.Last > MaxCount:
			return fmt.Errorf("got a cell of microsecond %d, want 0 to %d", c.Last, int64(MaxCount))
		case i > 0 && slotOf(c.Last, length) <= slotOf(cells[i-1].Last, length):
			return errors.New("got cells out of order")
		}
	}
	return nil
}

type stateJSON struct {
	Limit    string       `json:"limit"`
	Value    string       `json:"value,omitempty"`
	Raw      []byte       `json:"raw,omitempty"` // the value, if it is not UTF-8: JSON would make one key of many
	Latched  int64        `json:"latched,omitempty"`
	Windows  []windowJSON `json:"windows,omitempty"`
	Attempts []int64      `json:"attempts,omitempty"`
}

type windowJSON struct {
	Seconds int64   `json:"s"`
	Cells   []int64 `json:"c,omitempty"` // last, count, last, count, ...
}

// MarshalJSON writes the short form.
func (s State) MarshalJSON() ([]byte, error) {
	j := stateJSON{Limit: s.Key.Limit, Value: s.Key.Value, Attempts: flat(s.Attempts)}
	if !utf8.ValidString(s.Key.Value) {
		j.Value, j.Raw = "", []byte(s.Key.Value)
	}
	if !s.Latched.IsZero() {
		j.Latched = s.Latched.UnixMicro()
	}
	for _, w := range s.Windows {
		j.Windows = append(j.Windows, windowJSON{Seconds: int64(w.Length / time.Second), Cells: flat(w.Cells)})
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads the short form and checks it. Unknown fields are ignored:
// a newer version may have written them.
func (s *State) UnmarshalJSON(data []byte) error {
	var j stateJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	r := State{Key: Key{Limit: j.Limit, Value: j.Value}}
	switch {
	case j.Value == "":
		r.Key.Value = string(j.Raw)
	case len(j.Raw) > 0:
		return fmt.Errorf("state of bucket %q: got two values", r.Key)
	}
	switch {
	case j.Latched < 0 || j.Latched > MaxCount:
		return fmt.Errorf("state of bucket %q: shut since microsecond %d, want 0 to %d", r.Key, j.Latched, int64(MaxCount))
	case j.Latched > 0:
		r.Latched = fromMicros(j.Latched)
	}
	var err error
	for _, w := range j.Windows {
		if w.Seconds < 1 || w.Seconds > int64(MaxLength/time.Second) { // before it overflows
			return fmt.Errorf("state of bucket %q: window of %d s, want 1 s to 400 days", r.Key, w.Seconds)
		}
		ws := WindowState{Length: time.Duration(w.Seconds) * time.Second}
		if ws.Cells, err = cells(w.Cells); err != nil {
			return fmt.Errorf("state of bucket %q: %w", r.Key, err)
		}
		r.Windows = append(r.Windows, ws)
	}
	if r.Attempts, err = cells(j.Attempts); err != nil {
		return fmt.Errorf("state of bucket %q: %w", r.Key, err)
	}
	if err := r.Check(); err != nil {
		return err
	}
	*s = r
	return nil
}

func flat(cells []Cell) []int64 {
	var f []int64
	for _, c := range cells {
		f = append(f, c.Last, c.Count)
	}
	return f
}

func cells(f []int64) ([]Cell, error) {
	if len(f)%2 != 0 {
		return nil, fmt.Errorf("got %d numbers for cells, want two a cell", len(f))
	}
	var cells []Cell
	for i := 0; i < len(f); i += 2 {
		cells = append(cells, Cell{Last: f[i], Count: f[i+1]})
	}
	return cells, nil
}

// state is the bucket as data of its own.
func (b *bucket) state(key Key) State {
	s := State{Key: key, Attempts: own(b.run(b.attempts())), Windows: make([]WindowState, len(b.shape.lengths))}
	if b.latched != 0 {
		s.Latched = fromMicros(b.latched)
	}
	for i, length := range b.shape.lengths {
		s.Windows[i] = WindowState{Length: length, Cells: own(b.run(i))}
	}
	return s
}

// own is a copy; nil of none.
func own(cells []Cell) []Cell { return append([]Cell(nil), cells...) }

// Dirty hands over, and returns the number of, the states of at most max
// buckets that changed since they were last handed over; a state that is Gone
// for a bucket that was Reset. It holds no lock of mail's meanwhile, but a
// second Dirty waits. Expired and evicted buckets are not told.
func (m *Memory) Dirty(max int, fn func(State)) int {
	m.telling.Lock()
	defer m.telling.Unlock()
	told := 0
	for range shards {
		for {
			batch := m.shards[m.next].changed(min(breath, max-told))
			for _, s := range batch {
				fn(s)
			}
			if told += len(batch); len(batch) < breath {
				break
			}
		}
		if told == max {
			return told // goes on in this shard
		}
		m.next = (m.next + 1) % shards
	}
	return told
}

func (s *shard) changed(max int) []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	var states []State
	for key := range s.dirty {
		if len(states) >= max {
			break
		}
		delete(s.dirty, key)
		if b := s.buckets[key]; b != nil {
			b.dirty = false
			states = append(states, b.state(key))
		} else {
			states = append(states, State{Key: key})
		}
	}
	return states
}

// Load puts a bucket back as Dirty told it, in place of what there is of it.
func (m *Memory) Load(s State) error {
	if err := s.Check(); err != nil {
		return err
	}
	sh := m.shardOf(s.Key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.Gone() {
		sh.remove(s.Key)
		return nil
	}
	if sh.buckets[s.Key] == nil {
		if err := m.makeRoom(sh, nil, micros(s.Newest())); err != nil {
			return fmt.Errorf("load bucket %q: %w", s.Key, err)
		}
	}
	sh.remove(s.Key)
	sh.buckets[s.Key.own()] = m.bucketOf(s)
	return nil
}

func (m *Memory) bucketOf(s State) *bucket {
	windows, total := make([]Window, len(s.Windows)), len(s.Attempts)
	for i, w := range s.Windows {
		windows[i].Length, total = w.Length, total+len(w.Cells)
	}
	b := &bucket{shape: m.shapeOf(windows), cells: make([]Cell, 0, total)}
	if !s.Latched.IsZero() {
		b.latched = micros(s.Latched)
	}
	for i, w := range s.Windows {
		b.cells, b.n[i] = append(b.cells, w.Cells...), uint8(len(w.Cells))
	}
	b.cells, b.n[len(windows)] = append(b.cells, s.Attempts...), uint8(len(s.Attempts))
	return b
}

// Each hands over every bucket. It holds no lock meanwhile; what changes while
// it runs is told as it was or as it is.
func (m *Memory) Each(fn func(State)) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		keys := make([]Key, 0, len(s.buckets))
		for key := range s.buckets {
			keys = append(keys, key)
		}
		s.mu.Unlock()
		for _, key := range keys {
			s.mu.Lock()
			b := s.buckets[key]
			var st State
			if b != nil {
				st = b.state(key)
			}
			s.mu.Unlock()
			if b != nil {
				fn(st)
			}
		}
	}
}
