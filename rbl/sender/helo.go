package sender

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"relayguard/rbl"
)

// helo looks at the name by which we introduce ourselves (RFC 5321 §4.1.1.1). That it
// is another one than the reverse name is allowed (§4.1.4), so it is only told.
func (a *asker) helo(ctx context.Context, s Sending) Fact {
	name := strings.TrimSuffix(s.Helo, ".")
	const wanted = "smtp_helo_name, or myhostname, with the full name of this host"
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	switch {
	case !s.Addr.IsValid():
		return unknown("no address")
	case strings.HasPrefix(name, "[") || err == nil:
		return wrong(wanted, "an address, not a name")
	case !isName(name):
		return wrong(wanted, "not a host name")
	case !strings.Contains(name, "."):
		return wrong(wanted, "a name without a domain")
	case nowhere(name):
		return wrong(wanted, "a name that means nothing outside of this machine")
	}
	kind, record := addressType(s.Addr)
	r := a.ask(ctx, name, kind)
	switch {
	case !said(r):
		return silence(record+" of "+name, r)
	case r.Outcome != rbl.Answered:
		return wrong(fmt.Sprintf("%s %s of %s", record, s.Addr, name), "no %s record: %s", record, nothing(r))
	case !has(r, s.Addr):
		return wrong(fmt.Sprintf("%s %s of %s", record, s.Addr, name), "its %s records are others: %s", record, addresses(r.Addrs))
	}
	ptr := a.ask(ctx, reverseName(s.Addr), rbl.TypePTR)
	if ptr.Outcome == rbl.Answered && !slices.ContainsFunc(ptr.Names, func(n string) bool { return strings.EqualFold(n, name) }) {
		return fine("has %s; the reverse name is another one, which is allowed: %s", s.Addr, list(ptr.Names))
	}
	return fine("has %s", s.Addr)
}

// nowhere names the domains that DNS outside does not have (RFC 6761, RFC 6762,
// RFC 8375) and those that installers leave behind.
func nowhere(name string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{"localhost", "localdomain", "local", "lan", "internal", "home.arpa"} {
		if name == end || strings.HasSuffix(name, "."+end) {
			return true
		}
	}
	return false
}

func addresses(all []netip.Addr) string {
	const most = 3
	var few []string
	for _, addr := range all[:min(len(all), most)] {
		few = append(few, addr.String())
	}
	if len(all) > most {
		few = append(few, fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(few, ", ")
}
