package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"relayguard/forward"
	"relayguard/forward/tables"
)

// sqlTable is one lookup table, open.
type sqlTable struct {
	databases   *Databases
	session     session
	query       string
	templates   *templates
	limit       int          // expansion_limit; 0: none
	domains     *matchDomain // "domain"; nil: any
	firstColumn bool         // further columns do not count (SQLite)
	strange     int          // rows whose key could not be told for their control characters
}

// stranger is a user part that nobody has: what a table answers for it, it
// answers for everybody in that domain.
const stranger = "relayguard-nobody-has-this-name"

func (t *sqlTable) list(ctx context.Context) ([]tables.Pair, error) {
	pairs, err := t.listAll(ctx)
	if err == nil && t.strange > 0 {
		err = &Incomplete{Why: fmt.Sprintf("%d rows have control characters in what is compared with the key", t.strange)}
	}
	return pairs, err
}

func (t *sqlTable) listAll(ctx context.Context) ([]tables.Pair, error) {
	turned, err := turn(t.query, t.session.dialect())
	if err != nil {
		return t.searchTables(ctx, turned.tables, err)
	}
	if !turned.asked {
		pairs, odd, err := t.rows(ctx, turned.ways[0])
		if err != nil && ctx.Err() == nil && !errors.Is(err, errTooMany) {
			return t.searchTables(ctx, turned.tables, err)
		}
		if err != nil {
			return nil, err
		}
		return t.askToo(ctx, pairs, odd)
	}
	keys := keySet{}
	for _, w := range turned.ways {
		if err := t.candidates(ctx, w, &keys); err != nil {
			if ctx.Err() != nil || errors.Is(err, errTooMany) {
				return nil, err
			}
			// What we made of the query, the server does not take.
			return t.searchTables(ctx, turned.tables, err)
		}
	}
	keys.add(t.databases.known()...)
	return t.ask(ctx, nil, keys.list())
}

// row is what one key has so far.
type row struct {
	answer
	key     string
	over    bool
	anyUser bool
}

// rows reads an exact way: rows with the same key are one answer. Keys that are
// never asked for as they stand (capitals), and those that the server may take for
// equal to others, are returned as odd: they are to be asked.
func (t *sqlTable) rows(ctx context.Context, w way) (pairs []tables.Pair, odd []string, err error) {
	var all []*row
	byKey := map[string]*row{}
	err = t.session.rows(ctx, w.sql, func(columns []sql.NullString) error {
		values, key, anyUser, ok := t.solveRow(w, columns)
		if !ok {
			return nil
		}
		r := byKey[key]
		if r == nil {
			r = &row{key: key, anyUser: anyUser}
			byKey[key], all = r, append(all, r)
		}
		r.addRow(t, values, w.keyed)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	folded, bare := map[string]string{}, map[string]bool{}
	for _, r := range all {
		bare[lowerASCII(r.key)] = t.templates.needs.keyUser && !strings.Contains(r.key, "@")
		if p, ok := r.pair(); ok && r.key == fold(r.key) {
			pairs = append(pairs, p)
		}
		plain := plainKey(r.key)
		if other, taken := folded[plain]; taken || plain != r.key {
			odd = append(odd, other, r.key, plain)
		}
		folded[plain] = r.key
	}
	for _, address := range t.databases.known() { // %u alone: in whatever domain
		if user, _, _ := split(address); bare[lowerASCII(user)] {
			odd = append(odd, address)
		}
	}
	return pairs, odd, nil
}

// solveRow cuts a row into values and equations, and finds its key.
func (t *sqlTable) solveRow(w way, columns []sql.NullString) (values []sql.NullString, key string, anyUser, ok bool) {
	n := len(columns) - 2*len(w.equations)
	if n < 0 {
		return nil, "", false, false
	}
	pairs := make([]string, 0, 2*len(w.equations))
	for _, c := range columns[n:] {
		if !c.Valid {
			return nil, "", false, false // NULL is equal to nothing
		}
		pairs = append(pairs, c.String)
	}
	s, ok := solve(w.equations, pairs)
	if strange(w.equations, pairs) {
		t.strange++
		ok = false
	}
	if !ok {
		return nil, "", false, false
	}
	values = columns[:n]
	if t.firstColumn && n > 1 {
		values = values[:1]
	}
	key, anyUser = s.key()
	return values, key, anyUser, t.takes(key, anyUser)
}

// takes reports whether Postfix would ask for the key; anyUser: for any address
// of its domain.
func (t *sqlTable) takes(key string, anyUser bool) bool {
	if anyUser {
		key = stranger + key
	}
	return t.templates.needs.takes(key) && t.domains.takes(key)
}

func (r *row) addRow(t *sqlTable, values []sql.NullString, keyed bool) {
	key := r.key
	if r.anyUser && (keyed || t.templates.needs.keyUser) {
		key = forward.Unknown + key
	}
	for _, v := range values {
		if !v.Valid || r.over {
			continue
		}
		value := v.String
		if keyed {
			value = put(value, key, forward.Unknown)
		}
		r.over = !r.add(t.templates, value, key, t.limit)
	}
}

// pair is what it came to; false: nothing, or too much (the lookup fails).
func (r *row) pair() (tables.Pair, bool) {
	text := r.text.String()
	return tables.Pair{Key: r.key, Value: text}, text != "" && !r.over
}

// candidates adds the keys that a way may have rows for.
func (t *sqlTable) candidates(ctx context.Context, w way, keys *keySet) error {
	return t.session.rows(ctx, w.sql, func(columns []sql.NullString) error {
		pairs := make([]string, 0, len(columns))
		for _, c := range columns {
			if !c.Valid {
				return nil
			}
			pairs = append(pairs, c.String)
		}
		if len(pairs) != 2*len(w.equations) {
			return fmt.Errorf("a row of %d columns, where %d were asked for", len(pairs), 2*len(w.equations))
		}
		if strange(w.equations, pairs) {
			t.strange++
		}
		if s, ok := solve(w.equations, pairs); ok {
			key, _ := s.key()
			keys.add(key, plainKey(key))
		}
		return nil
	})
}

// askToo asks for the odd keys, and for what is known, beside the pairs that are
// known to be right.
func (t *sqlTable) askToo(ctx context.Context, pairs []tables.Pair, odd []string) ([]tables.Pair, error) {
	keys := keySet{}
	keys.add(odd...)
	if len(keys.order) == 0 {
		return pairs, nil
	}
	again := map[string]bool{}
	for _, k := range keys.order {
		again[k] = true
	}
	pairs = slices.DeleteFunc(pairs, func(p tables.Pair) bool { return again[p.Key] })
	return t.ask(ctx, pairs, keys.list())
}

// ask puts the very query for each key. "@domain" asks for a stranger there, too.
func (t *sqlTable) ask(ctx context.Context, pairs []tables.Pair, keys []string) ([]tables.Pair, error) {
	var why error
	if len(keys) > maxAsked {
		why = fmt.Errorf("%d keys; only %d were asked for", len(keys), maxAsked)
		keys = keys[:maxAsked]
	}
	refused := 0
	for _, key := range keys {
		found, err := t.askOne(ctx, key)
		if err != nil {
			if ctx.Err() != nil {
				return pairs, &Incomplete{Why: fmt.Sprintf("time was up while asking for %d keys one by one", len(keys))}
			}
			if refused++; refused > 10 {
				return pairs, &Incomplete{Why: fmt.Sprintf("asking for a key: %v", err)}
			}
			why = err
			continue
		}
		pairs = append(pairs, found...)
	}
	if why != nil {
		return pairs, &Incomplete{Why: why.Error()}
	}
	return pairs, nil
}

func (t *sqlTable) askOne(ctx context.Context, key string) ([]tables.Pair, error) {
	var pairs []tables.Pair
	value, err := t.lookup(ctx, key)
	if err != nil {
		return nil, err
	}
	if value != "" {
		pairs = append(pairs, tables.Pair{Key: key, Value: value})
	}
	if key[0] != '@' || !t.takes(key, true) {
		return pairs, nil
	}
	all, err := t.lookup(ctx, stranger+key)
	if err != nil || all == "" || all == value {
		return pairs, err
	}
	if value != "" {
		pairs = pairs[:0] // what is asked first, the address, gets the answer for all
	}
	return append(pairs, tables.Pair{Key: key, Value: strings.ReplaceAll(all, stranger, forward.Unknown)}), nil
}

// lookup is dict_sqlite_lookup and the like: what postmap -q key prints.
func (t *sqlTable) lookup(ctx context.Context, key string) (string, error) {
	if !t.domains.takes(key) {
		return "", nil
	}
	statement, asked := t.templates.query(t.query, key, t.session.quote)
	if !asked {
		return "", nil
	}
	r := row{key: key}
	err := t.session.rows(ctx, statement, func(columns []sql.NullString) error {
		if t.firstColumn && len(columns) > 1 {
			columns = columns[:1]
		}
		r.addRow(t, columns, false)
		return nil
	})
	p, ok := r.pair()
	if !ok {
		return "", err
	}
	return p.Value, err
}

// searchTables is for a query that cannot be turned round: whatever stands in its
// tables, and the known addresses, are tried as keys.
func (t *sqlTable) searchTables(ctx context.Context, names []string, why error) ([]tables.Pair, error) {
	keys := keySet{}
	have, err := readSchema(ctx, t.session)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	for _, name := range names {
		statement, ok := searched(have, name, t.session.dialect().kind)
		if !ok {
			continue
		}
		err := t.session.rows(ctx, statement, func(columns []sql.NullString) error {
			for _, c := range columns {
				if c.Valid && len(c.String) <= maxKey && !strings.ContainsAny(c.String, "\x00\r\n") {
					keys.addForms(c.String)
				}
			}
			return nil
		})
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
	}
	for _, address := range t.databases.known() {
		keys.addForms(address)
	}
	pairs, err := t.ask(ctx, nil, keys.list())
	if err == nil {
		err = &Incomplete{Why: fmt.Sprintf("%v; asked for %d keys", why, len(keys.order))}
	}
	return pairs, err
}

// searched selects what of a table may be keys: no column that may hold a secret,
// for keys are sent to the server in queries, which it may log.
func searched(have schema, name, kind string) (string, bool) {
	parts := strings.Split(name, ".")
	columns := have[strings.ToLower(strings.Trim(parts[len(parts)-1], "`\""))]
	var selected []string
	for _, c := range slices.Sorted(maps.Keys(columns)) {
		secret := slices.ContainsFunc([]string{"pass", "pw", "secret", "token", "hash", "salt", "crypt", "key", "session"},
			func(part string) bool { return strings.Contains(c, part) })
		if c != schemaTable && (!secret || c == "key") && !strings.ContainsAny(c, "`\"\x00") {
			selected = append(selected, quoteName(kind, columns[c]))
		}
	}
	return "SELECT " + strings.Join(selected, ", ") + " FROM " + name, len(selected) > 0
}
