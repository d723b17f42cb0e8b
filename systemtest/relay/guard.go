package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Guard is a real relayguard beside a mail server: its configuration, its daemon
// and its root helper.
type Guard struct {
	ConfigPath string
	options    Options
	house      house
	guard      *child
	helper     *child
}

// house is what a guard must know of its mail server.
type house struct {
	dir       string                // all of it is below
	milterDir string                // where the milter sockets are
	mta       string                // the keys of section mta that tell of it
	env       []string              // of its commands; nil: this program's
	start     func(*exec.Cmd) error // where it lives; nil: here
}

func newGuard(o Options, h house) *Guard {
	return &Guard{ConfigPath: filepath.Join(h.dir, "relayguard.toml"), options: o, house: h}
}

// startAll makes the guard's directories and starts helper and daemon.
func (g *Guard) startAll(ctx context.Context, phase, config string) error {
	err := os.Mkdir(g.StateDir(), 0o750)
	if err == nil {
		err = os.Mkdir(filepath.Dir(g.CallSocket()), 0o755)
	}
	if err == nil {
		err = g.WriteConfig(phase, config)
	}
	if err == nil && !g.options.NoHelper {
		err = g.StartHelper(ctx)
	}
	if err == nil {
		err = g.StartGuard(ctx)
	}
	return err
}

// StartAfresh ends daemon and helper, forgets all that they kept, their logs too,
// and starts them with that configuration beside the same mail server, whose
// queue is the caller's to empty.
func (g *Guard) StartAfresh(ctx context.Context, phase, config string) error {
	err := g.stopAll()
	for _, path := range []string{g.StateDir(), g.queueState(), filepath.Dir(g.CallSocket()), g.GuardLog(), g.HelperLog()} {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return err
	}
	return g.startAll(ctx, phase, config)
}

// stopAll ends daemon and helper.
func (g *Guard) stopAll() error {
	return errors.Join(g.StopGuard(syscall.SIGTERM), g.StopHelper(syscall.SIGTERM))
}

// WriteConfig writes the guard's configuration; a running guard takes it with
// SIGHUP.
func (g *Guard) WriteConfig(phase, more string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "phase = %q\n\n[mta]\n%squeue_helper = %q\nqueue_state = %q\n\n[log]\nformat = \"json\"\n", phase, g.house.mta, g.helperSocket(), g.queueState())
	fmt.Fprintf(&b, "\n[journal]\ndirectory = %q\n\n[control]\nsocket = %q\n", g.JournalDir(), filepath.Join(g.StateDir(), "control.sock"))
	if !strings.Contains(more, "[origin]") {
		fmt.Fprintf(&b, "\n[origin]\ncall_socket = %q\n", g.CallSocket())
	}
	if !strings.Contains(more, "[forward]") {
		b.WriteString("\n[forward]\nwatch = false\n") // it would watch the machine's homes
	}
	if !strings.Contains(more, "[rbl]") {
		b.WriteString("\n[rbl]\nwatch = false\n") // it would ask the Internet
	}
	if !strings.Contains(more, "[report]") {
		b.WriteString("\n[report]\nat = \"\"\n")
	}
	if !strings.Contains(more, "[alert]") {
		b.WriteString("\n[alert]\nsyslog = false\ncommand = \"/bin/true\"\n") // the machine's syslog is not the test's
	}
	if !strings.Contains(more, "[[limit]]") && !g.options.ShippedLimits {
		for _, per := range []string{"login", "local_user", "shared_user", "machine"} { // asked, and far away
			fmt.Fprintf(&b, "\n[[limit]]\nname = \"far-%s\"\nper = %q\nwindows = [\"900000000/1h\"]\n", strings.ReplaceAll(per, "_", "-"), per)
		}
	}
	for _, role := range []string{"submission", "local", "relay", "inbound"} {
		fmt.Fprintf(&b, "\n[[listener]]\nname = %q\nrole = %q\naddress = %q\n", role, role, "unix:"+filepath.Join(g.house.milterDir, role+".sock"))
	}
	b.WriteString("\n" + more)
	if err := os.WriteFile(g.ConfigPath, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the guard's configuration: %w", err)
	}
	return nil
}

// StateDir holds what the guard keeps, JournalDir its journal.
func (g *Guard) StateDir() string   { return filepath.Join(g.house.dir, "state") }
func (g *Guard) JournalDir() string { return filepath.Join(g.StateDir(), "journal") }

// CallSocket is where the sendmail wrapper asks the guard; every account may.
func (g *Guard) CallSocket() string { return filepath.Join(g.house.dir, "call", "socket") }

func (g *Guard) helperSocket() string { return filepath.Join(g.house.dir, "queue.sock") }
func (g *Guard) queueState() string   { return filepath.Join(g.house.dir, "queue-state") }

// Relayguard runs a command of relayguard with this configuration, as an admin would.
func (g *Guard) Relayguard(ctx context.Context, args ...string) (CommandResult, error) {
	cmd := exec.CommandContext(ctx, g.options.Binary, append(args, "--config", g.ConfigPath)...)
	cmd.Env = g.house.env
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := g.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	result := CommandResult{Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	if err != nil {
		return result, fmt.Errorf("relayguard %s: %w", strings.Join(args, " "), err)
	}
	return result, nil
}

// start starts a command where the mail server lives.
func (g *Guard) start(cmd *exec.Cmd) error {
	if g.house.start != nil {
		return g.house.start(cmd)
	}
	return cmd.Start()
}

// CommandResult is what a command said.
type CommandResult struct {
	Stdout, Stderr string
	ExitCode       int
}

// GuardLog is the path of the guard's log.
func (g *Guard) GuardLog() string { return filepath.Join(g.house.dir, "relayguard.log") }

// StartGuard starts the daemon and waits until it serves.
func (g *Guard) StartGuard(ctx context.Context) error {
	mark := len(g.lines())
	var err error
	if g.options.UID != 0 {
		err = g.giveRights()
	}
	if err == nil {
		g.guard, err = g.startChild(g.GuardLog(), g.options.UID, g.gid(), "serve", "--config", g.ConfigPath)
	}
	if err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	_, err = g.waitLine(ctx, mark, func(l Line) bool { return l.Msg == "serving" })
	if err != nil {
		return errors.Join(fmt.Errorf("start the guard: %w; its log ends:\n%s", err, g.LogEnd()), g.StopGuard(syscall.SIGKILL))
	}
	return nil
}

// HelperLog is the path of the root helper's log.
func (g *Guard) HelperLog() string { return filepath.Join(g.house.dir, "queue-helper.log") }

// StartHelper starts the root helper and waits until it serves.
func (g *Guard) StartHelper(ctx context.Context) error {
	var err error
	g.helper, err = g.startChild(g.HelperLog(), 0, 0, "queue-helper", "--config", g.ConfigPath, "--socket", g.helperSocket(), "--uid", fmt.Sprint(g.options.UID))
	if err != nil {
		return fmt.Errorf("start the root helper: %w", err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// It takes connections a moment before it has given the socket its mode.
		if info, err := os.Stat(g.helperSocket()); err == nil && info.Mode().Perm() == 0o660 {
			if c, err := net.Dial("unix", g.helperSocket()); err == nil {
				// The guard's group is the test's invention; its uid is looked at.
				return errors.Join(c.Close(), os.Chmod(g.helperSocket(), 0o666))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start the root helper: %w", ctx.Err())
		case <-g.helper.exited:
			said, _ := os.ReadFile(g.HelperLog())
			return fmt.Errorf("start the root helper: it ended at once: %s", said)
		case <-tick.C:
		}
	}
}

// StopHelper ends the root helper with a signal.
func (g *Guard) StopHelper(s os.Signal) error { return g.helper.stop("root helper", s) }

// giveRights lets the guard run as the packages do: as an account of its own
// whose group is Postfix's, with the socket directory and the state its own.
func (g *Guard) giveRights() error {
	for _, dir := range []string{g.house.milterDir, g.StateDir(), filepath.Dir(g.CallSocket())} {
		if err := os.Chown(dir, g.options.UID, g.gid()); err != nil {
			return err
		}
	}
	return nil
}

// gid is the group of the milter sockets: Postfix's.
func (g *Guard) gid() int {
	if g.options.UID == 0 {
		return 0
	}
	info, err := os.Stat(g.house.milterDir)
	if err != nil {
		return 0
	}
	return int(info.Sys().(*syscall.Stat_t).Gid)
}

// Signal sends the guard a signal.
func (g *Guard) Signal(s os.Signal) error { return g.guard.cmd.Process.Signal(s) }

// GuardPID is the daemon's process id.
func (g *Guard) GuardPID() int { return g.guard.cmd.Process.Pid }

// HelperPID is the root helper's.
func (g *Guard) HelperPID() int { return g.helper.cmd.Process.Pid }

// StopGuard ends the daemon with a signal and waits for its end.
func (g *Guard) StopGuard(s os.Signal) error { return g.guard.stop("guard", s) }

// GuardExit waits for the daemon's end, which somebody else must have caused,
// and returns its exit status; -1 if a signal ended it.
func (g *Guard) GuardExit(ctx context.Context) (int, error) {
	select {
	case <-g.guard.exited:
		return g.guard.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the guard's end: %w", ctx.Err())
	}
}

// Reload writes another configuration, sends SIGHUP and waits until the guard
// has taken it.
func (g *Guard) Reload(ctx context.Context, phase, more string) error {
	if err := g.WriteConfig(phase, more); err != nil {
		return err
	}
	mark := g.Mark()
	if err := g.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload the guard: %w", err)
	}
	l, err := g.waitLine(ctx, mark, func(l Line) bool { return strings.HasPrefix(l.Msg, "configuration ") })
	if err == nil && l.Msg != "configuration reloaded" {
		err = fmt.Errorf("reload the guard: %s", l.Raw)
	}
	return err
}
