// Package queue is the guard's hand on the MTA's queue, which only root may
// touch. Operator says what it can do: a fixed set of verbs. Direct does them
// in this process, which must be root's. Server serves them over a Unix socket
// to the daemon, which has no rights, and Client is an Operator that asks it.
//
// The daemon reads what strangers send, so the server trusts it with nothing
// but the verbs: no path, no command, no free argument comes over the socket;
// ids are checked for their form and against the queue, and headers and content
// are shown of held mail alone.
//
// Trap: a connection carries one request, and to close it is to cancel. The
// verbs that change settings (stop, start, forbid, allow) go on to their end all
// the same: half of them done is worse than done for somebody who has left.
package queue

import (
	"context"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// Operator acts on the queues and switches of one machine's MTA, of all its instances. Implementations are safe for
// concurrent use. Results come in the order of the targets; an error without
// results means that nothing was done, unless it is ctx's.
type Operator interface {
	// List calls fn with every message in the queue; fn's error ends it. A
	// *mta.SkippedError says that all others were seen.
	List(ctx context.Context, fn func(mta.QueueFile) error) error

	// Hold puts mail that is on its way on hold. The reason, a line for admins, stays
	// with the message where the MTA has room for it.
	Hold(ctx context.Context, targets []mta.Target, reason string) ([]mta.Result, error)
	// Release also requeues what is too old to be released. With results,
	// mta.ErrNotStarted says that they stand.
	Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error)
	// Requeue sends mail, held or on its way, through the MTA's front door again: its
	// lifetime begins anew, and with Postfix it gets another id.
	Requeue(ctx context.Context, targets []mta.Target) ([]mta.Result, error)
	// Delete is for held mail, and keeps a copy in the grace folder, if there is one; DeleteForGood
	// keeps none, which is what a full disk needs. DeleteQueued is Delete for mail that is
	// not held, too: it is put on hold first.
	Delete(ctx context.Context, targets []mta.Target) ([]mta.Result, error)
	DeleteForGood(ctx context.Context, targets []mta.Target) ([]mta.Result, error)
	DeleteQueued(ctx context.Context, targets []mta.Target) ([]mta.Result, error)

	// Kept calls fn with what is in the grace folder, the longest deleted first, and
	// with what Restore put back and nobody told Forget of: that has a NewID. fn's
	// error ends it.
	Kept(ctx context.Context, fn func(grace.Kept) error) error
	// Restore puts mail, by its names in the grace folder, back on hold under new ids;
	// Gone: it is not there any more. Until Forget is told of a name, it is Done again
	// with the id that it got, and not put back twice.
	Restore(ctx context.Context, names []string) ([]mta.Result, error)
	Forget(ctx context.Context, names []string) error

	// Headers and Content return the raw text of a message in the hold queue.
	// mta.ErrCut comes with the beginning of a long one; mta.ErrGone and
	// mta.ErrChanged without any.
	Headers(ctx context.Context, t mta.Target) ([]byte, error)
	Content(ctx context.Context, t mta.Target) ([]byte, error)

	// Stop is the red switch, Start takes it back. Of the recipients of what Stop holds
	// the domains alone are told, with their @.
	Stop(ctx context.Context) (mta.Stopped, error)
	Start(ctx context.Context, keep bool) (mta.Started, error)

	// ForbidSubmit takes sendmail(1) away from a Unix account; mta.ErrUnsupported where
	// the MTA cannot.
	ForbidSubmit(ctx context.Context, user string) error
	AllowSubmit(ctx context.Context, user string) error

	// Status tells what of this is in the MTA's settings now.
	Status(ctx context.Context) (Status, error)
}

// Status is what the MTA's settings stop.
type Status struct {
	Stop      mta.StopStatus // by the red switch
	Forbidden []string       // Unix accounts that ForbidSubmit took sendmail(1) away from
}
