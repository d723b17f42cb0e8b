package blocklists

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Interfaces tells of this machine's addresses.
type Interfaces interface {
	// Source is the address from which the kernel would connect to others by one
	// protocol; invalid: there is no way.
	Source(ip6 bool) netip.Addr
	// Has reports whether an address is one of this machine's. Where that cannot be
	// found out it is.
	Has(addr netip.Addr) bool
	// Addrs are this machine's addresses; none where that cannot be found out.
	Addrs() []netip.Addr
	// Now is its clock.
	Now() time.Time
	// Hostname is this machine's name.
	Hostname() string
}

// Machine is this one, as it is at each call.
func Machine() Interfaces { return machine{} }

type machine struct{}

// outside are addresses of documentation (RFC 5737, RFC 3849): routes lead there as to
// everywhere else. Several, lest one is kept from leaving by a filter of bogons.
func outside(ip6 bool) (network string, all []string) {
	if ip6 {
		return "udp6", []string{"2001:db8::1", "3fff::1"}
	}
	return "udp4", []string{"192.0.2.1", "198.51.100.1", "203.0.113.1"}
}

// Source connects a UDP socket: that chooses the source address, and sends nothing.
func (machine) Source(ip6 bool) netip.Addr {
	const smtp = "25"
	network, all := outside(ip6)
	for _, there := range all {
		conn, err := net.Dial(network, net.JoinHostPort(there, smtp))
		if err != nil {
			continue
		}
		local, err := netip.ParseAddrPort(conn.LocalAddr().String())
		conn.Close()
		if err == nil {
			return local.Addr().Unmap().WithZone("")
		}
	}
	return netip.Addr{}
}

func (machine) Has(addr netip.Addr) bool {
	all, err := addrs()
	return err != nil || slices.Contains(all, addr)
}

func (machine) Addrs() []netip.Addr {
	all, _ := addrs() // none, as the interface says
	return all
}

func addrs() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, a := range found {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, prefix.Addr().Unmap().WithZone(""))
		}
	}
	return all, nil
}

func (machine) Now() time.Time { return time.Now() }

func (machine) Hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
