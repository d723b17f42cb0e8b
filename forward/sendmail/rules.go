package sendmail

import (
	"context"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
)

// listable classes of map are read with their .db and text.
var listable = map[string]bool{"hash": true, "btree": true, "dbm": true, "text": true, "cdb": true, "implicit": true}

// mapUnit is the unit of one K map that may forward; others are none.
func (f *finder) mapUnit(name string, m Map) (forward.Unit, bool) {
	makers := map[string]func(context.Context, table) forward.Reading{
		"virtuser": f.virtualRules, "mailertable": f.mailerRules, "generics": f.genericRules, "userdb": f.userRules,
	}
	mechanisms := map[string]forward.Mechanism{
		"virtuser": forward.Virtual, "mailertable": forward.Transport, "generics": forward.Generic, "userdb": forward.Aliases,
	}
	rules, ok := makers[name]
	if !ok {
		return forward.Unit{}, false
	}
	if !listable[m.Class] || !strings.HasPrefix(m.Name, "/") {
		return f.asked(name, mechanisms[name], m.Class+":"+m.Name, f.config.Lines["K "+name]), true
	}
	file := strings.TrimSuffix(m.Name, ".db")
	return f.tableUnit("sendmail "+name+" "+file, file, false, rules), true
}

func (t table) rule(r row, owner string, m forward.Mechanism) forward.Rule {
	return forward.Rule{Owner: owner, Mechanism: m, Mode: forward.Redirect, Source: t.file, Line: r.line,
		Server: true, UID: t.uid, Differs: r.differs}
}

func (f *finder) aliasRules(ctx context.Context, t table) forward.Reading {
	var all forward.Reading
	settings := aliases.Settings{Sendmail: true, Local: func(domain string) bool { return f.world.Local[domain] }}
	for _, r := range t.rows {
		base := t.rule(r, r.key, forward.Aliases)
		base.Server = false
		if r.differs == onlyText {
			base.Dormant = onlyText
		}
		reading := aliases.ExpandWith(ctx, f.host, base, r.value, nil, settings)
		all.Rules = append(all.Rules, reading.Rules...)
		all.Gaps = append(all.Gaps, reading.Gaps...)
		all.Uses = append(all.Uses, reading.Uses...)
	}
	return all
}

// virtualRules: "@domain %1@other" keeps the local part, as Postfix's "@other".
func (f *finder) virtualRules(_ context.Context, t table) forward.Reading {
	var all forward.Reading
	for _, r := range t.rows {
		rule := t.rule(r, r.key, forward.Virtual)
		if r.differs == onlyText {
			rule.Dormant = onlyText
		}
		value := r.value
		if strings.HasPrefix(strings.ToLower(value), "error:") {
			continue // a refusal
		}
		if rest, ok := strings.CutPrefix(value, "%1@"); ok && strings.HasPrefix(r.key, "@") && !strings.Contains(rest, "%") {
			value = "@" + rest
		}
		rule.Target, rule.Dynamic = unknownParts(value)
		if _, ext, found := strings.Cut(r.key, "+*"); found {
			rule.Owner = strings.Replace(r.key, "+*", "", 1)
			rule.Note = "with an extension" + strings.TrimPrefix(ext, "@"+rule.Owner)
		}
		all.Rules = append(all.Rules, rule)
	}
	return all
}

// unknownParts puts Unknown in for %0 to %9.
func unknownParts(value string) (string, bool) {
	var out strings.Builder
	dynamic := false
	for n := 0; n < len(value); n++ {
		if value[n] == '%' && n+1 < len(value) && '0' <= value[n+1] && value[n+1] <= '9' {
			out.WriteString(forward.Unknown)
			dynamic = true
			n++
			continue
		}
		out.WriteByte(value[n])
	}
	return out.String(), dynamic
}

// mailerRules: a domain, or ".domain" for what is below it, and "mailer:host".
func (f *finder) mailerRules(_ context.Context, t table) forward.Reading {
	var all forward.Reading
	for _, r := range t.rows {
		mailer, host, found := strings.Cut(r.value, ":")
		mailer = strings.ToLower(strings.TrimSpace(mailer))
		rule := t.rule(r, "@"+r.key, forward.Transport)
		if r.key == "." {
			rule.Owner = forward.Everybody
		}
		if r.differs == onlyText {
			rule.Dormant = onlyText
		}
		switch {
		case mailer == "error" || mailer == "discard" || !found || strings.HasPrefix(mailer, "["):
			continue // Sendmail takes no notice of a host without a mailer
		case mailer == "local":
			rule.Target = host
		case mailer == "prog" || mailer == "procmail":
			rule.Kind, rule.Target = forward.Program, r.value
		case strings.Contains(host, "@"): // MailerToTriple in proto.m4: this address, and no other
			rule.Target, rule.Dynamic = unknownParts(host)
			rule.Note = "by mailer " + mailer
		default:
			rule.Kind = forward.NextHop
			rule.Target, rule.Dynamic = unknownParts(r.value)
		}
		all.Rules = append(all.Rules, rule)
	}
	return all
}

// genericRules: the address that outgoing mail bears, to which answers go.
func (f *finder) genericRules(_ context.Context, t table) forward.Reading {
	var all forward.Reading
	for _, r := range t.rows {
		rule := t.rule(r, r.key, forward.Generic)
		rule.Sender, rule.Note = true, "outgoing mail bears this address: answers go there"
		if r.differs == onlyText {
			rule.Dormant = onlyText
		}
		rule.Target, rule.Dynamic = unknownParts(r.value)
		all.Rules = append(all.Rules, rule)
	}
	return all
}

// userRules: "name:maildrop" of the user database.
func (f *finder) userRules(_ context.Context, t table) forward.Reading {
	var all forward.Reading
	for _, r := range t.rows {
		name, is := strings.CutSuffix(r.key, ":maildrop")
		if !is {
			continue
		}
		for _, target := range aliases.ParseSendmail(r.value) {
			rule := t.rule(r, name, forward.Aliases)
			rule.Kind, rule.Target = target.Kind, target.Text
			all.Rules = append(all.Rules, rule)
		}
	}
	return all
}
