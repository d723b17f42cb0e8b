package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"relayguard/policy/address"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// Switch is an order that an admin gave, until it ends or is taken back. Unlike
// rules, switches act in every phase: who pulls one means it.
type Switch struct {
	ID      string     `json:"id"`
	Kind    SwitchKind `json:"kind"`
	Subject Subject    `json:"subject,omitempty"` // what Value is; none for Stop
	Value   string     `json:"value,omitempty"`   // in the form that Check gives it
	Rule    string     `json:"rule,omitempty"`    // Allow: the rule that is lifted, none for a deny; Set, Shut: the limit
	Reason  string     `json:"reason"`
	By      string     `json:"by"`
	Since   time.Time  `json:"since"`
	Until   time.Time  `json:"until,omitzero"`   // zero: no end
	Changed time.Time  `json:"changed,omitzero"` // when it became what it is; whole microseconds

	Windows []limit.Window `json:"windows,omitempty"` // Set: in place of the limit's own; shared, never modified
	Count   int64          `json:"count,omitempty"`   // Bulk: recipients beyond the account's volume limits
}

// SwitchKind is what a switch does.
type SwitchKind string

const (
	Suspend   SwitchKind = "suspend"   // the account's sending stops
	Deny      SwitchKind = "deny"      // refused, whoever sends
	Allow     SwitchKind = "allow"     // lifts a deny, or a rule for an account
	Stop      SwitchKind = "stop"      // all mail to the outside is held
	Probation SwitchKind = "probation" // half of each limit, after a suspension
	Set       SwitchKind = "set"       // one limit has other windows
	Bulk      SwitchKind = "bulk"      // so many recipients more, for a term: a newsletter that was announced
	Pause     SwitchKind = "pause"     // nothing that is held is released by itself
	Shut      SwitchKind = "shut"      // on a web node: a bucket that the relay has shut
)

// Subject is what a switch is about.
type Subject string

const (
	SubjectLogin     Subject = "login"         // SASL login
	SubjectLocalUser Subject = "local_user"    // uid of a Unix account, decimal; of one on a web node "1001@web3"
	SubjectTrusted   Subject = "trusted"       // name of a trusted network
	SubjectClient    Subject = "client"        // IP address of the SMTP client
	SubjectNetwork   Subject = "network"       // CIDR of SMTP clients
	SubjectHelo      Subject = "helo"          // name in HELO; ".example.org": all names below that one
	SubjectMailFrom  Subject = "mail-from"     // envelope sender, with its +tag; "@example.org": all of a domain, none below
	SubjectTarget    Subject = "target-domain" // domain of a recipient, also one that its local part names; none below
	SubjectDomain    Subject = "domain"        // of the login, else of the site; none below
	SubjectCustomer  Subject = "customer"      // name of a configured customer
	SubjectSite      Subject = "site"          // web site, as attribution names it
	SubjectPlugin    Subject = "plugin"        // extension of a site, on every site; of one alone "share@shop.example.jp"
	SubjectKey       Subject = "key"           // value of one bucket, all of it: "login:taro@example.jp recipient_domain:example.net"
)

// subjects says which subjects a kind of switch has.
var subjects = map[SwitchKind][]Subject{
	Suspend:   {SubjectLogin, SubjectLocalUser, SubjectTrusted, SubjectSite, SubjectPlugin},
	Probation: {SubjectLogin, SubjectLocalUser, SubjectTrusted, SubjectSite, SubjectPlugin},
	Deny:      {SubjectClient, SubjectNetwork, SubjectHelo, SubjectMailFrom, SubjectTarget},
	Allow:     {SubjectLogin, SubjectLocalUser, SubjectTrusted, SubjectClient, SubjectNetwork, SubjectHelo, SubjectMailFrom, SubjectTarget},
	Stop:      {""},
	Set:       {SubjectLogin, SubjectLocalUser, SubjectTrusted, SubjectDomain, SubjectCustomer, SubjectSite, SubjectPlugin, SubjectKey},
	Bulk:      {SubjectLogin, SubjectLocalUser, SubjectTrusted},
	Pause:     {SubjectLogin, SubjectLocalUser, SubjectTrusted, SubjectSite},
	Shut:      {SubjectKey},
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
// order fails for its reason: that is cut and cleaned. That a rule or a limit of
// its name exists is not checked: it may be configured tomorrow.
func (s *Switch) Check() error {
	if err := s.CheckSubject(); err != nil {
		return err
	}
	if err := s.checkAmounts(); err != nil {
		return err
	}
	s.Reason, s.By = remark(s.Reason), remark(s.By)
	return nil
}

// CheckSubject is Check of what the switch is about alone.
func (s *Switch) CheckSubject() error {
	allowed, ok := subjects[s.Kind]
	if !ok {
		return fmt.Errorf("switch: found kind %q, want one of %q", s.Kind, slices.Sorted(maps.Keys(subjects)))
	}
	if !slices.Contains(allowed, s.Subject) {
		return fmt.Errorf("%s: found subject %q, want one of %q", s.Kind, s.Subject, allowed)
	}
	switch {
	case s.Kind == Allow && s.Subject.account() != (s.Rule != ""):
		return fmt.Errorf("allow %s: an account is allowed one named rule, everything else what deny stops", s.Subject)
	case (s.Kind == Set || s.Kind == Shut) && s.Rule == "":
		return fmt.Errorf("%s %s: found no rule, want the name of the limit", s.Kind, s.Subject)
	case s.Kind != Allow && s.Kind != Set && s.Kind != Shut && s.Rule != "":
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
	s.Value = value
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
		account, node, on := strings.Cut(v, "@")
		uid, ok := parseUID(account)
		if on {
			return strconv.Itoa(uid) + "@" + node, unless(ok && node != "", "a uid in digits, on a web node UID@NODE")
		}
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
	case SubjectTarget, SubjectDomain:
		d := address.Domain(strings.TrimPrefix(v, "@"))
		return d, unless(d != "", "a domain")
	case SubjectCustomer:
		return v, unless(v != "", "the name of a customer")
	case SubjectSite:
		return strings.ToLower(v), unless(v != "", "the name of a site")
	case SubjectPlugin:
		return strings.ToLower(v), unless(v != "", "the name of a plugin")
	case SubjectKey:
		return v, unless(v != "", "the value of a bucket, as limits show prints it")
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
	abouts   map[about]int
	shut     map[string][]*Switch // by a part of the bucket's value
}

// about counts switches, so that the mail path looks for none that is not there.
// An empty subject stands for all of a kind.
type about struct {
	kind    SwitchKind
	subject Subject
}

type network struct {
	prefix netip.Prefix
	*Switch
}

// NewSwitches puts switches together; of two about the same the later counts.
// They must have passed Check.
func NewSwitches(all []Switch) *Switches {
	s := &Switches{all: map[what]*Switch{}, abouts: map[about]int{}}
	for _, sw := range all {
		s.all[what{sw.Kind, sw.Subject, sw.Value, sw.Rule}] = &sw
	}
	for _, sw := range s.all {
		s.abouts[about{kind: sw.Kind}]++
		if sw.Subject != "" {
			s.abouts[about{sw.Kind, sw.Subject}]++
		}
		if sw.Kind == Shut {
			s.addShut(sw)
		}
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

// has reports whether there is any switch of that kind.
func (s *Switches) has(k SwitchKind) bool { return s != nil && s.abouts[about{kind: k}] > 0 }

func (s *Switches) find(now time.Time, k SwitchKind, subject Subject, value, rule string) *Switch {
	if s == nil || s.abouts[about{k, subject}] == 0 {
		return nil
	}
	if sw := s.all[what{k, subject, value, rule}]; sw != nil && !sw.Over(now) {
		return sw
	}
	return nil
}

// Find is the switch about just that which has not ended, nil if there is none.
func (s *Switches) Find(now time.Time, k SwitchKind, subject Subject, value, rule string) *Switch {
	return s.find(now, k, subject, value, rule)
}

// Stopped is the red switch, nil if it is not pulled.
func (s *Switches) Stopped(now time.Time) *Switch { return s.find(now, Stop, "", "", "") }

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
