package limittest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// Random sends random traffic through random limits, a run of some 1,500 calls
// a seed. Each answer is compared with the exact model, as far as that is exact,
// and with limit.Memory, to the letter.
func Random(t *testing.T, seeds int, open func(t *testing.T) limit.Store) {
	if testing.Short() {
		seeds = min(seeds, 10)
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			r := newTraffic(t, seed, open(t))
			for step := range 200 {
				r.step()
				if step%67 == 66 { // all goes on in a store that was empty
					fresh := open(t)
					move(t, r.store, fresh)
					r.store = fresh
				}
			}
			r.nothingTooMuch()
		})
	}
}

// traffic is one run of random mail.
type traffic struct {
	*testing.T
	rand      *rand.Rand
	store     limit.Store
	reference *limit.Memory
	now       time.Time
	limits    []limit.Charge // one a key, without amount
	models    []*model
	accounts  []*people
	pool      []limit.Item
	exact     bool // the pool is so small that nothing is sampled
	additions bool
	out, ref  limit.Outcome // reused
}

var lengths = []time.Duration{time.Second, 7 * time.Second, time.Minute, 10 * time.Minute, 3599 * time.Second, time.Hour, 24 * time.Hour, limit.MaxLength}

// units are weighted: most limits count recipients.
var units = []limit.Unit{0, limit.Messages, limit.Recipients, limit.Recipients, limit.Bytes, limit.Distinct, limit.Distinct, limit.FirstTime, limit.FirstTime, limit.Bounces}

func newTraffic(t *testing.T, seed uint64, s limit.Store) *traffic {
	r := &traffic{T: t, rand: rand.New(rand.NewPCG(seed, 3)), store: s, reference: limit.NewMemoryOf(Options()), now: start, additions: seed%3 == 2, exact: seed%2 == 0}
	r.pool = Items(seed, 600)
	if r.exact {
		r.pool = r.pool[:Options().DistinctExact]
	}
	for range 2 {
		r.accounts = append(r.accounts, &people{room: Options().KnownPerAccount})
	}
	for i := range 1 + r.rand.IntN(5) {
		c := limit.Charge{Key: limit.Key{Limit: fmt.Sprint("limit", i), Value: fmt.Sprint("login:", i/2)}, Kind: limit.Volume, Counts: units[r.rand.IntN(len(units))], Tells: r.rand.IntN(5) == 0}
		if r.rand.IntN(5) == 0 {
			c.Kind = limit.Abuse
		}
		first, most := r.rand.IntN(len(lengths)), int64(60)
		if c.Counts == limit.Distinct && !r.exact {
			most = 400
		}
		for j := range 1 + r.rand.IntN(3) {
			c.Windows = append(c.Windows, limit.Window{Count: 1 + r.rand.Int64N(most), Length: lengths[(first+j)%len(lengths)], Soft: r.rand.IntN(4) == 0})
		}
		r.limits, r.models = append(r.limits, c), append(r.models, &model{passed: map[time.Duration][]event{}})
	}
	return r
}

// message is one step, and which limits its charges are of.
type message struct {
	limit.Step
	account *people
	whose   []int
}

func (r *traffic) message() *message {
	who := r.rand.IntN(len(r.accounts))
	m := &message{account: r.accounts[who]}
	many := 6
	if r.rand.IntN(6) == 0 {
		many = min(len(r.pool), 80)
	}
	items := make([]limit.Item, 0, many)
	for _, at := range r.rand.Perm(len(r.pool))[:1+r.rand.IntN(many)] {
		items = append(items, r.pool[at])
	}
	m.Known = limit.Known{Account: fmt.Sprint("account:", who), Items: items}
	chosen := map[int]bool{}
	for range 1 + r.rand.IntN(4) {
		i := r.rand.IntN(len(r.limits))
		c := r.limits[i]
		if chosen[i] && (c.Tells || byItems(c)) { // no twins of these
			continue
		}
		chosen[i] = true
		switch {
		case byItems(c):
			c.Items = items
			if r.rand.IntN(10) == 0 {
				c.Items = nil
			}
		case c.Counts == limit.Bounces && r.rand.IntN(4) > 0:
		case r.rand.IntN(6) == 0:
			c.Amount = r.rand.Int64N(c.Windows[0].Count + 3)
		case r.rand.IntN(12) == 0:
			c.Amount = 1000 + r.rand.Int64N(1000) // on both sides of what a cell may hold
		default:
			c.Amount = 1 + r.rand.Int64N(4)
		}
		m.Charges, m.whose = append(m.Charges, c), append(m.whose, i)
	}
	return m
}

func byItems(c limit.Charge) bool { return c.Counts == limit.Distinct || c.Counts == limit.FirstTime }

// pass lets time go on in jumps that hit the edges of slots and windows.
func (r *traffic) pass() {
	c := r.limits[r.rand.IntN(len(r.limits))]
	length := c.Windows[r.rand.IntN(len(c.Windows))].Length
	slot := length / 16
	switch r.rand.IntN(12) {
	case 0, 1:
	case 2:
		r.now = r.now.Add(time.Microsecond)
	case 3:
		r.now = r.now.Truncate(slot).Add(slot)
	case 4:
		r.now = r.now.Truncate(slot).Add(slot - time.Microsecond)
	case 5:
		r.now = r.now.Add(length)
	case 6:
		r.now = r.now.Add(length + time.Microsecond)
	case 7:
		r.now = r.now.Add(-time.Duration(r.rand.Int64N(int64(2 * length)))).Truncate(time.Microsecond)
	default:
		r.now = r.now.Add(time.Duration(r.rand.Int64N(int64(2 * slot)))).Truncate(time.Microsecond)
	}
	if r.now.Before(start) || r.now.After(start.Add(100*365*24*time.Hour)) {
		r.now = start
	}
}

func (r *traffic) step() {
	r.pass()
	m := r.message()
	switch op := r.rand.IntN(40); {
	case op == 0:
		r.change(func(s limit.Store) error { return s.Resume(r.Context(), r.now, m.Charges[0].Key) })
		r.models[m.whose[0]].shut = time.Time{}
	case op == 1:
		r.change(func(s limit.Store) error { return s.Reset(r.Context(), r.now, m.Charges[0].Key) })
		r.models[m.whose[0]] = &model{passed: map[time.Duration][]event{}}
	case op < 5 && r.additions:
		r.change(func(s limit.Store) error { return s.Add(r.Context(), r.now, &m.Step) })
		r.add(m)
	default:
		r.spend(m)
	}
}

// change does the same to the store and the reference.
func (r *traffic) change(do func(limit.Store) error) {
	r.Helper()
	if err := do(r.store); err != nil {
		r.Fatal(err)
	}
	if err := do(r.reference); err != nil {
		r.Fatal(err)
	}
}

func (r *traffic) spend(m *message) {
	r.Helper()
	if err := r.store.Peek(r.Context(), r.now, &m.Step, &r.ref); err != nil {
		r.Fatal(err)
	}
	r.judge(m, r.ref) // before anything has changed: FreeAt can be tried
	if err := r.store.Spend(r.Context(), r.now, &m.Step, &r.out); err != nil {
		r.Fatal(err)
	}
	if !reflect.DeepEqual(r.ref, r.out) {
		r.Fatalf("%+v\npeek: %+v\nspend: %+v", m.Step, r.ref, r.out)
	}
	if err := r.reference.Spend(r.Context(), r.now, &m.Step, &r.ref); err != nil {
		r.Fatal(err)
	}
	if !reflect.DeepEqual(r.ref, r.out) {
		r.Fatalf("%+v\nmemory: %+v\nstore: %+v", m.Step, r.ref, r.out)
	}
	r.record(m, r.out)
}

// add is Add, of the models.
func (r *traffic) add(msg *message) {
	for i, c := range msg.Charges {
		m := r.models[msg.whose[i]]
		m.added = true
		amount := c.Amount
		if c.Counts == limit.FirstTime {
			amount = msg.account.strangers(c.Items, r.now, time.Time{})
		}
		now := m.clock(r.now)
		for _, w := range c.Windows {
			m.pass(c, w, now, amount)
		}
	}
	msg.account.write(msg.Known.Items, r.now)
}

// record is Spend, of the models: what the outcome, which was judged, says.
func (r *traffic) record(msg *message, out limit.Outcome) {
	uses := out.Uses
	for i, c := range msg.Charges {
		m := r.models[msg.whose[i]]
		now, fits, wanted := m.clock(r.now), r.fits(c, m, uses), int64(0)
		for j, w := range c.Windows {
			if out.Taken && fits && (!uses[j].Over || c.Counts == limit.Distinct) {
				m.pass(c, w, now, uses[j].Amount)
			}
			wanted = max(wanted, uses[j].Amount)
		}
		if !fits && out.Taken || !out.Taken && !c.Tells {
			m.attempt(now, wanted)
			if out.Latched[i] && m.shut.IsZero() {
				m.shut = m.clock(now)
			}
		}
		uses = uses[len(c.Windows):]
	}
	if out.Taken {
		msg.account.write(msg.Known.Items, r.now)
	}
}

// nothingTooMuch looks once more at everything that passed.
func (r *traffic) nothingTooMuch() {
	r.Helper()
	for i, m := range r.models {
		for _, w := range r.limits[i].Windows {
			if got := most(m.passed[w.Length], w.Length); got > w.Count && !m.added {
				r.Errorf("%+v: %d passed within %s, want at most %d", r.limits[i].Key, got, w.Length, w.Count)
			}
			if !r.exact || m.added || w.Soft {
				continue
			}
			for _, s := range m.seen {
				if got := len(distinctOf(m.seen, s.at.Add(-w.Length), s.at)); int64(got) > w.Count {
					r.Errorf("%+v: %d recipients within %s, want at most %d", r.limits[i].Key, got, w.Length, w.Count)
				}
			}
		}
	}
}
