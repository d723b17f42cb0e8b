package postfix

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/tables"
)

// restrictionLists are the settings of smtpd(8) that list restrictions, with the
// check that a bare table in them stands for.
var restrictionLists = []struct{ setting, bare string }{
	{"smtpd_client_restrictions", "check_client_access"},
	{"smtpd_helo_restrictions", "check_helo_access"},
	{"smtpd_sender_restrictions", "check_sender_access"},
	{"smtpd_relay_restrictions", "check_recipient_access"},
	{"smtpd_recipient_restrictions", "check_recipient_access"},
	{"smtpd_data_restrictions", ""},
	{"smtpd_end_of_data_restrictions", ""},
	{"smtpd_etrn_restrictions", "check_etrn_access"},
}

// Caps on restriction lists: Postfix stops at 100 levels.
const (
	maxClasses = 100
	maxItems   = 20_000
)

// check is one element of a restriction list that matters here.
type check struct {
	name  string // "check_recipient_access", "check_policy_service"
	table string // "hash:/etc/postfix/access", or the endpoint of the service
	// action is what smtpd(8) does if the service does not answer; empty: as
	// smtpd_policy_service_default_action says.
	action string
}

// restrictionWalk collects what a list asks, classes followed.
type restrictionWalk struct {
	value   func(name string) string // of a setting at the service
	classes []string
	checks  []check
	items   int
	bad     []string
}

func (w *restrictionWalk) add(list, bare string, open []string) {
	items := splitList(list)
	for n := 0; n < len(items); n++ {
		if w.items++; w.items > maxItems {
			w.miss("more restrictions than are read")
			return
		}
		word, _ := inBraces(items[n])
		lower := strings.ToLower(word)
		switch {
		case lower == "check_policy_service", strings.HasPrefix(lower, "check_") && strings.HasSuffix(lower, "_access"):
			if n++; n < len(items) {
				w.found(lower, items[n])
			}
		case slices.Contains(w.classes, word):
			w.class(word, bare, open)
		case isTable(word) && bare != "":
			w.found(bare, word)
		}
	}
}

// miss says what is wrong with the list, once, and not without end.
func (w *restrictionWalk) miss(why string) {
	const most = 10
	if len(w.bad) < most && !slices.Contains(w.bad, why) {
		w.bad = append(w.bad, why)
	}
}

func (w *restrictionWalk) found(name, item string) {
	c := check{name: name, table: item}
	if name == "check_policy_service" {
		c.table, c.action = policyItem(item)
	}
	if !slices.Contains(w.checks, c) {
		w.checks = append(w.checks, c)
	}
}

// policyItem takes "{ endpoint, { name = value }, name=value }" apart; action is
// the value of default_action.
func policyItem(item string) (endpoint, action string) {
	body, braced := inBraces(item)
	parts := splitList(body)
	if !braced || len(parts) == 0 {
		return item, ""
	}
	for _, part := range parts[1:] {
		part, _ = inBraces(part)
		if name, value, _ := strings.Cut(part, "="); strings.Trim(name, spaces) == "default_action" {
			action = strings.Trim(value, spaces) // the last one counts
		}
	}
	return parts[0], action
}

func (w *restrictionWalk) class(name, bare string, open []string) {
	if slices.Contains(open, name) || len(open) >= maxClasses {
		w.miss("restriction class " + name + " leads back to itself")
		return
	}
	w.add(w.value(name), bare, append(slices.Clone(open), name))
}

// walk makes a walk for a place.
func (f *finder) walk(p *place) *restrictionWalk {
	value := f.i.value
	if s := p.service; s != nil {
		value = func(name string) string { return f.i.effective(s, name) }
	}
	return &restrictionWalk{value: value, classes: splitList(value("smtpd_restriction_classes"))}
}

// restrictions are a unit for each list that asks a table or a policy service.
func (f *finder) restrictions(ctx context.Context) []forward.Unit {
	var units []forward.Unit
	for _, list := range restrictionLists {
		for _, p := range f.restrictionPlaces(list.setting) {
			w := f.walk(&p)
			w.add(p.value, list.bare, nil)
			if len(w.checks) == 0 && len(w.bad) == 0 {
				continue
			}
			named := p
			named.value = ""
			for _, c := range w.checks {
				if c.name != "check_policy_service" {
					named.value += " " + c.table
				}
			}
			units = append(units, f.unit(ctx, named, func(ctx context.Context) forward.Reading {
				return f.readRestrictions(ctx, &p, list.bare)
			}))
		}
	}
	return units
}

// restrictionPlaces are the places of a list, and the services whose own classes
// may say something else by the same list.
func (f *finder) restrictionPlaces(setting string) []place {
	places := f.i.places(setting, "smtpd")
	main := f.i.mainPlace(setting)
	w := f.walk(&main)
	for n := range f.i.services {
		s := &f.i.services[n]
		if s.command != "smtpd" || s.settings == nil || main.value == "" || f.i.effective(s, setting) != main.value {
			continue
		}
		for _, class := range splitList(f.i.effective(s, "smtpd_restriction_classes")) {
			if f.i.effective(s, class) != w.value(class) {
				p := main
				p.source, p.line, p.uid, p.service = setting+" of "+s.id()+" in "+f.i.masterFile(), s.line, f.i.masterID, s
				places = append(places, p)
				break
			}
		}
	}
	return places
}

func (f *finder) readRestrictions(ctx context.Context, p *place, bare string) forward.Reading {
	w := f.walk(p)
	w.add(p.value, bare, nil)
	var r forward.Reading
	for n := 0; n < len(w.checks); n++ { // grows: tables name further restrictions
		c := w.checks[n]
		if c.name == "check_policy_service" {
			add(&r, f.policyCheck(ctx, p, w, c, bare))
			continue
		}
		table := *p
		table.value = c.table
		switch {
		case table.dormant != "":
		case p.name == "smtpd_etrn_restrictions":
			table.dormant = "ETRN brings no mail: smtpd(8) skips REDIRECT, BCC and FILTER there"
		case f.at(p, "smtpd_proxy_filter") != "":
			table.dormant = "smtpd_proxy_filter is set: smtpd(8) then skips REDIRECT, BCC and FILTER"
		}
		add(&r, f.each(ctx, &table, forward.Access, false, false, func(base forward.Rule, e tables.Entry) forward.Reading {
			accessOwner(&base, c.name, e)
			reading, done := f.action(ctx, base, e.Value)
			if !done {
				w.add(e.Value, bare, nil)
			}
			return reading
		}))
	}
	for _, why := range w.bad {
		r.Gaps = append(r.Gaps, forward.Gap{Source: p.source, Why: why})
	}
	return r
}

// policyCheck is what a policy service may do, and what is done without it: its
// default action, which is one of access(5) itself.
func (f *finder) policyCheck(ctx context.Context, p *place, w *restrictionWalk, c check, bare string) forward.Reading {
	action := c.action
	if action == "" {
		action = f.at(p, "smtpd_policy_service_default_action")
	}
	base := p.rule(forward.Access)
	base.Owner, base.Note = forward.Everybody, "default action of check_policy_service "+brief(c.table)+": when nobody answers there"
	r, done := f.action(ctx, base, action)
	if !done {
		w.add(action, bare, nil)
	}
	if rule, ours := f.policyService(p, c.table); !ours || c.action != "" && !denies(c.action) {
		add(&r, f.withSpawned(ctx, rule, c.table))
	}
	return r
}

// denies reports actions of access(5) that send no mail anywhere.
func denies(action string) bool {
	verb, _, _ := strings.Cut(strings.ToUpper(strings.Trim(action, spaces)), " ")
	if len(verb) == 3 && allDigits(verb) {
		return verb[0] == '4' || verb[0] == '5'
	}
	return slices.Contains([]string{"DUNNO", "OK", "REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT"}, verb)
}

// accessOwner says whose mail an entry of access(5) is about.
func accessOwner(base *forward.Rule, check string, e tables.Entry) {
	base.Owner = forward.Everybody
	base.Note = fmt.Sprintf("%s: for %s", check, brief(e.Key))
	if check != "check_recipient_access" && check != "check_sender_access" {
		return
	}
	switch base.Sender = check == "check_sender_access"; {
	case e.Pattern:
		base.Owner = patternOwner(e.Key)
	case e.Key == "" || e.Key == "*" || e.Key == "<>":
	case strings.HasSuffix(e.Key, "@"):
		base.Owner = strings.TrimSuffix(e.Key, "@")
	case strings.Contains(e.Key, "@"):
		base.Owner = e.Key
	default:
		base.Owner = "@" + e.Key
	}
}
