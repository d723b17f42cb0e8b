package files_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayguard/forward"
	"relayguard/forward/files"
)

// mountSilent mounts a file system (FUSE) at dir that never answers, as a user
// may do in his home. end makes every question to it fail.
func mountSilent(t *testing.T, dir string) (end func()) {
	t.Helper()
	needRoot(t)
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("silent", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd))
	}
	if err != nil {
		if (os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "") && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) { // no package brings a kernel without it
			t.Fatalf("FUSE required: %v", err)
		}
		t.Skipf("needs FUSE: %v", err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			unix.Unmount(dir, unix.MNT_DETACH)
			unix.Close(fd)
		}
	}
	t.Cleanup(end)
	return end
}

func TestSilentFileSystem(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Mkdir(dir+"/sieve", 0o755), os.WriteFile(dir+"/.forward", []byte("x"), 0o644), os.Symlink("sieve/x", dir+"/link"))
	end := mountSilent(t, dir+"/sieve")
	f := files.Local()
	for name, ask := range map[string]func(ctx context.Context) error{
		"read": func(ctx context.Context) error {
			_, _, err := f.Read(ctx, dir+"/sieve/a", forward.ReadOptions{})
			return err
		},
		"read as": func(ctx context.Context) error {
			_, _, err := f.Read(ctx, dir+"/link", forward.ReadOptions{As: &forward.Account{UID: 5001}})
			return err
		},
		"list": func(ctx context.Context) error {
			_, err := f.ReadDir(ctx, dir+"/sieve", forward.ReadOptions{})
			return err
		},
		"look at":  func(ctx context.Context) error { _, err := f.Lstat(ctx, dir+"/sieve/b"); return err },
		"readlink": func(ctx context.Context) error { _, err := f.Readlink(ctx, dir+"/sieve/c"); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if err := ask(t.Context()); !errors.Is(err, files.ErrHangs) {
			t.Errorf("%s, again: %v", name, err)
		}
	}
	// The others go on.
	if text, _, err := f.Read(t.Context(), dir+"/.forward", forward.ReadOptions{}); string(text) != "x" || err != nil {
		t.Errorf("beside: %q, %v", text, err)
	}
	end()
	for { // what was given up comes back
		if _, err := f.Lstat(t.Context(), dir+"/sieve/b"); !errors.Is(err, files.ErrHangs) {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			break
		}
	}
}
