package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Recursion is how a resolver gets its answers.
type Recursion string

const (
	Itself   Recursion = "recursive" // it asks the authoritative servers itself
	Forwards Recursion = "forwards"  // somebody else asks for it
	NotKnown Recursion = "unknown"
)

// setup is how a name server program of this machine is set up.
type setup struct {
	program string
	file    string // that says so
	how     Recursion
	to      []netip.Addr // of Forwards, as far as they are addresses
	why     string       // of NotKnown
}

// Recurses tells, as far as it can be seen without asking third parties' services
// that are made for it, how a resolver of this machine works: by the configuration
// of unbound, named, Knot Resolver, PowerDNS Recursor, dnsmasq and systemd-resolved.
// The text is the reason, for people. Only files are read: what was changed in a
// program while it runs, and who of several listens, is not seen.
func Recurses(root string, f Found) (Recursion, string) {
	if !f.Own {
		return NotKnown, "it is not on this machine"
	}
	setups := behind(root, f)
	if len(setups) == 0 {
		return NotKnown, "no program for it is known here"
	}
	var whys []string
	how := setups[0].how
	for _, s := range setups {
		whys = append(whys, s.String())
		if s.how != how {
			how = NotKnown
		}
	}
	return how, strings.Join(whys, "; ")
}

// String is what is known of it, in words.
func (s setup) String() string {
	switch s.how {
	case Itself:
		return fmt.Sprintf("%s asks the authoritative servers itself (%s)", s.program, s.file)
	case NotKnown:
		return fmt.Sprintf("%s: %s (%s)", s.program, s.why, s.file)
	}
	if len(s.to) == 0 {
		return fmt.Sprintf("%s asks other resolvers (%s)", s.program, s.file)
	}
	var to []string
	for _, addr := range s.to {
		name := addr.String()
		if whose := Public(addr); whose != "" {
			name += " of " + whose
		}
		to = append(to, name)
	}
	return fmt.Sprintf("%s asks %s (%s)", s.program, strings.Join(to, ", "), s.file)
}

// programs are the name servers that we can read the configuration of. One counts
// as installed if its program is there: configuration alone stays behind when
// packages go.
var programs = [...]struct {
	name    string
	at      []string // the program
	configs []string // the first that is there
	read    func(t *tree, config string) (setup, bool, error)
}{
	{"unbound", []string{"/usr/sbin/unbound", "/usr/local/sbin/unbound"}, []string{"/etc/unbound/unbound.conf", "/usr/local/etc/unbound/unbound.conf"}, readUnbound},
	{"named", []string{"/usr/sbin/named", "/usr/local/sbin/named"}, []string{"/etc/bind/named.conf", "/etc/named.conf"}, readNamed},
	{"Knot Resolver", []string{"/usr/sbin/kresd", "/usr/bin/kresd", "/usr/bin/knot-resolver"}, []string{"/etc/knot-resolver/config.yaml", "/etc/knot-resolver/kresd.conf"}, readKnot},
	{"PowerDNS Recursor", []string{"/usr/sbin/pdns_recursor"}, []string{"/etc/powerdns/recursor.yml", "/etc/powerdns/recursor.conf", "/etc/pdns-recursor/recursor.yml", "/etc/pdns-recursor/recursor.conf"}, readPDNS},
	{"dnsmasq", []string{"/usr/sbin/dnsmasq"}, []string{"/etc/dnsmasq.conf"}, readDnsmasq},
}

// behind are the programs that may answer at an address of this machine.
func behind(root string, f Found) []setup {
	if resolvedStub(f.Addr) {
		return []setup{resolved(root)}
	}
	var setups []setup
	for _, p := range programs {
		t := &tree{root: root}
		i := slices.IndexFunc(p.configs, func(c string) bool { return t.has(c) })
		if i < 0 || !t.has(p.at...) {
			continue
		}
		s, answers, err := p.read(t, p.configs[i])
		if err != nil {
			s, answers = setup{how: NotKnown, why: "its configuration cannot be read: " + err.Error()}, true
		}
		if !answers {
			continue
		}
		s.program = p.name
		if s.file == "" {
			s.file = p.configs[i]
		}
		setups = append(setups, s)
	}
	return setups
}

// resolved is systemd-resolved, which always forwards.
func resolved(root string) setup {
	s := setup{program: "systemd-resolved", file: upstreamsConf, how: Forwards}
	if to, err := nameservers(root, upstreamsConf); err == nil {
		s.to = to
	}
	return s
}

// addresses are those in a text, whatever stands between them; with a port or a
// name for TLS behind them they are known, too.
func addresses(text string) []netip.Addr {
	var addrs []netip.Addr
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n,;'\"{}()|=", r) }) {
		if addr, ok := address(word); ok && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// address reads 192.0.2.1, 192.0.2.1@853#name, 192.0.2.1#53, 192.0.2.1:53 and
// [2001:db8::1]:53.
func address(word string) (netip.Addr, bool) {
	if i := strings.IndexAny(word, "@#"); i >= 0 {
		word = word[:i]
	}
	if with, err := netip.ParseAddrPort(word); err == nil {
		return with.Addr().Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(word, "[]"))
	return addr.Unmap(), err == nil
}
