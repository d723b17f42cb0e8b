package config

import (
	"regexp"
	"strconv"

	"github.com/pelletier/go-toml/v2/unstable"
)

// A document is the file as a tree in which everything knows its place. The
// library's decoder stops at the first wrong type and tells no positions
// afterwards; here nothing is judged but the form.

type kindOf uint8

const (
	aString kindOf = iota
	aBool
	anInteger
	aFloat
	aTime
	anArray
	aTable
)

var kindNames = [...]string{"a string", "a boolean", "an integer", "a decimal number", "a date or time", "a list", "a table"}

// value is what a key is set to.
type value struct {
	kind  kindOf
	at    int    // offset in the file
	text  string // a string's content; of the others, but lists and tables, as written
	elems []*value
	open  bool // a list made by [[headers]]
	table *table
}

// String is the value as problems show it.
func (v *value) String() string {
	switch v.kind {
	case aString:
		return quote(v.text)
	case anArray, aTable:
		return kindNames[v.kind]
	}
	return printable(v.text)
}

// entry is one key of a table.
type entry struct {
	name string
	at   int
	val  *value
}

// table is one table. The zero value is not usable: newTable.
type table struct {
	path    string // dotted; "" for the file itself
	at      int
	entries []*entry
	index   map[string]*entry

	headed bool // by a [header]: must not come again
	dotted bool // by a.b = 1: must not get a header
	sealed bool // written as { }: must not be added to
	broken bool // has a line that could not be read: what it lacks may be there

	spoiled map[string]bool // keys whose value is wrong and was reported
}

func newTable(path string, at int) *table {
	return &table{path: path, at: at, index: map[string]*entry{}, spoiled: map[string]bool{}}
}

// sure reports that the value read for a key, or its default, is what the file
// means; else a problem is reported already.
func (t *table) sure(names ...string) bool {
	for _, name := range names {
		if t.spoiled[name] || t.broken && t.index[name] == nil {
			return false
		}
	}
	return true
}

// sub is the table of a section below this one; an empty one if there is none.
func (t *table) sub(name string) *table {
	if e := t.index[name]; e != nil && e.val.kind == aTable {
		return e.val.table
	}
	return newTable(join(t.path, name), t.at)
}

// place is where a key is, or else where its table begins.
func (t *table) place(name string) int {
	if e := t.index[name]; e != nil {
		return e.at
	}
	return t.at
}

// placeOf is where the first of the keys is that the table has.
func (t *table) placeOf(names ...string) int {
	for _, name := range names {
		if t.index[name] != nil {
			return t.place(name)
		}
	}
	return t.at
}

// elem is where the entry i of a key's list is.
func (t *table) elem(name string, i int) int {
	if e := t.index[name]; e != nil && i < len(e.val.elems) {
		return e.val.elems[i].at
	}
	return t.place(name)
}

func (t *table) put(e *entry) *entry {
	t.entries = append(t.entries, e)
	t.index[e.name] = e
	return e
}

// join is the dotted name of a key.
func join(path, name string) string {
	if !bareKey.MatchString(name) {
		name = quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`)

// builder makes the tree from the parser's expressions.
type builder struct {
	*report
	root, current *table
}

type part struct {
	name string
	at   int
}

// expression takes in one line: a header, or a key with its value. base is
// where the parser's input begins in the file. It returns where it ends.
func (b *builder) expression(p *unstable.Parser, base int) int {
	node := p.Expression()
	parts := b.parts(node, base)
	last := parts[len(parts)-1]
	switch node.Kind {
	case unstable.Table:
		b.current = b.header(parts, false)
	case unstable.ArrayTable:
		b.current = b.header(parts, true)
	default:
		b.set(b.current, parts, b.value(node.Value(), base, last.at, dotted(b.current.path, parts)))
		return base + int(node.Raw.Offset+node.Raw.Length)
	}
	return last.at
}

func dotted(path string, parts []part) string {
	for _, p := range parts {
		path = join(path, p.name)
	}
	return path
}

func (b *builder) parts(node *unstable.Node, base int) []part {
	var parts []part
	for it := node.Key(); it.Next(); {
		n := it.Node()
		if n.Kind == unstable.Key {
			parts = append(parts, part{string(n.Data), base + int(n.Raw.Offset)})
		}
	}
	return parts
}

// header finds or makes the table of a [header] or [[header]].
func (b *builder) header(parts []part, array bool) *table {
	t := b.root
	at := parts[0].at
	for _, p := range parts[:len(parts)-1] {
		next, ok := b.descend(t, p, at)
		if !ok {
			return b.clash(t, p, at, t.index[p.name], "a table")
		}
		t = next
	}
	p := parts[len(parts)-1]
	path := join(t.path, p.name)
	e := t.index[p.name]
	switch {
	case e == nil && array:
		e = t.put(&entry{p.name, at, &value{kind: anArray, at: at, open: true}})
		fallthrough
	case array && e.val.open:
		next := newTable(path, at)
		next.headed = true
		e.val.elems = append(e.val.elems, &value{kind: aTable, at: at, table: next})
		return next
	case e == nil:
		next := newTable(path, at)
		next.headed = true
		t.put(&entry{p.name, at, &value{kind: aTable, at: at, table: next}})
		return next
	case !array && e.val.kind == aTable && !e.val.table.headed && !e.val.table.dotted && !e.val.table.sealed:
		e.val.table.headed, e.val.table.at = true, at
		return e.val.table
	}
	return b.clash(t, p, at, e, "the section")
}

// descend goes to the table p of t, made if need be.
func (b *builder) descend(t *table, p part, at int) (*table, bool) {
	e := t.index[p.name]
	switch {
	case e == nil:
		next := newTable(join(t.path, p.name), at)
		t.put(&entry{p.name, at, &value{kind: aTable, at: at, table: next}})
		return next, true
	case e.val.open:
		return e.val.elems[len(e.val.elems)-1].table, true
	case e.val.kind == aTable && !e.val.table.sealed:
		return e.val.table, true
	}
	return nil, false
}

// clash reports a header for what is there already, and returns a table for
// the keys below it: what else is wrong there is worth telling.
func (b *builder) clash(t *table, p part, at int, e *entry, what string) *table {
	b.add(at, join(t.path, p.name), what+" a second time", "it once", "join it with line "+strconv.Itoa(b.line(e.at)))
	if e.val.kind == aTable && !e.val.table.sealed {
		return e.val.table
	}
	lost := newTable(join(t.path, p.name), at)
	lost.broken = true
	return lost
}

// set puts a value at a dotted key.
func (b *builder) set(t *table, parts []part, v *value) {
	for _, p := range parts[:len(parts)-1] {
		e := t.index[p.name]
		if e == nil {
			next := newTable(join(t.path, p.name), p.at)
			next.dotted = true
			e = t.put(&entry{p.name, p.at, &value{kind: aTable, at: p.at, table: next}})
		}
		if e.val.kind != aTable || e.val.table.sealed || e.val.table.headed {
			b.twice(p.at, join(t.path, p.name), e)
			return
		}
		t = e.val.table
	}
	p := parts[len(parts)-1]
	if e := t.index[p.name]; e != nil {
		b.twice(p.at, join(t.path, p.name), e)
		return
	}
	t.put(&entry{p.name, p.at, v})
}

func (b *builder) twice(at int, key string, first *entry) {
	b.add(at, key, "it a second time", "it once", "it is also on line "+strconv.Itoa(b.line(first.at))+": delete one of them")
}

// value copies a value of the parser, which uses its nodes again. The parser
// tells no place for lists: they get that of their key.
func (b *builder) value(n *unstable.Node, base, at int, path string) *value {
	if n.Raw.Length > 0 {
		at = base + int(n.Raw.Offset)
	}
	v := &value{at: at, text: string(n.Data)}
	switch n.Kind {
	case unstable.String:
		v.kind = aString
	case unstable.Bool:
		v.kind = aBool
	case unstable.Integer:
		v.kind = anInteger
	case unstable.Float:
		v.kind = aFloat
	case unstable.Array:
		v.kind, v.text = anArray, ""
		for it := n.Children(); it.Next(); {
			v.elems = append(v.elems, b.value(it.Node(), base, at, path))
		}
	case unstable.InlineTable:
		v.kind, v.text, v.table = aTable, "", newTable(path, at)
		for it := n.Children(); it.Next(); {
			pair := it.Node()
			parts := b.parts(pair, base)
			b.set(v.table, parts, b.value(pair.Value(), base, parts[len(parts)-1].at, dotted(path, parts)))
		}
		seal(v.table)
	default:
		v.kind = aTime
	}
	return v
}

// seal closes an inline table and what dotted keys made in it.
func seal(t *table) {
	t.sealed = true
	for _, e := range t.entries {
		if e.val.kind == aTable && !e.val.table.sealed {
			seal(e.val.table)
		}
	}
}
