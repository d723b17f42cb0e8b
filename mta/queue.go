package mta

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// QueueFile is one message in the MTA's queue, as the MTA tells it. Its texts are
// what strangers chose: escape them before they are printed.
type QueueFile struct {
	Instance   string    `json:",omitempty"` // of several of one machine, by its name; empty: the only one, or the first
	Queue      string    // "hold", "deferred", "active", "incoming", "maildrop"; Sendmail's too are told in these words
	ID         string    // reused once the message is gone: with Postfix unless enable_long_queue_ids
	Arrival    time.Time // whole seconds, UTC; kept by a requeue of Postfix, with Sendmail a new one
	Size       int64     // octets
	Sender     string    // "" is the null sender; local part quoted where it must be, '?' for what cannot be printed
	Recipients []string  // not yet delivered; the first 1,000
	More       int       // further ones; -1: not counted, for there were too many
	HoldReason string    `json:",omitempty"` // why it is on hold, where the MTA keeps that: Sendmail
	Reason     string    // why the first recipient that was deferred was; empty: none was
}

// SkippedError says that a scan met lines that it could not read. All other
// messages were seen.
type SkippedError struct {
	Lines int
	First error // why the first one was skipped
}

func (e *SkippedError) Error() string {
	return fmt.Sprintf("%d lines of the queue listing skipped: %v", e.Lines, e.First)
}

func (e *SkippedError) Unwrap() error { return e.First }

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

// CopyUpTo writes what comes, but of more than limit octets the beginning, and
// returns ErrCut.
func CopyUpTo(w io.Writer, r io.Reader, limit int64) error {
	if _, err := io.Copy(w, io.LimitReader(r, limit)); err != nil {
		return err
	}
	if n, _ := io.ReadFull(r, make([]byte, 1)); n > 0 {
		return ErrCut
	}
	return nil
}

// ErrNotStarted says that released mail was not given to delivery at once: it
// waits for Postfix's next run over its queue, or for Postfix to start.
var ErrNotStarted = errors.New("delivery was not started")

// NullSender is how postqueue(1) writes the null sender, unless
// empty_address_recipient says otherwise.
const NullSender = "MAILER-DAEMON"
