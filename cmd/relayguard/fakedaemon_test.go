package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"relayguard/cmd/internal/control"
)

// fakeDaemon answers on a control socket what a test wants it to, and remembers
// what it was asked.
type fakeDaemon struct {
	t      *testing.T
	mux    *control.Mux
	config string
	socket string

	mu    sync.Mutex
	asked []string // "POST /v1/stop {...}"
}

// newFakeDaemon opens the socket; nothing is answered yet but that it is there.
func newFakeDaemon(t *testing.T) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{t: t, mux: &control.Mux{}}
	d.config, d.socket = commandDir(t)
	l, err := control.Listen(d.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewServer(l, d.mux, func() control.Groups { return control.Groups{} }, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { s.Close() })
	return d
}

// commandDir is a directory with a configuration whose daemon and journal would
// be there.
func commandDir(t *testing.T) (config, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rg") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config, socket = filepath.Join(dir, "relayguard.toml"), filepath.Join(dir, "control.sock")
	text := "[control]\nsocket = \"" + socket + "\"\n[journal]\ndirectory = \"" + filepath.Join(dir, "journal") + "\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, socket
}

// on answers an operation.
func (d *fakeDaemon) on(pattern string, answer func(body json.RawMessage) (any, error)) {
	control.Handle(d.mux, pattern, control.Read, func(_ context.Context, r *http.Request, _ control.Peer, in json.RawMessage) (any, error) {
		d.mu.Lock()
		d.asked = append(d.asked, r.Method+" "+r.URL.RequestURI()+" "+string(in))
		d.mu.Unlock()
		return answer(in)
	})
}

// always answers an operation with the same.
func (d *fakeDaemon) always(pattern string, out any) {
	d.on(pattern, func(json.RawMessage) (any, error) { return out, nil })
}

// stream answers an operation with lines, and with what ends them: an error after
// the last, or a connection that is cut.
func (d *fakeDaemon) stream(pattern string, lines func(body json.RawMessage, send func(any)) error) {
	control.Serve(d.mux, pattern, control.Read, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d.mu.Lock()
		d.asked = append(d.asked, r.Method+" "+r.URL.RequestURI()+" "+string(body))
		d.mu.Unlock()
		n, encoder := 0, json.NewEncoder(w)
		err := lines(body, func(line any) {
			n++
			if encoder.Encode(line) == nil {
				_ = http.NewResponseController(w).Flush()
			}
		})
		if errors.Is(err, errHangUp) {
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			encoder.Encode(map[string]any{"error": err.Error(), "status": 500})
			return
		}
		encoder.Encode(map[string]int{"end": n})
	}))
}

// errHangUp makes a stream break off.
var errHangUp = errors.New("hang up")

// lines answers an operation with always the same stream.
func (d *fakeDaemon) lines(pattern string, all ...any) {
	d.stream(pattern, func(_ json.RawMessage, send func(any)) error {
		for _, line := range all {
			send(line)
		}
		return nil
	})
}

// lastAsked is the newest request that begins so.
func (d *fakeDaemon) lastAsked(begins string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range slices.Backward(d.asked) {
		if strings.HasPrefix(a, begins) {
			return a
		}
	}
	return ""
}

// run runs a command against the daemon.
func (d *fakeDaemon) run(args ...string) (code int, stdout, stderr string) {
	d.t.Helper()
	return runIn(d.t, append(args, "--config", d.config)...)
}

// terminal is a terminal of so many columns: what a command that runs on it
// writes to standard output, and what somebody types.
type terminal struct {
	keyboard, screen *os.File
	master           *os.File
}

func newTerminal(t *testing.T, columns uint16) *terminal {
	t.Helper()
	t.Setenv("COLUMNS", "")
	t.Setenv("NO_COLOR", "1")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(filepath.Join("/dev/pts", number(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return &terminal{keyboard: slave, screen: slave, master: master}
}

// run runs a command with its output on the terminal; typed is what is answered
// to questions.
func (term *terminal) run(t *testing.T, typed string, args ...string) (code int, shown, stderr string) {
	t.Helper()
	if _, err := term.master.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(term.keyboard)
	root.SetOut(term.screen)
	var errs bytes.Buffer
	root.SetErr(&errs)
	read := make(chan string)
	const end = "\x04end\x04"
	go func() {
		var all []byte
		buf := make([]byte, 4096)
		for !bytes.Contains(all, []byte(end)) {
			n, err := term.master.Read(buf)
			if all = append(all, buf[:n]...); err != nil {
				break
			}
		}
		read <- strings.ReplaceAll(strings.Replace(string(all), end, "", 1), "\r\n", "\n")
	}()
	err := root.ExecuteContext(t.Context())
	io.WriteString(term.screen, end)
	shown = strings.TrimPrefix(<-read, strings.ReplaceAll(typed, "\r", "\n")) // the terminal's echo
	if err == nil {
		return exitFine, shown, errs.String()
	}
	if exit, ok := err.(*exitError); ok {
		if exit.err != nil {
			tell(&errs, exit.err)
		}
		return exit.code, shown, errs.String()
	}
	return exitUsage, shown, errs.String() + err.Error()
}

// hostile is what a sender may put where he can put anything.
const hostile = "x\x1b[2J\x1b]0;owned\x07\r\nroot:\u202eecila\x00\u200b'; rm -rf / #"

// noTricks fails if anything of hostile reached a terminal as it is.
func noTricks(t *testing.T, what, text string) {
	t.Helper()
	for _, c := range text {
		if c < ' ' && c != '\n' || c == 0x7f || c == '\u202e' || c == '\u200b' {
			t.Errorf("%s: %q reached the terminal in %q", what, c, text)
			return
		}
	}
}

// fits fails if a line is wider than that.
func fits(t *testing.T, what, text string, columns int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > columns {
			t.Errorf("%s: a line of %d columns: %q", what, n, line)
		}
	}
}
