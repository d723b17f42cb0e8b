package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"relayguard/policy/limit"
)

// A bucket is one string, of integers in little-endian order:
//
//	head:
//	    last event I7, amount since I7, hot until I7, room I7
//	    kind B (1 cells, 2 items), windows B, windows times seconds I4,
//	    windows times count I7
//	    attempts I7, windows times sum I7
//	windows + 1 times, the last for attempts:
//	    sum of all cells I7, last event of the oldest I7 and of the newest I7,
//	    count of the newest I7, number of older ones B
//	latched I7
//	items only: level B, last event of those left out I7, last event I7
//	the older cells of every run, oldest first: last event I7, count I7
//
// A run without cells has count 0. A sum of 2^53 is that or more. Items are a
// sorted set by last event; a member is 8 octets, big-endian, so that members of
// one microsecond are in the order of their numbers.
//
// While a bucket is hot (script.lua) its head is all that is read, and only its
// last event and the amount since are written. The amount belongs to the newest
// cell of every window. Attempts, sums and the room that counts leave are those
// without it.
const (
	kindCells = 1
	kindItems = 2
	runSize   = 4*7 + 1
	cellSize  = 2 * 7
	extraSize = 1 + 2*7
	kindAt    = 4 * 7
)

// limitsSize is that of kind, windows, seconds and counts, which the script is
// given for each charge as the head has them.
func limitsSize(windows int) int { return 2 + windows*(4+7) }

func headSize(windows int) int { return kindAt + limitsSize(windows) + 7*(windows+1) }

var errState = errors.New("got what is no bucket")

// bucketOf is a state as Redis keeps it, but for its items.
func bucketOf(s *limit.State) []byte {
	kind, n := byte(kindCells), len(s.Windows)
	if s.Distinct != nil {
		kind = kindItems
	}
	head := append(make([]byte, 4*7, 256), kind, byte(n)) // not hot
	var body []byte
	for _, w := range s.Windows {
		head = binary.LittleEndian.AppendUint32(head, uint32(w.Length/time.Second))
	}
	head = append(head, make([]byte, headSize(n)-len(head))...)
	for i := range n + 1 {
		cells := s.Attempts
		if i < n {
			cells = s.Windows[i].Cells
		}
		head, body = appendRun(head, body, cells)
	}
	latched := int64(0)
	if !s.Latched.IsZero() {
		latched = micros(s.Latched)
	}
	head = append56(head, latched)
	if d := s.Distinct; d != nil {
		newest := d.Thrown
		for _, i := range d.Items {
			newest = max(newest, i.Last)
		}
		head = append56(append56(append(head, byte(d.Level)), d.Thrown), newest)
	}
	return append(head, body...)
}

func appendRun(head, body []byte, cells []limit.Cell) ([]byte, []byte) {
	if len(cells) == 0 {
		return append(head, make([]byte, runSize)...), body
	}
	sum := int64(0)
	for _, c := range cells {
		sum = min(sum+c.Count, limit.MaxCount)
	}
	older := cells[:len(cells)-1]
	newest := cells[len(older)]
	for _, n := range []int64{sum, cells[0].Last, newest.Last, newest.Count} {
		head = append56(head, n)
	}
	for _, c := range older {
		body = append56(append56(body, c.Last), c.Count)
	}
	return append(head, byte(len(older))), body
}

// reader takes integers off a bucket.
type reader struct {
	text string
	bad  bool
}

func (r *reader) integer(size int) (n int64) {
	if len(r.text) < size {
		r.bad = true
		return 0
	}
	for i := size - 1; i >= 0; i-- {
		n = n<<8 | int64(r.text[i])
	}
	r.text = r.text[size:]
	return n
}

// stateOf reads a bucket as Redis keeps it. The items of one that counts items
// are given apart. The state is checked.
func stateOf(key limit.Key, text string, items []limit.DistinctItem) (*limit.State, error) {
	r := reader{text: text}
	last, since := r.integer(7), r.integer(7)
	r.integer(7) // until when it is hot
	r.integer(7) // room
	kind, n := r.integer(1), int(r.integer(1))
	if r.bad || kind < kindCells || kind > kindItems || n < 1 || n > limit.MaxWindows {
		return nil, fmt.Errorf("state of bucket %q: %w", key, errState)
	}
	s := &limit.State{Key: key, Windows: make([]limit.WindowState, n)}
	for i := range s.Windows {
		s.Windows[i].Length = time.Duration(r.integer(4)) * time.Second
	}
	r.text = r.text[min(len(r.text), 7*n+7*(n+1)):] // counts, and sums that follow from the cells
	runs := make([]run, n+1)
	for i := range runs {
		if runs[i].read(&r); since > 0 && i < n {
			runs[i].newest.Last, runs[i].newest.Count = last, runs[i].newest.Count+since
		}
	}
	if latched := r.integer(7); latched > 0 {
		s.Latched = time.UnixMicro(latched).UTC()
		r.bad = r.bad || latched > limit.MaxCount
	}
	if kind == kindItems {
		s.Distinct = &limit.DistinctState{Level: int(r.integer(1)), Thrown: r.integer(7), Items: items}
		r.integer(7) // the last event follows from the others
	}
	for i := range runs {
		cells := runs[i].cells(&r)
		if i < n {
			s.Windows[i].Cells = cells
		} else {
			s.Attempts = cells
		}
	}
	if r.bad || len(r.text) > 0 {
		return nil, fmt.Errorf("state of bucket %q: %w", key, errState)
	}
	return s, s.Check()
}

// run is what the head of a bucket says of a window's cells.
type run struct {
	newest limit.Cell
	older  int64
}

func (u *run) read(r *reader) {
	r.integer(7) // the sum follows from the cells
	r.integer(7) // so does the oldest
	u.newest.Last, u.newest.Count = r.integer(7), r.integer(7)
	u.older = r.integer(1)
}

func (u *run) cells(r *reader) []limit.Cell {
	var cells []limit.Cell
	for range u.older {
		cells = append(cells, limit.Cell{Last: r.integer(7), Count: r.integer(7)})
	}
	if u.newest.Count == 0 {
		return cells
	}
	return append(cells, u.newest)
}

// itemOf is a member of a sorted set.
func itemOf(member any) (limit.Item, bool) {
	text, ok := member.(string)
	if !ok || len(text) != 8 {
		return 0, false
	}
	return limit.Item(binary.BigEndian.Uint64([]byte(text))), true
}

func memberOf(i limit.Item) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// timeOf is a score of a sorted set: microseconds.
func timeOf(score float64) (int64, bool) {
	return int64(score), score >= 0 && score <= limit.MaxCount
}

// parseTime reads what TIME answers.
func parseTime(t []string) (time.Time, error) {
	if len(t) == 2 {
		seconds, err := strconv.ParseInt(t[0], 10, 64)
		micros, err2 := strconv.ParseInt(t[1], 10, 64)
		if err == nil && err2 == nil && micros >= 0 && micros < 1_000_000 {
			return time.Unix(seconds, micros*1000), nil
		}
	}
	return time.Time{}, fmt.Errorf("ask Redis for the time: got %q", t)
}
