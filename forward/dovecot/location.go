package dovecot

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// location is where a setting says that scripts lie.
type location struct {
	setting string // sieve_before, imapsieve_mailbox1_before, "sieve_script personal"
	file    string // of the configuration
	path    template
	active  template // nil: not said
	bindir  template
	dormant string
	shared  bool // one script for all users, which another unit tells of
	field   bool // a user database names it, for one user
}

func (l location) source() string { return l.setting + " in " + l.file }

// parseLocation reads "file:~/sieve;active=~/.dovecot.sieve;bindir=~/bin", or a
// path alone.
func parseLocation(setting, file, value string) (location, error) {
	l := location{setting: setting, file: file}
	if strings.HasPrefix(value, "<") || strings.Contains(value, "$") {
		return l, fmt.Errorf("what %.100q stands for is not known", value)
	}
	fields := strings.Split(value, ";")
	where := fields[0]
	if driver, rest, ok := strings.Cut(where, ":"); ok && !strings.ContainsAny(driver, "/~%") {
		if driver != "file" {
			return l, fmt.Errorf("scripts of the driver %s are not read", driver)
		}
		where = rest
	}
	var err error
	if l.path, err = parseTemplate(where); err != nil {
		return l, err
	}
	for _, f := range fields[1:] {
		name, v, _ := strings.Cut(f, "=")
		t, err := parseTemplate(v)
		if err != nil {
			return l, err
		}
		switch name {
		case "active":
			l.active = t
		case "bindir":
			l.bindir = t
		}
	}
	return l, nil
}

// resolve is a path for one user: "~" and what is relative lie in the home. An
// empty one needs a home that is not known.
func (t template) resolve(u user) string {
	s := t.expand(u)
	switch {
	case s == "":
		return ""
	case s == "~" || strings.HasPrefix(s, "~/"):
		s = u.home + s[1:]
		if u.home == "" {
			return ""
		}
	case !strings.HasPrefix(s, "/"):
		if u.home == "" {
			return ""
		}
		s = u.home + "/" + s
	}
	return path.Clean(s)
}

const defaultActive = "~/.dovecot.sieve"

// places sorts the settings that name scripts into personal ones and those for
// everybody, and plans the latter.
func (p *planner) places() {
	unused := ""
	if !p.settings.sieveInUse() && !p.databaseHasSieve() {
		unused = "sieve is not among mail_plugins of lmtp or lda"
	}
	p.unused = unused
	p.personalPlaces(unused)
	for _, key := range numbered(p.settings, "sieve_before", "sieve_after", "sieve_default", "sieve_global_path", "sieve_discard") {
		for _, e := range p.settings.Delivery(key) {
			p.place(key, e.File, e.Value, unused)
		}
	}
	imap := ""
	if !p.settings.plugin("imap_sieve", "imap") {
		imap = "imap_sieve is not among mail_plugins of imap"
	}
	for _, e := range p.settings {
		if strings.HasPrefix(e.Key, "imapsieve_mailbox") && (strings.HasSuffix(e.Key, "_before") || strings.HasSuffix(e.Key, "_after")) {
			p.place(e.Key, e.File, e.Value, imap)
		}
	}
	p.modernPlaces(unused, imap)
}

// numbered are the keys that are set: name, name2, name3 and so on.
func numbered(s Settings, names ...string) []string {
	var out []string
	for _, e := range s {
		base := strings.TrimRight(e.Key, "0123456789")
		if slices.Contains(names, base) && !slices.Contains(out, e.Key) {
			out = append(out, e.Key)
		}
	}
	slices.Sort(out)
	return out
}

// personalPlaces are sieve and sieve_dir of 2.3.
func (p *planner) personalPlaces(unused string) {
	if len(p.settings.blocks("sieve_script")) > 0 {
		return
	}
	all := p.settings.Delivery("sieve")
	if _, ok := p.settings.Last("sieve"); !ok {
		all = append(all, Entry{Key: "sieve", File: p.file, Value: "file:~/sieve;active=" + defaultActive})
	}
	for _, e := range all {
		l, err := parseLocation("sieve", e.File, e.Value)
		if err != nil {
			p.gap("sieve in "+e.File, err.Error())
			p.opaque("sieve", e.File, e.Value, err.Error(), unused)
			continue
		}
		l.dormant = unused
		p.personal = append(p.personal, l)
	}
}

// place is one location for everybody, or, if its path is another for each user,
// for each of them.
func (p *planner) place(setting, file, value, dormant string) {
	l, err := parseLocation(setting, file, value)
	if err != nil {
		p.gap(setting+" in "+file, err.Error())
		p.opaque(setting, file, value, err.Error(), dormant)
		return
	}
	l.dormant = dormant
	p.planLocation(l)
}

func (p *planner) planLocation(l location) {
	if l.path.personal() {
		p.before = append(p.before, l)
		return
	}
	p.everybody = append(p.everybody, l)
	p.serverUnit(l)
}

// modernPlaces are the blocks "sieve_script NAME { }" of 2.4.
func (p *planner) modernPlaces(unused, imap string) {
	for _, b := range p.settings.blocks("sieve_script") {
		get := func(key string) string {
			if v := b.values["sieve_script_"+key]; v != "" {
				return v
			}
			return b.values[key]
		}
		setting := "sieve_script " + b.name
		if driver := get("driver"); driver != "" && driver != "file" {
			p.gap(setting+" in "+b.file, "scripts of the driver "+driver+" are not read")
			p.opaque(setting, b.file, driver+":"+get("path"), "driver "+driver, unused)
			continue
		}
		kind := get("type")
		l := location{setting: setting, file: b.file, dormant: unused}
		var err error
		if l.path, err = parseTemplate(get("path")); err == nil && get("active_path") != "" {
			l.active, err = parseTemplate(get("active_path"))
		}
		if err == nil && get("bin_path") != "" {
			l.bindir, err = parseTemplate(get("bin_path"))
		}
		switch {
		case err != nil:
			p.gap(setting+" in "+b.file, err.Error())
			p.opaque(setting, b.file, get("path"), err.Error(), unused)
		case kind == "" || kind == "personal":
			if len(l.path) == 0 {
				l.path, _ = parseTemplate("~/sieve")
			}
			p.personal = append(p.personal, l)
		case kind == "global":
		default:
			if len(l.path) == 0 {
				continue
			}
			if slices.ContainsFunc(p.settings, func(e Entry) bool { return e.Value == kind && strings.HasPrefix(e.Key, "imapsieve") }) {
				l.dormant = imap
			}
			p.planLocation(l)
		}
	}
}

// opaque is a rule for scripts that cannot be read.
func (p *planner) opaque(setting, file, value, why, dormant string) {
	rule := forward.Rule{Owner: forward.Everybody, Mechanism: forward.Sieve, Kind: forward.Asked, Target: value,
		Mode: forward.Copy, Source: setting + " in " + file, Server: true, UID: forward.NoUID, Note: why, Dormant: dormant, Digest: digest([]byte(value))}
	p.extra = append(p.extra, rule)
}
