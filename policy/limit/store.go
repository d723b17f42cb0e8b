package limit

import (
	"context"
	"time"
)

// MaxCharges is how many charges one step can have.
const MaxCharges = 1024

// Item is one recipient, as a keyed digest: stores keep no addresses.
type Item uint64

// Step is what a message takes, all or nothing.
type Step struct {
	// ID names the step for a store that several relays share: a repeat of a taken step within a
	// minute is given the first outcome. Empty: the store names it.
	ID      string
	Charges []Charge
	// Known is whose recipients these are, which FirstTime asks for. If the step
	// is taken, all of them are known from then on.
	Known Known
}

// Known is whom an account writes to.
type Known struct {
	Account string // its stable name, "local_user:33"; empty: none
	Items   []Item // each once; shared, never modified
}

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
	Counts  Unit     // Distinct and FirstTime count Items, all others Amount; zero counts Amount
	Windows []Window // of the limit, of different lengths; shared, never modified
	Amount  int64    // 0 to MaxCount; 0 only asks: of Bounces, whether there is room for one
	Items   []Item   // each once; none only asks; shared, never modified

	// Tells: it stops nothing. It is weighed by itself, taken if it fits and the
	// step is taken; if it does not fit, it is stopped by itself, attempt and
	// latch, but counts no attempt of a step that others stop.
	Tells bool
}

// Use is how one window of one charge stands.
type Use struct {
	Charge int    // index in the charges
	Window Window // of that charge
	Used   int64  // before this charge; after earlier charges of the same step to the same bucket
	Amount int64  // of this charge: of Items those that this window does not count yet, or that are not known
	Over   bool   // there is no room for Amount, or the bucket is shut
	Never  bool   // time alone makes no room: Amount is more than the whole window, or the bucket is shut
	// FreeAt is when Amount fits if nothing else comes. Zero if it fits now, or
	// if Never.
	FreeAt time.Time
}

// Outcome is what became of a step. Its slices are the caller's, who may hand
// them to the next step: stores use what room they have.
type Outcome struct {
	Taken    bool    // all charges were taken; else none was
	Uses     []Use   // in the order of the charges, and of the windows of each
	Latched  []bool  // per charge: its bucket is shut, since before or by this step
	Attempts []int64 // per charge: what was stopped in its longest window, before this step
}

// Store keeps buckets, and whom accounts write to. All stores keep the same
// rule (the package's comment has it) and give the same answers. A store is safe
// for concurrent use and returns by ctx's deadline. An error says nothing about
// the limits: the store is away or full, or the step is such as Check refuses.
type Store interface {
	// Spend takes all charges or none, in one step. A charge fits if each of its
	// hard windows has room and its bucket is not shut. If all fit (but for those
	// that only tell), they are taken; a soft window without room is left as it
	// is. If one does not fit, every bucket counts its amount as an attempt, and
	// each abuse bucket without room of its own is shut.
	Spend(ctx context.Context, now time.Time, step *Step, out *Outcome) error

	// Peek gives the answer of Spend, and changes nothing.
	Peek(ctx context.Context, now time.Time, step *Step, out *Outcome) error

	// Add takes all charges whether they fit or not, from every window, and
	// learns whom the account wrote to: what they stand for has happened. It
	// shuts nothing.
	Add(ctx context.Context, now time.Time, step *Step) error

	// Resume opens a shut bucket. What it has taken goes on to count. A bucket
	// that is open or unknown is no error.
	Resume(ctx context.Context, now time.Time, key Key) error

	// Reset forgets a bucket: it is open, and nothing was taken or attempted.
	Reset(ctx context.Context, now time.Time, key Key) error
}
