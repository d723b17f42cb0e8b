package postfix

import (
	"slices"

	"relayguard/forward"
)

// place is a setting where it is in force, or stated and not in force.
type place struct {
	name    string // "always_bcc"
	value   string
	source  string // "always_bcc in /etc/postfix/main.cf"
	line    int
	uid     int
	dormant string
	service *service // whose override it is; nil: main.cf
	i       *instance
}

// places are all values of a setting that only the programs in commands read:
// that of main.cf, and those of services with overrides. Empty ones are left
// out. An override for a program that does not read it is dormant.
func (i *instance) places(name string, commands ...string) []place {
	main := i.mainPlace(name)
	var all []place
	readers, others := 0, 0
	for n := range i.services {
		s := &i.services[n]
		reads := slices.Contains(commands, s.command)
		value := i.effective(s, name)
		if reads {
			readers++
		}
		if s.settings == nil || value == main.value {
			continue
		}
		_, written := s.overrides[name]
		p := place{name: name, value: value, source: name + " of " + s.id() + " in " + i.masterFile(), line: s.line, uid: i.masterID, dormant: i.dormant, service: s, i: i}
		switch {
		case reads:
			others++
		case !written:
			continue
		case p.dormant == "":
			p.dormant = s.command + "(8) does not read " + name
		}
		if value != "" {
			all = append(all, p)
		}
	}
	if main.dormant == "" && len(i.services) > 0 {
		switch {
		case readers == 0:
			main.dormant = "master.cf has no " + commands[0] + "(8), which reads it"
		case readers == others:
			main.dormant = "every service that reads it has another value in master.cf"
		}
	}
	if main.value == "" {
		return all
	}
	return append([]place{main}, all...)
}

func (i *instance) mainPlace(name string) place {
	return place{name: name, value: i.value(name), source: name + " in " + i.mainFile(), line: i.written[name].line, uid: i.uid, dormant: i.dormant, i: i}
}

// rule is a rule for everybody that the setting itself states.
func (p *place) rule(m forward.Mechanism) forward.Rule {
	return forward.Rule{
		Owner: forward.Everybody, Mechanism: m, Mode: forward.Redirect, Source: p.source, Line: p.line,
		Server: true, Dormant: p.dormant, UID: p.uid,
	}
}
