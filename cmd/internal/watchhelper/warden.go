package watchhelper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/mta/local"
)

// warden decides which open file is shown to whom. By purpose: what a mail server's
// rules stand in by its name (ruleName, serverFile), programs (for their digests),
// and what the one who asks may read himself. Of a person's other files, which a
// file of rules may include, what that person may read, whatever the daemon says
// whose rights count. Everything else is withheld.
type warden struct {
	files *files.LocalFiles
	read  func(context.Context) ([]forward.Account, error)

	mu    sync.Mutex
	stamp [2]stamp // of the account files
	byUID map[int]*forward.Account
	homes map[string]*forward.Account
}

// Ordinary accounts (login.defs(5), UID_MIN), and the one that is nobody's.
const (
	firstPerson = 1000
	nobody      = 65534
)

func person(uid int) bool { return uid >= firstPerson && uid != nobody }

// errWithheld is fs.ErrPermission, too, but not where the request says As: there
// that would mean that the account may not read the file, and so that its rules are
// not in force.
var errWithheld = errors.New("the watch helper shows forwarding rules and what they include, no other files that the daemon may not read itself")

func withheld(p string, o forward.ReadOptions) error {
	err := errWithheld
	if o.As == nil {
		err = fmt.Errorf("%w: %w", fs.ErrPermission, err)
	}
	return &fs.PathError{Op: "read", Path: p, Err: err}
}

// tries is how often a file may be another one than a moment ago.
const tries = 4

var errMoves = errors.New("it is replaced again and again")

// open is files.Open of what may be shown. real is the path that was judged.
func (w *warden) open(ctx context.Context, peer local.Cred, p string, o forward.ReadOptions) (f *files.File, real string, err error) {
	for range tries {
		if f, err = w.files.Open(ctx, p, o); err != nil {
			return f, "", err
		}
		real = strings.TrimSuffix(f.Real(), " (deleted)") // as the kernel calls what was replaced
		as, ok := w.judge(ctx, peer, real, f.Info)
		switch {
		case !ok:
			f.Close()
			return f, real, withheld(p, o)
		case as == nil:
			return f, real, nil
		}
		again, err := w.files.Open(ctx, real, forward.ReadOptions{Max: o.Max, NoFollow: true, As: as})
		same := again != nil && again.Info.Inode == f.Info.Inode && again.Info.Dev == f.Info.Dev
		f.Close()
		switch {
		case err == nil && same:
			again.Info.Name = f.Info.Name
			return again, real, nil
		case err == nil:
			again.Close()
		case same && errors.Is(err, fs.ErrPermission):
			return f, real, withheld(p, o)
		case errors.Is(err, fs.ErrPermission) && !w.there(ctx, real, f.Info): // replaced
		case !errors.Is(err, fs.ErrNotExist):
			return f, real, withheld(p, o)
		}
	}
	return f, real, &fs.PathError{Op: "read", Path: p, Err: errMoves}
}

func (w *warden) there(ctx context.Context, p string, was forward.Info) bool {
	info, err := w.files.Lstat(ctx, p)
	return err == nil && info.Inode == was.Inode && info.Dev == was.Dev
}

// judge says whether a file may be shown; as: only if that account could read it.
func (w *warden) judge(ctx context.Context, peer local.Cred, real string, info forward.Info) (as *forward.Account, ok bool) {
	if asked, environ := process(real); asked {
		if environ {
			return nil, w.master(ctx, real)
		}
		return w.peer(ctx, peer), true
	}
	switch {
	case hidden(real), w.mail(ctx, real), keyFile(real) && peer.UID == 0:
		return nil, false
	case keyFile(real):
		return w.peer(ctx, peer), true
	}
	if home, owner, there := w.home(ctx, real); there {
		switch below := strings.TrimPrefix(real, home+"/"); {
		case ruleName(path.Base(real)):
			return nil, true
		case owner == nil || owner.UID == 0 || private(below):
			return nil, false
		}
		return owner, true
	}
	switch asker := w.peer(ctx, peer); {
	case peer.UID == 0, serverFile(real), info.Mode.Perm()&0o111 != 0:
		return nil, true
	case person(info.UID) && !w.may(ctx, real, asker):
		return w.account(ctx, info.UID), true
	default:
		return asker, true
	}
}

// process reports whether a file is what the kernel shows of a process' command line,
// or of its environment: by them all running instances of Postfix are found.
func process(p string) (is, environ bool) {
	pid, name := path.Split(strings.TrimPrefix(p, "/proc/"))
	pid = strings.TrimSuffix(pid, "/")
	if !strings.HasPrefix(p, "/proc/") || pid == "" || strings.Trim(pid, "0123456789") != "" {
		return false, false
	}
	return name == "cmdline" || name == "environ", name == "environ"
}

// master reports whether a process that an environment is of runs Postfix's master(8).
func (w *warden) master(ctx context.Context, environ string) bool {
	program, err := w.files.Readlink(ctx, path.Join(path.Dir(environ), "exe"))
	return err == nil && strings.HasSuffix(strings.TrimSuffix(program, " (deleted)"), "/sbin/master")
}

// may reports whether an account can read a file.
func (w *warden) may(ctx context.Context, p string, as *forward.Account) bool {
	f, err := w.files.Open(ctx, p, forward.ReadOptions{Max: maxRead, NoFollow: true, As: as})
	f.Close()
	return err == nil
}

// mail reports whether a file is in the "tmp" of a Maildir.
func (w *warden) mail(ctx context.Context, real string) bool {
	dir := path.Dir(real)
	if path.Base(dir) != "tmp" {
		return false
	}
	box := path.Dir(dir)
	infos, err := w.files.LstatAll(ctx, []string{path.Join(box, "cur"), path.Join(box, "new")})
	return err != nil || infos[0].Mode.IsDir() && infos[1].Mode.IsDir()
}

// home is the home that a file lies in, and whose it is; nil: nobody's that is
// known.
func (w *warden) home(ctx context.Context, real string) (dir string, owner *forward.Account, there bool) {
	homes, _ := w.accounts(ctx)
	for dir = path.Dir(real); dir != "/"; dir = path.Dir(dir) {
		if owner = homes[dir]; owner != nil {
			return dir, owner, true
		}
	}
	if strings.HasPrefix(real, "/root/") {
		return "/root", nil, true
	}
	if !strings.HasPrefix(real, "/home/") {
		return "", nil, false
	}
	// Of an account that is not in /etc/passwd: whose directory it is.
	dir = "/home"
	for _, name := range strings.Split(strings.TrimPrefix(path.Dir(real), "/home/"), "/") {
		dir = path.Join(dir, name)
		if info, err := w.files.Lstat(ctx, dir); err != nil || info.UID != 0 {
			if err == nil && person(info.UID) {
				owner = w.account(ctx, info.UID)
			}
			return dir, owner, true
		}
	}
	return "/home", nil, true
}

// account is the one of a uid; of one that is not in /etc/passwd no group is known.
func (w *warden) account(ctx context.Context, uid int) *forward.Account {
	if _, byUID := w.accounts(ctx); byUID[uid] != nil {
		return byUID[uid]
	}
	return &forward.Account{UID: uid, GID: forward.NoUID}
}

// peer is the account of the one who asks, with the groups of /etc/group.
func (w *warden) peer(ctx context.Context, peer local.Cred) *forward.Account {
	as := *w.account(ctx, peer.UID)
	if as.GID == forward.NoUID {
		as.GID = peer.GID
	}
	return &as
}

// stamp changes when a file does.
type stamp struct {
	inode uint64
	size  int64
	mtime unix.Timespec
	ctime unix.Timespec
}

func stampOf(paths ...string) (all [2]stamp) {
	for n, p := range paths {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			all[n] = stamp{st.Ino, st.Size, st.Mtim, st.Ctim}
		}
	}
	return all
}

// accounts are those of /etc/passwd and /etc/group, read anew when these have
// changed: ordinary ones and root by their homes, all by their uids.
func (w *warden) accounts(ctx context.Context) (homes map[string]*forward.Account, byUID map[int]*forward.Account) {
	w.mu.Lock()
	defer w.mu.Unlock()
	stamp := stampOf("/etc/passwd", "/etc/group")
	if w.byUID != nil && stamp == w.stamp {
		return w.homes, w.byUID
	}
	all, err := w.read(ctx)
	if err != nil && len(all) == 0 {
		return w.homes, w.byUID
	}
	w.stamp, w.byUID, w.homes = stamp, make(map[int]*forward.Account, len(all)), make(map[string]*forward.Account, len(all))
	parents := map[string]string{}
	for n := range all {
		a := &all[n]
		if w.byUID[a.UID] == nil {
			w.byUID[a.UID] = a
		}
		home := path.Clean(a.Home)
		parent := path.Dir(home)
		if !person(a.UID) && a.UID != 0 || parent == "/" && a.UID != 0 || home == "/" || !strings.HasPrefix(home, "/") {
			continue
		}
		if _, known := parents[parent]; !known {
			parents[parent] = w.files.RealDir(ctx, parent)
		}
		home = path.Join(parents[parent], path.Base(home))
		if w.homes[home] == nil {
			w.homes[home] = a
		}
	}
	return w.homes, w.byUID
}
