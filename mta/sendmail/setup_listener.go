package sendmail

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/policy"
)

func byRole(listeners []mta.Listener, role policy.Role) (mta.Listener, bool) {
	for _, l := range listeners {
		if l.Role == role {
			return l, true
		}
	}
	return mta.Listener{}, false
}

// socketOf is how Sendmail is told of a listener.
func socketOf(l mta.Listener) string {
	if l.Network == "unix" {
		return "local:" + l.Address
	}
	host, port, err := net.SplitHostPort(l.Address)
	if err != nil {
		return "inet:" + l.Address
	}
	if strings.Contains(host, ":") {
		return "inet6:" + port + "@" + host
	}
	return "inet:" + port + "@" + host
}

// listenerOf finds which of our listeners a milter is.
func listenerOf(f Filter, listeners []mta.Listener) (mta.Listener, bool) {
	kind, address, _ := strings.Cut(f.Socket, ":")
	kind = strings.ToLower(kind)
	for _, l := range listeners {
		switch {
		case l.Network == "unix" && (kind == "unix" || kind == "local") && filepath.Clean(address) == l.Address:
			return l, true
		case l.Network != "unix" && (kind == "inet" || kind == "inet6") && samePlace(address, l.Address):
			return l, true
		}
	}
	return mta.Listener{}, false
}

// samePlace compares Sendmail's port@host with host:port.
func samePlace(sendmails, address string) bool {
	port, host, _ := strings.Cut(sendmails, "@")
	ourHost, ourPort, err := net.SplitHostPort(address)
	return err == nil && samePort(port, ourPort) && sameHost(strings.Trim(host, "[]"), ourHost)
}

// guardDir is the name of a directory that holds sockets of the guard only.
const guardDir = "relayguard"

// former reports the socket of a listener that the configuration had once: it is
// in the guard's own directory, beside one that it has.
func former(f Filter, listeners []mta.Listener) bool {
	kind, address, _ := strings.Cut(f.Socket, ":")
	if kind != "unix" && kind != "local" {
		return false
	}
	dir := filepath.Dir(address)
	return filepath.Base(dir) == guardDir && slices.ContainsFunc(listeners, func(l mta.Listener) bool { return l.Network == "unix" && filepath.Dir(l.Address) == dir })
}

// filterNamed finds a milter that is defined. The last of a name counts.
func (s *Settings) filterNamed(name string) (Filter, bool) {
	for _, f := range slices.Backward(s.Filters()) {
		if f.Name == name {
			return f, true
		}
	}
	return Filter{}, false
}

// attached finds the guard among a daemon's milters: its place (0 is first, -1
// nowhere), its entry and which listener it is.
func (s *Settings) attached(d Daemon, listeners []mta.Listener) (place int, f Filter, l mta.Listener) {
	for n, name := range s.FiltersOf(d) {
		if f, found := s.filterNamed(name); found {
			if l, ours := listenerOf(f, listeners); ours {
				return n, f, l
			}
		}
	}
	return -1, Filter{}, mta.Listener{}
}

// sound reports a milter without which no mail passes, and that is waited for
// long enough.
func (f Filter) sound(deadline time.Duration) bool {
	return strings.ContainsAny(f.Flags, "T4") && len(f.short(deadline)) == 0
}

// short names the waits that are not longer than the guard may take.
func (f Filter) short(deadline time.Duration) []string {
	var short []string
	waits := f.waits()
	for _, key := range "CSRE" {
		if wait := waits[byte(key)]; wait <= deadline {
			short = append(short, fmt.Sprintf("%c:%v", key, wait))
		}
	}
	return short
}

// waits are the milter's timeouts: C for a connection, S to send, R for a reply, E
// from the end of a message to the last answer. Unset ones are Sendmail's own.
func (f Filter) waits() map[byte]time.Duration {
	waits := map[byte]time.Duration{'C': 5 * time.Minute, 'S': 10 * time.Second, 'R': 10 * time.Second, 'E': 5 * time.Minute}
	for part := range strings.FieldsFuncSeq(f.Timeouts, func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
		key, value, _ := strings.Cut(part, ":")
		if d, ok := ParseTime(value, time.Second); ok && len(key) == 1 {
			waits[key[0]] = d
		}
	}
	return waits
}

// equates is the milter's definition, as setup writes it.
func (f Filter) equates() string {
	text := "S=" + f.Socket
	if f.Flags != "" {
		text += ", F=" + f.Flags
	}
	if f.Timeouts != "" {
		text += ", T=" + f.Timeouts
	}
	return text
}
