// Package files reads the machine that is looked at, as forward.Files: this one
// (Local), a copied disk (Rooted), or this one through the root helper (Dial). It
// reads regular files and directories and says what lies where; what stands in
// them is others' matter, but for the accounts of /etc/passwd (ReadAccounts).
//
// The trap: whoever owns a home owns every name in it, and may change it at any
// moment. So nothing is opened before it is known to be a regular file (a device
// may act on being opened, a FIFO waits for a writer), what is judged is what is
// open and not what has the name now, and each step is given up after a while: a
// file system of the user's own (FUSE) may never answer.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"relayguard/forward"
)

// LocalFiles reads this machine with this process's rights.
type LocalFiles struct{ tree }

// RootedFiles reads a directory as if it were a machine's root: absolute links
// and ".." stay in it.
type RootedFiles struct{ tree }

var (
	_ forward.Files = (*LocalFiles)(nil)
	_ forward.Files = (*RootedFiles)(nil)
)

// Local reads this machine.
func Local() *LocalFiles {
	return &LocalFiles{tree{root: unix.AT_FDCWD, guard: newGuard()}}
}

// Rooted reads the copied disk at root. Close gives its descriptor back.
func Rooted(root string) (*RootedFiles, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "look into", Path: root, Err: err}
	}
	return &RootedFiles{tree{root: fd, rooted: true, guard: newGuard()}}, nil
}

// Close ends it; nothing may be read by it afterwards.
func (r *RootedFiles) Close() error { return unix.Close(r.root) }

// tree is what both read. Its methods are those of forward.Files.
type tree struct {
	root   int // a directory that stands for "/"; AT_FDCWD: this machine's
	rooted bool
	guard  *guard
}

// clean checks a path; a final slash does not matter. What "a/.." leads to, only
// the walk tells: a may be a link.
func clean(op, p string) (string, error) {
	if !strings.HasPrefix(p, "/") || strings.IndexByte(p, 0) >= 0 {
		return "", &fs.PathError{Op: op, Path: p, Err: fs.ErrInvalid}
	}
	return "/" + strings.Trim(p, "/"), nil
}

func (t *tree) Lstat(ctx context.Context, p string) (forward.Info, error) {
	p, err := clean("look at", p)
	if err != nil {
		return forward.Info{}, err
	}
	return await(ctx, t.guard, "look at", p, func() (forward.Info, error) { return t.lstat(p) }, nil)
}

func (t *tree) lstat(p string) (forward.Info, error) {
	var st unix.Stat_t
	if !t.rooted {
		err := unix.Fstatat(unix.AT_FDCWD, p, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return forward.Info{}, problem("look at", p, err)
		}
		return infoOf(path.Base(p), &st), nil
	}
	fd, err := t.resolve(p, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return forward.Info{}, problem("look at", p, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return forward.Info{}, problem("look at", p, err)
	}
	return infoOf(path.Base(p), &st), nil
}

// lstatStep is how many paths are looked at before the clock is.
const lstatStep = 1024

// LstatAll is Lstat of many. Paths of a file system that does not answer are as
// if they were not there.
func (t *tree) LstatAll(ctx context.Context, paths []string) ([]forward.Info, error) {
	all := make([]forward.Info, 0, len(paths))
	for len(paths) > 0 {
		step := paths[:min(lstatStep, len(paths))]
		paths = paths[len(step):]
		infos, err := await(ctx, t.guard, "look at", step[0]+" and others", func() ([]forward.Info, error) {
			return t.lstats(step), nil
		}, nil)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("look at %d paths: %w", len(step), ctx.Err())
		}
		if err != nil { // one of them hangs: which?
			infos = make([]forward.Info, len(step))
			for n, p := range step {
				infos[n], _ = t.Lstat(ctx, p)
			}
		}
		all = append(all, infos...)
	}
	return all, nil
}

func (t *tree) lstats(paths []string) []forward.Info {
	infos := make([]forward.Info, len(paths))
	for n, p := range paths {
		if p, err := clean("look at", p); err == nil {
			infos[n], _ = t.lstat(p)
		}
	}
	return infos
}

func (t *tree) Readlink(ctx context.Context, p string) (string, error) {
	p, err := clean("read link", p)
	if err != nil {
		return "", err
	}
	return await(ctx, t.guard, "read link", p, func() (string, error) {
		fd, err := t.resolve(p, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			return "", problem("read link", p, err)
		}
		defer unix.Close(fd)
		text, err := readlink(fd)
		if err != nil {
			return "", problem("read link", p, err)
		}
		return text, nil
	}, nil)
}

// Read reads a regular file. With ErrTooLarge and ErrNotRegular comes what is
// known of it.
func (t *tree) Read(ctx context.Context, p string, o forward.ReadOptions) ([]byte, forward.Info, error) {
	f, err := t.Open(ctx, p, o)
	if err != nil {
		var info forward.Info
		if f != nil {
			info = f.Info
		}
		return nil, info, err
	}
	text, err := await(ctx, t.guard, "read", f.path, func() ([]byte, error) {
		defer f.Close()
		return f.whole(ctx)
	}, nil)
	return text, f.Info, err
}

// Open is the beginning of Read: a file that is read piece by piece, at most
// o.Max octets, and then to be closed. With ErrTooLarge and ErrNotRegular comes a
// File that has Info only.
func (t *tree) Open(ctx context.Context, p string, o forward.ReadOptions) (*File, error) {
	p, err := clean("read", p)
	if err != nil {
		return nil, err
	}
	return await(ctx, t.guard, "read", p, func() (*File, error) {
		f, err := t.open(ctx, p, o)
		if err != nil {
			return f, problem("read", p, err)
		}
		return f, nil
	}, (*File).Close)
}

// File is an open regular file. It is one goroutine's.
type File struct {
	Info  forward.Info
	path  string
	fd    int
	left  int64 // octets that may still be read
	guard *guard
}

// ReadContext is Read, given up when ctx ends or the file system does not answer;
// the file is closed then.
func (f *File) ReadContext(ctx context.Context, into []byte) (int, error) {
	type piece struct {
		n   int
		err error
	}
	reader := *f // what is given up goes on with its own
	p, err := await(ctx, f.guard, "read", f.path, func() (piece, error) {
		n, err := reader.Read(into)
		return piece{n, err}, nil
	}, func(piece) { reader.Close() })
	if err != nil {
		f.fd = -1 // the other's to close, and into too
		return 0, err
	}
	f.left = reader.left
	return p.n, p.err
}

// Real is the path of what is open, without links; empty: the kernel does not
// say.
func (f *File) Real() string {
	buf := make([]byte, maxLink+1)
	n, err := unix.Readlink(procName(f.fd), buf)
	if err != nil || n > maxLink {
		return ""
	}
	return string(buf[:n])
}

// RealDir is the path of a directory without links; as it was given, if it cannot
// be told.
func (l *LocalFiles) RealDir(ctx context.Context, dir string) string {
	real, err := await(ctx, l.guard, "look at", dir, func() (string, error) {
		fd, err := l.resolve(dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return "", err
		}
		f := File{fd: fd}
		defer f.Close()
		return f.Real(), nil
	}, nil)
	if err != nil || real == "" {
		return dir
	}
	return real
}

// Read is io.Reader's. A file that has grown over the bound is ErrTooLarge.
func (f *File) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(f.fd, into)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, problem("read", f.path, err)
		case n == 0:
			return 0, io.EOF
		}
		if f.left -= int64(n); f.left < 0 {
			return 0, problem("read", f.path, forward.ErrTooLarge)
		}
		return n, nil
	}
}

// Close gives the descriptor back. It may be called once.
func (f *File) Close() {
	if f != nil && f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// whole reads up to the end, or the end of ctx.
func (f *File) whole(ctx context.Context) ([]byte, error) {
	const step = 256 << 10
	text := make([]byte, 0, min(f.Info.Size, f.left)+1)
	for ctx.Err() == nil {
		if len(text) == cap(text) {
			text = append(text, 0)[:len(text)]
		}
		n, err := f.Read(text[len(text):min(cap(text), len(text)+step)])
		text = text[:len(text)+n]
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, problem("read", f.path, ctx.Err())
}

// ReadDir lists a directory; entries that vanish meanwhile are left out.
func (t *tree) ReadDir(ctx context.Context, p string, o forward.ReadOptions) ([]forward.Info, error) {
	p, err := clean("list", p)
	if err != nil {
		return nil, err
	}
	type listing struct {
		infos []forward.Info
		err   error
	}
	l, err := await(ctx, t.guard, "list", p, func() (listing, error) {
		infos, err := t.list(ctx, p, o)
		if err != nil {
			err = problem("list", p, err)
		}
		return listing{infos, err}, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return l.infos, l.err
}

func (t *tree) list(ctx context.Context, p string, o forward.ReadOptions) ([]forward.Info, error) {
	fd, err := t.openDir(p, o)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	most := o.MaxEntries
	if most <= 0 {
		most = forward.MaxDir
	}
	names, err := entries(ctx, fd, most)
	if err != nil && !errors.Is(err, forward.ErrTooLarge) {
		return nil, err
	}
	sort.Strings(names)
	infos := make([]forward.Info, 0, len(names))
	for n, name := range names {
		if n%lstatStep == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var st unix.Stat_t
		if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			infos = append(infos, infoOf(name, &st))
		}
	}
	return infos, err
}

// entries are the names in a directory, but for "." and "..".
func entries(ctx context.Context, fd, most int) (names []string, err error) {
	buf := make([]byte, 32<<10)
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
		if len(names) > most {
			return names[:most], forward.ErrTooLarge
		}
	}
}

// infoOf is what stat(2) said.
func infoOf(name string, st *unix.Stat_t) forward.Info {
	return forward.Info{
		Name: name, Size: st.Size, Mode: modeOf(st.Mode), UID: int(st.Uid), GID: int(st.Gid),
		MTime: time.Unix(st.Mtim.Unix()), CTime: time.Unix(st.Ctim.Unix()),
		Inode: st.Ino, Dev: uint64(st.Dev), Links: uint64(st.Nlink),
	}
}

func modeOf(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, is := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= is
		}
	}
	switch m & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}
