package config

import (
	"fmt"
	"net/netip"

	"relayguard/policy/origin"
)

// Here are the checks that compare keys. Each looks only at keys that were
// read without a problem.

func (r *report) checkSections(c *Config, seen map[string]*table) {
	inside, milter, address := seen["inside"], seen["milter"], seen["address"]
	if inside.sure("domains", "from_mta") && !c.Inside.FromMTA && len(c.Inside.Domains) == 0 {
		r.add(inside.place("from_mta"), "inside.from_mta", "false, and no inside.domains", "at least one domain that is ours",
			"name them in inside.domains or delete the key to get the default true")
	}
	m := c.Milter
	if milter.sure("drain_timeout", "decision_timeout") && m.DrainTimeout < m.DecisionTimeout {
		r.add(milter.place("drain_timeout"), "milter.drain_timeout", fmt.Sprintf("%q", showDuration(m.DrainTimeout)),
			fmt.Sprintf("at least milter.decision_timeout, %q", showDuration(m.DecisionTimeout)),
			"else a restart cuts decisions off: raise the one or lower the other")
	}
	used := len(c.Address.PostfixMaps) > 0 || address.index["map_timeout"] != nil
	if used && address.sure("map_timeout", "postfix_maps") && milter.sure("decision_timeout") && c.Address.MapTimeout >= m.DecisionTimeout {
		at := address.place("map_timeout")
		if address.index["map_timeout"] == nil {
			at = milter.place("decision_timeout")
		}
		r.add(at, "address.map_timeout", fmt.Sprintf("%q", showDuration(c.Address.MapTimeout)),
			fmt.Sprintf("less than milter.decision_timeout, %q", showDuration(m.DecisionTimeout)),
			"else a slow table never meets address.map_slow: lower the one or raise the other")
	}
}

// distinct reports the sections whose key has a value that another had before.
func (r *report) distinct(tables []*table, name string, value func(i int) string) {
	first := map[string]*table{}
	for i, t := range tables {
		if !t.sure(name) {
			continue
		}
		v := value(i)
		if other := first[v]; other != nil {
			key := join(t.path, name)
			r.add(t.place(name), key, quote(v)+" a second time", "each "+key+" once", fmt.Sprintf("line %d has it too: change one of them", r.line(other.place(name))))
			continue
		}
		first[v] = t
	}
}

// maxListeners is above any use: there are five roles.
const maxListeners = 100

func (r *report) checkListeners(all []Listener, tables []*table) {
	if len(tables) > maxListeners {
		r.add(tables[maxListeners].at, "listener", fmt.Sprintf("%d sections", len(tables)), fmt.Sprintf("at most %d", maxListeners), "delete some")
		return
	}
	r.distinct(tables, "name", func(i int) string { return all[i].Name })
	r.distinct(tables, "address", func(i int) string { return all[i].Endpoint.String() })
	for i, t := range tables {
		if !t.sure("address") {
			continue
		}
		r.checkListener(&all[i], t)
		for j, other := range tables[:i] {
			if other.sure("address") && all[i].Endpoint.overlaps(all[j].Endpoint) {
				r.add(t.place("address"), "listener.address", fmt.Sprintf("%s beside %s of line %d", quote(all[i].Endpoint.String()), quote(all[j].Endpoint.String()), r.line(other.place("address"))),
					"addresses of which none takes in the other", "give one of them another port, or name each address to bind")
			}
		}
	}
}

func (r *report) checkListener(l *Listener, t *table) {
	where := quote(l.Endpoint.String())
	if l.Endpoint.Network() == "tcp" {
		l.Mode, l.Group = 0, ""
		for _, name := range []string{"mode", "group"} {
			if e := t.index[name]; e != nil && t.sure(name) {
				r.add(e.at, join(t.path, name), e.val.String(), "no "+name+" with "+where, "delete the key: it is for Unix sockets")
			}
		}
	}
	switch {
	case !t.sure("allow"):
	case l.Endpoint.Loopback() && len(l.Allow) > 0:
		r.add(t.place("allow"), "listener.allow", "other machines", "none with "+where, "delete the key: only this machine reaches that address")
	case !l.Endpoint.Loopback() && len(l.Allow) == 0:
		r.add(t.place("address"), "listener.address", where+" without listener.allow", "an allow list, as others can reach that address",
			"add allow with the MTA machines' addresses, or listen on a Unix socket or on loopback")
	}
}

func (r *report) checkNetworks(all []origin.Network, tables []*table) {
	before := len(r.problems)
	first := map[netip.Prefix]int{}
	r.distinct(tables, "name", func(i int) string { return all[i].Name })
	for i, t := range tables {
		if !t.sure("cidr") {
			continue
		}
		for j, p := range all[i].Prefixes {
			if k, dup := first[p]; dup {
				r.add(t.elem("cidr", j), "network.cidr", showPrefix(p)+" a second time", "each address in one network",
					fmt.Sprintf("the network of line %d has it too: an address has one owner", r.line(tables[k].at)))
				continue
			}
			first[p] = i
		}
	}
	if before > 0 || len(r.problems) > before || len(tables) == 0 {
		return
	}
	// What origin knows and the above does not: its word is what counts.
	_, errs := origin.NewNetworks(all)
	for _, err := range errs {
		r.add(tables[0].at, "network", "sections that contradict each other", "networks that can be told apart", printable(err.Error()))
	}
}

func (r *report) checkCertificates(all []origin.Certificate, tables []*table) {
	first := map[origin.Certificate]*table{}
	for i, t := range tables {
		if !t.sure("subject", "issuer") {
			continue
		}
		c := origin.Certificate{Subject: all[i].Subject, Issuer: all[i].Issuer}
		same, wide := first[c], first[origin.Certificate{Subject: c.Subject}]
		switch {
		case same != nil:
			r.again(t, c, "line %d has it too: delete one of them", same)
		case wide != nil:
			r.again(t, c, "that of line %d takes every issuer and comes first: name its issuer or move it down", wide)
		default:
			first[c] = t
		}
	}
}

func (r *report) again(t *table, c origin.Certificate, remedy string, first *table) {
	r.add(t.place("subject"), "certificate.subject", quote(c.Subject)+" a second time", "each certificate once", fmt.Sprintf(remedy, r.line(first.place("subject"))))
}
