package watchhelper_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayguard/cmd/internal/watchhelper"
	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/files/wire"
	"relayguard/forward/watch"
)

// helper is one that serves at a socket.
type helper struct {
	socket string
	log    *safeBuffer
	stop   func()
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func serve(t testing.TB, socket string, o watchhelper.Options) *helper {
	t.Helper()
	os.Remove(socket)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	must(t, os.Chmod(socket, 0o777))
	log := &safeBuffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	if o.AllowedUID == 0 {
		o.AllowedUID = os.Getuid()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- watchhelper.Serve(ctx, ln, o) }()
	h := &helper{socket: socket, log: log}
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

// socketIn is a path that is short enough for a socket.
func socketIn(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wh")
	must(t, err, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir + "/watch.sock"
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func remote(t testing.TB) *files.Remote {
	t.Helper()
	r := files.Dial(serve(t, socketIn(t), watchhelper.Options{}).socket)
	t.Cleanup(func() { r.Close() })
	return r
}

// What comes over the socket is what this process reads itself.
func TestRemoteReadsAsLocal(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/home/alice", 0o755), os.WriteFile(dir+"/home/alice/.forward", []byte("x@evil.test\n"), 0o640),
		os.WriteFile(dir+"/empty", nil, 0o600), os.WriteFile(dir+"/big", bytes.Repeat([]byte("0123456789abcdef"), 100_000), 0o644),
		os.WriteFile(dir+"/na\xffme\n", []byte("odd"), 0o644), os.Symlink("home/alice/.forward", dir+"/link"),
		os.Symlink("loop", dir+"/loop"), unix.Mkfifo(dir+"/fifo", 0o666))
	sparse, err := os.Create(dir + "/sparse")
	must(t, err, sparse.Truncate(1<<30), sparse.Close())
	r, l := remote(t), files.Local()
	alice := &forward.Account{UID: 5001, GID: 5001, Groups: []int{4, 5}}
	for _, name := range []string{"home/alice/.forward", "empty", "big", "na\xffme\n", "link", "loop", "fifo", "sparse", "home", "none", "home/alice/.forward/x", strings.Repeat("x/", 3000)} {
		p := dir + "/" + name
		for _, o := range []forward.ReadOptions{{}, {NoFollow: true}, {As: alice}, {Max: 5}} {
			text, info, err := r.Read(t.Context(), p, o)
			wantText, wantInfo, wantErr := l.Read(t.Context(), p, o)
			if !bytes.Equal(text, wantText) || !same(info, wantInfo) || !sameError(err, wantErr) {
				t.Errorf("read %.80q %+v:\n got %d octets, %+v, %v\nwant %d octets, %+v, %v", name, o, len(text), info, err, len(wantText), wantInfo, wantErr)
			}
			infos, err := r.ReadDir(t.Context(), p, o)
			wantInfos, wantErr := l.ReadDir(t.Context(), p, o)
			if !sameAll(infos, wantInfos) || !sameError(err, wantErr) {
				t.Errorf("list %.80q: %v, %v; want %v, %v", name, infos, err, wantInfos, wantErr)
			}
		}
		info, err := r.Lstat(t.Context(), p)
		wantInfo, wantErr := l.Lstat(t.Context(), p)
		if !same(info, wantInfo) || !sameError(err, wantErr) {
			t.Errorf("lstat %.80q: %+v, %v; want %+v, %v", name, info, err, wantInfo, wantErr)
		}
		to, err := r.Readlink(t.Context(), p)
		wantTo, wantErr := l.Readlink(t.Context(), p)
		if to != wantTo || !sameError(err, wantErr) {
			t.Errorf("readlink %.80q: %q, %v; want %q, %v", name, to, err, wantTo, wantErr)
		}
	}
	if _, _, err := r.Read(t.Context(), "relative", forward.ReadOptions{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a relative path: %v", err)
	}
	if infos, err := r.ReadDir(t.Context(), dir, forward.ReadOptions{MaxEntries: 2}); len(infos) != 2 || !errors.Is(err, forward.ErrTooLarge) {
		t.Errorf("bounded: %d, %v", len(infos), err)
	}
}

func same(a, b forward.Info) bool {
	equal := a.MTime.Equal(b.MTime) && a.CTime.Equal(b.CTime)
	a.MTime, a.CTime, b.MTime, b.CTime = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return equal && reflect.DeepEqual(a, b)
}

func sameAll(a, b []forward.Info) bool {
	if len(a) != len(b) {
		return false
	}
	for n := range a {
		if !same(a[n], b[n]) {
			return false
		}
	}
	return true
}

func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	for _, is := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid, forward.ErrTooLarge, forward.ErrNotRegular} {
		if errors.Is(a, is) != errors.Is(b, is) {
			return false
		}
	}
	return a.Error() == b.Error() || len(b.Error()) > 2000 // it is cut
}

func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for n := range 300 {
		p := fmt.Sprintf("%s/f%d", dir, n)
		must(t, os.WriteFile(p, bytes.Repeat([]byte{byte(n)}, n*100), 0o644))
		paths = append(paths, p, p+".none")
	}
	r := remote(t)
	var all sync.WaitGroup
	for n := range 300 {
		all.Go(func() {
			text, _, err := r.Read(t.Context(), paths[2*n], forward.ReadOptions{})
			if err != nil || !bytes.Equal(text, bytes.Repeat([]byte{byte(n)}, n*100)) {
				t.Errorf("%s: %d octets, %v", paths[2*n], len(text), err)
			}
		})
		all.Go(func() { // one that is given up
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			r.Read(ctx, paths[2*n], forward.ReadOptions{})
		})
	}
	infos, err := r.LstatAll(t.Context(), paths)
	must(t, err)
	for n, info := range infos {
		if (info.Name == "") != (n%2 == 1) {
			t.Fatalf("%s: %+v", paths[n], info)
		}
	}
	all.Wait()
}

// The helper may be started anew at any time.
func TestRemoteReconnects(t *testing.T) {
	socket, dir := socketIn(t), t.TempDir()
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	h := serve(t, socket, watchhelper.Options{})
	r := files.Dial(socket)
	defer r.Close()
	for range 3 {
		if text, _, err := r.Read(t.Context(), dir+"/f", forward.ReadOptions{}); string(text) != "x" || err != nil {
			t.Fatalf("%q, %v", text, err)
		}
		h.stop()
		h = serve(t, socket, watchhelper.Options{})
	}
	h.stop()
	os.Remove(socket)
	if _, _, err := r.Read(t.Context(), dir+"/f", forward.ReadOptions{}); !errors.Is(err, files.ErrUnreachable) {
		t.Errorf("without a helper: %v", err)
	}
}

// Who asks is the kernel's word.
func TestOtherAccountsAreRefused(t *testing.T) {
	needRoot(t)
	h := serve(t, socketIn(t), watchhelper.Options{AllowedUID: 5001})
	for uid, may := range map[int]bool{0: true, 5001: true, 5002: false} {
		conn := connectAs(t, h.socket, uid)
		q := wire.Request{ID: 7, Verb: wire.Lstat, Paths: []string{"/"}}
		conn.Write(q.Append(nil))
		var buf []byte
		b, err := wire.ReadFrame(conn, &buf)
		if (err == nil) != may {
			t.Errorf("uid %d: %q, %v", uid, b, err)
		}
		conn.Close()
	}
	if !strings.Contains(h.log.String(), "uid 5002 may not") {
		t.Errorf("log: %s", h.log)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatal("this test needs root, and RELAYGUARD_REQUIRE or CI is set")
	}
	t.Skip("needs root: other accounts")
}

// connectAs connects with another effective uid, of this thread alone.
func connectAs(t *testing.T, socket string, uid int) net.Conn {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	keep := ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		t.Fatal(errno)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); errno != 0 {
		t.Fatal(errno)
	}
	must(t, err)
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	conn, err := net.FileConn(f)
	must(t, err)
	return conn
}

// A client gone wrong costs its own connection.
func TestNonsenseEndsTheConnection(t *testing.T) {
	h := serve(t, socketIn(t), watchhelper.Options{})
	set := wire.Request{ID: 1, Verb: wire.Watch}
	lstat := wire.Request{ID: 2, Verb: wire.Lstat, Paths: []string{"/"}}
	for name, said := range map[string][]byte{
		"huge frame":           {255, 255, 255, 255},
		"no request":           {0, 0, 0, 3, 1, 99, 0},
		"a request on a watch": lstat.Append(set.Append(nil)),
	} {
		conn, err := net.Dial("unix", h.socket)
		must(t, err)
		conn.Write(said)
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
	r := files.Dial(h.socket)
	defer r.Close()
	if _, err := r.Lstat(t.Context(), "/"); err != nil {
		t.Error(err)
	}
}

func TestServeEndsWhenIdle(t *testing.T) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketIn(t)})
	must(t, err, watchhelper.Serve(t.Context(), ln, watchhelper.Options{Idle: time.Millisecond}))
}

// heard collects changes.
type heard struct {
	t   *testing.T
	all chan forward.Change
}

// until waits for a change of a path, or "" for a loss.
func (h heard) until(path string) forward.Change {
	h.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case c := <-h.all:
			if c.Path == path && c.Lost == (path == "") {
				return c
			}
		case <-deadline:
			h.t.Fatalf("not told: %q", path)
		}
	}
}

func TestChangesOverTheSocket(t *testing.T) {
	socket, dir := socketIn(t), t.TempDir()
	h := serve(t, socket, watchhelper.Options{})
	r := files.Dial(socket)
	defer r.Close()
	problems := make(chan error, 100)
	r.Problem = func(err error) { problems <- err }
	var paths []string
	for n := range 30_000 { // several frames
		paths = append(paths, fmt.Sprintf("%s/home/user%05d/.forward", dir, n))
	}
	must(t, r.Watch(paths))
	ctx, cancel := context.WithCancel(t.Context())
	hear := heard{t, make(chan forward.Change, 1000)}
	done := make(chan error, 1)
	go func() {
		done <- r.Run(ctx, func(c forward.Change) { hear.all <- c })
	}()
	hear.until("") // the set was not in force when Watch returned
	if r.Method() == "" {
		t.Error("no method is known")
	}
	must(t, os.MkdirAll(filepath.Dir(paths[29_999]), 0o755), os.WriteFile(paths[29_999], []byte("x"), 0o644))
	c := hear.until(paths[29_999])
	if c.Writer.Known() && c.Writer.PID != os.Getpid() {
		t.Errorf("%+v", c)
	}
	must(t, r.Watch([]string{dir + "/other"}), os.WriteFile(dir+"/other", nil, 0o644))
	hear.until(dir + "/other") // in force at once

	h.stop()
	<-problems
	must(t, os.WriteFile(dir+"/other", []byte("while the helper was down"), 0o644))
	if r.Method() != "" {
		t.Error("a method without a helper")
	}
	must(t, r.Watch([]string{dir + "/other", dir + "/third"}))
	serve(t, socket, watchhelper.Options{})
	hear.until("")
	must(t, os.WriteFile(dir+"/third", nil, 0o644))
	hear.until(dir + "/third")
	cancel()
	must(t, <-done)
}

func BenchmarkLstatAll(b *testing.B) {
	dir := b.TempDir()
	var paths []string
	for n := range 50_000 {
		p := fmt.Sprintf("%s/user%05d", dir, n)
		if n%5 == 0 {
			must(b, os.WriteFile(p, nil, 0o644))
		}
		paths = append(paths, p)
	}
	r := remote(b)
	for b.Loop() {
		if _, err := r.LstatAll(b.Context(), paths); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	p := b.TempDir() + "/f"
	must(b, os.WriteFile(p, []byte("x@evil.test"), 0o644))
	r := remote(b)
	as := &forward.Account{UID: 5001, GID: 5001}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := r.Read(b.Context(), p, forward.ReadOptions{As: as}); err != nil && !errors.Is(err, fs.ErrPermission) {
				b.Fatal(err)
			}
		}
	})
}

// watcher is what the daemon needs; it does not care whether the helper is
// between.
type watcher interface {
	Watch(paths []string) error
	Run(ctx context.Context, fn func(forward.Change)) error
	Method() string
	Blind() []string
}

var (
	_ watcher = (*watch.Watcher)(nil)
	_ watcher = (*files.Remote)(nil)
)
