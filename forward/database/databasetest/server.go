package databasetest

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startWithin is how long a server may take to answer: it makes its files first.
const startWithin = 90 * time.Second

// server is one that runs in the foreground.
type server struct {
	cmd   *exec.Cmd
	ended chan struct{}
	log   string
}

// directory makes one that the account can use; its path is short enough for a
// Unix socket.
func directory(t testing.TB, account string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rgdb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 && account != "" {
		uid, gid := lookup(t, account)
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func lookup(t testing.TB, account string) (uid, gid uint32) {
	t.Helper()
	u, err := user.Lookup(account)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := strconv.Atoi(u.Uid)
	group, _ := strconv.Atoi(u.Gid)
	return uint32(id), uint32(group)
}

// as makes the command run as that account, if this is root; else as it is.
func as(t testing.TB, cmd *exec.Cmd, account string) *exec.Cmd {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	if os.Geteuid() == 0 && account != "" {
		uid, gid := lookup(t, account)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	return cmd
}

// run runs a program to its end.
func run(t testing.TB, cmd *exec.Cmd, stdin string) string {
	t.Helper()
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// start starts a server and waits until it is ready. It ends with the test.
func start(t testing.TB, cmd *exec.Cmd, logFile string, end syscall.Signal, ready func(context.Context) error) {
	t.Helper()
	out, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr.Pdeathsig = 0 // it would come with the end of the thread that starts it
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	s := &server{cmd: cmd, ended: make(chan struct{}), log: logFile}
	go func() {
		_ = cmd.Wait() // how it ended says nothing
		close(s.ended)
	}()
	t.Cleanup(func() { s.stop(t, end) })
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.ended:
			t.Fatalf("%s ended:\n%s", filepath.Base(cmd.Path), s.output())
		case <-ctx.Done():
			t.Fatalf("%s does not answer: %v\n%s", filepath.Base(cmd.Path), err, s.output())
		}
	}
}

func (s *server) output() string {
	out, _ := os.ReadFile(s.log)
	return string(out[max(0, len(out)-4000):])
}

// stop ends the server and waits for it; what does not end is killed.
func (s *server) stop(t testing.TB, end syscall.Signal) {
	_ = s.cmd.Process.Signal(end) // it may have ended by itself
	select {
	case <-s.ended:
		return
	case <-time.After(20 * time.Second):
	}
	t.Errorf("pid %d (%s) did not end; killed", s.cmd.Process.Pid, s.cmd.Path)
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// Write writes a file that anybody can read, for a test's .cf. It is dated back:
// Postfix waits until a file is older than a second before it believes it.
func Write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	return path
}
