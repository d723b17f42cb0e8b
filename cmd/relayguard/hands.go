package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/switches"
	"relayguard/journal"
	"relayguard/mta/grace"
	"relayguard/policy"
	"relayguard/policy/address"
)

// hands act on held mail and the red switch: the daemon's, or root's own while
// there is no daemon. Close them.
type hands interface {
	List(ctx context.Context, f desk.Filter) (desk.List, error)
	Inspect(ctx context.Context, l desk.Look) (desk.Inspected, error)
	Stop(ctx context.Context, o stopOrder) (desk.Stopped, error)
	Start(ctx context.Context, o stopOrder) (desk.Started, error)
	queueHands
	Close()
}

// daemonHands are the daemon's.
type daemonHands struct{ client *control.Client }

func (h daemonHands) List(ctx context.Context, f desk.Filter) (out desk.List, err error) {
	err = h.client.Post(ctx, "/v1/held/list", f, &out)
	return out, err
}

func (h daemonHands) Inspect(ctx context.Context, l desk.Look) (out desk.Inspected, err error) {
	err = h.client.Post(ctx, "/v1/held/inspect", l, &out)
	return out, err
}

func (h daemonHands) Stop(ctx context.Context, o stopOrder) (out desk.Stopped, err error) {
	err = h.client.Post(ctx, "/v1/stop", o, &out)
	return out, err
}

func (h daemonHands) Start(ctx context.Context, o stopOrder) (out desk.Started, err error) {
	err = h.client.Post(ctx, "/v1/start", o, &out)
	return out, err
}

func (h daemonHands) Queue(ctx context.Context, f desk.QueueFilter, line func(desk.QueueLine) error) error {
	return control.Exchange(ctx, h.client, "/v1/queue/list", f, line)
}

func (h daemonHands) QueueSummary(ctx context.Context, f desk.QueueFilter) (out desk.QueueSummary, err error) {
	err = h.client.Post(ctx, "/v1/queue/summary", f, &out)
	return out, err
}

func (h daemonHands) QueueShow(ctx context.Context, l desk.QueueLook) (out []desk.QueueShown, err error) {
	err = h.client.Post(ctx, "/v1/queue/show", l, &out)
	return out, err
}

func (h daemonHands) ActOnQueue(ctx context.Context, o desk.QueueOrder, step func(desk.Step) error) error {
	o.Ticket = rand.Text()
	return h.act(ctx, "/v1/queue/act", o, o.Ticket, step)
}

func (h daemonHands) ListHeld(ctx context.Context, f desk.Filter, line func(desk.HeldLine) error) error {
	return control.Exchange(ctx, h.client, "/v1/held/list/stream", f, line)
}

func (h daemonHands) ActOnHeld(ctx context.Context, o desk.HeldOrder, step func(desk.Step) error) error {
	o.Ticket = rand.Text()
	return h.act(ctx, "/v1/held/act/stream", o, o.Ticket, step)
}

func (h daemonHands) ListDeleted(ctx context.Context, f desk.DeletedFilter, line func(desk.DeletedLine) error) error {
	return control.Exchange(ctx, h.client, "/v1/held/deleted/stream", f, line)
}

func (h daemonHands) ActOnDeleted(ctx context.Context, o desk.DeletedOrder, step func(desk.Step) error) error {
	o.Ticket = rand.Text()
	return h.act(ctx, "/v1/held/undelete/stream", o, o.Ticket, step)
}

// act asks for a bulk act. When ctx ends the daemon is told to end after the batch
// in hand, and what it says then is still read. Who is killed hangs up, which does as
// well.
func (h daemonHands) act(ctx context.Context, path string, order any, ticket string, step func(desk.Step) error) error {
	whole, over := context.WithCancel(context.WithoutCancel(ctx))
	defer over()
	stop := context.AfterFunc(ctx, func() {
		const again = 200 * time.Millisecond // it may not have begun
		for {
			var out nothing
			if err := h.client.Post(whole, "/v1/acts/cut", desk.Cut{Ticket: ticket}, &out); err == nil {
				return
			}
			select {
			case <-whole.Done():
				return
			case <-time.After(again):
			}
		}
	})
	defer stop()
	return control.Exchange(whole, h.client, path, order, step)
}

func (daemonHands) Close() {}

// switchHands are the daemon's for the red switch. What the daemon cannot have
// done, for want of its root helper, root does itself.
type switchHands struct {
	daemonHands
	cmd    *cobra.Command
	config *config.Config
}

func (h switchHands) Stop(ctx context.Context, o stopOrder) (desk.Stopped, error) {
	out, err := h.daemonHands.Stop(ctx, o)
	if !noHelper(err) || !isRoot() {
		return out, err
	}
	remark(h.cmd, "%v; root does this without the daemon", err)
	defer undisturbed()()
	did, err := directly(h.config).Stop(ctx)
	out.Held += len(did.Held)
	out.Caveats = append(out.Caveats, did.Caveats...)
	return out, err
}

func (h switchHands) Start(ctx context.Context, o stopOrder) (desk.Started, error) {
	out, err := h.daemonHands.Start(ctx, o)
	if !noHelper(err) || !isRoot() {
		return out, err
	}
	remark(h.cmd, "%v; root does this without the daemon", err)
	defer undisturbed()()
	var all []policy.Switch
	listErr := h.client.Get(ctx, "/v1/switches", nil, &all)
	suspended := listErr != nil || slices.ContainsFunc(all, func(s policy.Switch) bool { return s.Kind == policy.Suspend })
	did, startErr := directly(h.config).Start(ctx, o.Keep || suspended)
	if startErr != nil {
		return out, errors.Join(err, startErr)
	}
	out.Was, out.Kept, out.Released = true, len(did.Kept), map[string]int{}
	for _, r := range did.Released {
		out.Released[r.Fate.String()]++
	}
	out.Remarks = append(out.Remarks, did.Caveats...)
	if suspended && !o.Keep && out.Kept > 0 {
		out.Remarks = append(out.Remarks, "accounts are suspended, so what the MTA held is not let go: relayguard queue list --queue hold shows it, relayguard queue release --foreign lets it go")
	}
	return out, nil
}

// noHelper reports that the daemon could not reach its root helper: root can do
// what that would have done.
func noHelper(err error) bool {
	var e *control.Error
	return errors.As(err, &e) && e.Status == http.StatusServiceUnavailable
}

// ownHands are root's, while the daemon is dead. What they do is in the journal
// when it comes back.
type ownHands struct {
	desk    *desk.Desk
	by      desk.By
	journal *journal.Offline // nil: it cannot be had
}

func (h *ownHands) List(ctx context.Context, f desk.Filter) (desk.List, error) {
	return h.desk.List(ctx, time.Now(), f)
}

func (h *ownHands) Inspect(ctx context.Context, l desk.Look) (desk.Inspected, error) {
	return h.desk.Inspect(ctx, time.Now(), h.by, l)
}

func (h *ownHands) Stop(ctx context.Context, o stopOrder) (desk.Stopped, error) {
	defer undisturbed()()
	return h.desk.Stop(ctx, time.Now(), h.by, o.Reason)
}

func (h *ownHands) Start(ctx context.Context, o stopOrder) (desk.Started, error) {
	defer undisturbed()()
	return h.desk.Start(ctx, time.Now(), h.by, o.Reason, o.Keep)
}

func (h *ownHands) Queue(ctx context.Context, f desk.QueueFilter, line func(desk.QueueLine) error) error {
	return streamQueue(ctx, h.desk, f, line)
}

func (h *ownHands) QueueSummary(ctx context.Context, f desk.QueueFilter) (desk.QueueSummary, error) {
	return h.desk.QueueSummary(ctx, time.Now(), f)
}

func (h *ownHands) QueueShow(ctx context.Context, l desk.QueueLook) ([]desk.QueueShown, error) {
	return h.desk.QueueShow(ctx, time.Now(), l)
}

func (h *ownHands) ActOnQueue(ctx context.Context, o desk.QueueOrder, step func(desk.Step) error) error {
	defer undisturbed()()
	return h.desk.ActOnQueue(ctx, time.Now(), h.by, o, step)
}

func (h *ownHands) ListHeld(ctx context.Context, f desk.Filter, line func(desk.HeldLine) error) error {
	return streamHeld(ctx, h.desk, f, line)
}

func (h *ownHands) ActOnHeld(ctx context.Context, o desk.HeldOrder, step func(desk.Step) error) error {
	defer undisturbed()()
	return h.desk.ActOnHeld(ctx, time.Now(), h.by, o, step)
}

func (h *ownHands) ListDeleted(ctx context.Context, f desk.DeletedFilter, line func(desk.DeletedLine) error) error {
	return streamDeleted(ctx, h.desk, f, line)
}

func (h *ownHands) ActOnDeleted(ctx context.Context, o desk.DeletedOrder, step func(desk.Step) error) error {
	defer undisturbed()()
	return h.desk.ActOnDeleted(ctx, time.Now(), h.by, o, step)
}

func (h *ownHands) Close() {
	if h.journal != nil {
		h.journal.Close()
	}
}

// undisturbed lets an act come to its end though the connection to the admin
// breaks.
func undisturbed() (over func()) {
	signal.Ignore(syscall.SIGHUP)
	return func() { signal.Reset(syscall.SIGHUP) }
}

// reach finds the daemon, or as root does without it.
func reach(cmd *cobra.Command) (hands, error) {
	client, c, err := asker(cmd)
	if err != nil {
		return nil, err
	}
	err = alive(cmd.Context(), client, aliveTimeout)
	switch {
	case err == nil:
		return daemonHands{client}, nil
	case !errors.Is(err, control.ErrDead):
		return nil, answerOf(err)
	case !isRoot():
		return nil, &exitError{exitCannotTell, fmt.Errorf("%w; %s, or do this as root, who needs no daemon", err, startHint)}
	}
	remark(cmd, "%v; root does this without it", err)
	h, err := newOwnHands(cmd, c, directly(c), ownLog(cmd))
	if err != nil {
		return nil, answerOf(err)
	}
	return h, nil
}

// reachSwitch is reach for the red switch: nothing but a living daemon keeps
// root from pulling it.
func reachSwitch(cmd *cobra.Command) (hands, error) {
	client, c, err := asker(cmd)
	if err != nil {
		return nil, err
	}
	dead := alive(cmd.Context(), client, aliveTimeout)
	switch {
	case dead == nil:
		return switchHands{daemonHands{client}, cmd, c}, nil
	case !isRoot():
		return nil, &exitError{exitCannotTell, fmt.Errorf("%w; do this as root, who needs no daemon", dead)}
	}
	remark(cmd, "%v; root does this without it", dead)
	if errors.Is(dead, errSilent) {
		remark(cmd, "it does not learn of it unless it is restarted: systemctl restart relayguard")
	}
	log := ownLog(cmd)
	h, err := newOwnHands(cmd, c, directly(c), log)
	if err != nil {
		remark(cmd, "%v; it is done all the same, and not journaled", err)
		h = &ownHands{desk: newDesk(unkept{}, directly(c), log), by: self()}
	}
	if h.desk.Switches, err = switches.Open(switchesFile(c), &policy.Board{}, time.Now()); err != nil {
		remark(cmd, "%v", err)
	}
	return h, nil
}

// ownLog tells what goes wrong beside the act; what is merely worth a warning the
// answers say, too.
func ownLog(cmd *cobra.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
}

// newOwnHands opens the journal for root.
func newOwnHands(cmd *cobra.Command, c *config.Config, op queue.Operator, log *slog.Logger) (*ownHands, error) {
	j, err := journal.OpenOffline(c.Journal.Directory)
	if errors.Is(err, journal.ErrInUse) {
		return nil, fmt.Errorf("%w: is a daemon starting, or is another relayguard at work without one?", err)
	}
	if err != nil {
		return nil, err
	}
	remarks(cmd, j.Remarks())
	littleGarbage()
	return &ownHands{desk: newDesk(j, op, log), by: self(), journal: j}, nil
}

func newDesk(j desk.Journal, op queue.Operator, log *slog.Logger) *desk.Desk {
	return &desk.Desk{Journal: j, Queue: op, Switches: &switches.File{}, Log: log, UID: userID, UserName: userName}
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return ""
}

// self is who runs this process.
func self() desk.By {
	p := control.Self()
	return desk.By{Name: p.By(), UID: p.UID, LoginUID: p.LoginUID}
}

// graceTimes is how often the whole of the held mail may be deleted within
// hold.grace, if hold.grace_bytes has room: nothing that is kept goes before its time.
const graceTimes = 10

// directly acts on the queue in this process, as the root helper does.
func directly(c *config.Config) *queue.Direct {
	inside := make([]string, 0, len(c.Inside.Domains))
	for _, d := range c.Inside.Domains {
		inside = append(inside, address.Domain(d))
	}
	return &queue.Direct{
		Kind: c.MTA.Kind, ConfigDir: c.MTA.ConfigDirectory, StateDir: c.MTA.QueueState, Inside: inside,
		Grace: &grace.Folder{Dir: filepath.Join(c.MTA.QueueState, "deleted"), Count: graceTimes * c.Hold.ServerMessages, Bytes: c.Hold.GraceBytes, Age: c.Hold.Grace},
		Log:   slog.New(slog.DiscardHandler),
	}
}

// unkept is the journal that cannot be had.
type unkept struct{}

var errUnkept = fmt.Errorf("there is no journal: %w", journal.ErrClosed)

func (unkept) Append(...journal.Record) error { return errUnkept }

func (unkept) Holds(context.Context, journal.HoldQuery) ([]journal.Hold, error) {
	return nil, errUnkept
}

func (unkept) Explain(context.Context, string) ([]journal.Explanation, error) {
	return nil, errUnkept
}

func (unkept) Decisions(context.Context, journal.Query) ([]journal.Decision, error) {
	return nil, errUnkept
}

func (unkept) EachHold(context.Context, journal.HoldQuery, func(*journal.Hold) error) error {
	return errUnkept
}

func (unkept) Known(context.Context, []string) ([]journal.Known, error) { return nil, errUnkept }

// readOnly is a journal that is only looked at.
type readOnly struct{ *journal.Reader }

func (readOnly) Append(...journal.Record) error { return errors.New("the journal is only read") }

// look asks the daemon for something that stands in the journal; root reads it
// there while the daemon is dead.
func look[T any](cmd *cobra.Command, ask func(*control.Client) (T, error), read func(*journal.Reader) (T, error)) (out T, err error) {
	client, c, err := asker(cmd)
	if err != nil {
		return out, err
	}
	out, err = ask(client)
	if !errors.Is(err, control.ErrDead) || !isRoot() {
		return out, answerOf(err)
	}
	remark(cmd, "%v; root reads the journal in %s, as the daemon left it", err, c.Journal.Directory)
	r, err := journal.OpenReader(c.Journal.Directory)
	if err != nil {
		return out, answerOf(err)
	}
	defer r.Close()
	remarks(cmd, r.Remarks)
	out, err = read(r)
	return out, answerOf(err)
}
