package main

import (
	"net"
	"path/filepath"
	"testing"
)

func TestSystemdIsToldTheState(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@" + t.TempDir()} {
		systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer systemd.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		if err := notify("READY=1"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 64)
		n, err := systemd.Read(got)
		if err != nil || string(got[:n]) != "READY=1" {
			t.Errorf("%s: got %q, %v", name, got[:n], err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "/nosuch/socket")
	if err := notify("READY=1"); err == nil {
		t.Error("a socket that is not there is no error")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
}
