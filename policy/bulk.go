package policy

import (
	"context"
	"slices"
	"time"

	"relayguard/policy/limit"
)

// BulkName names the buckets of what admins allow in bulk.
const BulkName = "bulk"

// bulkRule is an order to let so many recipients more pass as a rule: once over
// its whole term.
func bulkRule(sw *Switch) *limitRule {
	term := sw.Until.Sub(sw.Since).Truncate(time.Second) + time.Second
	w := limit.Window{Count: sw.Count, Length: min(max(term, limit.MinLength), limit.MaxLength)}
	r := newLimitRule(Enforce, LimitRule{
		Limit: limit.Limit{Name: BulkName, Per: []limit.Per{limit.Account}, Counts: limit.Recipients, Kind: limit.Volume, Windows: []limit.Window{w}},
		Then:  Hold,
	})
	return &r
}

// bulkCharge is what an order is charged. Each order has a bucket of its own.
func bulkCharge(r *limitRule, account string, sw *Switch, recipients int64) limit.Charge {
	return r.whole.Charge(account+" "+sw.ID, recipients, nil)
}

// bulkAmount is how many recipients the account's own volume limits count of the
// message: as many as the one that counts most.
func (t *taking) bulkAmount() int64 {
	most := int64(0)
	for _, r := range t.rules {
		if r.bulk {
			most = max(most, t.all(r.Scope).recipients)
		}
	}
	return most
}

// useBulk replaces the charges of the account's own volume limits, if these have
// no room, by one to the bulk order for the account, if there is one that has: it
// is for what is beyond the limits, not for everyday mail.
func (l *Limits) useBulk(ctx context.Context, t *taking, recipients int64) error {
	sw := t.s.Bulk(t.now, &t.keys.o)
	if sw == nil || recipients == 0 {
		return nil
	}
	if err := l.opt.Store.Peek(ctx, t.now, &t.step, &t.out); err != nil || t.out.Taken {
		return err
	}
	r := bulkRule(sw)
	charge := bulkCharge(r, t.keys.stable(), sw, recipients)
	if err := l.opt.Store.Peek(ctx, t.now, &limit.Step{Charges: []limit.Charge{charge}}, &t.out); err != nil || !t.out.Taken {
		return err
	}
	t.usual = &usual{slices.Clone(t.step.Charges), slices.Clone(t.rules), slices.Clone(t.retry)}
	t.step.Charges, t.rules, t.retry = t.step.Charges[:0], t.rules[:0], t.retry[:0]
	t.add(r, charge, false)
	for i, r := range t.usual.rules {
		if !r.bulk {
			t.add(r, t.usual.charges[i], t.usual.retry[i])
		}
	}
	return nil
}

// usual is what a message takes without a bulk order.
type usual struct {
	charges []limit.Charge
	rules   []*limitRule
	retry   []bool
}

// bulkOver reports whether others have used up the bulk order meanwhile.
func (t *taking) bulkOver() bool {
	return t.usual != nil && len(t.out.Uses) > 0 && t.out.Uses[0].Over
}

// asUsual undoes useBulk.
func (t *taking) asUsual() {
	t.step.Charges, t.rules, t.retry, t.usual = t.usual.charges, t.usual.rules, t.usual.retry, nil
}
