package template

import (
	"math"
	"math/bits"
	"time"
)

// history is how many earlier days are remembered.
const history = 21

// moment is a time as parts know it.
type moment struct {
	hour uint32 // since 1970
	day  uint16 // since 1970, of UTC
}

const maxHour = 24 * (1<<16 - 1) // in the year 2149

func timeOf(now time.Time) moment {
	hours := min(max(now.Unix()/3600, 0), maxHour)
	return moment{uint32(hours), uint16(hours / 24)}
}

// part is one part of one sender's texts.
//
// Whom it went to is counted in bitmaps of 256 (linear counting, Whang et al.
// 1990). Of up to 10 the number is mostly exact; the standard error is 5 in 100
// for 64 and for 250, 8 for 750. It cannot tell more than 1,420: then it is full,
// and a part that is usually so is boilerplate for any number.
type part struct {
	last   uint32 // hour when it was seen
	sender uint32
	day    uint16 // of sent
	usual  uint16 // to how many it was sent, at least, on Options.Days of the earlier days
	days   uint8  // of the earlier days, those on which it was sent
	wary   uint8  // days, this one included, on which it is no boilerplate
	held   uint16 // messages of that day that have its name and were not sent
	kind   uint8
	before [history]uint8 // to how many on the day before day, and so on: see scaled
	sent   recipients     // on that day
	seen   [4]recipients  // for whom mail came, sent or not, by third of a day, modulo 4
}

// view is what Find wants to know of a part.
type view struct {
	count       int // recipients in the last four thirds of a day, before this message
	days        int
	usual       int
	sent        int  // recipients today
	held        int  // messages today
	known       bool // it was sent on Options.Days earlier days
	boilerplate bool // and goes to no more than it may today
}

// see counts recipients.
func (p *part) see(at moment, days int, to *recipients) view {
	third, old := at.hour/8, p.last/8
	if third > old {
		for i := range min(third-old, 4) {
			p.seen[(third-i)%4] = recipients{}
		}
	}
	p.last = max(p.last, at.hour)
	v := view{days: int(p.days), usual: int(p.usual), sent: p.sent.count(), held: int(p.held), known: int(p.days) >= days}
	v.boilerplate = v.known && p.wary == 0 && v.sent <= growth*v.usual
	var all recipients
	for i := range p.seen {
		all.join(&p.seen[i])
	}
	v.count = all.count()
	p.seen[p.last/8%4].join(to)
	return v
}

// today is how many recipients were seen on the day when it was seen last.
func (p *part) today() int {
	third := p.last / 8
	all := p.seen[third%4]
	for i := uint32(1); i <= third%3; i++ {
		all.join(&p.seen[(third-i)%4])
	}
	return all.count()
}

// roll begins a new day, if it is one. Boilerplate that went over what it may, and
// gave its name to a quarter and more of that which was not sent, is none on as
// many days as made it so: who goes on every day shall not begin anew every
// morning. Refused mail that has another name does not count: anybody may write a
// site's standing lines into another site's form.
func (p *part) roll(at moment, days int) {
	if at.day <= p.day {
		return // the clock may have been set back
	}
	n := int(at.day - p.day)
	sent := p.sent.count()
	p.wary -= uint8(min(n, int(p.wary)))
	if held := min(int(p.held), p.today()); int(p.days) >= days && uint32(p.day) == p.last/24 && sent+held > growth*int(p.usual) && 3*held >= max(sent, 1) && n <= days {
		p.wary = uint8(days - n + 1)
	}
	var before [history]uint8
	if n <= history {
		copy(before[n:], p.before[:])
		before[n-1] = scaled(sent)
	}
	p.before, p.day, p.sent, p.held = before, at.day, recipients{}, 0
	p.sum(days)
}

// sum finds days and usual.
func (p *part) sum(days int) {
	p.days, p.usual = 0, 0
	var largest [maxDays]uint8
	for _, s := range p.before {
		if s == 0 {
			continue
		}
		p.days++
		for i := range largest[:days] {
			if s > largest[i] {
				s, largest[i] = largest[i], s
			}
		}
	}
	p.usual = unscaled[largest[days-1]]
}

// send notes to whom it was sent; to nobody known counts as to one.
func (p *part) send(to *recipients) {
	if *to == (recipients{}) && p.sent == *to {
		p.sent.put(0)
	}
	p.sent.join(to)
}

// worth orders parts by what it costs to forget them.
func (p *part) worth() uint32 {
	var all recipients
	for i := range p.seen {
		all.join(&p.seen[i])
	}
	days := uint32(p.days)
	if p.sent != (recipients{}) {
		days++
	}
	return p.last + 24*days + 6*uint32(bits.Len(uint(all.count())))
}

// recipients is a set of them, as far as 256 bits tell one from another.
type recipients [4]uint64

func (r *recipients) put(item uint64) {
	bit := mix(item) >> 56
	r[bit/64] |= 1 << (bit % 64)
}

func (r *recipients) join(other *recipients) {
	for i := range r {
		r[i] |= other[i]
	}
}

func (r *recipients) count() int {
	n := 0
	for _, w := range r {
		n += bits.OnesCount64(w)
	}
	return int(counts[n])
}

// counts are how many recipients so many bits stand for.
var counts = func() (n [257]uint16) {
	for bits := range n {
		n[bits] = uint16(math.Round(256 * math.Log(256/math.Max(256-float64(bits), 1))))
	}
	return n
}()

// scaled is a number in eighths of a doubling, from 1; 0 is 0.
func scaled(n int) uint8 {
	if n == 0 {
		return 0
	}
	return 1 + uint8(math.Round(8*math.Log2(float64(n)))) // at most 85
}

var unscaled = func() (n [256]uint16) {
	for s := 1; s < len(n); s++ {
		n[s] = uint16(min(math.Round(math.Exp2(float64(s-1)/8)), 1<<16-1))
	}
	return n
}()
