package config

import (
	"fmt"
	"net/netip"
	"strings"

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
	if seen["mta"].sure("kind") && c.MTA.Kind == KindSendmail && len(c.Address.PostfixMaps) > 0 && address.sure("postfix_maps") {
		r.add(address.place("postfix_maps"), "address.postfix_maps", fmt.Sprintf("tables of Postfix with mta.kind = %q", KindSendmail), "no such tables",
			"Sendmail has none that say whose address it is: write LOGIN ADDRESS lines into a file and name it in address.files")
	}
	r.checkHold(&c.Hold, seen["hold"])
	r.checkStore(c, seen)
	r.checkRecords(c, seen)
}

func (r *report) checkHold(h *Hold, t *table) {
	if t.sure("origin_messages", "server_messages") && h.OriginMessages > h.ServerMessages {
		r.add(t.placeOf("origin_messages", "server_messages"), "hold.origin_messages", fmt.Sprint(h.OriginMessages),
			fmt.Sprintf("at most hold.server_messages, %d", h.ServerMessages), "else one origin fills the queue for all: lower the one or raise the other")
	}
	if h.DeleteAfter == 0 || !t.sure("delete_after") {
		return
	}
	found := fmt.Sprintf("%q", showDuration(h.DeleteAfter))
	switch {
	case t.sure("remind_after") && h.DeleteAfter <= h.RemindAfter:
		r.add(t.place("delete_after"), "hold.delete_after", found, fmt.Sprintf("more than hold.remind_after, %q", showDuration(h.RemindAfter)), "else mail is gone before anybody is told of it: raise the one or lower the other")
	case t.sure("max_age") && h.DeleteAfter <= h.MaxAge:
		r.add(t.place("delete_after"), "hold.delete_after", found, fmt.Sprintf("more than hold.max_age, %q", showDuration(h.MaxAge)), "else mail is deleted that would still go by itself: raise the one or lower the other")
	}
}

func (r *report) checkRecords(c *Config, seen map[string]*table) {
	journal, alert := seen["journal"], seen["alert"]
	if j := c.Journal; journal.sure("keep_addresses", "keep_totals") && j.KeepAddresses > j.KeepTotals {
		r.add(journal.placeOf("keep_addresses", "keep_totals"), "journal.keep_addresses", fmt.Sprintf("%q", showDuration(j.KeepAddresses)),
			fmt.Sprintf("at most journal.keep_totals, %q", showDuration(j.KeepTotals)), "rows go with their totals: lower the one or raise the other")
	}
	if a := c.Alert; alert.sure("syslog", "command") && !a.Syslog && a.Command == "" && a.Webhook == "" && a.SyslogServer == "" {
		r.add(alert.place("syslog"), "alert.syslog", "false, and nobody else", "somebody who is told of incidents",
			"name alert.command, alert.webhook or alert.syslog_server, or delete the key to get the default true")
	}
}

// placed is a path, with the key that says it.
type placed struct {
	key, path string
	at        int // of the key; 0 for a default
}

// checkPaths: each socket has a path of its own, outside of the journal's
// directory, into which nobody but the daemon has a way.
func (r *report) checkPaths(c *Config, seen map[string]*table, listeners []*table) {
	var sockets []placed
	for i, l := range c.Listeners {
		s := placed{"listener.address", l.Endpoint.Path, 0}
		if i < len(listeners) { // else it is a default one
			if !listeners[i].sure("address") {
				continue
			}
			s.at = listeners[i].place("address")
		}
		if s.path != "" {
			sockets = append(sockets, s)
		}
	}
	first := len(sockets) // those before are told apart by checkListeners
	for _, s := range []struct{ section, name, path string }{{"control", "socket", c.Control.Socket}, {"mta", "queue_helper", c.MTA.QueueHelper}, {"origin", "call_socket", c.Origin.CallSocket}, {"forward", "helper", c.Forward.Helper}} {
		if t := seen[s.section]; t.sure(s.name) {
			sockets = append(sockets, placed{s.section + "." + s.name, s.path, t.place(s.name)})
		}
	}
	for i := first; i < len(sockets); i++ {
		s := sockets[i]
		for _, other := range sockets[:i] {
			if s.path == other.path {
				if s.at < other.at {
					s, other = other, s
				}
				r.add(s.at, s.key, fmt.Sprintf("%s, as %s has it", quote(s.path), other.key), "a socket of its own", "give one of them another name")
				break
			}
		}
	}
	journal := seen["journal"]
	if !journal.sure("directory") {
		return
	}
	dir := placed{"journal.directory", c.Journal.Directory, journal.place("directory")}
	for _, s := range sockets {
		if below(s.path, dir.path) {
			r.addIntrusion(dir, s)
			return
		}
	}
}

func (r *report) addIntrusion(dir, socket placed) {
	at, found := dir, fmt.Sprintf("%s around %s, %s", quote(dir.path), socket.key, quote(socket.path))
	if socket.at > dir.at {
		at, found = socket, fmt.Sprintf("%s inside %s, %s", quote(socket.path), dir.key, quote(dir.path))
	}
	r.add(at.at, at.key, found, "the journal where only the daemon enters", "give the one or the other another directory")
}

// below reports that the clean path is the directory or in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
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
