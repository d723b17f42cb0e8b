package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// several are the instances of one machine's mail server, most often one.
type several []instance

// instance is one of them by its name; the name is empty where there is only one.
type instance struct {
	name   string
	server server
	keep   *grace.Folder // where its deleted mail stays for a while; nil: nowhere
}

// server acts on one instance.
type server interface {
	Scan(ctx context.Context, fn func(mta.QueueFile) error) error
	Hold(ctx context.Context, targets []mta.Target, reason string) ([]mta.Result, error)
	Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error)
	Requeue(ctx context.Context, targets []mta.Target) ([]mta.Result, error)
	Delete(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error)
	DeleteQueued(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error)
	Restore(ctx context.Context, names []string, keep *grace.Folder) ([]mta.Result, error)
	// Settle ends what a delete began that was killed half way, and removes what is left
	// of restores that were.
	Settle(ctx context.Context, keep *grace.Folder) error
	Headers(ctx context.Context, t mta.Target) ([]byte, error)
	Content(ctx context.Context, t mta.Target) ([]byte, error)
	Stop(ctx context.Context) (mta.Stopped, error)
	Start(ctx context.Context, keep bool) (mta.Started, error)
	Stopped(ctx context.Context) (mta.StopStatus, error)
	Forbid(ctx context.Context, user string) error
	Allow(ctx context.Context, user string) error
	Forbidden(ctx context.Context) ([]string, error)
}

// of is an error with the instance that it is about.
func (i instance) of(err error) error {
	if err == nil || i.name == "" {
		return err
	}
	return fmt.Errorf("instance %s: %w", i.name, err)
}

// list tells the mail of all, one instance after another. An instance that cannot
// be read does not hide the others.
func (s several) list(ctx context.Context, fn func(mta.QueueFile) error) error {
	var skipped mta.SkippedError
	var errs []error
	for _, i := range s {
		var fnErr error
		err := i.server.Scan(ctx, func(f mta.QueueFile) error {
			f.Instance = i.name
			fnErr = fn(f)
			return fnErr
		})
		var some *mta.SkippedError
		switch {
		case fnErr != nil:
			return fnErr
		case errors.As(err, &some):
			skipped.Lines += some.Lines
			skipped.First = cmp.Or(skipped.First, i.of(some.First))
		case err != nil:
			errs = append(errs, i.of(err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if skipped.Lines > 0 {
		return &skipped
	}
	return nil
}

// isUnread tells whether it stands for instances that cannot be read.
func (i instance) isUnread() bool {
	_, is := i.server.(unreadable)
	return is
}

// firstName is that of the first of several instances, as postmulti(1) calls it.
const firstName = "-"

// has tells whether the message may be in this instance. The name of one that is
// alone is empty, and was perhaps firstName when the message was listed; a name of
// nobody's may be that of one that cannot be read now.
func (s several) has(i instance, t mta.Target) bool {
	switch {
	case t.Instance == "" || t.Instance == i.name:
		return true
	case len(s) == 1:
		return t.Instance == firstName
	}
	return i.isUnread() && !s.knows(t)
}

// knows tells whether the instance that a target names is there.
func (s several) knows(t mta.Target) bool {
	return slices.ContainsFunc(s, func(i instance) bool { return t.Instance == i.name || len(s) == 1 && t.Instance == firstName })
}

// strange is the error about a target whose instance is not there: what became of
// its mail nobody can tell.
func (s several) strange(t mta.Target) error {
	if t.Instance == "" || s.knows(t) || slices.ContainsFunc(s, instance.isUnread) {
		return nil
	}
	return fmt.Errorf("message %s: the mail server has no instance %q now", t.ID, clip(t.Instance))
}

// act gives each target to its instance. One that names none is tried in each, until
// it is there: the same id may be somebody else's in another.
func (s several) act(targets []mta.Target, do func(instance, []mta.Target) ([]mta.Result, error)) ([]mta.Result, error) {
	results := make([]mta.Result, len(targets))
	strange := false
	for n, t := range targets {
		results[n] = mta.Result{ID: t.ID, Fate: mta.Gone}
		if err := s.strange(t); err != nil {
			results[n], strange = mta.Result{ID: t.ID, Err: err}, true
		}
	}
	if len(s) == 1 && !strange {
		return do(s[0], nameless(targets))
	}
	var errs []error
	broken := 0
	for _, i := range s {
		some, index := s.share(i, targets, results)
		if len(some) == 0 {
			continue
		}
		got, err := do(i, some)
		if err != nil {
			errs = append(errs, i.of(err))
		}
		if err != nil && got == nil { // it may be there: that it is gone cannot be said
			broken++
			for _, n := range index {
				results[n] = severer(results[n], mta.Result{ID: results[n].ID, Err: i.of(err)})
			}
			continue
		}
		for k, n := range index {
			results[n] = severer(results[n], got[k])
		}
	}
	if broken == len(s) && !strange {
		return nil, errors.Join(errs...)
	}
	return results, errors.Join(errs...)
}

// nameless are the targets of the only instance.
func nameless(targets []mta.Target) []mta.Target {
	some := slices.Clone(targets)
	for n := range some {
		some[n].Instance = ""
	}
	return some
}

// share are the targets that an instance may have, with their places.
func (s several) share(i instance, targets []mta.Target, results []mta.Result) (some []mta.Target, index []int) {
	for n, t := range targets {
		if s.has(i, t) && results[n].Fate != mta.Done {
			t.Instance = "" // the names here are ours, not the MTA's own
			some, index = append(some, t), append(index, n)
		}
	}
	return some, index
}

// severer is what is said of a message of which two instances speak: that it was
// done, then that it could not be, then that its id is another's.
func severer(a, b mta.Result) mta.Result {
	weight := map[mta.Fate]int{mta.Gone: 0, mta.Changed: 1, mta.Failed: 2, mta.Done: 3}
	if weight[b.Fate] > weight[a.Fate] {
		return b
	}
	return a
}

// text finds the message in the instance that has it.
func (s several) text(t mta.Target, read func(instance, mta.Target) ([]byte, error)) (text []byte, err error) {
	if err := s.strange(t); err != nil {
		return nil, err
	}
	err = fmt.Errorf("show message %s: %w", t.ID, mta.ErrGone)
	for _, i := range s {
		if !s.has(i, t) {
			continue
		}
		there := t
		there.Instance = ""
		text, thisErr := read(i, there)
		if thisErr == nil || errors.Is(thisErr, mta.ErrCut) {
			return text, thisErr
		}
		if !errors.Is(thisErr, mta.ErrGone) {
			err = i.of(thisErr)
		}
	}
	return nil, err
}

func (s several) kept(fn func(grace.Kept) error) error {
	for _, i := range s {
		if i.keep == nil {
			continue
		}
		if err := i.keep.Each(func(k grace.Kept) error {
			k.Instance = i.name
			return fn(k)
		}); err != nil {
			return i.of(err)
		}
	}
	return nil
}

// restore looks in all folders. Where the one that has it may be that of an
// instance that cannot be read, it is not gone.
func (s several) restore(ctx context.Context, names []string) ([]mta.Result, error) {
	all := make([]mta.Target, len(names))
	for n, name := range names {
		all[n].ID = name
	}
	return s.act(all, func(i instance, some []mta.Target) ([]mta.Result, error) {
		names, gone := make([]string, len(some)), make([]mta.Result, len(some))
		for n, t := range some {
			names[n], gone[n] = t.ID, mta.Result{ID: t.ID, Fate: mta.Gone}
		}
		if i.keep == nil && !i.isUnread() {
			return gone, nil
		}
		return i.server.Restore(ctx, names, i.keep)
	})
}

func (s several) forget(ctx context.Context, names []string) error {
	var errs []error
	for _, i := range s {
		if i.keep != nil {
			errs = append(errs, i.of(i.keep.Forget(ctx, names)))
		}
	}
	return errors.Join(errs...)
}

// stop stops all, whatever one of them says.
func (s several) stop(ctx context.Context) (mta.Stopped, error) {
	all := mta.Stopped{Already: true}
	var errs []error
	small := newBrief()
	for _, i := range s {
		one, err := i.server.Stop(ctx)
		errs = append(errs, i.of(err))
		for n := range one.Held {
			one.Held[n].Instance = i.name
			one.Held[n] = small.of(one.Held[n])
		}
		all.Since = earlier(all.Since, one.Since)
		all.Already, all.Running, all.Ended = all.Already && one.Already, all.Running || one.Running, all.Ended+one.Ended
		all.Held, all.Failed, all.Caveats = append(all.Held, one.Held...), append(all.Failed, one.Failed...), append(all.Caveats, i.caveats(one.Caveats)...)
	}
	return all, errors.Join(errs...)
}

// earlier is the earlier of two times that are known.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (i instance) caveats(all []string) []string {
	if i.name == "" {
		return all
	}
	named := make([]string, len(all))
	for n, c := range all {
		named[n] = "instance " + i.name + ": " + c
	}
	return named
}

// start starts all; mta.ErrNotStopped only if none was stopped.
func (s several) start(ctx context.Context, keep bool) (mta.Started, error) {
	var all mta.Started
	var errs []error
	running := 0
	for _, i := range s {
		one, err := i.server.Start(ctx, keep)
		if errors.Is(err, mta.ErrNotStopped) {
			running++
			continue
		}
		errs = append(errs, i.of(err))
		for n := range one.Kept {
			one.Kept[n].Instance = i.name
		}
		all.Since = earlier(all.Since, one.Since)
		all.Running, all.Retried = all.Running || one.Running, all.Retried+one.Retried
		all.Released, all.Kept, all.Caveats = append(all.Released, one.Released...), append(all.Kept, one.Kept...), append(all.Caveats, i.caveats(one.Caveats)...)
	}
	if running == len(s) {
		return all, mta.ErrNotStopped
	}
	return all, errors.Join(errs...)
}

// status is stopped if any instance is; what the others lack is missing then.
func (s several) status(ctx context.Context) (Status, error) {
	var out Status
	var open []string
	for _, i := range s {
		one, err := i.server.Stopped(ctx)
		if err != nil {
			return Status{}, i.of(err)
		}
		if one.Stopped {
			out.Stop.Stopped, out.Stop.Since = true, earlier(out.Stop.Since, one.Since)
			out.Stop.Held += one.Held
			out.Stop.Missing = append(out.Stop.Missing, i.caveats(one.Missing)...)
		} else {
			open = append(open, "all of instance "+i.name)
		}
		forbidden, err := i.server.Forbidden(ctx)
		if err != nil {
			return Status{}, i.of(err)
		}
		out.Forbidden = union(out.Forbidden, forbidden)
	}
	if out.Stop.Stopped {
		out.Stop.Missing = append(out.Stop.Missing, open...)
	}
	return out, nil
}

func union(a, b []string) []string {
	for _, name := range b {
		if !slices.Contains(a, name) {
			a = append(a, name)
		}
	}
	return a
}

// each does the same in all, whatever one of them says.
func (s several) each(do func(server) error) error {
	var errs []error
	for _, i := range s {
		errs = append(errs, i.of(do(i.server)))
	}
	return errors.Join(errs...)
}
