package postfix

import (
	"context"
	"fmt"
	"io"

	"relayguard/mta"
)

// Headers writes the message's header as it is in the queue file, raw: with line
// feeds, and with whatever control characters a stranger put there. Of more than
// MaxHeaders it writes the beginning and returns ErrCut. ErrGone, ErrChanged:
// nothing was written. It needs root.
func (i *Instance) Headers(ctx context.Context, t mta.Target, w io.Writer) error {
	return i.show(ctx, t, w, "-hq", mta.MaxHeaders)
}

// Content writes the message's body likewise, up to MaxContent.
func (i *Instance) Content(ctx context.Context, t mta.Target, w io.Writer) error {
	return i.show(ctx, t, w, "-bq", mta.MaxContent)
}

func (i *Instance) show(ctx context.Context, t mta.Target, w io.Writer, flag string, limit int64) error {
	if !ValidQueueID(t.ID) {
		return fmt.Errorf("show message: got queue id %q: not one of Postfix's", clip(t.ID))
	}
	look, err := i.look([]mta.Target{t}, anyQueue)
	if err != nil {
		return fmt.Errorf("show message %s: %w", t.ID, err)
	}
	switch _, fate, err := look.find(t, anyQueue); fate {
	case mta.Failed:
		return fmt.Errorf("show message %s: %w", t.ID, err)
	case mta.Gone:
		return fmt.Errorf("show message %s: %w", t.ID, mta.ErrGone)
	case mta.Changed:
		return fmt.Errorf("show message %s: %w", t.ID, mta.ErrChanged)
	}
	err = i.tools.stream(ctx, "postcat", i.tools.inDir(i.ConfigDir, flag, t.ID), func(r io.Reader) error {
		return mta.CopyUpTo(w, r, limit)
	})
	if err != nil {
		return fmt.Errorf("show message %s: %w", t.ID, err)
	}
	return nil
}
