package postfix

import (
	"context"
	"fmt"
	"net"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/policy/address"
)

// Caps on match lists: files that name files.
const (
	maxListDepth = 5
	maxListItems = 2_000_000
)

// domainList resolves a match list such as mydestination: names, /files of
// names, tables whose keys are names, and !exceptions.
type domainList struct {
	f       *finder
	setting string
	names   map[string]bool
	not     map[string]bool
	uses    []string
	gaps    []forward.Gap
}

// domains lists the domains of a setting of main.cf in the form of
// address.Domain; ".example.jp" stands for all names below.
func (f *finder) domains(ctx context.Context, setting string) *domainList {
	if l := f.listed[setting]; l != nil {
		return l
	}
	l := &domainList{f: f, setting: setting, names: map[string]bool{}, not: map[string]bool{}}
	l.add(ctx, f.i.value(setting), 0)
	for name := range l.not {
		delete(l.names, name)
	}
	if f.listed != nil {
		f.listed[setting] = l
	}
	return l
}

func (l *domainList) add(ctx context.Context, list string, depth int) {
	for _, item := range splitList(list) {
		name, not := strings.CutPrefix(item, "!")
		switch {
		case strings.HasPrefix(name, "/"):
			l.file(ctx, name, not, depth)
		case isTable(name) && !strings.HasPrefix(name, "["):
			l.table(ctx, name, not)
		case not:
			l.put(l.not, name)
		default:
			l.put(l.names, name)
		}
	}
}

// put keeps what is a domain; tables have addresses as keys, too.
func (l *domainList) put(into map[string]bool, name string) {
	if strings.ContainsAny(name, "@[]:/") || len(into) >= maxListItems {
		return
	}
	below, isBelow := strings.CutPrefix(name, ".")
	if d := exactDomain(below); d != "" {
		if isBelow {
			d = "." + d
		}
		into[d] = true
	}
}

func (l *domainList) file(ctx context.Context, name string, not bool, depth int) {
	name = path.Clean(name)
	l.uses = append(l.uses, name)
	if not || depth >= maxListDepth {
		l.gap(name, fmt.Errorf("an exception from a file, or files that name files more than %d deep", maxListDepth))
		return
	}
	data, _, err := l.f.h.Files.Read(ctx, name, forward.ReadOptions{})
	if err != nil {
		l.gap(name, err)
		return
	}
	for _, line := range logicalLines(string(data)) {
		l.add(ctx, line.text, depth+1)
	}
}

func (l *domainList) table(ctx context.Context, item string, not bool) {
	t, err := parseTable(item)
	if err != nil || not {
		l.gap(item, fmt.Errorf("a table of exceptions, or none that is understood"))
		return
	}
	listing := l.f.list(ctx, t, false)
	l.gaps = append(l.gaps, listing.Gaps...)
	names := len(l.names)
	defer func() {
		if !l.fromMaps() || len(l.names) > names {
			l.uses = append(l.uses, listing.Paths...)
		}
	}()
	if listing.Opaque {
		l.gap(item, fmt.Errorf("cannot be listed: name the domains in it in the configuration"))
	}
	for _, e := range listing.Entries {
		switch {
		case e.Pattern:
			l.gap(item, fmt.Errorf("a pattern: name the domains that %s stands for in the configuration", brief(e.Key)))
		case strings.Contains(e.Key, "@"):
		case l.setting == "virtual_alias_domains" && !strings.Contains(e.Key, "."):
		default:
			l.put(l.names, e.Key)
		}
	}
}

// fromMaps: the setting is as it comes, and lists the maps of the addresses
// ("virtual_alias_domains = $virtual_alias_maps"). Of those that name no domain a
// change of one address asks for no new plan: a domain that comes to it is taken for
// outside until the next one, which hides nothing.
func (l *domainList) fromMaps() bool {
	_, written := l.f.i.written[l.setting]
	return !written
}

func (l *domainList) gap(item string, err error) {
	l.gaps = append(l.gaps, forward.Gap{Source: l.setting + ": " + item, Why: err.Error()})
}

// world is what this instance takes for its own.
func (f *finder) world(ctx context.Context, p *forward.Plan) {
	w := forward.World{Inside: map[string]bool{}, Hosts: f.hosts()}
	for _, part := range []struct {
		setting string
		into    *map[string]bool
	}{
		{"mydestination", &w.Local}, {"virtual_alias_domains", &w.AliasDomains}, {"virtual_mailbox_domains", &w.Mailboxes}, {"relay_domains", nil},
	} {
		l := f.domains(ctx, part.setting)
		if part.into != nil {
			*part.into = l.names
		}
		for name := range l.names {
			w.Inside[name] = true
		}
		p.Gaps = append(p.Gaps, l.gaps...)
		p.Uses = append(p.Uses, l.uses...)
	}
	origin, uses := f.myorigin(ctx)
	p.Uses = append(p.Uses, uses...)
	w.Origin, w.Domain = origin, address.Domain(f.i.value("mydomain"))
	if origin != "" && f.isThisHost(ctx, origin) {
		w.Inside[origin] = true // mail for it comes back to us
	}
	w.Delimiters = f.i.value("recipient_delimiter")
	w.PercentHack, w.SwapBangPath = f.is("allow_percent_hack"), f.is("swap_bangpath")
	w.AppendAtOrigin, w.AppendDotDomain = f.is("append_at_myorigin"), f.is("append_dot_mydomain")
	p.Add(forward.Plan{World: w})
}

func (f *finder) is(setting string) bool { return strings.EqualFold(f.i.value(setting), "yes") }

// myorigin is the domain of addresses that have none. Debian lets it name a file
// whose first line is the domain, and ships it so.
func (f *finder) myorigin(ctx context.Context) (origin string, uses []string) {
	origin = f.i.value("myorigin")
	if strings.HasPrefix(origin, "/") {
		file := path.Clean(origin)
		uses = []string{file}
		data, _, err := f.h.Files.Read(ctx, file, forward.ReadOptions{Max: 1 << 20})
		if err != nil {
			return "", uses
		}
		origin, _, _ = strings.Cut(string(data), "\n")
	}
	return address.Domain(strings.Trim(origin, spaces)), uses
}

// isLocal reports whether a domain is one of mydestination or of the virtual
// ones.
func (f *finder) isLocal(ctx context.Context, domain string) bool {
	for _, setting := range []string{"mydestination", "virtual_mailbox_domains", "virtual_alias_domains"} {
		if f.domains(ctx, setting).names[domain] {
			return true
		}
	}
	return false
}

// hosts are the addresses by which this machine reaches itself, as its interfaces
// have them. What main.cf calls its own (myhostname, inet_interfaces,
// proxy_interfaces) is where mail goes for all that: Postfix takes no notice of
// them when it connects to another port.
func (f *finder) hosts() map[string]bool {
	hosts := map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}
	if f.h.Live() {
		addresses, _ := net.InterfaceAddrs() // without them a hop to ourselves shows as outside
		for _, a := range addresses {
			if ip, _, err := net.ParseCIDR(a.String()); err == nil && !ip.IsLinkLocalUnicast() {
				hosts[ip.String()] = true
			}
		}
	}
	return hosts
}

// isThisHost reports whether a domain is the machine's own name: the system's, or
// what main.cf says if it lies below a domain that is delivered here.
func (f *finder) isThisHost(ctx context.Context, domain string) bool {
	if domain == address.Domain(f.h.Hostname) {
		return true
	}
	_, parent, _ := strings.Cut(domain, ".")
	return domain == address.Domain(f.i.value("myhostname")) && f.isLocal(ctx, parent)
}
