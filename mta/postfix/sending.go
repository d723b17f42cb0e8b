package postfix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"relayguard/mta"
)

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
func (i *Instance) Sending(ctx context.Context) (mta.Sending, error) {
	s := sending{instance: i, clients: map[string]client{}, named: map[string][]netip.Addr{}}
	var err error
	if s.main, err = i.settingsOf(ctx, nil); err != nil {
		return mta.Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
	}
	if s.inside, _, err = i.InsideDomains(ctx); err != nil {
		return mta.Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
	}
	if err := s.readClients(ctx); err != nil {
		return mta.Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
	}
	s.out.Hostname = s.main["myhostname"]
	s.out.Stopped = strings.Contains(s.main["default_transport"], mta.StopText)
	s.out.Proxies = s.addresses(ctx, "proxy_interfaces", s.main["proxy_interfaces"])
	s.routes(ctx)
	if s.out.Stopped || len(s.out.Unread) > 0 {
		s.others()
	}
	if err := ctx.Err(); err != nil {
		return mta.Sending{}, fmt.Errorf("look how mail leaves %s: %w", i.ConfigDir, err)
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
	out      mta.Sending
}

// client is one service that runs smtp(8), or lmtp(8).
type client struct {
	way  mta.Way // without a route
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
	u := mta.Unread{Setting: setting, Item: item, Err: err}
	if !slices.ContainsFunc(s.out.Unread, func(known mta.Unread) bool { return known.Error() == u.Error() }) {
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
		if !s.clients[name].lmtp && !slices.ContainsFunc(s.out.Ways, func(w mta.Way) bool { return w.Service == name }) {
			hop := ""
			if s.out.Stopped {
				hop = s.main["relayhost"]
			}
			s.add(name, "", "", hop)
		}
	}
}

func (s *sending) sort() {
	slices.SortStableFunc(s.out.Ways, func(a, b mta.Way) int {
		if c := strings.Compare(a.Setting, b.Setting); c != 0 {
			return c
		}
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		return strings.Compare(a.NextHop, b.NextHop)
	})
}
