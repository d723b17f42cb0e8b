package limit

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Adapt lets the windows of a limit grow with what a bucket is used to: each
// allows Times its largest count on any of so many earlier days, if that is more
// than its own Count. The zero value leaves them as they are.
type Adapt struct {
	Times int64
	Days  int // 1 to MaxPeakDays
}

// On reports whether anything adapts.
func (a Adapt) On() bool { return a.Times > 0 && a.Days > 0 }

const (
	// MaxPeakDays is how many days Peaks goes back.
	MaxPeakDays = 31

	// DefaultPeaks is how many buckets Peaks remembers, each of about 200 octets,
	// and 8 more for each day and window: at most 70 MB.
	DefaultPeaks = 100_000
)

// Peaks remembers for buckets their largest counts on each of the last days, to
// tell what is usual for a plugin from what is not. Days are those of UTC. For a
// window of 24 h it is what came on that day; a window that slides over two days
// could hold twice as much.
//
// A day counts only when another whole day has passed after it: abuse that a
// window of a day finds began today or yesterday, and must not raise its own
// limit at midnight. What it finds is to be told by Void, which makes both days
// count for nothing.
//
// It keeps a bounded number of buckets. When that is reached, one goes for each
// that comes: of some, the one known on the fewest days. Safe for concurrent use.
type Peaks struct {
	most int

	mu      sync.Mutex
	buckets map[Key]*peaks
	since   int64 // second of the first note; 0: none
	met     map[string]meeting
}

// meeting is when a site or an account was met.
type meeting struct {
	first   int64 // second
	granted bool  // an admin has asked for patience
}

// peaks are those of one bucket.
type peaks struct {
	last    int32   // day of the last note or void
	void    []int32 // days that count for nothing, in order
	windows []windowPeaks
}

type windowPeaks struct {
	length time.Duration
	days   []dayPeak // in order
	after  int64     // what it held after the last note; 0: not known
}

// dayPeak is a day since 1970 above a count of 48 bits.
type dayPeak uint64

const (
	peakBits = 48
	maxPeak  = 1<<peakBits - 1
	maxDay   = 1<<(64-peakBits) - 1 // in the year 2149
)

func (d dayPeak) day() int32   { return int32(d >> peakBits) }
func (d dayPeak) count() int64 { return int64(d & maxPeak) }

func newDayPeak(day int32, count int64) dayPeak {
	return dayPeak(day)<<peakBits | dayPeak(min(max(count, 0), maxPeak))
}

func dayOf(now time.Time) int32 { return int32(min(max(now.Unix()/86400, 0), maxDay)) }

// NewPeaks remembers at most so many buckets; 0: DefaultPeaks.
func NewPeaks(most int) *Peaks {
	if most <= 0 {
		most = DefaultPeaks
	}
	return &Peaks{most: most, buckets: map[Key]*peaks{}, met: map[string]meeting{}}
}

// Largest is the largest count of a window of that length on any of the last
// days that is not void, neither today nor yesterday among them; 0 if there is
// none.
func (p *Peaks) Largest(now time.Time, k Key, window time.Duration, days int) int64 {
	if p == nil {
		return 0
	}
	today := dayOf(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[k]
	if b == nil {
		return 0
	}
	w := b.window(window)
	if w == nil {
		return 0
	}
	largest, from, to := int64(0), newDayPeak(max(today-int32(min(days, MaxPeakDays)), 0), 0), newDayPeak(max(today-1, 0), 0)
	for i := len(w.days) - 1; i >= 0 && w.days[i] >= from; i-- {
		if d := w.days[i]; d < to && d.count() > largest && !slices.Contains(b.void, d.day()) {
			largest = d.count()
		}
	}
	return largest
}

// Note says what a window held before a message that went, and what that added. Of
// a bucket that several relays share each may note its own.
func (p *Peaks) Note(now time.Time, k Key, window time.Duration, used, amount int64) {
	if p == nil {
		return
	}
	today := dayOf(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start(now)
	b := p.bucket(k, today)
	if slices.Contains(b.void, today) {
		return
	}
	w := b.window(window)
	if w == nil {
		if len(b.windows) == MaxWindows {
			return
		}
		b.windows = append(b.windows, windowPeaks{length: window})
		w = &b.windows[len(b.windows)-1]
	}
	w.note(today, used, amount)
}

// Start says that notes are taken from now on, also where there is none worth it.
func (p *Peaks) Start(now time.Time) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start(now)
}

func (p *Peaks) start(now time.Time) {
	if p.since == 0 {
		p.since = max(now.Unix(), 1)
	}
}

// Meet remembers when it was first met who has buckets: a site or an account. Once
// as many are known as buckets may be, who comes is not remembered.
func (p *Peaks) Meet(now time.Time, who string) { p.meet(now, who, false) }

// Grant begins anew with somebody whom an admin has just made known.
func (p *Peaks) Grant(now time.Time, who string) { p.meet(now, who, true) }

func (p *Peaks) meet(now time.Time, who string, granted bool) {
	if p == nil || who == "" || len(who) > maxKey {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.met[who]; known && !granted || !known && len(p.met) >= p.most {
		return
	}
	p.met[strings.Clone(who)] = meeting{max(now.Unix(), 1), granted}
}

// Met is when somebody was first met, or begun with anew by an admin; zero: never.
func (p *Peaks) Met(who string) (first time.Time, granted bool) {
	if p == nil {
		return time.Time{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m, known := p.met[who]
	if !known {
		return time.Time{}, false
	}
	return time.Unix(m.first, 0).UTC(), m.granted
}

// Void makes today and yesterday count for nothing in all buckets for whose value
// it is true, whatever is noted later. Its time grows with the number of buckets:
// ask Voided first.
func (p *Peaks) Void(now time.Time, whose func(value string) bool) {
	if p == nil {
		return
	}
	today := dayOf(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, b := range p.buckets {
		if whose(k.Value) {
			b.voids(today)
		}
	}
}

// VoidKey is Void of one bucket, of which nothing needs to be known.
func (p *Peaks) VoidKey(now time.Time, k Key) {
	if p == nil {
		return
	}
	today := dayOf(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bucket(k, today).voids(today)
}

// Voided reports whether today counts for nothing in a bucket.
func (p *Peaks) Voided(now time.Time, k Key) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[k]
	return b != nil && slices.Contains(b.void, dayOf(now))
}

// Since is when the first count was noted; zero: none was.
func (p *Peaks) Since() time.Time {
	if p == nil {
		return time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since == 0 {
		return time.Time{}
	}
	return time.Unix(p.since, 0).UTC()
}

// Len is how many buckets are remembered.
func (p *Peaks) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.buckets)
}

// bucket is that of a key, made if need be, in use today.
func (p *Peaks) bucket(k Key, today int32) *peaks {
	b := p.buckets[k]
	if b == nil {
		if len(p.buckets) >= p.most {
			p.forget(today)
		}
		b = &peaks{}
		p.buckets[k] = b
	}
	if b.last < today {
		b.last = today
		b.trim(today)
	}
	return b
}

// looked is among how many buckets the one to forget is looked for.
const looked = 16

// forget makes room for one: for what is out of date, or else known the least.
func (p *Peaks) forget(today int32) {
	var worst Key
	least, oldest, n := 0, int32(0), 0
	for k, b := range p.buckets { // in the order of chance
		days := b.days()
		if b.last < today-MaxPeakDays {
			days = -1
		}
		if n == 0 || days < least || days == least && b.last < oldest {
			worst, least, oldest = k, days, b.last
		}
		if n++; n == looked || days < 0 {
			break
		}
	}
	delete(p.buckets, worst)
}

// days is on how many days the bucket was in use.
func (b *peaks) days() int {
	n := len(b.void)
	for i := range b.windows {
		n = max(n, len(b.windows[i].days)+len(b.void))
	}
	return n
}

// trim forgets days that no limit looks at any more.
func (b *peaks) trim(today int32) {
	b.void = slices.DeleteFunc(b.void, func(day int32) bool { return day < today-MaxPeakDays })
	for i := range b.windows {
		w := &b.windows[i]
		w.days = slices.DeleteFunc(w.days, func(d dayPeak) bool { return d.day() < today-MaxPeakDays })
	}
}

func (b *peaks) window(length time.Duration) *windowPeaks {
	for i := range b.windows {
		if b.windows[i].length == length {
			return &b.windows[i]
		}
	}
	return nil
}

func (b *peaks) voids(today int32) {
	b.last = max(b.last, today)
	for _, day := range [...]int32{today - 1, today} {
		if i, known := slices.BinarySearch(b.void, day); !known && day >= 0 {
			b.void = slices.Insert(b.void, i, day)
		}
	}
	b.trim(b.last) // at most 32 days are left
}

func (w *windowPeaks) note(today int32, used, amount int64) {
	n := len(w.days)
	fresh := n == 0 || w.days[n-1].day() < today
	switch {
	case !fresh && w.days[n-1].day() > today: // by a clock that was put back
		return
	case fresh:
		w.days = append(w.days, newDayPeak(today, 0))
		n++
	}
	day := &w.days[n-1]
	if w.length != 24*time.Hour {
		*day = max(*day, newDayPeak(today, used+amount))
		return
	}
	count := day.count() + amount
	if !fresh && w.after > 0 && used > w.after { // others have charged it
		count += used - w.after
	}
	*day, w.after = newDayPeak(today, count), used+amount
}
