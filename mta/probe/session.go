package probe

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// Asks opens an SMTP session and looks whether the mail server then has one on
// the milter's Unix socket: both Postfix and Sendmail call their milters before
// they greet. nil: it has.
func Asks(ctx context.Context, address string, wrapped bool, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, Wait)
	defer cancel()
	c, err := dial(ctx, address, wrapped)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if _, _, err := c.reply(); err != nil {
		return fmt.Errorf("read its greeting: %w", err)
	}
	seen, err := HasSession("/proc/net/unix", socket)
	if err != nil {
		return fmt.Errorf("look for a session on %s: %w", socket, err)
	}
	if !seen {
		return fmt.Errorf("it greeted a client without a session on %s: it does not ask the guard", socket)
	}
	_, _, _ = c.say("QUIT")
	return nil
}

// HasSession reports whether somebody is connected to the socket at path: the
// accepting end carries the listener's path and the state SS_CONNECTED (03). The
// table is that of Unix sockets, /proc/net/unix (proc(5)).
func HasSession(table, path string) (bool, error) {
	f, err := os.Open(table)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) == 8 && fields[7] == path && fields[5] == "03" {
			return true, nil
		}
	}
	return false, lines.Err()
}

// Address is where a service that listens on host and port is reached from
// this machine. An empty host, or one that stands for every address, is reached
// on 127.0.0.1.
func Address(host, port string) (string, error) {
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}
