package postfix

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/files"
)

// hostname is what this machine is taken for on a copied disk.
func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// host is this machine: live, or as if it were a copied disk.
func host(t *testing.T, live bool) *forward.Host {
	t.Helper()
	h := &forward.Host{Files: files.Local(), Hostname: hostname(t), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	if live {
		h.Run = run
	}
	return h
}

func run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join("/usr/sbin", name), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %v: %w: %s", name, args, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// age makes main.cf and master.cf older than they are: Postfix's programs wait
// up to two seconds before they read one that was just written.
func age(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"main.cf", "master.cf"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// ageAll does the same for all instances below a directory.
func ageAll(t *testing.T, dir string) {
	t.Helper()
	mains, err := filepath.Glob(filepath.Join(dir, "main.cf"))
	more, err2 := filepath.Glob(filepath.Join(dir, "*", "main.cf"))
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	for _, main := range append(mains, more...) {
		age(t, filepath.Dir(main))
	}
}
