package sendmail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// Headers writes the message's header as it is in the control file, raw: with line
// feeds, with whatever control characters a stranger put there, and without what
// Sendmail adds when it delivers. Of more than mta.MaxHeaders it writes the
// beginning and returns mta.ErrCut. mta.ErrGone, mta.ErrChanged: nothing was
// written. It needs root.
func (i *Instance) Headers(ctx context.Context, t mta.Target, w io.Writer) error {
	return i.show(ctx, t, w, func(_ *spool, _ *dir, _ *Control, data []byte) error { return writeHeaders(w, data) })
}

// Content writes the message's body likewise, up to mta.MaxContent.
func (i *Instance) Content(ctx context.Context, t mta.Target, w io.Writer) error {
	return i.show(ctx, t, w, func(s *spool, d *dir, c *Control, _ []byte) error {
		body, err := s.dataDir(d, c)
		if err != nil {
			return err
		}
		f, err := body.openData(t.ID)
		if errors.Is(err, unix.ENOENT) {
			return mta.ErrGone
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return mta.CopyUpTo(w, f, mta.MaxContent)
	})
}

// show finds the message as it is now, whoever has it locked.
func (i *Instance) show(ctx context.Context, t mta.Target, w io.Writer, write func(*spool, *dir, *Control, []byte) error) error {
	if !ValidQueueID(t.ID) {
		return fmt.Errorf("show message: got queue id %q: not one of Sendmail's", clip(t.ID))
	}
	s, err := i.openSpool(false)
	if err != nil {
		return fmt.Errorf("show message %s: %w", t.ID, err)
	}
	defer s.close()
	scan := scanner{spool: s, buf: make([]byte, 64<<10)}
	err = mta.ErrGone
	for _, d := range s.dirs {
		for _, letter := range []byte("hq") {
			c, _, bad := scan.control(d, letter, t.ID)
			switch {
			case bad != nil:
				err = bad
			case c == nil || !c.Complete:
			case !t.Matches(c.queueFile(t.ID)):
				err = mta.ErrChanged
			default:
				if err := write(s, d, c, scan.last); err != nil {
					return fmt.Errorf("show message %s: %w", t.ID, err)
				}
				return ctx.Err()
			}
		}
	}
	return fmt.Errorf("show message %s: %w", t.ID, err)
}

// writeHeaders writes the H lines as header fields. Sendmail writes a macro that
// counts only at delivery, as in "Return-Path: <$g>", with an octet 0x81 for "$".
func writeHeaders(w io.Writer, data []byte) error {
	left := mta.MaxHeaders
	for line := range controlLines(data) {
		if line[0] != 'H' {
			continue
		}
		field := append(bytes.ReplaceAll(headerField(line[1:]), []byte("\x81"), []byte("$")), '\n')
		if len(field) > left {
			w.Write(field[:left])
			return mta.ErrCut
		}
		left -= len(field)
		if _, err := w.Write(field); err != nil {
			return err
		}
	}
	return nil
}
