package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/postfix"
	"relayguard/mta/sendmail"
)

// postfixServer acts on an instance of Postfix.
type postfixServer struct {
	i    *postfix.Instance
	red  postfix.RedSwitch
	keep *grace.Folder // nil: none
	log  *slog.Logger
}

// settle comes before mail is let go: a delete that was killed half way left it a
// second name, and Postfix does not deliver such a file when it is asked to.
func (p *postfixServer) settle(ctx context.Context) {
	if p.keep == nil {
		return
	}
	if err := p.i.Settle(ctx, p.keep); err != nil {
		p.log.Warn("end deletes that were killed half way", "error", err)
	}
}

func (p *postfixServer) Scan(ctx context.Context, fn func(mta.QueueFile) error) error {
	return p.i.ScanQueue(ctx, fn)
}

// Hold: Postfix keeps no reason.
func (p *postfixServer) Hold(ctx context.Context, targets []mta.Target, _ string) ([]mta.Result, error) {
	return p.i.HoldMail(ctx, targets)
}

func (p *postfixServer) Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	p.settle(ctx)
	return p.i.ReleaseMail(ctx, targets, mta.Release{Now: time.Now()})
}

func (p *postfixServer) Requeue(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	p.settle(ctx)
	return p.i.RequeueQueued(ctx, targets)
}

func (p *postfixServer) Delete(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return p.i.DeleteMail(ctx, targets, keep)
}

func (p *postfixServer) DeleteQueued(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return p.i.DeleteQueued(ctx, targets, keep)
}

func (p *postfixServer) Restore(ctx context.Context, names []string, keep *grace.Folder) ([]mta.Result, error) {
	return p.i.RestoreMail(ctx, keep, names)
}

func (p *postfixServer) Settle(ctx context.Context, keep *grace.Folder) error {
	return errors.Join(p.i.Settle(ctx, keep), p.i.TidyRestores(ctx, keep))
}

func (p *postfixServer) Headers(ctx context.Context, t mta.Target) ([]byte, error) {
	return shown(ctx, t, p.i.ScanQueue, p.i.Headers)
}

func (p *postfixServer) Content(ctx context.Context, t mta.Target) ([]byte, error) {
	return shown(ctx, t, p.i.ScanQueue, p.i.Content)
}

func (p *postfixServer) Stop(ctx context.Context) (mta.Stopped, error) {
	return p.red.StopOutgoing(ctx, time.Now())
}

func (p *postfixServer) Start(ctx context.Context, keep bool) (mta.Started, error) {
	p.settle(ctx)
	return p.red.StartOutgoing(ctx, time.Now(), keep)
}

func (p *postfixServer) Stopped(ctx context.Context) (mta.StopStatus, error) {
	return p.red.OutgoingStopped(ctx)
}

func (p *postfixServer) Forbid(ctx context.Context, user string) error {
	return p.i.ForbidSubmit(ctx, []string{user})
}

func (p *postfixServer) Allow(ctx context.Context, user string) error {
	return p.i.AllowSubmit(ctx, user)
}

func (p *postfixServer) Forbidden(ctx context.Context) ([]string, error) { return p.i.Forbidden(ctx) }

// sendmailServer acts on Sendmail, of which a machine has one.
type sendmailServer struct {
	i   *sendmail.Instance
	red sendmail.RedSwitch
}

func (s *sendmailServer) Scan(ctx context.Context, fn func(mta.QueueFile) error) error {
	return s.i.ScanQueue(ctx, fn)
}

func (s *sendmailServer) Hold(ctx context.Context, targets []mta.Target, reason string) ([]mta.Result, error) {
	return s.i.HoldMail(ctx, targets, reason)
}

func (s *sendmailServer) Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return s.i.ReleaseMail(ctx, targets, mta.Release{Now: time.Now()})
}

func (s *sendmailServer) Requeue(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return s.i.RequeueQueued(ctx, targets)
}

func (s *sendmailServer) Delete(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return s.i.DeleteMail(ctx, targets, keep)
}

func (s *sendmailServer) DeleteQueued(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return s.i.DeleteQueued(ctx, targets, keep)
}

func (s *sendmailServer) Restore(ctx context.Context, names []string, keep *grace.Folder) ([]mta.Result, error) {
	return s.i.RestoreMail(ctx, keep, names)
}

func (s *sendmailServer) Settle(ctx context.Context, keep *grace.Folder) error {
	return errors.Join(s.i.Settle(ctx, keep), s.i.TidyRestores(ctx, keep))
}

func (s *sendmailServer) Headers(ctx context.Context, t mta.Target) ([]byte, error) {
	return shown(ctx, t, s.i.ScanQueue, s.i.Headers)
}

func (s *sendmailServer) Content(ctx context.Context, t mta.Target) ([]byte, error) {
	return shown(ctx, t, s.i.ScanQueue, s.i.Content)
}

func (s *sendmailServer) Stop(ctx context.Context) (mta.Stopped, error) {
	return s.red.StopOutgoing(ctx, time.Now())
}

func (s *sendmailServer) Start(ctx context.Context, keep bool) (mta.Started, error) {
	return s.red.StartOutgoing(ctx, time.Now(), keep)
}

func (s *sendmailServer) Stopped(ctx context.Context) (mta.StopStatus, error) {
	return s.red.OutgoingStopped(ctx)
}

// Forbid: Sendmail's submission program asks nobody. What is suspended is refused
// at end of message.
func (s *sendmailServer) Forbid(_ context.Context, user string) error {
	return fmt.Errorf("forbid local mail of %s: %w", user, mta.ErrUnsupported)
}

// Allow: nothing was forbidden.
func (s *sendmailServer) Allow(context.Context, string) error { return nil }

func (s *sendmailServer) Forbidden(context.Context) ([]string, error) { return nil, nil }

// shown reads a message's text, and looks first whether it is on hold: mail that is
// on its way is nobody's to read.
func shown(ctx context.Context, t mta.Target, scan func(context.Context, func(mta.QueueFile) error) error, read func(context.Context, mta.Target, io.Writer) error) ([]byte, error) {
	held, other := false, false
	err := scan(ctx, func(f mta.QueueFile) error {
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
	err = read(ctx, t, &text)
	if err != nil && !errors.Is(err, mta.ErrCut) {
		return nil, err
	}
	return text.Bytes(), err
}
