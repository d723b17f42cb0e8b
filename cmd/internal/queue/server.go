package queue

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/local"
)

// Server serves an Operator to the processes of some accounts.
type Server struct {
	Operator Operator
	UIDs     []int         // who may connect beside root: the daemon's account
	Log      *slog.Logger  // every request that changes something, and every look into mail
	Idle     time.Duration // Serve ends after so long without a connection; 0: never

	turn sync.Mutex // of what acts on the queue
	busy sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	last  time.Time // when a connection last ended or began
	room  chan struct{}
}

const (
	maxConns    = 64
	maxParallel = 8 // operations; the red switch needs no room
	readWait    = 10 * time.Second
	writeWait   = 30 * time.Second // for one line of an answer
)

// Serve answers connections until ctx ends, and then lets the operations under
// way that change settings come to their end. It returns nil when ctx ended or
// when it was idle; it closes ln.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.conns, s.last, s.room = map[net.Conn]bool{}, time.Now(), make(chan struct{}, maxParallel)
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	if s.Idle > 0 {
		ln.SetDeadline(time.Now().Add(s.Idle))
	}
	pause := 5 * time.Millisecond
	for {
		conn, err := ln.AcceptUnix()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			s.admit(ctx, conn)
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			cancel()
			s.busy.Wait()
			return nil
		case isTimeout(err):
			rest := s.rest()
			if rest <= 0 {
				return nil // nothing is under way
			}
			ln.SetDeadline(time.Now().Add(rest))
		default: // out of descriptors: that passes
			s.Log.Error("accept a connection", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, time.Second)
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// rest is how long it may still be idle.
func (s *Server) rest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) > 0 {
		return s.Idle
	}
	return s.Idle - time.Since(s.last)
}

// admit looks who is there, by the kernel's word.
func (s *Server) admit(ctx context.Context, conn *net.UnixConn) {
	cred, err := local.PeerCred(conn)
	if err == nil && cred.UID != 0 && !slices.Contains(s.UIDs, cred.UID) {
		err = fmt.Errorf("uid %d may not use the root helper", cred.UID)
	}
	if err != nil {
		s.Log.Warn("connection refused", "uid", cred.UID, "pid", cred.PID, "error", err)
		conn.Close()
		return
	}
	s.mu.Lock()
	full := len(s.conns) >= maxConns
	if !full {
		s.conns[conn], s.last = true, time.Now()
	}
	s.mu.Unlock()
	if full {
		s.Log.Warn("connection refused", "uid", cred.UID, "pid", cred.PID, "error", "too many connections")
		conn.Close()
		return
	}
	s.busy.Go(func() {
		defer func() {
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.last = time.Now()
			s.mu.Unlock()
		}()
		s.serve(ctx, conn, cred)
	})
}

// serve answers one request.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, cred local.Cred) {
	conn.SetReadDeadline(time.Now().Add(readWait))
	in := bufio.NewReader(io.LimitReader(conn, MaxRequest+1))
	line, err := in.ReadBytes('\n')
	a := &answer{conn: conn}
	var r request
	switch {
	case len(line) > MaxRequest:
		err = fmt.Errorf("%w: over %d octets", errRequest, MaxRequest)
	case err == nil:
		r, err = decodeRequest(bytes.TrimSuffix(line, []byte("\n")))
	case errors.Is(err, io.EOF) && len(line) == 0:
		return // somebody looked whether we are there
	default:
		err = fmt.Errorf("%w: %w", errRequest, err)
	}
	if err != nil {
		s.Log.Warn("request refused", "uid", cred.UID, "pid", cred.PID, "error", err)
		a.end(err)
		return
	}
	rule := verbs[r.Verb]
	conn.SetReadDeadline(time.Time{})
	if rule.always {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, rule.limit)
	defer cancel()
	if !rule.always {
		go func() { // until the connection is closed, by either side
			conn.Read(make([]byte, 1))
			cancel()
		}()
	}
	log := s.Log.With("verb", string(r.Verb), "uid", cred.UID, "pid", cred.PID)
	switch { // which message, where it is one
	case rule.targets == 1:
		log = log.With("id", r.Targets[0].ID)
	case len(r.Names) == 1:
		log = log.With("name", r.Names[0])
	}
	if rule.logged {
		log.Info("queue operation begins", "messages", len(r.Targets)+len(r.Names), "account", r.User)
	}
	began := time.Now()
	err = s.run(ctx, a, r, rule)
	if ctx.Err() == nil && a.err != nil { // not what the operation came to
		log.Warn("answer cut short", "error", a.err)
	}
	log = log.With("messages", len(r.Targets)+len(r.Names), "account", r.User, "done", a.done, "took", time.Since(began))
	switch {
	case err != nil:
		log.Warn("queue operation failed", "error", err)
	case rule.logged:
		log.Info("queue operation ended")
	}
	a.end(err)
}

// run finds room and a turn for the operation, and does it. A panic is ours, and
// an error for the client.
func (s *Server) run(ctx context.Context, a *answer, r request, rule rules) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("panic in a queue operation", "verb", string(r.Verb), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("%w (it has a fault; see journalctl -u relayguard-queue)", ErrUnsure)
		}
	}()
	if !rule.always {
		select {
		case s.room <- struct{}{}:
			defer func() { <-s.room }()
		default:
			return ErrBusy
		}
	}
	if rule.queues {
		s.turn.Lock() // at most maxParallel wait here
		defer s.turn.Unlock()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.do(ctx, a, r)
}

func (s *Server) do(ctx context.Context, a *answer, r request) error {
	targets := make([]mta.Target, len(r.Targets))
	for n, t := range r.Targets {
		targets[n] = t.fromWire()
	}
	results := func(all []mta.Result, err error) error {
		for _, one := range all {
			if one.Fate == mta.Done {
				a.done++
			}
			a.send(response{Result: resultToWire(one)})
		}
		return err
	}
	text := func(text []byte, err error) error {
		for part := range slices.Chunk(text, dataChunk) {
			a.send(response{Data: part})
		}
		return err
	}
	switch r.Verb {
	case verbList:
		return s.Operator.List(ctx, func(f mta.QueueFile) error {
			a.send(response{File: &f})
			return a.err
		})
	case verbHold:
		return results(s.Operator.Hold(ctx, targets, r.Reason))
	case verbRequeue:
		return results(s.Operator.Requeue(ctx, targets))
	case verbDeleteQueued:
		return results(s.Operator.DeleteQueued(ctx, targets))
	case verbRelease:
		return results(s.Operator.Release(ctx, targets))
	case verbDelete:
		return results(s.Operator.Delete(ctx, targets))
	case verbDestroy:
		return results(s.Operator.DeleteForGood(ctx, targets))
	case verbKept:
		return s.Operator.Kept(ctx, func(k grace.Kept) error {
			a.send(response{Kept: &k})
			return cmp.Or(a.err, ctx.Err())
		})
	case verbRestore:
		return results(s.Operator.Restore(ctx, r.Names))
	case verbForget:
		return s.Operator.Forget(ctx, r.Names)
	case verbHeaders:
		return text(s.Operator.Headers(ctx, targets[0]))
	case verbContent:
		return text(s.Operator.Content(ctx, targets[0]))
	case verbStop:
		return s.stop(ctx, a)
	case verbStart:
		return s.start(ctx, a, r.Keep)
	case verbForbid:
		return s.Operator.ForbidSubmit(ctx, r.User)
	case verbAllow:
		return s.Operator.AllowSubmit(ctx, r.User)
	case verbStatus:
		status, err := s.Operator.Status(ctx)
		if err == nil {
			a.send(response{Status: &status})
		}
		return err
	}
	return fmt.Errorf("%w: verb %q is not served", errRequest, string(r.Verb))
}

func (s *Server) stop(ctx context.Context, a *answer) error {
	out, err := s.Operator.Stop(ctx)
	for _, f := range out.Held {
		a.done++
		a.send(response{File: &f})
	}
	for _, failed := range out.Failed {
		a.send(response{Result: resultToWire(failed)})
	}
	out.Held, out.Failed = nil, nil
	a.send(response{Stopped: &out})
	return err
}

func (s *Server) start(ctx context.Context, a *answer, keep bool) error {
	out, err := s.Operator.Start(ctx, keep)
	for _, released := range out.Released {
		a.done++
		a.send(response{Result: resultToWire(released)})
	}
	for _, kept := range out.Kept {
		t := toWire(kept)
		a.send(response{Target: &t})
	}
	out.Released, out.Kept = nil, nil
	a.send(response{Started: &out})
	return err
}

// answer writes lines until the client does not take them.
type answer struct {
	conn net.Conn
	buf  []byte
	done int
	err  error // the first; nothing is written after it
}

const answerBuffer = 64 << 10

func (a *answer) send(r response) {
	if a.err != nil {
		return
	}
	line, err := json.Marshal(r)
	if err == nil && len(line) >= maxResponse && r.File != nil {
		line, err = json.Marshal(response{File: shortened(r.File)})
	}
	if err != nil {
		a.err = err
		return
	}
	a.buf = append(append(a.buf, line...), '\n')
	if len(a.buf) >= answerBuffer {
		a.flush()
	}
}

// shortened leaves recipients out, so that a line stays in its bounds.
func shortened(f *mta.QueueFile) *mta.QueueFile {
	const most = 100
	short := *f
	if left := len(f.Recipients) - most; left > 0 {
		short.Recipients = f.Recipients[:most]
		if f.More >= 0 {
			short.More = f.More + left
		}
	}
	return &short
}

func (a *answer) flush() {
	if a.err == nil && len(a.buf) > 0 {
		a.conn.SetWriteDeadline(time.Now().Add(writeWait))
		_, a.err = a.conn.Write(a.buf)
	}
	a.buf = a.buf[:0]
}

func (a *answer) end(err error) {
	a.send(response{End: endOf(err)})
	a.flush()
}
