package sendmailtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"relayguard/mta/servertest"
)

// daemon is the MTA in the foreground.
type daemon struct {
	cmd    *exec.Cmd
	pid    int
	out    string // file with what it wrote to stdout and stderr
	ended  chan struct{}
	minder *servertest.Minder
}

// startDaemon starts the command inside. Whatever becomes of this program, the
// daemon ends with it.
func (s *Sendmail) startDaemon(cmd *exec.Cmd) (*daemon, error) {
	outputFile := filepath.Join(s.Dir, "output")
	out, err := os.Create(outputFile)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.StartCommand(cmd); err != nil {
		return nil, err
	}
	d := &daemon{cmd: cmd, pid: cmd.Process.Pid, out: outputFile, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the exit status of a server that was told to stop says nothing
		close(d.ended)
	}()
	if d.minder, err = servertest.StartMinder(d.pid); err != nil {
		_ = cmd.Process.Kill() // that it has ended already is as good
		<-d.ended
		return nil, err
	}
	return d, nil
}

// waitUntil polls until ready says so, the daemon ended, the limit or ctx is
// over.
func (d *daemon) waitUntil(ctx context.Context, limit time.Duration, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-d.ended:
			return fmt.Errorf("the daemon ended: %v", d.cmd.ProcessState)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// output is what it wrote to stdout and stderr, for an error.
func (d *daemon) output() string {
	out, _ := os.ReadFile(d.out)
	return string(out)
}

// signal sends the daemon a signal if it is still there.
func (d *daemon) signal(sig os.Signal) {
	select {
	case <-d.ended:
	default:
		// Only while it is not reaped is the pid surely still its own.
		_ = d.cmd.Process.Signal(sig)
	}
}

// members lists the processes of Sendmail inside. They cannot be known by
// session or parent: what delivers in the background leaves both.
func (s *Sendmail) members() []int {
	if s.space == nil {
		return nil
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	if err != nil {
		return nil // only a malformed pattern does that
	}
	var members []int
	for _, link := range links {
		if id, err := os.Readlink(link); err != nil || id != s.space.id {
			continue // somebody else's, or ended meanwhile
		}
		dir := filepath.Dir(filepath.Dir(link))
		program, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || program != s.Tool("sendmail") {
			continue // a zombie, or none of Sendmail's
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			members = append(members, pid)
		}
	}
	slices.Sort(members)
	return members
}

// endGrace is how long processes get to end by themselves.
const endGrace = 5 * time.Second

// endAll ends the daemon and all of Sendmail's processes inside: with the
// signal first, then without asking. It returns when none is left.
func (s *Sendmail) endAll(sig os.Signal) error {
	if s.mta != nil {
		s.mta.signal(sig)
	}
	deadline := time.Now().Add(endGrace)
	for {
		left := s.members()
		if len(left) == 0 {
			break
		}
		if sig == syscall.SIGKILL || time.Now().After(deadline) {
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
			}
		}
		if time.Now().After(deadline.Add(endGrace)) {
			return fmt.Errorf("stop Sendmail: processes %v are still there", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if s.mta != nil {
		<-s.mta.ended
		s.mta.minder.Dismiss()
		s.mta = nil
	}
	return nil
}
