package watch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayguard/forward"
	"relayguard/forward/watch"
)

// needFanotify skips a test on a machine that does not permit it, and fails it in
// CI.
func needFanotify(t *testing.T) {
	t.Helper()
	w, err := watch.New(watch.Options{Method: watch.Fanotify})
	if err == nil {
		w.Close()
		return
	}
	if (os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "") && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) { // no package brings a kernel without it
		t.Fatalf("fanotify required: %v", err)
	}
	t.Skipf("needs fanotify: %v", err)
}

// bothMethods runs a test by fanotify and by inotify.
func bothMethods(t *testing.T, test func(t *testing.T, method string)) {
	for _, method := range []string{watch.Fanotify, watch.Inotify} {
		t.Run(method, func(t *testing.T) {
			if method == watch.Fanotify {
				needFanotify(t)
			}
			test(t, method)
		})
	}
}

// told collects what a watcher tells.
type told struct {
	*watch.Watcher
	t    *testing.T
	dir  string
	mu   sync.Mutex
	all  []forward.Change
	more chan struct{}
	next int // of what expect has not looked at
	mark int // of sentinels
}

// patience bounds a wait for what comes at once; a test that runs into it fails.
const patience = 20 * time.Second

func start(t *testing.T, dir, method string, paths ...string) *told {
	t.Helper()
	w, err := watch.New(watch.Options{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	if w.Method() != method {
		t.Fatalf("method %s, want %s", w.Method(), method)
	}
	c := &told{Watcher: w, t: t, dir: dir, more: make(chan struct{}, 1)}
	c.watch(paths...)
	c.run()
	return c
}

func (c *told) watch(paths ...string) {
	c.t.Helper()
	abs := make([]string, len(paths))
	for n, p := range paths {
		abs[n] = c.dir + "/" + p
		if p == "sentinel" {
			c.mkdir(p)
			abs[n] += "/"
		}
	}
	if err := c.Watch(abs); err != nil {
		c.t.Fatal(err)
	}
}

func (c *told) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, c.hear) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
}

func (c *told) hear(change forward.Change) {
	c.mu.Lock()
	c.all = append(c.all, change)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// expect waits until all paths (below dir; "LOST" for that) have been told since
// the last time, and returns the last change of each.
func (c *told) expect(paths ...string) map[string]forward.Change {
	c.t.Helper()
	got := map[string]forward.Change{}
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		for ; c.next < len(c.all); c.next++ {
			change := c.all[c.next]
			name := strings.TrimPrefix(change.Path, c.dir+"/")
			if change.Lost {
				name = "LOST"
			}
			if old, seen := got[name]; !seen || change.Writer.Known() || !old.Writer.Known() {
				got[name] = change
			}
		}
		c.mu.Unlock()
		missing := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { _, seen := got[p]; return seen })
		if len(missing) == 0 {
			return got
		}
		select {
		case <-c.more:
		case <-deadline:
			c.t.Fatalf("not told: %q; got %v; blind: %q", missing, got, c.Blind())
		}
	}
}

// only fails if more than the paths, each at least once, is told before a
// sentinel: a new file in a watched directory. (A file that is written twice has
// events that the kernel joins, out of their order.)
func (c *told) only(paths ...string) {
	c.t.Helper()
	c.upTo(paths, paths)
}

// atMost is only, where none of the paths needs to be told.
func (c *told) atMost(paths ...string) {
	c.t.Helper()
	c.upTo(nil, paths)
}

func (c *told) upTo(want, may []string) {
	c.t.Helper()
	c.mark++
	sentinel := fmt.Sprintf("sentinel/%d", c.mark)
	c.write(sentinel, "")
	for name := range c.expect(append([]string{sentinel}, want...)...) {
		if !strings.HasPrefix(name, "sentinel") && !slices.Contains(may, name) {
			c.t.Errorf("told %s, too", name)
		}
	}
}

func (c *told) write(name, text string) {
	c.t.Helper()
	ok(c.t, os.WriteFile(c.dir+"/"+name, []byte(text), 0o644))
}

func (c *told) mkdir(names ...string) {
	c.t.Helper()
	for _, name := range names {
		ok(c.t, os.MkdirAll(c.dir+"/"+name, 0o755))
	}
}

func (c *told) rename(from, to string) {
	c.t.Helper()
	ok(c.t, os.Rename(c.dir+"/"+from, c.dir+"/"+to))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestForwardFilesInManyHomes(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		paths := []string{"sentinel"}
		for n := range 500 {
			ok(t, os.MkdirAll(fmt.Sprintf("%s/home/u%d", dir, n), 0o755))
			paths = append(paths, fmt.Sprintf("home/u%d/.forward", n), fmt.Sprintf("home/u%d/.procmailrc", n))
		}
		c := start(t, dir, method, paths...)
		c.write("home/u7/.forward", "x@evil.test")
		c.write("home/u8/.bashrc", "x")
		c.write("home/u9/.forward+ext", "x")
		c.only("home/u7/.forward")
		c.write("home/u7/.forward", "y@evil.test") // again
		c.only("home/u7/.forward")
		ok(t, os.Chmod(dir+"/home/u7/.forward", 0o666))
		c.only("home/u7/.forward")
		ok(t, os.Remove(dir+"/home/u7/.forward"))
		c.only("home/u7/.forward")
		c.write("home/u3/.tmp123", "z@evil.test")
		c.rename("home/u3/.tmp123", "home/u3/.forward") // an editor's way
		c.only("home/u3/.forward")
		c.rename("home/u3/.forward", "home/u3/.forward.off")
		c.only("home/u3/.forward")
		ok(t, os.Symlink(".forward.off", dir+"/home/u3/.forward"))
		c.only("home/u3/.forward")
		c.write("home/u3/.forward.off", "where the link leads")
		c.only("home/u3/.forward")
	})
}

// A writer that goes on without closing its file changes what is in force.
func TestWriterThatNeverCloses(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		c := start(t, dir, method, "f", "sentinel")
		f, err := os.Create(dir + "/f")
		ok(t, err)
		defer f.Close()
		c.expect("f")
		c.only()
		_, err = f.WriteString("x@evil.test")
		ok(t, err)
		c.only("f")
		ok(t, f.Truncate(3))
		c.only("f")
	})
}

func TestDirectoriesThatCome(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		c := start(t, dir, method, "a/b/c/.forward", "a/b/x", "sentinel")
		for n := range 50 { // mkdir and a file at once, before anybody looks
			c.mkdir("a/b/c")
			c.write("a/b/c/.forward", "x")
			c.expect("a/b/c/.forward")
			c.atMost("a/b/c/.forward", "a/b/x")
			ok(t, os.WriteFile(dir+"/a/b/c/.forward", []byte(fmt.Sprint(n)), 0o644))
			c.expect("a/b/c/.forward")
			ok(t, os.RemoveAll(dir+"/a"))
			c.expect("a/b/c/.forward")
		}
	})
}

func TestDirectoriesThatMove(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		c := &told{t: t, dir: dir}
		c.mkdir("home/alice/sieve", "home/bob", "elsewhere/deep")
		c.write("elsewhere/deep/.forward", "x@evil.test")
		c = start(t, dir, method, "home/alice/deep/.forward", "home/alice/sieve/", "home/bob/.forward", "sentinel")
		c.rename("elsewhere/deep", "home/alice/deep")
		c.only("home/alice/deep/.forward")
		c.write("home/alice/deep/.forward", "y@evil.test")
		c.only("home/alice/deep/.forward")
		c.rename("home/alice", "home/carol")
		c.expect("home/alice/deep/.forward", "home/alice/sieve")
		c.only()
		c.write("home/carol/deep/.forward", "not alice's any more")
		c.write("home/carol/sieve/x", "not alice's any more")
		c.only()
		c.rename("home/bob", "home/alice")
		c.mkdir("home/alice/deep", "home/bob")
		c.write("home/alice/deep/.forward", "z")
		c.expect("home/alice/deep/.forward", "home/bob/.forward")
		c.atMost("home/alice/deep/.forward", "home/alice/sieve", "home/bob/.forward")
		c.write("home/bob/.forward", "z")
		c.only("home/bob/.forward")
		c.rename("home", "house")
		c.expect("home/bob/.forward", "home/alice/deep/.forward", "home/alice/sieve")
		c.rename("house", "home")
		c.expect("home/bob/.forward", "home/alice/deep/.forward", "home/alice/sieve")
		c.only()
		c.write("home/bob/.forward", "zz")
		c.only("home/bob/.forward")
		ok(t, os.Chmod(dir+"/home/bob", 0o700)) // the mail server may not get there now
		c.only("home/bob/.forward")
	})
}

func TestTrees(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		c := &told{t: t, dir: dir}
		c.mkdir("sieve/old/older", "beside", "came/x/y")
		c.write("sieve/old/older/s", "keep;")
		c.write("came/x/y/z", "keep;")
		c = start(t, dir, method, "sieve/", "none/", "sentinel")
		c.write("sieve/old/older/s", "redirect")
		c.only("sieve/old/older/s")
		c.write("beside/s", "x")
		c.only()
		for range 20 {
			c.mkdir("sieve/new/newer")
			c.write("sieve/new/newer/s", "redirect")
			c.expect("sieve/new/newer/s")
			c.atMost("sieve/new", "sieve/new/newer", "sieve/new/newer/s")
			c.write("sieve/new/newer/s", "again")
			c.only("sieve/new/newer/s")
			ok(t, os.RemoveAll(dir+"/sieve/new"))
			c.expect("sieve/new/newer/s", "sieve/new")
			c.atMost("sieve/new", "sieve/new/newer")
		}
		c.rename("came", "sieve/came")
		c.expect("sieve/came/x/y/z", "sieve/came")
		c.only()
		c.write("sieve/came/x/y/z", "again")
		c.only("sieve/came/x/y/z")
		c.rename("sieve/came", "went")
		c.expect("sieve/came/x/y/z")
		c.only()
		c.write("went/x/y/z", "again")
		c.only()
		c.mkdir("none/a")
		c.write("none/a/b", "x")
		c.expect("none/a/b")
		c.atMost("none/a/b", "none/a", "none")
		c.watch("none", "sentinel") // not as a tree: its names only
		c.write("none/a/b", "x")
		c.write("sieve/old/older/s", "x")
		c.only()
		c.write("none/c", "x")
		c.only("none")
	})
}

func TestSymbolicLinksOnTheWay(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		c := &told{t: t, dir: dir}
		c.mkdir("data/home/alice", "data2/home/alice", "etc", "srv")
		ok(t, os.Symlink("data", dir+"/d"))
		ok(t, os.Symlink(dir+"/d/home", dir+"/home"))
		ok(t, os.Symlink("../srv/aliases", dir+"/etc/aliases"))
		ok(t, os.Symlink("loop2", dir+"/loop1"))
		ok(t, os.Symlink("loop1", dir+"/loop2"))
		ok(t, os.Symlink("self/self", dir+"/self"))
		c = start(t, dir, method, "home/alice/.forward", "etc/aliases", "loop1/x", "self/x", "sentinel")
		c.write("data/home/alice/.forward", "x")
		c.only("home/alice/.forward")
		c.write("srv/aliases", "x") // it was not there when the watch began
		c.only("etc/aliases")
		c.write("srv/new", "y")
		c.rename("srv/new", "srv/aliases")
		c.only("etc/aliases")
		ok(t, os.Symlink("data2", dir+"/d2"))
		c.rename("d2", "d") // another disk in its place
		c.only("home/alice/.forward")
		c.write("data/home/alice/.forward", "x")
		c.only()
		c.write("data2/home/alice/.forward", "x")
		c.only("home/alice/.forward")
		c.rename("data2/home", "data2/h")
		c.only("home/alice/.forward")
		c.rename("data2/h", "data2/home")
		c.only("home/alice/.forward")
		c.write("data2/home/alice/.forward", "again")
		c.only("home/alice/.forward")
	})
}

// A file may have another name, where nobody looks.
func TestHardLinks(t *testing.T) {
	needFanotify(t)
	dir := t.TempDir()
	c := &told{t: t, dir: dir}
	c.mkdir("home/alice", "tmp", "sieve")
	c.write("home/alice/.forward", "x")
	c.write("sieve/s", "x")
	c = start(t, dir, watch.Fanotify, "home/alice/.forward", "home/bob/.forward", "sieve/", "sentinel")
	ok(t, os.Link(dir+"/home/alice/.forward", dir+"/tmp/other"))
	c.only("home/alice/.forward") // its number of links
	c.write("tmp/other", "evil")
	c.only("home/alice/.forward")
	ok(t, os.Link(dir+"/sieve/s", dir+"/tmp/s"))
	c.only("sieve/s")
	c.write("tmp/s", "evil")
	c.only("sieve/s")
	c.mkdir("home/bob")
	c.write("tmp/bobs", "x")
	ok(t, os.Link(dir+"/tmp/bobs", dir+"/home/bob/.forward"))
	c.expect("home/bob/.forward")
	c.atMost("home/bob/.forward")
	c.write("tmp/bobs", "evil")
	c.only("home/bob/.forward")
}

// An intruder may have his own view of the file system.
func TestBindMountInAPrivateNamespace(t *testing.T) {
	needFanotify(t)
	dir := t.TempDir()
	c := &told{t: t, dir: dir}
	c.mkdir("home/alice", "mnt")
	c = start(t, dir, watch.Fanotify, "home/alice/.forward", "sentinel")
	script := `mount --make-rprivate / && mount --bind "$0/home/alice" "$0/mnt" && echo evil >"$0/mnt/.forward"`
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, dir).CombinedOutput()
	if strings.Contains(string(out), "cannot change root filesystem propagation") {
		t.Skip("the root directory is no mount here: in a chroot")
	}
	if err != nil {
		t.Fatalf("unshare: %v: %s", err, out)
	}
	c.only("home/alice/.forward")
}

// A mount may hide what is watched.
func TestMountOverAHome(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		needFanotify(t) // for the rights
		dir := t.TempDir()
		c := &told{t: t, dir: dir}
		c.mkdir("home/alice", "other")
		c = start(t, dir, method, "home/alice/.forward", "sentinel")
		if err := unix.Mount("tmpfs", dir+"/other", "tmpfs", 0, ""); err != nil {
			t.Fatalf("mount: %v", err)
		}
		ok(t, unix.Unmount(dir+"/other", 0))
		c.only() // it is not on the way
		if err := unix.Mount("tmpfs", dir+"/home", "tmpfs", 0, ""); err != nil {
			t.Fatalf("mount: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir+"/home", unix.MNT_DETACH) })
		c.expect("LOST")
		c.mkdir("home/alice")
		c.write("home/alice/.forward", "x")
		c.expect("home/alice/.forward")
		ok(t, unix.Unmount(dir+"/home", unix.MNT_DETACH))
		c.expect("LOST")
		c.write("home/alice/.forward", "x")
		c.atMost("home/alice/.forward", "LOST")
	})
}

func TestOtherFileSystems(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir, err := os.MkdirTemp("/dev/shm", "watch")
		ok(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		c := start(t, dir, method, "a/.forward", "sentinel")
		c.mkdir("a")
		c.write("a/.forward", "x")
		c.expect("a/.forward")
		c.atMost("a/.forward")
	})
}

func TestWhoWroteIt(t *testing.T) {
	needFanotify(t)
	dir := t.TempDir()
	for up := dir; up != "/" && up != "/tmp"; up = filepath.Dir(up) {
		ok(t, os.Chmod(up, 0o777))
	}
	c := start(t, dir, watch.Fanotify, ".forward", "sentinel")
	cmd := exec.Command("sh", "-c", `echo x >"$0/.forward"; read wait; true`, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 5001, Gid: 5001}}
	in, err := cmd.StdinPipe()
	ok(t, err)
	ok(t, cmd.Start())
	change := c.expect(".forward")[".forward"]
	shell, err := filepath.EvalSymlinks("/bin/sh")
	ok(t, err)
	if by := change.Writer; by.UID != 5001 || by.PID != cmd.Process.Pid || by.Process != shell || by.LoginUID != forward.NoUID && by.LoginUID < 0 {
		t.Errorf("got %+v", by)
	}
	if change.Time.IsZero() || change.Lost {
		t.Errorf("got %+v", change)
	}
	in.Close()
	ok(t, cmd.Wait())
}

// The watch is in force when Watch returns; what nobody reads in time is lost,
// and that is told.
func TestOverflow(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		w, err := watch.New(watch.Options{Method: method})
		ok(t, err)
		c := &told{Watcher: w, t: t, dir: dir, more: make(chan struct{}, 1)}
		c.watch("d/", "sentinel")
		c.mkdir("e")
		if method == watch.Inotify {
			c.watch("e/", "sentinel")
		}
		limit := 16384 // the kernel's default of both
		for n := range limit + 1000 {
			ok(t, os.WriteFile(fmt.Sprintf("%s/e/%d", dir, n), nil, 0o644))
		}
		c.run()
		c.expect("LOST")
		c.only()
	})
}

// One who is slow to hear gets each path once, and is told when it was too much.
func TestSlowHearer(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		dir := t.TempDir()
		w, err := watch.New(watch.Options{Method: method, Pending: 10})
		ok(t, err)
		ok(t, w.Watch([]string{dir + "/"}))
		ctx, cancel := context.WithCancel(t.Context())
		goOn, heard := make(chan bool), make(chan forward.Change)
		done := make(chan error, 1)
		go func() {
			done <- w.Run(ctx, func(c forward.Change) {
				select {
				case heard <- c:
				case <-ctx.Done():
				}
				<-goOn
			})
		}()
		deadline := time.After(30 * time.Second)
		for n := 0; ; n++ { // one is heard for each 50 that happen
			for i := range 50 {
				ok(t, os.WriteFile(fmt.Sprintf("%s/f%d.%d", dir, n, i), nil, 0o644))
			}
			var c forward.Change
			select {
			case c = <-heard:
			case <-deadline:
				t.Fatalf("nothing was told as lost in %d times 50 changes", n)
			}
			if c.Lost {
				break
			}
			goOn <- true
		}
		close(goOn)
		cancel()
		ok(t, <-done)
	})
}

func TestWatchReplaces(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		c := start(t, t.TempDir(), method, "a/x", "b/x", "sentinel")
		c.mkdir("a", "b")
		c.write("a/x", "1")
		c.write("b/x", "1")
		c.expect("a/x", "b/x")
		c.atMost("a/x", "b/x")
		c.watch("b/x", "c", "sentinel")
		c.write("a/x", "2")
		c.write("b/x", "2")
		c.write("c", "2")
		c.only("b/x", "c")
		c.watch("sentinel")
		c.write("b/x", "3")
		c.only()
		if err := c.Watch([]string{"relative", "a\x00b"}); err == nil {
			t.Error("relative paths are taken")
		}
	})
}

func TestNone(t *testing.T) {
	w, err := watch.New(watch.Options{Method: watch.None})
	ok(t, err)
	ok(t, w.Watch([]string{"/etc/passwd"}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ok(t, w.Run(ctx, func(c forward.Change) { t.Error(c) }))
	if _, err := watch.New(watch.Options{Method: "kqueue"}); err == nil {
		t.Error("a method that does not exist")
	}
}

// Many goroutines change the set while things happen.
func TestRaces(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		c := start(t, t.TempDir(), method, "sentinel")
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() {
				for i := range 50 {
					c.Watch([]string{fmt.Sprintf("%s/d%d/%d/x", c.dir, n, i), c.dir + "/d1/", c.dir + "/sentinel"})
					os.MkdirAll(fmt.Sprintf("%s/d%d/%d", c.dir, n, i), 0o755)
					os.WriteFile(fmt.Sprintf("%s/d%d/%d/x", c.dir, n, i), nil, 0o644)
					os.RemoveAll(fmt.Sprintf("%s/d%d", c.dir, (n+1)%4))
					c.Blind()
				}
			})
		}
		all.Wait()
		c.watch("sentinel", "last")
		c.write("last", "x")
		c.expect("last")
	})
}

// A user's own file system may never answer. It must not hold the others up.
func TestSilentFileSystem(t *testing.T) {
	bothMethods(t, func(t *testing.T, method string) {
		needFanotify(t) // for the rights
		dir := t.TempDir()
		c := &told{t: t, dir: dir}
		c.mkdir("home/alice/sieve", "home/bob")
		ok(t, os.Symlink("alice/sieve/deep", dir+"/home/link"))
		c = start(t, dir, method, "home/alice/sieve/", "home/alice/sieve/x/y", "home/link/x", "home/bob/.forward", "sentinel")
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Mount("silent", dir+"/home/alice/sieve", "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd))
		}
		if err != nil {
			if (os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "") && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) { // no package brings a kernel without it
				t.Fatalf("FUSE required: %v", err)
			}
			t.Skipf("needs FUSE: %v", err)
		}
		t.Cleanup(func() {
			unix.Unmount(dir+"/home/alice/sieve", unix.MNT_DETACH)
			unix.Close(fd)
		})
		c.expect("LOST")
		c.write("home/bob/.forward", "x")
		c.only("home/bob/.forward")
		c.watch("home/alice/sieve/", "home/alice/sieve/x/y", "home/alice/sieve/z", "home/link/y", "home/bob/.forward", "sentinel")
		c.write("home/bob/.forward", "y")
		c.only("home/bob/.forward")
		if blind := c.Blind(); len(blind) != 1 || !strings.Contains(blind[0], "fuse") {
			t.Errorf("blind: %q", blind)
		}
	})
}
