package sendmail

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// process is one of Sendmail's at work in a queue: a session, a delivery, a queue run.
type process struct {
	pid, parent int
	state       string // as in ps(1): "T" is stopped
	started     string // of /proc/PID/stat: a pid may be somebody else's later
	image       image
}

// image tells one execution of a program from another: forks share it. Linux places
// it anew each time, unless somebody turned that off. Zero: not known.
type image struct{ code, end, stack string }

// readProcess reads /proc/PID/stat (proc(5)); false for a process that has ended.
func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const wanted = 26 // state first, up to startstack
	if len(fields) < wanted || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, false
	}
	return process{pid, parent, fields[0], fields[19], image{fields[23], fields[24], fields[25]}}, true
}

// same reports whether both are one process, whatever it executes by then.
func (p process) same(as process) bool { return p.pid == as.pid && p.started == as.started }

// goesOn reports whether it is still there.
func (p process) goesOn() bool {
	now, there := readProcess(p.pid)
	return there && now.same(p)
}

// program is the base name of what a process executes; "" if nobody can tell.
func (p process) program() string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(filepath.Base(path), " (deleted)")
}

// inode is a file, whatever it is named, in which mount name space.
type inode struct{ dev, ino uint64 }

func fileAt(path string) (inode, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return inode{}, false
	}
	return inode{st.Dev, st.Ino}, true
}

// crew are the processes of one daemon: Sendmail's that work in its queues.
type crew struct {
	daemon int            // its pid
	places map[inode]bool // directories that they work in
	dirs   []string
	lost   []string // what restart could not do for a queue runner
}

func newCrew(s *Settings, daemon int) *crew {
	c := &crew{daemon: daemon, places: map[inode]bool{}}
	base := s.queueDirectory()
	if strings.HasSuffix(base, "*") {
		base = filepath.Dir(base)
	}
	c.dirs = []string{base}
	if dirs, err := s.queueDirs(false); err == nil { // else the base alone
		for _, d := range dirs {
			c.dirs = append(c.dirs, d.Path, d.Qf, d.Df, d.Xf)
		}
	}
	for _, dir := range c.dirs {
		if f, is := fileAt(dir); is {
			c.places[f] = true
		}
	}
	return c
}

// members lists them, but for the daemon itself. Only Sendmail, as root, can be in
// such a directory at all.
func (c *crew) members() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == c.daemon {
			continue
		}
		f, is := fileAt(fmt.Sprintf("/proc/%d/cwd", pid))
		if !is || !c.places[f] {
			continue
		}
		if p, there := readProcess(pid); there && strings.HasPrefix(p.program(), "sendmail") {
			all = append(all, p)
		}
	}
	return all
}

// restart has the daemons execute themselves anew, and returns what tells the
// processes with the settings of before: what was there, their children and theirs,
// whatever they are by then. d nil: no daemon has a pid file; there may be queue runs.
// It also wakes what a call that was killed left stopped.
func (c *crew) restart(ctx context.Context, d *daemonProcess) (old func() []process, err error) {
	was := c.members()
	for _, p := range was {
		if p.state == "T" {
			p.signal(unix.SIGCONT)
		}
	}
	images, fresh := map[image]bool{}, map[image]bool{}
	known := map[int]string{}
	if d != nil {
		before, _ := readProcess(d.pid)
		now, err := c.restartDaemon(ctx, d)
		if err != nil {
			return nil, err
		}
		c.daemon = d.pid // another one, where it went into the background anew
		if now != (image{}) {
			images[before.image], fresh[now] = true, true
		}
	}
	c.restartRunners(ctx, was, fresh)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	note := func(p process) {
		images[p.image] = true
		known[p.pid] = p.started
	}
	for _, p := range was {
		if now, there := readProcess(p.pid); !there || !now.same(p) || !fresh[now.image] {
			note(p)
		}
	}
	for _, p := range c.members() {
		if !fresh[p.image] {
			note(p)
		}
	}
	for now := range fresh {
		delete(images, now)
	}
	delete(images, image{})
	return func() []process {
		return slices.DeleteFunc(c.members(), func(p process) bool { return !images[p.image] && known[p.pid] != p.started })
	}, nil
}

// restartDaemon returns the image of the daemon as it is then. One that goes into the
// background anew (-bd) ends, and d becomes its child.
func (c *crew) restartDaemon(ctx context.Context, d *daemonProcess) (image, error) {
	before, there := readProcess(d.pid)
	if !there {
		return image{}, nil
	}
	written, hadOne := fileTime(d.pidFile)
	// Before it handles the signal that would end it. One that does not in this time
	// waits for its name, a minute long, and has not read its file yet.
	if err := mta.Await(ctx, restartWait, d.handlesHUP); err != nil {
		return image{}, ctx.Err()
	}
	err := syscall.Kill(d.pid, syscall.SIGHUP)
	if err != nil {
		return image{}, fmt.Errorf("have Sendmail (process %d) read its settings again: %w", d.pid, err)
	}
	var fresh image
	err = mta.Await(ctx, restartWait, func() bool {
		now, there := readProcess(d.pid)
		if !there && d.follow() {
			now, there = readProcess(d.pid)
		}
		fresh = now.image
		at, has := fileTime(d.pidFile)
		return there && (now.started != before.started || now.image != before.image || hadOne && has && !at.Equal(written))
	})
	if ctx.Err() != nil {
		return image{}, ctx.Err()
	}
	if _, there := readProcess(d.pid); err != nil && !there && !d.background() {
		return image{}, nil // it has ended
	}
	if err != nil {
		return image{}, fmt.Errorf("Sendmail's daemon, process %d, does not read its settings again: restart it", d.pid)
	}
	return fresh, nil
}

func fileTime(path string) (time.Time, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// restartWait is how long a daemon may take to execute itself anew. With the times of
// end all is within 5 s.
const restartWait = 2 * time.Second

// signal sends a signal, unless the pid is another's by now.
func (p process) signal(sig syscall.Signal) bool {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return p.goesOn() && unix.PidfdSendSignal(fd, sig, nil, 0) == nil // after the pidfd: it is still the one
}

func (c *crew) writesMailbox(pid, fd int) bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil || !strings.HasPrefix(path, "/") || slices.ContainsFunc(c.dirs, func(dir string) bool { return strings.HasPrefix(path, dir+"/") }) {
		return false
	}
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, "flags:"); is {
			flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}

func children(of int) []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, there := readProcess(pid); there && p.parent == of {
			all = append(all, p)
		}
	}
	return all
}

// socket is a TCP connection as /proc/net/tcp tells of it.
type socket struct {
	localPort string // hexadecimal
	inode     string
	listens   bool
}

func sockets(pid int) []socket {
	var all []socket
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 10 {
				continue
			}
			const listen = "0A"
			all = append(all, socket{fields[1][strings.LastIndexByte(fields[1], ':')+1:], fields[9], fields[3] == listen})
		}
	}
	return all
}

// listeningPorts are those that somebody listens on where the daemon is.
func listeningPorts(pid int) map[string]bool {
	ports := map[string]bool{}
	for _, s := range sockets(pid) {
		if s.listens {
			ports[s.localPort] = true
		}
	}
	return ports
}

// session reports whether somebody has connected to the process: it does not
// deliver, but takes mail.
func (p process) session(ports map[string]bool) bool {
	links, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		return false
	}
	own := map[string]bool{}
	for _, fd := range links {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.pid, fd.Name()))
		if inode, is := strings.CutPrefix(target, "socket:["); is {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return slices.ContainsFunc(sockets(p.pid), func(s socket) bool { return own[s.inode] && ports[s.localPort] && !s.listens })
}
