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
