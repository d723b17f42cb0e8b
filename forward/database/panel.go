package database

import (
	"context"
	"database/sql"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"relayguard/forward"
	"relayguard/forward/sieve"
)

// Config is the database of one hosting panel.
type Config struct {
	Name  string // what lists and sources call it; unique
	Panel string // postfixadmin, plesk, iredmail, mailcow, ispconfig; empty: told by its tables

	Driver string // mysql, pgsql, sqlite
	// DSNFile holds how to come in, on one line: for mysql what
	// github.com/go-sql-driver/mysql takes (user:password@unix(/path)/db), for
	// pgsql a URI or libpq's name=value form, for sqlite a path. Else the others:
	DSNFile string
	// Address is as in "hosts" of mysql_table(5) and pgsql_table(5).
	Address      string
	User         string
	PasswordFile string
	DB           string // its name; for sqlite the path
}

// Options are the panels, and what their scripts are read with.
type Options struct {
	Databases []Config
	// Sieve reads a script that lies in a table; nil: sieve.Targets.
	Sieve func(script []byte) sieve.Result
}

// Plan makes one unit a database; all are polled. On a copied disk only SQLite can
// be read, the others are gaps.
func Plan(_ context.Context, h *forward.Host, o Options) forward.Plan {
	if o.Sieve == nil {
		o.Sieve = func(script []byte) sieve.Result { return sieve.Targets(script, sieve.Options{}) }
	}
	var p forward.Plan
	for _, c := range o.Databases {
		if err := c.check(); err != nil {
			p.Gaps = append(p.Gaps, forward.Gap{Source: c.source(), Why: err.Error()})
			continue
		}
		if c.Driver != "sqlite" && !h.Live() {
			p.Gaps = append(p.Gaps, forward.Gap{Source: c.source(), Why: "a server holds it, and this is a copied disk"})
			continue
		}
		r := &panelReader{databases: New(h), config: c, sieve: o.Sieve}
		p.Units = append(p.Units, forward.Unit{ID: c.source(), Paths: c.paths(), Poll: true, Writer: forward.NoUID, Read: r.read})
	}
	return p
}

func (c *Config) source() string { return "database " + c.Name }

func (c *Config) check() error {
	if !slices.Contains([]string{"mysql", "pgsql", "sqlite"}, c.Driver) {
		return fmt.Errorf("driver %q: want mysql, pgsql or sqlite", c.Driver)
	}
	if c.Panel != "" && panels[c.Panel] == nil {
		return fmt.Errorf("panel %q: want postfixadmin, plesk, iredmail, mailcow or ispconfig", c.Panel)
	}
	for _, file := range []string{c.DSNFile, c.PasswordFile} {
		if file != "" && !path.IsAbs(file) {
			return fmt.Errorf("%q: want an absolute path", file)
		}
	}
	return nil
}

func (c *Config) paths() []string {
	var all []string
	for _, file := range []string{c.DSNFile, c.PasswordFile} {
		if file != "" {
			all = append(all, path.Clean(file))
		}
	}
	if c.Driver == "sqlite" && path.IsAbs(c.DB) {
		all = append(all, path.Clean(c.DB), path.Clean(c.DB)+"-wal")
	}
	return all
}

// panelReader reads one panel's tables.
type panelReader struct {
	databases *Databases
	config    Config
	sieve     func([]byte) sieve.Result
}

func (r *panelReader) read(ctx context.Context) forward.Reading {
	var out forward.Reading
	ctx, cancel := context.WithTimeout(ctx, listingFor)
	defer cancel()
	gap := func(source string, err error) {
		out.Gaps = append(out.Gaps, forward.Gap{Source: source, Why: err.Error()})
	}
	s, err := r.open(ctx)
	if err != nil {
		gap(r.config.source(), err)
		return out
	}
	defer s.close()
	have, err := readSchema(ctx, s)
	if err != nil {
		gap(r.config.source(), fmt.Errorf("read its schema: %w", err))
		return out
	}
	panel := r.config.Panel
	if panel == "" {
		panel = detect(have)
	}
	if panel == "" {
		gap(r.config.source(), fmt.Errorf("its %d tables are of no panel that is known", len(have)))
		return out
	}
	for _, p := range panels[panel] {
		r.readPlace(ctx, s, have, p, panel, &out)
	}
	return out
}

// readPlace adds the rules of one table.
func (r *panelReader) readPlace(ctx context.Context, s session, have schema, p *place, panel string, out *forward.Reading) {
	source := p.table + " of " + r.config.Name
	if missing := p.missing(have); missing != "" {
		if p.always {
			out.Gaps = append(out.Gaps, forward.Gap{Source: source, Why: fmt.Sprintf("there is no %s: is this %s?", missing, panel)})
		}
		return
	}
	first := len(out.Rules)
	err := s.rows(ctx, p.statement(have, s.dialect().kind), func(columns []sql.NullString) error {
		rules, gaps := p.rules(&panelRow{place: p, values: columns, source: source, sieve: r.sieve})
		out.Rules, out.Gaps = append(out.Rules, rules...), append(out.Gaps, gaps...)
		if len(out.Rules) > maxRows {
			return errTooMany
		}
		return nil
	})
	if err != nil {
		out.Gaps = append(out.Gaps, forward.Gap{Source: source, Why: err.Error()})
	}
	keepCopies(out.Rules[first:])
}

// open connects as the configuration says.
func (r *panelReader) open(ctx context.Context) (session, error) {
	c := r.config
	s := settings{"hosts": c.Address, "user": c.User, "dbname": c.DB, "dbpath": c.DB, "option_group": ""}
	if c.PasswordFile != "" {
		secret, err := r.secret(ctx, c.PasswordFile)
		if err != nil {
			return nil, err
		}
		s["password"] = secret.reveal()
	}
	if c.DSNFile != "" {
		dsn, err := r.secret(ctx, c.DSNFile)
		if err != nil {
			return nil, err
		}
		switch c.Driver {
		case "pgsql":
			return openPostgres(ctx, []string{dsn.reveal()}, []string{"as " + c.DSNFile + " says"}, login{})
		case "sqlite":
			s["dbpath"] = dsn.reveal()
		case "mysql":
			m, err := mysql.ParseDSN(dsn.reveal())
			if err != nil {
				return nil, fmt.Errorf("read %s: want user:password@unix(/path)/database", c.DSNFile) // the cause may quote it
			}
			s["hosts"], s["user"], s["password"], s["dbname"] = m.Net+":"+m.Addr, m.User, m.Passwd, m.DBName
			s["hosts"] = strings.Replace(s["hosts"], "tcp:", "inet:", 1)
		}
	}
	return r.databases.open(ctx, c.Driver, s)
}

// secret is the first line of a file.
func (r *panelReader) secret(ctx context.Context, file string) (Secret, error) {
	data, _, err := r.databases.host.Files.Read(ctx, file, forward.ReadOptions{Max: maxSetting})
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return Secret(strings.TrimRight(line, "\r")), nil
}

// schema are the tables and their columns, in lower case; the value is the name
// as the server has it.
type schema map[string]map[string]string

const schemaTable = "" // the key in schema[table] for the table's own name

func readSchema(ctx context.Context, s session) (schema, error) {
	statement := map[string]string{
		"mysql":  "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()",
		"pgsql":  "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = ANY (current_schemas(false))",
		"sqlite": "SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'",
	}[s.dialect().kind]
	have := schema{}
	err := s.rows(ctx, statement, func(columns []sql.NullString) error {
		if len(columns) != 2 {
			return fmt.Errorf("a row of %d columns", len(columns))
		}
		table := strings.ToLower(columns[0].String)
		if have[table] == nil {
			have[table] = map[string]string{schemaTable: columns[0].String}
		}
		have[table][strings.ToLower(columns[1].String)] = columns[1].String
		return nil
	})
	return have, err
}

// detect tells a panel by its tables.
func detect(have schema) string {
	for _, name := range []string{"mailcow", "iredmail", "ispconfig", "plesk", "postfixadmin"} {
		if !slices.ContainsFunc(panels[name], func(p *place) bool { return p.always && p.missing(have) != "" }) {
			return name
		}
	}
	return ""
}
