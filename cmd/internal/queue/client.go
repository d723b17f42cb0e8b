package queue

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// Client is an Operator that asks the root helper, over a connection for each
// request. When a context ends the connection is closed, and the helper ends
// what it was doing, but for the verbs that change settings. The zero value but
// for Path is ready.
type Client struct {
	Path string // of the helper's socket: "/run/relayguard-queue/queue.sock"
	// Broke is told when the answer to an act on the queue breaks off: the helper died,
	// and what it left half done waits for a look at the queue. It must not wait; nil:
	// nobody is told.
	Broke func()
}

var _ Operator = (*Client)(nil)

// ErrUnreachable says that no root helper answers at the path.
var ErrUnreachable = errors.New("root helper not reachable")

// ErrUnsure says that an answer ended too early or made no sense: the helper
// died, or has a fault. What was asked for may have been done.
var ErrUnsure = errors.New("the root helper's answer was cut short; what was asked for may have been done, look at the queue")

const (
	dialWait = 5 * time.Second
	// answerGrace is how much longer than the operation an answer may take: its
	// time in the helper's line is part of the limit.
	answerGrace = 30 * time.Second
)

// ask sends a request and calls fn with every line of the answer but the last,
// whose error it returns. fn's error ends it.
func (c *Client) ask(ctx context.Context, r request, fn func(response) error) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("ask the root helper: %w", err)
	}
	if len(line) >= MaxRequest {
		return fmt.Errorf("ask the root helper: %s: %d octets, at most %d", r.Verb, len(line), MaxRequest)
	}
	ctx, cancel := context.WithTimeout(ctx, verbs[r.Verb].limit+answerGrace)
	defer cancel()
	dialer := net.Dialer{Timeout: dialWait}
	conn, err := dialer.DialContext(ctx, "unix", c.Path)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("ask the root helper: %w", ctx.Err())
		}
		return fmt.Errorf("%w at %s: %w; see systemctl status relayguard-queue.socket", ErrUnreachable, c.Path, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// What the helper says to a request that it does not read to the end comes
	// all the same.
	_, writeErr := conn.Write(append(line, '\n'))
	ended, err := readAnswer(conn, fn)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask the root helper: %s: %w", r.Verb, ctx.Err())
	case err == nil && ended != nil:
		err, writeErr = ended.err(), nil
	}
	if c.Broke != nil && verbs[r.Verb].queues && errors.Is(err, ErrUnsure) {
		c.Broke()
	}
	if writeErr != nil {
		return fmt.Errorf("ask the root helper: %s: %w; does it know this account? see journalctl -u relayguard-queue", r.Verb, writeErr)
	}
	return err
}

// readAnswer reads lines up to the one that ends the answer.
func readAnswer(from io.Reader, fn func(response) error) (*end, error) {
	in := bufio.NewReaderSize(from, 64<<10)
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxResponse {
			return nil, fmt.Errorf("%w (a line of over %d octets)", ErrUnsure, maxResponse)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", ErrUnsure, err)
		}
		r, err := decodeResponse(line)
		if err != nil {
			return nil, err
		}
		if r.End != nil {
			return r.End, nil
		}
		if err := fn(r); err != nil {
			return nil, err
		}
		line = line[:0]
	}
}

func (c *Client) List(ctx context.Context, fn func(mta.QueueFile) error) error {
	return c.ask(ctx, request{Verb: verbList}, func(r response) error {
		if r.File == nil {
			return nil
		}
		return fn(*r.File)
	})
}

func (c *Client) Hold(ctx context.Context, targets []mta.Target, reason string) ([]mta.Result, error) {
	return c.act(ctx, request{Verb: verbHold, Reason: clipReason(reason)}, targets)
}

func (c *Client) Requeue(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return c.act(ctx, request{Verb: verbRequeue}, targets)
}

func (c *Client) DeleteQueued(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return c.act(ctx, request{Verb: verbDeleteQueued}, targets)
}

func (c *Client) Release(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return c.act(ctx, request{Verb: verbRelease}, targets)
}

func (c *Client) Delete(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return c.act(ctx, request{Verb: verbDelete}, targets)
}

func (c *Client) DeleteForGood(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return c.act(ctx, request{Verb: verbDestroy}, targets)
}

// batchOctets is what the targets of one request may take, by a generous count.
const batchOctets = 3 << 20

// batch cuts off as many targets as fit into a request.
func batch(targets []mta.Target) int {
	const frame, escaped = 120, 6 // octets beside the texts; of one escaped octet
	octets := 0
	for n, t := range targets {
		octets += frame + len(t.ID) + escaped*len(t.Sender)
		if n == MaxTargets || n > 0 && octets > batchOctets {
			return n
		}
	}
	return len(targets)
}

// act asks in as many requests as needed.
func (c *Client) act(ctx context.Context, r request, targets []mta.Target) ([]mta.Result, error) {
	return inRequests(targets, batch, func(t mta.Target) string { return t.ID }, func(some []mta.Target) ([]mta.Result, error) {
		r.Targets = make([]target, len(some))
		ids := make([]string, len(some))
		for n, t := range some {
			r.Targets[n], ids[n] = toWire(t), t.ID
			if err := r.Targets[n].check(); err != nil {
				return nil, fmt.Errorf("%s mail: %w", r.Verb, err)
			}
		}
		return c.results(ctx, r, ids)
	})
}

// inRequests asks about some at a time, as many as fits says. When a later request
// fails, the results of its own say so; so do those whose fate an answer does not
// tell, with ErrUnsure.
func inRequests[T any](all []T, fits func([]T) int, id func(T) string, ask func([]T) ([]mta.Result, error)) ([]mta.Result, error) {
	var results []mta.Result
	var remark error
	for rest := all; len(rest) > 0; {
		n := fits(rest)
		some, err := ask(rest[:n])
		if err != nil && len(some) == 0 {
			if len(results) == 0 {
				return nil, err
			}
			for _, t := range rest {
				results = append(results, mta.Result{ID: id(t), Err: err})
			}
			return results, remark
		}
		results, rest = append(results, some...), rest[n:]
		if remark == nil {
			remark = err
		}
	}
	return results, remark
}

// results asks, and reads a result for each id.
func (c *Client) results(ctx context.Context, r request, ids []string) ([]mta.Result, error) {
	var results []mta.Result
	err := c.ask(ctx, r, func(line response) error {
		if line.Result == nil {
			return nil
		}
		if len(results) == len(ids) || line.Result.ID != clip(ids[len(results)]) {
			return fmt.Errorf("%w (a result of %q, which is out of line)", ErrUnsure, clip(line.Result.ID))
		}
		one, err := line.Result.fromWire()
		if err == nil {
			results = append(results, one)
		}
		return err
	})
	switch {
	case err == nil && len(results) < len(ids):
		err = fmt.Errorf("%w (%d results for %d messages)", ErrUnsure, len(results), len(ids))
	case !errors.Is(err, ErrUnsure) && len(results) < len(ids):
		return nil, err // nothing was done, or ctx ended
	}
	if !errors.Is(err, ErrUnsure) {
		return results, err
	}
	for _, id := range ids[len(results):] {
		results = append(results, mta.Result{ID: id, Err: err})
	}
	return results, nil
}

func (c *Client) Kept(ctx context.Context, fn func(grace.Kept) error) error {
	return c.ask(ctx, request{Verb: verbKept}, func(r response) error {
		if r.Kept == nil {
			return nil
		}
		return fn(*r.Kept)
	})
}

func (c *Client) Restore(ctx context.Context, names []string) ([]mta.Result, error) {
	if err := checkNames(names); err != nil {
		return nil, fmt.Errorf("restore mail: %w", err)
	}
	return inRequests(names, func(names []string) int { return min(len(names), maxNames) },
		func(name string) string { return name },
		func(some []string) ([]mta.Result, error) {
			return c.results(ctx, request{Verb: verbRestore, Names: some}, some)
		})
}

func (c *Client) Forget(ctx context.Context, names []string) error {
	if err := checkNames(names); err != nil {
		return fmt.Errorf("forget restored mail: %w", err)
	}
	for some := range slices.Chunk(names, maxNames) {
		if err := c.ask(ctx, request{Verb: verbForget, Names: some}, func(response) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

func checkNames(names []string) error {
	for _, name := range names {
		if !grace.ValidName(name) {
			return fmt.Errorf("got name %q, want one of Kept", clip(name))
		}
	}
	return nil
}

func (c *Client) Headers(ctx context.Context, t mta.Target) ([]byte, error) {
	return c.text(ctx, verbHeaders, t)
}

func (c *Client) Content(ctx context.Context, t mta.Target) ([]byte, error) {
	return c.text(ctx, verbContent, t)
}

func (c *Client) text(ctx context.Context, v verb, t mta.Target) ([]byte, error) {
	w := toWire(t)
	if err := w.check(); err != nil {
		return nil, fmt.Errorf("show message: %w", err)
	}
	var text []byte
	err := c.ask(ctx, request{Verb: v, Targets: []target{w}}, func(r response) error {
		if len(text)+len(r.Data) > maxText {
			return fmt.Errorf("read the root helper's answer: a text of over %d octets", maxText)
		}
		text = append(text, r.Data...)
		return nil
	})
	if err != nil && !errors.Is(err, mta.ErrCut) {
		return nil, err
	}
	return text, err
}

func (c *Client) Stop(ctx context.Context) (mta.Stopped, error) {
	var out mta.Stopped
	var held []mta.QueueFile
	var failed []mta.Result
	small := newBrief()
	err := c.ask(ctx, request{Verb: verbStop}, func(r response) error {
		switch {
		case r.File != nil:
			held = append(held, small.of(*r.File))
		case r.Result != nil:
			one, err := r.Result.fromWire()
			failed = append(failed, one)
			return err
		case r.Stopped != nil:
			out = *r.Stopped
		}
		return nil
	})
	out.Held, out.Failed = held, failed
	return out, err
}

func (c *Client) Start(ctx context.Context, keep bool) (mta.Started, error) {
	var out mta.Started
	var released []mta.Result
	var kept []mta.Target
	err := c.ask(ctx, request{Verb: verbStart, Keep: keep}, func(r response) error {
		switch {
		case r.Target != nil:
			kept = append(kept, r.Target.fromWire())
		case r.Result != nil:
			one, err := r.Result.fromWire()
			released = append(released, one)
			return err
		case r.Started != nil:
			out = *r.Started
		}
		return nil
	})
	out.Released, out.Kept = released, kept
	return out, err
}

func (c *Client) ForbidSubmit(ctx context.Context, user string) error {
	return c.switchUser(ctx, verbForbid, user)
}

func (c *Client) AllowSubmit(ctx context.Context, user string) error {
	return c.switchUser(ctx, verbAllow, user)
}

func (c *Client) switchUser(ctx context.Context, v verb, user string) error {
	if !mta.ValidUser(user) {
		return fmt.Errorf("%s %q: %w", v, clip(user), mta.ErrNoSuchUser)
	}
	return c.ask(ctx, request{Verb: v, User: user}, func(response) error { return nil })
}

func (c *Client) Status(ctx context.Context) (Status, error) {
	var out *Status
	err := c.ask(ctx, request{Verb: verbStatus}, func(r response) error {
		if r.Status != nil {
			out = r.Status
		}
		return nil
	})
	switch {
	case err != nil:
		return Status{}, err
	case out == nil:
		return Status{}, ErrUnsure
	}
	return *out, nil
}
