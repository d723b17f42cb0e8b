package watch

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// mountTable is what is mounted where, as far as it matters here. The kernel
// tells when it changes.
type mountTable struct {
	fd    int               // of /proc/self/mountinfo, to wait on
	all   map[string]string // the topmost mount of each place: its id, device and root
	slow  map[string]string // places that must not be looked into: the kind
	known map[string]string // of all, those that mattered last time
	stale atomic.Bool       // refresh found news that nobody has looked at yet
}

func openMounts() (*mountTable, error) {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch the mounts: open /proc/self/mountinfo: %w", err)
	}
	return &mountTable{fd: fd}, nil
}

// refresh loads the table if the kernel has news of it, so that nobody is led
// into a file system that has just come.
func (m *mountTable) refresh() {
	fds := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLPRI}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 {
		m.load()
		m.stale.Store(true)
	}
}

// load reads the table, and reports whether it could.
func (m *mountTable) load() bool {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil {
		m.all, m.slow = parseMounts(text)
	}
	return err == nil
}

// parseMounts reads proc_pid_mountinfo(5). The last line of a place is the mount
// that is on top.
func parseMounts(text []byte) (all, slow map[string]string) {
	all, slow = map[string]string{}, map[string]string{}
	for line := range bytes.Lines(text) {
		head, tail, found := strings.Cut(strings.TrimSpace(string(line)), " - ")
		field, kind := strings.Fields(head), strings.Fields(tail)
		if !found || len(field) < 6 || len(kind) == 0 {
			continue
		}
		place := unescape(field[4])
		all[place] = field[0] + " " + field[2] + " " + field[3]
		delete(slow, place)
		if kind[0] == "fuse" || strings.HasPrefix(kind[0], "fuse.") {
			slow[place] = kind[0]
		}
	}
	return all, slow
}

// unescape undoes the \040 of /proc's tables.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for n := 0; n < len(s); n++ {
		if s[n] == '\\' && n+3 < len(s) && octal(s[n+1]) && octal(s[n+2]) && octal(s[n+3]) {
			b.WriteByte((s[n+1]-'0')<<6 | (s[n+2]-'0')<<3 | (s[n+3] - '0'))
			n += 3
			continue
		}
		b.WriteByte(s[n])
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }

// changedFor reports whether another mount than the last time lies on the way to
// a path of the trie, or below one of its trees.
func (m *mountTable) changedFor(t *trie) bool {
	now := map[string]string{}
	for place, what := range m.all {
		if t.concerns(place) {
			now[place] = what
		}
	}
	changed := !maps.Equal(now, m.known)
	m.known = now
	return changed
}

// concerns reports whether a clean path is a node, or lies in a tree.
func (t *trie) concerns(p string) bool {
	n := t.root
	for name := range strings.SplitSeq(strings.Trim(path.Clean(p), "/"), "/") {
		if name == "" {
			continue
		}
		if n.inTree() {
			return true
		}
		if n = t.child[childName{n, name}]; n == nil {
			return false
		}
	}
	return true
}
