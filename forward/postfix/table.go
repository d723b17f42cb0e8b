package postfix

import (
	"context"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"relayguard/forward"
	"relayguard/forward/tables"
	mta "relayguard/mta/postfix"
)

// finder reads the tables of one instance.
type finder struct {
	h     *forward.Host
	o     Options
	i     *instance
	first bool // of all instances

	domain string // myorigin, when the plan was made
	// listed are the domains of settings while the plan is made, so that no
	// table is listed twice for them; nil afterwards.
	listed map[string]*domainList
	// sockets are who listens where; as long as a unit is read.
	sockets sockets
}

// list lists a table; aliases: its text is of aliases(5).
func (f *finder) list(ctx context.Context, t mta.Table, aliases bool) tables.Listing {
	r := &tables.Reader{Host: f.h, ConfigDir: f.i.dir, QueueDir: f.i.queueDir, Databases: f.o.Databases, Known: f.o.Known, Aliases: aliases}
	if f.o.list != nil {
		return f.o.list(ctx, r, t)
	}
	return r.List(ctx, t)
}

// badTable is what stands in a list of tables and is not understood.
type badTable struct{ item, why string }

// parseTables reads a list of tables, one by one, so that one that is not
// understood hides no other.
func parseTables(value string) (all []mta.Table, bad []badTable) {
	for _, item := range splitList(value) {
		t, err := parseTable(item)
		if err != nil {
			bad = append(bad, badTable{item, err.Error()})
			continue
		}
		all = append(all, t)
	}
	return all, bad
}

func parseTable(item string) (mta.Table, error) {
	if body, braced := inBraces(item); braced { // "{ type:name, name = value }", or quotes for "inline:{ a = b }"
		if strings.HasPrefix(body, "{") {
			body, _, _ = cutBraces(body)
		}
		item = strings.Trim(body, spaces)
	}
	if strings.Contains(item, "{") { // white space between rules, of whatever kind
		item = strings.Map(blank, item)
	}
	return mta.ParseTable(item)
}

func blank(r rune) rune {
	if r < utf8.RuneSelf && strings.ContainsRune(spaces, r) {
		return ' '
	}
	return r
}

// isTable tells "hash:/etc/x" from other words of a restriction list.
func isTable(word string) bool {
	kind, name, found := strings.Cut(word, ":")
	return found && kind != "" && name != "" && strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// each lists the tables of a place in order and hands every entry to fn. A key
// that an earlier table has is said to be hidden by it, where only the first
// answer counts. What cannot be listed becomes a rule of Kind Asked.
func (f *finder) each(ctx context.Context, p *place, m forward.Mechanism, aliases, firstCounts bool, fn func(base forward.Rule, e tables.Entry) forward.Reading) forward.Reading {
	return f.eachInto(ctx, p, m, aliases, firstCounts, func(r *forward.Reading, base forward.Rule, e tables.Entry) {
		add(r, fn(base, e))
	})
}

// eachInto is each for tables with very many entries: fn adds to the reading.
func (f *finder) eachInto(ctx context.Context, p *place, m forward.Mechanism, aliases, firstCounts bool, fn func(r *forward.Reading, base forward.Rule, e tables.Entry)) forward.Reading {
	var r forward.Reading
	all, bad := parseTables(p.value)
	for _, b := range bad {
		r.Gaps = append(r.Gaps, forward.Gap{Source: p.source, Why: b.why})
		rule := p.rule(m)
		rule.Kind, rule.Target, rule.Note = forward.Asked, b.item, p.name+" names it as a table, and it is not understood"
		r.Rules = append(r.Rules, bounded(rule))
	}
	hidden := map[string]string{}
	for n, t := range all {
		listing := f.list(ctx, t, aliases)
		r.Gaps = append(r.Gaps, listing.Gaps...)
		r.Uses = append(r.Uses, listing.Paths...)
		if listing.Opaque {
			r.Rules = append(r.Rules, f.asked(p, m, t, listing))
		}
		r.Rules = slices.Grow(r.Rules, len(listing.Entries)+len(listing.Entries)/8)
		for _, e := range listing.Entries {
			base := p.rule(m)
			base.Source, base.Line, base.UID, base.Differs = e.Source, e.Line, listing.Writer, e.Differs
			base.Server = false
			if e.Source == "" {
				base.Source = t.String()
			}
			if base.Dormant == "" {
				base.Dormant = e.Dormant
			}
			key := strings.ToLower(e.Key)
			if by, is := hidden[key]; is && by != t.String() && base.Dormant == "" && !e.Pattern {
				base.Dormant = by + " has the same key and comes first"
			}
			fn(&r, base, e)
			if firstCounts && n < len(all)-1 && !e.Pattern && hidden[key] == "" && e.Dormant == "" {
				hidden[key] = t.String()
			}
		}
	}
	return r
}

// asked is the rule for a table that another server or program answers.
func (f *finder) asked(p *place, m forward.Mechanism, t mta.Table, l tables.Listing) forward.Rule {
	rule := p.rule(m)
	rule.Kind, rule.Target, rule.Digest = forward.Asked, t.String(), l.Digest
	rule.Note = noted(p.name+" asks it, and it cannot be listed", usualProgram(rule.Target))
	return bounded(rule)
}

func add(r *forward.Reading, more forward.Reading) {
	r.Rules = append(r.Rules, more.Rules...)
	r.Gaps = append(r.Gaps, more.Gaps...)
	r.Uses = append(r.Uses, more.Uses...)
}

// compiled are the suffixes of what postmap(1) makes of a text.
var compiled = map[string][]string{
	"hash": {".db"}, "btree": {".db"}, "lmdb": {".lmdb"}, "cdb": {".cdb"}, "dbm": {".pag", ".dir"}, "sdbm": {".pag", ".dir"},
}

// maxChain bounds how deep tables name tables (proxy:, unionmap:, pipemap:).
const maxChain = 8

// tablePaths are the files whose change may change a table, before it is listed.
func (i *instance) tablePaths(t mta.Table, depth int) []string {
	if depth > maxChain {
		return nil
	}
	switch t.Type {
	case "inline", "static", "tcp", "socketmap", "memcache", "fail", "environ", "internal", "nis", "nisplus", "netinfo", "unix":
		return nil
	case "proxy", "unionmap", "pipemap", "randmap":
		body, _ := inBraces(t.Name)
		var paths []string
		for _, item := range splitList(body) {
			if inner, err := parseTable(item); err == nil {
				paths = append(paths, i.tablePaths(inner, depth+1)...)
			}
		}
		return paths
	}
	name := t.Name
	if strings.ContainsAny(name, "{}") {
		return nil
	}
	if !path.IsAbs(name) {
		name = path.Join(i.queueDir, name)
	}
	name = path.Clean(name)
	paths := []string{name}
	for _, suffix := range compiled[t.Type] {
		paths = append(paths, name+suffix)
	}
	return paths
}

// unit is a unit for the tables of a place.
func (f *finder) unit(ctx context.Context, p place, read func(ctx context.Context) forward.Reading) forward.Unit {
	u := forward.Unit{ID: p.source, Server: true, Writer: forward.NoUID, Read: func(ctx context.Context) forward.Reading {
		f.sockets.reset()
		return read(ctx)
	}}
	all, _ := parseTables(p.value)
	for _, t := range all {
		u.Paths = append(u.Paths, f.i.tablePaths(t, 0)...)
		u.Poll = u.Poll || polled(t)
	}
	u.Writer = f.writer(ctx, u.Paths)
	return u
}

// polled reports tables of which nobody tells when they change.
func polled(t mta.Table) bool {
	for _, kind := range []string{"mysql", "pgsql", "sqlite", "ldap", "nis", "nisplus", "memcache"} {
		if t.Type == kind || strings.Contains(t.Name, kind+":") {
			return true
		}
	}
	return false
}

// writer is who owns the first of the files that is there.
func (f *finder) writer(ctx context.Context, paths []string) int {
	if len(paths) == 0 {
		return f.i.uid
	}
	infos, err := f.h.Files.LstatAll(ctx, paths)
	if err != nil {
		return forward.NoUID
	}
	for _, info := range infos {
		if info.Name != "" {
			return info.UID
		}
	}
	return forward.NoUID
}
