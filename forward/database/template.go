package database

import (
	"fmt"
	"strings"
)

// needs is what the templates of one table ask of a key and of a value: they
// share it, as in db_common(3): "%U" in result_format suppresses keys, too.
type needs struct {
	keyUser, keyDomain     bool
	valueUser, valueDomain bool
	labels                 int // highest of %1 to %9
}

// templates of a table: its queries (LDAP has two) and result_format.
type templates struct {
	needs  needs
	result string
}

func newTemplates(result string, queries ...string) (*templates, error) {
	t := &templates{result: result}
	for _, q := range queries {
		if err := t.needs.read(q, true); err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
	}
	if err := t.needs.read(result, false); err != nil {
		return nil, fmt.Errorf("result_format: %w", err)
	}
	return t, nil
}

func (n *needs) read(format string, query bool) error {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		i++
		if i == len(format) {
			return fmt.Errorf("ends with %%")
		}
		switch c := format[i]; {
		case c == '%' || c == 's' || c == 'S':
		case c == 'u' && !query:
			n.valueUser = true
		case c == 'd' && !query:
			n.valueDomain = true
		case c == 'u' || c == 'U':
			n.keyUser = true
		case c == 'd' || c == 'D':
			n.keyDomain = true
		case c >= '1' && c <= '9':
			n.labels, n.keyDomain = max(n.labels, int(c-'0')), true
		default:
			return fmt.Errorf("%%%c is no expansion", c)
		}
	}
	return nil
}

// split cuts an address at its last @.
func split(address string) (user, domain string, found bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, "", false
	}
	return address[:at], address[at+1:], true
}

// labels are the domain's, as argv_split(3) has them; nil if there are too few,
// or one that is asked for is empty.
func (n *needs) split(domain string) ([]string, bool) {
	if n.labels == 0 {
		return nil, true
	}
	labels := strings.FieldsFunc(domain, func(r rune) bool { return r == '.' })
	return labels, len(labels) >= n.labels
}

// takes reports whether a key is looked up at all: db_common_expand(3).
func (n *needs) takes(key string) bool {
	user, domain, found := split(key)
	switch {
	case key == "":
		return false
	case n.keyDomain && domain == "":
		return false
	case n.keyUser && found && user == "":
		return false
	}
	_, enough := n.split(domain)
	return enough
}

// query puts the key into a query; false: Postfix would not ask.
func (t *templates) query(format, key string, quote func(string) string) (string, bool) {
	if !t.needs.takes(key) {
		return "", false
	}
	user, domain, _ := split(key)
	labels, _ := t.needs.split(domain)
	return fill(format, func(c byte) string {
		switch c {
		case 's', 'S':
			return quote(key)
		case 'u', 'U':
			return quote(user)
		case 'd', 'D':
			return quote(domain)
		}
		return quote(labels[len(labels)-int(c-'0')])
	}), true
}

// value puts a value into result_format; false: it does not count.
func (t *templates) value(value, key string) (string, bool) {
	user, domain, found := split(value)
	switch {
	case value == "" || !t.needs.takes(key):
		return "", false
	case t.needs.valueDomain && domain == "":
		return "", false
	case t.needs.valueUser && found && user == "" && (t.needs.valueUser || t.needs.valueDomain):
		return "", false
	}
	keyUser, keyDomain, _ := split(key)
	labels, _ := t.needs.split(keyDomain)
	return fill(t.result, func(c byte) string {
		switch c {
		case 's':
			return value
		case 'u':
			return user
		case 'd':
			return domain
		case 'S':
			return key
		case 'U':
			return keyUser
		case 'D':
			return keyDomain
		}
		return labels[len(labels)-int(c-'0')]
	}), true
}

// fill replaces %c; the format was read before.
func fill(format string, expand func(byte) string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		switch {
		case format[i] != '%' || i+1 == len(format):
			b.WriteByte(format[i])
		case format[i+1] == '%':
			b.WriteByte('%')
			i++
		default:
			i++
			b.WriteString(expand(format[i]))
		}
	}
	return b.String()
}

// answer joins the values of one key as Postfix does.
type answer struct {
	text  strings.Builder
	count int
}

// add puts one value of a row to it; false: over expansion_limit, the lookup fails.
func (a *answer) add(t *templates, value, key string, limit int) bool {
	if nul := strings.IndexByte(value, 0); nul >= 0 {
		value = value[:nul] // it is a C string there
	}
	v, counts := t.value(value, key)
	if !counts {
		return true
	}
	if a.text.Len() > 0 {
		a.text.WriteByte(',')
	}
	a.text.WriteString(v)
	a.count++
	return limit == 0 || a.count <= limit
}
