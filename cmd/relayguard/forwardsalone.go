package main

import (
	"context"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/forwards"
	"relayguard/forward/ledger"
	"relayguard/forward/scan"
	"relayguard/forward/watch"
)

// interruptible ends with the first signal that means so.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}

// watchAlone watches without a daemon and calls change for each change, until ctx
// ends or change fails. It keeps nothing: the first scan is where it begins.
func watchAlone(ctx context.Context, cmd *cobra.Command, c *config.Config, change func(forwardChange) error) error {
	host, err := forwards.NewHost(ctx, "", nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop, progress := progressLine(cmd.ErrOrStderr(), placesRead)
	defer stop()
	scanner := scan.New(forwards.Planner(c, host), scan.Options{Progress: progress})
	var watcher forwards.Watcher
	if w, err := watch.New(watch.Options{}); err == nil {
		watcher = w
	} else {
		remark(cmd, "changes are seen by the full scan only: %v", err)
	}
	book := ledger.Memory(forwards.Rules(c, host))
	guard := forwards.New(forwards.Options{
		Scanner: scanner, Ledger: book, Watcher: watcher, Rescan: c.Forward.Rescan, Poll: c.Forward.Poll,
		Tell: func(_ time.Time, events []ledger.Event) {
			for i := range events {
				if err := change(changeOf(&events[i])); err != nil {
					cancel(err)
					return
				}
			}
		},
	})
	if _, err := scanner.All(ctx); err != nil {
		return err
	}
	stop()
	now := time.Now()
	if _, err := book.All(now, scanner.Graph().Findings(), forwards.Unseen(scanner), nil); err != nil { // known from now on
		return err
	}
	remark(cmd, "watching %d places by %s", scanner.Units(), guard.Status().Method)
	guard.Run(ctx)
	return context.Cause(ctx)
}
