package main

import (
	"fmt"
	"net"
	"os"
)

// notify tells systemd, if it started the daemon, what state it is in:
// sd_notify(3). So "systemctl start" and services ordered behind the guard wait
// until its sockets are there, and a start that fails is seen to fail.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // a leading @ is the abstract space
	if err != nil {
		return fmt.Errorf("tell systemd %q: %w", state, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell systemd %q: %w", state, err)
	}
	return nil
}
