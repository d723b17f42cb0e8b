package wordpress_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// process is a server that leads its own process group, with its output in a
// file. It ends at the latest when this program does.
type process struct {
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// startProcess starts the command, as that account.
func startProcess(cmd *exec.Cmd, log string, uid, gid int) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	defer out.Close()
	p := &process{cmd: cmd, log: log, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}
	started := make(chan error)
	go func() {
		// Pdeathsig goes by the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // its log says why
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// waitUntil polls until it is ready, has ended, or ctx is over.
func (p *process) waitUntil(ctx context.Context, ready func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-p.exited:
			return fmt.Errorf("start %s: it ended at once: %s", p.cmd.Path, p.logEnd())
		case <-ctx.Done():
			return fmt.Errorf("start %s: %w: %s", p.cmd.Path, ctx.Err(), p.logEnd())
		case <-tick.C:
		}
	}
	return nil
}

// stop ends the process and its children and waits for its end.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	select {
	case <-p.exited:
	default:
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	defer syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // workers that it left
	select {
	case <-p.exited:
		return nil
	case <-time.After(time.Minute):
		p.cmd.Process.Kill()
		<-p.exited
		return fmt.Errorf("stop %s: it did not end within a minute", p.cmd.Path)
	}
}

// logEnd is the last that it wrote, but for the notes of each request that PHP's
// web server makes.
func (p *process) logEnd() string {
	text, _ := os.ReadFile(p.log)
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	all = slices.DeleteFunc(all, func(line string) bool { return request.MatchString(line) })
	return strings.Join(all[max(0, len(all)-20):], "\n")
}

var request = regexp.MustCompile(`\] [\d.]+:\d+ (Accepted|Closing|Closed without|\[(200|302)\]: )|Development Server .* started$`)
