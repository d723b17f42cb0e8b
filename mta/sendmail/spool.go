package sendmail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// QueueDir is one queue directory. Control files and bodies may have subdirectories
// of their own.
type QueueDir struct {
	Group  string // "mqueue"
	Name   string // below the base directory: "q1"; "." if it is the base itself
	Path   string // "/var/spool/mqueue/q1"
	Qf, Df string // where the control files and the bodies are
	Xf     string // transcripts
	Client bool   // of the submission program
}

// QueueDirs are the queue directories that there are now: all groups', with what
// a "*" stands for (queue.c, multiqueue_cache), each once; the submission
// program's last. One that is not there is an error.
func (i *Instance) QueueDirs() ([]QueueDir, error) {
	dirs, err := i.main.queueDirs(false)
	if err == nil && i.Submit != "" {
		var more []QueueDir
		more, err = i.submit.queueDirs(true)
		dirs = append(dirs, more...)
	}
	if err != nil {
		return nil, fmt.Errorf("look for Sendmail's queues: %w", err)
	}
	return dirs, nil
}

func (s *Settings) queueDirs(client bool) ([]QueueDir, error) {
	base := s.queueDirectory()
	if strings.HasSuffix(base, "*") {
		base = filepath.Dir(base)
	}
	var dirs []QueueDir
	for _, g := range s.QueueGroups() {
		paths, err := expandQueue(g.Path)
		if err != nil {
			return nil, fmt.Errorf("queue group %s: %w", g.Name, err)
		}
		for _, path := range paths {
			if slices.ContainsFunc(dirs, func(d QueueDir) bool { return d.Path == path }) {
				continue
			}
			name, err := filepath.Rel(base, path)
			if err != nil {
				return nil, fmt.Errorf("queue group %s: %w", g.Name, err)
			}
			dirs = append(dirs, QueueDir{Group: g.Name, Name: name, Path: path,
				Qf: subdirectory(path, "qf"), Df: subdirectory(path, "df"), Xf: subdirectory(path, "xf"), Client: client})
		}
	}
	return dirs, nil
}

// expandQueue gives the directories of a path that may end with "*"; where none
// has that beginning the path without it is meant.
func expandQueue(path string) ([]string, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("got %q, want an absolute path", path)
	}
	prefix, wild := strings.CutSuffix(path, "*")
	if !wild {
		return []string{filepath.Clean(path)}, nil
	}
	dir, beginning := filepath.Split(prefix)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		if info, err := os.Stat(at); strings.HasPrefix(e.Name(), beginning) && err == nil && info.IsDir() {
			found = append(found, at)
		}
	}
	if len(found) == 0 {
		return []string{filepath.Clean(prefix)}, nil
	}
	return found, nil
}

func subdirectory(path, name string) string {
	at := filepath.Join(path, name)
	if info, err := os.Stat(at); err == nil && info.IsDir() {
		return at
	}
	return path
}

// spool is the queue directories while they are open.
type spool struct {
	dirs   []*dir
	owners []uint32 // whose control files Sendmail itself would take
}

// dir is one queue directory while it is open.
type dir struct {
	QueueDir
	qf, df, xf int // descriptors; qf is the others' if they are not apart
}

// openSpool opens the MTA's queue directories, and the submission program's too
// if asked. Close it.
func (i *Instance) openSpool(client bool) (*spool, error) {
	dirs, err := i.QueueDirs()
	if err != nil {
		return nil, err
	}
	s := &spool{owners: []uint32{uint32(os.Geteuid())}}
	for _, option := range []string{"TrustedUser", "RunAsUser"} {
		if uid, ok := uidOf(i.main.Option(option)); ok {
			s.owners = append(s.owners, uid)
		}
	}
	seen := map[[2]uint64]bool{}
	for _, q := range dirs {
		if q.Client && !client {
			continue
		}
		d, err := openDir(q)
		if q.Client && errors.Is(err, fs.ErrNotExist) {
			continue // no mail was ever submitted
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("open Sendmail's queue: %w", err)
		}
		var st unix.Stat_t
		if unix.Fstat(d.qf, &st) == nil && seen[[2]uint64{st.Dev, st.Ino}] {
			d.close()
			continue
		}
		seen[[2]uint64{st.Dev, st.Ino}] = true
		s.dirs = append(s.dirs, d)
	}
	return s, nil
}

func (s *spool) close() {
	for _, d := range s.dirs {
		d.close()
	}
}

func openDir(q QueueDir) (*dir, error) {
	d := &dir{QueueDir: q, qf: -1, df: -1, xf: -1}
	for _, open := range []struct {
		fd   *int
		path string
	}{{&d.qf, q.Qf}, {&d.df, q.Df}, {&d.xf, q.Xf}} {
		fd, err := openPlace(open.path)
		if err != nil {
			d.close()
			return nil, err
		}
		*open.fd = fd
	}
	return d, nil
}

func (d *dir) close() {
	for _, fd := range []int{d.qf, d.df, d.xf} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// uidOf reads an account, or its number, as accountIn does.
func uidOf(option string) (uint32, bool) {
	name := accountIn(option)
	if name == "" {
		return 0, false
	}
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	n, err := strconv.ParseUint(name, 10, 32)
	return uint32(n), err == nil
}

// dataDir is where a message's body is: where its control file is, unless that
// names another queue directory.
func (s *spool) dataDir(d *dir, c *Control) (*dir, error) {
	if c.DataDir == "" {
		return d, nil
	}
	for _, other := range s.dirs {
		if other.Client == d.Client && other.Name == c.DataDir {
			return other, nil
		}
	}
	return nil, fmt.Errorf("its body is in %q, which is no queue directory", clip(c.DataDir))
}

// retryInterrupted calls a system call again that a signal broke off.
func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
