package resolve

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Found is a resolver that the machine is set to use.
type Found struct {
	Address string `json:"address"` // host:port
	Source  string `json:"source"`  // "/etc/resolv.conf"
	// Public is whose public one it is, or to whose it forwards: "Google"; not used
	// unless configured.
	Public string     `json:"public,omitempty"`
	Own    bool       `json:"own"` // on this machine
	Addr   netip.Addr `json:"-"`
}

const (
	resolvConf    = "/etc/resolv.conf"
	upstreamsConf = "/run/systemd/resolve/resolv.conf" // of systemd-resolved
)

// mostServers is how many name servers the C library takes of resolv.conf (MAXNS).
const mostServers = 3

// System are the resolvers of this machine: resolv.conf's, and behind
// systemd-resolved those that it forwards to. root is "" or the top of another tree.
// A machine without resolv.conf, or with none in it, asks 127.0.0.1 (resolv.conf(5)).
func System(root string) ([]Found, error) {
	addrs, err := nameservers(root, resolvConf)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	var found []Found
	add := func(addr netip.Addr, source string) {
		f := Found{
			Address: net.JoinHostPort(addr.String(), "53"), Source: source,
			Own: own(addr), Addr: addr,
		}
		if slices.ContainsFunc(found, func(has Found) bool { return has.Address == f.Address }) {
			return
		}
		f.Public = publicBehind(root, f)
		found = append(found, f)
	}
	for _, addr := range addrs {
		add(addr, resolvConf)
		if !resolvedStub(addr) {
			continue
		}
		upstreams, err := nameservers(root, upstreamsConf)
		if err != nil {
			return nil, err
		}
		for _, upstream := range upstreams {
			add(upstream, upstreamsConf)
		}
	}
	return found, nil
}

// publicBehind says whose public resolver answers in the end, as far as it can be
// seen here.
func publicBehind(root string, f Found) string {
	if whose := Public(f.Addr); whose != "" || !f.Own {
		return whose
	}
	for _, s := range behind(root, f) {
		for _, addr := range s.to {
			if whose := Public(addr); whose != "" {
				return whose
			}
		}
	}
	return ""
}

// resolvedStub reports whether systemd-resolved listens there.
func resolvedStub(addr netip.Addr) bool {
	return addr == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || addr == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

// own reports whether an address is this machine's.
func own(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return false // then nothing is known of how it works, which is as much as of any other
	}
	return slices.ContainsFunc(interfaces, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == addr.WithZone("")
	})
}

// nameservers are those of a file in the format of resolv.conf(5), at most three;
// none if there is no such file.
func nameservers(root, path string) ([]netip.Addr, error) {
	text, err := (&tree{root: root}).read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the machine's name servers: %w", err)
	}
	return parseNameservers(text), nil
}

// parseNameservers passes over lines that the C library does not understand either.
func parseNameservers(text string) []netip.Addr {
	var addrs []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		// The word has to begin the line: before it nothing may stand.
		if len(fields) < 2 || fields[0] != "nameserver" || !strings.HasPrefix(line, "nameserver") {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil {
			continue
		}
		if addrs = append(addrs, addr.Unmap()); len(addrs) == mostServers {
			break
		}
	}
	return addrs
}
