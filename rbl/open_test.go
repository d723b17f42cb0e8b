package rbl_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relayguard/rbl"
)

// Whoever opened a FIFO as a file would wait for a writer, and for ever.
func TestReadFileTakesRegularFilesAlone(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, link, "/dev/zero", dir} {
		if _, err := rbl.ReadFile(path, 10); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := rbl.Load(path); err == nil || !strings.Contains(err.Error(), "zones file: ") {
			t.Errorf("load %s: %v", path, err)
		}
	}
	if _, err := rbl.ReadFile(filepath.Join(dir, "none"), 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("secret0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := rbl.ReadFile(file, 10); err != nil || string(text) != "secret0123" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := rbl.ReadFile(file, 9); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a file that is too large: %v", err)
	}
}
