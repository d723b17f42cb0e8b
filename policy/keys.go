package policy

import (
	"net/netip"
	"slices"
	"strings"

	"relayguard/policy/address"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// keys are what a message is known by, each found once. A part that is not known
// is empty, and a limit on it does not concern the message: an empty key would be
// a bucket that strangers share.
type keys struct {
	limits *Limits
	m      *Message
	o      origin.Origin
	found  [limit.Server + 1]bool
	parts  [limit.Server + 1]string
	buf    []byte

	account    string // its stable name; empty: not asked for yet
	unlabelled string // the bucket of mail of a site that tells no plugin; empty: none
}

func (k *keys) reset(l *Limits, m *Message, o *origin.Origin) {
	*k = keys{limits: l, m: m, o: *o, buf: k.buf[:0]}
}

// stable is the name of the account, also of one that has no bucket: "unknown",
// "node:web3".
func (k *keys) stable() string {
	if k.account == "" {
		k.account = k.o.Stable()
	}
	return k.account
}

// of is the bucket of the message under a rule: its parts in order, between them
// one blank; blanks inside a part are %20 then. Domain is that of the recipients
// that are asked about.
func (k *keys) of(r *limitRule, domain string) string {
	if len(r.Per) == 1 {
		return k.part(r, r.Per[0], domain)
	}
	k.buf = k.buf[:0]
	for i, per := range r.Per {
		part := k.part(r, per, domain)
		if part == "" {
			return ""
		}
		if i > 0 {
			k.buf = append(k.buf, ' ')
		}
		for j := range len(part) {
			if part[j] == ' ' {
				k.buf = append(k.buf, "%20"...)
			} else {
				k.buf = append(k.buf, part[j])
			}
		}
	}
	return string(k.buf)
}

func (k *keys) part(r *limitRule, per limit.Per, domain string) string {
	switch per {
	case limit.Client:
		if k.o.Node.Known() { // behind it are many that have nothing to do with each other
			return ""
		}
		return client(&k.o, r.ClientBits4, r.ClientBits6)
	case limit.RecipientDomain:
		return named("recipient_domain:", domain)
	}
	if !k.found[per] {
		k.found[per], k.parts[per] = true, k.find(per)
	}
	return k.parts[per]
}

func (k *keys) find(per limit.Per) string {
	kind, account := k.o.Account()
	switch per {
	case limit.Server:
		return "server"
	case limit.Account:
		if kind != origin.KindUnknown && kind != origin.KindNode {
			return k.stable()
		}
	case limit.Login:
		if kind == origin.KindLogin {
			return k.stable()
		}
	case limit.LocalUser, limit.SharedUser:
		if kind == origin.KindLocalUser && k.limits.isShared(&k.o) == (per == limit.SharedUser) {
			return k.stable()
		}
	case limit.Network:
		if kind == origin.KindNetwork {
			return "network:" + account.Value
		}
	case limit.Machine:
		if kind == origin.KindNetwork {
			return "machine:" + machine(k.o.ClientIP.Value)
		}
	case limit.Domain:
		return named("domain:", k.o.Domain())
	default:
		return k.label(per)
	}
	return ""
}

// isShared reports whether many sites send as the Unix account.
func (l *Limits) isShared(o *origin.Origin) bool {
	if o.UID != origin.NoUID {
		return l.sharedUID(o.UID)
	}
	name, _, _ := strings.Cut(o.LocalUser.Value, "@")
	return l.sharedBy[name]
}

// sharedUID is isShared of an account of this machine.
func (l *Limits) sharedUID(uid int) bool { return l != nil && l.shared[uid] }

// label is a part that attribution found, or that the sender wrote. Those of a
// site count only if they are proven: else the sender chooses them. So is a claim
// (sender, From), on which a limit may only be one more.
func (k *keys) label(per limit.Per) string {
	site := k.o.Site.Proven()
	switch {
	case per == limit.Customer && k.o.Customer.Proven():
		return "customer:" + k.o.Customer.Value
	case per == limit.Site && site:
		return "site:" + k.o.Site.Value
	case per == limit.Plugin && site && k.o.Plugin.Proven(): // of this site: another's has a budget of its own
		return "plugin:" + k.o.Plugin.Value + "@" + k.o.Site.Value
	case per == limit.Plugin && site:
		return k.unlabelled
	case per == limit.Template && site && k.o.Plugin.Proven(): // that says more
		return ""
	case per == limit.Template && k.o.Template.Confidence >= origin.Fingerprint:
		return named("template:", k.o.Template.Value)
	case per == limit.MailFrom:
		return named("mail_from:", untagged(sender(k.m).Key()))
	case per == limit.SenderDomain:
		return named("sender_domain:", sender(k.m).Domain)
	case per == limit.FromDomain:
		from, _ := address.Parse(k.m.HeaderFrom)
		return named("from_domain:", from.Domain)
	}
	return ""
}

func named(kind, value string) string {
	if value == "" {
		return ""
	}
	return kind + value
}

// sender is that of the envelope, or for the null sender the From.
func sender(m *Message) address.Address {
	for _, from := range [...]string{m.MailFrom, m.HeaderFrom} {
		if a, ok := address.Parse(from); ok {
			return a
		}
	}
	return address.Address{}
}

// untagged is an address without +tag: the sender of mail chooses that freely.
func untagged(key string) string {
	at := strings.LastIndexByte(key, '@')
	if i := strings.IndexByte(key, '+'); i > 0 && i < at {
		return key[:i] + key[at:]
	}
	return key
}

// machine is an address, or the network that one customer has: of IPv6 the /64.
func machine(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Is4() {
		return ip
	}
	p, _ := a.Prefix(64)
	return p.String()
}

// client is the network of the SMTP client. Loopback is none: behind it are all
// that use a webmail.
func client(o *origin.Origin, bits4, bits6 int) string {
	ip, err := netip.ParseAddr(o.ClientIP.Value)
	if err != nil || ip.IsLoopback() {
		return ""
	}
	bits := bits6
	switch {
	case ip.Is4():
		bits = bits4
	case bits == 0:
		bits = 64
	}
	if bits == 0 || bits >= ip.BitLen() {
		return "client:" + o.ClientIP.Value
	}
	p, _ := ip.Prefix(bits)
	return "client:" + p.String()
}

// HasPart reports whether a bucket's value is that of one key, alone or beside
// others. What plugin:NAME@SITE has is also of plugin:NAME and of site:SITE.
func HasPart(value, part string) bool {
	escaped := strings.ReplaceAll(part, " ", "%20")
	return isOf(value, part) || slices.ContainsFunc(strings.Split(value, " "), func(one string) bool { return isOf(one, escaped) })
}

func isOf(one, part string) bool {
	at := strings.LastIndexByte(one, '@')
	if one == part || at < 0 || !strings.HasPrefix(one, "plugin:") {
		return one == part
	}
	return one[:at] == part || "site:"+one[at+1:] == part
}
