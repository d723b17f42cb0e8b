package redis

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/policy/limit"
)

// What is noted while Redis is away is bounded; what has no room is counted as
// lost, and makes Redis count too little.
const (
	mostBuckets = 200_000 // each some hundred octets
	mostCells   = 500_000 // of all buckets but the first of each
	mostSteps   = 10_000  // kept whole
	mostItems   = 500_000 // recipients

	mostPerBucket = 64 // cells
)

// owed is what Redis has to be told: per bucket how much passed in which slot of
// time, and whole steps where that is not enough. It is safe for concurrent use.
type owed struct {
	mu      sync.Mutex
	buckets map[limit.Key]*debt
	steps   []payment // calls without an answer, and those with first-time recipients
	known   map[string]map[limit.Item]time.Time
	cells   int
	items   int
	lost    *atomic.Int64 // charges for which there was no room
}

// len is how many buckets, steps and accounts there is something to tell of.
func (o *owed) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.buckets) + len(o.steps) + len(o.known)
}

// taken notes a step of mail that passed here. If Redis was asked (sent is not
// zero) it may have taken it, too.
func (o *owed) taken(now time.Time, step *limit.Step, out *limit.Outcome, sent time.Time) {
	charges := appendTaken(nil, step, out, limit.FirstTime)
	if sent.IsZero() {
		charges = slices.DeleteFunc(charges, func(c limit.Charge) bool { return c.Amount == 0 && len(c.Items) == 0 })
	}
	o.note(now, step, charges, newItems(step, out), sent, true)
}

// added notes charges that were not asked whether they fit.
func (o *owed) added(now time.Time, step *limit.Step, sent time.Time) {
	o.note(now, step, slices.Clone(step.Charges), true, sent, false)
}

// newItems: some recipients were first-time ones, as far as is known here.
func newItems(step *limit.Step, out *limit.Outcome) bool {
	return slices.ContainsFunc(out.Uses, func(u limit.Use) bool {
		return step.Charges[u.Charge].Counts == limit.FirstTime && u.Amount > 0
	})
}

func (o *owed) note(now time.Time, step *limit.Step, charges []limit.Charge, newItems bool, sent time.Time, spent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !sent.IsZero() {
		o.whole(now, limit.Step{ID: step.ID, Charges: charges, Known: step.Known}, sent, spent)
		return
	}
	var firsts []limit.Charge
	for _, c := range charges {
		switch {
		case c.Counts != limit.FirstTime:
			o.amount(now, &c)
		case newItems:
			firsts = append(firsts, c)
		}
	}
	switch {
	case len(firsts) > 0: // Redis knows better than this relay which are new
		o.whole(now, limit.Step{ID: step.ID, Charges: firsts, Known: step.Known}, sent, false)
	case step.Known.Account != "":
		o.knows(now, step.Known)
	}
}

// whole notes a step as it is.
func (o *owed) whole(now time.Time, step limit.Step, sent time.Time, spent bool) {
	items := len(step.Known.Items)
	for _, c := range step.Charges {
		items += len(c.Items)
	}
	if len(o.steps) >= mostSteps || o.items+items > mostItems {
		o.lost.Add(int64(len(step.Charges)))
		return
	}
	o.items += items
	known := o.known[step.Known.Account] // no first-time ones then, which Redis is told last
	for i := range step.Charges {
		c := &step.Charges[i]
		c.Key, c.Windows, c.Items, c.Tells = own(c.Key), slices.Clone(c.Windows), slices.Clone(c.Items), false
		if c.Counts == limit.FirstTime {
			c.Items = slices.DeleteFunc(c.Items, func(it limit.Item) bool { _, ok := known[it]; return ok })
		}
	}
	step.Known = limit.Known{Account: strings.Clone(step.Known.Account), Items: slices.Clone(step.Known.Items)}
	o.steps = append(o.steps, payment{op: opAdd, step: step, at: now, charges: int64(len(step.Charges)), spent: spent, sent: sent})
}

// amount notes a charge of a bucket.
func (o *owed) amount(now time.Time, c *limit.Charge) {
	d := o.debt(c.Key, false)
	if d == nil {
		o.lost.Add(1)
		return
	}
	if !slices.Equal(d.charge.Windows, c.Windows) {
		d.charge.Windows = slices.Clone(c.Windows)
	}
	d.charge.Kind, d.charge.Counts = c.Kind, c.Counts
	amount, its := c.Amount, []limit.Item(nil)
	if c.Counts == limit.Distinct {
		amount, its = 0, c.Items
	}
	if o.items+len(its) > mostItems {
		o.lost.Add(1)
		return
	}
	cells, items := d.size()
	d.add(now, amount, its, o.cells < mostCells)
	nowCells, nowItems := d.size()
	o.cells, o.items = o.cells+nowCells-cells, o.items+nowItems-items
}

// knows notes whom an account wrote to.
func (o *owed) knows(now time.Time, k limit.Known) {
	items := o.known[k.Account]
	if items == nil {
		if o.known == nil {
			o.known = map[string]map[limit.Item]time.Time{}
		}
		items = map[limit.Item]time.Time{}
		o.known[strings.Clone(k.Account)] = items
	}
	for _, it := range k.Items {
		if _, ok := items[it]; !ok {
			if o.items >= mostItems {
				return // they are new once more when Redis is back
			}
			o.items++
		}
		items[it] = now
	}
}

// shut notes that a charge shut its bucket.
func (o *owed) shut(now time.Time, c *limit.Charge) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.debt(c.Key, true); d.shut.IsZero() {
		d.shut, d.tried = now, tooMuch(c)
		d.tried.Key = d.charge.Key
	}
}

// resume forgets that the bucket was shut; if Redis is owed it, it is told.
func (o *owed) resume(now time.Time, key limit.Key, owing bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.buckets[key]; d != nil {
		d.shut = time.Time{}
	}
	if owing {
		o.debt(key, true).resume = now
	}
}

// reset forgets all about the bucket; if Redis is owed it, it is told.
func (o *owed) reset(now time.Time, key limit.Key, owing bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d := o.buckets[key]; d != nil {
		cells, items := d.size()
		o.cells, o.items = o.cells-cells, o.items-items
		delete(o.buckets, key)
	}
	for i := range o.steps {
		step := &o.steps[i].step
		step.Charges = slices.DeleteFunc(step.Charges, func(c limit.Charge) bool { return c.Key == key })
	}
	if owing {
		o.debt(key, true).reset = now
	}
}

// forget has Redis not be told whom an account wrote to.
func (o *owed) forget(account string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.items -= len(o.known[account])
	delete(o.known, account)
	for i := range o.steps {
		if k := &o.steps[i].step.Known; k.Account == account {
			o.items -= len(k.Items)
			k.Items = nil
		}
	}
}

// debt is that of the bucket; nil if there is no room for one more. What an
// admin did, and what shut a bucket, always has room.
func (o *owed) debt(key limit.Key, always bool) *debt {
	d := o.buckets[key]
	if d == nil && (always || len(o.buckets) < mostBuckets) {
		if o.buckets == nil {
			o.buckets = map[limit.Key]*debt{}
		}
		d = &debt{charge: limit.Charge{Key: own(key)}}
		o.buckets[d.charge.Key] = d
	}
	return d
}

// take empties it into payments: what admins did; then what passed; then what
// shut buckets; then who is known, of which first-time charges must not know.
func (o *owed) take(newID func() string) [][][]payment {
	o.mu.Lock()
	defer o.mu.Unlock()
	var acts, adds, shuts, knowns [][]payment
	for _, d := range o.buckets {
		acts, adds, shuts = appendTo(acts, d.acts()), appendTo(adds, d.adds(newID)), appendTo(shuts, d.shuts(newID))
	}
	adds = append(adds, byAccount(o.steps)...)
	for account, items := range o.known {
		knowns = appendTo(knowns, knownAdds(account, items, newID))
	}
	o.buckets, o.steps, o.known, o.cells, o.items = nil, nil, nil, 0, 0
	return [][][]payment{acts, adds, shuts, knowns}
}

// byAccount keeps the order of an account's steps: what one of them makes known
// is not new in the next.
func byAccount(steps []payment) (lists [][]payment) {
	accounts := map[string]int{}
	for _, p := range steps {
		account := p.step.Known.Account
		i, ok := accounts[account]
		if !ok || account == "" {
			i, lists = len(lists), append(lists, nil)
			accounts[account] = i
		}
		lists[i] = append(lists[i], p)
	}
	return lists
}

func appendTo(lists [][]payment, list []payment) [][]payment {
	if len(list) == 0 {
		return lists
	}
	return append(lists, list)
}

// knownAdds tells of recipients, so many at a time that a call stays short.
func knownAdds(account string, items map[limit.Item]time.Time, newID func() string) (list []payment) {
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(items)), 1000) {
		p := payment{op: opAdd, step: limit.Step{ID: newID(), Known: limit.Known{Account: account, Items: chunk}}}
		for _, it := range chunk {
			if p.at.Before(items[it]) {
				p.at = items[it]
			}
		}
		list = append(list, p)
	}
	return list
}
