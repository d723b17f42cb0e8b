package limit

import (
	"slices"
	"time"
)

// maxLevel is when a Distinct bucket samples one item in 2^32, which is all that
// the lower half of an item tells.
const maxLevel = 32

// distinct is whom a bucket has counted, each with its last event. At level k
// it keeps only items of which the low k bits are 0, one in 2^k; level 0 keeps
// all. Items are keyed hashes, so that the sample is fair and nobody can choose
// to be out of it.
type distinct struct {
	level  uint8
	thrown int64 // of what was left out, the last event
	newest int64 // last event of all
	items  items // Since is 1, Last the last event
}

func sampled(i Item, level uint8) bool { return uint64(i)&(1<<level-1) == 0 }

// levelAt is the level at t: all is known again when what was left out is out
// of the longest window.
func (d *distinct) levelAt(t int64, longest time.Duration) uint8 {
	if d.thrown < t-longest.Microseconds() {
		return 0
	}
	return d.level
}

// take counts items at t, and keeps at most so many of them.
func (d *distinct) take(items []Item, t int64, longest time.Duration, most int) {
	if len(items) == 0 {
		return
	}
	if d.level = d.levelAt(t, longest); d.level == 0 {
		d.thrown = 0
	}
	d.newest = t
	for _, i := range items {
		if sampled(i, d.level) {
			d.items.put(KnownItem{Item: i, Since: 1, Last: t})
		} else {
			d.thrown = t
		}
	}
	if d.items.n > most {
		d.expire(t - longest.Microseconds())
	}
	for d.items.n > most && d.level < maxLevel {
		d.level++
		d.items.removeIf(0, len(d.items.slots), func(k KnownItem) bool {
			if sampled(k.Item, d.level) {
				return false
			}
			d.thrown = max(d.thrown, k.Last)
			return true
		})
	}
}

// expire removes what was last seen before from.
func (d *distinct) expire(from int64) {
	d.items.removeIf(0, len(d.items.slots), func(k KnownItem) bool { return k.Last < from })
}

// weighDistinct is weigh for items. Those that the bucket leaves out count as
// new: else whoever fills it up could go on with them for ever.
func (p *place) weighDistinct(c *Charge, uses []Use, t int64) {
	b, shut := p.bucket, p.bucket.latched() != 0
	var none distinct
	d := &none
	if b.more != nil {
		d = &b.more.set
	}
	var all, own [MaxWindows]int64 // that each window counts: of all items, of the charge's
	level := d.levelAt(t, b.shape.longest)
	count(d.items.slots, uses, t, &all)
	for _, i := range c.Items {
		if at := d.items.find(i); at >= 0 {
			count(d.items.slots[at:at+1], uses, t, &own)
		}
	}
	p.wanted, p.fits = 0, !shut
	for i := range uses {
		u, items := &uses[i], int64(len(c.Items))
		u.Used, u.Amount = all[i]<<level, items-own[i]
		p.wanted = max(p.wanted, u.Amount)
		switch {
		case !shut && (u.Amount == 0 && items > 0 || u.Used+u.Amount <= u.Window.Count):
			continue
		case shut || items > u.Window.Count:
			u.Over, u.Never = true, true
		default:
			u.Over, u.FreeAt = true, fromMicros(d.freeAt(c.Items, u.Window.Length, b.shape.longest, u.Window.Count, t))
		}
		p.fits = p.fits && u.Window.Soft
	}
}

// count adds to n how many items each window counts at t.
func count(slots []KnownItem, uses []Use, t int64, n *[MaxWindows]int64) {
	var from [MaxWindows]int64
	for i := range uses {
		from[i] = t - uses[i].Window.Length.Microseconds()
	}
	for s := range slots {
		if slots[s].Since == 0 {
			continue
		}
		for i := range uses {
			if slots[s].Last >= from[i] {
				n[i]++
			}
		}
	}
}

// freeAt is the first time after t at which a window of this length has room for
// the charge's items, which are at most as many as it may count.
func (d *distinct) freeAt(charge []Item, length, longest time.Duration, most, t int64) int64 {
	level, from := d.levelAt(t, longest), t-length.Microseconds()
	var all, own []int64 // last events
	for _, k := range d.items.slots {
		if k.Since != 0 && k.Last >= from {
			all = append(all, k.Last)
		}
	}
	for _, i := range charge {
		if at := d.items.find(i); at >= 0 && d.items.slots[at].Last >= from {
			own = append(own, d.items.slots[at].Last)
		}
	}
	slices.Sort(all)
	slices.Sort(own)
	for int64(len(all))<<level+int64(len(charge)-len(own)) > most {
		exact := d.thrown + longest.Microseconds() + 1
		if t = exact; len(all) > 0 {
			if t = all[0] + length.Microseconds() + 1; level > 0 {
				t = min(t, exact)
			}
		}
		if level > 0 && t == exact {
			level = 0
		}
		all, own = after(all, t-length.Microseconds()), after(own, t-length.Microseconds())
	}
	return t
}

// after is the rest of the times that are not before from.
func after(times []int64, from int64) []int64 {
	for len(times) > 0 && times[0] < from {
		times = times[1:]
	}
	return times
}
