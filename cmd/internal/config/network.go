package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
)

// The widest networks that one entry may name: beyond them it is not "our
// machines" but the world, or a slip of the pen.
const (
	widest4 = 8
	widest6 = 16
)

var loopback4, loopback6 = netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")

// prefix is a network or one address of other machines.
func prefix() kind[netip.Prefix] {
	k := kind[netip.Prefix]{
		name:   `network "192.0.2.0/24" or address "192.0.2.7"`,
		wanted: `a network such as "192.0.2.0/24" or an address such as "2001:db8::7"`,
		show:   showPrefix,
	}
	return one(k, aString, func(s string) (netip.Prefix, string, bool) {
		p, remedy := parsePrefix(s)
		return p, remedy, remedy == fine
	})
}

func showPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return strconv.Quote(p.Addr().String())
	}
	return strconv.Quote(p.String())
}

func parsePrefix(s string) (p netip.Prefix, remedy string) {
	if ip, err := netip.ParseAddr(s); err == nil {
		if ip.Zone() != "" {
			return p, "leave out the zone behind the %"
		}
		p = netip.PrefixFrom(ip, ip.BitLen())
	} else if p, err = netip.ParsePrefix(s); err != nil {
		return p, "write an address, or one with / and the number of leading bits"
	}
	widest := widest6
	if p.Addr().Is4() {
		widest = widest4
	}
	switch {
	case p.Addr().Is4In6():
		return p, "write it as IPv4, without ::ffff:"
	case p.Bits() < widest:
		return p, fmt.Sprintf("nobody answers for so many: name your own networks, none wider than /%d", widest)
	case p.Overlaps(loopback4) || p.Overlaps(loopback6):
		return p, "leave loopback out: it is this machine, whose accounts are known by their uid"
	case p.Masked() != p:
		return p, fmt.Sprintf("write %q for the network or %q for the one machine", p.Masked(), p.Addr())
	case p.IsSingleIP() && (p.Addr().IsUnspecified() || p.Addr().IsMulticast()):
		return p, "no machine has this address: delete it"
	}
	return p, fine
}

// maxUnixPath is sizeof(sockaddr_un.sun_path) less its final NUL: unix(7).
const maxUnixPath = 107

// socketPath is the file name of a Unix socket.
func socketPath() kind[string] {
	k := absolutePath("a socket")
	path := k.read
	return text(k.name, k.wanted, func(s string) string {
		_, faults := path(&value{kind: aString, text: s})
		switch {
		case len(faults) > 0:
			return faults[0].remedy
		case len(s) > maxUnixPath:
			return fmt.Sprintf("shorten the path from %d bytes to at most %d, which is all that the kernel takes", len(s), maxUnixPath)
		case s == "/":
			return "name a socket in a directory"
		}
		return fine
	})
}

// endpoint is where a listener listens.
func endpoint() kind[Endpoint] {
	k := kind[Endpoint]{
		name:   `"unix:/path" or "tcp:address:port"`,
		wanted: `"unix:/path", "tcp:127.0.0.1:8891" or "tcp:[::1]:8891"`,
		show:   func(e Endpoint) string { return strconv.Quote(e.String()) },
	}
	path := socketPath()
	return one(k, aString, func(s string) (Endpoint, string, bool) {
		family, rest, _ := strings.Cut(s, ":")
		switch family {
		case "unix":
			_, faults := path.read(&value{kind: aString, text: rest})
			if len(faults) > 0 {
				return Endpoint{}, faults[0].remedy, false
			}
			return Endpoint{Path: rest}, "", true
		case "tcp":
			ap, remedy := parseTCP(rest)
			return Endpoint{TCP: ap}, remedy, remedy == fine
		}
		return Endpoint{}, "begin it with unix: or tcp:", false
	})
}

func parseTCP(s string) (ap netip.AddrPort, remedy string) {
	ap, err := netip.ParseAddrPort(s)
	switch host, port, _ := cutLast(s, ":"); {
	case err == nil && ap.Port() == 0:
		return ap, "zero does not mean any port: name one from 1 to 65535"
	case err == nil:
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), fine
	case host == "":
		return ap, fmt.Sprintf("name the address to bind, such as %s", quote("tcp:127.0.0.1:"+port))
	case host == "localhost":
		return ap, fmt.Sprintf("names are not looked up: write %s", quote("tcp:127.0.0.1:"+port))
	}
	return ap, "write an address, not a name, with its port; IPv6 in brackets"
}

// socketMode is the file mode of a Unix socket. Whoever may write to it may
// play the MTA.
func socketMode() kind[fs.FileMode] {
	k := kind[fs.FileMode]{
		name:   `octal file mode, "0600" to "0660"`,
		wanted: `a file mode such as "0660"`,
		show:   func(m fs.FileMode) string { return fmt.Sprintf("%q", fmt.Sprintf("%04o", m)) },
	}
	return one(k, aString, func(s string) (fs.FileMode, string, bool) {
		m, err := strconv.ParseUint(s, 8, 32)
		switch {
		case err != nil || len(s) > 4 || m > 0o777:
			return 0, "write three octal digits", false
		case m&0o007 != 0:
			return 0, "every account of this machine could play the MTA: give the last digit as 0 and set group", false
		case m&0o600 != 0o600 || m&0o110 != 0:
			return 0, `write "0660", or "0600" if MTA and guard run as one account`, false
		}
		return fs.FileMode(m), "", true
	})
}

// overlaps reports that one of two different TCP endpoints takes connections
// meant for the other. The kernel may allow that; which socket gets what is
// then nobody's choice.
func (e Endpoint) overlaps(o Endpoint) bool {
	if e.Path != "" || o.Path != "" || e == o || e.TCP.Port() != o.TCP.Port() {
		return false
	}
	return covers(e.TCP.Addr(), o.TCP.Addr()) || covers(o.TCP.Addr(), e.TCP.Addr())
}

// covers reports that binding a takes b too: [::] takes IPv4 as well.
func covers(a, b netip.Addr) bool { return a.IsUnspecified() && (a.Is6() || b.Is4()) }
