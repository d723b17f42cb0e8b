package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"relayguard/mta"
	"relayguard/rbl"
)

// blocklists looks at what the check of our own addresses needs.
func (s surroundings) blocklists() []mta.Finding {
	c := s.config
	if !c.RBL.Watch {
		return []mta.Finding{{ID: "rbl-watch", Severity: mta.Info, Where: "rbl.watch", What: "nobody checks whether our addresses are on blocklists",
			Why: "strangers notice first", Remedy: "delete rbl.watch; or run relayguard rbl check --nagios by a timer"}}
	}
	a := &asking{}
	if err := a.choose(c); err != nil {
		return []mta.Finding{{ID: "rbl-zones", Severity: mta.Warning, Where: "rbl", What: strings.ReplaceAll(err.Error(), "\n", "; "),
			Why: "no blocklist is asked", Remedy: "mend the names: relayguard rbl zones --all"}}
	}
	var all []mta.Finding
	for _, k := range c.ZoneKeys {
		all = append(all, s.zoneKey(k.Operator, k.File)...)
	}
	if err := a.resolve(c); err != nil {
		all = append(all, mta.Finding{ID: "rbl-resolver", Severity: mta.Warning, Where: "rbl.resolvers", What: err.Error(),
			Why: "whether our addresses are listed is not known", Remedy: "apt-get install unbound, and rbl.resolvers = [\"127.0.0.1:53\"]"})
	}
	for _, d := range a.doubted {
		f := mta.Finding{ID: "rbl-resolver", Severity: mta.Info, Where: d.resolver, What: "blocklists do not see this resolver's own address: " + d.why,
			Why: "they see another one, with the queries of all its customers, and may refuse to answer", Remedy: "apt-get install unbound, and rbl.resolvers = [\"127.0.0.1:53\"]"}
		if d.public {
			f.Severity, f.What, f.Why = mta.Warning, "this is no resolver to ask blocklists: "+d.why, "everybody asks it: lists refuse it, or answer it wrongly"
		}
		all = append(all, f)
	}
	if names, remedies := a.missed(); len(names) > 0 {
		all = append(all, mta.Finding{ID: "rbl-not-asked", Severity: mta.Info, Where: "rbl", What: "lists that many receivers go by are not asked: " + strings.Join(names, ", "),
			Why: "a listing there is not noticed", Remedy: strings.Join(remedies, "; ")})
	}
	return all
}

// missed are the lists that matter and are not asked, and what helps.
func (a *asking) missed() (names, remedies []string) {
	for _, n := range a.not {
		if !a.misses(n.Zone.Name) {
			continue
		}
		names = append(names, fmt.Sprintf("%s (%s)", n.Zone.Name, n.Why))
		if remedy := remedyOfZone(&n); !slices.Contains(remedies, remedy) {
			remedies = append(remedies, remedy)
		}
	}
	return names, remedies
}

// misses reports whether a list matters and is not asked, though nobody wanted that:
// neither is it switched off, nor is one asked that has the same data.
func (a *asking) misses(zone string) bool {
	if a == nil || a.off[zone] {
		return false
	}
	at := slices.IndexFunc(a.not, func(n rbl.NotChosen) bool { return n.Zone.Name == zone })
	if at < 0 || a.not[at].Zone.Severity < rbl.High || a.not[at].Zone.Default == rbl.Off {
		return false
	}
	same := a.not[at].Zone.Keyed
	if slices.ContainsFunc(a.zones, func(z rbl.Zone) bool { return z.Name == same || z.Keyed == zone }) {
		return false
	}
	// Of a pair the one that is asked without a key is named: its remedy has both ways.
	return !slices.ContainsFunc(a.not, func(n rbl.NotChosen) bool { return n.Zone.Keyed == zone })
}

func remedyOfZone(n *rbl.NotChosen) string {
	switch {
	case n.Zone.Key != "":
		return fmt.Sprintf("write the operator's key into a file, and name that in a [[zone_key]] of the operator %q", n.Zone.Key)
	case n.Zone.Terms.NonCommercial:
		return "get a key (" + n.Zone.Terms.URL + ") and name its file in a [[zone_key]]; or set rbl.use = \"noncommercial\" if that is so"
	case n.Zone.Terms.Register || n.Zone.Terms.Account:
		return "register at " + n.Zone.Terms.URL + ", then name it in rbl.enable; or in rbl.disable, if you do not want it"
	}
	return "name it in rbl.enable, or in rbl.disable if you do not want it"
}

// zoneKey looks at the file with a key.
func (s surroundings) zoneKey(operator, path string) []mta.Finding {
	const why = "its lists are not asked"
	where := "zone_key " + operator
	info, err := os.Stat(path)
	if err != nil {
		return []mta.Finding{{ID: "zone-key", Severity: mta.Warning, Where: where, What: err.Error(), Why: why,
			Remedy: "write the key into that file, readable for the daemon's account alone"}}
	}
	if info.Mode().Perm()&0o004 != 0 {
		return []mta.Finding{{ID: "zone-key", Severity: mta.Warning, Where: path, What: "everybody on this machine may read this key",
			Why: "who has it asks in your name", Remedy: "chmod o-r " + path}}
	}
	if s.account != nil && !s.account.may(reading, path) {
		return []mta.Finding{{ID: "zone-key", Severity: mta.Warning, Where: path, What: fmt.Sprintf("the daemon's account %s may not read it", s.account.Username), Why: why,
			Remedy: "chgrp it to the daemon's group, mode 0640"}}
	}
	if _, err := readZoneKey(path); err != nil && !os.IsPermission(err) {
		return []mta.Finding{{ID: "zone-key", Severity: mta.Warning, Where: path, What: err.Error(), Why: why, Remedy: "write the key alone on its first line"}}
	}
	return nil
}
