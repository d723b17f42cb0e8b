package evidence

import (
	"context"
	"time"

	"relayguard/mta/maillog"
)

// Read tracks all that a log file and its rotated ones hold from since on (zero: all)
// and settles it: the single look on a host without a guard running, or on a copied
// disk. zone is that of the machine whose log it is; nil: time.Local. lines is how many
// were read; none may mean that there is no log.
func (t *Tracker) Read(ctx context.Context, path string, since time.Time, zone *time.Location) (lines int64, err error) {
	if since.IsZero() {
		since = time.Unix(1, 0)
	}
	f, err := maillog.New(maillog.Options{Path: path, From: since, Once: true, Gap: t.Gap, Log: t.o.Log, Now: t.store.o.Now, Zone: zone})
	if err != nil {
		return 0, err
	}
	err = f.Run(ctx, func(e maillog.Event, p maillog.Position) error { return t.EventOf(path, e, p) })
	if err == nil {
		err = t.Finish(ctx)
	}
	return f.Counts().Lines, err
}
