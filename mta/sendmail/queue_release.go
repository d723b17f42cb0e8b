package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"relayguard/mta"
)

// ReleaseMail takes mail out of quarantine and has it delivered. An error that is
// ErrNotStarted comes with results that stand: Sendmail delivers at its next queue
// run then.
//
// Sendmail returns a message that is older than Timeout.queuereturn to its sender
// as soon as one try to deliver it fails for the time being; so a released old one
// would get one try. Such mail gets a new creation time instead, by RequeueMail's
// rules.
func (i *Instance) ReleaseMail(ctx context.Context, targets []mta.Target, how mta.Release) ([]mta.Result, error) {
	now := how.Now
	if now.IsZero() {
		now = time.Now()
	}
	results, err := i.release(ctx, targets, (*entry).held, func(c *Control) change {
		if i.tooOld(c, how, now) {
			return change{renew: now}
		}
		return change{due: i.waits()}
	})
	if err != nil {
		return results, fmt.Errorf("release mail: %w", err)
	}
	return results, nil
}

// RequeueMail takes mail out of quarantine, lets its lifetime begin anew and has it
// delivered: it was created now, and never tried. Its id stays, so no NewID is
// told, but its arrival time is another one. Errors as ReleaseMail's.
func (i *Instance) RequeueMail(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return i.requeue(ctx, targets, (*entry).held)
}

// RequeueQueued is RequeueMail for mail wherever it is in the MTA's queue.
func (i *Instance) RequeueQueued(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return i.requeue(ctx, targets, func(*entry) bool { return true })
}

func (i *Instance) requeue(ctx context.Context, targets []mta.Target, wanted func(*entry) bool) ([]mta.Result, error) {
	now := time.Now()
	results, err := i.release(ctx, targets, wanted, func(*Control) change { return change{renew: now} })
	if err != nil {
		return results, fmt.Errorf("requeue mail: %w", err)
	}
	return results, nil
}

func (i *Instance) release(ctx context.Context, targets []mta.Target, wanted func(*entry) bool, how func(*Control) change) ([]mta.Result, error) {
	var mu sync.Mutex
	var released []string
	results, err := i.act(ctx, targets, func(s *spool, t mta.Target) (mta.QueueFile, mta.Fate, error) {
		e, fate, err := s.seek(t, "hq", wanted)
		if e == nil {
			return mta.QueueFile{}, fate, err
		}
		defer e.close()
		if err = s.release(e, how(e.control)); err == nil {
			mu.Lock()
			released = append(released, e.id)
			mu.Unlock()
		}
		return e.done(err)
	})
	if results == nil {
		return nil, err
	}
	if startErr := i.runs.start(i, released); startErr != nil {
		err = errors.Join(err, fmt.Errorf("%w: %w", mta.ErrNotStarted, startErr))
	}
	return results, err
}

// release lets Sendmail deliver a message. One without a body it would deliver
// empty: that is what is left after sendmail -Q was killed and the message went out
// by its other file.
func (s *spool) release(e *entry, c change) error {
	body, err := s.openData(e)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("its body is not there any more: %w", err)
	}
	if err != nil {
		return err
	}
	body.Close()
	other, err := s.twin(e)
	if err != nil {
		return err
	}
	if other == nil {
		return e.release(c)
	}
	defer other.close() // it knows who has the message already
	if err := remove(e.dir.qf, e.dir.Qf, e.name()); err != nil {
		return err
	}
	if other.held() || !c.renew.IsZero() {
		return other.release(c)
	}
	return nil
}

// waits tells whether Sendmail passes over what it tried a short while ago.
func (i *Instance) waits() bool {
	return i.Option("MinQueueAge") != "" || i.Option("MaxQueueAge") != ""
}

// tooOld tells whether a message should get a new lifetime with its release.
func (i *Instance) tooOld(c *Control, how mta.Release, now time.Time) bool {
	return how.TooOld(now.Sub(c.Created), i.lifetime(c))
}

// lifetime is the Timeout.queuereturn that Sendmail takes for a message: by its
// precedence and priority, or that of delivery status notifications (eatheader in
// headers.c). A Content-Type that looks like one counts, too.
func (i *Instance) lifetime(c *Control) time.Duration {
	kind := "normal"
	switch n := i.main.classOf[c.precedence]; {
	case n < 0:
		kind = "non-urgent"
	case n > 0:
		kind = "urgent"
	}
	if c.report {
		kind = "dsn"
	}
	switch {
	case c.priority == "urgent" || c.priority == "normal" || c.priority == "non-urgent":
		kind = c.priority
	case strings.Contains(c.Flags, "r"):
		kind = "dsn"
	}
	const usual = 5 * 24 * time.Hour // Sendmail's default
	for _, name := range []string{"Timeout.queuereturn." + kind, "Timeout.queuereturn", "QueueTimeout"} {
		text, _, _ := strings.Cut(i.Option(name), "/")
		if d, ok := ParseTime(text, 24*time.Hour); ok {
			return d
		}
	}
	return usual
}
