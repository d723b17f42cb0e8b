package sendmail

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"relayguard/mta"
)

// maxNextHops bounds what a large table can make of one mailer: from where it sends
// is the same for all of them.
const maxNextHops = 16

// Sending looks how mail leaves: over the smart host or to the recipients' own
// servers, and as mailertable says, from the addresses of ClientPortOptions, under
// the name that Sendmail greets with. It reads files only, and makemap lists tables.
//
// Traps: rules of one's own (LOCAL_RULE_0 and the like) and AUTH-dependent routing
// are not followed; that there are some is among the unread. That an address is bound
// does not say that the machine has it, nor that nobody rewrites it on the way out.
func (i *Instance) Sending(ctx context.Context) (mta.Sending, error) {
	s := sending{instance: i, settings: i.main}
	text, err := readFile(i.Config, maxConfig)
	if err != nil {
		return mta.Sending{}, fmt.Errorf("look how mail leaves: %w", err)
	}
	s.inside = i.ownDomains(ctx).domains()
	if s.out.Hostname, err = i.main.ownName(); err != nil {
		s.miss("Dj", i.main.macros["j"], err)
	}
	_, lines, _ := started(string(text), "")
	s.out.Stopped = lines != ""
	s.way = s.clientWay()
	s.rules(string(text))
	s.routes(ctx, string(text))
	if len(s.out.Unread) > 0 {
		s.others()
	}
	if err := ctx.Err(); err != nil {
		return mta.Sending{}, fmt.Errorf("look how mail leaves: %w", err)
	}
	slices.SortStableFunc(s.out.Ways, func(a, b mta.Way) int {
		return strings.Compare(a.Setting+"\x00"+a.Service+"\x00"+a.NextHop, b.Setting+"\x00"+b.Service+"\x00"+b.NextHop)
	})
	return s.out, nil
}

// sending is one look.
type sending struct {
	instance *Instance
	settings *Settings
	inside   []string // our domains, sorted
	way      mta.Way  // of all mailers, without a route
	out      mta.Sending
}

func (s *sending) miss(setting, item string, err error) {
	s.out.Unread = append(s.out.Unread, mta.Unread{Setting: setting, Item: item, Err: err})
}

// clientWay reads from where, and under which name, Sendmail connects: makeconnection
// in daemon.c. An address that it cannot bind it does not send from another for.
func (s *sending) clientWay() mta.Way {
	w := mta.Way{IP4: true, IP6: true, Prefer: "ipv6", Helo: s.settings.Option("HeloName"), Fallback: s.settings.Option("FallbackMXhost")}
	if w.Fallback == "" {
		w.Fallback = s.settings.Option("FallbackSmartHost")
	}
	named := w.Helo != ""
	if !named {
		w.Helo = s.out.Hostname
	}
	for _, c := range s.settings.Clients() {
		if strings.Contains(c.Modifiers, "h") && !named {
			w.Helo = "" // the name of whatever address it is
			s.miss("ClientPortOptions", "Modifiers=h", errors.New("the name in HELO is that of the address in use"))
		}
		if c.Addr == "" {
			continue
		}
		addr, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(c.Addr, "[]"), "IPv6:"))
		switch {
		case err != nil:
			s.miss("ClientPortOptions", c.Addr, errors.New("not an address; names and interfaces are not looked up"))
		case addr.IsUnspecified():
		case addr.Is4() && c.Family != "inet6":
			w.Bind4, w.Enforced = mta.Bind{Addr: addr, Setting: "ClientPortOptions"}, true
		default:
			w.Bind6, w.Enforced = mta.Bind{Addr: addr.WithZone(""), Setting: "ClientPortOptions"}, true
		}
	}
	for _, d := range s.settings.Daemons() {
		if strings.Contains(d.Modifiers, "b") {
			s.miss("DaemonPortOptions", "Name="+d.Name+", Modifiers=b", errors.New("its mail leaves from the address that it came in at"))
		}
	}
	return w
}

var (
	directRule = regexp.MustCompile(`^R\$\* < @ ?\$\* > \$\*\s+\$#([A-Za-z0-9_-]+) \$@ \$2 `)
	ownRule    = regexp.MustCompile(`\$# ?[A-Za-z]|\$>`)
)

// rules looks for rules of one's own that choose a mailer.
func (s *sending) rules(cf string) {
	if rule := ownRoute(cf); rule != "" {
		s.miss("LOCAL_RULE_0", rule, errors.New("rewriting rules are not followed"))
	}
}

// ownRoute is the first rule of LOCAL_RULE_0, or of a FEATURE that routes (LDAP), that
// chooses a mailer, itself or by another ruleset: m4 puts them into ruleset 98,
// ParseLocal. "" without.
func ownRoute(cf string) string {
	within := false
	for line := range logicalLines(cf) {
		switch {
		case strings.HasPrefix(line, "SParseLocal"):
			within = true
		case strings.HasPrefix(line, "S"):
			within = false
		case within && strings.HasPrefix(line, "R") && ownRule.MatchString(line) && !strings.Contains(line, "$#error") && !strings.Contains(line, "$#discard"):
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}

// routes follows the end of ruleset 0 in proto.m4: mailertable, then the smart host,
// else the recipient's own servers.
func (s *sending) routes(ctx context.Context, cf string) {
	entries, m, err := s.instance.mapEntries(ctx, "mailertable")
	if err != nil {
		s.miss("mailertable", m.Class+":"+m.file(), err)
	}
	all := false
	for _, e := range entries {
		mailer, host, found := strings.Cut(e.value, ":")
		if strings.HasPrefix(e.value, "[") || !found {
			continue // Sendmail takes no notice of a host without a mailer
		}
		key := strings.ToLower(e.key)
		if key == "." {
			key, all = "", true
		}
		if !s.isInside(key) {
			s.add(strings.TrimSpace(mailer), "mailertable", key, strings.TrimSpace(host))
		}
	}
	if luser := s.settings.Macro("L"); luser != "" {
		if mailer, host, found := strings.Cut(luser, ":"); found {
			s.add(mailer, "LUSER_RELAY", "users unknown here", host)
		}
	}
	if all {
		return
	}
	if smart := s.settings.Macro("S"); smart != "" {
		mailer, host, found := strings.Cut(smart, ":")
		if !found || strings.HasPrefix(smart, "[") {
			mailer, host = "relay", smart
		}
		s.add(mailer, "SMART_HOST", "", host)
		return
	}
	s.add(directMailer(cf), "MAILER(`smtp')", "", "")
}

// directMailer is the mailer that goes to the recipients' own servers.
func directMailer(cf string) string {
	for line := range strings.Lines(cf) {
		if m := directRule.FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	return "esmtp"
}

// isInside reports whether a domain or ".domain" is ours: mail to the inside says
// nothing of the way out.
func (s *sending) isInside(key string) bool {
	_, found := slices.BinarySearch(s.inside, strings.TrimPrefix(key, "."))
	return found && key != ""
}

// add adds a way over a mailer, if that is an SMTP client. "user@host" and "%1" of
// what comes from a table are taken as they are.
func (s *sending) add(mailer, setting, key, host string) {
	m, known := s.settings.Mailer(mailer)
	switch {
	case slices.Contains([]string{"error", "discard", "local", "prog"}, strings.ToLower(mailer)):
		return // nothing leaves
	case !known:
		s.miss(setting, mailer, errors.New("there is no such mailer"))
		return
	case !strings.EqualFold(m.Path, "[IPC]"):
		s.miss(setting, mailer, fmt.Errorf("%s is no SMTP client: from where it sends is not known", m.Path))
		return
	case strings.HasPrefix(m.Args, "FILE"): // LMTP on this machine
		return
	}
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	host = nextHop(m, host)
	last, hops := -1, 0
	for n := range s.out.Ways {
		w := &s.out.Ways[n]
		if w.Service != m.Name || w.Setting != setting {
			continue
		}
		if w.NextHop == host {
			if key == "" {
				w.Key = ""
			}
			return
		}
		if w.Key != "" {
			last = n
			hops++
		}
	}
	if hops >= maxNextHops && key != "" {
		s.out.Ways[last].More++
		return
	}
	w := s.way
	w.Service, w.Setting, w.Key, w.NextHop = m.Name, setting, key, host
	s.out.Ways = append(s.out.Ways, w)
}

// nextHop adds the port that the mailer is told, "TCP $h 2525", and its fixed host.
func nextHop(m Mailer, host string) string {
	args := strings.Fields(m.Args)
	if len(args) > 1 && args[1] != "$h" {
		host = args[1]
	}
	if len(args) > 2 && host != "" {
		return host + ":" + args[2]
	}
	return host
}

// others adds every SMTP client that nothing else named.
func (s *sending) others() {
	for _, m := range s.settings.Mailers() {
		if strings.EqualFold(m.Path, "[IPC]") && strings.HasPrefix(m.Args, "TCP") && m.Name != stopMailer &&
			!slices.ContainsFunc(s.out.Ways, func(w mta.Way) bool { return w.Service == m.Name }) {
			s.add(m.Name, "", "", "")
		}
	}
}
