package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// reloadWait is how long Sendmail may take to read its settings again: some
// 100 ms, or a minute more where the machine's name has no domain.
const reloadWait = 2 * time.Minute

// daemonProcess is Sendmail's daemon as it runs.
type daemonProcess struct {
	pid     int
	pidFile string
	command string // with which it was started
}

// daemon finds the running daemon by its pid file; nil: it does not run. One that
// was started without its path cannot read its settings again: SIGHUP ends it.
func (i *Instance) daemon() (*daemonProcess, error) {
	path := i.main.Expand(i.Option("PidFile"))
	if path == "" {
		path = "/var/run/sendmail.pid"
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find Sendmail's daemon: %w", err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 2 {
		return nil, fmt.Errorf("find Sendmail's daemon: %s says %.40q", path, first)
	}
	d := &daemonProcess{pid, path, firstLine(rest)}
	if !d.runs() {
		return nil, nil // it ended; the number may be another's now
	}
	if !strings.HasPrefix(d.command, "/") {
		return nil, fmt.Errorf("Sendmail's daemon was started as %.80q, without its path: it would end instead of reading its settings again; start it anew by its full path", d.command)
	}
	return d, nil
}

func (d *daemonProcess) runs() bool {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.pid))
	return err == nil && strings.HasPrefix(filepath.Base(program), "sendmail")
}

// reload has the daemon execute itself anew, and returns when it listens again.
// Sessions that are under way go on with the old settings.
//
// Trap: until Sendmail has come so far as to handle SIGHUP, the signal ends it.
func (d *daemonProcess) reload(ctx context.Context) error {
	before, err := os.Stat(d.pidFile)
	if err == nil {
		err = d.await(ctx, d.handlesHUP)
	}
	if err == nil {
		err = syscall.Kill(d.pid, syscall.SIGHUP)
	}
	if err == nil {
		err = d.await(ctx, func() bool {
			now, err := os.Stat(d.pidFile) // written again when all ports are open
			return err == nil && now.Size() > 0 && !now.ModTime().Equal(before.ModTime()) && d.handlesHUP()
		})
	}
	if err != nil {
		return fmt.Errorf("have Sendmail (process %d) read its settings again: %w", d.pid, err)
	}
	return nil
}

func (d *daemonProcess) await(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, reloadWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if !d.runs() {
			return fmt.Errorf("it has ended; its log says why, and %q starts it", d.command)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// handlesHUP reports that the process has a handler for SIGHUP: proc(5), SigCgt.
func (d *daemonProcess) handlesHUP() bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if mask, found := strings.CutPrefix(line, "SigCgt:"); found {
			caught, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && caught&(1<<(syscall.SIGHUP-1)) != 0
		}
	}
	return false
}
