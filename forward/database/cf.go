package database

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a .cf file: those in use have some dozen lines.
const (
	maxCF      = 1 << 20 // octets
	maxSetting = 64 << 10
)

// settings are what a .cf file says, by name.
type settings map[string]string

// parseCF reads a file of the form of main.cf as cfg_parser does: logical lines
// "name = value", the last of a name counts, $name is not expanded.
func parseCF(data []byte) (settings, error) {
	if len(data) > maxCF {
		return nil, fmt.Errorf("more than %d octets", maxCF)
	}
	s := settings{}
	var logical []byte
	add := func() error {
		name, value, found := strings.Cut(string(logical), "=")
		logical = logical[:0]
		name = strings.TrimSpace(name)
		if !found || name == "" {
			return nil // Postfix warns, and goes on
		}
		if len(value) > maxSetting {
			return fmt.Errorf("the value of %.64q has more than %d octets", name, maxSetting)
		}
		s[name] = strings.TrimSpace(value)
		return nil
	}
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		if text := bytes.TrimLeft(line, " \t\r\v\f"); len(text) == 0 || text[0] == '#' {
			continue
		}
		if !strings.ContainsRune(" \t\r\v\f", rune(line[0])) {
			if err := add(); err != nil {
				return nil, err
			}
		}
		logical = append(logical, line...)
	}
	return s, add()
}

// first is the value of the first of the names that is set and not empty.
func (s settings) first(names ...string) string {
	for _, name := range names {
		if s[name] != "" {
			return s[name]
		}
	}
	return ""
}

// or is the value of a name, fallback if it is not set.
func (s settings) or(name, fallback string) string {
	if v, set := s[name]; set && v != "" {
		return v
	}
	return fallback
}

// number reads a setting that counts something.
func (s settings) number(name string, fallback int) (int, error) {
	v, set := s[name]
	if !set {
		return fallback, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s = %.40q: want a number", name, v)
	}
	return n, nil
}

// list splits as Postfix does: comma and white space.
func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' })
}

// sqlQuery is the query of an SQL table, also in its older forms (the sections
// "OBSOLETE QUERY INTERFACE" of the manual pages).
func (s settings) sqlQuery(kind string) (string, error) {
	if q := s["query"]; q != "" {
		return q, nil
	}
	if f := s["select_function"]; f != "" && kind == "pgsql" {
		return "SELECT " + f + "('%s')", nil
	}
	for _, name := range []string{"table", "select_field", "where_field"} {
		if s[name] == "" {
			return "", fmt.Errorf("neither query nor %s is set", name)
		}
	}
	return "SELECT " + s["select_field"] + " FROM " + s["table"] + " WHERE " + s["where_field"] + "='%s' " + s["additional_conditions"], nil
}
