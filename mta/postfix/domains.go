package postfix

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayguard/mta"
)

// maxListFile bounds a file that a list names, and how deep such files go.
const (
	maxListFile  = 16 << 20
	maxListDepth = 5
)

// InsideDomains lists the domains that Postfix takes mail for: mydestination,
// virtual_mailbox_domains, virtual_alias_domains and relay_domains, in lower
// case, sorted, each once. ".example.jp" stands for all names below. What
// cannot be listed (SQL, LDAP, patterns) is in unread: the configuration must
// complete it.
func (i *Instance) InsideDomains(ctx context.Context) (domains []string, unread []mta.Unread, err error) {
	return i.domainsOf(ctx, "mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains")
}

// LocalDomains lists myorigin and mydestination: where smtpd_sender_login_maps
// may name a user without a domain.
func (i *Instance) LocalDomains(ctx context.Context) (domains []string, unread []mta.Unread, err error) {
	return i.domainsOf(ctx, "myorigin", "mydestination")
}

// Origin is the domain of addresses that have none: myorigin. Debian's Postfix
// lets it name a file whose first line is the domain, and ships it so.
func (i *Instance) Origin() (string, error) {
	origin := i.Setting("myorigin")
	if !strings.HasPrefix(origin, "/") {
		return origin, nil
	}
	info, err := os.Stat(origin)
	if err == nil && (info.Size() > maxListFile || !info.Mode().IsRegular()) {
		err = fmt.Errorf("%s: not a file of at most %d octets", origin, maxListFile)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(origin)
	}
	if err != nil {
		return "", fmt.Errorf("myorigin: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line), nil
}

func (i *Instance) domainsOf(ctx context.Context, settings ...string) ([]string, []mta.Unread, error) {
	var all []string
	var unread []mta.Unread
	for _, setting := range settings {
		l := lister{ctx: ctx, instance: i, setting: setting}
		l.add(i.main[setting], 0)
		if err := ctx.Err(); err != nil {
			return nil, nil, fmt.Errorf("list domains of %s: %w", setting, err)
		}
		for _, name := range l.items {
			if name = strings.ToLower(strings.TrimSuffix(name, ".")); l.isDomain(name) && !slices.Contains(l.not, name) {
				all = append(all, name)
			}
		}
		unread = append(unread, l.unread...)
	}
	slices.Sort(all)
	return slices.Compact(all), unread, nil
}

// lister resolves a match list: names, /files of names, type:tables whose
// keys are names, and !exceptions (postconf(5), mydestination).
type lister struct {
	ctx      context.Context
	instance *Instance
	setting  string

	items  []string
	not    []string
	unread []mta.Unread
}

func (l *lister) add(list string, depth int) {
	items, err := splitList(list)
	if err != nil {
		l.miss(list, err)
		return
	}
	for _, item := range items {
		name, not := strings.CutPrefix(item, "!")
		switch {
		case strings.HasPrefix(name, "/"):
			l.file(name, not, depth)
		case isTable(name):
			l.table(name, not)
		case not:
			l.not = append(l.not, strings.ToLower(name))
		default:
			l.items = append(l.items, name)
		}
	}
}

// isTable tells type:table from an IPv6 address or a [host]:port.
func isTable(item string) bool {
	t, err := ParseTable(item)
	return err == nil && !strings.HasPrefix(item, "[") && strings.ContainsFunc(t.Type, func(r rune) bool { return r > 'f' }) || err == nil && t.Type == "cdb"
}

func (l *lister) file(path string, not bool, depth int) {
	info, err := os.Stat(path)
	switch {
	case not:
		err = fmt.Errorf("an exception from a file")
	case depth >= maxListDepth:
		err = fmt.Errorf("files name files more than %d deep", maxListDepth)
	case err == nil && (info.Size() > maxListFile || !info.Mode().IsRegular()):
		err = fmt.Errorf("not a file of at most %d octets", maxListFile)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		l.miss(path, err)
		return
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			l.add(line, depth+1)
		}
	}
}

func (l *lister) table(name string, not bool) {
	t, err := ParseTable(name)
	switch {
	case err != nil:
	case not:
		err = fmt.Errorf("an exception from a table")
	case !t.direct().listable():
		err = fmt.Errorf("tables of type %s cannot be listed", t.direct().Type)
	}
	if err != nil {
		l.miss(name, err)
		return
	}
	s, err := l.instance.tools.run(l.ctx, nil, maxListing, "postmap", l.instance.tools.inDir(l.instance.ConfigDir, "-s", t.direct().String())...)
	if err != nil {
		l.miss(name, err)
		return
	}
	l.items = append(l.items, sortedKeys(parseListing(string(s.stdout)))...)
}

func (l *lister) miss(item string, err error) {
	l.unread = append(l.unread, mta.Unread{Setting: l.setting, Item: item, Err: err})
}

// isDomain leaves out what is no domain: address literals, and the addresses
// that virtual_alias_domains finds when it names virtual_alias_maps.
func (l *lister) isDomain(name string) bool {
	if name == "" || strings.ContainsAny(name, "@[]:/ ") {
		return false
	}
	return l.setting != "virtual_alias_domains" || strings.Contains(name, ".")
}

// OpenMaps opens the tables of a setting such as smtpd_sender_login_maps with
// this instance's extension delimiter and local domains.
func (i *Instance) OpenMaps(ctx context.Context, tables string, config MapsConfig) (*Maps, error) {
	local, _, err := i.LocalDomains(ctx)
	if err != nil {
		return nil, fmt.Errorf("open lookup tables: %w", err)
	}
	config.Tools, config.ConfigDir, config.Tables = i.tools, i.ConfigDir, tables
	config.Delimiters = i.main["recipient_delimiter"]
	config.IsLocal = func(domain string) bool {
		_, found := slices.BinarySearch(local, domain)
		return found
	}
	return OpenMaps(ctx, config)
}

// inQueue reports whether path is under the queue directory, and its name from
// there, which every service finds, chrooted or not.
func (i *Instance) inQueue(path string) (string, bool) {
	name, err := filepath.Rel(i.QueueDir, path)
	if err != nil || name == ".." || strings.HasPrefix(name, "../") {
		return "", false
	}
	return name, true
}
