package redistest

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Network stands between clients and one server. Its methods are safe for
// concurrent use, and act on open connections, too.
type Network struct {
	Addr string // where it listens, "127.0.0.1:port"

	upstream string
	listener net.Listener
	mu       sync.Mutex
	delay    time.Duration
	silent   chan struct{} // closed when bytes flow again; nil: they do
	refuses  bool
	open     map[net.Conn]struct{}
}

// Proxy starts a network to upstream, an address "host:port" or "/path.sock".
func Proxy(t testing.TB, upstream string) *Network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	n := &Network{Addr: l.Addr().String(), upstream: upstream, listener: l, open: map[net.Conn]struct{}{}}
	var all sync.WaitGroup
	all.Go(func() { n.accept(&all) })
	t.Cleanup(func() {
		n.Refuse()
		l.Close()
		n.flow()
		all.Wait()
	})
	return n
}

// Delay holds back every piece of data for so long, in each direction.
func (n *Network) Delay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// Silence swallows nothing and passes nothing on: connections stay open, and
// new ones are accepted, as behind a firewall that drops.
func (n *Network) Silence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.silent == nil {
		n.silent = make(chan struct{})
	}
}

// Cut closes all connections. New ones are let through.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.open {
		c.Close()
	}
}

// Refuse closes all connections, and new ones at once.
func (n *Network) Refuse() {
	n.mu.Lock()
	n.refuses = true
	n.mu.Unlock()
	n.Cut()
}

// Restore lets everything through again. What Silence held back arrives.
func (n *Network) Restore() {
	n.mu.Lock()
	n.refuses, n.delay = false, 0
	n.mu.Unlock()
	n.flow()
}

func (n *Network) flow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.silent != nil {
		close(n.silent)
		n.silent = nil
	}
}

func (n *Network) accept(all *sync.WaitGroup) {
	for {
		client, err := n.listener.Accept()
		if err != nil {
			return
		}
		all.Go(func() { n.join(client) })
	}
}

// join carries one connection until either side closes it.
func (n *Network) join(client net.Conn) {
	defer client.Close()
	network := "tcp"
	if strings.HasPrefix(n.upstream, "/") {
		network = "unix"
	}
	server, err := net.Dial(network, n.upstream)
	if err != nil {
		return
	}
	defer server.Close()
	if !n.enter(client, server) {
		return
	}
	defer n.leave(client, server)
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		both.Go(func() {
			n.carry(from, to)
			from.Close()
			to.Close()
		})
	}
	both.Wait()
}

func (n *Network) enter(conns ...net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuses {
		return false
	}
	for _, c := range conns {
		n.open[c] = struct{}{}
	}
	return true
}

func (n *Network) leave(conns ...net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range conns {
		delete(n.open, c)
	}
}

func (n *Network) carry(from io.Reader, to io.Writer) {
	buf := make([]byte, 64<<10)
	for {
		m, err := from.Read(buf)
		n.mu.Lock()
		delay, silent := n.delay, n.silent
		n.mu.Unlock()
		if silent != nil {
			<-silent
		}
		if delay > 0 {
			time.Sleep(delay)
		}
		if m > 0 {
			if _, err := to.Write(buf[:m]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
