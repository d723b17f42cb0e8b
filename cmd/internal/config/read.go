package config

import (
	"slices"
	"strings"

	"relayguard/policy/origin"
)

// read parses and checks the file. What it returns is good only if no problem
// was reported.
func (r *report) read() *Config {
	c := Default()
	root := r.parse()
	syntax := len(r.problems) > 0
	if mailServerOf(root) == KindSendmail {
		c.besideSendmail()
	}

	r.unknown(root, head.names(), sectionNames())
	readFields(r, head, root, c)
	seen := map[string]*table{}
	for _, s := range sections {
		seen[s.name] = readSection(r, s, root, c)
	}
	var lts, limts, nts, cts, ots, custs, nds, dbs, zks []*table
	c.Listeners, lts = readInstead(r, listeners, root, c.Listeners, "delete the key to get the default ones")
	if c.MTA.Kind == KindSendmail {
		listenersOfSendmail(c.Listeners, lts)
	}
	c.Limits, limts = readInstead(r, limits, root, c.Limits, "delete the key to get the default ones; one that stops nothing has observe = true")
	c.Networks, nts = readAll(r, networks, root)
	c.Certificates, cts = readAll(r, certificates, root)
	c.Overrides, ots = readAll(r, overrides, root)
	c.Customers, custs = readAll(r, customers, root)
	c.Nodes, nds = readAll(r, nodes, root)
	c.Databases, dbs = readAll(r, databases, root)
	c.ZoneKeys, zks = readAll(r, zoneKeys, root)
	if c.Inside.Free {
		freeInside(c.Limits, limts)
	}

	r.checkSections(c, seen)
	r.checkListeners(c.Listeners, lts)
	r.checkPaths(c, seen, lts)
	names := named{}
	nameAll(names, limits, c.Limits, limts, func(l *Limit) string { return l.Name })
	nameAll(names, networks, c.Networks, nts, func(n *origin.Network) string { return n.Name })
	nameAll(names, customers, c.Customers, custs, func(one *Customer) string { return one.Name })
	nameAll(names, nodes, c.Nodes, nds, func(n *Node) string { return n.Name })
	r.checkLimits(c, names, limts, seen["mta"])
	r.checkOverrides(c, names, ots, limts)
	r.checkNetworks(c.Networks, nts)
	r.checkCustomers(c.Customers, names, custs)
	r.checkOrigin(c, seen["sign"], c.Nodes, nds)
	r.checkCertificates(c.Certificates, cts)
	r.checkDatabases(c.Databases, dbs)
	r.checkZoneKeys(c.ZoneKeys, zks)
	r.checkRBL(c, seen["rbl"])
	if !syntax && len(r.problems) == 0 {
		r.verify()
	}
	return c
}

// readSection reads the table of a section; an empty one if the file has none.
func readSection(r *report, s section[Config], root *table, c *Config) *table {
	e := root.index[s.name]
	switch {
	case e == nil:
		return newTable(s.name, 0)
	case e.val.kind == aTable:
		r.unknown(e.val.table, s.names(), nil)
		readFields(r, s, e.val.table, c)
		return e.val.table
	}
	found, remedy := e.val.String(), "write the section as ["+s.name+"]"
	if e.val.open {
		found = "[[" + s.name + "]]"
	}
	r.add(e.at, s.name, found, "a section", remedy)
	t := newTable(s.name, e.at)
	t.broken = true
	return t
}

// readInstead reads all tables of a kind that the file may have in place of
// default ones. It must have one then.
func readInstead[S any](r *report, s section[S], root *table, byDefault []S, remedy string) ([]S, []*table) {
	all, tables := readAll(r, s, root)
	e := root.index[s.name]
	if e == nil {
		return byDefault, nil
	}
	if e.val.kind == anArray && len(e.val.elems) == 0 {
		r.add(e.at, s.name, "an empty list", "at least one "+s.name, remedy)
	}
	return all, tables
}

// readAll reads all tables of one kind, with the place of each.
func readAll[S any](r *report, s section[S], root *table) (all []S, tables []*table) {
	e := root.index[s.name]
	if e == nil {
		return nil, nil
	}
	if e.val.kind != anArray {
		if e.val.kind != aTable {
			r.add(e.at, s.name, e.val.String(), "sections [["+s.name+"]]", "write a header [["+s.name+"]] and its keys below it")
			return nil, nil
		}
		r.add(e.at, s.name, "["+s.name+"]", "[["+s.name+"]], as there may be several", "write its header in double brackets")
		e = &entry{e.name, e.at, &value{kind: anArray, at: e.val.at, elems: []*value{e.val}}}
	}
	for _, v := range e.val.elems {
		if v.kind != aTable {
			r.add(v.at, s.name, v.String(), "a section [["+s.name+"]]", "write each as a section of its own")
			continue
		}
		one := s.blank()
		r.unknown(v.table, s.names(), nil)
		readFields(r, s, v.table, one)
		all, tables = append(all, *one), append(tables, v.table)
	}
	return all, tables
}

// readFields reads the known keys of a table. A key that is wrong is noted as
// spoiled, for checks that compare keys to leave out: one fault, one problem.
func readFields[S any](r *report, s section[S], t *table, into *S) {
	for _, f := range s.fields {
		path := join(s.name, f.name)
		e := t.index[f.name]
		if f.sub != nil {
			readSub(r, s.under(f), e, into)
			continue
		}
		if e == nil {
			if f.required && !t.broken {
				r.add(t.at, path, "nothing", f.wanted, "add the key")
				t.spoiled[f.name] = true
			}
			continue
		}
		faults := f.read(e.val, into)
		for _, ft := range faults {
			r.addFault(path, e, f.wanted, remedyOf(f.required, s.byDefault(f)), ft)
			t.spoiled[f.name] = true
		}
	}
}

// readSub reads the table of a section below another.
func readSub[S any](r *report, s section[S], e *entry, into *S) {
	switch {
	case e == nil:
	case e.val.kind == aTable:
		r.unknown(e.val.table, s.names(), nil)
		readFields(r, s, e.val.table, into)
	case e.val.open:
		r.add(e.at, s.name, "[["+s.name+"]]", "one section", "write its header in single brackets")
	default:
		r.add(e.at, s.name, e.val.String(), "a section", "write the section as ["+s.name+"]")
	}
}

func (r *report) addFault(path string, e *entry, wanted, remedy string, f fault) {
	at := f.at
	if at == e.val.at { // the value as a whole: point at its key
		at = e.at
	}
	switch {
	case f.remedy == zeroRemedy:
		f.remedy += remedy
	case f.remedy == "":
		f.remedy = remedy
	}
	if f.wanted == "" {
		f.wanted = wanted
	}
	r.add(at, path, f.found, f.wanted, f.remedy)
}

func remedyOf(required bool, def string) string {
	switch {
	case required:
		return "the key has no default: write what is wanted"
	case def == "":
		return "mend or delete the key"
	}
	return "delete the key to get the default " + def
}

// unknown reports the keys of a table that nobody reads.
func (r *report) unknown(t *table, keys, tables []string) {
	known := append(slices.Clone(keys), tables...)
	for _, e := range t.entries {
		if slices.Contains(known, e.name) {
			continue
		}
		at := []int{e.at}
		if e.val.open {
			at = at[:0]
			for _, v := range e.val.elems {
				at = append(at, v.at)
			}
		}
		what, remedy := "an unknown key", r.suggest(t.path, e.name, known)
		if e.val.open || e.val.kind == aTable && !e.val.table.dotted && !e.val.table.sealed {
			what = "an unknown section"
		}
		for _, at := range at {
			r.add(at, join(t.path, e.name), what, "one that relayguard.toml(5) names", remedy)
		}
	}
}

// suggest names the key that was probably meant: one spelt alike, or the same
// one of another section.
func (r *report) suggest(path, name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	for _, k := range r.keys {
		if in, _, _ := cutLast(k.Name, "."); strings.HasSuffix(in, "."+name) {
			return "did you mean [" + in + "]? It stands below the section that it belongs to"
		}
		if section, leaf, ok := cutLast(k.Name, "."); (ok && leaf == name || k.Name == name) && section != path {
			if ok {
				return "did you mean " + k.Name + "? Put it below the header of that section"
			}
			return "did you mean " + k.Name + "? Put it above all sections"
		}
	}
	return "delete it; its neighbours are " + strings.Join(known, ", ")
}

func sectionNames() []string {
	var all []string
	for _, s := range sections {
		all = append(all, s.name)
	}
	return append(all, listeners.name, limits.name, overrides.name, networks.name, customers.name, nodes.name, databases.name, zoneKeys.name, certificates.name)
}
