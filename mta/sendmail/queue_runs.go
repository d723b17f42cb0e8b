package sendmail

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Runs starts the queue runs that releases need, and bounds them. Safe for
// concurrent use.
//
// Up to a hundred messages are named to one sendmail(8) (-qI), which delivers them
// one after the other and does not look at the rest; further ones are left to one
// run over the whole queue, as Sendmail's daemon does one every few minutes. At
// most four of the former and one of the latter are on at a time; what comes
// meanwhile waits for their end, and if we end before, for the daemon's next run.
// Mail that somebody else has locked is passed over.
type Runs struct {
	mu      sync.Mutex
	running map[string]int      // runs by id, by configuration file
	waiting map[string][]string // ids
	all     map[string]bool     // a run over the whole queue is on
	again   map[string]bool     // another one is needed
	proven  bool                // the last run that ended could start
}

// NewRuns makes one.
func NewRuns() *Runs {
	return &Runs{running: map[string]int{}, waiting: map[string][]string{}, all: map[string]bool{}, again: map[string]bool{}}
}

const (
	idsAtOnce   = 100
	runsAtOnce  = 4
	startWithin = 500 * time.Millisecond // a sendmail that cannot start says so earlier
)

// start has messages delivered that are in the queue. An error says that Sendmail
// could not be started.
func (r *Runs) start(i *Instance, ids []string) error {
	key := i.Config
	r.mu.Lock()
	switch {
	case len(ids) == 0:
		r.mu.Unlock()
		return nil
	case len(ids) > idsAtOnce:
		return r.startAll(i)
	case r.running[key] >= runsAtOnce:
		r.waiting[key] = append(r.waiting[key], ids...)
		if len(r.waiting[key]) <= idsAtOnce {
			r.mu.Unlock()
			return nil
		}
		delete(r.waiting, key)
		return r.startAll(i)
	}
	r.running[key]++
	r.mu.Unlock()
	return r.run(i, ids, func() {
		r.mu.Lock()
		r.running[key]--
		next := r.waiting[key]
		delete(r.waiting, key)
		r.mu.Unlock()
		r.start(i, next) // it could be started before; else the daemon's run comes
	})
}

// startAll unlocks r.mu.
func (r *Runs) startAll(i *Instance) error {
	key := i.Config
	if r.all[key] {
		r.again[key] = true
		r.mu.Unlock()
		return nil
	}
	r.all[key] = true
	r.mu.Unlock()
	return r.run(i, nil, func() {
		r.mu.Lock()
		again := r.again[key]
		delete(r.again, key)
		delete(r.all, key)
		if !again {
			r.mu.Unlock()
			return
		}
		r.startAll(i)
	})
}

// run starts a sendmail(8) that runs the queue once, in the foreground (-qf), and
// calls ended when it is over; it is not ours to stop. An error: it could not start.
// Whether it can is waited for unless the last one could.
func (r *Runs) run(i *Instance, ids []string, ended func()) error {
	cmd, said, err := i.queueRun(ids)
	if err != nil {
		r.prove(false)
		ended()
		return fmt.Errorf("start a queue run: %w", err)
	}
	over := make(chan error, 1)
	go func() {
		err := cannotRun(cmd, cmd.Wait(), said)
		said.Close()
		r.prove(err == nil)
		over <- err
		ended()
	}()
	r.mu.Lock()
	proven := r.proven
	r.mu.Unlock()
	if proven {
		return nil
	}
	select {
	case err := <-over:
		return err
	case <-time.After(startWithin):
		return nil
	}
}

func (r *Runs) prove(could bool) {
	r.mu.Lock()
	r.proven = could
	r.mu.Unlock()
}

// queueRun starts it, as a service of its own where we are one: what bounds ours,
// the file system that it may write above all, would keep local mail from its
// mailboxes, and our end would be the run's.
func (i *Instance) queueRun(ids []string) (*exec.Cmd, *os.File, error) {
	args := []string{i.tools.Path("sendmail"), "-Am"}
	if i.Config != "/etc/mail/sendmail.cf" {
		args = []string{args[0], "-C", i.Config}
	}
	args = append(args, "-qf")
	for _, id := range ids {
		args = append(args, "-qI"+id)
	}
	if asService() {
		cmd, said, err := startRun(append(i.serviceRun(), args...))
		if !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, fs.ErrNotExist) {
			return cmd, said, err
		}
	}
	return startRun(args)
}

// asService tells whether systemd started us, and is there (sd_booted(3)).
func asService() bool {
	info, err := os.Lstat("/run/systemd/system")
	return os.Getenv("INVOCATION_ID") != "" && err == nil && info.IsDir()
}

// serviceRun is what stands before a command that runs as a service of its own.
// Type=oneshot: systemd-run ends when the command has, with 1 if it could not run.
// (Its --wait does the same, but needs D-Bus.) What a mailer left running goes on.
func (i *Instance) serviceRun() []string {
	const signals = 128 // and above them systemd's own
	var fine []string
	for status := range signals {
		if !slices.Contains(couldNot, status) {
			fine = append(fine, strconv.Itoa(status))
		}
	}
	return []string{i.tools.Path("systemd-run"), "--quiet", "--collect", "--no-ask-password", "--description=Sendmail queue run for relayguard",
		"--property=Type=oneshot", "--property=KillMode=process", "--property=SuccessExitStatus=" + strings.Join(fine, " "), "--setenv=LC_ALL=C", "--"}
}

func startRun(args []string) (*exec.Cmd, *os.File, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives us
	said, err := scratch()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		said.Close()
		return nil, nil, err
	}
	return cmd, said, nil
}

// scratch is a file without a name: a pipe would end a run that outlives us.
func scratch() (*os.File, error) {
	fd, err := unix.MemfdCreate("sendmail", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "memfd:sendmail"), nil
}

// couldNot are the exit statuses of a sendmail(8) that tried nothing (sysexits.h):
// wrong arguments, software, system, system file, cannot create, no permission,
// configuration.
var couldNot = []int{64, 70, 71, 72, 73, 77, 78}

// cannotRun tells an end that says that nothing was tried from others: a run over
// mail that could not be delivered ends with EX_TEMPFAIL and the like.
func cannotRun(cmd *exec.Cmd, err error, said *os.File) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	ofSystemd := exit.ExitCode() == 1 && filepath.Base(cmd.Path) == "systemd-run"
	if !ofSystemd && !slices.Contains(couldNot, exit.ExitCode()) {
		return nil
	}
	text := make([]byte, 2<<10)
	n, _ := said.ReadAt(text, 0)
	why := strings.Join(strings.Fields(printable(text[:n])), " ")
	return fmt.Errorf("queue run by %s: %w: %s", cmd.Path, err, cmp.Or(why, "the journal of systemd has what Sendmail said"))
}
