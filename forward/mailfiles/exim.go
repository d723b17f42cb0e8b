package mailfiles

import (
	"context"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
	"relayguard/forward/sieve"
)

// planExim: the homes' .forward as Exim reads them, where Exim is configured.
func planExim(ctx context.Context, h *forward.Host, plan *forward.Plan) {
	found := false
	for _, name := range []string{"/etc/exim4", "/etc/exim", "/etc/exim.conf"} {
		found = there(ctx, h, plan, name) || found
	}
	if !found {
		return
	}
	for _, account := range accounts(h) {
		as := bare(account)
		file := path.Join(account.Home, ".forward")
		plan.Units = append(plan.Units, forward.Unit{ID: "exim forward " + account.Name, Writer: account.UID, Owner: account.Name,
			Paths: []string{file},
			Read: func(ctx context.Context) forward.Reading {
				r := &reader{host: h}
				r.redirect(ctx, forward.Rule{Owner: account.Name, Mechanism: forward.DotForward, Source: file, Mode: forward.Redirect}, as)
				return r.reading
			}})
	}
}

// redirect reads a file that Exim's redirect router takes: a filter, a Sieve
// script, or a list of addresses.
func (r *reader) redirect(ctx context.Context, base forward.Rule, as *forward.Account) {
	data, ok := r.read(ctx, &base, as)
	if !ok {
		return
	}
	switch {
	case IsEximFilter(data):
		r.filter(ctx, base, data, as)
	case IsSieveFilter(data):
		base.Mechanism = forward.Sieve
		result := sieve.Targets(data, sieve.Options{})
		for _, target := range result.Targets {
			rule := base
			rule.Kind, rule.Target, rule.Mode, rule.Line, rule.Dynamic = target.Kind, target.Target, target.Mode, target.Line, target.Dynamic
			r.add(rule)
		}
		if result.Broken != "" {
			r.unread(base, base.Source, result.Broken)
		}
	default:
		for n, line := range strings.Split(string(data), "\n") {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				base.Line = n + 1
				r.value(ctx, base, line, as)
			}
		}
	}
}

func (r *reader) filter(ctx context.Context, base forward.Rule, data []byte, as *forward.Account) {
	for _, action := range ParseEximFilter(data) {
		rule := base
		rule.Kind, rule.Target, rule.Mode, rule.Line, rule.Dynamic = action.Kind, action.Target, action.Mode, action.Line, action.Dynamic
		if rule.Kind == forward.Program {
			r.program(ctx, rule, as)
			continue
		}
		r.add(rule)
	}
}

// value makes rules of a right side of Exim. ":fail:" and the like are no
// targets; "\user" is the owner's mailbox.
func (r *reader) value(ctx context.Context, base forward.Rule, value string, as *forward.Account) {
	trimmed := strings.ToLower(strings.TrimSpace(strings.Trim(strings.TrimSpace(value), `"`)))
	for _, special := range []string{":fail:", ":defer:", ":blackhole:", ":unknown:", ":freeze:"} {
		if strings.HasPrefix(trimmed, special) {
			return
		}
	}
	self := func(name string) bool {
		bare, _, _ := strings.Cut(base.Owner, "@")
		return strings.EqualFold(name, base.Owner) || strings.EqualFold(name, bare)
	}
	targets := aliases.ParseSendmail(value)
	for _, t := range targets {
		if t.Kind == forward.Address && self(t.Text) {
			base.Mode = forward.Copy
		}
	}
	for _, t := range targets {
		rule := base
		rule.Kind, rule.Target = t.Kind, t.Text
		switch {
		case t.Include:
			settings := aliases.Settings{Sendmail: true}
			reading := aliases.ExpandWith(ctx, r.host, base, ":include:"+t.Text, as, settings)
			r.reading.Rules = append(r.reading.Rules, reading.Rules...)
			r.reading.Gaps = append(r.reading.Gaps, reading.Gaps...)
			r.reading.Uses = append(r.reading.Uses, reading.Uses...)
		case t.Kind == forward.Address && self(t.Text), t.Kind == forward.Address && strings.HasPrefix(t.Text, ":"):
		case t.Kind == forward.Program:
			r.program(ctx, rule, as)
		default:
			r.add(rule)
		}
	}
}
