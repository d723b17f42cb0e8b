package policy

import (
	"net/netip"
	"strings"
	"time"

	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// Denied is the deny that this recipient's mail meets, nil if there is none or
// an allow lifts it. Of networks the narrowest that has a switch counts.
func (s *Switches) Denied(now time.Time, m *Message, o *origin.Origin, to string) *Switch {
	if !s.has(Deny) {
		return nil
	}
	if d := s.deniedClient(now, o); d != nil {
		return d
	}
	for _, c := range []struct {
		about Subject
		value []string
	}{
		{SubjectHelo, names(strings.ToLower(m.Helo))},
		{SubjectMailFrom, senders(m.MailFrom)},
	} {
		if d := s.firstOf(now, c.about, c.value); d != nil {
			return d
		}
	}
	for _, domain := range targets(to) { // it goes to each of them
		if d := s.firstOf(now, SubjectTarget, []string{domain}); d != nil {
			return d
		}
	}
	return nil
}

// firstOf asks about values from the most special to the most general: the
// first that has a switch counts.
func (s *Switches) firstOf(now time.Time, about Subject, values []string) *Switch {
	for _, v := range values {
		if v == "" {
			continue
		}
		if s.find(now, Allow, about, v, "") != nil {
			return nil
		}
		if d := s.find(now, Deny, about, v, ""); d != nil {
			return d
		}
	}
	return nil
}

func (s *Switches) deniedClient(now time.Time, o *origin.Origin) *Switch {
	if !o.ClientIP.Known() {
		return nil
	}
	if s.find(now, Allow, SubjectClient, o.ClientIP.Value, "") != nil {
		return nil
	}
	if d := s.find(now, Deny, SubjectClient, o.ClientIP.Value, ""); d != nil {
		return d
	}
	if len(s.networks) == 0 {
		return nil
	}
	ip, err := netip.ParseAddr(o.ClientIP.Value)
	if err != nil {
		return nil
	}
	for _, n := range s.networks { // few: an admin types them
		if !n.Over(now) && n.prefix.Contains(ip) {
			if s.find(now, Allow, SubjectNetwork, n.Value, "") != nil {
				return nil
			}
			return n.Switch
		}
	}
	return nil
}

// names are a host name and the domains above it, each as ".example.org".
func names(helo string) []string {
	helo = strings.TrimSuffix(helo, ".")
	all := []string{helo}
	for rest := helo; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 || len(all) > maxNames {
			return all
		}
		all = append(all, rest[i:])
		rest = rest[i+1:]
	}
}

// maxNames bounds the labels of a name that are looked at: RFC 1035 §2.3.4
// leaves room for 127.
const maxNames = 127

// senders are an envelope sender and its domain.
func senders(from string) []string {
	a, ok := address.Parse(from)
	if at := strings.LastIndexByte(from, '@'); !ok && at >= 0 { // ""@example.org, say
		a.Domain = address.Domain(from[at+1:])
	}
	if a.Domain == "" {
		return nil
	}
	return []string{a.Key(), "@" + a.Domain}
}

// targets are the domains that a recipient may be sent to: its own, and those
// that its local part names (user%host@relay, host!user@relay, "user@host"@relay).
func targets(to string) []string {
	at := strings.LastIndexByte(to, '@')
	all := []string{address.Domain(strings.TrimSpace(to[at+1:]))}
	if local := to[:max(at, 0)]; strings.ContainsAny(local, "%!@") {
		for host := range strings.FieldsFuncSeq(local, func(r rune) bool { return strings.ContainsRune(`%!@"`, r) }) {
			all = append(all, address.Domain(host))
		}
	}
	return all
}
