package postfix

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
)

// client reads from where, and under which name, a service connects.
func (s *sending) client(ctx context.Context, service *Service, settings map[string]string) client {
	prefix, helo := "smtp_", "smtp_helo_name"
	lmtp := service.Command == "lmtp"
	if lmtp {
		prefix, helo = "lmtp_", "lmtp_lhlo_name"
	}
	c := client{lmtp: lmtp, way: mta.Way{
		Service:  service.Name,
		Enforced: settings[prefix+"bind_address_enforce"] == "yes",
		Prefer:   settings[prefix+"address_preference"],
		Fallback: settings[prefix+"fallback_relay"],
		Helo:     settings[helo],
	}}
	c.way.IP4, c.way.IP6 = protocols(settings["inet_protocols"])
	own := func() []netip.Addr { return s.addresses(ctx, "inet_interfaces", settings["inet_interfaces"]) }
	if c.way.IP4 {
		c.way.Bind4 = s.bind(service, prefix+"bind_address", settings, own, netip.Addr.Is4)
	}
	if c.way.IP6 {
		c.way.Bind6 = s.bind(service, prefix+"bind_address6", settings, own, netip.Addr.Is6)
	}
	return c
}

// bind does as smtp_connect.c: the address that is set; else the only one of that
// family in inet_interfaces, if it is no loopback address.
func (s *sending) bind(service *Service, setting string, settings map[string]string, own func() []netip.Addr, family func(netip.Addr) bool) mta.Bind {
	if text := settings[setting]; text != "" {
		addr, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(text, "[]"), "IPv6:"))
		switch {
		case err != nil || !family(addr.Unmap()):
			s.miss(service.ID()+" "+setting, text, fmt.Errorf("not an address of that protocol: Postfix does not send with it"))
			return mta.Bind{}
		case addr.IsUnspecified():
			return mta.Bind{}
		}
		return mta.Bind{Addr: addr.Unmap().WithZone(""), Setting: setting}
	}
	var all []netip.Addr
	for _, addr := range own() {
		if family(addr) && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	if len(all) == 1 && !all[0].IsLoopback() {
		return mta.Bind{Addr: all[0], Setting: "inet_interfaces"}
	}
	return mta.Bind{}
}

// protocols reads inet_protocols.
func protocols(value string) (ip4, ip6 bool) {
	items := strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	all := len(items) == 0 || slices.Contains(items, "all")
	return all || slices.Contains(items, "ipv4"), all || slices.Contains(items, "ipv6")
}

// nameWait bounds the look-up of one name of a setting.
const nameWait = 5 * time.Second

// addresses reads inet_interfaces or proxy_interfaces: addresses and host names. The
// words "all" and "loopback-only" stand for no address that is bound.
func (s *sending) addresses(ctx context.Context, setting, value string) []netip.Addr {
	items, err := splitList(value)
	if err != nil {
		s.miss(setting, value, err)
		return nil
	}
	var all []netip.Addr
	for _, item := range items {
		switch strings.ToLower(item) {
		case "all", "loopback-only":
			continue
		}
		if addr, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(item, "[]"), "IPv6:")); err == nil {
			all = append(all, addr.Unmap().WithZone(""))
			continue
		}
		found, known := s.named[item]
		if !known {
			var err error
			if found, err = lookUp(ctx, item); err != nil {
				s.miss(setting, item, err)
			}
			s.named[item] = found
		}
		all = append(all, found...)
	}
	return all
}

// lookUp asks as Postfix does: /etc/hosts, then DNS.
func lookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	const most = 64
	if len(name) > 255 || strings.ContainsAny(name, "/: ") {
		return nil, fmt.Errorf("not a host name")
	}
	ctx, cancel := context.WithTimeout(ctx, nameWait)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, fmt.Errorf("look up its addresses: %w", err)
	}
	var all []netip.Addr
	for _, addr := range found[:min(len(found), most)] {
		all = append(all, addr.Unmap().WithZone(""))
	}
	return all, nil
}
