package limit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// State is all there is to know of a bucket, as plain data. A state without
// windows says that the bucket was forgotten.
type State struct {
	Key      Key
	Latched  time.Time      // since when the bucket is shut; zero if it is open
	Windows  []WindowState  // of different lengths
	Attempts []Cell         // what was stopped, over the longest of the windows
	Distinct *DistinctState // of a bucket that counts items; its windows have no cells
}

// DistinctState is whom a bucket counts: all, or of those sampled at a level
// (the package's comment has the rule).
type DistinctState struct {
	Level  int            // 0 to 32
	Thrown int64          // last event of those left out, microseconds; 0 at level 0
	Items  []DistinctItem // by their last event; of one microsecond, by item
}

// DistinctItem is one recipient and its last event, in microseconds.
type DistinctItem struct {
	Item Item
	Last int64
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
	if d := s.Distinct; d != nil {
		newest = max(newest, d.Thrown)
		for _, i := range d.Items {
			newest = max(newest, i.Last)
		}
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

// These bound what a file can make us keep. Keys are addresses and names.
const (
	maxKey   = 1024
	maxItems = 1 << 20 // in one bucket or account
)

func (s State) check() error {
	switch {
	case s.Key.Limit == "" || s.Key.Value == "":
		return errors.New("got an empty key")
	case len(s.Key.Limit) > maxKey || len(s.Key.Value) > maxKey:
		return fmt.Errorf("got a key of %d and %d octets, want at most %d", len(s.Key.Limit), len(s.Key.Value), maxKey)
	}
	return s.checkContent()
}

func (s State) checkContent() error {
	switch {
	case !s.Latched.IsZero() && micros(s.Latched) == 0:
		return fmt.Errorf("shut since %s, want a time after 1970", s.Latched)
	case len(s.Windows) > MaxWindows:
		return fmt.Errorf("got %d windows, want at most %d", len(s.Windows), MaxWindows)
	case s.Gone() && (len(s.Attempts) > 0 || !s.Latched.IsZero() || s.Distinct != nil):
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
		if s.Distinct != nil && len(w.Cells) > 0 {
			return errors.New("got cells in a bucket that counts items")
		}
		if err := checkCells(w.Cells, w.Length); err != nil {
			return err
		}
		longest = max(longest, w.Length)
	}
	if err := checkCells(s.Attempts, longest); err != nil {
		return err
	}
	return s.Distinct.check()
}

func (d *DistinctState) check() error {
	switch {
	case d == nil:
		return nil
	case d.Level < 0 || d.Level > maxLevel:
		return fmt.Errorf("got level %d, want 0 to %d", d.Level, maxLevel)
	case d.Thrown < 0 || d.Thrown > MaxCount || d.Level == 0 && d.Thrown != 0:
		return fmt.Errorf("got items left out at microsecond %d at level %d", d.Thrown, d.Level)
	case len(d.Items) > maxItems:
		return fmt.Errorf("got %d items, want at most %d", len(d.Items), maxItems)
	}
	seen := make(map[Item]struct{}, len(d.Items))
	for i, k := range d.Items {
		switch {
		case k.Last < 0 || k.Last > MaxCount:
			return fmt.Errorf("got an item of microsecond %d, want 0 to %d", k.Last, int64(MaxCount))
		case !sampled(k.Item, uint8(d.Level)):
			return fmt.Errorf("got item %016x, which level %d leaves out", uint64(k.Item), d.Level)
		case i > 0 && compareItems(d.Items[i-1], k) >= 0:
			return errors.New("got items out of order")
		}
		seen[k.Item] = struct{}{}
	}
	if len(seen) != len(d.Items) {
		return errors.New("got an item twice")
	}
	return nil
}

func compareItems(a, b DistinctItem) int {
	return cmp.Or(cmp.Compare(a.Last, b.Last), cmp.Compare(a.Item, b.Item))
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

// KnownState is whom an account has written to, as plain data. Without items it
// says that all were forgotten.
type KnownState struct {
	Account string
	Items   []KnownItem // each once; by their last event; of one microsecond, by item
}

// KnownItem is one recipient. Times are microseconds since the epoch, at least 1.
type KnownItem struct {
	Item  Item
	Since int64 // first written to; 0, from Dirty only: it was forgotten
	Last  int64 // last written to
}

// Check says why no account can have this state.
func (k *KnownState) Check() error {
	if err := k.check(); err != nil {
		return fmt.Errorf("known of account %q: %w", k.Account, err)
	}
	return nil
}

func (k *KnownState) check() error {
	switch {
	case k.Account == "" || len(k.Account) > maxKey:
		return fmt.Errorf("got an account of %d octets, want 1 to %d", len(k.Account), maxKey)
	case len(k.Items) > maxItems:
		return fmt.Errorf("got %d items, want at most %d", len(k.Items), maxItems)
	}
	seen := make(map[Item]struct{}, len(k.Items))
	for i, it := range k.Items {
		switch {
		case it.Since < 1 || it.Since > it.Last || it.Last > MaxCount:
			return fmt.Errorf("got an item known from microsecond %d to %d, want 1 to %d in order", it.Since, it.Last, int64(MaxCount))
		case i > 0 && compareUse(k.Items[i-1], it) >= 0:
			return errors.New("got items out of order")
		}
		seen[it.Item] = struct{}{}
	}
	if len(seen) != len(k.Items) {
		return errors.New("got an item twice")
	}
	return nil
}
