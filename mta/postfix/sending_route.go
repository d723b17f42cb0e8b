package postfix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

// route is where a setting sends mail.
type route struct {
	setting, key, service, nextHop string
}

// splitRoute takes "transport:nexthop" apart.
func splitRoute(value string) (service, nextHop string) {
	service, nextHop, _ = strings.Cut(strings.TrimSpace(value), ":")
	return service, strings.TrimSpace(nextHop)
}

// routes follows what trivial-rewrite(8) does with a recipient outside: transport_maps
// first; else sender_dependent_default_transport_maps, else default_transport (for
// relay domains relay_transport); and if those name no next hop, that of
// sender_dependent_relayhost_maps, else of relayhost, else the recipient's own servers.
func (s *sending) routes(ctx context.Context) {
	mapped, all := s.table(ctx, "transport_maps")
	defaults, allBySender := s.table(ctx, "sender_dependent_default_transport_maps")
	byDefault, hop := splitRoute(s.main["default_transport"])
	relays, allRelayed := s.table(ctx, "sender_dependent_relayhost_maps")
	if !allBySender {
		defaults = append(defaults, route{setting: "default_transport", service: byDefault, nextHop: hop})
	}
	if relayTo, hop := splitRoute(s.main["relay_transport"]); s.relaysOwn() {
		defaults = append(defaults, route{setting: "relay_transport", service: relayTo, nextHop: hop})
	}
	for _, m := range mapped {
		switch {
		case m.service == "" && m.nextHop == "": // as without the table
		case s.isInside(m.key):
		case m.service == "":
			s.add(byDefault, m.setting, m.key, m.nextHop)
		default:
			s.add(m.service, m.setting, m.key, m.nextHop)
		}
	}
	if filter, hop := splitRoute(s.main["content_filter"]); leaves(s.main["content_filter"]) {
		s.add(filter, "content_filter", "", hop)
	}
	if all { // nothing is left for the others
		return
	}
	for _, d := range defaults {
		if d.service == "" {
			d.service = byDefault
		}
		if d.nextHop != "" {
			s.add(d.service, d.setting, d.key, d.nextHop)
			continue
		}
		for _, r := range relays {
			s.add(d.service, r.setting, r.key, r.nextHop)
		}
		switch relayhost := s.main["relayhost"]; {
		case allRelayed:
		case relayhost != "" && d.setting == "default_transport":
			s.add(d.service, "relayhost", "", relayhost)
		default:
			s.add(d.service, d.setting, d.key, relayhost)
		}
	}
}

// relaysOwn reports whether relay_transport is used: for domains that are ours and not
// delivered here.
func (s *sending) relaysOwn() bool {
	items, err := splitList(s.main["relay_domains"])
	here, errHere := splitList(s.instance.Setting("mydestination"))
	return err != nil || errHere != nil || slices.ContainsFunc(items, func(item string) bool { return !slices.Contains(here, item) })
}

// isInside reports whether a table's key is of our own domains: mail to the inside says
// nothing of the way out.
func (s *sending) isInside(key string) bool {
	domain := strings.ToLower(strings.TrimPrefix(key[strings.LastIndexByte(key, '@')+1:], "."))
	_, found := slices.BinarySearch(s.inside, domain)
	return found && domain != ""
}

// table reads the routes of a setting that names tables. all: one of them has an answer
// for everybody, so that nothing after it counts.
func (s *sending) table(ctx context.Context, setting string) (routes []route, all bool) {
	tables, err := ParseTables(s.main[setting])
	if err != nil {
		s.miss(setting, s.main[setting], err)
		return nil, false
	}
	for _, t := range tables {
		entries, err := s.entries(ctx, t.direct())
		if err != nil {
			s.miss(setting, t.String(), err)
			continue
		}
		for _, e := range entries {
			r, is := s.route(setting, e)
			if !is {
				continue
			}
			routes = append(routes, r)
			all = all || r.key == ""
		}
		if all {
			break
		}
	}
	return routes, all
}

// mapping is a line of a table; key "": it is for everybody.
type mapping struct{ key, value string }

func (s *sending) route(setting string, e mapping) (route, bool) {
	value := strings.TrimSpace(e.value)
	if value == "" || strings.EqualFold(value, "DUNNO") && setting != "transport_maps" {
		return route{}, false
	}
	r := route{setting: setting, key: e.key}
	if setting == "transport_maps" && e.key == "*" {
		r.key = ""
		if value == ":" {
			return route{}, false
		}
	}
	if setting == "sender_dependent_relayhost_maps" {
		r.nextHop = value
		return r, true
	}
	if strings.Contains(value, "$") {
		s.miss(setting, e.key, errors.New("what it stands for depends on the address"))
		return route{}, false
	}
	r.service, r.nextHop = splitRoute(value)
	return r, true
}

// maxRouteFile bounds a table that is read as text.
const maxRouteFile = 16 << 20

// entries lists a table. Of patterns those count that mail could match, whatever stands
// before them.
func (s *sending) entries(ctx context.Context, t Table) ([]mapping, error) {
	var all []mapping
	switch {
	case t.Type == "static":
		return []mapping{{"", newStatic(t).value}}, nil
	case t.Type == "randmap":
		body, _ := inBraces(t.Name)
		values, err := splitList(body)
		for _, value := range values {
			value, _ = inBraces(value)
			all = append(all, mapping{"", value})
		}
		return all, err
	case t.listable():
		said, err := s.instance.tools.run(ctx, nil, maxListing, "postmap", s.instance.tools.inDir(s.instance.ConfigDir, "-s", t.String())...)
		if err != nil {
			return nil, err
		}
		listed := parseListing(string(said.stdout))
		for _, key := range sortedKeys(listed) {
			all = append(all, mapping{key, listed[key]})
		}
		return all, nil
	case t.Type == "regexp" || t.Type == "pcre" || t.Type == "cidr":
		text, err := readUpTo(t.Name, maxRouteFile)
		if err != nil {
			return nil, err
		}
		return patterns(text, t.Type != "cidr"), nil
	}
	return nil, fmt.Errorf("tables of type %s cannot be listed", t.Type)
}

// readUpTo reads a regular file, and does not wait for a FIFO's writer.
func readUpTo(path string, most int64) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > most {
		return "", fmt.Errorf("%s: not a file of at most %d octets", path, most)
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	return string(text), err
}

// patterns reads regexp_table(5), pcre_table(5), cidr_table(5). What matches every
// address is for everybody, unless it may stand under a condition.
func patterns(text string, delimited bool) []mapping {
	var all []mapping
	conditions := false
	for _, line := range logicalLines(text) {
		if m, is := patternLine(line, delimited); is {
			all = append(all, m)
		} else {
			conditions = true
		}
	}
	for n := range all {
		if !conditions && slices.Contains([]string{"/./", "/.*/", "/.+/", "/^/", "/@/", "//"}, all[n].key) {
			all[n].key = ""
		}
	}
	return all
}

// patternLine reads "/pattern/flags value" or "network value"; not if, endif.
func patternLine(line string, delimited bool) (mapping, bool) {
	rest := strings.TrimLeft(line, "! \t")
	word, _, _ := strings.Cut(strings.ToLower(rest), " ")
	if rest == "" || word == "if" || word == "endif" || delimited && isAlnum(rest[0]) {
		return mapping{}, false
	}
	end := 0
	if delimited {
		for end = 1; end < len(rest) && rest[end] != rest[0]; end++ {
			if rest[end] == '\\' {
				end++
			}
		}
	}
	if end >= len(rest) {
		return mapping{}, false
	}
	gap := strings.IndexAny(rest[end:], " \t")
	if gap < 0 {
		return mapping{}, false
	}
	key, value := rest[:end+gap], strings.TrimSpace(rest[end+gap:])
	if len(rest) < len(line) { // "!": what does not match
		key = "!" + key
	}
	return mapping{key, value}, key != "" && value != ""
}
