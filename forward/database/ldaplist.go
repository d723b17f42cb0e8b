package database

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"relayguard/forward"
	"relayguard/forward/tables"
)

const (
	ldapPage    = 500
	maxProducts = 1000 // users times domains of one entry
)

func tlsClient(ctx context.Context, raw net.Conn, config *tls.Config) (net.Conn, error) {
	c := tls.Client(raw, config)
	return c, c.HandshakeContext(ctx)
}

// list finds all entries that some key finds. If the filter is that simple, the
// values of the attribute are the keys; else candidates are asked for.
func (t *ldapTable) list(ctx context.Context, f filter) ([]tables.Pair, error) {
	o := f.open()
	base, inName := openBase(t.base)
	scope := t.scope
	if len(inName) > 0 {
		o.exact, scope = false, ldap.ScopeWholeSubtree
	}
	attributes := append([]string(nil), t.attributes...)
	for _, a := range o.assertions {
		attributes = append(attributes, a.attribute)
	}
	keys, byKey := keySet{}, map[string][]*ldap.Entry{} // by values as they stand
	err := t.search(base, scope, o.text, attributes, func(e *ldap.Entry) error {
		found, whole := entryKeys(e, o.assertions, inName)
		keys.add(found...)
		for _, key := range whole {
			byKey[key] = append(byKey[key], e)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("search %s for %s: %w", base, strings.ReplaceAll(o.text, "\n", " "), err)
	}
	if len(o.assertions) == 0 && len(inName) == 0 {
		for _, address := range t.databases.known() {
			keys.addForms(address)
		}
		pairs, err := t.ask(ctx, nil, keys.list())
		if err == nil {
			err = &Incomplete{Why: fmt.Sprintf("the filter does not say what the key is equal to; asked for %d keys", len(keys.order))}
		}
		return pairs, err
	}
	if !o.exact {
		keys.add(t.databases.known()...)
		for _, key := range append([]string(nil), keys.order...) {
			keys.add(plainKey(key))
		}
		return t.ask(ctx, nil, keys.list())
	}
	return t.group(ctx, byKey)
}

// group gives the answers of an exact filter from the entries that were read. Keys
// that are never asked for as they stand, or that are equal to others, are asked.
func (t *ldapTable) group(ctx context.Context, byKey map[string][]*ldap.Entry) ([]tables.Pair, error) {
	var pairs []tables.Pair
	odd, folded := keySet{}, map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		plain := plainKey(key)
		if other, taken := folded[plain]; taken || plain != key {
			odd.add(other, key, plain)
		}
		folded[plain] = key
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		if odd.have[key] || key != fold(key) || !t.templates.needs.takes(key) || !t.domains.takes(key) {
			continue
		}
		value, err := t.values(byKey[key], key)
		if errors.Is(err, errOverLimit) {
			continue // the lookup fails, as Postfix's does
		}
		if err != nil {
			return nil, err
		}
		if value != "" {
			pairs = append(pairs, tables.Pair{Key: key, Value: value})
		}
	}
	return t.ask(ctx, pairs, odd.list())
}

func (t *ldapTable) ask(ctx context.Context, pairs []tables.Pair, keys []string) ([]tables.Pair, error) {
	var why error
	if len(keys) > maxAsked {
		keys, why = keys[:maxAsked], fmt.Errorf("only %d keys were asked for", maxAsked)
	}
	for _, key := range keys {
		for _, k := range []string{key, stranger + key} {
			if k != key && (key[0] != '@') {
				continue
			}
			value, err := t.lookup(k)
			switch {
			case ctx.Err() != nil:
				return pairs, &Incomplete{Why: fmt.Sprintf("time was up while asking for %d keys one by one", len(keys))}
			case err != nil:
				why = err
			case value != "" && k != key && len(pairs) > 0 && pairs[len(pairs)-1].Key == key:
				pairs[len(pairs)-1].Value = strings.ReplaceAll(value, stranger, forward.Unknown)
			case value != "":
				pairs = append(pairs, tables.Pair{Key: key, Value: strings.ReplaceAll(value, stranger, forward.Unknown)})
			}
		}
	}
	if why != nil {
		return pairs, &Incomplete{Why: why.Error()}
	}
	return pairs, nil
}

// lookup is dict_ldap_lookup.
func (t *ldapTable) lookup(key string) (string, error) {
	if !t.domains.takes(key) {
		return "", nil
	}
	base, asked := t.templates.query(t.base, key, escapeDN)
	query, also := t.templates.query(t.query, key, ldap.EscapeFilter)
	if !asked || !also {
		return "", nil
	}
	if !strings.HasPrefix(strings.TrimSpace(query), "(") {
		query = "(" + query + ")"
	}
	var entries []*ldap.Entry
	err := t.search(base, t.scope, query, t.attributes, func(e *ldap.Entry) error {
		entries = append(entries, e)
		return nil
	})
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) && keyed(t.base) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("search %s: %w", base, err)
	}
	value, err := t.values(entries, key)
	if errors.Is(err, errOverLimit) {
		return "", nil
	}
	return value, err
}

// search reads entries page by page.
func (t *ldapTable) search(base string, scope int, query string, attributes []string, each func(*ldap.Entry) error) error {
	paging := ldap.NewControlPaging(ldapPage)
	for {
		request := ldap.NewSearchRequest(base, scope, t.deref, 0, int(statementFor.Seconds()), false, query, attributes, []ldap.Control{paging})
		result, err := t.conn.Search(request)
		if err != nil {
			return err
		}
		for _, e := range result.Entries {
			if t.entries++; t.entries > maxRows {
				return errTooMany
			}
			if err := each(e); err != nil {
				return err
			}
		}
		next, _ := ldap.FindControl(result.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if next == nil || len(next.Cookie) == 0 {
			return nil
		}
		paging.SetCookie(next.Cookie)
	}
}

// entryKeys are the keys that may find an entry; whole are values that are keys as
// they stand.
func entryKeys(e *ldap.Entry, inside, inName []assertion) (found, whole []string) {
	var keys, users, domains keySet
	take := func(a assertion, values []string) {
		for _, v := range values {
			if a.whole {
				keys.add(v)
				whole = append(whole, v)
				continue
			}
			s, ok := solve([]equation{{}}, []string{v, a.pattern})
			if !ok {
				continue
			}
			switch key, anyUser := s.key(); {
			case anyUser:
				domains.add(s.domain)
			case s.user != "" && s.domain == "":
				users.add(s.user)
			default:
				keys.add(key)
			}
		}
	}
	for _, a := range inside {
		take(a, attributeValues(e, a.attribute))
	}
	for _, a := range inName {
		take(a, nameValues(e.DN, a.attribute))
	}
	keys.add(users.order...)
	for _, d := range domains.order {
		keys.add("@" + d)
		for _, u := range users.order {
			if len(keys.order) < maxProducts {
				keys.add(u + "@" + d)
			}
		}
	}
	return keys.order, whole
}

// nameValues are those of an attribute in an entry's name.
func nameValues(dn, attribute string) []string {
	name, err := ldap.ParseDN(dn)
	if err != nil {
		return nil
	}
	var all []string
	for _, rdn := range name.RDNs {
		for _, part := range rdn.Attributes {
			if strings.EqualFold(part.Type, attribute) {
				all = append(all, part.Value)
			}
		}
	}
	return all
}

// attributeValues are those of an attribute and of its subtypes ("mail;lang-en").
func attributeValues(e *ldap.Entry, name string) []string {
	var all []string
	for _, a := range e.Attributes {
		if isSubtype(a.Name, name) {
			all = append(all, a.Values...)
		}
	}
	return all
}

func isSubtype(got, want string) bool {
	return len(got) >= len(want) && strings.EqualFold(got[:len(want)], want) && (len(got) == len(want) || got[len(want)] == ';')
}

// escapeDN is RFC 4514, section 2.4.
func escapeDN(value string) string {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		c := value[i]
		if strings.IndexByte(`,+"\<>;=`, c) >= 0 || c == '#' && i == 0 || c == ' ' && (i == 0 || i == len(value)-1) {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}
