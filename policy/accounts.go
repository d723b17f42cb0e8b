package policy

import (
	"time"

	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// ofAccount finds a switch on any of the accounts that answer for the message:
// a login that a process of this machine uses has both.
func (s *Switches) ofAccount(now time.Time, k SwitchKind, o *origin.Origin) *Switch {
	if !s.has(k) {
		return nil
	}
	if o.Login.Known() {
		if sw := s.find(now, k, SubjectLogin, o.Login.Value, ""); sw != nil {
			return sw
		}
	}
	if sw := s.ofLocal(now, k, o, ""); sw != nil {
		return sw
	}
	if kind, _ := o.Account(); kind == origin.KindNetwork {
		return s.find(now, k, SubjectTrusted, o.Network.Value, "")
	}
	return nil
}

// ofLocal finds a switch on a Unix account, of this machine or of a web node.
func (s *Switches) ofLocal(now time.Time, k SwitchKind, o *origin.Origin, rule string) *Switch {
	if s.abouts[about{k, SubjectLocalUser}] == 0 {
		return nil
	}
	if id := o.LocalID(); id != "" {
		return s.find(now, k, SubjectLocalUser, id, rule)
	}
	return nil
}

// ofPlace finds a switch on the plugin that a message came from, on its site or on
// all, or on the site. Sure: it has proven so; else its own word is enough.
func (s *Switches) ofPlace(now time.Time, k SwitchKind, o *origin.Origin, rule string, sure bool) *Switch {
	site := o.Site.Known() && (o.Site.Proven() || !sure)
	if o.Plugin.Known() && (o.Plugin.Proven() || !sure) && s.abouts[about{k, SubjectPlugin}] > 0 {
		if site {
			if sw := s.find(now, k, SubjectPlugin, o.Plugin.Value+"@"+o.Site.Value, rule); sw != nil {
				return sw
			}
		}
		if sw := s.find(now, k, SubjectPlugin, o.Plugin.Value, rule); sw != nil {
			return sw
		}
	}
	if site {
		return s.find(now, k, SubjectSite, o.Site.Value, rule)
	}
	return nil
}

// ofAnyone finds a switch on an account of the origin, its site or its plugin.
func (s *Switches) ofAnyone(now time.Time, k SwitchKind, o *origin.Origin) *Switch {
	if !s.has(k) {
		return nil
	}
	if sw := s.ofAccount(now, k, o); sw != nil {
		return sw
	}
	return s.ofPlace(now, k, o, "", false)
}

// Suspended is the suspension of one of the origin's accounts, of its site or its
// plugin, nil if there is none.
func (s *Switches) Suspended(now time.Time, o *origin.Origin) *Switch {
	return s.ofAnyone(now, Suspend, o)
}

// OnProbation reports whether one of the origin's accounts, its site or its plugin
// has half of each limit.
func (s *Switches) OnProbation(now time.Time, o *origin.Origin) bool {
	return s.ofAnyone(now, Probation, o) != nil
}

// Paused is the order that nothing held of one of the origin's accounts, or of its
// site, is released by itself, nil if there is none.
func (s *Switches) Paused(now time.Time, o *origin.Origin) *Switch {
	return s.ofAnyone(now, Pause, o)
}

// ofAnswering finds a switch on the one account that answers for the message:
// what a webmail's Unix account is given gives nothing to the logins that use it.
func (s *Switches) ofAnswering(now time.Time, k SwitchKind, o *origin.Origin, rule string) *Switch {
	if !s.has(k) {
		return nil
	}
	switch kind, key := o.Account(); kind {
	case origin.KindLogin:
		return s.find(now, k, SubjectLogin, key.Value, rule)
	case origin.KindLocalUser:
		return s.ofLocal(now, k, o, rule)
	case origin.KindNetwork:
		return s.find(now, k, SubjectTrusted, key.Value, rule)
	}
	return nil
}

// Lifted reports whether a rule does not count for the account that answers for
// the message.
func (s *Switches) Lifted(now time.Time, o *origin.Origin, rule string) bool {
	return s.ofAnswering(now, Allow, o, rule) != nil
}

// Bulk is what the account that answers for the message may send beyond its
// volume limits, nil if there is nothing.
func (s *Switches) Bulk(now time.Time, o *origin.Origin) *Switch {
	return s.ofAnswering(now, Bulk, o, "")
}

// Override is the order that gives a limit other windows for this message, nil if
// there is none. Key is the value of the bucket. Of several the one about the
// least counts: the bucket, the proven plugin, the proven site, the account that
// answers for the message, its domain, its customer.
func (s *Switches) Override(now time.Time, o *origin.Origin, rule, key string) *Switch {
	if !s.has(Set) {
		return nil
	}
	if sw := s.find(now, Set, SubjectKey, key, rule); sw != nil {
		return sw
	}
	if sw := s.ofPlace(now, Set, o, rule, true); sw != nil {
		return sw
	}
	if sw := s.ofAnswering(now, Set, o, rule); sw != nil {
		return sw
	}
	if s.abouts[about{Set, SubjectDomain}] > 0 {
		if sw := s.find(now, Set, SubjectDomain, address.Domain(o.Domain()), rule); sw != nil {
			return sw
		}
	}
	return s.find(now, Set, SubjectCustomer, o.Customer.Value, rule)
}
