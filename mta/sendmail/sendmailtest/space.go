package sendmailtest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const spaceFlags = syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS

// space is a mount and host name space of Sendmail's own. It is that of one
// thread of this program: what do runs, and every process that it starts
// there, is inside.
type space struct {
	jobs chan func()
	id   string // what /proc/PID/ns/mnt of its processes links to
}

// newSpace makes one and lets prepare mount what it likes in it.
func newSpace(prepare func() error) (*space, error) {
	s := &space{jobs: make(chan func())}
	ready := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		err := s.enter(prepare)
		ready <- err
		if err != nil {
			return
		}
		for job := range s.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return s, nil
}

func (s *space) enter(prepare func() error) error {
	if err := syscall.Unshare(spaceFlags); err != nil {
		return fmt.Errorf("make a mount and host name space: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	var err error
	if s.id, err = os.Readlink("/proc/thread-self/ns/mnt"); err != nil {
		return fmt.Errorf("name the mount space: %w", err)
	}
	return prepare()
}

// do runs the function inside and waits for it.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.jobs <- func() {
		defer close(done)
		f()
	}
	<-done
}

func (s *space) close() { close(s.jobs) }

// bind shows source at target, which must exist.
func bind(source, target string) error {
	if err := syscall.Mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("show %s as %s: %w", source, target, err)
	}
	return nil
}

// bindNew makes target as source is, a file or directory, and binds it.
func bindNew(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("show %s: %w", source, err)
	}
	if info.IsDir() {
		err = os.Mkdir(target, 0o755)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("show %s as %s: %w", source, target, err)
	}
	return bind(source, target)
}

// makeDev is a small /dev in dir, whose log is the given socket.
func makeDev(dir, logSocket string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "shm", "pts"} {
		source := filepath.Join("/dev", name)
		if _, err := os.Stat(source); err != nil {
			continue // not everywhere; Sendmail needs null and urandom only
		}
		if err := bindNew(source, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	links := map[string]string{"log": logSocket, "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("make /dev: %w", err)
		}
	}
	return nil
}

// makeEtc is an /etc in dir like the host's, but for the given directories and
// files: name to what is shown there.
func makeEtc(dir string, dirs, files map[string]string) error {
	entries, err := os.ReadDir("/etc")
	if err != nil {
		return fmt.Errorf("make /etc: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if dirs[name] != "" || files[name] != "" {
			continue
		}
		if err := showEntry(entry, filepath.Join("/etc", name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for name, source := range dirs {
		if err := bindNew(source, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("make /etc: %w", err)
		}
	}
	return nil
}

// showEntry copies files and links and binds directories. What vanishes
// meanwhile was a temporary file.
func showEntry(entry fs.DirEntry, source, target string) error {
	var err error
	switch {
	case entry.IsDir():
		err = bindNew(source, target)
	case entry.Type() == fs.ModeSymlink:
		var to string
		if to, err = os.Readlink(source); err == nil {
			err = os.Symlink(to, target)
		}
	case entry.Type().IsRegular():
		err = copyFile(source, target)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copyFile copies content, owner and mode, the set-id bits too.
func copyFile(source, target string) error {
	in, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("copy a file: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("copy %s: %w", source, err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", source, err)
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(source, &stat); err != nil {
		return fmt.Errorf("copy %s: %w", source, err)
	}
	return errors.Join(os.Chown(target, int(stat.Uid), int(stat.Gid)), syscall.Chmod(target, stat.Mode&0o7777))
}

// prepareSpace gives Sendmail its /etc, its /dev and its name.
func (s *Sendmail) prepareSpace() error {
	room := filepath.Join(s.Dir, "space")
	if err := syscall.Mount("tmpfs", room, "tmpfs", syscall.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", room, err)
	}
	dev, etc := filepath.Join(room, "dev"), filepath.Join(room, "etc")
	if err := errors.Join(os.Mkdir(dev, 0o755), os.Mkdir(etc, 0o755)); err != nil {
		return fmt.Errorf("make Sendmail's surroundings: %w", err)
	}
	short, _, _ := strings.Cut(s.options.Hostname, ".")
	hosts := "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + s.options.Hostname + " " + short + "\n"
	err := makeEtc(etc, map[string]string{"mail": s.ConfigDir, "sasl2": s.saslDir()}, map[string]string{
		"hosts":         hosts + strings.Join(append(s.options.Hosts, ""), "\n"),
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n",
		"resolv.conf":   "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
		"hostname":      s.options.Hostname + "\n",
	})
	if err != nil {
		return err
	}
	if err := makeDev(dev, s.logSocket()); err != nil {
		return err
	}
	if err := errors.Join(bind(etc, "/etc"), bind(dev, "/dev")); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(s.options.Hostname)); err != nil {
		return fmt.Errorf("set the name of the machine: %w", err)
	}
	if _, err := os.Stat("/usr/sbin/sendmail"); err != nil {
		return nil // nothing there to cover
	}
	return bind(s.Tool("sendmail"), "/usr/sbin/sendmail")
}
