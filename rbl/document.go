package rbl

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile bounds a file of zones, in octets: the built-in one is a tenth of that.
const maxFile = 1 << 20

// maxDepth bounds how deep brackets may stand in each other: the library's parser
// goes down with them. The format needs three.
const maxDepth = 100

// A document is the file as a tree that knows its lines. The library's decoder stops
// at the first wrong type, and tells no lines of what it took.

type kindOf uint8

const (
	aText kindOf = iota
	aBool
	aNumber
	aList
	aTable
	another
)

// value is what a key is set to.
type value struct {
	kind  kindOf
	line  int
	text  string // a string's content; of numbers and booleans, as written
	list  []*value
	table *table
}

// String is the value as problems show it.
func (v *value) String() string {
	switch v.kind {
	case aText:
		return quote(v.text)
	case aList:
		return "a list"
	case aTable:
		return "a table"
	case another:
		return "another kind of value"
	}
	return strings.Trim(quote(v.text), `"`)
}

// table is one table.
type table struct {
	line   int
	keys   []string // as they came
	values map[string]*value
}

func newTable(line int) *table { return &table{line: line, values: map[string]*value{}} }

func (t *table) put(key string, v *value) {
	if t.values[key] == nil {
		t.keys = append(t.keys, key)
	}
	t.values[key] = v
}

// document is a file being read.
type document struct {
	data  []byte
	lines []int // offsets at which lines begin
	root  *table
}

// read makes the tree. What is no TOML is one problem: the first.
func (r *report) read(data []byte) *table {
	if len(data) > maxFile {
		r.add(1, "", "", fmt.Sprintf("more than %d octets", maxFile), "a smaller file", "")
		return nil
	}
	d := &document{data: data, lines: []int{0}, root: newTable(1)}
	for i, c := range data {
		if c == '\n' {
			d.lines = append(d.lines, i+1)
		}
	}
	if line := d.tooDeep(); line > 0 {
		r.add(line, "", "", "brackets in brackets", "at most three of them", "")
		return nil
	}
	var all map[string]any
	if err := toml.Unmarshal(data, &all); err != nil {
		line := 1
		if derr := new(toml.DecodeError); errors.As(err, &derr) {
			line, _ = derr.Position()
		}
		message := strconv.Quote(strings.TrimPrefix(err.Error(), "toml: "))
		r.add(max(line, 1), "", "", "what is no TOML", "valid TOML", message[1:len(message)-1])
		return nil
	}
	if !d.build() {
		r.add(1, "", "", "what cannot be read", "valid TOML", "")
		return nil
	}
	return d.root
}

// tooDeep is the first line where brackets stand too deep in each other, 0: none.
// Those in texts count too, by line: no text of ours has so many.
func (d *document) tooDeep() int {
	depth := 0
	for i, c := range d.data {
		switch c {
		case '[', '{':
			if depth++; depth > maxDepth {
				return d.line(i)
			}
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return 0
}

func (d *document) line(at int) int { return sort.SearchInts(d.lines, at+1) }

// build goes through the parser's expressions, which Unmarshal has found to make
// sense: it does not judge again.
func (d *document) build() bool {
	var p unstable.Parser
	p.Reset(d.data)
	current := d.root
	for p.NextExpression() {
		node := p.Expression()
		keys, at := d.keys(node)
		if len(keys) == 0 {
			return false
		}
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			current = d.header(keys, at, node.Kind == unstable.ArrayTable)
		default:
			set(current, keys, d.value(node.Value(), at), at)
		}
		if current == nil {
			return false
		}
	}
	return p.Error() == nil
}

// keys are the parts of a dotted key or header, and the line of the first.
func (d *document) keys(node *unstable.Node) (keys []string, line int) {
	for it := node.Key(); it.Next(); {
		if n := it.Node(); n.Kind == unstable.Key {
			if keys == nil {
				line = d.line(int(n.Raw.Offset))
			}
			keys = append(keys, string(n.Data))
		}
	}
	return keys, line
}

// header finds or makes the table of a [header] or [[header]].
func (d *document) header(keys []string, line int, array bool) *table {
	last := len(keys) - 1
	t := under(d.root, keys[:last], line)
	if t == nil {
		return nil
	}
	if !array {
		return under(t, keys[last:], line)
	}
	v := t.values[keys[last]]
	if v == nil {
		v = &value{kind: aList, line: line}
		t.put(keys[last], v)
	}
	next := newTable(line)
	v.list = append(v.list, &value{kind: aTable, line: line, table: next})
	return next
}

// under goes from t down through tables, which it makes; of a list through its last.
func under(t *table, keys []string, line int) *table {
	for _, key := range keys {
		v := t.values[key]
		switch {
		case v == nil:
			next := newTable(line)
			t.put(key, &value{kind: aTable, line: line, table: next})
			t = next
			continue
		case v.kind == aList && len(v.list) > 0:
			v = v.list[len(v.list)-1]
		}
		if v.kind != aTable {
			return nil
		}
		t = v.table
	}
	return t
}

func set(t *table, keys []string, v *value, line int) {
	last := len(keys) - 1
	if t = under(t, keys[:last], line); t != nil {
		t.put(keys[last], v)
	}
}

// value copies a value of the parser, which uses its nodes again. The parser tells no
// place for lists and tables: they get that of their key or first part.
func (d *document) value(n *unstable.Node, line int) *value {
	if n.Raw.Length > 0 {
		line = d.line(int(n.Raw.Offset))
	}
	v := &value{kind: another, line: line, text: string(n.Data)}
	switch n.Kind {
	case unstable.String:
		v.kind = aText
	case unstable.Bool:
		v.kind = aBool
	case unstable.Integer, unstable.Float:
		v.kind = aNumber
	case unstable.Array:
		v.kind = aList
		for it := n.Children(); it.Next(); {
			v.list = append(v.list, d.value(it.Node(), line))
		}
	case unstable.InlineTable:
		v.kind, v.table = aTable, newTable(line)
		for it := n.Children(); it.Next(); {
			pair := it.Node()
			keys, at := d.keys(pair)
			if len(v.table.keys) == 0 {
				v.line, v.table.line = at, at
			}
			if len(keys) > 0 {
				set(v.table, keys, d.value(pair.Value(), at), at)
			}
		}
	}
	return v
}
