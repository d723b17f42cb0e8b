// Package blocklists finds what of ours can be listed: the addresses from which mail
// really reaches others, the names by which we introduce ourselves, and the domains we
// send for.
//
// It reads the configuration, what Postfix says of its ways out and what the kernel
// says of its routes; asking lists is package rbl's.
//
// The trap: the address of this machine is not what receivers see when a relay host
// or NAT stands between. Then nothing is checked in its place, and Trouble says so: a
// clean answer about the wrong address is worse than none.
package blocklists

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"relayguard/cmd/internal/config"
	"relayguard/mta"
	"relayguard/policy/address"
	"relayguard/rbl"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

// Address is one that receivers see, and how that is known.
type Address struct {
	Addr netip.Addr // global, never 4-in-6
	How  string     // "smtp_bind_address of out2", "rbl.addresses"
	Helo string     // by which it introduces itself; "": not known
}

// Targets are what is to be checked.
type Targets struct {
	Addresses []Address // by how surely they send; the same address stands twice under two names
	Domains   []string  // sending domains: lower case, A-labels, no final dot; at most 100
	Helos     []string  // names of ours in HELO and Received lines, likewise; lists may not know them
	Trouble   []string  // what could not be found out, and what to do about it; one line each
	Left      int       // domains that are more than can be asked about
}

// Bounds of what is asked about.
const (
	maxAddresses = 64
	maxDomains   = 100
	maxHelos     = 32
)

// Find finds them. s is nil where the MTA's settings are not known: then what the
// kernel would send from counts. learnt are addresses that others saw, inside the
// domains that count as ours; iface tells of this machine.
//
// It asks no server. ctx is for what may come to ask one.
func Find(_ context.Context, c *config.Config, s *mta.Sending, learnt []history.Learnt, inside []string, iface Interfaces) Targets {
	f := finder{iface: iface, sending: s, learnt: learnt}
	f.names()
	switch {
	case len(c.RBL.Addresses) > 0: // whoever set them knows better
		for _, text := range c.RBL.Addresses {
			if addr, err := netip.ParseAddr(text); err == nil {
				f.add(addr.Unmap(), "rbl.addresses", f.heloOf(addr.Unmap()))
			}
		}
	case s == nil:
		f.source(false, f.helo)
		f.source(true, f.helo)
		f.behindNAT()
		f.addLearnt()
	default:
		f.ways()
	}
	if len(f.out.Addresses) == 0 && len(f.out.Trouble) == 0 {
		f.trouble("no address is known from which mail leaves: set rbl.addresses")
	}
	f.domains(c.RBL.Domains, inside)
	return f.out
}

// About is something that lists are asked about, and how it is known that it is ours.
type About struct {
	Subject rbl.Subject
	How     string // "rbl.addresses", "sending domain", "HELO name"
}

// About are all that lists are asked about: addresses first, each once.
func (t Targets) About() []About {
	var all []About
	seen := map[rbl.Subject]bool{}
	add := func(s rbl.Subject, how string) {
		if !seen[s] {
			seen[s] = true
			all = append(all, About{s, how})
		}
	}
	for _, a := range t.Addresses {
		add(rbl.Subject{Addr: a.Addr.Unmap()}, a.How)
	}
	for _, name := range t.Domains {
		add(rbl.Subject{Name: name}, "sending domain")
	}
	for _, name := range t.Helos {
		if askable(name) {
			add(rbl.Subject{Name: name}, "HELO name")
		}
	}
	for _, name := range t.Domains {
		if t.isHost(name) {
			continue
		}
		// Most lists of domains have registered ones only: "clean" says nothing of a
		// name below one.
		if registered, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
			add(rbl.Subject{Name: registered}, "registered domain of "+name)
		}
	}
	return all
}

// isHost reports a sending domain that is but the name of this machine (mydestination
// has it): that is often one below a provider's domain, and what is said of the
// provider is not said of us.
func (t Targets) isHost(domain string) bool {
	_, local := strings.CutPrefix(domain, "localhost.")
	return local || slices.Contains(t.Helos, domain)
}

// Subjects are those of About.
func (t Targets) Subjects() []rbl.Subject {
	var all []rbl.Subject
	for _, a := range t.About() {
		all = append(all, a.Subject)
	}
	return all
}

// Sending are the addresses as receivers meet them.
func (t Targets) Sending() []sender.Sending {
	var all []sender.Sending
	for _, a := range t.Addresses {
		all = append(all, sender.Sending{Addr: a.Addr, Helo: a.Helo})
	}
	return all
}

// Prefixes are the networks whose fate our addresses may share, each with one of our
// addresses in it (203.0.113.7/24): of IPv4 the /24 of each. Of IPv6 there are none: a
// /64 is one customer's, and lists take it for one address.
func Prefixes(t Targets) []netip.Prefix {
	const neighbours = 24
	var all []netip.Prefix
	for _, a := range t.Addresses {
		if !a.Addr.Is4() {
			continue
		}
		p := netip.PrefixFrom(a.Addr, neighbours)
		if !slices.ContainsFunc(all, func(q netip.Prefix) bool { return q.Masked() == p.Masked() }) {
			all = append(all, p)
		}
	}
	return all
}

// finder is one Find.
type finder struct {
	iface   Interfaces
	sending *mta.Sending
	learnt  []history.Learnt
	helo    string // of what says nothing else
	natted  []netip.Addr
	out     Targets
}

func (f *finder) trouble(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(f.out.Trouble, text) {
		f.out.Trouble = append(f.out.Trouble, text)
	}
}

func (f *finder) add(addr netip.Addr, how, helo string) {
	if slices.ContainsFunc(f.out.Addresses, func(a Address) bool { return a.Addr == addr && a.Helo == helo }) {
		return
	}
	if len(f.out.Addresses) >= maxAddresses {
		f.trouble("more than %d addresses send: not all are checked", maxAddresses)
		return
	}
	if addr.Is6() {
		const customer = 64 // lists name it rather than one address
		how += fmt.Sprintf("; lists may name its %s", netip.PrefixFrom(addr, customer).Masked())
	}
	f.out.Addresses = append(f.out.Addresses, Address{addr, how, helo})
}

// names finds how we call ourselves.
func (f *finder) names() {
	f.helo = f.iface.Hostname()
	if f.sending != nil {
		f.helo = f.sending.Hostname
		if at := slices.IndexFunc(f.sending.Ways, mta.Way.Every); at >= 0 && f.sending.Ways[at].Helo != "" {
			f.helo = f.sending.Ways[at].Helo
		}
		for _, w := range f.sending.Ways {
			f.addHelo(w.Helo)
		}
		f.addHelo(f.sending.Hostname)
	}
	f.addHelo(f.helo)
}

func (f *finder) addHelo(name string) {
	name = address.Domain(name)
	if isName(name) && !slices.Contains(f.out.Helos, name) && len(f.out.Helos) < maxHelos {
		f.out.Helos = append(f.out.Helos, name)
	}
}

// heloOf is the name under which an address sends.
func (f *finder) heloOf(addr netip.Addr) string {
	if f.sending != nil {
		for _, w := range f.sending.Ways {
			if w.Bind4.Addr == addr || w.Bind6.Addr == addr {
				return w.Helo
			}
		}
	}
	return f.helo
}

// domains takes the configured ones first: of those somebody thought.
func (f *finder) domains(configured, inside []string) {
	inside = slices.Sorted(slices.Values(inside))
	for _, name := range slices.Concat(configured, inside) {
		given := name
		name = address.Domain(name)
		if !askable(name) {
			if slices.Contains(configured, given) { // of inside ones there are good reasons
				f.trouble("rbl.domains: %q is not asked about: it is no domain that others can know", given)
			}
			continue
		}
		if slices.Contains(f.out.Domains, name) {
			continue
		}
		if len(f.out.Domains) >= maxDomains {
			f.out.Left++
			continue
		}
		f.out.Domains = append(f.out.Domains, name)
	}
}

// askable reports whether lists can know a domain of ours. One that is a public suffix
// by its owner's wish (github.io) is that owner's: who sends for it is.
func askable(name string) bool {
	if rbl.Askable(name) {
		return true
	}
	suffix, icann := publicsuffix.PublicSuffix(name)
	return !icann && suffix == name && rbl.Askable("x."+name)
}

// isName reports whether a name can stand for this machine in what others write: one
// of at least two labels that does not mean another machine in each network.
func isName(name string) bool {
	const longest, longestLabel = 253, 63 // RFC 1035 §2.3.4
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	if len(name) > longest || len(labels) < 2 || strings.Trim(last, "0123456789") == "" || strings.HasSuffix(name, ".home.arpa") {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > longestLabel || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return !slices.Contains([]string{"arpa", "internal", "invalid", "lan", "local", "localdomain", "localhost", "onion"}, last)
}
