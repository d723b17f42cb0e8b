package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/switches"
	"relayguard/mta"
)

// surroundings are what the daemon needs beside the MTA's settings: its own
// directory, sockets, programs and the MTA's log.
type surroundings struct {
	config   *config.Config
	account  *account // the daemon's; nil: not known, and its rights are not looked at
	queueDir string
	setting  func(name string) string // of the MTA
	hand     queue.Operator           // the root helper; nil: it is not asked, only root may
}

// inspect names what is missing. It opens and connects, and changes nothing.
func (s surroundings) inspect(ctx context.Context) []mta.Finding {
	var all []mta.Finding
	for _, look := range []func(context.Context) *mta.Finding{
		s.daemon, s.helper, s.mtaLog, s.otherLog, s.addressForm, s.journal, s.room, s.alertCommand, s.syslog,
	} {
		if f := look(ctx); f != nil {
			all = append(all, *f)
		}
	}
	return slices.Concat(all, s.groups(), s.nodes(), s.redis(ctx), s.forwards(ctx), s.blocklists())
}

func (s surroundings) daemon(ctx context.Context) *mta.Finding {
	socket := s.config.Control.Socket
	err := alive(ctx, control.NewClient(socket), aliveTimeout)
	f := mta.Finding{Severity: mta.Critical, Where: socket}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrDead):
		f.ID, f.What = "daemon-dead", "nobody answers on the control socket: the daemon does not run"
		f.Why = "the MTA refuses mail for the time being, or lets it pass where its default action is accept"
		f.Remedy = "systemctl start relayguard; why it ended: journalctl -u relayguard"
	case errors.Is(err, errSilent):
		f.ID, f.What = "daemon-silent", err.Error()
		f.Why = "commands do not reach it; whether it decides on mail is to be seen in its log"
		f.Remedy = "journalctl -u relayguard; then systemctl restart relayguard"
	default:
		f.ID, f.What, f.Severity = "control-socket", err.Error(), mta.Warning
		f.Why, f.Remedy = "commands do not reach the daemon", "mend control.socket; restart the daemon"
	}
	return &f
}

// helperWait bounds a connection to the root helper, and its answer: systemd takes
// the one at once, and starts it for the other.
const helperWait = 5 * time.Second

func (s surroundings) helper(ctx context.Context) *mta.Finding {
	path := s.config.MTA.QueueHelper
	f := mta.Finding{ID: "queue-helper", Severity: mta.Warning, Where: path,
		Why:    "held mail is neither listed nor released nor deleted; suspend and stop do not reach what is in the queue",
		Remedy: "systemctl enable --now relayguard-queue.socket"}
	ctx, cancel := context.WithTimeout(ctx, helperWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
	case errors.Is(err, fs.ErrPermission) && !isRoot(): // as it should be
	case errors.Is(err, fs.ErrNotExist):
		f.What = "the socket of the root helper is not there"
		return &f
	default:
		f.What = "the root helper cannot be reached: " + err.Error()
		return &f
	}
	if s.account != nil && !s.account.may(writing, path) {
		f.What = fmt.Sprintf("the daemon's account %s may not connect to the root helper", s.account.Username)
		f.Remedy = fmt.Sprintf("its group must be %s, its mode 0660: systemctl restart relayguard-queue.socket", s.account.Username)
		return &f
	}
	if s.hand == nil {
		return nil
	}
	status, err := s.hand.Status(ctx)
	if err != nil { // systemd takes connections for a helper that does not start
		f.What = "the root helper does not do what it is asked: " + err.Error()
		f.Remedy = "why it ended: journalctl -u relayguard-queue; then systemctl restart relayguard-queue.socket"
		return &f
	}
	return s.standing(&status)
}

// standing is a finding if what the MTA stops does not go with the switches.
func (s surroundings) standing(now *queue.Status) *mta.Finding {
	f := mta.Finding{ID: "mta-stop", Severity: mta.Critical, Where: mtaSettings(s.config), Why: "mail to the outside waits that nobody means to stop, or goes out while it is to be stopped",
		Remedy: "relayguard start, or relayguard stop, as it is meant to be"}
	all, err := switches.Read(switchesFile(s.config), time.Now())
	if err != nil {
		f.ID, f.Severity, f.Where, f.What = "switches", mta.Warning, switchesFile(s.config), err.Error()
		f.Why, f.Remedy = "it cannot be told whether the MTA stops what it should", "the daemon's log says what it goes by: journalctl -u relayguard"
		return &f
	}
	found := desk.Compare(now, all, s.config.Sign.Node, userName)
	switch {
	case found.Stop != "":
		f.What = found.Stop
	case len(found.Forbidden) > 0:
		f.ID, f.Severity, f.Where = "submit-forbidden", mta.Warning, "authorized_submit_users"
		f.What = "sendmail(1) refuses accounts that are not suspended: " + strings.Join(found.Forbidden, ", ")
		f.Why, f.Remedy = "their local mail is not taken, and nothing says that it should not be", "relayguard resume local_user:NAME --cause TEXT"
	default:
		return nil
	}
	return &f
}

// logChoices are what mta.log may be.
const logChoices = `mta.log may be the file that the MTA's log goes to, "journal" (where no syslog daemon writes files), or "none"`

const withoutLog = "what becomes of mail is not known: no deliveries and bounces in explain, aliases and lists are not charged, a lost reason of a hold is not found again"

func (s surroundings) mtaLog(context.Context) *mta.Finding {
	log := s.config.MTA.Log
	f := mta.Finding{ID: "mta-log", Severity: mta.Warning, Where: log, Why: withoutLog, Remedy: logChoices}
	switch log {
	case config.LogNone:
		f.ID, f.Severity, f.Where, f.What = "mta-log-none", mta.Info, "mta.log", "the MTA's log is not read"
		return &f
	case config.LogJournal:
		if _, err := exec.LookPath("journalctl"); err != nil {
			f.What = "mta.log is \"journal\", and there is no journalctl: " + err.Error()
			return &f
		}
		return nil
	}
	info, err := os.Stat(log)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.What = "the MTA's log is not there"
	case err != nil && !isRoot(): // it cannot be told
		return nil
	case err != nil:
		f.What = err.Error()
	case !info.Mode().IsRegular():
		f.What = "the MTA's log is not a file"
	case s.account != nil && !s.account.may(reading, log):
		f.What = fmt.Sprintf("the daemon's account %s may not read the MTA's log", s.account.Username)
		f.Remedy = "chgrp adm, chmod 0640, and for the next one in logrotate's create line, or the syslog daemon's settings; " + logChoices
	default:
		return nil
	}
	return &f
}

// otherLog is Postfix writing elsewhere than where the guard reads.
func (s surroundings) otherLog(context.Context) *mta.Finding {
	file, log := s.setting("maillog_file"), s.config.MTA.Log
	if file == "" || log == config.LogNone || log == file || samePath(log, file) {
		return nil
	}
	return &mta.Finding{ID: "mta-log-elsewhere", Severity: mta.Warning, Where: "maillog_file",
		What: fmt.Sprintf("Postfix logs to %s, the guard reads mta.log = %q", file, log), Why: withoutLog,
		Remedy: fmt.Sprintf("set mta.log = %q and restart the daemon", file)}
}

func samePath(a, b string) bool {
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// addressForm is how Postfix writes addresses into its log.
func (s surroundings) addressForm(context.Context) *mta.Finding {
	form := s.setting("info_log_addr_form")
	if form == "" || form == "external" || s.config.MTA.Log == config.LogNone {
		return nil
	}
	return &mta.Finding{ID: "log-addresses", Severity: mta.Warning, Where: "info_log_addr_form",
		What:   fmt.Sprintf("Postfix logs addresses in the form %q", form),
		Why:    "an address with spaces or angle brackets in it can look like other parts of a line: a sender may forge events of the log",
		Remedy: "postconf -e info_log_addr_form=external; postfix reload"}
}

// journal looks at the journal's directory. One that is not there yet the daemon
// makes, if it may.
func (s surroundings) journal(context.Context) *mta.Finding {
	dir := s.config.Journal.Directory
	f := mta.Finding{ID: "journal-directory", Severity: mta.Critical, Where: dir,
		Why: "stops and holds are not written down: what was held, and why, may not outlive a crash"}
	owner := "relayguard"
	if s.account != nil {
		owner = s.account.Username
	}
	f.Remedy = fmt.Sprintf("install -d -o %s -g %s -m 0700 %s; beyond /var/lib/relayguard the unit needs ReadWritePaths=, too", owner, owner, dir)
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s.journalToBe(&f)
	}
	if err != nil {
		if !isRoot() {
			return nil // it is nobody else's business
		}
		f.What = err.Error()
		return &f
	}
	sys, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		f.What = "the journal's directory is no directory"
	case readOnlyDisk(dir):
		f.What = "the journal's file system is read-only"
		f.Remedy = "mount it for writing; the daemon goes on by itself"
	case info.Mode().Perm()&0o007 != 0:
		f.ID, f.Severity, f.What = "journal-open", mta.Warning, fmt.Sprintf("the journal's directory is open to others: mode %04o", info.Mode().Perm())
		f.Why, f.Remedy = "who wrote to whom is nobody else's business", "chmod 0700 "+dir
	case s.account != nil && sys != nil && strconv.Itoa(int(sys.Uid)) != s.account.Uid:
		f.What = fmt.Sprintf("the journal's directory belongs to uid %d, not to the daemon's account %s", sys.Uid, s.account.Username)
		f.Remedy = fmt.Sprintf("chown -R %s: %s", s.account.Username, dir)
	case s.account != nil && !s.account.may(writing, dir):
		f.What = fmt.Sprintf("the daemon's account %s may not write into the journal's directory", s.account.Username)
	default:
		return nil
	}
	return &f
}

// journalToBe judges a journal's directory that is not there: whether the daemon
// can make it. /var/lib/relayguard itself the unit makes.
func (s surroundings) journalToBe(f *mta.Finding) *mta.Finding {
	parent := filepath.Dir(f.Where)
	if parent == filepath.Dir(config.Default().Journal.Directory) {
		return nil
	}
	for {
		if _, err := os.Stat(parent); err == nil || parent == filepath.Dir(parent) {
			break
		}
		parent = filepath.Dir(parent)
	}
	if s.account == nil || s.account.may(writing, parent) {
		return nil
	}
	f.What = fmt.Sprintf("the journal's directory is not there, and the daemon's account %s may not make it in %s", s.account.Username, parent)
	return f
}

func readOnlyDisk(dir string) bool {
	var fs syscall.Statfs_t
	const readOnly = 1 // ST_RDONLY, statfs(2)
	return syscall.Statfs(dir, &fs) == nil && fs.Flags&readOnly != 0
}

// room is what hold.min_free wants.
func (s surroundings) room(context.Context) *mta.Finding {
	full, _, err := holds.NewRoom(caps(s.config)).Look(s.queueDir)
	if err == nil && full == "" {
		return nil
	}
	f := &mta.Finding{ID: "hold-room", Severity: mta.Warning, Where: s.queueDir, What: full,
		Why:    "nothing more is held: mail that would be is refused at its source until there is room",
		Remedy: "make room on that file system; held mail: relayguard held list; or set hold.min_free, hold.min_free_inodes"}
	if err != nil {
		f.What = err.Error()
	}
	return f
}

// groups names those of the section control that are not there.
func (s surroundings) groups() (all []mta.Finding) {
	c := s.config.Control
	for _, g := range []struct{ key, name string }{{"control.admin_group", c.AdminGroup}, {"control.read_group", c.ReadGroup}, {"control.inspect_group", c.InspectGroup}} {
		if g.name == "" {
			continue
		}
		if _, err := user.LookupGroup(g.name); err != nil {
			all = append(all, mta.Finding{ID: "control-group", Severity: mta.Warning, Where: g.key, What: fmt.Sprintf("there is no group %q: %v", g.name, err),
				Why: "nobody but root has that right", Remedy: fmt.Sprintf("groupadd --system %s, and put people into it; or name another group", g.name)})
		}
	}
	return all
}

func (s surroundings) alertCommand(context.Context) *mta.Finding {
	path := s.config.Alert.Command
	if path == "" {
		return nil
	}
	f := mta.Finding{ID: "alert-command", Severity: mta.Warning, Where: path, Why: "nobody is told of incidents by it",
		Remedy: "the daemon's account must be able to run it: chmod 0755; not in /home, /root or /tmp, which the unit hides"}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.What = "the alert command is not there"
	case err != nil && !isRoot():
		return nil
	case err != nil:
		f.What = err.Error()
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		f.What = "the alert command cannot be executed"
	case s.account != nil && !s.account.may(executing, path):
		f.What = fmt.Sprintf("the daemon's account %s may not execute the alert command", s.account.Username)
	case info.Mode().Perm()&0o002 != 0:
		f.What, f.Why, f.Remedy = "everybody may write to the alert command", "everybody may do what the daemon may", "chmod o-w"
	default:
		return nil
	}
	return &f
}

// devLog is where syslog listens.
const devLog = "/dev/log"

func (s surroundings) syslog(context.Context) *mta.Finding {
	if !s.config.Alert.Syslog {
		return nil
	}
	if _, err := os.Stat(devLog); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return &mta.Finding{ID: "alert-syslog", Severity: mta.Warning, Where: devLog, What: "alerts go to syslog, and nobody listens there",
		Why: "nobody is told of incidents by it", Remedy: "start journald or a syslog daemon, or set alert.command, and alert.syslog = false"}
}

// account is the daemon's, with all groups that the packaged unit gives it.
type account struct {
	*user.User
	groups []string // ids
}

// unitGroups are those of SupplementaryGroups= in relayguard.service.
var unitGroups = []string{"postfix", "adm", "systemd-journal"}

func accountNamed(name string) *account {
	u, err := user.Lookup(name)
	if name == "" || err != nil {
		return nil
	}
	a := account{User: u}
	a.groups, _ = u.GroupIds()
	for _, name := range unitGroups {
		if g, err := user.LookupGroup(name); err == nil {
			a.groups = append(a.groups, g.Gid)
		}
	}
	return &a
}

// What somebody may do with a file: permission bits of stat(2).
const (
	executing fs.FileMode = 1
	writing   fs.FileMode = 2
	reading   fs.FileMode = 4
)

// may reports whether an account that is not root may do that with a file, by
// the modes of the file and of the directories above it. What is not there, or
// cannot be seen, it may: that is somebody else's finding. Access lists are not
// looked at.
func (a *account) may(bit fs.FileMode, path string) bool {
	for {
		info, err := os.Stat(path)
		if err != nil {
			return true
		}
		mode := info.Mode().Perm()
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			switch {
			case a.Uid == strconv.Itoa(int(s.Uid)):
				mode >>= 6
			case slices.Contains(a.groups, strconv.Itoa(int(s.Gid))):
				mode >>= 3
			}
		}
		if mode&bit == 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
		path, bit = filepath.Dir(path), executing
	}
}
