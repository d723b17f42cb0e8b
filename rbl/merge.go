package rbl

import (
	"slices"
	"strings"
)

// merge lays the file over its base, and reports what does not go together.
func (f *file) merge() *Table {
	t := &Table{closed: slices.Clone(f.base.closed), keyed: slices.Clone(f.base.keyed), owned: f.base.owned}
	for _, c := range f.closed {
		t.closed = slices.DeleteFunc(t.closed, func(old Closed) bool { return old.Name == c.Name })
		t.closed = append(t.closed, c)
	}
	for _, z := range f.zones {
		if _, parent, _ := strings.Cut(z.Name, "."); z.Key != "" && !slices.Contains(t.keyed, parent) {
			t.keyed = append(t.keyed, parent)
		}
		if c, closed := t.IsClosed(z.Name); closed && !c.Warn {
			f.add(f.lines[z.Name], z.Name, "", "a list that is closed", "one that lives", c.Message)
		}
		t.zones = append(t.zones, z)
	}
	if !f.replace {
		for _, z := range f.base.zones {
			_, again := f.lines[z.Name]
			if c, closed := t.IsClosed(z.Name); !again && (!closed || c.Warn) {
				t.zones = append(t.zones, z)
			}
		}
	}
	slices.SortFunc(t.zones, func(a, b Zone) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(t.closed, func(a, b Closed) int { return strings.Compare(a.Name, b.Name) })
	for _, z := range f.zones {
		if with, found := t.Find(z.Keyed); z.Keyed != "" && (!found || with.Key == "") {
			f.add(f.lines[z.Name], z.Name, "keyed", "what is none", "the name of a zone that is asked with a key", "describe it too, or delete the key")
		}
	}
	return t
}
