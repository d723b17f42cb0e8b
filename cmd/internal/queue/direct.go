package queue

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/postfix"
	"relayguard/mta/sendmail"
)

// The mail servers that Direct knows.
const (
	Postfix  = "postfix"
	Sendmail = "sendmail"
)

// Direct is an Operator over the mail server of this machine. It needs root.
type Direct struct {
	Kind          string // Postfix or Sendmail; empty: Postfix
	Tools         postfix.Tools
	SendmailTools sendmail.Tools
	ConfigDir     string        // "/etc/postfix", "/etc/mail"
	StateDir      string        // of the red switch; root's alone: "/var/lib/relayguard-queue"
	Inside        []string      // our domains beside those that the settings name
	Grace         *grace.Folder // where deleted mail stays for a while; nil: nowhere. Further instances have folders beside it
	Log           *slog.Logger  // nil: slog.Default

	mu    sync.Mutex
	swept time.Time
}

var _ Operator = (*Direct)(nil)

// instances reads the settings anew: they may have changed since the last request.
func (d *Direct) instances(ctx context.Context) (several, error) {
	switch d.Kind {
	case Postfix, "":
		all, err := postfix.Instances(ctx, d.Tools, d.ConfigDir)
		if len(all) == 0 {
			return nil, err
		}
		of := len(all)
		if err != nil {
			of++ // a name must not change with what can be read: targets carry it
		}
		out := make(several, len(all))
		for n, i := range all {
			name, state, keep := d.placeOf(i.Name, n, of)
			red := postfix.RedSwitch{Instance: i, StateDir: state, Inside: d.Inside}
			out[n] = instance{name, &postfixServer{i, red, keep, d.logger()}, keep}
		}
		if err != nil { // of the others
			out = append(out, instance{name: unreadableName, server: unreadable{err}})
		}
		return out, nil
	case Sendmail:
		i, err := sendmail.Load(ctx, d.sendmailTools(), d.ConfigDir)
		if err != nil {
			return nil, err
		}
		return several{{"", &sendmailServer{i, sendmail.RedSwitch{Instance: i, StateDir: filepath.Join(d.StateDir, "sendmail"), Inside: d.Inside}}, d.Grace}}, nil
	}
	return nil, fmt.Errorf("act on the queue: got mail server %q, want %s or %s", d.Kind, Postfix, Sendmail)
}

// placeOf is the name of an instance, where it keeps the state of its red switch and
// its deleted mail. The first one's place is that of the only one.
func (d *Direct) placeOf(name string, n, of int) (called, state string, keep *grace.Folder) {
	if of == 1 {
		return "", d.StateDir, d.Grace
	}
	if n == 0 {
		return firstName, d.StateDir, d.Grace
	}
	if d.Grace != nil {
		folder := *d.Grace
		folder.Dir = filepath.Join(d.Grace.Dir+"-of-instances", name)
		keep = &folder
	}
	return name, filepath.Join(d.StateDir, "instances", name), keep
}

// List also empties the grace folders of what has been there too long, for it is
// what the daemon asks every few minutes.
func (d *Direct) List(ctx context.Context, fn func(mta.QueueFile) error) error {
	s, err := d.instances(ctx)
	if err != nil {
		return err
	}
	d.sweep(ctx, s)
	return s.list(ctx, fn)
}

const sweepEvery = 10 * time.Minute

func (d *Direct) sweep(ctx context.Context, s several) {
	now := time.Now()
	d.mu.Lock()
	due := now.Sub(d.swept) >= sweepEvery
	if due {
		d.swept = now
	}
	d.mu.Unlock()
	if !due {
		return
	}
	log := d.logger()
	for _, i := range s {
		if i.keep == nil {
			continue
		}
		if err := i.server.Settle(ctx, i.keep); err != nil {
			log.Warn("end deletes that were killed half way", "error", i.of(err))
		}
		if _, err := i.keep.Sweep(ctx, now); err != nil {
			log.Warn("empty the folder of deleted mail", "error", i.of(err))
		}
	}
}

func (d *Direct) logger() *slog.Logger {
	if d.Log == nil {
		return slog.Default()
	}
	return d.Log
}

func (d *Direct) act(ctx context.Context, targets []mta.Target, do func(instance, []mta.Target) ([]mta.Result, error)) ([]mta.Result, error) {
	s, err := d.instances(ctx)
	if err != nil {
		return nil, err
	}
	return s.act(targets, do)
}

func (d *Direct) Hold(ctx context.Context, targets []mta.Target, reason string) ([]mta.Result, error) {
	return d.act(ctx, targets, func(i instance, some []mta.Target) ([]mta.Result, error) { return i.server.Hold(ctx, some, reason) })
}

func (d *Direct) Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return d.act(ctx, targets, func(i instance, some []mta.Target) ([]mta.Result, error) { return i.server.Release(ctx, some) })
}

func (d *Direct) Requeue(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return d.act(ctx, targets, func(i instance, some []mta.Target) ([]mta.Result, error) { return i.server.Requeue(ctx, some) })
}

func (d *Direct) Delete(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return d.act(ctx, targets, func(i instance, some []mta.Target) ([]mta.Result, error) {
		return i.server.Delete(ctx, some, i.keep)
	})
}

func (d *Direct) DeleteForGood(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return d.act(ctx, targets, func(i instance, some []mta.Target) ([]mta.Result, error) { return i.server.Delete(ctx, some, nil) })
}

func (d *Direct) DeleteQueued(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return d.act(ctx, targets, func(i instance, some []mta.Target) ([]mta.Result, error) {
		return i.server.DeleteQueued(ctx, some, i.keep)
	})
}

func (d *Direct) Kept(ctx context.Context, fn func(grace.Kept) error) error {
	s, err := d.instances(ctx)
	if err != nil {
		return err
	}
	return s.kept(fn)
}

func (d *Direct) Restore(ctx context.Context, names []string) ([]mta.Result, error) {
	s, err := d.instances(ctx)
	if err != nil {
		return nil, err
	}
	return s.restore(ctx, names)
}

func (d *Direct) Forget(ctx context.Context, names []string) error {
	s, err := d.instances(ctx)
	if err != nil {
		return err
	}
	return s.forget(ctx, names)
}

func (d *Direct) Headers(ctx context.Context, t mta.Target) ([]byte, error) {
	s, err := d.instances(ctx)
	if err != nil {
		return nil, err
	}
	return s.text(t, func(i instance, t mta.Target) ([]byte, error) { return i.server.Headers(ctx, t) })
}

func (d *Direct) Content(ctx context.Context, t mta.Target) ([]byte, error) {
	s, err := d.instances(ctx)
	if err != nil {
		return nil, err
	}
	return s.text(t, func(i instance, t mta.Target) ([]byte, error) { return i.server.Content(ctx, t) })
}

func (d *Direct) Stop(ctx context.Context) (mta.Stopped, error) {
	s, err := d.instances(ctx)
	if err != nil {
		return mta.Stopped{}, err
	}
	return s.stop(ctx)
}

func (d *Direct) Start(ctx context.Context, keep bool) (mta.Started, error) {
	s, err := d.instances(ctx)
	if err != nil {
		return mta.Started{}, err
	}
	return s.start(ctx, keep)
}

func (d *Direct) ForbidSubmit(ctx context.Context, user string) error {
	s, err := d.instances(ctx)
	if err != nil {
		return err
	}
	return s.each(func(one server) error { return one.Forbid(ctx, user) })
}

func (d *Direct) AllowSubmit(ctx context.Context, user string) error {
	s, err := d.instances(ctx)
	if err != nil {
		return err
	}
	return s.each(func(one server) error { return one.Allow(ctx, user) })
}

func (d *Direct) Status(ctx context.Context) (Status, error) {
	s, err := d.instances(ctx)
	if err != nil {
		return Status{}, err
	}
	return s.status(ctx)
}

// sendmailTools are those that all requests share: queue runs are bounded over all
// of them.
func (d *Direct) sendmailTools() sendmail.Tools {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.SendmailTools.Runs == nil {
		d.SendmailTools.Runs = sendmail.NewRuns()
	}
	return d.SendmailTools
}
