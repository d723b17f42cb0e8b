package queue

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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
		return ended.err()
	case writeErr != nil:
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

// act asks in as many requests as needed. When a later one fails, the results
// of its targets say so; so do those whose fate an answer does not tell, with
// ErrUnsure.
func (c *Client) act(ctx context.Context, r request, targets []mta.Target) ([]mta.Result, error) {
	var all []mta.Result
	var remark error
	for rest := targets; len(rest) > 0; {
		n := batch(rest)
		results, err := c.actOnce(ctx, r, rest[:n])
		if err != nil && len(results) == 0 {
			if len(all) == 0 {
				return nil, err
			}
			for _, t := range rest {
				all = append(all, mta.Result{ID: t.ID, Err: err})
			}
			return all, remark
		}
		all, rest = append(all, results...), rest[n:]
		if remark == nil {
			remark = err
		}
	}
	return all, remark
}

func (c *Client) actOnce(ctx context.Context, r request, targets []mta.Target) ([]mta.Result, error) {
	r.Targets = make([]target, len(targets))
	for n, t := range targets {
		r.Targets[n] = toWire(t)
		if err := r.Targets[n].check(); err != nil {
			return nil, fmt.Errorf("%s mail: %w", r.Verb, err)
		}
	}
	var results []mta.Result
	err := c.ask(ctx, r, func(line response) error {
		if line.Result == nil {
			return nil
		}
		if len(results) == len(targets) || line.Result.ID != targets[len(results)].ID {
			return fmt.Errorf("%w (a result of %q, which is out of line)", ErrUnsure, clip(line.Result.ID))
		}
		one, err := line.Result.fromWire()
		if err == nil {
			results = append(results, one)
		}
		return err
	})
	switch {
	case err == nil && len(results) < len(targets):
		err = fmt.Errorf("%w (%d results for %d messages)", ErrUnsure, len(results), len(targets))
	case !errors.Is(err, ErrUnsure) && len(results) < len(targets):
		return nil, err // nothing was done, or ctx ended
	}
	if !errors.Is(err, ErrUnsure) {
		return results, err
	}
	for _, t := range targets[len(results):] {
		results = append(results, mta.Result{ID: t.ID, Err: err})
	}
	return results, nil
}

func (c *Client) Kept(ctx context.Context) ([]grace.Kept, error) {
	var kept []grace.Kept
	err := c.ask(ctx, request{Verb: verbKept}, func(r response) error {
		if r.Kept != nil {
			kept = append(kept, *r.Kept)
		}
		return nil
	})
	return kept, err
}

func (c *Client) Restore(ctx context.Context, name string) (newID string, err error) {
	if !grace.ValidName(name) {
		return "", fmt.Errorf("restore mail: got name %q, want one of Kept", clip(name))
	}
	err = c.ask(ctx, request{Verb: verbRestore, Name: name}, func(r response) error {
		if r.Result != nil {
			newID = r.Result.NewID
		}
		return nil
	})
	if err == nil && newID == "" {
		err = ErrUnsure
	}
	return newID, err
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
	err := c.ask(ctx, request{Verb: verbStop}, func(r response) error {
		switch {
		case r.File != nil:
			held = append(held, *r.File)
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
