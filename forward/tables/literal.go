package tables

import (
	"context"
	"strings"

	"relayguard/forward"
	mta "relayguard/mta/postfix"
)

// braced returns what is within "{...}" if that is all of s.
func braced(s string) (string, bool) {
	if end := balanced(s); end == 0 || end != len(s) {
		return "", false
	}
	return s[1 : len(s)-1], true
}

// balanced is balpar(3): the length of the group at the start of s; 0: none.
func balanced(s string) int {
	if s == "" || s[0] != '{' {
		return 0
	}
	level := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			level++
		case '}':
			if level--; level == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// members splits at commas and white space outside braces: mystrtokq(3).
func members(s string) []string {
	var list []string
	level, start := 0, -1
	for i := range len(s) {
		c := s[i]
		if level == 0 && (c == ',' || isBlank(c)) {
			if start >= 0 {
				list = append(list, s[start:i])
			}
			start = -1
			continue
		}
		if start < 0 {
			start = i
		}
		switch {
		case c == '{':
			level++
		case c == '}' && level > 0:
			level--
		}
	}
	if start >= 0 {
		list = append(list, s[start:])
	}
	return list
}

// rulesText is the text of a pattern table: its file's, or what stands in braces
// in its place, a rule in each ("regexp:{{/x/ y}, {/z/ w}}", dict_stream.c). ok is
// false where there is none to be had; the table says why.
func (r *Reader) rulesText(ctx context.Context, t mta.Table, out *table) (text, source string, ok bool) {
	if !strings.HasPrefix(t.Name, "{") {
		source = r.path(t.Name)
		data, info, err := r.read(ctx, source, out)
		if err != nil {
			out.Opaque = !missing(err)
			out.gap(source, err.Error())
			return "", source, false
		}
		out.Writer = info.UID
		return string(data), source, true
	}
	source = t.Type + ":" + cut(t.Name)
	body, is := braced(t.Name)
	var b strings.Builder
	for _, m := range members(body) {
		rule, single := braced(m)
		is = is && single
		b.WriteString(strings.Trim(rule, spaces) + "\n")
	}
	if !is {
		out.refused(t, "braces that do not match, or a rule without them")
		return "", source, false
	}
	return b.String(), source, true
}

// refused is a table whose words we do not understand. Postfix refuses it, as far
// as we know; if we are wrong, mail goes by it.
func (t *table) refused(of mta.Table, why string) {
	t.Entries, t.Opaque = nil, true
	t.gap(of.String(), why+": Postfix refuses the table")
}

// inline lists inline:{name=value, {name = long value}}; of one name, the last
// counts.
func (t *table) inline(of mta.Table) {
	body, ok := braced(of.Name)
	list := members(body)
	if !ok || len(list) == 0 {
		t.refused(of, "want inline:{name=value...}")
		return
	}
	at := map[string]int{}
	for _, m := range list {
		if m[0] == '{' {
			inner, ok := braced(m)
			if !ok {
				t.refused(of, "braces that do not match")
				return
			}
			m = strings.Trim(inner, spaces)
		}
		key, value, ok := nameValue(m)
		if !ok {
			t.refused(of, "a member without name=value")
			return
		}
		entry := Entry{Key: fold(key), Value: value, Source: of.Type + ":" + cut(of.Name)}
		if i, again := at[entry.Key]; again {
			t.Entries[i] = entry
			continue
		}
		at[entry.Key] = len(t.Entries)
		t.Entries = append(t.Entries, entry)
	}
}

// nameValue is split_qnameval(3): a name in quotes may have = and white space.
func nameValue(s string) (name, value string, ok bool) {
	s = strings.TrimLeft(s, spaces)
	quoted, i := false, 0
	for ; i < len(s) && (quoted || s[i] != '=' && !isSpace(s[i])); i++ {
		switch s[i] {
		case '"':
			quoted = !quoted
		case '\\':
			i++
		}
	}
	i = min(i, len(s))
	rest := strings.TrimLeft(s[i:], spaces)
	if quoted || rest == "" || rest[0] != '=' {
		return "", "", false
	}
	return s[:i], strings.Trim(rest[1:], spaces), true
}

// static is one value for every key.
func (t *table) static(of mta.Table) {
	value := of.Name
	if strings.HasPrefix(value, "{") {
		inner, ok := braced(value)
		if !ok {
			t.refused(of, "braces that do not match")
			return
		}
		value = strings.Trim(inner, spaces)
	}
	t.every(of, value)
}

// random is one of several values for every key.
func (t *table) random(of mta.Table) {
	body, ok := braced(of.Name)
	list := members(body)
	if !ok || len(list) == 0 {
		t.refused(of, "want randmap:{value...}")
		return
	}
	for _, value := range list {
		t.every(of, value)
	}
}

func (t *table) every(of mta.Table, value string) {
	t.Entries = append(t.Entries, Entry{
		Key: forward.Everybody, Value: value, Pattern: true, Source: of.Type + ":" + cut(of.Name),
	})
}
