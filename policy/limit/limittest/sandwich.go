package limittest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// sandwich sends random traffic through random limits and compares each answer
// with the exact model and with limit.Memory.
func sandwich(t *testing.T, open func(t *testing.T) limit.Store) {
	seeds, steps := 60, 300
	if testing.Short() {
		seeds = 10
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			r := newTraffic(t, seed, open(t))
			for range steps {
				r.step()
			}
			r.nothingTooMuch()
			r.carriedOver(open)
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
	states    map[limit.Key]limit.State // told by Dirty
	additions bool
}

var lengths = []time.Duration{time.Second, 7 * time.Second, time.Minute, 10 * time.Minute, 3599 * time.Second, time.Hour, 24 * time.Hour, limit.MaxLength}

func newTraffic(t *testing.T, seed uint64, s limit.Store) *traffic {
	r := &traffic{T: t, rand: rand.New(rand.NewPCG(seed, 3)), store: s, reference: limit.NewMemory(), now: start, states: map[limit.Key]limit.State{}, additions: seed%3 == 2}
	for i := range 1 + r.rand.IntN(4) {
		c := limit.Charge{Key: limit.Key{Limit: fmt.Sprint("limit", i), Value: fmt.Sprint("login:", i/2)}, Kind: limit.Volume}
		if r.rand.IntN(5) == 0 {
			c.Kind = limit.Abuse
		}
		first := r.rand.IntN(len(lengths))
		for j := range 1 + r.rand.IntN(3) {
			c.Windows = append(c.Windows, limit.Window{Count: 1 + r.rand.Int64N(60), Length: lengths[(first+j)%len(lengths)], Soft: r.rand.IntN(4) == 0})
		}
		r.limits, r.models = append(r.limits, c), append(r.models, newModel())
	}
	return r
}

// pick is the charges of one message, and whose they are.
func (r *traffic) pick() (charges []limit.Charge, whose []int) {
	for range 1 + r.rand.IntN(4) {
		i := r.rand.IntN(len(r.limits))
		c := r.limits[i]
		if c.Amount = 1 + r.rand.Int64N(4); r.rand.IntN(6) == 0 {
			c.Amount = r.rand.Int64N(c.Windows[0].Count + 3)
		}
		charges, whose = append(charges, c), append(whose, i)
	}
	return charges, whose
}

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
	charges, whose := r.pick()
	switch op := r.rand.IntN(40); {
	case op == 0:
		r.change(func(s limit.Store) error { return s.Resume(r.Context(), r.now, charges[0].Key) })
		r.models[whose[0]].shut = false
	case op == 1:
		r.change(func(s limit.Store) error { return s.Reset(r.Context(), r.now, charges[0].Key) })
		r.models[whose[0]] = newModel()
	case op < 5 && r.additions:
		r.change(func(s limit.Store) error { return s.Add(r.Context(), r.now, charges) })
		for i, c := range charges {
			m := r.models[whose[i]]
			m.added = true
			now := m.clock(r.now)
			for _, w := range c.Windows {
				m.pass(w, now, c.Amount)
			}
		}
	case op < 8:
		r.tell(1 + r.rand.IntN(3))
	default:
		r.spend(charges, whose)
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

func (r *traffic) spend(charges []limit.Charge, whose []int) {
	r.Helper()
	peeked, err := r.store.Peek(r.Context(), r.now, charges)
	if err != nil {
		r.Fatal(err)
	}
	r.judge(charges, whose, peeked) // before anything has changed: FreeAt can be tried
	out, err := r.store.Spend(r.Context(), r.now, charges)
	if err != nil {
		r.Fatal(err)
	}
	reference, err := r.reference.Spend(r.Context(), r.now, charges)
	if err != nil {
		r.Fatal(err)
	}
	if !reflect.DeepEqual(peeked, out) {
		r.Fatalf("peek: %+v\nspend: %+v", peeked, out)
	}
	if !reflect.DeepEqual(reference, out) {
		r.Fatalf("memory: %+v\nstore: %+v", reference, out)
	}
	r.record(charges, whose, out)
}

// judge holds an outcome against the models, which have not seen it.
func (r *traffic) judge(charges []limit.Charge, whose []int, out limit.Outcome) {
	r.Helper()
	fits, uses := true, out.Uses
	pending := map[[2]int]int64{} // limit and window: taken by earlier charges of the step
	for i, c := range charges {
		m, hardOver := r.models[whose[i]], false
		longest := time.Duration(0)
		for j, w := range c.Windows {
			u, before := uses[j], pending[[2]int{whose[i], j}]
			low, high := bounds(m.passed[w.Length], w.Length, m.clock(r.now))
			over := u.Used+c.Amount > w.Count
			if u.Charge != i || u.Window != w || u.Used < low+before || u.Used > high+before || u.Over != (over || m.shut) {
				r.Fatalf("charge %+v: %+v; exact %d, over 17/16 %d, earlier in this step %d, shut %t", c, u, low, high, before, m.shut)
			}
			if u.Never != (m.shut || u.Over && c.Amount+before > w.Count) || u.FreeAt.IsZero() != (!u.Over || u.Never) {
				r.Fatalf("charge %+v: %+v; shut %t", c, u, m.shut)
			}
			if before == 0 && !u.FreeAt.IsZero() {
				r.freeThen(c, j, u.FreeAt)
			}
			if !u.Over {
				pending[[2]int{whose[i], j}] += c.Amount
			}
			hardOver = hardOver || u.Over && !w.Soft
			longest = max(longest, w.Length)
		}
		uses = uses[len(c.Windows):]
		if low, high := bounds(m.attempts, longest, m.clock(r.now)); out.Attempts[i] < low || out.Attempts[i] > high {
			r.Fatalf("charge %+v: %d attempts; exact %d, over 17/16 %d", c, out.Attempts[i], low, high)
		}
		if trips := c.Kind == limit.Abuse && c.Amount > 0 && hardOver; (m.shut || trips) && !out.Latched[i] || m.shut && out.Taken {
			r.Fatalf("charge %+v is not shut out: %+v", c, out)
		}
		if out.Latched[i] && (out.Taken || c.Kind != limit.Abuse) {
			r.Fatalf("charge %+v is shut: %+v", c, out)
		}
		fits = fits && !hardOver && !m.shut
	}
	if out.Taken != fits || len(uses) != 0 {
		r.Fatalf("taken %t, want %t: %+v", out.Taken, fits, out)
	}
}

// freeThen holds FreeAt against what the store says at that time.
func (r *traffic) freeThen(c limit.Charge, window int, at time.Time) {
	r.Helper()
	for over, at := range map[bool]time.Time{false: at, true: at.Add(-time.Microsecond)} {
		out, err := r.store.Peek(r.Context(), at, []limit.Charge{c})
		if err != nil {
			r.Fatal(err)
		}
		if out.Uses[window].Over != over {
			r.Fatalf("charge %+v at %s: %+v, want over %t", c, at, out.Uses[window], over)
		}
	}
}

func (r *traffic) record(charges []limit.Charge, whose []int, out limit.Outcome) {
	uses := out.Uses
	for i, c := range charges {
		m := r.models[whose[i]]
		now := m.clock(r.now)
		for j, w := range c.Windows {
			if out.Taken && !uses[j].Over {
				m.pass(w, now, c.Amount)
			}
		}
		if !out.Taken {
			m.attempt(now, c.Amount)
			m.shut = out.Latched[i]
		}
		uses = uses[len(c.Windows):]
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
		}
	}
}

// tell takes over some changed states.
func (r *traffic) tell(max int) int {
	k, ok := r.store.(Keeper)
	if !ok {
		return 0
	}
	told := 0
	n := k.Dirty(max, func(s limit.State) {
		told++
		r.states[s.Key] = s
	})
	if n != told || told > max {
		r.Fatalf("told %d states, said %d, want at most %d", told, n, max)
	}
	return told
}

// carriedOver loads what was told, as it is written down, into a new store, which must answer alike.
func (r *traffic) carriedOver(open func(*testing.T) limit.Store) {
	r.Helper()
	if _, ok := r.store.(Keeper); !ok {
		return
	}
	for r.tell(3) > 0 {
	}
	fresh := open(r.T)
	for _, s := range r.states {
		data, err := json.Marshal(s)
		if err != nil {
			r.Fatal(err)
		}
		var read limit.State
		if err := json.Unmarshal(data, &read); err != nil || !reflect.DeepEqual(read, s) {
			r.Fatalf("%s reads as %+v, %v; want %+v", data, read, err, s)
		}
		if err := fresh.(Keeper).Load(read); err != nil {
			r.Fatal(err)
		}
	}
	for range 50 {
		r.pass()
		charges, _ := r.pick()
		was, err := r.store.Spend(r.Context(), r.now, charges)
		if err != nil {
			r.Fatal(err)
		}
		is, err := fresh.Spend(r.Context(), r.now, charges)
		if err != nil {
			r.Fatal(err)
		}
		if !reflect.DeepEqual(was, is) {
			r.Fatalf("before: %+v\nloaded: %+v", was, is)
		}
	}
}
