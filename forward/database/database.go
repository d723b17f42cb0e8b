package database

import (
	"context"
	"errors"
	"fmt"
	"path"

	"relayguard/forward"
	"relayguard/forward/tables"
)

// Databases lists Postfix's lookup tables of type mysql, pgsql, sqlite and ldap.
// It implements tables.Databases. Safe for concurrent use.
type Databases struct {
	// Known are addresses to ask tables with that cannot be listed; may be nil.
	// To be set before use.
	Known func() []string

	host *forward.Host
}

var _ tables.Databases = (*Databases)(nil)

// New lists tables of that machine. On a copied disk (no Run) only SQLite can be
// listed: servers of the name would be those of another machine.
func New(h *forward.Host) *Databases { return &Databases{host: h} }

// Incomplete is the error that comes with pairs: they are right, but there may be
// more.
type Incomplete struct {
	Table string // "mysql:/etc/postfix/aliases.cf"
	Why   string
}

func (e *Incomplete) Error() string { return "list " + e.Table + ": not all of it: " + e.Why }

// List returns what the table answers, one pair a key: Value is what postmap -q
// Key prints, several values joined by commas. A table that answers for a whole
// domain has the key "@domain"; if a value holds the user part of the key,
// forward.Unknown stands for it. With an error of type *Incomplete the pairs are
// good, with another there are none.
func (d *Databases) List(ctx context.Context, kind, cf string) ([]tables.Pair, error) {
	name := kind + ":" + cf
	ctx, cancel := context.WithTimeout(ctx, listingFor)
	defer cancel()
	pairs, err := d.list(ctx, kind, cf)
	var partly *Incomplete
	if errors.As(err, &partly) {
		partly.Table = name
		return pairs, partly
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	return pairs, nil
}

func (d *Databases) list(ctx context.Context, kind, cf string) ([]tables.Pair, error) {
	if !path.IsAbs(cf) {
		return nil, errors.New("its settings are in main.cf, not in a file of its own; that old form is not read")
	}
	data, _, err := d.host.Files.Read(ctx, cf, forward.ReadOptions{Max: maxCF})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", cf, err)
	}
	s, err := parseCF(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", cf, err)
	}
	if kind != "sqlite" && !d.host.Live() {
		return nil, errors.New("a server answers, and this is a copied disk")
	}
	switch kind {
	case "mysql", "pgsql", "sqlite":
		return d.listSQL(ctx, kind, s)
	case "ldap":
		return d.listLDAP(ctx, s)
	}
	return nil, fmt.Errorf("%q is no kind of database", kind)
}

func (d *Databases) listSQL(ctx context.Context, kind string, s settings) ([]tables.Pair, error) {
	t := sqlTable{databases: d}
	var err error
	if t.query, err = s.sqlQuery(kind); err != nil {
		return nil, err
	}
	if t.templates, err = newTemplates(s.or("result_format", "%s"), t.query); err != nil {
		return nil, err
	}
	if t.limit, err = s.number("expansion_limit", 0); err != nil {
		return nil, err
	}
	if t.domains, err = d.domains(ctx, s["domain"]); err != nil {
		return nil, err
	}
	if err := runnable(t.query); err != nil {
		return nil, fmt.Errorf("the query is not run: %w", err)
	}
	if t.session, err = d.open(ctx, kind, s); err != nil {
		return nil, err
	}
	defer t.session.close()
	t.firstColumn = kind == "sqlite"
	return t.list(ctx)
}

// open connects as the .cf says.
func (d *Databases) open(ctx context.Context, kind string, s settings) (session, error) {
	l := login{User: s["user"], Password: Secret(s["password"]), Database: s["dbname"]}
	switch kind {
	case "sqlite":
		return d.openSQLite(ctx, s["dbpath"])
	case "pgsql":
		targets, where := pgTargets(s["hosts"], l)
		return openPostgres(ctx, targets, where, l)
	}
	o := d.myOptions(ctx, s)
	if l.User == "" {
		l.User = o.user
	}
	if l.Password == "" {
		l.Password = o.password
	}
	var err error
	if l.TLS, err = d.mysqlTLS(ctx, s); err != nil {
		return nil, err
	}
	return openMySQL(ctx, mysqlHosts(s["hosts"], o), l)
}
