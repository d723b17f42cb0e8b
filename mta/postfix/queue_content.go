package postfix

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// What Headers and Content show at most, in octets.
const (
	MaxHeaders = 256 << 10
	MaxContent = 32 << 20
)

// What Headers, Content and Restore may end with.
var (
	ErrGone    = errors.New("no such message in the queue")
	ErrChanged = errors.New("another message has this queue id now")
	ErrCut     = errors.New("only the beginning was shown")
)

// Headers writes the message's header as it is in the queue file, raw: with line
// feeds, and with whatever control characters a stranger put there. Of more than
// MaxHeaders it writes the beginning and returns ErrCut. ErrGone, ErrChanged:
// nothing was written. It needs root.
func (i *Instance) Headers(ctx context.Context, t Target, w io.Writer) error {
	return i.show(ctx, t, w, "-hq", MaxHeaders)
}

// Content writes the message's body likewise, up to MaxContent.
func (i *Instance) Content(ctx context.Context, t Target, w io.Writer) error {
	return i.show(ctx, t, w, "-bq", MaxContent)
}

func (i *Instance) show(ctx context.Context, t Target, w io.Writer, flag string, limit int64) error {
	if !ValidQueueID(t.ID) {
		return fmt.Errorf("show message: got queue id %q: not one of Postfix's", clip(t.ID))
	}
	look, err := i.look(ctx, []Target{t})
	if err != nil {
		return fmt.Errorf("show message %s: %w", t.ID, err)
	}
	switch _, fate := look.find(t, []string{"hold", "deferred", "active", "incoming"}); fate {
	case Gone:
		return fmt.Errorf("show message %s: %w", t.ID, ErrGone)
	case Changed:
		return fmt.Errorf("show message %s: %w", t.ID, ErrChanged)
	}
	err = i.tools.stream(ctx, "postcat", i.tools.inDir(i.ConfigDir, flag, t.ID), func(r io.Reader) error {
		if _, err := io.Copy(w, io.LimitReader(r, limit)); err != nil {
			return err
		}
		if n, _ := io.ReadFull(r, make([]byte, 1)); n > 0 {
			return ErrCut
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("show message %s: %w", t.ID, err)
	}
	return nil
}
