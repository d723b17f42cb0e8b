package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"relayguard/forward"
)

// UserQuery is how Dovecot asks a database for one user (user_query).
type UserQuery struct {
	Kind string // mysql, pgsql, sqlite
	// Settings are those of a .cf file: hosts, user, password, dbname, dbpath.
	Settings map[string]string
	// Query has Dovecot's variables: %u, %n, %d, %Lu, %{user}.
	Query string
}

// User is what a database answers for one user: column by column, in lower case;
// NULL is left out.
type User struct {
	Name   string
	Fields map[string]string
}

// Users lists all users that the query has an answer for, without asking for each.
// A query that cannot be turned round is an error: then nothing is known.
func (d *Databases) Users(ctx context.Context, q UserQuery) ([]User, error) {
	ctx, cancel := context.WithTimeout(ctx, listingFor)
	defer cancel()
	if q.Kind != "sqlite" && !d.host.Live() {
		return nil, errors.New("list users: a server answers, and this is a copied disk")
	}
	query, err := postfixVariables(q.Query)
	if err == nil {
		err = runnable(query)
	}
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	t := sqlTable{databases: d, query: query}
	if t.templates, err = newTemplates("%s", query); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	if t.session, err = d.open(ctx, q.Kind, q.Settings); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer t.session.close()
	users, err := t.users(ctx)
	if err == nil && t.strange > 0 {
		err = errors.New("rows have control characters in what is compared with the name")
	}
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return users, nil
}

func (t *sqlTable) users(ctx context.Context) ([]User, error) {
	turned, err := turn(t.query, t.session.dialect())
	if err != nil {
		return nil, err
	}
	if turned.asked || len(turned.ways) != 1 {
		return nil, errNoTurn
	}
	columns, err := columnNames(t.query, t.session.dialect())
	if err != nil {
		return nil, err
	}
	var all []User
	w := turned.ways[0]
	err = t.session.rows(ctx, w.sql, func(row []sql.NullString) error {
		if len(row) != len(columns)+2*len(w.equations) {
			return fmt.Errorf("a row of %d columns, where %d were asked for", len(row), len(columns)+2*len(w.equations))
		}
		values, name, anyUser, ok := t.solveRow(w, row)
		if !ok {
			return nil
		}
		if anyUser {
			return fmt.Errorf("%w: it answers for every user of %s", errNoTurn, name)
		}
		u := User{Name: name, Fields: make(map[string]string, len(columns))}
		for i, v := range values {
			if v.Valid {
				u.Fields[columns[i]] = put(v.String, name, forward.Unknown)
			}
		}
		all = append(all, u)
		return nil
	})
	return all, err
}

// columnNames are the names of the columns that a query selects.
func columnNames(query string, d dialect) ([]string, error) {
	tokens, err := lex(query, d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoTurn, err)
	}
	s, err := readSelect(unwrap(tokens))
	if err != nil {
		return nil, err
	}
	if len(s.list) == 0 || s.list[0].is("DISTINCT", "ALL") {
		return nil, errNoTurn
	}
	var names []string
	for _, item := range splitAt(s.list, ",") {
		if len(item) == 0 {
			return nil, errNoTurn
		}
		last := item[len(item)-1]
		name := strings.ToLower(strings.Trim(last.text, "\"`"))
		alone := len(item) == 1 || item[len(item)-2].is(".", "AS")
		if last.kind != word && last.kind != quoted || !alone || last.key || strings.HasPrefix(last.text, "'") && len(item) == 1 || name == "" {
			return nil, fmt.Errorf("%w: what a column is called, is not known", errNoTurn)
		}
		names = append(names, strings.Trim(name, "'"))
	}
	return names, nil
}

// postfixVariables puts the variables of Postfix's tables for Dovecot's.
func postfixVariables(query string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(query, "%")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name := strings.TrimPrefix(rest, "L")
		long, after, ok := strings.Cut(strings.TrimPrefix(name, "{"), "}")
		long = strings.TrimSuffix(strings.ReplaceAll(long, " ", ""), "|lower")
		switch {
		case strings.HasPrefix(rest, "%"):
			out.WriteString("%%")
			query = rest[1:]
			continue
		case ok && strings.HasPrefix(name, "{") && variables[long] != "":
			out.WriteString(variables[long])
			query = after
			continue
		case name != "" && variables[name[:1]] != "":
			out.WriteString(variables[name[:1]])
			query = name[1:]
			continue
		}
		return "", fmt.Errorf("%w: its variable %.20q is not followed", errNoTurn, "%"+rest)
	}
}

var variables = map[string]string{"u": "%s", "n": "%u", "d": "%d", "user": "%s", "username": "%u", "domain": "%d",
	"user|username": "%u", "user|domain": "%d"}
