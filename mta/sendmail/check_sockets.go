package sendmail

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"relayguard/mta"
)

// sockets looks who can reach the guard's milter sockets, and whether Sendmail
// will. It connects as root; but where others could have put a socket in the
// guard's place it does not connect, and the daemon does not even start.
func (r *report) sockets() {
	for _, l := range r.Listeners {
		if l.Network == "unix" {
			r.unixSocket(l)
			continue
		}
		if host, _, err := net.SplitHostPort(l.Address); err != nil || !isLoopback(host) {
			r.add(mta.Finding{ID: "socket-outside", Severity: mta.Critical, Where: l.Address, What: "the milter listener of role " + l.Role.String() + " is not on loopback",
				Why: "whoever reaches it can play the MTA: use up budgets, claim logins, read decisions", Remedy: "use a Unix socket, or listen on 127.0.0.1"})
		}
	}
}

func (r *report) unixSocket(l mta.Listener) {
	dir := filepath.Dir(l.Address)
	info, err := os.Stat(dir)
	if err != nil {
		r.missing(l, fmt.Sprintf("its directory cannot be looked at: %v", err))
		return
	}
	var socketMode fs.FileMode // none there: nobody can connect yet
	socket, err := os.Stat(l.Address)
	if err == nil {
		socketMode = socket.Mode().Perm()
	}
	r.answers(l, err)
	const noStart = "Sendmail's daemon does not start with it, or ends when it reads its settings again; "
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		why := "any local account can put its own socket in the guard's place and pass everything"
		if r.s.unsafe(l.Address) != nil {
			why = noStart + why
		}
		r.add(mta.Finding{ID: "socket-exposed", Severity: mta.Critical, Where: dir, What: fmt.Sprintf("the socket's directory has mode %04o: everybody may write there", mode), Why: why, Remedy: "chmod 0755, owner relayguard"})
	case r.s.unsafe(l.Address) != nil:
		r.add(mta.Finding{ID: "socket-unsafe", Severity: mta.Critical, Where: dir, What: r.s.unsafe(l.Address).Error(), Why: noStart + "other accounts can put their own socket in the guard's place", Remedy: "chmod 0755 that directory"})
	case mode&0o001 != 0 && socketMode&0o002 != 0:
		r.add(mta.Finding{ID: "socket-exposed", Severity: mta.Critical, Where: dir, What: fmt.Sprintf("the socket's directory has mode %04o and the socket %04o: everybody may connect", mode, socketMode),
			Why: "any local account can play the MTA: use up other accounts' budgets, probe the rules", Remedy: "chmod 0600 the socket (mode in its [[listener]])"})
	}
	r.owner(dir, info)
}

// unsafe says which directory on the way to a milter's socket lets others write, so
// that Sendmail's daemon refuses to start with it (safedirpath in safefile.c); nil:
// none.
func (s *Settings) unsafe(path string) error {
	trusted := words(s.Option("DontBlameSendmail"))
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return nil // it may come later
		}
		var others fs.FileMode = 0o022
		if slices.Contains(trusted, "groupwritabledirpathsafe") {
			others = 0o002
		}
		sticky := info.Mode()&fs.ModeSticky != 0 && slices.Contains(trusted, "truststickybit")
		if info.Mode().Perm()&others != 0 && !sticky {
			return fmt.Errorf("the directory %s has mode %04o: others may write there", dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// answers looks whether a guard is there, by what os.Stat said of its socket. A
// daemon that was stopped takes its sockets away, one that was killed leaves
// them behind.
func (r *report) answers(l mta.Listener, statErr error) {
	switch {
	case errors.Is(statErr, fs.ErrPermission):
		r.add(mta.Finding{ID: "socket-unseen", Severity: mta.Info, Where: l.Address, What: "this account may not look at it", Why: "whether Sendmail finds the guard cannot be told", Remedy: "run the check as root"})
	case errors.Is(statErr, fs.ErrNotExist):
		r.missing(l, "there is no socket: the guard is not running, or was started with other listeners")
	case statErr == nil:
		c, err := net.DialTimeout("unix", l.Address, time.Second)
		if err == nil {
			c.Close()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			r.missing(l, "nobody answers on the socket: the guard is not running")
		}
	}
}

func (r *report) missing(l mta.Listener, what string) {
	severity, why := mta.Warning, "a service that is attached to it would answer 451 to every mail"
	if r.used(l) {
		severity, why = mta.Critical, "Sendmail cannot ask the guard, and answers 451 to every mail"
	}
	r.add(mta.Finding{ID: "socket-missing", Severity: severity, Where: l.Address, What: what, Why: why, Remedy: "systemctl start relayguard; journalctl -u relayguard says why it ended"})
}

// used reports whether a service asks the listener.
func (r *report) used(l mta.Listener) bool {
	for _, d := range r.s.Daemons() {
		if place, _, _ := r.s.attached(d, []mta.Listener{l}); place >= 0 {
			return true
		}
	}
	return false
}

// owner looks whether somebody else owns the directory and so what is in it.
func (r *report) owner(dir string, info fs.FileInfo) {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if r.GuardUser == "" || !ok || sys.Uid == 0 {
		return
	}
	guard, err := user.Lookup(r.GuardUser)
	if err == nil && guard.Uid == strconv.Itoa(int(sys.Uid)) {
		return
	}
	r.add(mta.Finding{ID: "socket-owner", Severity: mta.Critical, Where: dir, What: fmt.Sprintf("the socket's directory belongs to uid %d, not to %s", sys.Uid, r.GuardUser),
		Why: "its owner can put another socket in the guard's place", Remedy: "chown " + r.GuardUser})
}
