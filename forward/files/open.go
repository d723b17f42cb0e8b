package files

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"relayguard/forward"
)

// problem words an error of the kernel's. A loop of links is nothing that is
// there; what would leave the root is ErrOutside.
func problem(op, path string, err error) error {
	var worded *fs.PathError
	if errors.As(err, &worded) {
		return err
	}
	switch {
	case errors.Is(err, unix.EXDEV):
		err = forward.ErrOutside
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		err = &noneThere{err}
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// noneThere is the kernel's word for a path that cannot lead to a file.
type noneThere struct{ error }

func (e *noneThere) Unwrap() []error { return []error{e.error, fs.ErrNotExist} }

// resolve opens p, below the root where there is one. A link of /proc that is
// no path but an open file of some process is not followed.
func (t *tree) resolve(p string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_NO_MAGICLINKS}
	if t.rooted {
		how.Resolve |= unix.RESOLVE_IN_ROOT
	}
	const tries = 16 // EAGAIN: somebody moved a directory meanwhile
	for n := 0; ; n++ {
		fd, err := unix.Openat2(t.root, p, &how)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN && n < tries:
			continue
		case err == unix.ENOSYS: // before Linux 5.6: step by step
			return t.walk(p, nil, flags)
		}
		return fd, err
	}
}

// open opens a regular file, and nothing else: the name leads to an O_PATH
// descriptor, which acts on nothing, and that to the file.
func (t *tree) open(ctx context.Context, p string, o forward.ReadOptions) (*File, error) {
	flags := unix.O_PATH
	if o.NoFollow {
		flags |= unix.O_NOFOLLOW
	}
	var at int
	var err error
	if o.As != nil {
		at, err = t.walk(p, o.As, flags)
	} else {
		at, err = t.resolve(p, flags)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, err
	}
	f := &File{Info: infoOf(path.Base(p), &st), path: p, fd: -1, left: o.Max, guard: t.guard}
	if f.left <= 0 {
		f.left = forward.MaxFile
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return f, forward.ErrNotRegular
	case o.As != nil && !permitted(o.As, at, &st, mayRead):
		return f, fs.ErrPermission
	case st.Size > f.left:
		return f, forward.ErrTooLarge
	}
	f.fd, err = reopen(ctx, at, unix.O_RDONLY)
	if err == nil {
		err = unix.Fstat(f.fd, &st)
	}
	if err != nil {
		f.Close()
		return f, err
	}
	f.Info = infoOf(path.Base(p), &st)
	return f, nil
}

// leaseWait is how long a lease that somebody holds on his own file (fcntl(2)
// F_SETLEASE) is waited for. The kernel takes it from him after 45 s; the mail
// server waits so long.
const leaseWait = 3 * time.Second

// reopen opens for reading what an O_PATH descriptor stands for, by its inode.
func reopen(ctx context.Context, at, flags int) (int, error) {
	name := procName(at)
	flags |= unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	until := time.Now().Add(leaseWait)
	for {
		fd, err := unix.Open(name, flags, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && time.Now().Before(until) && ctx.Err() == nil:
			pause(ctx, 20*time.Millisecond)
			continue
		case err == unix.EAGAIN:
			return -1, errLease
		}
		return fd, err
	}
}

var errLease = errors.New("somebody holds a lease on it (fcntl F_SETLEASE)")

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func procName(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openDir opens a directory for listing. Nothing but a directory is opened by it.
func (t *tree) openDir(p string, o forward.ReadOptions) (int, error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK | unix.O_NOCTTY
	if o.NoFollow {
		flags |= unix.O_NOFOLLOW
	}
	if o.As == nil {
		return t.resolve(p, flags)
	}
	at, err := t.walk(p, o.As, unix.O_PATH|flags&unix.O_NOFOLLOW)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	switch err := unix.Fstat(at, &st); {
	case err != nil:
		return -1, err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return -1, unix.ENOTDIR
	case !permitted(o.As, at, &st, mayRead):
		return -1, fs.ErrPermission
	}
	return unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
