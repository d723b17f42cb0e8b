package postfix

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"relayguard/mta"
)

// networks lists an address list such as mynetworks: 127.0.0.0/8, [::1]/128,
// 192.0.2.1, files and tables of those. The error names what is no address.
func (i *Instance) networks(ctx context.Context, setting, value string) ([]netip.Prefix, []mta.Unread) {
	l := lister{ctx: ctx, instance: i, setting: setting}
	l.add(value, 0)
	var prefixes []netip.Prefix
	for _, item := range l.items {
		p, err := parseNetwork(item)
		if err != nil {
			l.miss(item, err)
			continue
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, l.unread
}

func parseNetwork(item string) (netip.Prefix, error) {
	text := strings.NewReplacer("[", "", "]", "").Replace(item)
	if !strings.Contains(text, "/") {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("not an address")
		}
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("not a network")
	}
	return p.Masked(), nil
}
