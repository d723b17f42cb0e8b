package database

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// errOverLimit is a lookup that fails by expansion_limit, size_limit or
// recursion_limit.
var errOverLimit = errors.New("over the table's limits")

// expansion collects the answer of one key over all entries that it leads to.
type expansion struct {
	t     *ldapTable
	key   string
	into  answer
	seen  int // entries
	level int
}

// maxExpanded bounds the entries of one answer: groups of groups that go round
// are followed by Postfix up to recursion_limit, which may be large.
const maxExpanded = 50_000

// values is dict_ldap_get_values.
func (t *ldapTable) values(entries []*ldap.Entry, key string) (string, error) {
	x := &expansion{t: t, key: key}
	if err := x.add(entries); err != nil {
		return "", err
	}
	return x.into.text.String(), nil
}

func (x *expansion) add(entries []*ldap.Entry) error {
	x.level++
	defer func() { x.level-- }()
	if x.t.size > 0 && len(entries) > x.t.size {
		return errOverLimit
	}
	for _, e := range entries {
		if x.seen++; x.seen > maxExpanded {
			return errOverLimit
		}
		if err := x.entry(e); err != nil {
			return err
		}
	}
	return nil
}

// entry takes the values of one entry: of terminal attributes only, if it has
// any; of leaf attributes only, if it has no special ones.
func (x *expansion) entry(e *ldap.Entry) error {
	has := func(names []string) bool {
		for _, n := range names {
			if len(attributeValues(e, n)) > 0 {
				return true
			}
		}
		return false
	}
	terminal := has(x.t.terminal)
	leaf := terminal || len(x.t.leaf) == 0 || !has(x.t.special)
	for _, a := range e.Attributes {
		var err error
		switch list := x.t.kind(a.Name); {
		case list == isTerminal && terminal, list == isNormal && !terminal, list == isLeaf && !terminal && leaf, list == isTerminal:
			err = x.plain(a.Values)
		case list == isSpecial && !terminal:
			err = x.follow(a.Values)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type attributeKind uint8

const (
	isOther attributeKind = iota
	isTerminal
	isLeaf
	isNormal
	isSpecial
)

// kind is the first list that has the attribute.
func (t *ldapTable) kind(name string) attributeKind {
	for i, l := range [][]string{t.terminal, t.leaf, t.normal, t.special} {
		for _, want := range l {
			if isSubtype(name, want) {
				return isTerminal + attributeKind(i)
			}
		}
	}
	return isOther
}

func (x *expansion) plain(values []string) error {
	for _, v := range values {
		if !x.into.add(x.t.templates, v, x.key, x.t.limit) {
			return errOverLimit
		}
		if x.into.text.Len() > maxValue {
			return errOverLimit
		}
	}
	return nil
}

// follow reads the entries that values name: DNs, and URLs (RFC 4516).
func (x *expansion) follow(values []string) error {
	if len(values) > 0 && x.level >= x.t.depth || x.level > maxFilterDepth {
		return errOverLimit
	}
	for _, v := range values {
		base, scope, query, attributes := v, ldap.ScopeBaseObject, "(objectclass=*)", x.t.attributes
		if strings.HasPrefix(strings.ToLower(v), "ldap") && strings.Contains(v, "://") {
			var err error
			if base, scope, query, attributes, err = x.t.ldapURL(v); err != nil {
				return err
			}
			if len(attributes) == 0 {
				continue
			}
		}
		var entries []*ldap.Entry
		err := x.t.search(base, scope, query, attributes, func(e *ldap.Entry) error {
			entries = append(entries, e)
			return nil
		})
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			continue
		}
		if err != nil {
			return fmt.Errorf("search %s: %w", base, err)
		}
		if err := x.add(entries); err != nil {
			return err
		}
	}
	return nil
}

// ldapURL reads "ldap:///base?attributes?scope?filter"; attributes are those that
// both the URL and the table name.
func (t *ldapTable) ldapURL(value string) (base string, scope int, query string, attributes []string, err error) {
	_, rest, _ := strings.Cut(value, "://")
	_, rest, _ = strings.Cut(rest, "/")
	parts := append(strings.SplitN(rest, "?", 5), "", "", "", "")
	for i := range parts[:4] {
		if parts[i], err = url.PathUnescape(parts[i]); err != nil {
			return "", 0, "", nil, fmt.Errorf("URL %.200q: %w", value, err)
		}
	}
	base, attributes, query = parts[0], t.attributes, parts[3]
	if parts[1] != "" {
		attributes = nil
		for _, a := range strings.Split(parts[1], ",") {
			for _, b := range t.attributes {
				if isSubtype(a, b) {
					attributes = append(attributes, a)
				} else if isSubtype(b, a) {
					attributes = append(attributes, b)
				}
			}
		}
	}
	switch strings.ToLower(parts[2]) {
	case "one":
		scope = ldap.ScopeSingleLevel
	case "sub":
		scope = ldap.ScopeWholeSubtree
	}
	if query == "" {
		query = "(objectclass=*)"
	}
	return base, scope, query, attributes, nil
}
