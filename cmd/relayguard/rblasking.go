package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"relayguard/cmd/internal/config"
	"relayguard/rbl"
)

// askingOf is what a command asks blocklists with: the zones and servers that somebody
// named, else those of the configuration. Errors say how to exit.
func askingOf(c *config.Config, zones, servers []string) (*asking, error) {
	a := &asking{}
	if err := a.choose(c); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	if len(zones) > 0 {
		if err := a.only(c, zones); err != nil {
			return nil, &exitError{exitUsage, &escapedError{fmt.Errorf("--zone: %w", err)}}
		}
		a.unread = nil // of those that are asked none wants for a key
	}
	if len(a.zones) == 0 {
		return nil, &exitError{exitUsage, errors.New("no list is asked: see relayguard rbl zones")}
	}
	if len(servers) == 0 {
		if err := a.resolve(c); err != nil {
			return nil, &exitError{exitCannotTell, err}
		}
	}
	a.ask(c, servers)
	return a, nil
}

// asks reports whether a list of that name is in use.
func (a *asking) asks(name string) bool {
	return slices.ContainsFunc(a.zones, func(z rbl.Zone) bool { return z.Name == name })
}

// only asks these lists in place of those that the configuration has. An error is one
// of who named them.
func (a *asking) only(c *config.Config, names []string) error {
	a.zones, a.not = nil, nil
	var errs []error
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if slices.ContainsFunc(a.zones, func(z rbl.Zone) bool { return z.Name == name }) {
			continue
		}
		z, err := a.named(c, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a.zones = append(a.zones, z)
		a.warnings = append(a.warnings, a.table.Warnings([]string{name})...)
	}
	slices.SortFunc(a.zones, func(x, y rbl.Zone) int { return strings.Compare(x.Name, y.Name) })
	return errors.Join(errs...)
}

// named is one list that somebody wants to be asked.
func (a *asking) named(c *config.Config, name string) (rbl.Zone, error) {
	if z, ok := a.table.Find(name); ok && z.Default == rbl.Never && !z.Hashed {
		return z, nil // a command may
	}
	choice := rbl.Choice{Enable: []string{name}, Keys: map[string]bool{}, Commercial: c.RBL.Use == config.UseCommercial}
	for operator := range a.keys {
		choice.Keys[operator] = true
	}
	use, not, err := a.table.Choose(choice)
	if err != nil {
		return rbl.Zone{}, errors.New(strings.TrimPrefix(err.Error(), "enable: "))
	}
	if i := slices.IndexFunc(use, func(z rbl.Zone) bool { return z.Name == name }); i >= 0 {
		return use[i], nil
	}
	why := ""
	if i := slices.IndexFunc(not, func(n rbl.NotChosen) bool { return n.Zone.Name == name }); i >= 0 {
		why = not[i].Why
	}
	return rbl.Zone{}, fmt.Errorf("%s is not asked: %s", name, cmp.Or(why, "its terms do not allow it"))
}

// names are the resolvers, for people.
func (a *asking) names() []string {
	all := make([]string, len(a.resolvers))
	for i, r := range a.resolvers {
		all[i] = r.Name()
	}
	return all
}

// nameServer reads what --resolver is given: an address, with a port if it is not 53.
func nameServer(text string) (string, error) {
	if ap, err := netip.ParseAddrPort(text); err == nil && ap.Port() != 0 {
		return ap.String(), nil
	}
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(addr, 53).String(), nil
	}
	return "", fmt.Errorf("got %q, want an address such as 127.0.0.1:53 or [::1]:53", text)
}
