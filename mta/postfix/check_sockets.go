package postfix

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

	"golang.org/x/sys/unix"
)

// sockets looks who can reach the guard's milter sockets, and whether Postfix
// can.
func (r *report) sockets() {
	for _, l := range r.Listeners {
		if l.Network != "unix" {
			r.tcpSocket(l)
			continue
		}
		r.unixSocket(l)
	}
}

func (r *report) tcpSocket(l mta.Listener) {
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil || !isLoopbackHost(host) {
		r.add(mta.Finding{ID: "socket-outside", Severity: mta.Critical, Where: l.Address, What: "the milter listener of role " + l.Role.String() + " is not on loopback",
			Why: "whoever reaches it can play the MTA: use up budgets, claim logins, read decisions", Remedy: "use a Unix socket, or listen on 127.0.0.1"})
	}
}

func (r *report) unixSocket(l mta.Listener) {
	if _, inside := r.Instance.inQueue(l.Address); !inside && r.usedByChroot(l) {
		r.add(mta.Finding{ID: "socket-unreachable", Severity: mta.Critical, Where: l.Address, What: "the socket is not below the queue directory " + r.Instance.QueueDir + ", and chrooted services use it",
			Why: "they do not find it, and answer 451 to every mail", Remedy: "put the socket below " + filepath.Join(r.Instance.QueueDir, "relayguard")})
	}
	dir := filepath.Dir(l.Address)
	info, err := os.Stat(dir)
	if err != nil {
		r.add(mta.Finding{ID: "socket-missing", Severity: mta.Warning, Where: l.Address, What: fmt.Sprintf("its directory cannot be looked at: %v", err), Why: "Postfix finds no guard there", Remedy: "start the guard, or make the directory"})
		return
	}
	mode := info.Mode().Perm()
	sys, _ := info.Sys().(*syscall.Stat_t)
	var socketMode os.FileMode // none there: nobody can connect yet
	socket, err := os.Stat(l.Address)
	if err == nil {
		socketMode = socket.Mode().Perm()
	}
	r.answers(l, err)
	switch {
	case mode&0o002 != 0:
		r.add(mta.Finding{ID: "socket-exposed", Severity: mta.Critical, Where: dir, What: fmt.Sprintf("the socket's directory has mode %04o: everybody may write there", mode),
			Why: "any local account can put its own socket in the guard's place and pass everything", Remedy: "chmod 0750, owner relayguard, group postfix"})
	case mode&0o001 != 0 && socketMode&0o002 != 0:
		r.add(mta.Finding{ID: "socket-exposed", Severity: mta.Critical, Where: dir, What: fmt.Sprintf("the socket's directory has mode %04o and the socket %04o: everybody may connect", mode, socketMode),
			Why: "any local account can play the MTA: use up other accounts' budgets, probe the rules", Remedy: "chmod 0750, owner relayguard, group postfix"})
	}
	if sys == nil {
		return
	}
	r.owner(dir, sys)
	r.reach(l, dir)
}

// answers looks whether a guard is there, by what os.Stat said of its socket. A
// daemon that was stopped takes its sockets away, one that was killed leaves
// them behind.
func (r *report) answers(l mta.Listener, statErr error) {
	what := "there is no socket: the guard is not running, or was started with other listeners"
	switch {
	case errors.Is(statErr, fs.ErrPermission):
		r.add(mta.Finding{ID: "socket-unseen", Severity: mta.Info, Where: l.Address, What: "this account may not look at it", Why: "whether Postfix finds the guard cannot be told", Remedy: "run the check as root"})
		return
	case statErr == nil:
		c, err := net.DialTimeout("unix", l.Address, time.Second)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || !isSocket(l.Address) {
			return
		}
		what = "nobody answers on the socket: the guard is not running"
	case !errors.Is(statErr, fs.ErrNotExist):
		return // its directory was told of
	}
	severity, why := mta.Warning, "a service that is attached to it would answer 451 to every mail"
	if r.used(l) {
		severity, why = mta.Critical, "Postfix cannot ask the guard, and answers 451 to every mail"
	}
	r.add(mta.Finding{ID: "socket-missing", Severity: severity, Where: l.Address, What: what, Why: why, Remedy: "systemctl start relayguard; journalctl -u relayguard says why it ended"})
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}

// used reports whether a service asks the listener.
func (r *report) used(l mta.Listener) bool {
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		setting := map[string]string{"smtpd": "smtpd_milters", "cleanup": "non_smtpd_milters"}[s.Command]
		if setting == "" {
			continue
		}
		if place, _, _, err := r.Instance.attached(s, r.effective(s, setting), []mta.Listener{l}); err == nil && place >= 0 {
			return true
		}
	}
	return false
}

// owner looks whether somebody else owns the directory and so what is in it.
func (r *report) owner(dir string, sys *syscall.Stat_t) {
	if r.GuardUser == "" || sys.Uid == 0 {
		return
	}
	guard, err := user.Lookup(r.GuardUser)
	if err == nil && guard.Uid == strconv.Itoa(int(sys.Uid)) {
		return
	}
	r.add(mta.Finding{ID: "socket-owner", Severity: mta.Critical, Where: dir, What: fmt.Sprintf("the socket's directory belongs to uid %d, not to %s", sys.Uid, r.GuardUser),
		Why: "its owner can put another socket in the guard's place", Remedy: "chown " + r.GuardUser + ":postfix"})
}

// reach looks whether Postfix's user may come to the socket: by the directory
// and, if it is there, the socket.
func (r *report) reach(l mta.Listener, dir string) {
	owner, err := user.Lookup(r.Instance.Setting("mail_owner"))
	if err != nil {
		return
	}
	groups, _ := owner.GroupIds()
	for at := dir; ; at = filepath.Dir(at) {
		if !mayUse(at, owner.Uid, groups, 1) {
			r.add(mta.Finding{ID: "socket-unreachable", Severity: mta.Critical, Where: at, What: "the user " + owner.Username + " may not pass through this directory to " + l.Address,
				Why: "Postfix cannot ask the guard, and answers 451 to every mail", Remedy: "give the directory the group postfix and mode 0750"})
			return
		}
		if at == "/" || at == r.Instance.QueueDir {
			break
		}
	}
	if info, err := os.Stat(l.Address); err == nil && info.Mode()&os.ModeSocket != 0 && !mayUse(l.Address, owner.Uid, groups, 2) {
		r.add(mta.Finding{ID: "socket-unreachable", Severity: mta.Critical, Where: l.Address, What: "the user " + owner.Username + " may not write to the socket",
			Why: "Postfix cannot ask the guard, and answers 451 to every mail", Remedy: "give the socket the group postfix and mode 0660"})
	}
}

// mayUse reports whether an account has a permission bit (4 read, 2 write, 1
// pass) on a file. Access lists are not read: unknown counts as no.
func mayUse(path, uid string, groups []string, bit uint32) bool {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false
	}
	switch {
	case uid == strconv.Itoa(int(st.Uid)):
		return st.Mode&(bit<<6) != 0
	case slices.Contains(groups, strconv.Itoa(int(st.Gid))):
		return st.Mode&(bit<<3) != 0
	}
	return st.Mode&bit != 0
}

func (r *report) usedByChroot(l mta.Listener) bool {
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		if !s.Chroot {
			continue
		}
		for command, setting := range map[string]string{"smtpd": "smtpd_milters", "cleanup": "non_smtpd_milters"} {
			if s.Command != command {
				continue
			}
			milters, _ := ParseMilters(r.effective(s, setting))
			for _, m := range milters {
				if m.Endpoint == "unix:"+l.Address {
					return true
				}
			}
		}
	}
	return false
}
