package call

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/milter"
	"relayguard/mta/local"
)

// Request is a Question, and who asks it.
type Request struct {
	Question
	UID    int    // by the kernel's word
	Pool   string // of php-fpm; "" if there is none or it cannot be seen
	Script string // that PHP names in the header; "" if none
}

// Server answers the wrapper. Its fields are not changed once it serves.
type Server struct {
	Calls   *Calls
	Timeout time.Duration // of a connection, from its first octet to the end of the answer
	Log     *slog.Logger

	// Refuse says whether the mail is unwanted now: with Defer where that passes or
	// an admin may lift it, with Reject where it is for good, and a text for whoever
	// sends. Everything else is Accept. It is called by many goroutines, with a ctx
	// that ends with the connection's time. nil: all mail is accepted.
	Refuse func(ctx context.Context, r *Request) Answer

	Counts Counts
}

// Counts of a Server since it began.
type Counts struct {
	Asked   atomic.Int64 // questions answered
	Refused atomic.Int64 // of them, answered with Defer or Reject
	Turned  atomic.Int64 // connections hung up on: an account over its bounds
	Broken  atomic.Int64 // connections without a question of the right form in time
}

// Listen opens the socket for every account of the machine. The directory is
// made if it is missing.
func Listen(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o755); err == nil {
		err = os.Chmod(dir, 0o755) // whatever the umask
		if err != nil {
			return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make socket directory: %w; let root make it: install -d -m 755 -o relayguard %s", err, dir)
	}
	ln, err := milter.Socket{Network: "unix", Address: path, Mode: 0o666, GID: -1}.Listen()
	if err != nil {
		return nil, err
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		ln.Close()
		return nil, fmt.Errorf("listen on unix:%s: got a %T", path, ln)
	}
	return u, nil
}

// Serve answers connections until ctx ends, and then those that are open. It
// closes ln.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	places := newPlaces()
	var busy sync.WaitGroup
	defer busy.Wait()
	pause := 5 * time.Millisecond
	for {
		conn, err := ln.AcceptUnix()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			s.admit(ctx, conn, places, &busy)
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		default: // out of descriptors: that passes
			s.Log.Error("accept a connection of the sendmail wrapper", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, time.Second)
		}
	}
}

// admit looks who is there, by the kernel's word, and whether there is a place.
func (s *Server) admit(ctx context.Context, conn *net.UnixConn, places *places, busy *sync.WaitGroup) {
	cred, err := local.PeerCred(conn)
	if err != nil {
		s.Counts.Broken.Add(1)
		conn.Close()
		return
	}
	if !places.take(time.Now(), cred.UID) {
		s.Counts.Turned.Add(1)
		conn.Close()
		return
	}
	busy.Go(func() {
		defer places.give(cred.UID)
		defer conn.Close()
		if err := s.serve(ctx, conn, cred); err != nil {
			s.Counts.Broken.Add(1)
			s.Log.Debug("sendmail wrapper not answered", "uid", cred.UID, "error", err)
		}
	})
}

// serve answers one question. A panic is ours, and the mail goes.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, cred local.Cred) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("panic while answering the sendmail wrapper", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("panic")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(conn, MaxQuestion)).ReadBytes('\n')
	switch {
	case len(line) == MaxQuestion && err != nil:
		return fmt.Errorf("%w: over %d octets", errQuestion, MaxQuestion)
	case errors.Is(err, io.EOF) && len(line) == 0:
		return nil // somebody looked whether we are there
	case err != nil:
		return fmt.Errorf("%w: %w", errQuestion, err)
	}
	q, err := decodeQuestion(line)
	if err != nil {
		return err
	}
	r := &Request{Question: q, UID: cred.UID, Pool: pools{"/proc"}.find(cred.PID, cred.UID), Script: scriptOf(q.Header)}
	if line, err = encodeAnswer(s.answer(ctx, r)); err != nil {
		return err
	}
	_, err = conn.Write(line)
	return err
}

func (s *Server) answer(ctx context.Context, r *Request) Answer {
	s.Counts.Asked.Add(1)
	if s.Refuse != nil {
		a := s.Refuse(ctx, r)
		if a.Verdict == Defer || a.Verdict == Reject {
			s.Counts.Refused.Add(1)
			a.Token = ""
			return a
		}
	}
	return Answer{Verdict: Accept, Token: s.Calls.Add(Call{UID: r.UID, Pool: r.Pool, Dir: r.Dir, Script: r.Script})}
}
