package postfix

import (
	"context"
	"errors"
	"fmt"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// Restore is RestoreMail of one message, whose new id is forgotten then.
func (i *Instance) Restore(ctx context.Context, keep *grace.Folder, name string) (newID string, err error) {
	results, err := i.RestoreMail(ctx, keep, []string{name})
	if results == nil {
		return "", err
	}
	if results[0].Fate == mta.Gone {
		return "", fmt.Errorf("restore mail: %w", mta.ErrGone)
	}
	if results[0].Fate == mta.Done {
		err = errors.Join(err, keep.Forget(ctx, []string{name}))
	}
	return results[0].NewID, errors.Join(err, results[0].Err)
}
