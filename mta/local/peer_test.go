package local

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestPeerCred(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got, err := PeerCred(server.(*net.UnixConn))
	want := Cred{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	server.Close()
	if _, err := PeerCred(server.(*net.UnixConn)); err == nil {
		t.Fatal("no error for a closed connection")
	}
}
