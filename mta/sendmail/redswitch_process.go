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

	"golang.org/x/sys/unix"
)

// process is one of Sendmail's at work in a queue: a session, a delivery, a queue run.
type process struct {
	pid, parent int
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
	return process{pid, parent, fields[19], image{fields[23], fields[24], fields[25]}}, true
}

// goesOn reports whether it is still there.
func (p process) goesOn() bool {
	now, there := readProcess(p.pid)
	return there && now.started == p.started
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
}

func newCrew(s *Settings, daemon int) crew {
	c := crew{daemon: daemon, places: map[inode]bool{}}
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
func (c crew) members() []process {
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
func (c crew) restart(ctx context.Context, d *daemonProcess) (old func() []process, err error) {
	was := c.members()
	fresh := image{}
	if d != nil {
		if fresh, err = c.restartDaemon(ctx, d); err != nil {
			return nil, err
		}
	}
	images := map[image]bool{}
	known := map[int]string{}
	for _, p := range append(was, c.members()...) {
		if p.image == fresh {
			continue
		}
		images[p.image] = true
		if p.isDaemon() {
			p.signal(unix.SIGHUP) // a queue runner of its own; its image is another one then
		} else {
			known[p.pid] = p.started
		}
	}
	delete(images, image{})
	return func() []process {
		return slices.DeleteFunc(c.members(), func(p process) bool { return !images[p.image] && known[p.pid] != p.started })
	}, nil
}

// restartDaemon returns the image of the daemon as it is then. One that goes into the
// background anew (-bd) ends, and d becomes its child.
func (c crew) restartDaemon(ctx context.Context, d *daemonProcess) (image, error) {
	before, there := readProcess(d.pid)
	if !there {
		return image{}, nil
	}
	written, hadOne := fileTime(d.pidFile)
	// Before it handles the signal that would end it. One that does not in this time
	// waits for its name, a minute long, and has not read its file yet.
	if err := awaitUntil(ctx, restartWait, d.handlesHUP); err != nil {
		return image{}, ctx.Err()
	}
	err := syscall.Kill(d.pid, syscall.SIGHUP)
	if err != nil {
		return image{}, fmt.Errorf("have Sendmail (process %d) read its settings again: %w", d.pid, err)
	}
	var fresh image
	err = awaitUntil(ctx, restartWait, func() bool {
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

// isDaemon tells a queue runner that stays from one that ends, by the title that it
// gives itself.
func (p process) isDaemon() bool {
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	return err == nil && (strings.Contains(string(title), ": Queue runner@") || strings.Contains(string(title), ": accepting connections"))
}

func fileTime(path string) (time.Time, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// Times that the end of old processes is waited for. With the daemon's restart all
// is within 5 s.
const (
	restartWait = 2 * time.Second
	endWait     = 1 * time.Second         // they may end by themselves
	busyWait    = 1500 * time.Millisecond // and these until a local delivery is over
)

// ended are processes that were ended.
type ended struct {
	deliveries, sessions int
	left                 []process // busy with a delivery on this machine
}

// end waits a moment for old processes and ends those that go on. SIGKILL: at SIGTERM
// Sendmail may remove what it has in the queue (intsig in conf.c); so nothing of a
// message changes, and its lock is gone. What had no answer to its final dot may come
// twice. A process that feeds a program or writes a mailbox is left alone until that is
// done, for the program would take half a message for a whole one.
func (c crew) end(ctx context.Context, old func() []process) (ended, error) {
	var out ended
	_ = awaitUntil(ctx, endWait, func() bool { return len(old()) == 0 })
	err := awaitUntil(ctx, busyWait, func() bool {
		out.left = nil
		frozen := freeze(old)
		ports := listeningPorts(c.daemon)
		for _, p := range frozen {
			switch {
			case c.busy(p):
				out.left = append(out.left, p)
			case p.session(ports):
				out.sessions += p.kill()
			default:
				out.deliveries += p.kill()
			}
		}
		for _, p := range out.left {
			p.signal(unix.SIGCONT)
		}
		return len(out.left) == 0
	})
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	if err == nil { // the killed ones may need a moment to let go of their locks
		_ = awaitUntil(ctx, endWait, func() bool { return len(old()) == 0 })
	}
	return out, nil
}

// freeze stops the processes, and what they may have started meanwhile.
func freeze(old func() []process) []process {
	var all []process
	for {
		more := slices.DeleteFunc(old(), func(p process) bool {
			return slices.ContainsFunc(all, func(a process) bool { return a.pid == p.pid && a.started == p.started })
		})
		if len(more) == 0 {
			return all
		}
		for _, p := range more {
			p.signal(unix.SIGSTOP)
		}
		all = append(all, more...)
	}
}

// signal sends a signal, unless the pid is another's by now.
func (p process) signal(sig syscall.Signal) bool {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return p.goesOn() && unix.PidfdSendSignal(fd, sig, nil, 0) == nil // after the pidfd: it is still the one
}

func (p process) kill() int {
	if p.signal(unix.SIGKILL) {
		return 1
	}
	return 0
}

// busy reports whether a process delivers on this machine at the moment: it has a
// child that is another program, or a file open for writing that is not of the queue.
func (c crew) busy(p process) bool {
	for _, child := range children(p.pid) {
		if name := child.program(); name != "" && !strings.HasPrefix(name, "sendmail") {
			return true
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fdinfo", p.pid))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if n, err := strconv.Atoi(fd.Name()); err == nil && n > 2 && c.writesMailbox(p.pid, n) {
			return true
		}
	}
	return false
}

func (c crew) writesMailbox(pid, fd int) bool {
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

// awaitUntil polls until done, at most for limit.
func awaitUntil(ctx context.Context, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
