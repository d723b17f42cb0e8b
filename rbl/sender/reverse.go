package sender

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"relayguard/rbl"
)

// maxNames bounds how many reverse names of an address are looked at, as RFC 7208
// §4.6.4 does.
const maxNames = 10

func (a *asker) reverse(ctx context.Context, s Sending) Fact {
	if !s.Addr.IsValid() {
		return unknown("no address")
	}
	wanted := "one PTR record for " + s.Addr.String()
	if isName(s.Helo) {
		wanted += " that names " + s.Helo
	}
	wanted += "; whoever gave you the address sets it"
	r := a.ask(ctx, reverseName(s.Addr), rbl.TypePTR)
	switch {
	case !said(r):
		return silence("PTR of "+s.Addr.String(), r)
	case len(r.Names) == 0:
		return wrong(wanted, "no reverse name: %s", nothing(r))
	case len(r.Names) > 1:
		return wrong(wanted, "%d reverse names: %s", len(r.Names), list(r.Names))
	case !strings.Contains(r.Names[0], ".") || !isName(r.Names[0]):
		return wrong(wanted, "%q is no host name", shown(r.Names[0]))
	}
	return fine("%s", shown(r.Names[0]))
}

// forward looks whether one of the reverse names leads back: that is enough for
// receivers (RFC 8601 §3, "iprev").
func (a *asker) forward(ctx context.Context, s Sending) Fact {
	if !s.Addr.IsValid() {
		return unknown("no address")
	}
	kind, record := addressType(s.Addr)
	r := a.ask(ctx, reverseName(s.Addr), rbl.TypePTR)
	if !said(r) {
		return silence("PTR of "+s.Addr.String(), r)
	}
	if len(r.Names) == 0 {
		return wrong("a reverse name first", "no reverse name that could lead back")
	}
	var silent *Fact
	for _, name := range r.Names[:min(len(r.Names), maxNames)] {
		if !isName(name) {
			continue
		}
		back := a.ask(ctx, name, kind)
		if has(back, s.Addr) {
			return fine("%s has %s", name, s.Addr)
		}
		if !said(back) && silent == nil {
			f := silence(record+" of "+name, back)
			silent = &f
		}
	}
	if silent != nil {
		return *silent
	}
	wanted := fmt.Sprintf("%s %s in the zone of the reverse name", record, s.Addr)
	return wrong(wanted, "no %s record of %s is %s", record, list(r.Names), s.Addr)
}

// reverseName is where PTR records of an address are: RFC 1035 §3.5, RFC 3596 §2.5.
func reverseName(addr netip.Addr) string {
	var b strings.Builder
	octets := addr.AsSlice()
	for n := len(octets) - 1; n >= 0; n-- {
		if addr.Is4() {
			fmt.Fprintf(&b, "%d.", octets[n])
		} else {
			fmt.Fprintf(&b, "%x.%x.", octets[n]&0xf, octets[n]>>4)
		}
	}
	if addr.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}

// list names a few.
func list(names []string) string {
	const most = 3
	var few []string
	for _, name := range names[:min(len(names), most)] {
		few = append(few, shown(name))
	}
	if len(names) > most {
		few = append(few, fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(few, ", ")
}
