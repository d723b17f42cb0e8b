package limit

import (
	"cmp"
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

	// DefaultPeaks is how many buckets Peaks remembers, each of about 300 octets,
	// and up to 16 more for each day and window: 30 MB, and 130 after a month in which
	// each had two windows every day. As many sites and accounts
	// are remembered, of about 150 octets.
	DefaultPeaks = 100_000

	keptDays = MaxPeakDays + 2 // those before today, today, and one that a clock may be ahead
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
// A clock that was wrong for a while does no lasting harm, ahead or behind. Days
// are kept by their number, so that one in the year 2040 does not push out the
// others; days in the future are not looked at, and are the first to go.
//
// It keeps a bounded number of buckets. When that is reached, one goes for each
// that comes: of some, the one known on the fewest days. Safe for concurrent use.
type Peaks struct {
	most int

	mu      sync.Mutex
	buckets map[Key]*peaks
	since   int64 // second of the first note; 0: none
	abodes  map[string]*abode
}

// abode is a site or an account: who has buckets.
type abode struct {
	met     int64    // second in which it was first met; 0: it was not
	granted bool     // an admin has asked for patience
	void    voidDays // in all its buckets
}

// peaks are those of one bucket.
type peaks struct {
	last    int32 // day of the last note or void
	void    voidDays
	windows []windowPeaks
}

// voidDays are days that count for nothing, in order.
type voidDays []int32

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
	return &Peaks{most: most, buckets: map[Key]*peaks{}, abodes: map[string]*abode{}}
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
		if d := w.days[i]; d < to && d.count() > largest && !p.isVoid(k, b, d.day()) {
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
	if p.isVoid(k, b, today) {
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
	if p.since == 0 || isAhead(p.since, now) {
		p.since = max(now.Unix(), 1)
	}
}

// isAhead reports whether only a clock that was wrong can have noted a second.
func isAhead(second int64, now time.Time) bool { return second-now.Unix() > 24*60*60 }

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
	a := p.abodes[who]
	if a == nil {
		if len(p.abodes) >= p.most && !granted {
			return
		}
		a = p.newAbode(who)
	}
	if granted || a.met == 0 || isAhead(a.met, now) {
		a.met, a.granted = max(now.Unix(), 1), a.granted || granted
	}
}

// Met is when somebody was first met, or begun with anew by an admin; zero: never.
func (p *Peaks) Met(who string) (first time.Time, granted bool) {
	if p == nil {
		return time.Time{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.abodes[who]
	if a == nil || a.met == 0 {
		return time.Time{}, false
	}
	return time.Unix(a.met, 0).UTC(), a.granted
}

func (p *Peaks) newAbode(who string) *abode {
	if len(p.abodes) >= p.most {
		p.forgetAbode()
	}
	a := &abode{}
	p.abodes[strings.Clone(who)] = a
	return a
}

// Void makes today and yesterday count for nothing in all buckets of a site
// ("site:shop.example.jp") or an account ("login:taro@example.jp"), also in those
// that are noted later: in those whose value is it, or has it as one of its parts,
// and for a site in those of its plugins ("plugin:NAME@shop.example.jp").
func (p *Peaks) Void(now time.Time, who string) {
	if p == nil || who == "" || len(who) > maxKey {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.abodes[who]
	if a == nil {
		a = p.newAbode(who)
	}
	a.void.add(dayOf(now))
}

// VoidKey is Void of one bucket, of which nothing needs to be known.
func (p *Peaks) VoidKey(now time.Time, k Key) {
	if p == nil {
		return
	}
	today := dayOf(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bucket(k, today).void.add(today)
}

// Voided reports whether today counts for nothing in a bucket. Of a site or an
// account Key.Value alone is asked.
func (p *Peaks) Voided(now time.Time, k Key) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isVoid(k, p.buckets[k], dayOf(now))
}

// isVoid reports whether a day counts for nothing in a bucket, nil if nothing is
// known of it.
func (p *Peaks) isVoid(k Key, b *peaks, day int32) bool {
	switch {
	case b != nil && b.void.has(day), p.isVoidPart(k.Value, day):
		return true
	case strings.IndexByte(k.Value, ' ') < 0:
		return false
	}
	for part := range strings.SplitSeq(k.Value, " ") {
		if p.isVoidPart(strings.ReplaceAll(part, "%20", " "), day) {
			return true
		}
	}
	return false
}

func (p *Peaks) isVoidPart(part string, day int32) bool {
	if a := p.abodes[part]; a != nil && a.void.has(day) {
		return true
	}
	at := strings.LastIndexByte(part, '@')
	if at < 0 || !strings.HasPrefix(part, "plugin:") {
		return false
	}
	var room [128]byte
	a := p.abodes[string(append(append(room[:0], "site:"...), part[at+1:]...))]
	return a != nil && a.void.has(day)
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
	if b.last < today || b.last > today+1 { // by a clock that was ahead
		b.last = today
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

// forgetAbode makes room for one: of some for one that was only met, or else the
// one whose void days are the longest ago; last goes whom an admin has made known.
func (p *Peaks) forgetAbode() {
	worst, oldest, n := "", int32(0), 0
	for who, a := range p.abodes { // in the order of chance
		last := int32(-1)
		if len(a.void) > 0 {
			last = a.void[len(a.void)-1]
		}
		if a.granted {
			last = maxDay
		}
		if n == 0 || last < oldest {
			worst, oldest = who, last
		}
		if n++; n == looked || last < 0 {
			break
		}
	}
	delete(p.abodes, worst)
}

// days is on how many days the bucket was in use.
func (b *peaks) days() int {
	n := len(b.void)
	for i := range b.windows {
		n = max(n, len(b.windows[i].days)+len(b.void))
	}
	return n
}

func (b *peaks) window(length time.Duration) *windowPeaks {
	for i := range b.windows {
		if b.windows[i].length == length {
			return &b.windows[i]
		}
	}
	return nil
}

func (v voidDays) has(day int32) bool { return slices.Contains(v, day) }

// add adds today and yesterday.
func (v *voidDays) add(today int32) {
	for _, day := range [...]int32{today - 1, today} {
		if i, known := slices.BinarySearch(*v, day); !known && day >= 0 {
			*v = slices.Insert(*v, i, day)
		}
	}
	for n := len(*v); n > keptDays; n = len(*v) {
		i := spare((*v)[n-1], today, n)
		*v = slices.Delete(*v, i, i+1)
	}
}

// spare is which of n days goes, if one is too many: the latest if only a clock
// that was wrong can have noted it, or else the first.
func spare(latest, today int32, n int) int {
	if latest > today+1 {
		return n - 1
	}
	return 0
}

// on is where a day is, or belongs.
func (w *windowPeaks) on(day int32) (i int, known bool) {
	return slices.BinarySearchFunc(w.days, day, func(d dayPeak, day int32) int { return cmp.Compare(d.day(), day) })
}

func (w *windowPeaks) note(today int32, used, amount int64) {
	i, known := w.on(today)
	if !known {
		w.days = slices.Insert(w.days, i, newDayPeak(today, 0))
		if n := len(w.days); n > keptDays {
			gone := spare(w.days[n-1].day(), today, n)
			w.days = slices.Delete(w.days, gone, gone+1)
			i, _ = w.on(today)
		}
	}
	day := &w.days[i]
	if w.length != 24*time.Hour {
		*day = max(*day, newDayPeak(today, used+amount))
		return
	}
	count := day.count() + amount
	if known && w.after > 0 && used > w.after { // others have charged it
		count += used - w.after
	}
	*day, w.after = newDayPeak(today, count), used+amount
}
