package postfix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Sending is how mail leaves an instance for other servers: by which SMTP clients,
// to which relay hosts, from which addresses, under which names.
type Sending struct {
	Hostname string       // myhostname
	Ways     []Way        // by setting, service and next hop, each once
	Proxies  []netip.Addr // proxy_interfaces: addresses outside that a NAT or proxy leads here

	// Stopped: the red switch is pulled. What routed mail before is not to be seen
	// then; every SMTP client of master.cf is among the Ways.
	Stopped bool

	// Unread is what could not be looked into, and what is no SMTP client: mail may
	// leave in other ways. The SMTP clients that nothing else names are among the
	// Ways then.
	Unread []Unread
}

// Way is one SMTP client with one next hop.
type Way struct {
	Service string // of master.cf: "smtp"
	Setting string // what leads there: "default_transport", "relayhost", "transport_maps"; "": nothing that could be read
	Key     string // of a table, the first of several: "example.net"; "" if it is for all mail
	NextHop string // "[relay.example.net]:587"; "": the recipient's own servers
	More    int    // further next hops of that table and service, which are left out

	Bind4, Bind6 Bind
	Enforced     bool // smtp_bind_address_enforce: from another address nothing is sent
	IP4, IP6     bool // inet_protocols
	Prefer       string
	Fallback     string // smtp_fallback_relay, where others than NextHop may see us
	Helo         string
}

// Bind is the source address of a Way's connections. The zero value: the kernel chooses.
type Bind struct {
	Addr    netip.Addr
	Setting string // "smtp_bind_address", "inet_interfaces"
}

// Every reports whether all mail goes this way that no other setting sends elsewhere.
func (w Way) Every() bool { return w.Key == "" && w.Setting != "relay_transport" && w.Setting != "" }

// maxNextHops bounds what a large table can make of one service: from where it sends is
// the same for all of them.
const maxNextHops = 16

// sendingParameters are read for main.cf, and again for each SMTP client with
// overrides: what is derived from an override follows. What an older Postfix does not
// know is empty.
var sendingParameters = []string{
	"default_transport", "relay_transport", "relayhost", "transport_maps",
	"sender_dependent_default_transport_maps", "sender_dependent_relayhost_maps",
	"content_filter", "relay_domains", "myhostname", "proxy_interfaces", "inet_interfaces", "inet_protocols",
	"smtp_bind_address", "smtp_bind_address6", "smtp_bind_address_enforce", "smtp_address_preference", "smtp_helo_name", "smtp_fallback_relay",
	"lmtp_bind_address", "lmtp_bind_address6", "lmtp_bind_address_enforce", "lmtp_address_preference", "lmtp_lhlo_name", "lmtp_fallback_relay",
}

// Sending looks how mail leaves. It asks postconf, and postmap for tables that can be
// listed; names in inet_interfaces and proxy_interfaces it looks up as Postfix does.
//
// Traps: FILTER in an access table and the like is not seen. That an address is bound
// does not say that the machine has it (see Way.Enforced), nor that nobody rewrites it
// on the way out.
func (i *Instance) Sending(ctx context.Context) (Sending, error) {
	s := sending{instance: i, clients: map[string]client{}, named: map[string][]netip.Addr{}}
	var err error
	if s.main, err = i.settingsOf(ctx, nil); err != nil {
		return Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
	}
	if s.inside, _, err = i.InsideDomains(ctx); err != nil {
		return Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
	}
	if err := s.readClients(ctx); err != nil {
		return Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
	}
	s.out.Hostname = s.main["myhostname"]
	s.out.Stopped = strings.Contains(s.main["default_transport"], StopText)
	s.out.Proxies = s.addresses(ctx, "proxy_interfaces", s.main["proxy_interfaces"])
	s.routes(ctx)
	if s.out.Stopped || len(s.out.Unread) > 0 {
		s.others()
	}
	if err := ctx.Err(); err != nil {
		return Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
	}
	s.sort()
	return s.out, nil
}

// settingsOf is what is in force, in main.cf or with overrides of a service.
func (i *Instance) settingsOf(ctx context.Context, overrides map[string]string) (map[string]string, error) {
	args := i.tools.inDir(i.ConfigDir, "-x")
	for _, name := range sortedKeys(overrides) {
		args = append(args, "-o", name+"="+overrides[name])
	}
	s, err := i.tools.run(ctx, nil, maxToolOutput, "postconf", append(args, sendingParameters...)...)
	if err != nil {
		return nil, err
	}
	return parseSettings(string(s.stdout))
}

// sending is one look.
type sending struct {
	instance *Instance
	main     map[string]string
	inside   []string                // our domains, sorted
	clients  map[string]client       // SMTP clients by their service name
	named    map[string][]netip.Addr // what names of settings stand for
	out      Sending
}

// client is one service that runs smtp(8), or lmtp(8).
type client struct {
	way  Way // without a route
	lmtp bool
}

func (s *sending) readClients(ctx context.Context) error {
	for n := range s.instance.Services {
		service := &s.instance.Services[n]
		if service.Command != "smtp" && service.Command != "lmtp" || service.Type != "unix" {
			continue
		}
		settings := s.main
		if len(service.Overrides) > 0 {
			var err error
			if settings, err = s.instance.settingsOf(ctx, service.Overrides); err != nil {
				return fmt.Errorf("service %s: %w", service.ID(), err)
			}
		}
		s.clients[service.Name] = s.client(ctx, service, settings)
	}
	return nil
}

func (s *sending) miss(setting, item string, err error) {
	u := Unread{setting, item, err}
	if !slices.ContainsFunc(s.out.Unread, func(known Unread) bool { return known.Error() == u.Error() }) {
		s.out.Unread = append(s.out.Unread, u)
	}
}

// add adds a way over a service, if that is an SMTP client.
func (s *sending) add(service, setting, key, nextHop string) {
	c, is := s.clients[service]
	if !is {
		s.notSMTP(service, setting)
		return
	}
	if strings.HasPrefix(nextHop, "unix:") { // LMTP on this machine
		return
	}
	nextHop = strings.TrimPrefix(nextHop, "inet:")
	if c.lmtp && nextHop == "" { // it has no servers of a recipient to go to
		return
	}
	last, hops := -1, 0
	for n := range s.out.Ways {
		w := &s.out.Ways[n]
		if w.Service != service || w.Setting != setting {
			continue
		}
		if w.NextHop == nextHop {
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
	if hops >= maxNextHops && key != "" && nextHop != "" {
		s.out.Ways[last].More++
		return
	}
	w := c.way
	w.Setting, w.Key, w.NextHop = setting, key, nextHop
	s.out.Ways = append(s.out.Ways, w)
}

// notSMTP tells of a transport that may send in its own way.
func (s *sending) notSMTP(name, setting string) {
	service := s.instance.Service(name, "unix")
	switch {
	case service == nil:
		s.miss(setting, name, fmt.Errorf("master.cf has no such service"))
	case slices.Contains([]string{"error", "discard", "local", "virtual"}, service.Command): // nothing leaves
	default:
		s.miss(setting, name, fmt.Errorf("%s(8) is no SMTP client: from where it sends is not known", service.Command))
	}
}

// others adds every SMTP client that nothing else named.
func (s *sending) others() {
	for _, name := range sortedKeys(s.clients) {
		if !s.clients[name].lmtp && !slices.ContainsFunc(s.out.Ways, func(w Way) bool { return w.Service == name }) {
			hop := ""
			if s.out.Stopped {
				hop = s.main["relayhost"]
			}
			s.add(name, "", "", hop)
		}
	}
}

func (s *sending) sort() {
	slices.SortStableFunc(s.out.Ways, func(a, b Way) int {
		if c := strings.Compare(a.Setting, b.Setting); c != 0 {
			return c
		}
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		return strings.Compare(a.NextHop, b.NextHop)
	})
}
