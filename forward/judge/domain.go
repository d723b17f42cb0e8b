package judge

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"

	"relayguard/forward"
	"relayguard/policy/address"
)

// cleanDomain is a domain as findings show it: lower case, without a last dot;
// in A-labels if it is a domain in its own letters. One that merely becomes a
// domain when a resolver reads it (U+3002 for a dot, wide letters) is shown as
// it is written: for the mail server it is another one.
func cleanDomain(s string) string {
	s = strings.TrimSpace(strings.ToLower(s))
	if n := len(s); n > 1 && s[n-1] == '.' && s[n-2] != '.' {
		s = s[:n-1]
	}
	if exact(s) {
		if a := address.Domain(s); a != "" {
			return a
		}
	}
	return s
}

// exact reports whether a domain in lower case is spelled in the letters that it
// has in DNS, so that it may be compared with our own.
func exact(s string) bool {
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < 0x80
	}
	if ascii {
		return true
	}
	if strings.Contains(s, forward.Unknown) {
		return false
	}
	a, err := idna.Lookup.ToASCII(s)
	if err != nil {
		return false
	}
	u, err := idna.Lookup.ToUnicode(a)
	return err == nil && u == s
}

// localDomain is whether Postfix takes a domain off an address as its own: it is
// in mydestination, or one of this host's addresses in brackets.
func localDomain(w *forward.World, s string) bool {
	d := cleanDomain(s)
	return w.Local[d] || ownLiteral(w, d)
}

// insideDomain is whether a domain, as cleanDomain has it, is exactly one of
// ours. A subdomain is not, nor is a host that is ours: what it does with an address
// of its name is its own affair.
func insideDomain(w *forward.World, d string) bool {
	return w.Inside[d] || w.Local[d] || w.AliasDomains[d] || w.Mailboxes[d] || d == "localhost" || ownLiteral(w, d)
}

// insideAddress is insideDomain of an address' domain; without one it is a name
// of ours.
func insideAddress(w *forward.World, addr string) bool {
	at := strings.LastIndexByte(addr, '@')
	return at < 0 || insideDomain(w, addr[at+1:])
}

// ownLiteral reports whether d is [ADDRESS] of a host of ours.
func ownLiteral(w *forward.World, d string) bool {
	if !strings.HasPrefix(d, "[") || !strings.HasSuffix(d, "]") {
		return false
	}
	ip := strings.TrimPrefix(strings.ToLower(d[1:len(d)-1]), "ipv6:")
	a, err := netip.ParseAddr(ip)
	return err == nil && ownAddress(w, a)
}

func ownAddress(w *forward.World, a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified() || w.Hosts[a.String()]
}

// possible reports whether a server would try to deliver to a domain at all.
func possible(d string) bool {
	if strings.HasPrefix(d, "[") {
		return strings.HasSuffix(d, "]")
	}
	return d != "" && !strings.HasPrefix(d, ".") && !strings.HasSuffix(d, ".") && !strings.Contains(d, "..") && !strings.ContainsAny(d, " \t\r\n\"<>()@,;:\\|%![]/")
}
