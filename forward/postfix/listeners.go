package postfix

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"relayguard/forward"
)

// filters are programs that take mail by SMTP or LMTP and give it back, or deliver
// it: by their own paths. interpreted are the accounts that those run as which are
// scripts.
var (
	filters = []string{
		"/usr/lib/dovecot/", "/usr/libexec/dovecot/", "/usr/sbin/dovecot", "/usr/lib/cyrus/", "/usr/libexec/cyrus-imapd/",
		"/usr/sbin/clamsmtpd", "/usr/bin/clamsmtpd", "/usr/bin/rspamd", "/usr/sbin/dspam", "/usr/bin/dspam", "/usr/bin/spampd", "/usr/sbin/spampd",
		"/usr/bin/relayguard", "/usr/sbin/relayguard", "/usr/local/bin/relayguard", "/usr/local/sbin/relayguard",
	}
	interpreters = []string{"/usr/bin/perl", "/usr/bin/python3"}
	interpreted  = []string{"amavis", "vscan", "list", "mailman", "spampd"}
)

// maxEndpoints bounds how many endpoints of one unit are looked for.
const maxEndpoints = 64

// sockets remembers during the reading of a unit who listens where.
type sockets struct {
	mu    sync.Mutex
	known map[string]listener
}

// listener is who listens at an endpoint of this machine.
type listener struct {
	program string // empty: not known, or nobody
	usual   bool   // one that takes mail for us
}

// reset forgets: what is read anew looks anew.
func (s *sockets) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = nil
}

// listener makes of a next hop on this machine what it is: whoever listens there
// gets the mail. Postfix' own services, mail stores and scanners leave it as it
// is, as does what cannot be known (a copied disk, no right to look).
func (f *finder) listener(ctx context.Context, rule forward.Rule, hop string) forward.Rule {
	if !f.h.Live() || rule.Dynamic {
		return rule
	}
	l := f.listens(ctx, hop)
	if l.program == "" || l.usual {
		return rule
	}
	rule.Kind = forward.Asked
	rule.Note = noted(rule.Note, l.program+" listens there")
	if data, _, err := f.h.Files.Read(ctx, l.program, forward.ReadOptions{Max: maxProgram}); err == nil {
		rule.Digest = digest(string(data))
	}
	return rule
}

func (f *finder) listens(ctx context.Context, hop string) listener {
	f.sockets.mu.Lock()
	defer f.sockets.mu.Unlock()
	if l, known := f.sockets.known[hop]; known || len(f.sockets.known) >= maxEndpoints {
		return l
	}
	var l listener
	if inodes := f.inodes(ctx, hop); len(inodes) > 0 {
		l = f.holder(ctx, inodes)
	}
	if f.sockets.known == nil {
		f.sockets.known = map[string]listener{}
	}
	f.sockets.known[hop] = l
	return l
}

// inodes are the sockets that listen where a next hop leads, if that is this
// machine and no service of our own master.cf.
func (f *finder) inodes(ctx context.Context, hop string) []string {
	if file, is := strings.CutPrefix(hop, "unix:"); is {
		if !path.IsAbs(file) {
			file = path.Join(f.i.queueDir, file)
		}
		for _, class := range []string{"private", "public"} {
			if path.Dir(file) == path.Join(f.i.queueDir, class) && f.i.find(path.Base(file), "unix") != nil {
				return nil
			}
		}
		return f.unixInodes(ctx, path.Clean(file))
	}
	host, port := cutHop(strings.TrimPrefix(hop, "inet:"))
	a, err := netip.ParseAddr(host)
	if err != nil && host == "localhost" {
		a, err = netip.IPv6Loopback(), nil
	}
	if err != nil || !f.ownAddress(a) || port == 0 || f.servesPort(port) {
		return nil
	}
	return slices.Concat(f.tcpInodes(ctx, "/proc/net/tcp", port), f.tcpInodes(ctx, "/proc/net/tcp6", port))
}

func (f *finder) ownAddress(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || f.hosts()[a.Unmap().String()]
}

// cutHop takes "[host]:port" or "host:port" apart; port is 0 for one that is no
// number.
func cutHop(hop string) (host string, port int) {
	host, service, found := cutLast(hop, ':')
	if !found || strings.HasSuffix(hop, "]") {
		host, service = hop, "25"
	}
	if service == "smtp" {
		service = "25"
	}
	port, err := strconv.Atoi(service)
	if err != nil || port < 1 || port > 65535 {
		port = 0
	}
	return strings.TrimPrefix(strings.Trim(host, "[]"), "ipv6:"), port
}

// servesPort reports whether our own master(8) listens at a port.
func (f *finder) servesPort(port int) bool {
	names := map[string]int{"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
	return slices.ContainsFunc(f.i.services, func(s service) bool {
		_, name, found := cutLast(s.name, ':')
		if !found {
			name = s.name
		}
		n, err := strconv.Atoi(name)
		return s.kind == "inet" && (err == nil && n == port || names[name] == port)
	})
}

// tcpInodes are the sockets in a table of proc(5) that listen at a port.
func (f *finder) tcpInodes(ctx context.Context, table string, port int) (inodes []string) {
	data, _, _ := f.h.Files.Read(ctx, table, forward.ReadOptions{}) // none: not known
	const listening, local, state, inode = "0A", 1, 3, 9
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > inode && fields[state] == listening && strings.HasSuffix(fields[local], fmt.Sprintf(":%04X", port)) {
			inodes = append(inodes, fields[inode])
		}
	}
	return inodes
}

func (f *finder) unixInodes(ctx context.Context, file string) (inodes []string) {
	data, _, _ := f.h.Files.Read(ctx, "/proc/net/unix", forward.ReadOptions{})
	const inode, name = 6, 7
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > name && path.Clean(fields[name]) == file {
			inodes = append(inodes, fields[inode])
		}
	}
	return inodes
}

// holder is the process that has one of the sockets open. If several have, one
// that is not usual.
func (f *finder) holder(ctx context.Context, inodes []string) (l listener) {
	processes, _ := f.h.Files.ReadDir(ctx, "/proc", forward.ReadOptions{MaxEntries: maxProcesses})
	for _, p := range processes {
		if strings.Trim(p.Name, "0123456789") != "" || ctx.Err() != nil || !f.holds(ctx, p.Name, inodes) {
			continue
		}
		program, err := f.h.Files.Readlink(ctx, path.Join("/proc", p.Name, "exe"))
		if err != nil {
			continue
		}
		one := listener{program: program, usual: f.usual(program, p.UID)}
		if l.program == "" || !one.usual {
			l = one
		}
	}
	return l
}

func (f *finder) holds(ctx context.Context, pid string, inodes []string) bool {
	dir := path.Join("/proc", pid, "fd")
	open, err := f.h.Files.ReadDir(ctx, dir, forward.ReadOptions{MaxEntries: 4096})
	if err != nil && len(open) == 0 {
		return false
	}
	for _, fd := range open {
		to, err := f.h.Files.Readlink(ctx, path.Join(dir, fd.Name))
		if inode, is := strings.CutPrefix(to, "socket:["); err == nil && is && slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			return true
		}
	}
	return false
}

// usual reports programs that take mail for us. Another Postfix is one only where
// its settings are read, too.
func (f *finder) usual(program string, uid int) bool {
	if path.Base(program) == "master" && path.Dir(program) == path.Clean(f.i.value("daemon_directory")) {
		return f.o.ConfigDir == DefaultConfigDir
	}
	for _, known := range filters {
		if program == known || strings.HasSuffix(known, "/") && strings.HasPrefix(program, known) {
			return true
		}
	}
	if !slices.ContainsFunc(interpreters, func(i string) bool { return strings.HasPrefix(program, i) }) {
		return false
	}
	return slices.ContainsFunc(interpreted, func(name string) bool { a := f.h.Account(name); return a != nil && a.UID == uid })
}
