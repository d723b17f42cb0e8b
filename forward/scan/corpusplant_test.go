package scan_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func now() time.Time { return time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) }

// written is when all files of a case were, so that no compiled form is older
// than its text unless the case says so.
var written = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// unpack undoes gzip; a Berkeley DB file is nearly all zeros.
func unpack(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(io.LimitReader(r, 1<<22))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// plant writes the bases and the files of a case below root, and returns who
// should own the files that are not root's.
func plant(t *testing.T, root string, c corpusCase) map[string]string {
	t.Helper()
	for _, base := range c.bases {
		if err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", "base", base))); err != nil {
			t.Fatal(err)
		}
	}
	owners := map[string]string{}
	for _, p := range c.parts {
		path := filepath.Join(root, p.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if p.owner != "" {
			owners[p.path] = p.owner
		}
		if p.link != "" {
			if err := os.Symlink(p.link, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, path, p)
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != 0 {
			return err
		}
		at := written
		if strings.HasSuffix(path, ".db") || strings.HasSuffix(path, ".svbin") {
			at = at.Add(time.Minute)
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	return owners
}

func write(t *testing.T, path string, p part) {
	t.Helper()
	if strings.HasSuffix(p.path, "/") {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, p.mode); err != nil {
			t.Fatal(err)
		}
		return
	}
	old, err := os.ReadFile(path)
	if p.add && err != nil {
		t.Fatal(err)
	}
	if !p.add {
		old = nil
	}
	if err := os.WriteFile(path, append(old, p.text...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, p.mode); err != nil {
		t.Fatal(err)
	}
}

// handOver gives homes and mailboxes to their accounts, and files to whom the
// case says. Only root can: without it, every account is made the tester's own,
// and a case about a wrong owner is not run.
func handOver(t *testing.T, root string, c corpusCase, accounts []forward.Account, owners map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if len(owners) > 0 {
			needRoot(t)
		}
		for i := range accounts {
			accounts[i].UID, accounts[i].GID = os.Geteuid(), os.Getegid()
		}
		return
	}
	for _, a := range accounts {
		home := filepath.Join(root, a.Home)
		if a.UID < 1000 || a.UID == 65534 {
			continue
		}
		err := filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return nil // no home
			}
			return os.Lchown(path, a.UID, a.GID)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, name := range owners {
		i := slices.IndexFunc(accounts, func(a forward.Account) bool { return a.Name == name })
		if i < 0 {
			t.Fatalf("%s: no account %s", c.name, name)
		}
		if err := os.Lchown(filepath.Join(root, path), accounts[i].UID, accounts[i].GID); err != nil {
			t.Fatal(err)
		}
	}
}

// needRoot skips a case that needs files of other accounts; where everything is
// required, it fails.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatal("root required: the case has files of several accounts")
	}
	t.Skip("needs root: the case has files of several accounts")
}
