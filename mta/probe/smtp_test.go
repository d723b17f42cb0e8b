package probe_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"relayguard/mta/probe"
)

// A hostile service must not fill the memory.
func TestReplyLineWithoutEndIsLeft(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const most = 256 << 20
	sent := make(chan int, 1)
	go func() {
		total := 0
		defer func() { sent <- total }()
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		chunk := []byte(strings.Repeat("x", 64<<10))
		copy(chunk, "220 ")
		for total < most {
			n, err := conn.Write(chunk)
			if total += n; err != nil {
				return
			}
		}
	}()
	answer, err := probe.SMTP{}.Relays(t.Context(), ln.Addr().String(), false)
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v, %v", answer, err)
	}
	if n := <-sent; n >= most {
		t.Errorf("all of %d octets were read", n)
	}
}
