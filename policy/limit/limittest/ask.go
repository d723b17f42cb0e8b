package limittest

import (
	"context"
	"time"

	"relayguard/policy/limit"
)

// Spend is the store's, of charges alone.
func Spend(ctx context.Context, s limit.Store, now time.Time, charges []limit.Charge) (out limit.Outcome, err error) {
	err = s.Spend(ctx, now, &limit.Step{Charges: charges}, &out)
	return out, err
}

// Peek is the store's, of charges alone.
func Peek(ctx context.Context, s limit.Store, now time.Time, charges []limit.Charge) (out limit.Outcome, err error) {
	err = s.Peek(ctx, now, &limit.Step{Charges: charges}, &out)
	return out, err
}

// Add is the store's, of charges alone.
func Add(ctx context.Context, s limit.Store, now time.Time, charges []limit.Charge) error {
	return s.Add(ctx, now, &limit.Step{Charges: charges})
}
