package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of what one listing takes from a server, whatever it sends.
const (
	maxRows      = 1_000_000
	maxBytes     = 512 << 20
	maxValue     = 1 << 20 // octets of one value; a longer one is cut
	maxAsked     = 200_000 // keys that are asked for one by one
	statementFor = 10 * time.Second
	listingFor   = 2 * time.Minute
)

// errTooMany is a result over the bounds.
var errTooMany = fmt.Errorf("more than %d rows or %d MiB", maxRows, maxBytes>>20)

// session is a read-only transaction on a server. Not for concurrent use.
type session interface {
	// rows runs one statement, and calls each with every row's columns as text;
	// NULL is not Valid. It ends by itself after statementFor.
	rows(ctx context.Context, statement string, each func([]sql.NullString) error) error
	// quote puts a key into a string of the server's, without the quotes.
	quote(key string) string
	dialect() dialect
	close()
}

// runnable refuses what is no single query. The server would refuse to write; a
// file that SELECT writes, or a second statement, it might not.
func runnable(statement string) error {
	head := strings.ToUpper(strings.TrimLeft(statement, " \t\r\n("))
	ok := false
	for _, verb := range []string{"SELECT", "WITH", "CALL", "VALUES"} {
		ok = ok || strings.HasPrefix(head, verb) && len(head) > len(verb) && !isWordStart(head[len(verb)]) && !isDigit(head[len(verb)])
	}
	if !ok {
		return errors.New("it is not a query that only reads (SELECT, WITH, VALUES, CALL)")
	}
	code := outsideQuotes(statement)
	if strings.Contains(strings.TrimRight(code, "; \t\r\n"), ";") {
		return errors.New("it is more than one statement")
	}
	for _, w := range strings.FieldsFunc(strings.ToUpper(code), func(r rune) bool { return r < 0x80 && !isWordStart(byte(r)) && !isDigit(byte(r)) }) {
		if w == "OUTFILE" || w == "DUMPFILE" {
			return errors.New("it writes a file")
		}
	}
	return nil
}

// outsideQuotes blanks what is in quotes. Backslashes are taken for escapes only
// where that hides less.
func outsideQuotes(statement string) string {
	b := []byte(statement)
	for i := 0; i < len(b); i++ {
		mark := b[i]
		if mark != '\'' && mark != '"' && mark != '`' {
			continue
		}
		end := i + 1
		for end < len(b) && b[end] != mark {
			if b[end] == '\\' && mark != '`' && end+1 < len(b) && b[end+1] == mark {
				end++
			}
			end++
		}
		for ; i < end && i < len(b); i++ {
			b[i] = ' '
		}
	}
	return string(b)
}

// collect reads rows of database/sql.
func collect(rows *sql.Rows, each func([]sql.NullString) error) error {
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	count, size := 0, 0
	values := make([]sql.NullString, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for i := range values {
			size += len(values[i].String)
			if len(values[i].String) > maxValue {
				values[i].String = values[i].String[:maxValue]
			}
		}
		if count++; count > maxRows || size > maxBytes {
			return errTooMany
		}
		if err := each(values); err != nil {
			return err
		}
	}
	return rows.Err()
}
