package blocklists_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/blocklists"
	"relayguard/cmd/internal/config"
	"relayguard/mta"
	"relayguard/rbl"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

// host is a machine of a test.
type host struct {
	source4, source6 string
	also             []string
	name             string
}

func (h host) Source(ip6 bool) netip.Addr {
	text := h.source4
	if ip6 {
		text = h.source6
	}
	addr, _ := netip.ParseAddr(text)
	return addr
}

func (h host) Has(addr netip.Addr) bool {
	return slices.Contains(append(h.also, h.source4, h.source6), addr.String())
}

func (h host) Addrs() (all []netip.Addr) {
	for _, text := range append(h.also, h.source4, h.source6) {
		if addr, err := netip.ParseAddr(text); err == nil {
			all = append(all, addr)
		}
	}
	return all
}

var today = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func (host) Now() time.Time { return today }

func (h host) Hostname() string { return h.name }

func bind(text string) mta.Bind {
	return mta.Bind{Addr: netip.MustParseAddr(text), Setting: "smtp_bind_address"}
}

func TestFindAddresses(t *testing.T) {
	direct := mta.Way{Service: "smtp", Setting: "default_transport", IP4: true, IP6: true, Helo: "mail.example.jp"}
	way := func(change func(w *mta.Way)) mta.Way {
		w := direct
		change(&w)
		return w
	}
	relayed := way(func(w *mta.Way) { w.Setting, w.NextHop = "relayhost", "[mx.provider.example]:587" })
	via := func(setting, key, hop string) mta.Way {
		return way(func(w *mta.Way) {
			w.Setting, w.Key, w.NextHop, w.Service, w.Bind4 = setting, key, hop, "out2", bind("203.0.113.2")
		})
	}
	public := host{source4: "203.0.113.5", source6: "2001:db8::5", also: []string{"203.0.113.2"}, name: "host.example.jp"}
	private := host{source4: "192.168.1.5", name: "host"}
	ways := func(all ...mta.Way) *mta.Sending {
		return &mta.Sending{Hostname: "mail.example.jp", Ways: all}
	}
	learnt := []history.Learnt{{Addr: "198.51.100.9", Where: "Received by mx.example.net"}, {Addr: "nonsense"}, {Addr: "10.1.1.1"}}
	aged := func(days int) []history.Learnt {
		return []history.Learnt{{Addr: "198.51.100.9", Where: "Received by mx.example.net", At: today.AddDate(0, 0, -days)}}
	}
	const route4, route6 = "203.0.113.5 source address of the default route", "2001:db8::5 source address of the default route; lists may name its 2001:db8::/64"
	for name, c := range map[string]struct {
		host    host
		sending *mta.Sending
		learnt  []history.Learnt
		given   []string
		want    []string // address and how
		trouble string   // part; "": none
	}{
		"the kernel's":                       {host: public, sending: ways(direct), want: []string{route4, route6}},
		"no MTA known":                       {host: public, want: []string{route4, route6}},
		"no MTA known, NAT":                  {host: private, learnt: learnt, want: []string{"198.51.100.9 learnt: Received by mx.example.net"}},
		"IPv4 only":                          {host: public, sending: ways(way(func(w *mta.Way) { w.IP6 = false })), want: []string{route4}},
		"no route":                           {host: host{}, sending: ways(direct), trouble: "no address is known"},
		"bound":                              {host: public, sending: ways(way(func(w *mta.Way) { w.Bind4 = bind("203.0.113.2") })), want: []string{"203.0.113.2 smtp_bind_address of smtp", route6}},
		"bound by one of several":            {host: public, sending: ways(direct, via("sender_dependent_default_transport_maps", "@a.example", "")), want: []string{route4, route6, "203.0.113.2 smtp_bind_address of out2"}},
		"bound to what it does not have":     {host: public, sending: ways(way(func(w *mta.Way) { w.Bind4, w.IP6 = bind("203.0.113.77"), false })), want: []string{route4}, trouble: "sends from another one"},
		"bound, enforced, and not had":       {host: public, sending: ways(way(func(w *mta.Way) { w.Bind4, w.IP6, w.Enforced = bind("203.0.113.77"), false, true })), trouble: "nothing is sent"},
		"bound to loopback":                  {host: public, sending: ways(way(func(w *mta.Way) { w.Bind4, w.IP6 = bind("127.0.0.2"), false })), trouble: "no address is known"},
		"relay host":                         {host: public, sending: ways(relayed), learnt: learnt, trouble: "through a relay host, [mx.provider.example]:587 (relayhost): receivers see its address"},
		"relay host that is told":            {host: public, sending: ways(relayed), given: []string{"198.51.100.7"}, want: []string{"198.51.100.7 rbl.addresses"}},
		"relay host of some senders":         {host: public, sending: ways(direct, via("sender_dependent_relayhost_maps", "@a.example", "[r.example]")), want: []string{route4, route6}, trouble: "[r.example] (sender_dependent_relayhost_maps)"},
		"relay host in the own network":      {host: public, sending: ways(via("relayhost", "", "[10.0.0.9]")), trouble: "relay host, [10.0.0.9]"},
		"relay host on this machine":         {host: public, sending: ways(via("relayhost", "", "[127.0.0.1]:10025")), want: []string{"203.0.113.2 smtp_bind_address of out2", route6}},
		"relay host that is this machine":    {host: public, sending: ways(via("relayhost", "", "mail.example.jp:26")), want: []string{"203.0.113.2 smtp_bind_address of out2", route6}},
		"relay host by IPv6 of this machine": {host: public, sending: ways(via("relayhost", "", "[IPv6:2001:db8::5]:26")), want: []string{"203.0.113.2 smtp_bind_address of out2", route6}},
		"a partner's own server":             {host: public, sending: ways(relayed, via("transport_maps", "partner.example", "[mx.partner.example]")), learnt: learnt, want: []string{"203.0.113.2 smtp_bind_address of out2", route6, "198.51.100.9 learnt: Received by mx.example.net"}, trouble: "mx.provider.example"},
		"a server of ours":                   {host: public, sending: ways(relayed, via("transport_maps", "lists.example.jp", "[10.0.0.3]:24")), trouble: "through a relay host, [mx.provider.example]:587 (relayhost):"},
		"a pattern's next hop":               {host: public, sending: ways(direct, via("transport_maps", "/@.*$/", "[r.example]")), want: []string{route4, route6}, trouble: "[r.example] (transport_maps)"},
		"a table for all":                    {host: public, sending: ways(via("transport_maps", "", "[r.example]")), trouble: "[r.example] (transport_maps)"},
		"our domains elsewhere":              {host: public, sending: ways(direct, via("relay_transport", "", "[10.0.0.9]")), want: []string{route4, route6}},
		"a fallback":                         {host: public, sending: ways(way(func(w *mta.Way) { w.Fallback = "[back.example]" })), want: []string{route4, route6}, trouble: "smtp_fallback_relay [back.example]"},
		"NAT":                                {host: private, sending: ways(direct), trouble: "192.168.1.5, behind NAT"},
		"a provider's NAT":                   {host: host{source4: "100.72.1.1"}, sending: ways(direct), trouble: "100.72.1.1, behind NAT"},
		"NAT that is told to Postfix":        {host: private, sending: &mta.Sending{Hostname: "m.example.jp", Ways: []mta.Way{direct}, Proxies: []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.0.0.1")}}, want: []string{"198.51.100.1 proxy_interfaces"}},
		"NAT that was learnt":                {host: private, sending: ways(direct), learnt: learnt, want: []string{"198.51.100.9 learnt: Received by mx.example.net"}},
		"NAT that was learnt of IPv6":        {host: private, sending: ways(direct), learnt: []history.Learnt{{Addr: "2001:db8::9", Where: "x"}}, want: []string{"2001:db8::9 learnt: x; lists may name its 2001:db8::/64"}, trouble: "192.168.1.5, behind NAT"},
		"NAT that is told":                   {host: private, sending: ways(direct), given: []string{"198.51.100.1"}, want: []string{"198.51.100.1 rbl.addresses"}},
		"unique local IPv6":                  {host: host{source4: "203.0.113.5", source6: "fd00::5"}, sending: ways(direct), want: []string{route4}, trouble: "fd00::5, which no receiver can see"},
		"link-local IPv6":                    {host: host{source4: "203.0.113.5", source6: "fe80::5"}, sending: ways(direct), want: []string{route4}},
		"learnt beside the kernel's":         {host: public, sending: ways(direct), learnt: append(learnt, history.Learnt{Addr: "203.0.113.5", Where: "y"}), want: []string{route4, route6, "198.51.100.9 learnt: Received by mx.example.net"}},
		"learnt half a year ago":             {host: private, sending: ways(direct), learnt: aged(180), want: []string{"198.51.100.9 learnt: Received by mx.example.net"}},
		"learnt more than half a year ago":   {host: private, sending: ways(direct), learnt: aged(181), want: []string{"198.51.100.9 learnt: Received by mx.example.net"}, trouble: "that mail leaves from 198.51.100.9 was learnt on 2025-09-02, more than 180 days ago"},
		"learnt long ago, and known anyhow":  {host: host{source4: "198.51.100.9"}, sending: ways(direct), learnt: aged(999), want: []string{"198.51.100.9 source address of the default route"}},
		"learnt long ago, and given":         {host: private, sending: ways(direct), learnt: aged(999), given: []string{"198.51.100.9"}, want: []string{"198.51.100.9 rbl.addresses"}},
		"no IPv6 route now":                  {host: host{source4: "203.0.113.5", also: []string{"fe80::5", "2001:db8::5"}}, sending: ways(direct), want: []string{route4}, trouble: "this machine has 2001:db8::5, but no route leads out by ipv6 now"},
		"no IPv4 route now":                  {host: host{source6: "2001:db8::5", also: []string{"127.0.0.1", "203.0.113.5"}}, sending: ways(direct), want: []string{route6}, trouble: "this machine has 203.0.113.5, but no route leads out by ipv4 now"},
		"no IPv6 route now, no MTA known":    {host: host{source4: "203.0.113.5", also: []string{"2001:db8::5"}}, want: []string{route4}, trouble: "no route leads out by ipv6 now"},
		"no IPv6 route, not sent by":         {host: host{source4: "203.0.113.5", also: []string{"2001:db8::5"}}, sending: ways(way(func(w *mta.Way) { w.IP6 = false })), want: []string{route4}},
		"IPv4 alone":                         {host: host{source4: "203.0.113.5", also: []string{"127.0.0.1", "::1", "fe80::5", "fd00::1"}}, sending: ways(direct), want: []string{route4}},
		"IPv6 alone, and containers":         {host: host{source6: "2001:db8::5", also: []string{"127.0.0.1", "172.17.0.1"}}, sending: ways(direct), want: []string{route6}},
		"NAT without a route now":            {host: host{source6: "2001:db8::5", also: []string{"192.168.1.5"}}, sending: &mta.Sending{Ways: []mta.Way{direct}, Proxies: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}, want: []string{route6}, trouble: "this machine has 192.168.1.5, but no route leads out by ipv4 now"},
		"reserved by the kernel":             {host: host{source4: "198.18.0.1"}, sending: ways(direct), trouble: "198.18.0.1, behind NAT"},
		"given ones win":                     {host: public, sending: ways(direct), learnt: learnt, given: []string{"203.0.113.8", "2001:db8:1::8"}, want: []string{"203.0.113.8 rbl.addresses", "2001:db8:1::8 rbl.addresses; lists may name its 2001:db8:1::/64"}},
		"tables that could not be read":      {host: public, sending: &mta.Sending{Ways: []mta.Way{direct}, Unread: []mta.Unread{{Setting: "transport_maps", Item: "mysql:/x", Err: errors.New("cannot be listed")}}}, want: []string{route4, route6}, trouble: "transport_maps: mysql:/x: cannot be listed"},
	} {
		t.Run(name, func(t *testing.T) {
			got := blocklists.Find(t.Context(), &config.Config{RBL: config.RBL{Addresses: c.given}}, c.sending, c.learnt, nil, c.host)
			var addresses []string
			for _, a := range got.Addresses {
				addresses = append(addresses, a.Addr.String()+" "+a.How)
			}
			if !slices.Equal(addresses, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(addresses, "\n"), strings.Join(c.want, "\n"))
			}
			if told := strings.Join(got.Trouble, "\n"); !strings.Contains(told, c.trouble) || (told == "") != (c.trouble == "") {
				t.Errorf("trouble: got %q, want %q", told, c.trouble)
			}
		})
	}
}

func TestFindNames(t *testing.T) {
	s := &mta.Sending{Hostname: "Web1.example.jp", Ways: []mta.Way{
		{Service: "smtp", Setting: "default_transport", IP4: true, Helo: "mail.example.jp."},
		{Service: "out2", Setting: "transport_maps", Key: "a.example", IP4: true, Helo: "two.example.jp", Bind4: bind("203.0.113.2")},
		{Service: "odd", Setting: "transport_maps", Key: "b.example", IP4: true, Helo: "[203.0.113.2]"},
	}}
	h := host{source4: "203.0.113.5", also: []string{"203.0.113.2"}, name: "unused.example.net"}
	inside := []string{"z.example.net", "例え.jp", "localhost", "localhost.localdomain", ".wild.example.net", "web1.local", "corp.test", "a.example", "co.jp", "github.io", "1.2.3.4", "example.jp", "a b.example.net", "x.in-addr.arpa", "B.example.com."}
	got := blocklists.Find(t.Context(), &config.Config{RBL: config.RBL{Domains: []string{"shop.example.org", "z.example.net", "shop.corp"}}}, s, nil, inside, h)
	if want := []string{"shop.example.org", "z.example.net", "b.example.com", "example.jp", "github.io", "xn--r8jz45g.jp"}; !slices.Equal(got.Domains, want) {
		t.Errorf("domains: got %q, want %q", got.Domains, want)
	}
	if want := []string{`rbl.domains: "shop.corp" is not asked about: it is no domain that others can know`}; !slices.Equal(got.Trouble, want) {
		t.Errorf("trouble: got %q, want %q", got.Trouble, want)
	}
	if want := []string{"mail.example.jp", "two.example.jp", "web1.example.jp"}; !slices.Equal(got.Helos, want) {
		t.Errorf("names: got %q, want %q", got.Helos, want)
	}
	helos := map[string]string{}
	for _, a := range got.Addresses {
		helos[a.Addr.String()] += a.Helo + " "
	}
	if helos["203.0.113.2"] != "two.example.jp " || helos["203.0.113.5"] != "mail.example.jp. [203.0.113.2] " {
		t.Errorf("got %q", helos)
	}
	given := blocklists.Find(t.Context(), &config.Config{RBL: config.RBL{Addresses: []string{"203.0.113.2", "198.51.100.1"}}}, s, nil, nil, h)
	if given.Addresses[0].Helo != "two.example.jp" || given.Addresses[1].Helo != "mail.example.jp." {
		t.Errorf("got %+v", given.Addresses)
	}
	unknown := blocklists.Find(t.Context(), &config.Config{}, nil, nil, nil, h)
	if want := []string{"unused.example.net"}; !slices.Equal(unknown.Helos, want) || unknown.Addresses[0].Helo != "unused.example.net" {
		t.Errorf("without an MTA: got %+v", unknown)
	}
	var subjects []string
	for _, s := range got.Subjects() {
		subjects = append(subjects, s.String())
	}
	if want := "203.0.113.5 203.0.113.2 shop.example.org z.example.net b.example.com example.jp github.io xn--r8jz45g.jp mail.example.jp two.example.jp web1.example.jp example.org example.net example.com"; strings.Join(subjects, " ") != want {
		t.Errorf("subjects: got %q", subjects)
	}
	if want := (sender.Sending{Addr: netip.MustParseAddr("203.0.113.2"), Helo: "two.example.jp"}); !slices.Contains(got.Sending(), want) {
		t.Errorf("sending: got %+v", got.Sending())
	}
}

// What is said of a provider's domain is not said of its customers.
func TestAboutTakesNoProvidersDomainForOurs(t *testing.T) {
	addr := blocklists.Address{Addr: netip.MustParseAddr("203.0.113.5"), How: "rbl.addresses", Helo: "sv1234.xserver.jp"}
	const address, host = "203.0.113.5: rbl.addresses", "sv1234.xserver.jp: HELO name"
	for name, c := range map[string]struct{ domains, helos, want []string }{
		"a HELO name alone":             {nil, []string{"sv1234.xserver.jp"}, []string{address, host}},
		"a HELO name and other mail":    {[]string{"example.jp"}, []string{"sv1234.xserver.jp"}, []string{address, "example.jp: sending domain", host}},
		"mydestination has the host":    {[]string{"example.jp", "localhost.xserver.jp", "sv1234.xserver.jp"}, []string{"sv1234.xserver.jp"}, []string{address, "example.jp: sending domain", "localhost.xserver.jp: sending domain", "sv1234.xserver.jp: sending domain"}},
		"the provider itself":           {[]string{"xserver.jp"}, []string{"sv1234.xserver.jp"}, []string{address, "xserver.jp: sending domain", host}},
		"a sending domain beside":       {[]string{"news.example.jp"}, []string{"mail.example.jp"}, []string{address, "news.example.jp: sending domain", "mail.example.jp: HELO name", "example.jp: registered domain of news.example.jp"}},
		"two below one":                 {[]string{"a.example.co.jp", "b.example.co.jp"}, nil, []string{address, "a.example.co.jp: sending domain", "b.example.co.jp: sending domain", "example.co.jp: registered domain of a.example.co.jp"}},
		"a HELO name that nobody knows": {nil, []string{"mx.corp.test"}, []string{address}},
	} {
		targets := blocklists.Targets{Addresses: []blocklists.Address{addr, {Addr: addr.Addr, How: "twice"}}, Domains: c.domains, Helos: c.helos}
		var got []string
		for n, a := range targets.About() {
			got = append(got, a.Subject.String()+": "+a.How)
			if targets.Subjects()[n] != a.Subject {
				t.Errorf("%s: subjects are others: %v", name, targets.Subjects())
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestFindIsBounded(t *testing.T) {
	var inside []string
	s := &mta.Sending{}
	h := host{}
	for n := range 250 {
		inside = append(inside, fmt.Sprintf("d%03d.example.jp", n))
		addr := fmt.Sprintf("203.0.113.%d", n)
		h.also = append(h.also, addr)
		s.Ways = append(s.Ways, mta.Way{Service: "smtp", Setting: "default_transport", IP4: true, Helo: fmt.Sprintf("h%d.example.jp", n), Bind4: bind(addr)})
	}
	got := blocklists.Find(t.Context(), &config.Config{}, s, nil, inside, h)
	if len(got.Domains) != 100 || got.Left != 150 || len(got.Addresses) != 64 || len(got.Helos) != 32 || len(got.Trouble) != 1 {
		t.Errorf("got %d domains, %d left, %d addresses, %d names, %q", len(got.Domains), got.Left, len(got.Addresses), len(got.Helos), got.Trouble)
	}
}

func TestPrefixesAreOfIPv4(t *testing.T) {
	var targets blocklists.Targets
	for _, text := range []string{"203.0.113.5", "2001:db8::5", "203.0.113.9", "198.51.100.1"} {
		targets.Addresses = append(targets.Addresses, blocklists.Address{Addr: netip.MustParseAddr(text)})
	}
	if got := fmt.Sprint(blocklists.Prefixes(targets)); got != "[203.0.113.5/24 198.51.100.1/24]" {
		t.Errorf("got %s", got)
	}
	if got := targets.Subjects(); len(got) != 4 || got[1] != (rbl.Subject{Addr: netip.MustParseAddr("2001:db8::5")}) {
		t.Errorf("got %v", got)
	}
}

// Whatever this machine is like: what it says of itself hangs together.
func TestMachine(t *testing.T) {
	m := blocklists.Machine()
	for _, ip6 := range []bool{false, true} {
		if addr := m.Source(ip6); addr.IsValid() && (addr.Is6() != ip6 || !m.Has(addr)) {
			t.Errorf("source %v", addr)
		}
	}
	if !slices.Contains(m.Addrs(), netip.MustParseAddr("127.0.0.1")) || m.Now().Before(today) {
		t.Errorf("addresses %v at %v", m.Addrs(), m.Now())
	}
	if !m.Has(netip.MustParseAddr("127.0.0.1")) || m.Has(netip.MustParseAddr("192.0.2.251")) {
		t.Error("it has 127.0.0.1, and not that of others")
	}
}
