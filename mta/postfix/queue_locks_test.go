package postfix

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLocksAreReadFromTheKernelsList(t *testing.T) {
	all, err := parseLocks(strings.NewReader("1: FLOCK  ADVISORY  READ 9073 fe:00:10383701 0 EOF\n2: POSIX  ADVISORY  WRITE 1 00:1a:77 128 128\n2: -> POSIX  ADVISORY  WRITE 3 00:1a:78 0 EOF\n3: OFDLCK ADVISORY  WRITE -1 fe:00:9 0 EOF\n4: LEASE  ACTIVE    READ 5 <none>:0 0 EOF\n"))
	if err != nil || !maps.Equal(all, locks{10383701: true, 77: true, 78: true, 9: true}) {
		t.Errorf("got %v, %v", all, err)
	}
	if all, err := parseLocks(strings.NewReader("1: FLOCK ADVISORY READ 9073 fe:00:x 0 EOF\n")); err == nil {
		t.Errorf("got %v", all)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if all, err := readLocks(); err != nil || !all[st.Ino] {
		t.Errorf("%d is not in %v, %v", st.Ino, all, err)
	}
}
