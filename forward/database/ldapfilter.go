package database

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of a search filter (RFC 4515).
const (
	maxFilterDepth = 32
	maxFilterNodes = 500
)

// filter is a search filter template: a node with branches, or a leaf as it
// stands, without its parentheses.
type filter struct {
	op       byte // & | ! or 0: a leaf
	branches []filter
	leaf     string
}

type filterReader struct {
	text  string
	nodes int
}

// readFilter parses a filter; parentheses around all of it may be missing, as
// with libldap.
func readFilter(text string) (filter, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "(") {
		text = "(" + text + ")"
	}
	r := &filterReader{text: text}
	f, err := r.node(0)
	if err == nil && strings.TrimSpace(r.text) != "" {
		err = errors.New("text after its end")
	}
	if err != nil {
		return filter{}, fmt.Errorf("query_filter: %w", err)
	}
	return f, nil
}

func (r *filterReader) node(depth int) (filter, error) {
	if r.nodes++; r.nodes > maxFilterNodes || depth > maxFilterDepth {
		return filter{}, errors.New("too long or too deep")
	}
	if !strings.HasPrefix(r.text, "(") {
		return filter{}, errors.New("want a parenthesis")
	}
	r.text = strings.TrimLeft(r.text[1:], " ")
	if r.text == "" {
		return filter{}, errors.New("parentheses do not match")
	}
	if strings.IndexByte("&|!", r.text[0]) < 0 {
		end := strings.IndexAny(r.text, "()")
		if end < 0 || r.text[end] != ')' {
			return filter{}, errors.New("parentheses do not match")
		}
		f := filter{leaf: r.text[:end]}
		r.text = r.text[end+1:]
		return f, nil
	}
	f := filter{op: r.text[0]}
	r.text = strings.TrimLeft(r.text[1:], " ")
	for strings.HasPrefix(r.text, "(") {
		b, err := r.node(depth + 1)
		if err != nil {
			return filter{}, err
		}
		f.branches = append(f.branches, b)
		r.text = strings.TrimLeft(r.text, " ")
	}
	if !strings.HasPrefix(r.text, ")") {
		return filter{}, errors.New("parentheses do not match")
	}
	r.text = r.text[1:]
	return f, nil
}

// assertion is "attribute=template" with the key in the template, which holds
// marks for it; whole: it is just %s.
type assertion struct {
	attribute, pattern string
	whole              bool
}

// opened is a filter without the key: it finds all entries that some key finds.
type opened struct {
	text       string
	assertions []assertion
	// exact: an entry answers for exactly the values of the only assertion.
	exact bool
}

func keyed(template string) bool {
	found := false
	fill(template, func(byte) string { found = true; return "" })
	return found
}

// open takes the key out of a filter.
func (f *filter) open() opened {
	o := opened{exact: true}
	o.text = f.write(&o, true)
	if o.text == "" {
		o.text = "(objectClass=*)"
	}
	o.exact = o.exact && len(o.assertions) == 1 && o.assertions[0].whole
	return o
}

// write returns the filter with presence instead of equality to the key; empty:
// anything. positive is false below a "not".
func (f *filter) write(o *opened, positive bool) string {
	switch f.op {
	case 0:
		return f.writeLeaf(o, positive)
	case '!':
		if len(f.branches) == 1 && !f.branches[0].hasKey() {
			return "(!" + f.branches[0].write(o, false) + ")"
		}
		o.exact = false
		return ""
	}
	if f.op == '|' && f.hasKey() {
		o.exact = false
	}
	var all []string
	for i := range f.branches {
		text := f.branches[i].write(o, positive)
		if text == "" && f.op == '|' {
			all = nil // one branch takes anything; but the others' assertions count
			for j := i + 1; j < len(f.branches); j++ {
				f.branches[j].write(o, positive)
			}
			return ""
		}
		if text != "" {
			all = append(all, text)
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "(" + string(f.op) + strings.Join(all, "") + ")"
}

func (f *filter) hasKey() bool {
	if keyed(f.leaf) {
		return true
	}
	for i := range f.branches {
		if f.branches[i].hasKey() {
			return true
		}
	}
	return false
}

func (f *filter) writeLeaf(o *opened, positive bool) string {
	if !keyed(f.leaf) {
		return "(" + fill(f.leaf, marks) + ")"
	}
	attribute, value, found := strings.Cut(f.leaf, "=")
	attribute = strings.TrimSpace(attribute)
	if !found || !positive || attribute == "" || strings.ContainsAny(attribute, "<>~:%") || strings.Contains(value, "*") || strings.Contains(value, `\`) {
		o.exact = false
		return ""
	}
	if len(o.assertions) < maxWays {
		o.assertions = append(o.assertions, assertion{attribute: attribute, pattern: fill(value, marks), whole: value == "%s" || value == "%S"})
	}
	return "(" + attribute + "=*)"
}

// openBase takes the leading parts of a search base off, as far as they hold the
// key; what they say of it comes as assertions about an entry's name.
func openBase(base string) (rest string, assertions []assertion) {
	parts := splitDN(base)
	last := -1
	for i, p := range parts {
		if keyed(p) {
			last = i
			attribute, value, _ := strings.Cut(p, "=")
			assertions = append(assertions, assertion{attribute: strings.TrimSpace(attribute), pattern: fill(strings.TrimSpace(value), marks)})
		}
	}
	return fill(strings.Join(parts[last+1:], ","), marks), assertions
}

// splitDN cuts a name template at its commas.
func splitDN(name string) []string {
	var parts []string
	from := 0
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] == '\\':
			i++
		case name[i] == ',':
			parts = append(parts, strings.TrimSpace(name[from:i]))
			from = i + 1
		}
	}
	return append(parts, strings.TrimSpace(name[from:]))
}
