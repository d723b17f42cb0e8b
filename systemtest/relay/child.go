package relay

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// child is a process of the relay, with its output in a file.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// startChild starts relayguard; it ends at the latest when this process does.
func (g *Guard) startChild(log string, uid, gid int, args ...string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c := &child{cmd: exec.Command(g.options.Binary, args...), exited: make(chan struct{})}
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = g.house.env, out, out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if uid != 0 {
		c.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	started := make(chan error)
	go func() {
		// Pdeathsig goes by the thread that started the process: it must not end
		// before the process does. So it is with that of the house.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := g.start(c.cmd)
		started <- err
		if err == nil {
			c.cmd.Wait() // its log says why
			close(c.exited)
		}
	}()
	return c, <-started
}

// stop ends the process with a signal and waits for its end.
func (c *child) stop(what string, s os.Signal) error {
	if c == nil {
		return nil
	}
	select {
	case <-c.exited:
		return nil
	default:
	}
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the %s: %w", what, err)
	}
	select {
	case <-c.exited:
		return nil
	case <-time.After(time.Minute):
		c.cmd.Process.Kill()
		<-c.exited
		return fmt.Errorf("the %s did not end within a minute of %v", what, s)
	}
}
