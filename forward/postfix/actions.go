package postfix

import (
	"context"
	"strings"

	"relayguard/forward"
	"relayguard/forward/tables"
)

// checkSettings are tables of header_checks(5) at cleanup(8). Those of smtp(8)
// (smtp_header_checks and its kin) know no action that sends mail elsewhere.
var checkSettings = []string{"header_checks", "mime_header_checks", "nested_header_checks", "body_checks", "milter_header_checks"}

func (f *finder) checks(ctx context.Context) []forward.Unit {
	var units []forward.Unit
	for _, name := range checkSettings {
		for _, p := range f.i.places(name, "cleanup") {
			units = append(units, f.unit(ctx, p, func(ctx context.Context) forward.Reading {
				return f.each(ctx, &p, forward.Checks, false, false, func(base forward.Rule, e tables.Entry) forward.Reading {
					base.Owner, base.Note = forward.Everybody, "for mail that matches "+brief(e.Key)
					r, _ := f.action(ctx, base, e.Value)
					return r
				})
			}))
		}
	}
	return units
}

// action makes the rule of a REDIRECT, BCC or FILTER action: access(5),
// header_checks(5). done is false for any other word.
func (f *finder) action(ctx context.Context, base forward.Rule, value string) (r forward.Reading, done bool) {
	verb, argument := strings.Trim(value, spaces), ""
	if at := strings.IndexAny(verb, " \t"); at >= 0 {
		verb, argument = verb[:at], strings.Trim(verb[at:], spaces)
	}
	base.Server = true
	switch strings.ToUpper(verb) {
	case "BCC":
		base.Mode = forward.Copy
		fallthrough
	case "REDIRECT":
		base.Target, base.Dynamic = argument, strings.Contains(argument, forward.Unknown)
		if !strings.Contains(argument, "@") {
			base.Broken = verb + " wants user@domain"
		}
		return forward.Reading{Rules: []forward.Rule{bounded(base)}}, true
	case "FILTER":
		if !strings.Contains(argument, ":") {
			base.Kind, base.Target, base.Broken = forward.NextHop, argument, "FILTER wants transport:destination"
			return forward.Reading{Rules: []forward.Rule{bounded(base)}}, true
		}
		return f.route(ctx, routing{inside: true, filter: true}, base, argument), true
	}
	return forward.Reading{}, false
}
