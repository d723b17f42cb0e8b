package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"relayguard/mta"
)

// Lock lets one process of ours at a time change an instance's settings: it locks
// their directory itself.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if !mta.Sleep(ctx, 20*time.Millisecond) {
			d.Close()
			return nil, fmt.Errorf("lock %s, which another relayguard changes now: %w", dir, ctx.Err())
		}
	}
}
