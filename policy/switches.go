package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// Switch is an order that an admin gave, until it ends or is taken back. Unlike
// rules, switches act in every phase: who pulls one means it.
type Switch struct {
	ID      string     `json:"id"`
	Kind    SwitchKind `json:"kind"`
	Subject Subject    `json:"subject,omitempty"` // what Value is; none for Stop
	Value   string     `json:"value,omitempty"`   // in the form that Check gives it
	Rule    string     `json:"rule,omitempty"`    // Allow: the rule that is lifted, none for a deny
	Reason  string     `json:"reason"`
	By      string     `json:"by"`
	Since   time.Time  `json:"since"`
	Until   time.Time  `json:"until,omitzero"` // zero: no end
}

// SwitchKind is what a switch does.
type SwitchKind string

const (
	Suspend   SwitchKind = "suspend"   // the account's sending stops
	Deny      SwitchKind = "deny"      // refused, whoever sends
	Allow     SwitchKind = "allow"     // lifts a deny, or a rule for an account
	Stop      SwitchKind = "stop"      // all mail to the outside is held
	Probation SwitchKind = "probation" // half of each limit, after a suspension
)

// Subject is what a switch is about.
type Subject string

const (
	SubjectLogin     Subject = "login"         // SASL login
	SubjectLocalUser Subject = "local_user"    // uid of a Unix account, decimal
	SubjectTrusted   Subject = "trusted"       // name of a trusted network
	SubjectClient    Subject = "client"        // IP address of the SMTP client
	SubjectNetwork   Subject = "network"       // CIDR of SMTP clients
	SubjectHelo      Subject = "helo"          // name in HELO; ".example.org": all names below that one
	SubjectMailFrom  Subject = "mail-from"     // envelope sender, with its +tag; "@example.org": all of a domain, none below
	SubjectTarget    Subject = "target-domain" // domain of a recipient, also one that its local part names; none below
)

// subjects says which subjects a kind of switch has.
var subjects = map[SwitchKind][]Subject{
	Suspend:   {SubjectLogin, SubjectLocalUser, SubjectTrusted},
	Probation: {SubjectLogin, SubjectLocalUser, SubjectTrusted},
	Deny:      {SubjectClient, SubjectNetwork, SubjectHelo, SubjectMailFrom, SubjectTarget},
	Allow:     {SubjectLogin, SubjectLocalUser, SubjectTrusted, SubjectClient, SubjectNetwork, SubjectHelo, SubjectMailFrom, SubjectTarget},
	Stop:      {""},
}

// Subjects are what switches of that kind may be about.
func Subjects(k SwitchKind) []Subject { return subjects[k] }

// account reports whether the subject is an account.
func (s Subject) account() bool {
	return s == SubjectLogin || s == SubjectLocalUser || s == SubjectTrusted
}

const (
	longestValue  = 512  // octets of a subject's value: an address at its longest, twice
	longestReason = 1000 // octets of a reason and of who gave it; the rest is cut off
)

// Check brings the switch into its one form, or says what is wrong with it. No
// order fails for its reason: that is cut and cleaned.
func (s *Switch) Check() error {
	allowed, ok := subjects[s.Kind]
	if !ok {
		return fmt.Errorf("switch: found kind %q, want suspend, deny, allow, stop or probation", s.Kind)
	}
	if !slices.Contains(allowed, s.Subject) {
		return fmt.Errorf("%s: found subject %q, want one of %q", s.Kind, s.Subject, allowed)
	}
	if s.Kind == Allow && s.Subject.account() != (s.Rule != "") {
		return fmt.Errorf("allow %s: an account is allowed one named rule, everything else what deny stops", s.Subject)
	}
	if s.Kind != Allow && s.Rule != "" {
		return fmt.Errorf("%s %s: found rule %q, want none: only an allow lifts one", s.Kind, s.Subject, s.Rule)
	}
	for what, v := range map[string]string{"value": s.Value, "rule": s.Rule} {
		if len(v) > longestValue || !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
			return fmt.Errorf("%s %s: the %s is longer than %d octets, or not UTF-8, or has control characters", s.Kind, s.Subject, what, longestValue)
		}
	}
	value, wanted := s.Subject.normal(strings.TrimSpace(s.Value))
	if wanted != "" {
		return fmt.Errorf("%s %s: found %q, want %s", s.Kind, s.Subject, s.Value, wanted)
	}
	s.Value, s.Reason, s.By = value, remark(s.Reason), remark(s.By)
	return nil
}

// remark is what a human wrote, on one line of bounded length.
func remark(s string) string {
	if len(s) > longestReason {
		s = s[:longestReason-3] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// normal is the one form of a value; wanted says what it should have been.
func (s Subject) normal(v string) (value, wanted string) {
	switch s {
	case "":
		if v != "" {
			return "", "no value"
		}
		return "", ""
	case SubjectLogin:
		return strings.ToLower(v), unless(v != "", "a login")
	case SubjectLocalUser:
		uid, ok := parseUID(v)
		return strconv.Itoa(uid), unless(ok, "a uid in digits")
	case SubjectTrusted:
		return v, unless(v != "", "the name of a trusted network")
	case SubjectClient:
		ip, err := netip.ParseAddr(v)
		return ip.Unmap().WithZone("").String(), unless(err == nil, "an IP address")
	case SubjectNetwork:
		p, err := netip.ParsePrefix(v)
		if err == nil && p.Addr().Is4In6() {
			return "", "a network as ADDRESS/BITS, of IPv4 without ::ffff:"
		}
		return p.Masked().String(), unless(err == nil, "a network as ADDRESS/BITS")
	case SubjectHelo:
		v = strings.TrimSuffix(strings.ToLower(v), ".")
		return v, unless(v != "" && v != "." && !strings.ContainsFunc(v, unicode.IsSpace), "a name, or .DOMAIN")
	case SubjectMailFrom:
		if domain, ok := strings.CutPrefix(v, "@"); ok {
			d := address.Domain(domain)
			return "@" + d, unless(d != "", "user@domain or @domain")
		}
		a, ok := address.Parse(v)
		return a.Key(), unless(ok, "user@domain or @domain")
	case SubjectTarget:
		d := address.Domain(strings.TrimPrefix(v, "@"))
		return d, unless(d != "", "a domain")
	}
	return "", "another subject"
}

func unless(ok bool, wanted string) string {
	if ok {
		return ""
	}
	return wanted
}

// Over reports whether the switch has ended by itself.
func (s *Switch) Over(now time.Time) bool { return !s.Until.IsZero() && !now.Before(s.Until) }

// About is what the switch is about, as commands write it: "login:taro@example.jp",
// "network:web-nodes", "local_user:33".
func (s *Switch) About() string {
	switch s.Subject {
	case "":
		return ""
	case SubjectTrusted:
		return string(origin.KindNetwork) + ":" + s.Value
	}
	return string(s.Subject) + ":" + s.Value
}

// what finds switches: two with the same are one.
type what struct {
	kind    SwitchKind
	subject Subject
	value   string
	rule    string
}

// Switches are those in force. They are not changed once in use; the zero value
// and nil have none.
type Switches struct {
	all      map[what]*Switch
	networks []network // deny and allow of a network, the narrowest first
	kinds    map[SwitchKind]int
}

type network struct {
	prefix netip.Prefix
	*Switch
}

// NewSwitches puts switches together; of two about the same the later counts.
// They must have passed Check.
func NewSwitches(all []Switch) *Switches {
	s := &Switches{all: map[what]*Switch{}, kinds: map[SwitchKind]int{}}
	for _, sw := range all {
		s.all[what{sw.Kind, sw.Subject, sw.Value, sw.Rule}] = &sw
	}
	for _, sw := range s.all {
		s.kinds[sw.Kind]++
		if sw.Subject == SubjectNetwork {
			s.networks = append(s.networks, network{netip.MustParsePrefix(sw.Value), sw})
		}
	}
	slices.SortFunc(s.networks, func(a, b network) int {
		return cmp.Or(b.prefix.Bits()-a.prefix.Bits(), strings.Compare(a.Value, b.Value))
	})
	return s
}

// All lists the switches, oldest first.
func (s *Switches) All() []Switch {
	if s == nil {
		return nil
	}
	all := make([]Switch, 0, len(s.all))
	for _, sw := range s.all {
		all = append(all, *sw)
	}
	slices.SortFunc(all, func(a, b Switch) int { return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.ID, b.ID)) })
	return all
}

func (s *Switches) find(now time.Time, k SwitchKind, about Subject, value, rule string) *Switch {
	if s == nil || s.kinds[k] == 0 {
		return nil
	}
	if sw := s.all[what{k, about, value, rule}]; sw != nil && !sw.Over(now) {
		return sw
	}
	return nil
}

// Stopped is the red switch, nil if it is not pulled.
func (s *Switches) Stopped(now time.Time) *Switch { return s.find(now, Stop, "", "", "") }

// ofAccount finds a switch on any of the accounts that answer for the message:
// a login that a process of this machine uses has both.
func (s *Switches) ofAccount(now time.Time, k SwitchKind, o *origin.Origin, rule string) *Switch {
	if s == nil || s.kinds[k] == 0 {
		return nil
	}
	kind, _ := o.Account()
	if o.Login.Known() {
		if sw := s.find(now, k, SubjectLogin, o.Login.Value, rule); sw != nil {
			return sw
		}
	}
	if o.UID != origin.NoUID {
		if sw := s.find(now, k, SubjectLocalUser, strconv.Itoa(o.UID), rule); sw != nil {
			return sw
		}
	}
	if kind == origin.KindNetwork {
		return s.find(now, k, SubjectTrusted, o.Network.Value, rule)
	}
	return nil
}

// Suspended is the suspension of one of the origin's accounts, nil if there is
// none.
func (s *Switches) Suspended(now time.Time, o *origin.Origin) *Switch {
	return s.ofAccount(now, Suspend, o, "")
}

// OnProbation reports whether one of the origin's accounts has half of each limit.
func (s *Switches) OnProbation(now time.Time, o *origin.Origin) bool {
	return s.ofAccount(now, Probation, o, "") != nil
}

// Lifted reports whether a rule does not count for the account that answers for
// the message: that a webmail's Unix account is allowed something allows nothing
// to the logins that use it.
func (s *Switches) Lifted(now time.Time, o *origin.Origin, rule string) bool {
	switch kind, key := o.Account(); kind {
	case origin.KindLogin:
		return s.find(now, Allow, SubjectLogin, key.Value, rule) != nil
	case origin.KindLocalUser:
		return s.find(now, Allow, SubjectLocalUser, strconv.Itoa(o.UID), rule) != nil
	case origin.KindNetwork:
		return s.find(now, Allow, SubjectTrusted, key.Value, rule) != nil
	}
	return false
}

// Denied is the deny that this recipient's mail meets, nil if there is none or
// an allow lifts it. Of networks the narrowest that has a switch counts.
func (s *Switches) Denied(now time.Time, m *Message, o *origin.Origin, to string) *Switch {
	if s == nil || s.kinds[Deny] == 0 {
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

// Board holds the switches in force and swaps them as a whole. The zero value
// has none; safe for concurrent use.
type Board struct{ switches atomic.Pointer[Switches] }

// Load returns the switches in force.
func (b *Board) Load() *Switches {
	if b == nil {
		return nil
	}
	return b.switches.Load()
}

// Store puts switches into force.
func (b *Board) Store(s *Switches) { b.switches.Store(s) }
