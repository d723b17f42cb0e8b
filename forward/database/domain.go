package database

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/forward/tables"
	mta "relayguard/mta/postfix"
)

// matchDomain is the parameter "domain": only addresses in these domains are
// looked up. nil takes any key.
type matchDomain struct {
	items []domainItem
}

type domainItem struct {
	not  bool
	name string          // in lower case
	in   map[string]bool // of a table
	any  bool            // of a table that cannot be listed: it may match
}

const maxDomainFiles = 32

// domains reads the list as match_list_init does: names, !names, /files and
// type:tables.
func (d *Databases) domains(ctx context.Context, value string) (*matchDomain, error) {
	if value == "" {
		return nil, nil
	}
	m := &matchDomain{}
	files := 0
	var add func(items []string, not bool) error
	add = func(items []string, not bool) error {
		for _, item := range items {
			negate := not
			for strings.HasPrefix(item, "!") {
				item, negate = item[1:], !negate
			}
			switch {
			case path.IsAbs(item):
				if files++; files > maxDomainFiles {
					return errors.New("domain: too many files")
				}
				data, _, err := d.host.Files.Read(ctx, item, forward.ReadOptions{Max: maxCF})
				if err != nil {
					return fmt.Errorf("domain: read %s: %w", item, err)
				}
				if err := add(listFile(data), negate); err != nil {
					return err
				}
			case strings.Contains(item, ":"):
				m.items = append(m.items, d.domainTable(ctx, item, negate))
			case item != "":
				m.items = append(m.items, domainItem{not: negate, name: strings.ToLower(item)})
			}
		}
		return nil
	}
	return m, add(list(value), false)
}

// listFile reads a file of patterns: comments, white space.
func listFile(data []byte) []string {
	var items []string
	for line := range strings.Lines(string(data)) {
		if text := strings.TrimSpace(line); text != "" && text[0] != '#' {
			items = append(items, list(text)...)
		}
	}
	return items
}

func (d *Databases) domainTable(ctx context.Context, item string, not bool) domainItem {
	t, err := mta.ParseTable(item)
	if err != nil {
		return domainItem{not: not, any: true}
	}
	r := tables.Reader{Host: d.host} // without Databases: no table asks itself
	l := r.List(ctx, t)
	if l.Opaque || len(l.Gaps) > 0 {
		return domainItem{not: not, any: true}
	}
	in := map[string]bool{}
	for _, e := range l.Entries {
		if e.Pattern {
			return domainItem{not: not, any: true}
		}
		in[strings.ToLower(e.Key)] = true
	}
	return domainItem{not: not, in: in}
}

// takes reports whether a key is looked up. Where a table cannot be read, yes:
// rather a rule too many than one too few.
func (m *matchDomain) takes(key string) bool {
	if m == nil {
		return true
	}
	user, domain, found := split(key)
	if !found || user == "" {
		return false
	}
	domain = strings.ToLower(domain)
	for _, i := range m.items {
		if i.any {
			if i.not {
				continue
			}
			return true
		}
		if i.name != "" && i.name == domain || i.in[domain] {
			return !i.not
		}
	}
	return false
}
