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

	"relayguard/mta"
)

// reloadWait is how long Sendmail may take to read its settings again: some
// 100 ms, or a minute more where the machine's name has no domain. One that goes into
// the background anew (-bd, as Debian starts it) ends, and its child writes the pid
// file when all ports are open, for which it tries up to ten times five seconds.
const (
	reloadWait = 2 * time.Minute
	childWait  = time.Minute
)

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
	d, err := daemonOf(path)
	for end := time.Now().Add(restartWait); errors.Is(err, errBeingWritten) && time.Now().Before(end); d, err = daemonOf(path) {
		time.Sleep(10 * time.Millisecond)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find Sendmail's daemon: %w", err)
	}
	if !d.runs() {
		return nil, nil // it ended; the number may be another's now
	}
	if !strings.HasPrefix(d.command, "/") {
		return nil, fmt.Errorf("Sendmail's daemon was started as %.80q, without its path: it would end instead of reading its settings again; start it anew by its full path", d.command)
	}
	return d, nil
}

// errBeingWritten says that the daemon is starting this very moment.
var errBeingWritten = errors.New("nobody has written all of it yet")

// maxPIDFile has room for a number and a command line.
const maxPIDFile = 4 << 10

// daemonOf reads a pid file. Its directory may be another account's.
func daemonOf(path string) (*daemonProcess, error) {
	text, err := readFile(path, maxPIDFile)
	if err != nil {
		return nil, err
	}
	first, rest, whole := strings.Cut(string(text), "\n")
	if !whole {
		return nil, fmt.Errorf("%s says %.40q: %w", path, first, errBeingWritten)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 2 {
		return nil, fmt.Errorf("%s says %.40q", path, first)
	}
	return &daemonProcess{pid, path, firstLine(rest)}, nil
}

// follow makes d the process that the pid file names now, if that runs.
func (d *daemonProcess) follow() bool {
	now, err := daemonOf(d.pidFile)
	if err != nil || !now.runs() {
		return false
	}
	d.pid = now.pid
	return true
}

// comesBack reports whether it runs, by whatever number, also after a moment in which
// it goes into the background.
func (d *daemonProcess) comesBack(ctx context.Context) bool {
	there := func() bool { return d.runs() || d.follow() }
	if !d.background() {
		return there()
	}
	return mta.Await(ctx, childWait, there) == nil
}

// background reports a daemon that has another pid whenever it starts anew.
func (d *daemonProcess) background() bool { return strings.Contains(d.command+" ", " -bd ") }

func (d *daemonProcess) runs() bool {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.pid))
	return err == nil && strings.HasPrefix(filepath.Base(program), "sendmail")
}

// reload has the daemon execute itself anew, and returns when it listens again. It
// may have another pid then. Sessions that are under way go on with the old settings.
//
// Trap: until Sendmail has come so far as to handle SIGHUP, the signal ends it.
func (d *daemonProcess) reload(ctx context.Context) error {
	before, err := os.Stat(d.pidFile)
	if err == nil {
		err = d.await(ctx, 0, d.handlesHUP)
	}
	if err == nil {
		err = syscall.Kill(d.pid, syscall.SIGHUP)
	}
	if err == nil {
		var gone time.Duration
		if d.background() {
			gone = childWait
		}
		err = d.await(ctx, gone, func() bool {
			now, err := os.Stat(d.pidFile) // written again when all ports are open
			return err == nil && !now.ModTime().Equal(before.ModTime()) && d.follow() && d.handlesHUP()
		})
	}
	if err != nil {
		return fmt.Errorf("have Sendmail (process %d) read its settings again: %w", d.pid, err)
	}
	return nil
}

// await waits until it is done. The process may be gone for so long before that.
func (d *daemonProcess) await(ctx context.Context, gone time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, reloadWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ran := time.Now()
	for !done() {
		if d.runs() {
			ran = time.Now()
		} else if time.Since(ran) >= gone {
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
func (d *daemonProcess) handlesHUP() bool { return handlesHUP(d.pid) }

func handlesHUP(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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
