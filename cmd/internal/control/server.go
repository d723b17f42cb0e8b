// Package control is the daemon's socket for commands: HTTP and JSON over a Unix
// socket, where the kernel says who asks. It knows who may do what, not what is
// done. Trap: the socket file is open to every account, so that a refusal can
// say why; each request is judged by its peer, and no account gets so many
// connections that root finds none left.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Bounds of a conversation. Answers may be long: a bulk release reports on
// every message.
const (
	maxRequest  = 16 << 20
	readTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
)

// Error is an answer that is none, in words for people.
type Error struct {
	Status int    `json:"-"` // HTTP's
	Text   string `json:"error"`
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(status int, format string, args ...any) error {
	return &Error{status, fmt.Sprintf(format, args...)}
}

// Right is what an operation needs.
type Right uint8

const (
	Read Right = iota + 1
	Admin
	Inspect
)

func (r Rights) has(need Right) bool {
	switch need {
	case Read:
		return r.Read
	case Admin:
		return r.Admin
	case Inspect:
		return r.Inspect
	}
	return false
}

var rightNames = map[Right]string{Read: "look (control.read_group)", Admin: "act (control.admin_group)", Inspect: "look into mail (control.inspect_group)"}

// Mux serves operations.
type Mux struct{ http.ServeMux }

// Handle serves one operation: pattern as http.ServeMux has it, In what it is
// asked (from the body; for GET from nothing), Out what it answers.
func Handle[In, Out any](m *Mux, pattern string, need Right, do func(context.Context, *http.Request, Peer, In) (Out, error)) {
	m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !allowed(w, r, need) {
			return
		}
		peer := PeerFrom(r.Context())
		var in In
		if r.Method != http.MethodGet {
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&in); err != nil && !errors.Is(err, io.EOF) {
				answer(w, Errorf(http.StatusBadRequest, "read the request: %v", err))
				return
			}
		}
		out, err := do(r.Context(), r, peer, in)
		if err != nil {
			answer(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // who hangs up does not want it
	})
}

func answer(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{http.StatusInternalServerError, err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e)
}

// Server serves a Mux on a Unix socket. Close it.
type Server struct {
	http     http.Server
	listener net.Listener
}

// Listen opens the socket. One that a dead daemon left is replaced; that of a
// living one is an error.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: another daemon answers there", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// NewServer serves until Close; groups is asked once a connection.
func NewServer(l net.Listener, m *Mux, groups func() Groups, log *slog.Logger) *Server {
	s := &Server{listener: l}
	s.http = http.Server{
		Handler:           brief(m),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       time.Minute,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true, // it would answer past brief
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			peer := Peer{UID: -1, Name: "somebody unknown", LoginUID: -1}
			who := func() Peer { return peer }
			if a, ok := c.(*admitted); ok {
				// Who may what is asked by the connection's own goroutine: that
				// may take long, and nobody else waits for it.
				who = sync.OnceValue(func() Peer { return peerOf(a.cred, a.loginUID, groups()) })
			}
			return context.WithValue(ctx, peerKey{}, who)
		},
	}
	go func() {
		if err := s.http.Serve(&limited{Listener: l, log: log, open: map[int]int{}}); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("control socket", "error", err)
		}
	}()
	return s
}

// brief gives who may nothing an answer, and no place to stay.
func brief(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if PeerFrom(r.Context()).Rights == (Rights{}) {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// Close stops serving; what is under way has a moment to finish.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}
