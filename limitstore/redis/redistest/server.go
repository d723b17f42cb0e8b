package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Redis is one running server. Its methods are for one goroutine.
type Redis struct {
	Addr   string // "127.0.0.1:port"; empty if it has none
	Socket string // path of its Unix socket; empty of a Sentinel
	Dir    string // what it writes, and redis.conf

	t       testing.TB
	program []string
	cmd     *exec.Cmd
	exited  chan struct{}
	log     *output
}

// Server starts a server with an empty memory, which writes nothing to disk
// unless settings ("appendonly yes") say so.
func Server(t testing.TB, settings ...string) *Redis {
	t.Helper()
	return listening(t, func(port int) []string {
		return append([]string{fmt.Sprint("port ", port), "save \"\"", "appendonly no"}, settings...)
	})
}

// listening starts a server on a port that was free a moment ago, and again on
// another one if somebody was quicker.
func listening(t testing.TB, settings func(port int) []string) *Redis {
	t.Helper()
	for range 5 {
		r := prepare(t, "redis-server")
		port := freePort(t)
		r.Addr, r.Socket = fmt.Sprint("127.0.0.1:", port), filepath.Join(r.Dir, "redis.sock")
		r.configure(append(settings(port), "unixsocket "+r.Socket, "unixsocketperm 700"))
		if r.start() {
			return r
		}
	}
	t.Fatal("start redis-server: five ports in a row were taken")
	return nil
}

// prepare makes the directory of a server that runs for the rest of the test.
func prepare(t testing.TB, program string, args ...string) *Redis {
	t.Helper()
	path, err := exec.LookPath(program)
	switch {
	case err == nil:
	case os.Getenv("RELAYGUARD_REQUIRE") == "1":
		t.Fatalf("%v; install redis-server and redis-sentinel", err)
	default:
		t.Skipf("%v; install redis-server and redis-sentinel", err)
	}
	dir, err := os.MkdirTemp("", "redis") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	r := &Redis{Dir: dir, t: t, program: append([]string{path, filepath.Join(dir, "redis.conf")}, args...)}
	t.Cleanup(func() {
		r.Kill()
		os.RemoveAll(dir)
	})
	return r
}

func (r *Redis) configure(settings []string) {
	r.t.Helper()
	settings = append([]string{"bind 127.0.0.1", "daemonize no", "dir " + r.Dir}, settings...)
	if err := os.WriteFile(filepath.Join(r.Dir, "redis.conf"), []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// start waits until the server says that it is ready. It returns false if its
// port is taken.
func (r *Redis) start() bool {
	r.t.Helper()
	r.cmd, r.exited, r.log = exec.Command(r.program[0], r.program[1:]...), make(chan struct{}), &output{}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		r.log.follow(stdout, ready)
		r.cmd.Wait()
		close(r.exited)
	}()
	if <-ready {
		return true
	}
	<-r.exited
	if log := r.log.String(); !strings.Contains(log, "Address already in use") {
		r.t.Fatalf("%s: ended at once:\n%s", r.program[0], log)
	}
	return false
}

// PID is the process.
func (r *Redis) PID() int { return r.cmd.Process.Pid }

// Log is what the server has said.
func (r *Redis) Log() string { return r.log.String() }

// Pause stops the server's process: it accepts connections, and is silent.
func (r *Redis) Pause() { r.signal(syscall.SIGSTOP) }

// Continue ends Pause.
func (r *Redis) Continue() { r.signal(syscall.SIGCONT) }

// Kill ends the server as a crash does. A second Kill is nothing.
func (r *Redis) Kill() {
	if r.cmd == nil || r.cmd.Process == nil {
		return
	}
	r.signal(syscall.SIGKILL)
	<-r.exited
}

// Restart starts a killed server on its old address. What it had only in memory
// is gone.
func (r *Redis) Restart() {
	r.t.Helper()
	r.Kill()
	if !r.start() {
		r.t.Fatalf("restart redis-server: %s was taken meanwhile", r.Addr)
	}
}

func (r *Redis) signal(s syscall.Signal) {
	if err := r.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Errorf("signal %s to redis-server: %v", s, err)
	}
}

// freePort asks the kernel for one.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// output is what a server printed.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// follow reads to the end, and tells once whether the server got ready.
func (o *output) follow(from io.Reader, ready chan<- bool) {
	defer close(ready)
	told := false
	for lines := bufio.NewScanner(from); lines.Scan(); {
		line := lines.Text()
		o.mu.Lock()
		o.text.WriteString(line + "\n")
		o.mu.Unlock()
		if !told && (strings.Contains(line, "eady to accept connections") || strings.Contains(line, "+monitor ")) {
			told = true
			ready <- true
		}
	}
}
