package local

import (
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func writePasswd(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatal("never: " + what)
}

func TestUsersNamesWithoutWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	writePasswd(t, path, "root:x:0:0::/root:/bin/sh\nsite1:x:6001:6001::/:/bin/sh\ntoor:x:0:0::/:\n#c:x:7:7::\n+::::::\nbad\n")
	hang := make(chan struct{})
	var asked atomic.Int32
	u, err := newUsers(path, func(uid string) (*user.User, error) {
		asked.Add(1)
		<-hang
		if uid == "9000" {
			return &user.User{Username: "from-ldap"}, nil
		}
		return nil, user.UnknownUserIdError(9001)
	}, slog.New(slog.DiscardHandler), 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()

	for uid, want := range map[int]string{0: "root", 6001: "site1", 7: "", -1: ""} {
		if got := u.Name(uid); got != want {
			t.Errorf("uid %d: got %q, want %q", uid, got, want)
		}
	}
	began := time.Now()
	for uid := 9000; uid < 9000+3*maxPending; uid++ {
		u.Name(uid)
		u.Name(uid)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("waited %v for a directory that hangs", took)
	}
	close(hang)
	eventually(t, "name from the directory", func() bool { return u.Name(9000) == "from-ldap" })
	eventually(t, "all asked", func() bool { return asked.Load() >= maxPending })
	before := asked.Load()
	for range 50 {
		u.Name(9000)
		u.Name(9001)
	}
	if asked.Load() > before+maxPending+2 {
		t.Error("asked again for what is remembered")
	}

	writePasswd(t, path, "root:x:0:0::/root:/bin/sh\nsite1-new:x:6001:6001::/:/bin/sh\n")
	eventually(t, "new passwd", func() bool { return u.Name(6001) == "site1-new" })
	stamp, looked := stampOf(path), u.looked.Load()
	os.Remove(path)
	eventually(t, "a look at the missing file", func() bool { return u.looked.Load() > looked+1 })
	if u.Name(6001) != "site1-new" || stampOf(path) == stamp {
		t.Error("names lost with the file")
	}
}

func TestUsersRemembersABoundedNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	writePasswd(t, path, "root:x:0:0::/root:/bin/sh\n")
	u, err := newUsers(path, func(uid string) (*user.User, error) { return &user.User{Username: "u" + uid}, nil }, slog.New(slog.DiscardHandler), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for uid := range 2 * maxResolved {
				u.Name(100000*g + uid + 1)
			}
		})
	}
	wg.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.resolved) > maxResolved+maxPending {
		t.Errorf("%d names remembered", len(u.resolved))
	}
}

func TestUsersOfThisMachine(t *testing.T) {
	u, err := NewUsers(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if got := u.Name(0); got != "root" {
		t.Errorf("uid 0 is %q", got)
	}
}

func FuzzParsePasswd(f *testing.F) {
	f.Add("root:x:0:0::/root:/bin/sh\n")
	f.Add("a:b:99999999999:\n::::\n+@nis\n")
	f.Fuzz(func(t *testing.T, text string) {
		names, _ := parsePasswd(strings.NewReader(text))
		for uid, name := range names {
			if uid < 0 || name == "" || strings.ContainsAny(name, ":\n") {
				t.Fatalf("uid %d name %q", uid, name)
			}
		}
	})
}
