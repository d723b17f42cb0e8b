package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// between is a TCP connection between two addresses, of which only they matter.
type between struct {
	net.Conn
	local, remote string
}

func (b between) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(b.local))
}
func (b between) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(b.remote))
}

func TestAllowListIsForOtherMachinesOnly(t *testing.T) {
	judge := admit([]int{12345}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	for _, c := range []struct {
		local, remote, refused string // "" = admitted
	}{
		{"192.0.2.2:8891", "192.0.2.9:40000", ""},
		{"192.0.2.2:8891", "198.51.100.9:40000", "198.51.100.9 is not in the listener's allow list"},
		{"192.0.2.2:8891", "192.0.2.2:40000", "the account behind 192.0.2.2:40000 cannot be found"}, // this machine, by its outer address
		{"127.0.0.1:1", "127.0.0.1:2", "the account behind"},
	} {
		err := judge(between{local: c.local, remote: c.remote})
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s to %s: %v, want %q", c.remote, c.local, err, c.refused)
		}
	}
}

func TestPeersAreKnownByTheirAccount(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := admit([]int{os.Getuid()}, nil)(c); err != nil {
			t.Errorf("%s: our own account: %v", network, err)
		}
		if err := admit([]int{os.Getuid() + 1}, nil)(c); err == nil || !strings.Contains(err.Error(), "is not among the listener's peers") {
			t.Errorf("%s: another account: %v", network, err)
		}
	}
}

func TestOwnAddresses(t *testing.T) {
	var own ownAddresses
	for addr, want := range map[string]bool{"127.0.0.1": true, "::ffff:127.0.0.1": true, "192.0.2.77": false} {
		if got := own.has(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %t, want %t", addr, got, want)
		}
	}
}
