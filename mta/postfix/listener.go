package postfix

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"relayguard/mta"
	"relayguard/policy"
)

// endpoint is how Postfix is told of the listener. A path below the queue
// directory is given from there: so it holds for chrooted services and others.
func (i *Instance) endpoint(l mta.Listener) string {
	if l.Network != "unix" {
		return "inet:" + l.Address
	}
	if name, ok := i.inQueue(l.Address); ok {
		return "unix:" + name
	}
	return "unix:" + l.Address
}

// listenerOf finds which of our listeners a service reaches through a milter
// endpoint.
func (i *Instance) listenerOf(s *Service, endpoint string, listeners []mta.Listener) (mta.Listener, bool) {
	kind, address, _ := strings.Cut(endpoint, ":")
	for _, l := range listeners {
		switch {
		case l.Network == "unix" && (kind == "unix" || kind == "local") && i.path(s, address) == l.Address:
			return l, true
		case l.Network != "unix" && kind == "inet" && sameHostPort(address, l.Address):
			return l, true
		}
	}
	return mta.Listener{}, false
}

// guardDir is the name of a directory that holds sockets of the guard only.
const guardDir = "relayguard"

// former reports the socket of a listener that the configuration had once: it
// is in the guard's own directory, beside one that it has.
func (i *Instance) former(s *Service, endpoint string, listeners []mta.Listener) bool {
	kind, address, _ := strings.Cut(endpoint, ":")
	if kind != "unix" && kind != "local" {
		return false
	}
	dir := filepath.Dir(i.path(s, address))
	return filepath.Base(dir) == guardDir && slices.ContainsFunc(listeners, func(l mta.Listener) bool { return l.Network == "unix" && filepath.Dir(l.Address) == dir })
}

func sameHostPort(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil {
		return a == b
	}
	return portA == portB && (strings.EqualFold(hostA, hostB) || isLoopbackHost(hostA) && isLoopbackHost(hostB))
}

func isLoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// attached finds the guard among a service's milters: its place (0 is first),
// its entry and which listener it is.
func (i *Instance) attached(s *Service, value string, listeners []mta.Listener) (place int, m Milter, l mta.Listener, err error) {
	milters, err := ParseMilters(value)
	if err != nil {
		return -1, Milter{}, mta.Listener{}, fmt.Errorf("read milters of %s: %w", s.ID(), err)
	}
	for n, m := range milters {
		if l, ok := i.listenerOf(s, m.Endpoint, listeners); ok {
			return n, m, l, nil
		}
	}
	return -1, Milter{}, mta.Listener{}, nil
}

// listenersIn are all listeners of ours among a service's milters.
func (i *Instance) listenersIn(s *Service, value string, listeners []mta.Listener) []mta.Listener {
	milters, _ := ParseMilters(value) // one that cannot be read was found by attached
	var ours []mta.Listener
	for _, m := range milters {
		if l, ok := i.listenerOf(s, m.Endpoint, listeners); ok {
			ours = append(ours, l)
		}
	}
	return ours
}

func byRole(listeners []mta.Listener, role policy.Role) (mta.Listener, bool) {
	for _, l := range listeners {
		if l.Role == role {
			return l, true
		}
	}
	return mta.Listener{}, false
}
