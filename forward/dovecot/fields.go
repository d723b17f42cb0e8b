package dovecot

import (
	"maps"
	"slices"
	"strings"

	"relayguard/forward"
)

// fields are what a user or password database answers beside the password. Each
// is a setting that counts for one user, above those of the configuration: "home",
// "sieve", "mail_plugins", "plugin/sieve_before". Values may have variables.
type fields map[string]string

// parseFields reads "uid=8 home=/x sieve_before=/y"; a name alone is "yes".
func parseFields(s string) fields {
	out := fields{}
	for word := range strings.FieldsSeq(s) {
		out.set(word)
	}
	return out
}

func (f fields) set(word string) {
	key, value, ok := strings.Cut(word, "=")
	if !ok {
		value = "yes"
	}
	f[strings.TrimPrefix(key, "plugin/")] = value
}

// userdb are the fields of a password database that are handed on to the user's.
func (f fields) userdb() fields {
	out := fields{}
	for key, value := range f {
		if rest, ok := strings.CutPrefix(key, "userdb_"); ok {
			out[strings.TrimPrefix(rest, "plugin/")] = value
		}
	}
	return out
}

// over are the fields with those of o in their place.
func (f fields) over(o fields) fields {
	if len(f) == 0 {
		return o
	}
	out := maps.Clone(f)
	maps.Copy(out, o)
	return out
}

func (f fields) keys() []string { return slices.Sorted(maps.Keys(f)) }

// scripts reports whether a field names scripts that run beside the user's own.
func scripts(key string) bool {
	base := strings.TrimRight(key, "0123456789")
	return slices.Contains([]string{"sieve_before", "sieve_after", "sieve_default", "sieve_global_path", "sieve_discard"}, base) ||
		strings.HasPrefix(key, "imapsieve_") && (strings.HasSuffix(key, "_before") || strings.HasSuffix(key, "_after"))
}

// hasSieve reports whether a value of mail_plugins loads Sieve.
func hasSieve(plugins string) bool {
	return slices.Contains(strings.FieldsFunc(plugins, isListGap), "sieve")
}

// forEverybody puts fields that a database gives to all its users in the place of
// settings: their scripts, and what sends mail elsewhere.
func (p *planner) forEverybody(f fields, where string) {
	for _, key := range f.keys() {
		value := f[key]
		if value == "" {
			continue
		}
		setting := key + " of " + where
		switch {
		case key == "sieve":
			p.sharedPlace(setting, value)
		case scripts(key):
			p.place(setting, p.file, value, p.unused)
		case strings.HasPrefix(key, "sieve_script"):
			p.opaque(setting, p.file, value, "scripts of a field are not read", "")
		default:
			p.extra = append(p.extra, p.away(key, value, forward.Everybody, setting+" in "+p.file, 0, f)...)
		}
	}
}

// sharedPlace is "sieve" for all users of a database: one script of all of them,
// or one for each.
func (p *planner) sharedPlace(setting, value string) {
	l, err := parseLocation(setting, p.file, value)
	if err != nil {
		p.gap(setting+" in "+p.file, err.Error())
		p.opaque(setting, p.file, value, err.Error(), p.unused)
		return
	}
	l.dormant = p.unused
	if !l.path.personal() {
		p.everybody = append(p.everybody, l)
		p.serverUnit(l)
		l.shared = true
	}
	p.personal = append(p.personal, l)
}

// own are the places of one mailbox: those of the settings, and what its fields
// put above them.
func (p *planner) own(u user) (personal, others []location, rules []forward.Rule) {
	personal, others = p.personal, p.before
	if len(u.fields) == 0 {
		return personal, others, nil
	}
	unused := p.unused
	if p.unused != "" && hasSieve(u.fields["mail_plugins"]) {
		unused = ""
		personal, others = p.revived(personal), append(p.revived(others), p.revived(p.everybody)...)
	}
	for _, key := range u.fields.keys() {
		value := u.fields[key]
		if value == "" || key != "sieve" && !scripts(key) {
			rules = append(rules, p.awayOf(u, key, value)...)
			continue
		}
		l, err := parseLocation(key+" of "+u.name, u.file, value)
		if err != nil {
			rules = append(rules, p.unknown(u, key, value, err.Error()))
			continue
		}
		l.dormant, l.field = unused, true
		if key != "sieve" {
			others = append(slices.Clone(others), l)
			continue
		}
		all := []location{l}
		for _, o := range personal {
			o.dormant = join(o.dormant, "the user database names another script for this mailbox")
			all = append(all, o)
		}
		personal = all
	}
	return personal, others, rules
}

// revived are locations that are in force for a user whose own plugins have Sieve.
func (p *planner) revived(all []location) []location {
	out := slices.Clone(all)
	for i := range out {
		if out[i].dormant == p.unused {
			out[i].dormant = ""
		}
	}
	return out
}

func (p *planner) awayOf(u user, key, value string) []forward.Rule {
	if value == "" {
		return nil
	}
	if strings.HasPrefix(key, "sieve_script") {
		return []forward.Rule{p.unknown(u, key, value, "scripts of a field are not read")}
	}
	if t, err := parseTemplate(value); err == nil {
		value = t.expand(u)
	}
	rules := p.away(key, value, u.name, key+" of "+u.name+" in "+u.file, u.line, u.fields)
	for i := range rules {
		rules[i].Server = true // no user can set it
	}
	return rules
}

// unknown is a field by which mail may go and that is not understood.
func (p *planner) unknown(u user, key, value, why string) forward.Rule {
	return forward.Rule{Owner: u.name, Mechanism: forward.Sieve, Kind: forward.Asked, Target: value, Mode: forward.Copy,
		Source: key + " of " + u.name + " in " + u.file, Line: u.line, Server: true, UID: forward.NoUID, Note: why, Digest: digest([]byte(value))}
}
