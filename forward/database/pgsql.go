package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

type pgSession struct {
	conn    *pgconn.PgConn
	secrets []Secret
}

// pgTargets reads "hosts" as host_init of dict_pgsql.c does, into connection
// strings; where says them without secrets.
func pgTargets(hosts string, l login) (targets, where []string) {
	all := list(hosts)
	if len(all) == 0 {
		all = []string{"localhost"}
	}
	for _, h := range all {
		if strings.HasPrefix(h, "postgresql://") || strings.HasPrefix(h, "postgres://") {
			targets, where = append(targets, h), append(where, "by the URI in hosts")
			continue
		}
		h = strings.TrimPrefix(strings.TrimPrefix(h, "unix:"), "inet:")
		host, port := h, ""
		if at := strings.LastIndexByte(h, ':'); at >= 0 && !strings.HasPrefix(h, "/") {
			host, port = h[:at], h[at+1:]
		}
		targets, where = append(targets, pgString(host, port, l)), append(where, h)
	}
	return targets, where
}

func pgString(host, port string, l login) string {
	var b strings.Builder
	put := func(name, value string) {
		if value != "" {
			b.WriteString(name + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "' ")
		}
	}
	put("host", host)
	put("port", port)
	put("user", l.User)
	put("password", l.Password.reveal())
	put("dbname", l.Database)
	put("sslmode", "prefer")
	return b.String()
}

// openPostgres opens a read-only transaction on the first target that answers.
func openPostgres(ctx context.Context, targets, where []string, l login) (session, error) {
	var errs []error
	for i, target := range targets {
		s, err := connectPostgres(ctx, target, l)
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("open pgsql %s: %w", where[i], scrub(err, l.Password, Secret(target))))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func connectPostgres(ctx context.Context, target string, l login) (*pgSession, error) {
	config, err := pgconn.ParseConfig(target)
	if err != nil {
		return nil, errors.New("the connection string cannot be read") // the cause quotes it
	}
	config.ConnectTimeout = statementFor
	config.RuntimeParams["application_name"] = "relayguard"
	config.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	ctx, cancel := context.WithTimeout(ctx, 2*statementFor)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, scrub(err, Secret(config.Password))
	}
	s := &pgSession{conn: conn, secrets: []Secret{l.Password, Secret(config.Password)}}
	if err := s.begin(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *pgSession) begin(ctx context.Context) error {
	for _, statement := range []string{
		"BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
		fmt.Sprintf("SET LOCAL statement_timeout = %d", statementFor.Milliseconds()),
		"SET LOCAL client_encoding = 'UTF8'",
	} {
		if _, err := s.conn.Exec(ctx, statement).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

// rows uses the extended protocol, which takes one statement only, with results
// as text, as Postfix sees them.
func (s *pgSession) rows(ctx context.Context, statement string, each func([]sql.NullString) error) error {
	if err := runnable(statement); err != nil {
		return err
	}
	if s.conn.IsClosed() {
		return errors.New("the connection is closed")
	}
	if s.conn.TxStatus() != 'T' { // a statement before this failed
		if _, err := s.conn.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
			return scrub(err, s.secrets...)
		}
		if err := s.begin(ctx); err != nil {
			return scrub(err, s.secrets...)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statementFor+statementFor/10)
	defer cancel()
	r := s.conn.ExecParams(ctx, statement, nil, nil, nil, nil)
	err := s.read(r, each)
	if err != nil {
		cancel() // no use in reading what is left
	}
	if _, closed := r.Close(); err == nil {
		err = closed
	}
	return scrub(err, s.secrets...)
}

func (s *pgSession) read(r *pgconn.ResultReader, each func([]sql.NullString) error) error {
	var values []sql.NullString
	count, size := 0, 0
	for r.NextRow() {
		values = values[:0]
		for _, v := range r.Values() {
			size += len(v)
			values = append(values, sql.NullString{String: string(v[:min(len(v), maxValue)]), Valid: v != nil})
		}
		if count++; count > maxRows || size > maxBytes {
			return errTooMany
		}
		if err := each(values); err != nil {
			return err
		}
	}
	return nil
}

func (s *pgSession) dialect() dialect { return dialect{kind: "pgsql", pipesConcat: true} }

// quote is PQescapeStringConn with standard_conforming_strings, the default since
// PostgreSQL 9.1; with it off a backslash has to be doubled.
func (s *pgSession) quote(key string) string {
	key = strings.ReplaceAll(key, "'", "''")
	if s.conn.ParameterStatus("standard_conforming_strings") == "off" {
		key = strings.ReplaceAll(key, `\`, `\\`)
	}
	return strings.ReplaceAll(key, "\x00", "")
}

func (s *pgSession) close() {
	ctx, cancel := context.WithTimeout(context.Background(), statementFor)
	defer cancel()
	_ = s.conn.Close(ctx) // ends the transaction; nothing was written
}
