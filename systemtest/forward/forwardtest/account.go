package forwardtest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync/atomic"
	"testing"
)

// Account is one of this machine that exists for one test.
type Account struct {
	Name, Home string
	UID, GID   int
}

var accounts atomic.Int64

// AddAccount makes an account with that group and home, which is not made, and
// takes it away at the end. Who is in the group postdrop may hand in mail at a
// private Postfix.
func AddAccount(t testing.TB, group, home string) Account {
	t.Helper()
	a := Account{Name: fmt.Sprintf("rgfw%dx%d", os.Getpid(), accounts.Add(1)), Home: home}
	if out, err := exec.Command("useradd", "--no-log-init", "-M", "-N", "-g", group, "-d", home, "-s", "/bin/sh", a.Name).CombinedOutput(); err != nil {
		t.Fatalf("useradd: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", a.Name).CombinedOutput(); err != nil {
			t.Errorf("userdel %s: %v: %s", a.Name, err, out)
		}
	})
	u, err := user.Lookup(a.Name)
	if err != nil {
		t.Fatal(err)
	}
	if a.UID, err = strconv.Atoi(u.Uid); err != nil {
		t.Fatal(err)
	}
	if a.GID, err = strconv.Atoi(u.Gid); err != nil {
		t.Fatal(err)
	}
	return a
}

// Plant writes a file as the account's own, in one step.
func (a Account) Plant(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	next := path + ".next"
	for _, err := range []error{os.WriteFile(next, []byte(text), mode), os.Chmod(next, mode), os.Lchown(next, a.UID, a.GID), os.Rename(next, path)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Dir makes a directory of the account's own.
func (a Account) Dir(t testing.TB, path string, mode os.FileMode) {
	t.Helper()
	for _, err := range []error{os.MkdirAll(path, mode), os.Chmod(path, mode), os.Lchown(path, a.UID, a.GID)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
