package postfix

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
	"relayguard/forward/tables"
)

// rewriting is a table whose right sides are addresses.
type rewriting struct {
	setting   string
	commands  []string // who reads it
	mechanism forward.Mechanism
	mode      forward.Mode
	sender    bool // its keys are senders
	single    bool // of several addresses none counts
	keeps     bool // "@domain" keeps the local part
	server    bool
	classes   string // setting that must list envelope_recipient
}

var rewritings = []rewriting{
	{setting: "virtual_alias_maps", commands: []string{"cleanup"}, mechanism: forward.Virtual, mode: forward.Redirect, keeps: true},
	{setting: "canonical_maps", commands: []string{"cleanup"}, mechanism: forward.Canonical, mode: forward.Redirect, single: true, keeps: true, server: true, classes: "canonical_classes"},
	{setting: "recipient_canonical_maps", commands: []string{"cleanup"}, mechanism: forward.Canonical, mode: forward.Redirect, single: true, keeps: true, server: true, classes: "recipient_canonical_classes"},
	{setting: "recipient_bcc_maps", commands: []string{"cleanup"}, mechanism: forward.BCC, mode: forward.Copy, single: true, server: true},
	{setting: "sender_bcc_maps", commands: []string{"cleanup"}, mechanism: forward.BCC, mode: forward.Copy, sender: true, single: true, server: true},
	{setting: "smtp_generic_maps", commands: []string{"smtp"}, mechanism: forward.Generic, mode: forward.Redirect, single: true, keeps: true, server: true},
	{setting: "lmtp_generic_maps", commands: []string{"lmtp"}, mechanism: forward.Generic, mode: forward.Redirect, single: true, keeps: true, server: true},
}

func (f *finder) rewritings(ctx context.Context) []forward.Unit {
	var units []forward.Unit
	for _, w := range rewritings {
		for _, p := range f.i.places(w.setting, w.commands...) {
			if w.classes != "" && p.dormant == "" {
				classes := f.classes(&p, w.classes)
				if !slices.Contains(classes, "envelope_recipient") {
					p.dormant = w.classes + " has no envelope_recipient"
				}
			}
			units = append(units, f.unit(ctx, p, func(ctx context.Context) forward.Reading {
				return f.each(ctx, &p, w.mechanism, false, true, func(base forward.Rule, e tables.Entry) forward.Reading {
					return f.rewrite(w, base, e)
				})
			}))
		}
	}
	return units
}

func (f *finder) classes(p *place, setting string) []string {
	return splitList(f.at(p, setting))
}

// rewrite makes the rules of one entry.
func (f *finder) rewrite(w rewriting, base forward.Rule, e tables.Entry) forward.Reading {
	base.Owner, base.Sender, base.Mode, base.Server = owner(e), w.sender, w.mode, w.server
	if e.Pattern {
		base.Note = "for what matches " + brief(e.Key)
	}
	right := strings.Trim(e.Value, spaces)
	if w.keeps {
		right = keepLocal(base.Owner, right)
	}
	if w.single && !w.keeps {
		base.Target, base.Dynamic = right, strings.Contains(right, forward.Unknown)
		return forward.Reading{Rules: []forward.Rule{bounded(base)}} // one address, whatever it looks like: cleanup_addr.c
	}
	var r forward.Reading
	self := false
	for n, target := range aliases.ParseTargets(right) {
		if n == maxTargets {
			add(&r, unread(base, fmt.Sprintf("right side of more than %d addresses", maxTargets)))
			break
		}
		if target.Kind == forward.Asked {
			add(&r, unread(base, target.Text))
			continue
		}
		rule := base
		rule.Target = target.Text
		switch {
		case target.Kind != forward.Address || target.Include:
			rule.Kind, rule.Broken = target.Kind, w.setting+" has addresses only"
		case w.single && n > 0 && rule.Dormant == "":
			rule.Dormant = "of several addresses only the first counts"
		case f.same(base.Owner, rule.Target):
			self = true
			continue
		}
		rule.Dynamic = strings.Contains(rule.Target, forward.Unknown)
		r.Rules = append(r.Rules, bounded(rule))
	}
	if self && !w.single {
		for n := range r.Rules {
			r.Rules[n].Mode = forward.Copy
		}
	}
	return r
}

// unread tells that mail may go by what was not read of a right side.
func unread(base forward.Rule, why string) forward.Reading {
	source := base.Source
	if base.Line > 0 {
		source = fmt.Sprintf("%s:%d", source, base.Line)
	}
	base.Kind, base.Target, base.Note = forward.Asked, source, why+"; the rest is not told"
	return forward.Reading{Rules: []forward.Rule{bounded(base)}, Gaps: []forward.Gap{{Source: source, Why: base.Note}}}
}

// owner is whom an entry is for, as its key says.
func owner(e tables.Entry) string {
	if e.Pattern {
		return patternOwner(e.Key)
	}
	return e.Key
}

// same reports whether a target is its owner itself: case counts for nothing,
// a missing domain is myorigin. Letters that only look alike, or fold to one of
// ASCII, are others.
func (f *finder) same(owner, target string) bool {
	full := func(s string) string {
		s = lowerASCII(strings.TrimSuffix(strings.Trim(s, spaces), "."))
		s = strings.TrimPrefix(s, `\`)
		if !strings.Contains(s, "@") {
			s += "@" + f.domain
		}
		return s
	}
	return full(owner) == full(target)
}

// aliases are the units of alias_maps: aliases(5), read by local(8).
func (f *finder) aliases(ctx context.Context) []forward.Unit {
	var units []forward.Unit
	for _, p := range f.i.places("alias_maps", "local") {
		settings := f.localSettings(ctx, &p)
		units = append(units, f.unit(ctx, p, func(ctx context.Context) forward.Reading {
			var (
				of    int
				as    *forward.Account
				why   string
				known bool
			)
			return f.eachInto(ctx, &p, forward.Aliases, true, true, func(r *forward.Reading, base forward.Rule, e tables.Entry) {
				base.Owner = strings.ToLower(owner(e))
				if e.Pattern {
					base.Note = "for what matches " + brief(e.Key)
				}
				if !known || base.UID != of { // of a table all entries have the same
					known, of = true, base.UID
					as, why = f.tableRights(of)
				}
				if why != "" && base.Dormant == "" && base.Broken == "" {
					base.Broken = why
				}
				n := len(r.Rules)
				aliases.ExpandInto(ctx, r, f.h, base, e.Value, as, settings)
				for ; n < len(r.Rules); n++ {
					r.Rules[n].Dynamic = r.Rules[n].Dynamic || strings.Contains(r.Rules[n].Target, forward.Unknown)
				}
			})
		}))
	}
	return units
}

// tableRights is the account with whose rights local(8) follows the aliases of a
// table: its owner's, nil for root's. why: it delivers nothing by them
// (deliver_alias of alias.c).
func (f *finder) tableRights(uid int) (as *forward.Account, why string) {
	if uid <= 0 { // a table without a file is Postfix's own
		return nil, ""
	}
	for n := range f.h.Accounts {
		if f.h.Accounts[n].UID == uid {
			return &f.h.Accounts[n], ""
		}
	}
	if len(f.h.Accounts) == 0 { // not known who there is
		return &forward.Account{Name: fmt.Sprintf("uid %d", uid), UID: uid, GID: forward.NoUID}, ""
	}
	return nil, fmt.Sprintf("uid %d owns the table, and is no account: local(8) defers the mail", uid)
}

// at is a setting as the place's service has it.
func (f *finder) at(p *place, setting string) string {
	if p.service != nil {
		return f.i.effective(p.service, setting)
	}
	return f.i.value(setting)
}

// localSettings are what local(8) lets aliases and .forward files do.
func (f *finder) localSettings(ctx context.Context, p *place) aliases.Settings {
	commands, files := f.at(p, "allow_mail_to_commands"), f.at(p, "allow_mail_to_files")
	limit, _ := strconv.Atoi(f.at(p, "line_length_limit")) // none: the default
	local := f.domains(ctx, "mydestination").names
	return aliases.Settings{
		LineLimit: max(limit, 0), AllowCommands: &commands, AllowFiles: &files,
		Local: func(domain string) bool { return local[exactDomain(domain)] },
	}
}

// homes are the units of .forward files, where local(8) looks for them.
func (f *finder) homes(ctx context.Context) []forward.Unit {
	var units []forward.Unit
	for _, p := range f.i.places("forward_path", "local") {
		if p.dormant != "" {
			continue
		}
		o := aliases.HomesOptions{
			ForwardPath: p.value, Delimiters: f.at(&p, "recipient_delimiter"), Filter: f.at(&p, "forward_expansion_filter"),
			Settings: f.localSettings(ctx, &p),
		}
		for _, name := range sortedKeys(f.domains(ctx, "mydestination").names) {
			if !strings.HasPrefix(name, ".") {
				o.Domains = append(o.Domains, name)
			}
		}
		if !f.first {
			o.Instance = f.i.dir
		}
		if p.service != nil {
			o.Instance = strings.TrimPrefix(o.Instance+" "+p.service.id(), " ")
		}
		units = append(units, aliases.Homes(f.h, o)...)
	}
	return units
}
