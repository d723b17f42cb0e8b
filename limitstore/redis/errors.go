package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

var (
	// ErrAway: Redis did not answer, or would not do it now. Nothing was done.
	ErrAway = errors.New("Redis is away")

	// ErrUnsure: Redis did not answer in time, or not so that it can be read. The
	// step may have been done; Outcome says so if it has an id.
	ErrUnsure = errors.New("Redis gave no answer: the step may have been done")
)

// undone begins the error replies that Redis gives before a script has written
// anything.
var undone = []string{
	"NOSCRIPT", "NOAUTH", "WRONGPASS", "NOPERM", // not ours to run
	"LOADING", "MASTERDOWN", "READONLY", "NOREPLICAS", "MISCONF", "OOM", "BUSY", // not now
	"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT", // not here
}

// away says what an error of the client means for what was asked.
func away(what string, err error) error {
	kind := ErrUnsure
	var dial *net.OpError
	var reply goredis.Error
	switch {
	case errors.As(err, &dial) && dial.Op == "dial", errors.Is(err, goredis.ErrPoolTimeout), errors.Is(err, goredis.ErrClosed):
		kind = ErrAway
	case errors.As(err, &reply):
		for _, word := range undone {
			if strings.HasPrefix(reply.Error(), word) {
				kind = ErrAway
			}
		}
	}
	return fmt.Errorf("%s: %w: %w", what, kind, err)
}

// expired is the error of a caller who gave up before anything was sent.
func expired(ctx context.Context) error {
	return fmt.Errorf("wait for Redis: %w: %w", ErrAway, context.Cause(ctx))
}
