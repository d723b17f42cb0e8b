package rbl

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed zones.toml
var builtin string

// Table is the zones that are known, and the lists that are closed. Safe for
// concurrent use: nothing changes it.
type Table struct {
	zones  []Zone
	closed []Closed
	keyed  []string // domains right above zones that are asked with a key, of this table and of its base

	// owned are the domains below which a built-in key may be sent: those right above
	// the built-in zones that are asked with it.
	owned map[string][]string
}

// Builtin is the table that is built in. It is read anew each time: keep it.
func Builtin() *Table {
	t, err := new(Table).Extend("zones.toml", []byte(builtin))
	if err == nil {
		t.own()
		return t
	}
	panic("the built-in zones: " + err.Error()) // a test loads them
}

// own takes the keys of the table for those of its zones' operators.
func (t *Table) own() {
	t.owned = map[string][]string{}
	for _, z := range t.zones {
		if _, parent, _ := strings.Cut(z.Name, "."); z.Key != "" && !slices.Contains(t.owned[z.Key], parent) {
			t.owned[z.Key] = append(t.owned[z.Key], parent)
		}
	}
}

// mayHave reports whether a zone may be asked with a key. Of one that is built in only
// its operator's: who writes a file of zones shall not get the key by its name.
func (t *Table) mayHave(zone, key string) (parents []string, may bool) {
	parents, builtIn := t.owned[key]
	return parents, !builtIn || slices.ContainsFunc(parents, func(parent string) bool {
		return zone == parent || strings.HasSuffix(zone, "."+parent)
	})
}

// Load is the built-in table with a file's zones in place of those of the same name,
// or, where the file says "replace = true", the file's alone (the closed lists stay).
// Lists that the file says are closed are no zones any more. The error is Problems,
// all there are, or of reading the file.
func Load(path string) (*Table, error) {
	data, err := ReadFile(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("zones file: %w", err)
	}
	return Builtin().Extend(path, data)
}

// Zones are all, by name. Nothing in them must be changed.
func (t *Table) Zones() []Zone { return slices.Clone(t.zones) }

// ClosedLists are all, by name.
func (t *Table) ClosedLists() []Closed { return slices.Clone(t.closed) }

// Find is one zone. For a list that may be closed (Closed.Warn) it is one with the
// least that is to be known of a zone.
func (t *Table) Find(name string) (Zone, bool) {
	name = canonical(name)
	i, found := slices.BinarySearchFunc(t.zones, name, func(z Zone, name string) int { return strings.Compare(z.Name, name) })
	if found {
		return t.zones[i], true
	}
	if c, closed := t.IsClosed(name); closed && c.Warn {
		return doubtful(name, c), true
	}
	return Zone{}, false
}

// IsClosed tells of a name whether it is a closed list, or below one. With Warn that
// is not certain.
func (t *Table) IsClosed(name string) (Closed, bool) {
	name = canonical(name)
	for _, c := range t.closed {
		if c.covers(name) {
			return c, true
		}
	}
	return Closed{}, false
}

// Warnings are what is to be said of names that are asked although they may be
// closed: one for each, in order of the names.
func (t *Table) Warnings(names []string) []string {
	var all []string
	for _, name := range names {
		if c, closed := t.IsClosed(name); closed && c.Warn {
			all = append(all, canonical(name)+": "+c.Message)
		}
	}
	return all
}

func (c *Closed) covers(name string) bool {
	return name == c.Name || c.Suffix && strings.HasSuffix(name, "."+c.Name)
}

// canonical is a name as tables have it.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// doubtful is the zone of a list that may be closed. They all listed addresses.
func doubtful(name string, c Closed) Zone {
	return Zone{
		Name: name, Operator: c.Name, Kinds: []Kind{IP4}, Class: "spam", Severity: Low, Scope: ScopeAddress,
		Means: "listed", Test: usualTest([]Kind{IP4}), Default: Off,
		Status: c.Status, AsOf: c.AsOf, Source: c.Source, Note: c.Message,
	}
}
