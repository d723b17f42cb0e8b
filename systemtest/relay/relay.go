// Package relay sets a whole relay up: a private Postfix with AUTH and a real
// relayguard daemon on its milter sockets. Tests, the demo and the benchmark
// stand on it. Everything is under one directory, on loopback, and ends with
// Stop.
package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"relayguard/mta/postfix/postfixtest"
)

// Options describe the relay. The zero value is a Postfix with the services of
// Services and a guard in the phase enforce.
type Options struct {
	Binary  string // of relayguard; required
	Phase   string // "" = enforce
	Config  string // further TOML, after the sections that Start writes
	HideUID bool   // Postfix does not tell the uid behind sendmail(1)
	UID     int    // the guard's account, in the group postfix; 0 = root
	// ShippedLimits are in force where Config has none; else none is in reach.
	ShippedLimits bool
	NoHelper      bool // the root helper is not started

	Postfix postfixtest.Options // Services and Local are filled in where empty
}

// Names of the services that Start makes, each with the guard's listener of
// the same role.
const (
	Submission = "submission" // AUTH
	Relaying   = "relay"      // takes XCLIENT, offers AUTH and client certificates
	Inbound    = "inbound"    // takes XCLIENT
)

// Relay is a running Postfix with a guard.
type Relay struct {
	*postfixtest.Postfix
	ConfigPath string
	options    Options
	guard      *child
	helper     *child
}

// Start brings both up and returns when both serve.
func Start(ctx context.Context, o Options) (*Relay, error) {
	if o.Phase == "" {
		o.Phase = "enforce"
	}
	if o.Postfix.Services == nil {
		o.Postfix.Services = Services()
	}
	if o.Postfix.Local.Milters == nil {
		o.Postfix.Local = postfixtest.Local{Milters: []string{postfixtest.MilterName("local.sock")}, ShowUID: !o.HideUID}
		if !o.HideUID {
			o.Postfix.Local.DaemonName = "LOCAL-PICKUP"
		}
	}
	p, err := postfixtest.Start(ctx, o.Postfix)
	if err != nil {
		return nil, err
	}
	r := &Relay{Postfix: p, options: o, ConfigPath: filepath.Join(p.Dir, "relayguard.toml")}
	err = os.Mkdir(r.StateDir(), 0o750)
	if err == nil {
		err = os.Mkdir(filepath.Dir(r.CallSocket()), 0o755)
	}
	if err == nil {
		err = r.WriteConfig(o.Phase, o.Config)
	}
	if err == nil && !o.NoHelper {
		err = r.StartHelper(ctx)
	}
	if err == nil {
		err = r.StartGuard(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// Services are those that Start makes unless it is given others.
func Services() []postfixtest.Service {
	// Postfix lets everybody relay here, so that what stops a stranger is the
	// guard.
	open := map[string]string{"smtpd_relay_restrictions": "check_client_access static:permit, reject"}
	return []postfixtest.Service{
		{Name: Submission, Milters: []string{postfixtest.MilterName("submission.sock")}, Auth: true, TLS: true, XClient: true, DaemonName: "ORIGINATING", Options: open},
		{Name: Relaying, Milters: []string{postfixtest.MilterName("relay.sock")}, Auth: true, TLS: true, AskClientCert: true, XClient: true, Options: open},
		{Name: Inbound, Milters: []string{postfixtest.MilterName("inbound.sock")}, XClient: true},
	}
}

// WriteConfig writes the guard's configuration; a running guard takes it with
// SIGHUP.
func (r *Relay) WriteConfig(phase, more string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "phase = %q\n\n[mta]\nconfig_directory = %q\nlog = %q\nqueue_helper = %q\nqueue_state = %q\n\n[log]\nformat = \"json\"\n", phase, r.ConfigDir, r.LogPath(), r.helperSocket(), r.queueState())
	fmt.Fprintf(&b, "\n[journal]\ndirectory = %q\n\n[control]\nsocket = %q\n", r.JournalDir(), filepath.Join(r.StateDir(), "control.sock"))
	if !strings.Contains(more, "[origin]") {
		fmt.Fprintf(&b, "\n[origin]\ncall_socket = %q\n", r.CallSocket())
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
	if !strings.Contains(more, "[[limit]]") && !r.options.ShippedLimits {
		for _, per := range []string{"login", "local_user", "shared_user", "machine"} { // asked, and far away
			fmt.Fprintf(&b, "\n[[limit]]\nname = \"far-%s\"\nper = %q\nwindows = [\"900000000/1h\"]\n", strings.ReplaceAll(per, "_", "-"), per)
		}
	}
	for _, role := range []string{"submission", "local", "relay", "inbound"} {
		fmt.Fprintf(&b, "\n[[listener]]\nname = %q\nrole = %q\naddress = %q\n", role, role, "unix:"+filepath.Join(r.MilterDir(), role+".sock"))
	}
	b.WriteString("\n" + more)
	if err := os.WriteFile(r.ConfigPath, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the guard's configuration: %w", err)
	}
	return nil
}

// StateDir holds what the guard keeps, JournalDir its journal.
func (r *Relay) StateDir() string   { return filepath.Join(r.Dir, "state") }
func (r *Relay) JournalDir() string { return filepath.Join(r.StateDir(), "journal") }

// CallSocket is where the sendmail wrapper asks the guard; every account may.
func (r *Relay) CallSocket() string { return filepath.Join(r.Dir, "call", "socket") }

func (r *Relay) helperSocket() string { return filepath.Join(r.Dir, "queue.sock") }
func (r *Relay) queueState() string   { return filepath.Join(r.Dir, "queue-state") }

// Relayguard runs a command of relayguard with the relay's configuration, as an admin would.
func (r *Relay) Relayguard(ctx context.Context, args ...string) (CommandResult, error) {
	cmd := exec.CommandContext(ctx, r.options.Binary, append(args, "--config", r.ConfigPath)...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
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

// CommandResult is what a command said.
type CommandResult struct {
	Stdout, Stderr string
	ExitCode       int
}

// GuardLog is the path of the guard's log.
func (r *Relay) GuardLog() string { return filepath.Join(r.Dir, "relayguard.log") }

// StartGuard starts the daemon and waits until it serves.
func (r *Relay) StartGuard(ctx context.Context) error {
	mark := len(r.lines())
	var err error
	if r.options.UID != 0 {
		err = r.giveRights()
	}
	if err == nil {
		r.guard, err = startChild(r.GuardLog(), r.options.UID, r.gid(), r.options.Binary, "serve", "--config", r.ConfigPath)
	}
	if err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	_, err = r.waitLine(ctx, mark, func(l Line) bool { return l.Msg == "serving" })
	if err != nil {
		return errors.Join(fmt.Errorf("start the guard: %w; its log ends:\n%s", err, r.logEnd()), r.StopGuard(syscall.SIGKILL))
	}
	return nil
}

// HelperLog is the path of the root helper's log.
func (r *Relay) HelperLog() string { return filepath.Join(r.Dir, "queue-helper.log") }

// StartHelper starts the root helper and waits until it serves.
func (r *Relay) StartHelper(ctx context.Context) error {
	var err error
	r.helper, err = startChild(r.HelperLog(), 0, 0, r.options.Binary, "queue-helper", "--config", r.ConfigPath, "--socket", r.helperSocket(), "--uid", fmt.Sprint(r.options.UID))
	if err != nil {
		return fmt.Errorf("start the root helper: %w", err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("unix", r.helperSocket()); err == nil {
			// The guard's group is the test's invention; its uid is looked at.
			return errors.Join(c.Close(), os.Chmod(r.helperSocket(), 0o666))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start the root helper: %w", ctx.Err())
		case <-r.helper.exited:
			said, _ := os.ReadFile(r.HelperLog())
			return fmt.Errorf("start the root helper: it ended at once: %s", said)
		case <-tick.C:
		}
	}
}

// StopHelper ends the root helper with a signal.
func (r *Relay) StopHelper(s os.Signal) error { return r.helper.stop("root helper", s) }

// giveRights lets the guard run as the packages do: as an account of its own
// whose group is Postfix's, with the socket directory and the state its own.
func (r *Relay) giveRights() error {
	for _, dir := range []string{r.MilterDir(), r.StateDir(), filepath.Dir(r.CallSocket())} {
		if err := os.Chown(dir, r.options.UID, r.gid()); err != nil {
			return err
		}
	}
	return nil
}

// gid is the group of the milter sockets: Postfix's.
func (r *Relay) gid() int {
	if r.options.UID == 0 {
		return 0
	}
	info, err := os.Stat(r.MilterDir())
	if err != nil {
		return 0
	}
	return int(info.Sys().(*syscall.Stat_t).Gid)
}

// Signal sends the guard a signal.
func (r *Relay) Signal(s os.Signal) error { return r.guard.cmd.Process.Signal(s) }

// GuardPID is the daemon's process id.
func (r *Relay) GuardPID() int { return r.guard.cmd.Process.Pid }

// StopGuard ends the daemon with a signal and waits for its end.
func (r *Relay) StopGuard(s os.Signal) error { return r.guard.stop("guard", s) }

// GuardExit waits for the daemon's end, which somebody else must have caused,
// and returns its exit status; -1 if a signal ended it.
func (r *Relay) GuardExit(ctx context.Context) (int, error) {
	select {
	case <-r.guard.exited:
		return r.guard.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the guard's end: %w", ctx.Err())
	}
}

// Reload writes another configuration, sends SIGHUP and waits until the guard
// has taken it.
func (r *Relay) Reload(ctx context.Context, phase, more string) error {
	if err := r.WriteConfig(phase, more); err != nil {
		return err
	}
	mark := r.Mark()
	if err := r.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload the guard: %w", err)
	}
	l, err := r.waitLine(ctx, mark, func(l Line) bool { return strings.HasPrefix(l.Msg, "configuration ") })
	if err == nil && l.Msg != "configuration reloaded" {
		err = fmt.Errorf("reload the guard: %s", l.Raw)
	}
	return err
}

// Broken lists the lines of the guard's log that no run may have: a data race,
// a panic, a frame of the MTA that was taken for malformed.
func (r *Relay) Broken() []string {
	var bad []string
	for _, l := range r.lines() {
		if l.Msg == "not JSON" && (strings.Contains(l.Raw, "DATA RACE") || strings.HasPrefix(l.Raw, "panic:") || strings.HasPrefix(l.Raw, "fatal error:")) ||
			l.Panics > 0 || l.Malformed > 0 || strings.HasPrefix(l.Msg, "panic") {
			bad = append(bad, l.Raw)
		}
	}
	return bad
}

// Stop ends everything.
func (r *Relay) Stop() error {
	return errors.Join(r.StopGuard(syscall.SIGTERM), r.StopHelper(syscall.SIGTERM), r.Postfix.Stop())
}

// Line is one line of the guard's log.
type Line struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Msg        string    `json:"msg"`
	ID         string    `json:"id"`
	Verdict    string    `json:"verdict"`
	Stage      string    `json:"stage"`
	Account    string    `json:"account"`
	Confidence string    `json:"confidence"`
	Role       string    `json:"role"`
	Listener   string    `json:"listener"`
	QueueID    string    `json:"queue_id"`
	Client     string    `json:"client"`
	MailFrom   string    `json:"mail_from"`
	From       string    `json:"from"`
	MessageID  string    `json:"message_id"`
	Recipients int       `json:"recipients"`
	Size       int64     `json:"size"`
	Rule       string    `json:"rule"`
	Reason     string    `json:"reason"`
	Network    string    `json:"network"`
	LoginBy    string    `json:"login_by"`
	Problem    string    `json:"problem"`
	Panics     int       `json:"panics"`
	Malformed  int       `json:"malformed"`
	Error      string    `json:"error"`

	Raw string `json:"-"`
}

// lines reads the guard's log as far as it is complete.
func (r *Relay) lines() []Line {
	text, err := os.ReadFile(r.GuardLog())
	if err != nil {
		return nil
	}
	var all []Line
	for _, raw := range strings.SplitAfter(string(text), "\n") {
		if !strings.HasSuffix(raw, "\n") {
			break // not complete yet
		}
		l := Line{Raw: strings.TrimSuffix(raw, "\n")}
		if err := json.Unmarshal([]byte(raw), &l); err != nil {
			l = Line{Msg: "not JSON", Raw: l.Raw}
		}
		all = append(all, l)
	}
	return all
}

func (r *Relay) logEnd() string {
	all := r.lines()
	var b strings.Builder
	for _, l := range all[max(0, len(all)-20):] {
		b.WriteString(l.Raw + "\n")
	}
	return b.String()
}

// Mark is where the guard's log ends now.
func (r *Relay) Mark() int { return len(r.lines()) }

// Lines are those of the guard's log since a mark.
func (r *Relay) Lines(mark int) []Line { return r.lines()[mark:] }

// Verdicts are the guard's verdicts since a mark.
func (r *Relay) Verdicts(mark int) []Line {
	var verdicts []Line
	for _, l := range r.lines()[mark:] {
		if l.Msg == "verdict" {
			verdicts = append(verdicts, l)
		}
	}
	return verdicts
}

// WaitVerdict returns the first verdict since the mark that matches.
func (r *Relay) WaitVerdict(ctx context.Context, mark int, match func(Line) bool) (Line, error) {
	return r.waitLine(ctx, mark, func(l Line) bool { return l.Msg == "verdict" && match(l) })
}

// WaitLine returns the first line since the mark with that message.
func (r *Relay) WaitLine(ctx context.Context, mark int, msg string) (Line, error) {
	return r.waitLine(ctx, mark, func(l Line) bool { return l.Msg == msg })
}

// WaitProblem returns the first line since the mark that names a problem of the
// configuration with that text in it.
func (r *Relay) WaitProblem(ctx context.Context, mark int, text string) (Line, error) {
	return r.waitLine(ctx, mark, func(l Line) bool { return strings.Contains(l.Problem, text) })
}

func (r *Relay) waitLine(ctx context.Context, mark int, match func(Line) bool) (Line, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, l := range r.lines()[mark:] {
			if match(l) {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return Line{}, fmt.Errorf("wait for a line of the guard's log: %w", ctx.Err())
		case <-r.guard.exited:
			return Line{}, errors.New("the guard has ended")
		case <-tick.C:
		}
	}
}

// LogLines are the lines of the guard's log with that message.
func (r *Relay) LogLines(msg string) []Line {
	return slices.DeleteFunc(r.lines(), func(l Line) bool { return l.Msg != msg })
}
