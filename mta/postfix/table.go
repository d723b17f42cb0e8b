package postfix

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Table is one lookup table as Postfix writes it: "hash:/etc/postfix/logins".
type Table struct {
	Type string
	Name string
}

func (t Table) String() string { return t.Type + ":" + t.Name }

// ParseTable reads "type:name". It lets nothing pass that a command could take
// for an option or that would not stay on one line.
func ParseTable(s string) (Table, error) {
	kind, name, found := strings.Cut(s, ":")
	switch {
	case !found || kind == "" || name == "":
		return Table{}, fmt.Errorf("lookup table %q: want type:name, such as hash:/etc/postfix/logins", s)
	case strings.IndexFunc(kind, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_') }) >= 0:
		return Table{}, fmt.Errorf("lookup table %q: a type is of small letters and digits", s)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, isControl):
		return Table{}, fmt.Errorf("lookup table %q: has a control character", s)
	}
	return Table{kind, name}, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// ParseTables reads a list of tables, as smtpd_sender_login_maps has it.
func ParseTables(value string) ([]Table, error) {
	items, err := splitList(value)
	if err != nil {
		return nil, err
	}
	var tables []Table
	for _, item := range items {
		if body, braced := inBraces(item); braced {
			item = body
		}
		t, err := ParseTable(item)
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// direct is the table behind proxy:, which only forwards: proxymap(8).
func (t Table) direct() Table {
	if t.Type == "proxy" {
		if inner, err := ParseTable(t.Name); err == nil {
			return inner
		}
	}
	return t
}

// suffixes of the files that postmap makes of a source file.
var suffixes = map[string][]string{
	"hash": {".db"}, "btree": {".db"}, "lmdb": {".lmdb"},
	"dbm": {".pag", ".dir"}, "sdbm": {".pag", ".dir"}, "texthash": {""},
}

// listable reports whether postmap -s lists all of the table (observed with
// 3.7.11: inline and texthash too; static, cidr, regexp, cdb not).
func (t Table) listable() bool {
	_, file := suffixes[t.Type]
	return file || t.Type == "inline"
}

// files are what changes when the table changes; none for an inline table.
func (t Table) files() []string {
	var files []string
	for _, suffix := range suffixes[t.Type] {
		files = append(files, t.Name+suffix)
	}
	return files
}

// matchesPatterns reports the types that Postfix asks with the full address
// only, never with a part of it (DICT_FLAG_PATTERN): regexp_table(5),
// pcre_table(5), cidr_table(5), tcp_table(5).
func (t Table) matchesPatterns() bool {
	return slices.Contains([]string{"regexp", "pcre", "cidr", "tcp"}, t.direct().Type)
}
