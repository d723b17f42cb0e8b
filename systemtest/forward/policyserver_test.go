package forward_test

import (
	"bufio"
	"fmt"
	"net"
	"testing"
)

// newPolicyServer answers every question of Postfix's policy protocol with one
// action, until the test ends, and returns its address.
func newPolicyServer(t *testing.T, action string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for in := bufio.NewScanner(conn); in.Scan(); {
					if in.Text() == "" {
						fmt.Fprintf(conn, "action=%s\n\n", action)
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}
