package sendmail

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openPlace opens a directory by its absolute path. On the way it follows only
// links that root made: below the queue directory Sendmail's account could put a
// link to anywhere, and what we do there we do as root. An admin may have the queue,
// or a part of it, on another disk by a link (the Operation Guide, "Queue
// directories").
func openPlace(path string) (fd int, err error) {
	w := walk{fd: -1, left: path}
	defer w.close()
	if err = w.root(); err == nil {
		err = w.all()
	}
	if err == nil {
		fd, err = unix.Openat(w.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// walk is a way through the file system, name by name.
type walk struct {
	fd    int    // where it is
	left  string // of the path
	links int    // followed so far
}

func (w *walk) close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
	}
}

func (w *walk) to(fd int) {
	w.close()
	w.fd = fd
}

func (w *walk) root() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		w.to(fd)
	}
	return err
}

func (w *walk) all() error {
	for w.left != "" {
		var name string
		if name, w.left, _ = strings.Cut(w.left, "/"); name == "" {
			continue
		}
		fd, err := unix.Openat(w.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			w.to(fd) // one that is no directory fails with the next name
			continue
		}
		err = w.follow(fd, name, st.Uid)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) follow(link int, name string, owner uint32) error {
	const most = 40 // as Linux itself
	if w.links++; w.links > most {
		return unix.ELOOP
	}
	if owner != 0 && owner != uint32(os.Geteuid()) {
		return fmt.Errorf("%.100q is a link of user %d's, want root's or none", name, owner)
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link, "", target)
	if err != nil {
		return err
	}
	w.left = string(target[:n]) + "/" + w.left
	if w.left[0] == '/' {
		return w.root()
	}
	return nil
}
