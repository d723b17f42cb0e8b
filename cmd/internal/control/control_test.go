package control_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/cmd/internal/control"
)

// served serves one operation, which any right is enough for; it ends with the
// test.
func served(t *testing.T) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rgc") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	m := &control.Mux{}
	control.Handle(m, "GET /who", control.Read, func(_ context.Context, _ *http.Request, p control.Peer, _ struct{}) (int, error) {
		return p.UID, nil
	})
	s := control.NewServer(l, m, func() control.Groups { return control.Groups{} }, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { s.Close() })
	return path
}

// dialAs connects as another account, as the kernel sees it.
func dialAs(t *testing.T, uid int, path string) net.Conn {
	t.Helper()
	type dialed struct {
		c   net.Conn
		err error
	}
	done := make(chan dialed)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- dialed{err: errno}
			return
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		}
		if err != nil {
			done <- dialed{err: err}
			return
		}
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		done <- dialed{c, err}
	}()
	d := <-done
	if d.err != nil {
		t.Fatal(d.err)
	}
	t.Cleanup(func() { d.c.Close() })
	d.c.SetDeadline(time.Now().Add(20 * time.Second))
	return d.c
}

// ask sends a request over a connection and returns the answer's status, 0 if
// there is none.
func ask(c net.Conn, path string) (status int, closes bool) {
	io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: d\r\n\r\n") // refused ones are seen below
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, true
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode, resp.Close
}

const stranger = 61002

func needsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
}

func TestNoAccountTakesAllConnections(t *testing.T) {
	needsRoot(t)
	path := served(t)
	in := 0
	for range 100 { // and says nothing
		c := dialAs(t, stranger, path)
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil && os.IsTimeout(err) {
			in++
		}
	}
	if in == 0 || in > 8 {
		t.Errorf("%d connections of one account have a place", in)
	}
	for other := range 30 { // many accounts at once
		for range 4 {
			dialAs(t, stranger+1+other, path)
		}
	}
	var uid int
	if err := control.NewClient(path).Get(t.Context(), "/who", nil, &uid); err != nil || uid != 0 {
		t.Errorf("root is answered %d, %v", uid, err)
	}
}

func TestPlacesAreGivenBack(t *testing.T) {
	needsRoot(t)
	path := served(t)
	for range 50 {
		c := dialAs(t, stranger, path)
		if status, closes := ask(c, "/who"); status != http.StatusForbidden || !closes {
			t.Fatalf("got %d, closes %v", status, closes)
		}
		// It was closed by the server, which gives the place back before.
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestWhoMayNothingIsAnsweredAndNotKept(t *testing.T) {
	needsRoot(t)
	path := served(t)
	for _, what := range []string{"/who", "/nothing", "*"} {
		if status, closes := ask(dialAs(t, stranger, path), what); status < 400 || !closes {
			t.Errorf("%s: got %d, closes %v", what, status, closes)
		}
	}
	if status, closes := ask(dialAs(t, 0, path), "/who"); status != http.StatusOK || closes {
		t.Errorf("root: got %d, closes %v", status, closes)
	}
}

func TestRefusedConnectionsPileUpNoStack(t *testing.T) {
	path := served(t)
	for range 300 { // root's are bounded, too
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	// The last one was refused: by then all were looked at.
	last, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	last.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := last.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Fatalf("it was let in: %v", err)
	}
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if n := strings.Count(string(stacks), "control.(*limited).Accept("); n > 1 {
		t.Errorf("Accept calls itself: %d deep", n)
	}
}

func TestHungUpOnIsTold(t *testing.T) {
	path := served(t)
	for range 200 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var uid int
	err := control.NewClient(path).Get(t.Context(), "/who", nil, &uid)
	if err == nil || !strings.Contains(err.Error(), "too many connections") {
		t.Errorf("got %v", err)
	}
}
