package limit

import "math"

// place is one charge's bucket while a step holds its lock.
type place struct {
	hash   uint64 // of the whole key
	shard  *shard
	bucket *bucket
	t      int64 // now in the time of the bucket
	fits   bool
	wanted int64 // the largest amount of its windows: what an attempt counts
}

// weighing is one step in front of its buckets, all of which are locked.
type weighing struct {
	now     int64
	step    *Step
	twins   bool
	places  []place
	account *account // whose recipients they are; nil: nobody's that is known
	out     *Outcome
	fetched uint64 // means nothing
}

// fetch looks the charges' buckets up. With a million of them each is far from
// the processor: it fetches those of one loop at the same time, and would wait
// for one after the other in a loop that does all with each.
func (w *weighing) fetch() {
	for i := range w.places {
		p := &w.places[i]
		p.bucket = p.shard.buckets[p.hash]
	}
	for i := range w.places {
		if b := w.places[i].bucket; b != nil && len(b.words) > 0 {
			w.fetched += b.words[0] + uint64(b.value[0])
		}
	}
}

// all answers for all charges. A key that comes twice is spent one after the
// other.
func (w *weighing) all() {
	out := w.out
	out.Taken = true
	at := 0
	for i := range w.places {
		p, c := &w.places[i], &w.step.Charges[i]
		uses := out.Uses[at : at+len(c.Windows)]
		at += len(uses)
		for j := range uses {
			uses[j] = Use{Charge: i, Window: c.Windows[j]}
		}
		var taken [MaxWindows]int64
		if w.twins {
			w.takenBefore(i, &taken)
		}
		p.weigh(w, c, uses, &taken)
		out.Taken = out.Taken && (p.fits || c.Tells)
	}
	for i := range w.places {
		p, c := &w.places[i], &w.step.Charges[i]
		b := p.bucket
		out.Attempts[i] = b.run(b.attempts()).used(b.shape.longest, p.t)
		out.Latched[i] = b.latched() != 0 || c.Kind == Abuse && !p.fits && !c.asks() && (out.Taken || !c.Tells)
	}
	if w.twins && !out.Taken {
		w.latchTwins()
	}
}

// weigh fills in how the windows of a charge stand, of which earlier charges of
// this step have already taken some.
func (p *place) weigh(w *weighing, c *Charge, uses []Use, taken *[MaxWindows]int64) {
	b := p.bucket
	t := b.at(w.now)
	p.t = t
	if c.Counts == Distinct {
		p.weighDistinct(c, uses, t)
		return
	}
	amount, shut, free := c.Amount, b.latched() != 0, false
	if c.Counts == FirstTime {
		before := int64(math.MaxInt64)
		if shut {
			before = b.latched()
		}
		amount = w.account.strangers(c.Items, w.now, before)
		free = amount == 0 && len(c.Items) > 0
	}
	need := amount
	if c.Counts == Bounces {
		need = max(amount, 1)
	}
	p.wanted, p.fits = amount, free || !shut
	for i := range uses {
		u := &uses[i]
		r, length := b.run(i), u.Window.Length
		u.Used, u.Amount = r.used(length, t)+taken[i], amount
		switch {
		case free || !shut && u.Used+need <= u.Window.Count:
			continue
		case shut || need+taken[i] > u.Window.Count:
			u.Over, u.Never = true, true
		default:
			u.Over, u.FreeAt = true, fromMicros(r.freeAt(u.Window, need+taken[i], t))
		}
		p.fits = p.fits && u.Window.Soft
	}
}

// takenBefore is what earlier charges of the step take from the windows of the
// bucket of the i-th.
func (w *weighing) takenBefore(i int, taken *[MaxWindows]int64) {
	at := 0
	for j := range w.step.Charges[:i] {
		e := &w.step.Charges[j]
		if w.places[j].bucket == w.places[i].bucket {
			for k := range e.Windows {
				if u := &w.out.Uses[at+k]; !u.Over {
					taken[k] += u.Amount
				}
			}
		}
		at += len(e.Windows)
	}
}

// latchTwins carries over what one charge does to the bucket of another.
func (w *weighing) latchTwins() {
	latched := w.out.Latched
	for i := range latched {
		for j := range latched {
			latched[i] = latched[i] || latched[j] && w.step.Charges[i].Key == w.step.Charges[j].Key
		}
	}
}

// settle does to the buckets what all said.
func (w *weighing) settle(m *Memory) {
	at := 0
	for i := range w.places {
		p, c := &w.places[i], &w.step.Charges[i]
		uses := w.out.Uses[at : at+len(c.Windows)]
		at += len(uses)
		switch {
		case w.out.Taken && p.fits:
			p.bucket.take(p.t, c, uses, m.exact)
		case w.out.Taken || !c.Tells:
			p.bucket.stop(p.t, p.wanted, w.out.Latched[i])
		}
		p.shard.mark(p.bucket)
	}
}

// take takes a charge that fits; a soft window without room stays as it is.
func (b *bucket) take(t int64, c *Charge, uses []Use, exact int) {
	if c.Counts == Distinct {
		b.grown().set.take(c.Items, t, b.shape.longest, exact)
		return
	}
	for i := range uses {
		if !uses[i].Over {
			b.add(i, uses[i].Amount, t)
		}
	}
}

// stop counts a charge that was not taken.
func (b *bucket) stop(t, amount int64, shut bool) {
	b.add(b.attempts(), amount, t)
	if shut && b.latched() == 0 {
		b.grown().latched = max(t, 1) // 0 is open
	}
}
