package limit

import (
	"context"
	"fmt"
	"time"
)

// MaxCharges is how many charges one step can have.
const MaxCharges = 64

// Key names a bucket. Neither part is empty: an empty value would be a bucket
// that strangers share.
type Key struct {
	Limit string // the limit's configured name
	Value string // "login:taro@example.jp"
}

func (k Key) String() string { return k.Limit + "/" + k.Value }

// Charge is what a message takes from one bucket.
type Charge struct {
	Key     Key
	Kind    Kind
	Windows []Window // of the limit, of different lengths; shared, never modified
	Amount  int64    // 0 to MaxCount; 0 only asks
}

// Use is how one window of one charge stands.
type Use struct {
	Charge int    // index in the charges
	Window Window // of that charge
	Used   int64  // before this charge; after earlier charges of the same step to the same bucket
	Over   bool   // Used + Amount > Window.Count, or the bucket is shut
	Never  bool   // time alone makes no room: Amount is more than the whole window, or the bucket is shut
	// FreeAt is when Amount fits if nothing else comes. Zero if it fits now, or
	// if Never.
	FreeAt time.Time
}

// Outcome is what became of a step. Its slices are the caller's.
type Outcome struct {
	Taken    bool    // all charges were taken; else none was
	Uses     []Use   // in the order of the charges, and of the windows of each
	Latched  []bool  // per charge: its bucket is shut, since before or by this step
	Attempts []int64 // per charge: what was stopped in its longest window, before this step
}

// Store keeps buckets. All stores keep the same rule and give the same answers.
// A store is safe for concurrent use and returns by ctx's deadline. An error
// says nothing about the limits: the store is away or full, or the charges are
// such as CheckCharges refuses.
type Store interface {
	// Spend takes all charges or none, in one step. A charge fits if each of its
	// hard windows has room and its bucket is not shut. If all fit, they are
	// taken; a soft window without room is left as it is. If one does not fit,
	// every bucket counts its amount as an attempt, and each abuse bucket without
	// room of its own is shut.
	Spend(ctx context.Context, now time.Time, charges []Charge) (Outcome, error)

	// Peek gives the answer of Spend, and changes nothing.
	Peek(ctx context.Context, now time.Time, charges []Charge) (Outcome, error)

	// Add takes all charges whether they fit or not, from every window: what
	// they stand for has happened. It shuts nothing.
	Add(ctx context.Context, now time.Time, charges []Charge) error

	// Resume opens a shut bucket. What it has taken goes on to count. A bucket
	// that is open or unknown is no error.
	Resume(ctx context.Context, now time.Time, key Key) error

	// Reset forgets a bucket: it is open, and nothing was taken or attempted.
	Reset(ctx context.Context, now time.Time, key Key) error
}

// CheckCharges tells what is wrong with charges that no store can take. It is
// for stores; it costs some nanoseconds a charge.
func CheckCharges(charges []Charge) error {
	if len(charges) > MaxCharges {
		return fmt.Errorf("charge %d buckets: want at most %d in one step", len(charges), MaxCharges)
	}
	for i := range charges {
		c := &charges[i]
		if err := c.check(); err != nil {
			return fmt.Errorf("charge bucket %q: %w", c.Key, err)
		}
		for j := range i {
			if charges[j].Key == c.Key && !sameLengths(charges[j].Windows, c.Windows) {
				return fmt.Errorf("charge bucket %q: twice, with different windows", c.Key)
			}
		}
	}
	return nil
}

func (c *Charge) check() error {
	switch {
	case c.Key.Limit == "" || c.Key.Value == "":
		return fmt.Errorf("got an empty key, want one bucket for each sender")
	case c.Kind != Volume && c.Kind != Abuse:
		return fmt.Errorf("got %s, want one of %q", c.Kind, Kinds())
	case c.Amount < 0 || c.Amount > MaxCount:
		return fmt.Errorf("got amount %d, want 0 to %d", c.Amount, int64(MaxCount))
	case len(c.Windows) < 1 || len(c.Windows) > MaxWindows:
		return fmt.Errorf("got %d windows, want 1 to %d", len(c.Windows), MaxWindows)
	}
	for i, w := range c.Windows {
		if !w.valid() {
			return w.check("window")
		}
		for _, other := range c.Windows[:i] {
			if other.Length == w.Length {
				return fmt.Errorf("got two windows of %s, want different lengths", w.Length)
			}
		}
	}
	return nil
}

func sameLengths(a, b []Window) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Length != b[i].Length {
			return false
		}
	}
	return true
}
