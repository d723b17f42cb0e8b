package forwardtest

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Process is one that ends with the test.
type Process struct {
	PID    int
	exited chan struct{}
	cmd    *exec.Cmd
}

// Start starts a program with its output in a file. It ends with the test by
// SIGTERM, at the latest when this process does.
func Start(t testing.TB, log, name string, args ...string) *Process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := &Process{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	started := make(chan error)
	go func() {
		// Pdeathsig goes by the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait() // its log says why
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p.PID = p.cmd.Process.Pid
	t.Cleanup(func() {
		p.Stop(t, syscall.SIGTERM)
		if said, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s says:\n%s", name, said[max(0, len(said)-3000):])
		}
	})
	return p
}

// Stop ends it with a signal and waits for its end.
func (p *Process) Stop(t testing.TB, s os.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(s) // it may have ended by itself
	select {
	case <-p.exited:
		return
	case <-time.After(30 * time.Second):
	}
	t.Errorf("pid %d (%s) did not end by %v; killed", p.PID, p.cmd.Path, s)
	_ = p.cmd.Process.Kill()
	<-p.exited
}
