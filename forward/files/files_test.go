package files_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayguard/forward"
	"relayguard/forward/files"
)

// needRoot skips a test on a laptop that gives no root, and fails it in CI.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatal("this test needs root, and RELAYGUARD_REQUIRE or CI is set")
	}
	t.Skip("needs root: files of several accounts")
}

// place is a directory as one of the readers sees it.
type place struct {
	forward.Files
	dir    string // where it is
	prefix string // what the reader's paths begin with
}

// in is a path for the reader, at for the test.
func (p place) in(name string) string { return p.prefix + "/" + name }
func (p place) at(name string) string { return filepath.Join(p.dir, name) }

// everywhere runs a test over both readers.
func everywhere(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("local", func(t *testing.T) {
		dir := tempDir(t)
		test(t, place{files.Local(), dir, dir})
	})
	t.Run("rooted", func(t *testing.T) {
		dir := tempDir(t)
		r, err := files.Rooted(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		test(t, place{r, dir, ""})
	})
}

// tempDir is one that every account may search.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "files")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func (p place) write(t *testing.T, name, text string, mode os.FileMode, uid, gid int) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(p.at(name)), 0o755), os.WriteFile(p.at(name), []byte(text), mode), os.Chmod(p.at(name), mode))
	if os.Getuid() == 0 {
		must(t, os.Lchown(p.at(name), uid, gid))
	}
}

func TestReadTellsTheContentAndWhatIsOpen(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		p.write(t, "home/alice/.forward", "out@evil.test\n", 0o640, 0, 0)
		must(t, os.Symlink(".forward", p.at("home/alice/link")))
		for _, name := range []string{"home/alice/.forward", "home/alice/link", "home/alice/../alice/.forward"} {
			text, info, err := p.Read(t.Context(), p.in(name), forward.ReadOptions{})
			if string(text) != "out@evil.test\n" || err != nil || info.Size != 14 || info.Mode != 0o640 || info.Links != 1 || info.Inode == 0 || info.MTime.IsZero() {
				t.Errorf("%s: %q, %+v, %v", name, text, info, err)
			}
		}
		if _, _, err := p.Read(t.Context(), p.in("home/alice/link"), forward.ReadOptions{NoFollow: true}); !errors.Is(err, forward.ErrNotRegular) {
			t.Errorf("a link without following: %v", err)
		}
		if info, err := p.Lstat(t.Context(), p.in("home/alice/link")); err != nil || info.Mode&fs.ModeSymlink == 0 || info.Name != "link" {
			t.Errorf("lstat of a link: %+v, %v", info, err)
		}
		if to, err := p.Readlink(t.Context(), p.in("home/alice/link")); to != ".forward" || err != nil {
			t.Errorf("readlink: %q, %v", to, err)
		}
		if _, err := p.Readlink(t.Context(), p.in("home/alice/.forward")); err == nil {
			t.Error("readlink of a file")
		}
		for _, name := range []string{"nobody", "home/alice/.forward/x", strings.Repeat("x", 300)} {
			if _, _, err := p.Read(t.Context(), p.in(name), forward.ReadOptions{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%.20s: %v", name, err)
			}
		}
		for _, odd := range []string{"", "etc/passwd", "/a\x00b"} {
			if _, err := p.Lstat(t.Context(), odd); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q: %v", odd, err)
			}
		}
	})
}

func TestReadDirAndLstatAll(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		var paths, want []string
		for n := range 700 {
			name := fmt.Sprintf("d/f%04d", n)
			p.write(t, name, "x", 0o600, 0, 0)
			paths, want = append(paths, p.in(name), p.in(name+"-none")), append(want, filepath.Base(name))
		}
		infos, err := p.ReadDir(t.Context(), p.in("d"), forward.ReadOptions{})
		var got []string
		for _, info := range infos {
			got = append(got, info.Name)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d entries, %v", len(got), err)
		}
		infos, err = p.ReadDir(t.Context(), p.in("d/"), forward.ReadOptions{MaxEntries: 10})
		if !errors.Is(err, forward.ErrTooLarge) || len(infos) != 10 {
			t.Errorf("bounded: %d entries, %v", len(infos), err)
		}
		infos, err = p.LstatAll(t.Context(), paths)
		if err != nil || len(infos) != len(paths) {
			t.Fatalf("%d infos, %v", len(infos), err)
		}
		for n, info := range infos {
			if (info.Name != "") != (n%2 == 0) {
				t.Fatalf("%s: %+v", paths[n], info)
			}
		}
		if _, err := p.ReadDir(t.Context(), p.in("d/f0001"), forward.ReadOptions{}); err == nil {
			t.Error("a file is listed")
		}
	})
}

// Nothing of these may hang, be read, or be opened.
func TestHostileHome(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		p.write(t, "h/ok", "x", 0o644, 0, 0)
		must(t, unix.Mkfifo(p.at("h/fifo"), 0o666),
			os.Symlink("loop2", p.at("h/loop1")), os.Symlink("loop1", p.at("h/loop2")),
			os.Symlink("self/self", p.at("h/self")), os.Symlink("fifo", p.at("h/tofifo")))
		sparse, err := os.Create(p.at("h/sparse"))
		must(t, err, sparse.Truncate(1<<30), sparse.Close())
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, err, unix.Bind(fd, &unix.SockaddrUnix{Name: p.at("h/sock")}))
		defer unix.Close(fd)
		if unix.Mknod(p.at("h/dev"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) == nil { // /dev/zero
			if _, _, err := p.Read(t.Context(), p.in("h/dev"), forward.ReadOptions{}); !errors.Is(err, forward.ErrNotRegular) {
				t.Errorf("a device: %v", err)
			}
		}
		alice := &forward.Account{Name: "alice", UID: 5001, GID: 5001}
		for name, want := range map[string]error{"fifo": forward.ErrNotRegular, "tofifo": forward.ErrNotRegular, "sock": forward.ErrNotRegular,
			".": forward.ErrNotRegular, "loop1": fs.ErrNotExist, "self": fs.ErrNotExist, "sparse": forward.ErrTooLarge} {
			for _, as := range []*forward.Account{nil, alice} {
				_, info, err := p.Read(t.Context(), p.in("h/"+name), forward.ReadOptions{As: as})
				if !errors.Is(err, want) {
					t.Errorf("%s as %v: %v, want %v", name, as, err, want)
				}
				if name == "sparse" && info.Size != 1<<30 {
					t.Errorf("sparse: %+v", info)
				}
			}
		}
	})
}

func TestDeepDirectories(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		deep := "deep" + strings.Repeat("/d", 500)
		p.write(t, deep+"/.forward", "x@evil.test", 0o644, 0, 0)
		for _, as := range []*forward.Account{nil, {UID: 5001, GID: 5001}} {
			text, _, err := p.Read(t.Context(), p.in(deep+"/.forward"), forward.ReadOptions{As: as})
			if string(text) != "x@evil.test" || err != nil {
				t.Errorf("as %v: %q, %v", as, text, err)
			}
			if _, _, err := p.Read(t.Context(), p.in(deep+strings.Repeat("/d", 200_000)), forward.ReadOptions{As: as}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("as %v: %v", as, err)
			}
		}
	})
}

func TestReadAsAnAccount(t *testing.T) {
	needRoot(t)
	everywhere(t, func(t *testing.T, p place) {
		for name, text := range map[string]string{"own": "1", "group": "1", "world": "1", "secret": "1", "ownnot": "1", "private/x": "1", "shared/x": "1", "acl": "1", "aclmask": "1"} {
			p.write(t, name, text, 0o644, 0, 0)
		}
		chown := func(name string, uid, gid int, mode uint32) {
			t.Helper()
			must(t, os.Chown(p.at(name), uid, gid), unix.Chmod(p.at(name), mode))
		}
		chown("own", 5001, 0, 0o600)
		chown("group", 0, 700, 0o640)
		chown("secret", 0, 0, 0o600)
		chown("ownnot", 5001, 0, 0o044) // who owns it is judged by the owner's bits alone
		chown("private", 0, 0, 0o700)
		chown("shared", 0, 700, 0o710)
		chown("acl", 0, 0, 0o600)
		chown("aclmask", 0, 0, 0o600)
		if out, err := exec.Command("setfacl", "-m", "u:5001:r", p.at("acl")).CombinedOutput(); err != nil {
			t.Fatalf("setfacl: %v: %s", err, out)
		}
		if out, err := exec.Command("setfacl", "-m", "u:5001:r,m::-", p.at("aclmask")).CombinedOutput(); err != nil {
			t.Fatalf("setfacl: %v: %s", err, out)
		}
		must(t, os.Symlink("secret", p.at("tosecret")), os.Symlink(p.in("world"), p.at("toworld")), os.Symlink("private/../world", p.at("through")))
		alice := &forward.Account{Name: "alice", UID: 5001, GID: 5001, Groups: []int{700}}
		for name, may := range map[string]bool{"own": true, "group": true, "world": true, "secret": false, "ownnot": false, "private/x": false,
			"shared/x": true, "acl": true, "aclmask": false, "tosecret": false, "toworld": true, "through": false} {
			_, _, err := p.Read(t.Context(), p.in(name), forward.ReadOptions{As: alice})
			if may && err != nil || !may && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s: %v, want readable=%v", name, err, may)
			}
			if _, _, err := p.Read(t.Context(), p.in(name), forward.ReadOptions{As: &forward.Account{Name: "root"}}); err != nil {
				t.Errorf("%s as root: %v", name, err)
			}
		}
		if _, err := p.ReadDir(t.Context(), p.in("shared"), forward.ReadOptions{As: alice}); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a directory that may be searched only: %v", err)
		}
		if infos, err := p.ReadDir(t.Context(), p.in(""), forward.ReadOptions{As: alice}); err != nil || len(infos) < 10 {
			t.Errorf("a directory: %d, %v", len(infos), err)
		}
	})
}

// The kernel is asked what alice may read, in a process of hers.
func TestReadAsAgreesWithTheKernel(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	p := place{files.Local(), dir, dir}
	n := 0
	for _, uid := range []int{0, 5001} {
		for _, gid := range []int{0, 5001, 700, 701} {
			for _, mode := range []os.FileMode{0, 0o400, 0o040, 0o004, 0o440, 0o404, 0o044, 0o640} {
				for _, acl := range []string{"", "u:5001:r", "u:5001:-", "g:700:r", "g:700:-,g:701:r", "g:700:r,m::-"} {
					name := fmt.Sprintf("f%03d", n)
					n++
					p.write(t, name, "x", mode, uid, gid)
					if acl != "" {
						if out, err := exec.Command("setfacl", "-m", acl, p.at(name)).CombinedOutput(); err != nil {
							t.Fatalf("setfacl: %v: %s", err, out)
						}
					}
				}
			}
		}
	}
	cmd := exec.Command("sh", "-c", `cd "$0" && for f in f*; do if cat "$f" >/dev/null 2>&1; then echo "$f"; fi; done`, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 5001, Gid: 5001, Groups: []uint32{700}}}
	out, err := cmd.Output()
	must(t, err)
	var got []string
	for i := range n {
		name := fmt.Sprintf("f%03d", i)
		if _, _, err := p.Read(t.Context(), p.in(name), forward.ReadOptions{As: &forward.Account{UID: 5001, GID: 5001, Groups: []int{700}}}); err == nil {
			got = append(got, name)
		}
	}
	if want := strings.Fields(string(out)); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("of %d files, readable:\n got %v\nwant %v", n, got, want)
	}
}

func TestRootedStaysInside(t *testing.T) {
	dir := tempDir(t)
	must(t, os.MkdirAll(dir+"/image/etc", 0o755), os.WriteFile(dir+"/secret", []byte("outside"), 0o644), os.WriteFile(dir+"/image/etc/passwd", []byte("image"), 0o644),
		os.Symlink("/etc/passwd", dir+"/image/absolute"), os.Symlink("../../../../../../etc/passwd", dir+"/image/up"),
		os.Symlink("../secret", dir+"/image/beside"), os.Symlink("/proc/self/root/"+dir+"/secret", dir+"/image/proc"), os.Symlink(dir+"/image", dir+"/link"))
	for _, root := range []string{dir + "/image", dir + "/link"} {
		r, err := files.Rooted(root)
		must(t, err)
		defer r.Close()
		for _, as := range []*forward.Account{nil, {UID: 5001, GID: 5001}} {
			for name, want := range map[string]string{"/absolute": "image", "/up": "image", "/beside": "", "/proc": "", "/../secret": "", "/../../etc/passwd": "image"} {
				text, _, err := r.Read(t.Context(), name, forward.ReadOptions{As: as})
				if string(text) != want || (err == nil) != (want != "") {
					t.Errorf("%s as %v: %q, %v", name, as, text, err)
				}
			}
		}
	}
	if _, err := files.Rooted(dir + "/secret"); err == nil {
		t.Error("a file as root")
	}
}

// The owner of a file may hold a lease on it, and an open(2) then waits up to 45
// seconds for him.
func TestLeaseDoesNotHang(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		p.write(t, "leased", "x", 0o644, 0, 0)
		f, err := os.OpenFile(p.at("leased"), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			t.Fatalf("take a lease: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, _, err := p.Read(ctx, p.in("leased"), forward.ReadOptions{}); err == nil {
			t.Error("a leased file was read")
		}
		must(t, f.Close())
		// The step that was given up comes back, and the path is free again.
		for {
			if _, _, err := p.Read(t.Context(), p.in("leased"), forward.ReadOptions{}); err == nil {
				break
			} else if !errors.Is(err, files.ErrHangs) {
				t.Fatal(err)
			}
		}
	})
}

func TestReadIsBounded(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		p.write(t, "f", strings.Repeat("x", 1000), 0o644, 0, 0)
		if _, _, err := p.Read(t.Context(), p.in("f"), forward.ReadOptions{Max: 999}); !errors.Is(err, forward.ErrTooLarge) {
			t.Errorf("999: %v", err)
		}
		if text, _, err := p.Read(t.Context(), p.in("f"), forward.ReadOptions{Max: 1000}); len(text) != 1000 || err != nil {
			t.Errorf("1000: %d, %v", len(text), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := p.Read(ctx, p.in("f"), forward.ReadOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// A file of /proc has no size, and may not end.
func TestReadOfNoSize(t *testing.T) {
	text, _, err := files.Local().Read(t.Context(), "/proc/self/status", forward.ReadOptions{})
	if !strings.Contains(string(text), "Pid:") || err != nil {
		t.Errorf("%d octets, %v", len(text), err)
	}
	if _, _, err := files.Local().Read(t.Context(), "/proc/self/maps", forward.ReadOptions{Max: 100}); !errors.Is(err, forward.ErrTooLarge) {
		t.Errorf("bounded: %v", err)
	}
	if _, _, err := files.Local().Read(t.Context(), "/proc/self/exe", forward.ReadOptions{}); err == nil {
		t.Error("a magic link is followed")
	}
}

func TestReadAccounts(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		if p.prefix != "" {
			return // it would be this machine's
		}
		p.write(t, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n+nis::::::\nalice:x:5001:5001::/home/alice:/bin/sh\nbad:x:y:1::/x:\nalice:x:1:1::/other:\n\nbob:x:5002:100:B,,,:/srv/bob:\nno:x:4294967295:1::/:\nshort:x:1\n", 0o644, 0, 0)
		got, err := files.ReadAccounts(t.Context(), p)
		must(t, err)
		if len(got) != 3 || len(got[1].Groups) != 0 {
			t.Fatalf("without groups: %+v", got)
		}
		p.write(t, "etc/group", "mail:x:8:alice,bob\nusers:x:100:bob\nwheel:x:10:nobody, alice\nbroken:x:z:alice\n", 0o644, 0, 0)
		got, err = files.ReadAccounts(t.Context(), p)
		must(t, err)
		want := []forward.Account{{Name: "root", Home: "/root", Shell: "/bin/bash"},
			{Name: "alice", UID: 5001, GID: 5001, Groups: []int{8, 10}, Home: "/home/alice", Shell: "/bin/sh"},
			{Name: "bob", UID: 5002, GID: 100, Groups: []int{8}, Home: "/srv/bob"}}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

func BenchmarkLstatAll(b *testing.B) {
	dir := b.TempDir()
	var paths []string
	for n := range 50_000 {
		paths = append(paths, fmt.Sprintf("%s/none%05d/.forward", dir, n))
	}
	f := files.Local()
	for b.Loop() {
		f.LstatAll(b.Context(), paths)
	}
}

func BenchmarkReadAs(b *testing.B) {
	dir := b.TempDir()
	path := dir + "/.forward"
	if err := os.WriteFile(path, []byte("x@evil.test"), 0o644); err != nil {
		b.Fatal(err)
	}
	f := files.Local()
	for b.Loop() {
		f.Read(b.Context(), path, forward.ReadOptions{As: &forward.Account{UID: 5001, GID: 5001}})
	}
}
