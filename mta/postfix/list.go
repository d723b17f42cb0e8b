package postfix

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// splitList splits a list as Postfix does: at commas and white space, but not
// within braces (postconf(5): "{ unix:a, default_action=accept }, unix:b").
func splitList(s string) ([]string, error) {
	var items []string
	depth, start := 0, -1
	for i := 0; i < len(s); i++ {
		c := s[i]
		if depth == 0 && isSeparator(c) {
			if start >= 0 {
				items = append(items, s[start:i])
				start = -1
			}
			continue
		}
		if start < 0 {
			start = i
		}
		switch c {
		case '{':
			depth++
		case '}':
			if depth--; depth < 0 {
				return nil, fmt.Errorf("list %q: closing brace without an opening one", s)
			}
		}
	}
	if depth > 0 {
		return nil, fmt.Errorf("list %q: opening brace without a closing one", s)
	}
	if start >= 0 {
		items = append(items, s[start:])
	}
	return items, nil
}

func isSeparator(c byte) bool { return c == ',' || isSpace(c) }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// inBraces takes "{ text }" apart.
func inBraces(s string) (string, bool) {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return s, false
	}
	return strings.TrimSpace(s[1 : len(s)-1]), true
}

// Milter is one entry of smtpd_milters or non_smtpd_milters.
type Milter struct {
	Endpoint string            // "unix:relayguard/milter.sock", "inet:localhost:8891"
	Settings map[string]string // of this entry alone: "default_action", "command_timeout"; nil without
}

// ParseMilters reads the value of smtpd_milters and its kin, per-milter
// settings included (MILTER_README, "Per-Milter settings").
func ParseMilters(value string) ([]Milter, error) {
	items, err := splitList(value)
	if err != nil {
		return nil, err
	}
	var milters []Milter
	for _, item := range items {
		body, braced := inBraces(item)
		if !braced {
			if strings.ContainsAny(item, "{}") {
				return nil, fmt.Errorf("milter %q: a brace in the middle", item)
			}
			milters = append(milters, Milter{Endpoint: item})
			continue
		}
		m, err := parseMilter(body)
		if err != nil {
			return nil, err
		}
		milters = append(milters, m)
	}
	return milters, nil
}

func parseMilter(body string) (Milter, error) {
	parts, err := splitList(body)
	if err != nil {
		return Milter{}, err
	}
	if len(parts) == 0 {
		return Milter{}, fmt.Errorf("milter {%s}: no endpoint", body)
	}
	if strings.ContainsAny(parts[0], "{}") {
		return Milter{}, fmt.Errorf("milter {%s}: got endpoint %q", body, parts[0])
	}
	m := Milter{Endpoint: parts[0]}
	for _, part := range parts[1:] {
		setting, _ := inBraces(part)
		name, value, found := strings.Cut(setting, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found || name == "" {
			return Milter{}, fmt.Errorf("milter %s: got setting %q, want name=value", m.Endpoint, part)
		}
		if m.Settings == nil {
			m.Settings = map[string]string{}
		}
		m.Settings[name] = value
	}
	return m, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
