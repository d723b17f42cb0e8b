package limit

import (
	"errors"
	"fmt"
	"time"
)

const (
	// MaxCount bounds counts and amounts: the largest integer that is exact in
	// every store, also in those that count in floating point.
	MaxCount = 1 << 53

	MinLength = time.Second
	MaxLength = 400 * 24 * time.Hour

	// slots is how many a window is cut into: a refusal errs by less than one of
	// them.
	slots = 16
	// maxCells is how many slots a closed window can touch.
	maxCells = slots + 1
)

// Window allows Count within every closed interval of Length.
type Window struct {
	Count  int64         // 1 to MaxCount
	Length time.Duration // whole seconds, MinLength to MaxLength
	Soft   bool          // over it nothing is refused: the window is left as it is, and Use.Over says so
	Burst  bool          // the short window that also acts while the guard learns
}

// NewWindow checks what it is given.
func NewWindow(count int64, length time.Duration, soft bool) (Window, error) {
	w := Window{Count: count, Length: length, Soft: soft}
	if err := w.check("window"); err != nil {
		return Window{}, err
	}
	return w, nil
}

func (w Window) valid() bool {
	return w.Count >= 1 && w.Count <= MaxCount && w.Length >= MinLength && w.Length <= MaxLength && w.Length%time.Second == 0
}

func (w Window) check(at string) error {
	var errs []error
	switch {
	case w.Count < 1:
		errs = append(errs, fmt.Errorf("%s.count: got %d, want at least 1; delete the limit to lift it", at, w.Count))
	case w.Count > MaxCount:
		errs = append(errs, fmt.Errorf("%s.count: got %d, want at most %d; delete the limit to lift it", at, w.Count, int64(MaxCount)))
	}
	switch {
	case w.Length < MinLength || w.Length > MaxLength:
		errs = append(errs, fmt.Errorf("%s.length: got %s, want %s to 400 days", at, w.Length, MinLength))
	case w.Length%time.Second != 0: // else a slot is no whole number of microseconds
		errs = append(errs, fmt.Errorf("%s.length: got %s, want whole seconds", at, w.Length))
	}
	return errors.Join(errs...)
}

// Cell is what was taken in one slot of a window. Which slot follows from Last.
type Cell struct {
	Last  int64 // its last event, microseconds since the epoch
	Count int64 // 1 to MaxCount, where it stays
}

// micros is t in the clock of buckets, which begins in 1970 and ends in 2255.
func micros(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < 0:
		return 0
	case s > MaxCount/1_000_000:
		return MaxCount
	}
	return min(t.UnixMicro(), MaxCount)
}

func fromMicros(t int64) time.Time { return time.UnixMicro(t).UTC() }

// slotOf is the number of the slot that t lies in.
func slotOf(t int64, length time.Duration) int64 {
	return t / (length.Microseconds() / slots)
}

// expired is how many of a window's cells, oldest first, do not count at t.
func expired(cells []Cell, length time.Duration, t int64) int {
	from, i := t-length.Microseconds(), 0
	for i < len(cells) && cells[i].Last < from {
		i++
	}
	return i
}

// used is what a window's cells count at t.
func used(cells []Cell, length time.Duration, t int64) int64 {
	from, sum := t-length.Microseconds(), int64(0)
	for i := len(cells) - 1; i >= 0 && cells[i].Last >= from; i-- {
		sum += cells[i].Count // at most maxCells times MaxCount: no overflow
	}
	return sum
}

// freeAt is the first time, t or later, at which amount fits into a window
// with these cells if nothing else comes. The amount is at most w.Count.
func freeAt(cells []Cell, w Window, amount, t int64) int64 {
	cells = cells[expired(cells, w.Length, t):]
	over := used(cells, w.Length, t) + amount - w.Count
	for _, c := range cells {
		if over <= 0 {
			break
		}
		over -= c.Count
		t = c.Last + w.Length.Microseconds() + 1 // the window is closed
	}
	return t
}

// fold puts amount, of an event at t, into the newest of a window's cells. It
// returns false if t is in another slot, which needs a cell of its own. No
// event of the cells is later than t.
func fold(cells []Cell, length time.Duration, amount, t int64) bool {
	if len(cells) == 0 {
		return false
	}
	c := &cells[len(cells)-1]
	if slotOf(c.Last, length) != slotOf(t, length) {
		return false
	}
	c.Last, c.Count = t, min(c.Count+amount, MaxCount)
	return true
}
