package limittest

import (
	"time"

	"relayguard/policy/limit"
)

// judge holds an outcome against the models, which have not seen it.
func (r *traffic) judge(msg *message, out limit.Outcome) {
	r.Helper()
	taken, uses := true, out.Uses
	pending := map[[2]int]int64{} // limit and window: taken by earlier charges of the step
	twins := map[int]int{}
	for i, c := range msg.Charges {
		twins[msg.whose[i]]++
		for j := range c.Windows {
			at := [2]int{msg.whose[i], j}
			r.judgeUse(msg, i, j, uses[j], pending[at])
			if !uses[j].Over {
				pending[at] += uses[j].Amount
			}
		}
		taken = taken && (c.Tells || r.fits(c, r.models[msg.whose[i]], uses))
		uses = uses[len(c.Windows):]
	}
	if out.Taken != taken || len(uses) != 0 {
		r.Fatalf("taken %t, want %t: %+v", out.Taken, taken, out)
	}
	uses = out.Uses
	for i, c := range msg.Charges {
		m, longest := r.models[msg.whose[i]], time.Duration(0)
		for _, w := range c.Windows {
			longest = max(longest, w.Length)
		}
		if low, high := bounds(m.attempts, longest, m.clock(r.now)); out.Attempts[i] < low || out.Attempts[i] > high {
			r.Fatalf("charge %+v: %d attempts; exact %d, over 17/16 %d", c, out.Attempts[i], low, high)
		}
		trips := c.Kind == limit.Abuse && !asks(c) && !r.fits(c, m, uses) && (taken || !c.Tells)
		if want := !m.shut.IsZero() || trips; out.Latched[i] != want && (want || twins[msg.whose[i]] == 1) {
			r.Fatalf("charge %+v: latched %t, want %t: %+v", c, out.Latched[i], want, out)
		}
		uses = uses[len(c.Windows):]
	}
}

func asks(c limit.Charge) bool {
	if byItems(c) {
		return len(c.Items) == 0
	}
	return c.Counts != limit.Bounces && c.Amount == 0
}

// free: all of its recipients are counted, or known, already.
func free(c limit.Charge, u limit.Use) bool { return byItems(c) && len(c.Items) > 0 && u.Amount == 0 }

// fits is what the charge's uses, which were judged, amount to.
func (r *traffic) fits(c limit.Charge, m *model, uses []limit.Use) bool {
	if !m.shut.IsZero() && !(c.Counts == limit.FirstTime && free(c, uses[0])) {
		return false
	}
	for j, w := range c.Windows {
		if uses[j].Over && !w.Soft {
			return false
		}
	}
	return true
}

// judgeUse judges one window of one charge, of which earlier charges of the step
// have taken some.
func (r *traffic) judgeUse(msg *message, charge, window int, u limit.Use, before int64) {
	r.Helper()
	c, m := msg.Charges[charge], r.models[msg.whose[charge]]
	w, now, shut := c.Windows[window], m.clock(r.now), !m.shut.IsZero()
	low, high, amount := u.Used, u.Used, u.Amount // of a sample, what the reference says
	need := max(amount, 0)
	switch {
	case c.Counts == limit.Distinct && r.exact:
		seen := distinctOf(m.seen, now.Add(-w.Length), now)
		low, high, amount = int64(len(seen)), int64(len(seen)), 0
		for _, i := range c.Items {
			if !seen[i] {
				amount++
			}
		}
	case c.Counts == limit.FirstTime:
		amount = msg.account.strangers(c.Items, r.now, m.shut)
	case c.Counts != limit.Distinct:
		amount = c.Amount
	}
	if c.Counts != limit.Distinct {
		low, high = bounds(m.passed[w.Length], w.Length, now)
		low, high = low+before, high+before
	}
	if c.Counts == limit.Bounces {
		need = max(amount, 1)
	}
	passes := free(c, u) && (c.Counts == limit.FirstTime || !shut)
	over := !passes && (shut || u.Used+need > w.Count)
	whole := need + before
	if c.Counts == limit.Distinct {
		whole = int64(len(c.Items))
	}
	never := over && (shut || whole > w.Count)
	if u.Charge != charge || u.Window != w || u.Used < low || u.Used > high || u.Amount != amount || u.Over != over || u.Never != never || u.FreeAt.IsZero() != (!over || never) {
		r.Fatalf("charge %+v at %s: %+v; used %d to %d, amount %d, over %t, never %t; earlier in this step %d, shut %t", c, r.now, u, low, high, amount, over, never, before, shut)
	}
	if before == 0 && !u.FreeAt.IsZero() && (c.Counts != limit.FirstTime || msg.account.strangers(c.Items, u.FreeAt, m.shut) == amount) {
		r.freeThen(msg, charge, window, u.FreeAt)
	}
}

// freeThen holds FreeAt against what the store says at that time.
func (r *traffic) freeThen(msg *message, charge, window int, at time.Time) {
	r.Helper()
	step := limit.Step{Charges: msg.Charges[charge : charge+1], Known: msg.Known}
	for over, at := range map[bool]time.Time{false: at, true: at.Add(-time.Microsecond)} {
		if err := r.store.Peek(r.Context(), at, &step, &r.out); err != nil {
			r.Fatal(err)
		}
		if u := r.out.Uses[window]; u.Over != over {
			r.Fatalf("charge %+v at %s: %+v, want over %t", step.Charges[0], at, u, over)
		}
	}
}
