package files

import (
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"relayguard/forward"
)

// Bounds of a walk: those of the kernel.
const (
	maxLinks = 40      // MAXSYMLINKS
	maxLink  = 4096    // octets of a link's text (PATH_MAX)
	maxParts = 1 << 16 // elements of a path with all its links
)

// walk opens p (O_PATH) one element at a time. Each directory on the way must be
// one that as may search; nil: whatever this process may. What is checked is what
// is walked: nobody can put something else in its place between.
func (t *tree) walk(p string, as *forward.Account, flags int) (int, error) {
	top, err := t.top()
	if err != nil {
		return -1, err
	}
	w := &walker{dirs: []int{top}, as: as}
	defer w.close()
	if err := w.enter(top); err != nil {
		return -1, err
	}
	todo := parts(p)
	links := 0
	for n := 0; len(todo) > 0; n++ {
		if n > maxParts {
			return -1, unix.ENAMETOOLONG
		}
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if name == ".." {
			w.up()
			continue
		}
		fd, err := unix.Openat(w.dir(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		last := len(todo) == 0
		target, isLink, err := w.step(fd, last, flags)
		if err != nil {
			return -1, err
		}
		if !isLink {
			continue
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			w.toTop()
		}
		todo = append(todo, parts(target)...)
	}
	return w.take()
}

// top is a descriptor of "/", the caller's own.
func (t *tree) top() (int, error) {
	if t.rooted {
		return unix.FcntlInt(uintptr(t.root), unix.F_DUPFD_CLOEXEC, 0)
	}
	return unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// parts are a path's elements, the first one last.
func parts(p string) []string {
	var all []string
	for rest := p; rest != ""; {
		cut := strings.LastIndexByte(rest, '/')
		if name := rest[cut+1:]; name != "" && name != "." {
			all = append(all, name)
		}
		rest = rest[:max(cut, 0)]
	}
	return all
}

// walker holds the directories from the root to where it is, and at the end what
// the path leads to.
type walker struct {
	dirs []int // the first is the root
	end  int   // beside dirs, if it is no directory; 0: none
	as   *forward.Account
}

func (w *walker) dir() int { return w.dirs[len(w.dirs)-1] }

func (w *walker) up() {
	if len(w.dirs) > 1 {
		unix.Close(w.dir())
		w.dirs = w.dirs[:len(w.dirs)-1]
	}
}

func (w *walker) toTop() {
	for len(w.dirs) > 1 {
		w.up()
	}
}

func (w *walker) close() {
	for _, fd := range w.dirs {
		unix.Close(fd)
	}
	if w.end > 0 {
		unix.Close(w.end)
	}
}

// take hands the end over.
func (w *walker) take() (int, error) {
	if w.end > 0 {
		fd := w.end
		w.end = 0
		return fd, nil
	}
	fd := w.dir()
	w.dirs = w.dirs[:len(w.dirs)-1]
	return fd, nil
}

// enter says whether names may be looked up in a directory.
func (w *walker) enter(fd int) error {
	if w.as == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !permitted(w.as, fd, &st, maySearch) {
		return fs.ErrPermission
	}
	return nil
}

// step takes one element, whose descriptor becomes the walker's: a directory to
// go on from, a link to follow, or the end.
func (w *walker) step(fd int, last bool, flags int) (target string, isLink bool, err error) {
	keep := false
	defer func() {
		if !keep {
			unix.Close(fd)
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", false, err
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFLNK && !(last && flags&unix.O_NOFOLLOW != 0):
		target, err = readlink(fd)
		return target, true, err
	case last:
		keep, w.end = true, fd
		return "", false, nil
	case kind != unix.S_IFDIR:
		return "", false, unix.ENOTDIR
	case w.as != nil && !permitted(w.as, fd, &st, maySearch):
		return "", false, fs.ErrPermission
	}
	keep = true
	w.dirs = append(w.dirs, fd)
	return "", false, nil
}

// readlink reads the link that an O_PATH descriptor stands for.
func readlink(fd int) (string, error) {
	buf := make([]byte, maxLink+1)
	n, err := unix.Readlinkat(fd, "", buf)
	switch {
	case err == unix.ENOENT: // what is open is no link
		return "", unix.EINVAL
	case err != nil:
		return "", err
	case n > maxLink:
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}
