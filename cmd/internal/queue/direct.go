package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"relayguard/mta"
	"relayguard/mta/postfix"
)

// Direct is an Operator over a Postfix of this machine. It needs root.
type Direct struct {
	Tools     postfix.Tools
	ConfigDir string         // "/etc/postfix"
	StateDir  string         // of the red switch; root's alone: "/var/lib/relayguard-queue"
	Inside    []string       // our domains beside those that Postfix's settings name
	Grace     *postfix.Grace // where deleted mail stays for a while; nil: nowhere
	Log       *slog.Logger   // nil: slog.Default

	mu    sync.Mutex
	swept time.Time
}

var _ Operator = (*Direct)(nil)

// load reads the settings anew: they may have changed since the last request.
func (d *Direct) load(ctx context.Context) (*postfix.Instance, error) {
	return postfix.Load(ctx, d.Tools, d.ConfigDir)
}

// List also empties the grace folder of what has been there too long, for it is
// what the daemon asks every few minutes.
func (d *Direct) List(ctx context.Context, fn func(mta.QueueFile) error) error {
	i, err := d.load(ctx)
	if err != nil {
		return err
	}
	d.sweep(ctx)
	return i.ScanQueue(ctx, fn)
}

const sweepEvery = 10 * time.Minute

func (d *Direct) sweep(ctx context.Context) {
	now := time.Now()
	d.mu.Lock()
	due := d.Grace != nil && now.Sub(d.swept) >= sweepEvery
	if due {
		d.swept = now
	}
	d.mu.Unlock()
	if !due {
		return
	}
	if _, err := d.Grace.Sweep(ctx, now); err != nil {
		log := d.Log
		if log == nil {
			log = slog.Default()
		}
		log.Warn("empty the folder of deleted mail", "error", err)
	}
}

func (d *Direct) Hold(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	i, err := d.load(ctx)
	if err != nil {
		return nil, err
	}
	return i.HoldMail(ctx, targets)
}

func (d *Direct) Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	i, err := d.load(ctx)
	if err != nil {
		return nil, err
	}
	return i.ReleaseMail(ctx, targets, mta.Release{Now: time.Now()})
}

func (d *Direct) Delete(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	i, err := d.load(ctx)
	if err != nil {
		return nil, err
	}
	return i.DeleteMail(ctx, targets, d.Grace)
}

func (d *Direct) DeleteForGood(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	i, err := d.load(ctx)
	if err != nil {
		return nil, err
	}
	return i.DeleteMail(ctx, targets, nil)
}

func (d *Direct) Kept(context.Context) ([]postfix.Kept, error) {
	if d.Grace == nil {
		return nil, nil
	}
	return d.Grace.List()
}

func (d *Direct) Restore(ctx context.Context, name string) (newID string, err error) {
	if d.Grace == nil {
		return "", fmt.Errorf("restore %s: nothing is kept: %w", name, mta.ErrGone)
	}
	i, err := d.load(ctx)
	if err != nil {
		return "", err
	}
	return i.Restore(ctx, d.Grace, name)
}

func (d *Direct) Headers(ctx context.Context, t mta.Target) ([]byte, error) {
	return d.show(ctx, t, (*postfix.Instance).Headers)
}

func (d *Direct) Content(ctx context.Context, t mta.Target) ([]byte, error) {
	return d.show(ctx, t, (*postfix.Instance).Content)
}

// show looks first whether the message is on hold: mail that is on its way is
// nobody's to read.
func (d *Direct) show(ctx context.Context, t mta.Target, read func(*postfix.Instance, context.Context, mta.Target, io.Writer) error) ([]byte, error) {
	i, err := d.load(ctx)
	if err != nil {
		return nil, err
	}
	held, other := false, false
	err = i.ScanQueue(ctx, func(f mta.QueueFile) error {
		if f.ID == t.ID && f.Queue == "hold" {
			held = held || t.Matches(f)
			other = other || !t.Matches(f)
		}
		return nil
	})
	var skipped *mta.SkippedError
	switch {
	case err != nil && !errors.As(err, &skipped):
		return nil, err
	case !held && other:
		return nil, fmt.Errorf("show message %s: %w", t.ID, mta.ErrChanged)
	case !held:
		return nil, fmt.Errorf("show message %s: it is not on hold: %w", t.ID, mta.ErrGone)
	}
	var text bytes.Buffer
	err = read(i, ctx, t, &text)
	if err != nil && !errors.Is(err, mta.ErrCut) {
		return nil, err
	}
	return text.Bytes(), err
}

func (d *Direct) redSwitch(ctx context.Context) (postfix.RedSwitch, error) {
	i, err := d.load(ctx)
	return postfix.RedSwitch{Instance: i, StateDir: d.StateDir, Inside: d.Inside}, err
}

func (d *Direct) Stop(ctx context.Context) (mta.Stopped, error) {
	r, err := d.redSwitch(ctx)
	if err != nil {
		return mta.Stopped{}, err
	}
	return r.StopOutgoing(ctx, time.Now())
}

func (d *Direct) Start(ctx context.Context, keep bool) (mta.Started, error) {
	r, err := d.redSwitch(ctx)
	if err != nil {
		return mta.Started{}, err
	}
	return r.StartOutgoing(ctx, time.Now(), keep)
}

func (d *Direct) ForbidSubmit(ctx context.Context, user string) error {
	i, err := d.load(ctx)
	if err != nil {
		return err
	}
	return i.ForbidSubmit(ctx, []string{user})
}

func (d *Direct) AllowSubmit(ctx context.Context, user string) error {
	i, err := d.load(ctx)
	if err != nil {
		return err
	}
	return i.AllowSubmit(ctx, user)
}

func (d *Direct) Status(ctx context.Context) (Status, error) {
	r, err := d.redSwitch(ctx)
	if err != nil {
		return Status{}, err
	}
	var s Status
	if s.Stop, err = r.OutgoingStopped(ctx); err != nil {
		return Status{}, err
	}
	s.Forbidden, err = r.Instance.Forbidden(ctx)
	return s, err
}
