package nodes_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// way is the network from a web node to the relay: who connects to addr comes from
// another machine's address there.
type way struct {
	addr string
	from netip.Addr
	to   string
}

// openWay starts one to a service that takes XCLIENT.
func openWay(t *testing.T, from netip.Addr, to string) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{l.Addr().String(), from, to}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				if err := w.carry(conn); err != nil {
					fmt.Fprintf(conn, "421 4.3.2 %v\r\n", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return w
}

// carry tells the relay whence the client comes, then what the two say.
func (w *way) carry(client net.Conn) error {
	relay, err := net.DialTimeout("tcp", w.to, 10*time.Second)
	if err != nil {
		return err
	}
	defer relay.Close()
	answers := bufio.NewReader(relay)
	greeting := ""
	for _, say := range []string{"", "EHLO way.example.jp\r\n", fmt.Sprintf("XCLIENT NAME=[UNAVAILABLE] ADDR=%s\r\n", w.from)} {
		if _, err := io.WriteString(relay, say); err != nil {
			return err
		}
		if greeting, err = reply(answers); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(client, greeting); err != nil {
		return err
	}
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(client, answers)
		client.Close()
	})
	io.Copy(relay, client)
	relay.Close()
	back.Wait()
	return nil
}

// reply reads one, of one line or several.
func reply(r *bufio.Reader) (text string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		text += line
		if len(line) < 4 || line[3] != '-' {
			if !strings.HasPrefix(line, "2") {
				return "", fmt.Errorf("the relay says %q", line)
			}
			return text, nil
		}
	}
}
