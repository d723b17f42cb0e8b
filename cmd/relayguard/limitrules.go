package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/desk"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// parts are what limits stand on; they outlive a reload.
type parts struct {
	store      limit.Store
	retries    *limit.Retries
	item       func(rcptTo string) limit.Item
	expansions policy.Expansions
	lines      policy.Queue
	uid        func(name string) (int, error)
	customer   func(*origin.Origin) origin.Key // this and the next are newPolicy's to set
	userName   func(uid int) string
	learnt     *recognition // nil: nothing tells site and plugin
}

// policyLimits makes the configured limits ready for a phase. An account that
// local.shared_users names and this machine does not have is none of its senders.
func policyLimits(c *config.Config, phase policy.Phase, on parts) (*policy.Limits, []error) {
	var errs []error
	o := policy.LimitsOptions{Phase: phase, Store: on.store, Retries: on.retries, Item: on.item, Expansions: on.expansions, Lines: on.lines, Customers: on.customer, Location: time.Local, SharedUsers: c.Local.SharedUsers}
	if on.learnt != nil {
		o.Peaks = on.learnt.peaks
	}
	for _, name := range c.Local.SharedUsers {
		if uid, err := on.uid(name); err == nil {
			o.SharedUIDs = append(o.SharedUIDs, uid)
			if on.userName == nil {
				continue
			}
			if called := on.userName(uid); called != "" && !slices.Contains(o.SharedUsers, called) { // as the journal has it
				o.SharedUsers = append(slices.Clip(o.SharedUsers), called)
			}
		}
	}
	for i := range c.Limits {
		rule, err := limitRule(&c.Limits[i])
		if err != nil {
			errs = append(errs, err)
		}
		o.Rules = append(o.Rules, rule)
	}
	for i := range c.Overrides {
		s, err := overrideOf(&c.Overrides[i], on.uid)
		if err != nil {
			errs = append(errs, fmt.Errorf("override of %s for %s: %w", c.Overrides[i].Limit, c.Overrides[i].For, err))
			continue
		}
		o.Overrides = append(o.Overrides, s)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return policy.NewLimits(o), nil
}

// limitRule is a limit of the configuration as the policy has it.
func limitRule(l *config.Limit) (policy.LimitRule, error) {
	r := policy.LimitRule{Then: l.Then, Observe: l.Observe, Warn: l.Warn, ClientBits4: l.ClientBits4, ClientBits6: l.ClientBits6}
	r.Name = l.Name
	var errs []error
	for _, name := range l.Per {
		per, err := limit.ParsePer(name)
		r.Per, errs = append(r.Per, per), append(errs, err)
	}
	var err error
	r.Counts, err = limit.ParseUnit(l.Counts)
	errs = append(errs, err)
	r.Kind, err = limit.ParseKind(l.Kind)
	errs = append(errs, err)
	r.Scope = map[string]policy.Scope{"all": policy.Everyone, "outside": policy.OutsideOnly, "inside": policy.InsideOnly}[l.Recipients]
	r.Windows = windowsOf(l.Windows, l.Burst)
	r.Adapt = limit.Adapt{Times: l.Adapt.Count, Days: int((l.Adapt.Length + 24*time.Hour - 1) / (24 * time.Hour))}
	r.When = policy.When{Origins: l.When.Origins, MinSize: l.When.MinSize, MaxSize: l.When.MaxSize, MinRecipients: l.When.MinRecipients, MaxRecipients: l.When.MaxRecipients,
		Days: l.When.Days, Header: l.When.Header, NoHeader: l.When.NoHeader}
	for _, h := range l.When.Hours {
		r.When.Hours = append(r.When.Hours, policy.Hours(h))
	}
	return r, errors.Join(append(errs, r.Check())...)
}

// windowsOf are windows of the configuration, the burst first.
func windowsOf(windows []config.Window, burst config.Window) (all []limit.Window) {
	if burst != (config.Window{}) {
		all = append(all, limit.Window{Count: burst.Count, Length: burst.Length, Burst: true})
	}
	for _, w := range windows {
		all = append(all, limit.Window{Count: w.Count, Length: w.Length})
	}
	return all
}

// overrideOf is an override of the configuration as an order.
func overrideOf(o *config.Override, uid func(string) (int, error)) (policy.Switch, error) {
	s := policy.Switch{Kind: policy.Set, Rule: o.Limit, Windows: windowsOf(o.Windows, o.Burst), Reason: o.Reason, By: "the configuration", Until: o.Until}
	var err error
	if s.Subject, s.Value, err = subjectFor(o.For, func(name string) (string, error) { return (&desk.Desk{UID: uid}).LocalID(name) }); err != nil {
		return s, err
	}
	s.ID = "override:" + o.Limit + ":" + s.About()
	return s, s.Check()
}

// whoSubjects are the kinds of WHO, as commands and the configuration write them.
var whoSubjects = map[string]policy.Subject{"login": policy.SubjectLogin, "local_user": policy.SubjectLocalUser, "network": policy.SubjectTrusted, "domain": policy.SubjectDomain,
	"customer": policy.SubjectCustomer, "site": policy.SubjectSite, "plugin": policy.SubjectPlugin, "key": policy.SubjectKey}

// subjectFor reads WHO: "login:taro@example.jp", "domain:example.jp", a plain
// login.
func subjectFor(who string, localID func(string) (string, error)) (policy.Subject, string, error) {
	kind, value, found := strings.Cut(who, ":")
	if !found {
		kind, value = "login", who
	}
	subject, known := whoSubjects[kind]
	switch {
	case !known || value == "":
		return "", "", fmt.Errorf("found %q, want login:NAME, local_user:NAME, network:NAME, site:NAME, plugin:NAME, domain:NAME, customer:NAME or key:VALUE", who)
	case subject == policy.SubjectLocalUser:
		id, err := localID(strings.TrimPrefix(value, "uid:"))
		if err != nil {
			return "", "", fmt.Errorf("%q: %w", who, err)
		}
		value = id
	}
	return subject, value, nil
}

// customersOf are the customers of the configuration.
func customersOf(c *config.Config) (origin.Customers, []error) {
	all := make([]origin.Customer, len(c.Customers))
	for i, one := range c.Customers {
		all[i] = origin.Customer{Name: one.Name, Logins: one.Logins, Domains: one.Domains, LocalUsers: one.LocalUsers, Sites: one.Sites, Networks: one.Networks}
	}
	return origin.NewCustomers(all)
}

// limitNames are the names of the limits of a configuration.
func limitNames(c *config.Config) []string {
	names := make([]string, len(c.Limits))
	for i, l := range c.Limits {
		names[i] = l.Name
	}
	return names
}

// abuseLimits are the names of those of kind abuse.
func abuseLimits(c *config.Config) (names []string) {
	for _, l := range c.Limits {
		if l.Kind == limit.Abuse.String() {
			names = append(names, l.Name)
		}
	}
	return names
}
