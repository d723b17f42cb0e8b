package queue

import (
	"context"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// unreadable stands for instances whose settings cannot be read: there may be mail
// in their queues, so nobody is told that a message is gone.
type unreadable struct{ err error }

// unreadableName is what no instance can be called.
const unreadableName = "(unreadable)"

func (u unreadable) Scan(context.Context, func(mta.QueueFile) error) error { return u.err }

func (u unreadable) Hold(context.Context, []mta.Target, string) ([]mta.Result, error) {
	return nil, u.err
}

func (u unreadable) Release(context.Context, []mta.Target) ([]mta.Result, error) { return nil, u.err }

func (u unreadable) Requeue(context.Context, []mta.Target) ([]mta.Result, error) { return nil, u.err }

func (u unreadable) Delete(context.Context, []mta.Target, *grace.Folder) ([]mta.Result, error) {
	return nil, u.err
}

func (u unreadable) DeleteQueued(context.Context, []mta.Target, *grace.Folder) ([]mta.Result, error) {
	return nil, u.err
}

func (u unreadable) Restore(context.Context, []string, *grace.Folder) ([]mta.Result, error) {
	return nil, u.err
}

func (u unreadable) Settle(context.Context, *grace.Folder) error { return nil }

func (u unreadable) Headers(context.Context, mta.Target) ([]byte, error) { return nil, u.err }

func (u unreadable) Content(context.Context, mta.Target) ([]byte, error) { return nil, u.err }

func (u unreadable) Stop(context.Context) (mta.Stopped, error) { return mta.Stopped{}, u.err }

func (u unreadable) Start(context.Context, bool) (mta.Started, error) { return mta.Started{}, u.err }

func (u unreadable) Stopped(context.Context) (mta.StopStatus, error) { return mta.StopStatus{}, u.err }

func (u unreadable) Forbid(context.Context, string) error { return u.err }

func (u unreadable) Allow(context.Context, string) error { return u.err }

func (u unreadable) Forbidden(context.Context) ([]string, error) { return nil, u.err }
