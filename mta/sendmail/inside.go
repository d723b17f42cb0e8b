package sendmail

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
)

// InsideDomains lists the domains that Sendmail takes mail for from anybody: its
// own name, classes w and VirtHost, relay-domains (class R) and what the access
// table relays to; with FEATURE(relay_entire_domain) class m too. Lower case,
// sorted, each once. What cannot be listed (LDAP, a program) is in unread: the
// configuration must complete it.
//
// Traps: the names below a relay domain are relayed as well and are not listed.
// That a domain stands in mailertable or virtusertable does not make it ours: those
// say where mail goes, not from whom it is taken.
func (i *Instance) InsideDomains(ctx context.Context) (domains []string, unread []mta.Unread, err error) {
	in := i.ownDomains(ctx)
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("list Sendmail's domains: %w", err)
	}
	return in.domains(), in.unread, nil
}

// LocalDomains lists Sendmail's own name and class w: mail to them is delivered on
// this machine or by its hub.
func (i *Instance) LocalDomains(ctx context.Context) (domains []string, unread []mta.Unread, err error) {
	var in ownDomains
	in.class(i.main, "w")
	in.own(i)
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("list Sendmail's domains: %w", err)
	}
	return in.domains(), in.unread, nil
}

// Origin is the domain of addresses that have none: Sendmail's own name, $j.
func (i *Instance) Origin() (string, error) {
	name, err := i.main.ownName()
	if err != nil {
		return "", fmt.Errorf("find Sendmail's own name: %w", err)
	}
	return name, nil
}

// Copies is how many copies Sendmail itself makes of every message: none; it has
// no setting like Postfix's always_bcc.
func (i *Instance) Copies() int { return 0 }

// ownDomains are domains by what is to be passed on to them.
type ownDomains struct {
	exact, below []string // below: names below the domain are ours, too
	unread       []mta.Unread
}

func (i *Instance) ownDomains(ctx context.Context) *ownDomains {
	in := &ownDomains{}
	in.own(i)
	in.class(i.main, "w")
	in.class(i.main, "VirtHost")
	relayed := in.class(i.main, "R")
	rules, err := readRelayRules(i.Config)
	if err != nil {
		in.unread = append(in.unread, mta.Unread{Setting: "rulesets", Item: i.Config, Err: err})
	}
	if !rules.hostsOnly {
		in.below = append(in.below, relayed...)
	}
	if rules.entireDomain {
		in.below = append(in.below, in.class(i.main, "m")...)
		if name, err := i.main.ownName(); err == nil {
			if _, domain, _ := strings.Cut(name, "."); strings.Contains(domain, ".") && len(i.main.Class("m")) == 0 {
				in.exact, in.below = append(in.exact, domain), append(in.below, domain)
			}
		}
	}
	in.access(ctx, i, rules.hostsOnly)
	for _, m := range i.main.Maps() {
		if m.Name == "mxserved" {
			in.unread = append(in.unread, mta.Unread{Setting: "FEATURE(relay_based_on_MX)", Item: m.Class, Err: errors.New("whoever names this host as MX is relayed to")})
		}
	}
	return in
}

// own adds Sendmail's own name.
func (in *ownDomains) own(i *Instance) {
	name, err := i.main.ownName()
	if err != nil {
		in.unread = append(in.unread, mta.Unread{Setting: "Dj", Item: i.main.macros["j"], Err: err})
		return
	}
	in.exact = append(in.exact, name)
}

// relayRules are what the rules of proto.m4 say of relay domains.
type relayRules struct {
	hostsOnly    bool // FEATURE(relay_hosts_only): not to names below
	entireDomain bool // FEATURE(relay_entire_domain): to class m
}

func readRelayRules(path string) (relayRules, error) {
	text, err := readFile(path, maxConfig)
	if err != nil {
		return relayRules{}, err
	}
	var rules relayRules
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "R$+") {
			continue
		}
		switch strings.Join(strings.Fields(line), " ") {
		case "R$+ < @ $=R > $@ RELAY":
			rules.hostsOnly = true
		case "R$+ < @ $* $=m > $@ RELAY":
			rules.entireDomain = true
		}
	}
	return rules, nil
}

// class adds the domains of a class, and returns them.
func (in *ownDomains) class(s *Settings, name string) []string {
	var found []string
	for _, member := range s.Class(name) {
		if other, is := includedClass(member); is && other != name { // CR$={VirtHost}, of proto.m4
			found = append(found, in.class(s, other)...)
			continue
		}
		if domain, is := domainName(member); is {
			found = append(found, domain)
		}
	}
	for _, u := range s.Unread() {
		if strings.HasPrefix(u.Setting, "F"+name+" of ") {
			in.unread = append(in.unread, u)
		}
	}
	in.exact = append(in.exact, found...)
	return found
}

// includedClass reads "$={name}" in a C line, of which expansion may have left the
// name alone.
func includedClass(member string) (string, bool) {
	inner, is := strings.CutPrefix(strings.TrimPrefix(member, "$="), "{")
	inner, closed := strings.CutSuffix(inner, "}")
	return inner, is && closed && inner == "VirtHost"
}

// access adds what the access table relays to: "example.net RELAY", which says so
// of mail from there as well, and "To:example.net RELAY" (LookUpDomain in proto.m4
// takes names below, too).
func (in *ownDomains) access(ctx context.Context, i *Instance, hostsOnly bool) {
	entries, m, err := i.mapEntries(ctx, "access")
	if err != nil {
		in.unread = append(in.unread, mta.Unread{Setting: "access", Item: m.Class + ":" + m.file(), Err: err})
	}
	for _, e := range entries {
		if !strings.EqualFold(e.value, "RELAY") {
			continue
		}
		key := strings.ToLower(e.key)
		if rest, tagged := strings.CutPrefix(key, "to:"); tagged {
			key = rest
		}
		if domain, is := domainName(key); is && strings.ContainsFunc(domain, isLetter) {
			in.exact = append(in.exact, domain)
			if !hostsOnly {
				in.below = append(in.below, domain)
			}
		}
	}
}

func isLetter(r rune) bool { return 'a' <= r && r <= 'z' || r > 0x7f }

func (in *ownDomains) domains() []string {
	all := slices.Clone(in.exact)
	slices.Sort(all)
	return slices.Compact(all)
}

// domainName is the domain that a class member or a key is, in lower case; not
// an address, an address literal or an unexpanded macro.
func domainName(member string) (string, bool) {
	name := strings.ToLower(strings.TrimSuffix(member, "."))
	if name == "" || len(name) > 255 || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "@[]:/$<>(){}\"\\,;!%| \t\r\n\x00") {
		return "", false
	}
	return name, true
}

// nameWait bounds the look-up of this machine's own name.
const nameWait = 5 * time.Second

// ownName is $j: what the file says, else the machine's name as its resolver
// completes it.
func (s *Settings) ownName() (string, error) {
	if raw, set := s.macros["j"]; set && !strings.Contains(raw, "$w") && !strings.Contains(raw, "$&w") {
		if name, is := domainName(s.expand(raw, 0)); is {
			return name, nil
		}
	}
	name, err := os.Hostname()
	if err == nil && !strings.Contains(name, ".") {
		ctx, cancel := context.WithTimeout(context.Background(), nameWait)
		defer cancel()
		var full string
		if full, err = net.DefaultResolver.LookupCNAME(ctx, name); err == nil {
			name = full
		}
	}
	if domain, is := domainName(name); is && strings.Contains(domain, ".") {
		if _, rest, found := strings.Cut(s.macros["j"], "$w."); found { // Dj$w.example.jp
			short, _, _ := strings.Cut(domain, ".")
			domain = short + "." + strings.ToLower(s.expand(rest, 0))
		}
		return domain, nil
	}
	return "", fmt.Errorf("the machine's name %q has no domain: %w", name, cmp.Or(err, errors.New("the resolver knows no other")))
}

// mapEntry is a line of a table.
type mapEntry struct{ key, value string }

// maxMapText bounds the listing of one table: some 200,000 lines.
const maxMapText = 16 << 20

var errNoListing = errors.New("tables of this class cannot be listed")

// listedMaps are the classes that makemap lists.
var listedMaps = map[string]bool{"hash": true, "btree": true, "dbm": true, "cdb": true}

// mapEntries lists a table by the name of its K line; none without one, or if
// the table is optional and not there.
func (i *Instance) mapEntries(ctx context.Context, name string) ([]mapEntry, Map, error) {
	var m Map
	for _, known := range i.main.Maps() {
		if strings.EqualFold(known.Name, name) {
			m = known
		}
	}
	if m.Name == "" {
		return nil, m, nil
	}
	if !listedMaps[m.Class] || !strings.HasPrefix(m.file(), "/") {
		return nil, m, errNoListing
	}
	file := strings.TrimSuffix(m.file(), ".db")
	suffix := map[string]string{"dbm": ".pag", "cdb": ".cdb"}[m.Class]
	if _, err := os.Stat(file + cmp.Or(suffix, ".db")); err != nil {
		if errors.Is(err, os.ErrNotExist) && slices.Contains(strings.Fields(m.Args), "-o") {
			err = nil
		}
		return nil, m, err
	}
	if err := i.main.seen(file + cmp.Or(suffix, ".db")); err != nil {
		return nil, m, err
	}
	text, err := i.listMap(ctx, m.Class, file)
	if err != nil {
		return nil, m, err
	}
	var entries []mapEntry
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimRight(line, "\r\n"), "\t")
		if found && key != "@" {
			entries = append(entries, mapEntry{key, strings.TrimSpace(value)})
		}
	}
	return entries, m, nil
}

// listMap runs makemap -u. It is told of the cf file that is in force, for it
// reads there who may own maps.
func (i *Instance) listMap(ctx context.Context, class, file string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, i.tools.Path("makemap"), "-C", i.Config, "-u", class, file)
	cmd.Dir = filepath.Dir(i.Config)
	var errs bytes.Buffer
	text := &bounded{most: maxMapText}
	cmd.Stdout, cmd.Stderr = text, &errs
	err := cmd.Run()
	switch {
	case text.over:
		return "", fmt.Errorf("list %s: over %d octets", file, maxMapText)
	case err != nil:
		return "", fmt.Errorf("list %s: %w: %.300q", file, err, strings.TrimSpace(errs.String()))
	}
	return text.String(), nil
}

// file is the table's path: the first argument that is no option.
func (m Map) file() string {
	for _, arg := range strings.Fields(m.Args) {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return m.Args
}
