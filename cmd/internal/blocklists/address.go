package blocklists

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/rbl"
)

// ways follows the ways by which Postfix sends.
func (f *finder) ways() {
	var relays []string
	direct := false
	for _, w := range f.sending.Ways {
		switch {
		case f.local(w):
		case f.relayed(w):
			hop := w.NextHop
			if w.Setting != "" {
				hop += " (" + w.Setting + ")"
			}
			if !slices.Contains(relays, hop) {
				relays = append(relays, hop)
			}
		default:
			direct = true
			f.from(w, false)
			f.from(w, true)
			if w.Fallback != "" && !f.isHere(w.Fallback) {
				f.trouble("what cannot be delivered at once goes through smtp_fallback_relay %s: if that is not this machine, its address is not checked", w.Fallback)
			}
		}
	}
	f.behindNAT()
	if direct { // else they are what a relay host has seen
		f.addLearnt()
	}
	if len(relays) > 0 {
		f.trouble("mail goes out through a relay host, %s: receivers see its address, not this machine's; set rbl.addresses to the addresses it sends from", few(relays))
	}
	var unread []string
	for _, u := range f.sending.Unread {
		unread = append(unread, u.Error())
	}
	if len(unread) > 0 {
		f.trouble("mail may leave in ways that could not be read: %s; if from other addresses than those found, set rbl.addresses", few(unread))
	}
}

func few(all []string) string {
	const most = 3
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return strings.Join(all[:most], ", ") + " and more"
}

// local reports a way that does not lead to others: a table's entry for a server of
// ours, or our own domains by a relay host of ours.
func (f *finder) local(w mta.Way) bool {
	if w.NextHop == "" {
		return false
	}
	if w.Setting == "relay_transport" {
		return true
	}
	addr, literal := hopAddr(w.NextHop)
	return w.Setting == "transport_maps" && plain(w.Key) && (f.isHere(w.NextHop) || literal && !rbl.Public(addr))
}

// relayed reports a way by which somebody else sends for us. A next hop on this machine
// is a program of ours, and its mail leaves from here as well. One that a table has
// for one domain is taken for that domain's own server.
func (f *finder) relayed(w mta.Way) bool {
	return w.NextHop != "" && !f.isHere(w.NextHop) && (w.Setting != "transport_maps" || !plain(w.Key))
}

// plain reports the key of one domain or address; the others are patterns, or for all.
func plain(key string) bool {
	return key != "" && !strings.ContainsAny(key[:1], "/!") && !strings.HasPrefix(key, "*")
}

// hopAddr is the address of a next hop that is given as one.
func hopAddr(hop string) (netip.Addr, bool) {
	hop = strings.TrimSpace(hop)
	if end := strings.IndexByte(hop, ']'); strings.HasPrefix(hop, "[") && end > 0 {
		hop = hop[1:end]
	}
	addr, err := netip.ParseAddr(strings.TrimPrefix(hop, "IPv6:"))
	return addr.Unmap(), err == nil
}

// isHere reports a next hop on this machine, as far as its name says.
func (f *finder) isHere(hop string) bool {
	if addr, literal := hopAddr(hop); literal {
		return addr.IsLoopback() || f.iface.Has(addr)
	}
	host := strings.ToLower(strings.TrimSpace(hop))
	if end := strings.IndexByte(host, ']'); strings.HasPrefix(host, "[") && end > 0 {
		host = host[1:end]
	} else if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || strings.HasPrefix(host, "localhost.") || slices.Contains(f.out.Helos, host)
}

// from adds the address from which a way connects by one protocol.
func (f *finder) from(w mta.Way, ip6 bool) {
	used, bind := w.IP4, w.Bind4
	if ip6 {
		used, bind = w.IP6, w.Bind6
	}
	switch {
	case !used || bind.Addr.IsLoopback():
	case !bind.Addr.IsValid():
		f.source(ip6, w.Helo)
	case f.iface.Has(bind.Addr):
		f.candidate(bind.Addr, bind.Setting+" of "+w.Service, w.Helo)
	case w.Enforced:
		f.trouble("%s of %s is %s, which this machine does not have: nothing is sent that way", bind.Setting, w.Service, bind.Addr)
	default: // smtp_bind_address_enforce = no
		f.trouble("%s of %s is %s, which this machine does not have: Postfix sends from another one", bind.Setting, w.Service, bind.Addr)
		f.source(ip6, w.Helo)
	}
}

// source adds what the kernel would choose.
func (f *finder) source(ip6 bool, helo string) {
	addr := f.iface.Source(ip6)
	if !addr.IsValid() || addr.IsLoopback() || addr.IsLinkLocalUnicast() {
		f.noRoute(ip6)
		return
	}
	f.candidate(addr, "source address of the default route", helo)
}

// noRoute tells that a protocol leads nowhere now though this machine has an address
// of it: until there is a way again that address is not checked, which must not look as
// if it were on no list any more. A machine that has but one protocol is well without
// the other: addresses for its own use (link-local, of containers) say nothing.
func (f *finder) noRoute(ip6 bool) {
	protocol := map[bool]string{false: "ipv4", true: "ipv6"}
	behind := f.sending != nil && slices.ContainsFunc(f.sending.Proxies, func(a netip.Addr) bool { return rbl.Public(a) && a.Is6() == ip6 })
	for _, addr := range f.iface.Addrs() {
		if addr = addr.Unmap().WithZone(""); addr.Is6() == ip6 && (rbl.Public(addr) || behind && addr.IsPrivate()) {
			f.trouble("this machine has %s, but no route leads out by %s now: from which address mail leaves by it is not known, and that one is not checked; set rbl.addresses, or inet_protocols = %s in Postfix if mail is not to leave so", addr, protocol[ip6], protocol[!ip6])
			return
		}
	}
}

// candidate adds an address, unless nobody outside can see it.
func (f *finder) candidate(addr netip.Addr, how, helo string) {
	addr = addr.Unmap().WithZone("")
	switch {
	case rbl.Public(addr):
		f.add(addr, how, helo)
	case !slices.Contains(f.natted, addr):
		f.natted = append(f.natted, addr)
	}
}

// behindNAT finds what stands outside for addresses that nobody there sees.
func (f *finder) behindNAT() {
	for _, inner := range f.natted {
		found := false
		if f.sending != nil {
			for _, addr := range f.sending.Proxies {
				if rbl.Public(addr) && addr.Is4() == inner.Is4() {
					f.add(addr, "proxy_interfaces", f.heloOf(inner))
					found = true
				}
			}
		}
		for _, l := range f.learnt {
			if addr, err := netip.ParseAddr(l.Addr); err == nil && rbl.Public(addr.Unmap()) && addr.Unmap().Is4() == inner.Is4() {
				found = true // addLearnt adds it
			}
		}
		switch {
		case found:
		case inner.Is4():
			f.trouble("mail leaves from %s, behind NAT: which address receivers see is not known; set rbl.addresses, or proxy_interfaces in Postfix, or show a message as it was received outside: relayguard rbl addresses --learn FILE", inner)
		default:
			f.trouble("mail may leave from %s, which no receiver can see: set rbl.addresses, or inet_protocols = ipv4 in Postfix if IPv6 leads nowhere", inner)
		}
	}
}

// learntFor is how long what was learnt is taken as it is: a provider may have given
// the address to somebody else since.
const learntFor = 180 * 24 * time.Hour

func (f *finder) addLearnt() {
	for _, l := range f.learnt {
		addr, err := netip.ParseAddr(l.Addr)
		if addr = addr.Unmap(); err != nil || !rbl.Public(addr) || slices.ContainsFunc(f.out.Addresses, func(a Address) bool { return a.Addr == addr }) {
			continue
		}
		f.add(addr, "learnt: "+l.Where, f.helo)
		if !l.At.IsZero() && f.iface.Now().Sub(l.At) > learntFor {
			f.trouble("that mail leaves from %[1]s was learnt on %[2]s, more than 180 days ago: show a newer message (relayguard rbl addresses --learn FILE), or forget it (relayguard rbl addresses --forget %[1]s)", addr, l.At.Format(time.DateOnly))
		}
	}
}
