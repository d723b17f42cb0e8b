package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
)

// Review 1, finding 15: the daemon panicked at its end when its control socket
// could not be opened.
func TestServeEndsInOrderWithoutItsControlSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "rgs") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, socket := filepath.Join(dir, "relayguard.toml"), filepath.Join(dir, "milter.sock")
	text := fmt.Sprintf(`[mta]
config_directory = %[1]q
log = "none"
[control]
socket = "%[1]s/nowhere/control.sock"
[journal]
directory = "%[1]s/journal"
[forward]
watch = false
[rbl]
watch = false
[report]
at = ""
[[listener]]
name = "submission"
role = "submission"
address = "unix:%[2]s"
`, dir, socket)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- serve(ctx, c, path, io.Discard) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}
