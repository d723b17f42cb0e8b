package tables

import (
	"context"
	"strings"

	"relayguard/forward"
	mta "relayguard/mta/postfix"
)

// combined lists unionmap:{a, b}, where all answers count, and pipemap:{a, b},
// where the answer of one is the key of the next.
func (r *Reader) combined(ctx context.Context, t mta.Table, out *table, depth int) {
	body, ok := braced(t.Name)
	names := members(body)
	if !ok || len(names) == 0 {
		out.refused(t, "want "+t.Type+":{type:name...}")
		return
	}
	var tables []*table
	for _, name := range names {
		inner, err := mta.ParseTable(name)
		if err != nil {
			out.refused(t, err.Error())
			return
		}
		one := r.open(ctx, inner, depth+1)
		out.Opaque, out.Poll = out.Opaque || one.Opaque, out.Poll || one.Poll
		out.Gaps, out.Paths = append(out.Gaps, one.Gaps...), append(out.Paths, one.Paths...)
		if out.Writer == forward.NoUID {
			out.Writer = one.Writer
		}
		if one.Digest != "" {
			out.Digest = digest([]byte(out.Digest + one.Digest))
		}
		tables = append(tables, one)
	}
	if t.Type == "unionmap" {
		out.union(tables)
		return
	}
	out.Entries = tables[0].Entries
	for _, next := range tables[1:] {
		out.Entries = piped(out.Entries, next)
	}
}

// union joins the values of one key with commas, as dict_union.c does.
func (t *table) union(tables []*table) {
	at := map[string]int{}
	for _, one := range tables {
		for _, e := range one.Entries {
			if e.Pattern || e.Dormant != "" {
				t.Entries = append(t.Entries, e)
				continue
			}
			i, found := at[e.Key]
			if !found {
				at[e.Key] = len(t.Entries)
				t.Entries = append(t.Entries, e)
				continue
			}
			t.Entries[i].Value += "," + e.Value
			if t.Entries[i].Differs == "" {
				t.Entries[i].Differs = e.Differs
			}
		}
	}
}

// piped looks the values of entries up in the next table of a pipe. An entry
// whose value is not there has no answer and is dropped.
func piped(entries []Entry, next *table) []Entry {
	var out []Entry
	for _, e := range entries {
		if e.Dormant != "" {
			out = append(out, e)
			continue
		}
		for _, found := range next.lookup(e.Value, e.Dynamic) {
			one := e
			one.Value, one.Dynamic = found.Value, found.Dynamic
			if one.Differs == "" {
				one.Differs = found.Differs
			}
			out = append(out, one)
		}
		if len(out) > maxEntries {
			break
		}
	}
	return out
}

// lookup is what a table that was listed says to a key. If the key is not wholly
// known, all that it could say.
func (t *table) lookup(key string, dynamic bool) []Entry {
	var found []Entry
	if dynamic {
		for _, e := range t.Entries {
			if e.Dormant == "" && (e.Pattern || mayBe(key, e.Key)) {
				found = append(found, e)
			}
		}
		return found
	}
	if t.rules != nil {
		if a, is, sure := ask(t.rules, key); is && sure {
			return []Entry{{Key: key, Value: a.value, Line: t.rules[a.rule].line}}
		}
	}
	if t.fixed == nil {
		t.fixed = make(map[string][]int, len(t.Entries))
		for i, e := range t.Entries {
			if !e.Pattern && e.Dormant == "" {
				t.fixed[e.Key] = append(t.fixed[e.Key], i)
			}
		}
	}
	for _, i := range t.fixed[fold(key)] {
		found = append(found, t.Entries[i])
	}
	if len(found) > 0 {
		return found
	}
	for _, e := range t.Entries {
		if e.Pattern && e.Dormant == "" && (e.Key == forward.Everybody || t.rules == nil || len(undecided(t.rules)) > 0) {
			found = append(found, e)
		}
	}
	return found
}

// mayBe reports whether a text with unknown parts can be the key.
func mayBe(text, key string) bool {
	parts := strings.Split(fold(text), forward.Unknown)
	first, last := parts[0], parts[len(parts)-1]
	return len(key) >= len(first)+len(last) && strings.HasPrefix(key, first) && strings.HasSuffix(key, last)
}
