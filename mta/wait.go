package mta

import (
	"context"
	"time"
)

// Sleep is false when ctx ended first.
func Sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Await polls until done, at most for limit. A mail server tells nobody when a
// process of its ends or a file of its is there.
func Await(ctx context.Context, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !done() {
		if !Sleep(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}
