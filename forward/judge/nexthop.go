package judge

import (
	"net/netip"
	"strings"

	"relayguard/forward"
	"relayguard/policy/address"
)

// judgeNextHop judges a rule that hands mail to another server with its address
// unchanged. It concerns us if the owner is one of ours.
func judgeNextHop(w *forward.World, owner string, r *rule) {
	r.verdict = forward.Inside
	r.target = strings.ToLower(strings.TrimSpace(r.Target))
	if owner != forward.Everybody && !ownerInside(w, owner) {
		r.note = "a way for another's domain"
		return
	}
	if strings.Contains(r.Target, forward.Unknown) {
		r.verdict = forward.Dynamic
		return
	}
	for _, hop := range hops(r.target, hostSetting(r.Source)) {
		if !insideHop(w, hop) {
			r.verdict = forward.Outside
			return
		}
	}
}

// hostSetting reports whether a setting's value is a host even without a colon
// or a dot, where others name a transport.
func hostSetting(source string) bool {
	for _, name := range []string{"relayhost", "smtp_fallback_relay", "lmtp_fallback_relay", "sender_dependent_relayhost_maps", "smtpd_proxy_filter", "SMART_HOST", "DS", "LUSER_RELAY", "MAIL_HUB"} {
		if rest, ok := strings.CutPrefix(source, name); ok && (rest == "" || rest[0] == ' ') {
			return true
		}
	}
	return false
}

// deliverHere are transports that never hand mail to another host, whatever
// stands behind the colon.
var deliverHere = map[string]bool{
	"error": true, "retry": true, "discard": true, "defer": true, "local": true, "virtual": true,
}

// hops are the hosts of a next hop, each as it is written: "" is the recipient's
// own domain. transport:hosts, [host]:port, host:port, inet:host:port,
// unix:path; several are parted by commas or blanks.
func hops(s string, host bool) []string {
	var list []string
	for _, one := range strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' }) {
		if name, rest, ok := strings.Cut(one, ":"); ok && !strings.ContainsAny(name, ".[/") && !isPort(rest) {
			if deliverHere[name] {
				return nil // the rest is text for people
			}
			if name != "unix" && name != "inet" {
				one = rest
			}
		} else if !ok && !host && !strings.ContainsAny(one, ".[") {
			continue // the transport alone
		}
		list = append(list, one)
		host = true // what follows a first one are hosts
	}
	return list
}

// isPort reports whether s is a port, so that a host stood before it.
func isPort(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// insideHop reports whether a host of a next hop is ours: by its address, or by a
// name that the configuration has. That a domain is ours says nothing of where DNS
// leads.
func insideHop(w *forward.World, hop string) bool {
	if strings.HasPrefix(hop, "unix:") || strings.HasPrefix(hop, "/") {
		return true
	}
	hop = strings.TrimPrefix(hop, "inet:")
	name := hop
	if inner, ok := strings.CutPrefix(hop, "["); ok {
		name, _, _ = strings.Cut(inner, "]")
	} else if i := strings.LastIndexByte(hop, ':'); i >= 0 && strings.Count(hop, ":") == 1 {
		name = hop[:i]
	}
	name = strings.TrimPrefix(strings.TrimSpace(name), "ipv6:")
	if name == "" {
		return true
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return ownAddress(w, a)
	}
	d := cleanDomain(name)
	return d == "localhost" || d == "localhost.localdomain" || address.Domain(d) != "" && w.Hosts[d]
}
