package resolve_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/rbl/resolve"
)

// machine is a tree with these files.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSystem(t *testing.T) {
	const stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  []string // address, source's last part, "own", whose
	}{
		"no file":      {nil, []string{"127.0.0.1:53 resolv.conf own"}},
		"no server":    {map[string]string{"/etc/resolv.conf": "search example\n"}, []string{"127.0.0.1:53 resolv.conf own"}},
		"the provider": {map[string]string{"/etc/resolv.conf": "# mine\n;x\nnameserver 203.0.113.53\nnameserver\t2001:db8::53 # two\n"}, []string{"203.0.113.53:53 resolv.conf", "[2001:db8::53]:53 resolv.conf"}},
		"public ones":  {map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.1\nnameserver 8.8.8.8\nnameserver 2606:4700:4700::1111\n"}, []string{"127.0.0.1:53 resolv.conf own", "8.8.8.8:53 resolv.conf Google", "[2606:4700:4700::1111]:53 resolv.conf Cloudflare"}},
		"no more than the C library": {map[string]string{"/etc/resolv.conf": "nameserver 203.0.113.251\nnameserver 203.0.113.252\nnameserver 203.0.113.252\nnameserver 203.0.113.254\n"},
			[]string{"203.0.113.251:53 resolv.conf", "203.0.113.252:53 resolv.conf"}},
		"what the C library does not take": {map[string]string{"/etc/resolv.conf": " nameserver 192.0.2.1\nnameserver\nnameserver example.net\nnameservers 192.0.2.2\nnameserver 203.0.113.253"},
			[]string{"203.0.113.253:53 resolv.conf"}},
		"a link's own":            {map[string]string{"/etc/resolv.conf": "nameserver fe80::1%eth0\n"}, []string{"[fe80::1%eth0]:53 resolv.conf"}},
		"4-in-6":                  {map[string]string{"/etc/resolv.conf": "nameserver ::ffff:8.8.4.4\n"}, []string{"8.8.4.4:53 resolv.conf Google"}},
		"resolved":                {map[string]string{"/etc/resolv.conf": stub, "/run/systemd/resolve/resolv.conf": "nameserver 203.0.113.253\n"}, []string{"127.0.0.53:53 resolv.conf own", "203.0.113.253:53 resolv.conf"}},
		"resolved, public":        {map[string]string{"/etc/resolv.conf": stub, "/run/systemd/resolve/resolv.conf": "nameserver 9.9.9.9\n"}, []string{"127.0.0.53:53 resolv.conf own Quad9", "9.9.9.9:53 resolv.conf Quad9"}},
		"resolved, nothing known": {map[string]string{"/etc/resolv.conf": stub}, []string{"127.0.0.53:53 resolv.conf own"}},
		"a forwarder to a public one": {map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.1\n", "/usr/sbin/dnsmasq": "", "/etc/dnsmasq.conf": "server=1.1.1.1\n"},
			[]string{"127.0.0.1:53 resolv.conf own Cloudflare"}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := resolve.System(machine(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				words := []string{f.Address, filepath.Base(f.Source)}
				if f.Own {
					words = append(words, "own")
				}
				if f.Public != "" {
					words = append(words, f.Public)
				}
				got = append(got, strings.Join(words, " "))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSystemSaysWhatItCannotRead(t *testing.T) {
	root := machine(t, map[string]string{"/etc/resolv.conf/file": ""})
	if _, err := resolve.System(root); err == nil || !strings.Contains(err.Error(), "/etc/resolv.conf") {
		t.Errorf("a directory in the file's place: %v", err)
	}
}

func TestPublic(t *testing.T) {
	for addr, want := range map[string]string{
		"8.8.8.8": "Google", "2001:4860:4860::8844": "Google", "::ffff:8.8.4.4": "Google",
		"1.1.1.1": "Cloudflare", "1.0.0.2": "Cloudflare", "2606:4700:4700::1001": "Cloudflare",
		"9.9.9.10": "Quad9", "149.112.112.112": "Quad9", "2620:fe::fe": "Quad9",
		"208.67.222.222": "OpenDNS", "208.67.220.123": "OpenDNS", "2620:119:35::35": "OpenDNS",
		"4.2.2.2": "Level 3", "4.2.2.6": "Level 3", "64.6.64.6": "UltraDNS", "156.154.70.1": "UltraDNS",
		"94.140.14.14": "AdGuard", "2a10:50c0::ad1:ff": "AdGuard", "185.228.168.9": "CleanBrowsing",
		"84.200.69.80": "DNS.WATCH", "77.88.8.8": "Yandex", "2a02:6b8::feed:ff": "Yandex", "2a02:6b8:0:1::feed:ff": "Yandex",
		"76.76.2.0": "Control D", "194.242.2.2": "Mullvad", "45.90.28.1": "NextDNS", "193.110.81.0": "dns0.eu",
		"8.26.56.26": "Comodo", "74.82.42.42": "Hurricane Electric", "223.5.5.5": "AliDNS", "101.101.101.101": "TWNIC Quad101",
		"8.8.8.9": "", "127.0.0.1": "", "192.0.2.1": "", "2001:db8::1": "", "2a02:6b8::1": "", "fe80::1%eth0": "", "10.0.0.1": "", "208.67.219.1": "",
	} {
		if got := resolve.Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
	if got := resolve.Public(netip.Addr{}); got != "" {
		t.Errorf("no address: %q", got)
	}
}

func TestRecurses(t *testing.T) {
	unbound := func(conf string) map[string]string {
		return map[string]string{"/usr/sbin/unbound": "", "/etc/unbound/unbound.conf": conf}
	}
	named := func(conf string) map[string]string {
		return map[string]string{"/usr/sbin/named": "", "/etc/bind/named.conf": conf}
	}
	with := func(files map[string]string, more ...string) map[string]string {
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	const include = "include-toplevel: \"/etc/unbound/unbound.conf.d/*.conf\"\n"
	for name, c := range map[string]struct {
		files map[string]string
		at    string
		want  resolve.Recursion
		says  []string
	}{
		"nothing there":              {nil, "127.0.0.1", resolve.NotKnown, nil},
		"another machine":            {unbound(""), "192.0.2.53", resolve.NotKnown, []string{"not on this machine"}},
		"program gone":               {map[string]string{"/etc/unbound/unbound.conf": ""}, "127.0.0.1", resolve.NotKnown, nil},
		"resolved":                   {with(unbound(""), "/run/systemd/resolve/resolv.conf", "nameserver 8.8.8.8\n"), "127.0.0.53", resolve.Forwards, []string{"systemd-resolved asks 8.8.8.8 of Google"}},
		"resolved, nothing known":    {nil, "127.0.0.54", resolve.Forwards, []string{"systemd-resolved asks other"}},
		"unbound":                    {unbound("server:\n  interface: 127.0.0.1\n"), "127.0.0.1", resolve.Itself, []string{"unbound", "/etc/unbound/unbound.conf"}},
		"unbound forwards":           {unbound("forward-zone:\n\tname: \".\"\n\tforward-addr: 192.0.2.53@853#dns.example\n\tforward-tls-upstream: yes\n"), "127.0.0.1", resolve.Forwards, []string{"asks 192.0.2.53 ("}},
		"unbound forwards, tight":    {unbound("forward-zone: name:. forward-addr:9.9.9.9 server: verbosity:1"), "127.0.0.1", resolve.Forwards, []string{"9.9.9.9 of Quad9"}},
		"unbound forwards to a name": {unbound("forward-zone:\n name: .\n forward-host: dns.example\n"), "127.0.0.1", resolve.Forwards, []string{"other resolvers"}},
		"unbound forwards a zone":    {unbound("forward-zone:\n  name: example.\n  forward-addr: 8.8.8.8\n"), "127.0.0.1", resolve.Itself, nil},
		"unbound, a comment":         {unbound("#forward-zone:\n# name: .\n# forward-addr: 8.8.8.8\n"), "127.0.0.1", resolve.Itself, nil},
		"unbound has a stub":         {unbound("forward-zone:\n name: example\n forward-addr: 192.0.2.1\nstub-zone:\n name: .\n stub-addr: 192.0.2.2\n"), "127.0.0.1", resolve.Itself, nil},
		"unbound, included":          {with(unbound(include), "/etc/unbound/unbound.conf.d/a.conf", "server:\n", "/etc/unbound/unbound.conf.d/f.conf", "forward-zone:\n name: '.'\n forward-addr: 2620:fe::fe\n"), "127.0.0.1", resolve.Forwards, []string{"/etc/unbound/unbound.conf.d/f.conf", "Quad9"}},
		"unbound includes itself":    {unbound("include: unbound.conf\n"), "127.0.0.1", resolve.NotKnown, []string{"include each other"}},
		"unbound fed":                {with(unbound(""), "/etc/resolvconf/update.d/unbound", "", "/lib/resolvconf/list-records", ""), "127.0.0.1", resolve.NotKnown, []string{"resolvconf"}},
		"unbound not fed":            {with(unbound(""), "/etc/resolvconf/update.d/unbound", "", "/lib/resolvconf/list-records", "", "/etc/default/unbound", "USE_RESOLVCONF_FORWARDS=\"false\"\n"), "127.0.0.1", resolve.Itself, nil},
		"named":                      {named("// none\noptions { directory \"/var/cache/bind\"; /* forwarders { 8.8.8.8; }; */ # forwarders { 8.8.8.8; };\n dnssec-validation auto; };\nzone \".\" { type hint; file \"/usr/share/dns/root.hints\"; };"), "127.0.0.1", resolve.Itself, []string{"named"}},
		"named forwards":             {named("options { forwarders port 5353 { 192.0.2.53 port 53; 2001:db8::53; }; };"), "127.0.0.1", resolve.Forwards, []string{"192.0.2.53, 2001:db8::53"}},
		"named, empty forwarders":    {named("options { forwarders { }; };"), "127.0.0.1", resolve.Itself, nil},
		"named forwards a zone":      {named("zone \"example\" { type forward; forwarders { 8.8.8.8; }; };"), "127.0.0.1", resolve.Itself, nil},
		"named forwards the root":    {named("zone \".\" IN { type forward; forwarders { 8.8.8.8; }; };"), "127.0.0.1", resolve.Forwards, []string{"Google"}},
		"named in a view":            {named("view \"a\" { match-clients { any; }; forwarders { 8.8.8.8; }; };"), "127.0.0.1", resolve.Forwards, nil},
		"named, included":            {with(named("include \"/etc/bind/named.conf.options\";"), "/etc/bind/named.conf.options", "options {\n\tforwarders { 1.1.1.1; };\n};\n"), "127.0.0.1", resolve.Forwards, []string{"named.conf.options", "Cloudflare"}},
		"named includes itself":      {named("include \"named.conf\";"), "127.0.0.1", resolve.NotKnown, []string{"include each other"}},
		"named, its zones only":      {with(named("options { recursion no; };"), "/usr/sbin/unbound", "", "/etc/unbound/unbound.conf", ""), "127.0.0.1", resolve.Itself, []string{"unbound"}},
		"dnsmasq":                    {map[string]string{"/usr/sbin/dnsmasq": "", "/etc/dnsmasq.conf": "", "/run/dnsmasq/resolv.conf": "nameserver 192.0.2.53\n"}, "127.0.0.1", resolve.Forwards, []string{"192.0.2.53", "/run/dnsmasq/resolv.conf"}},
		"dnsmasq has servers":        {map[string]string{"/usr/sbin/dnsmasq": "", "/etc/dnsmasq.conf": "# server=9.9.9.9\nno-resolv\nserver=/example/192.0.2.1\nconf-dir=/etc/dnsmasq.d/,*.conf\n", "/etc/dnsmasq.d/a.conf": "server=8.8.8.8#53\n", "/etc/dnsmasq.d/a.bak": "server=9.9.9.9\n"}, "127.0.0.1", resolve.Forwards, []string{"dnsmasq asks 8.8.8.8 of Google ("}},
		"dnsmasq, DHCP only":         {with(unbound(""), "/usr/sbin/dnsmasq", "", "/etc/dnsmasq.conf", "port=0\n"), "127.0.0.1", resolve.Itself, nil},
		"two of one mind":            {with(unbound(""), "/usr/sbin/named", "", "/etc/bind/named.conf", ""), "127.0.0.1", resolve.Itself, []string{"unbound", "named"}},
		"two of two minds":           {with(unbound(""), "/usr/sbin/dnsmasq", "", "/etc/dnsmasq.conf", "server=8.8.8.8\n"), "127.0.0.1", resolve.NotKnown, []string{"unbound asks the auth", "dnsmasq asks 8.8.8.8"}},
		"PowerDNS":                   {map[string]string{"/usr/sbin/pdns_recursor": "", "/etc/powerdns/recursor.conf": "forward-zones-recurse=example=8.8.8.8\n# forward-zones-recurse=.=8.8.8.8\n"}, "127.0.0.1", resolve.Itself, []string{"PowerDNS"}},
		"PowerDNS forwards":          {map[string]string{"/usr/sbin/pdns_recursor": "", "/etc/powerdns/recursor.conf": "forward-zones=example=192.0.2.1\nforward-zones-recurse+=a.example=192.0.2.2, .=8.8.8.8:53;[2001:db8::1]:53\n"}, "127.0.0.1", resolve.Forwards, []string{"8.8.8.8 of Google, 2001:db8::1"}},
		"PowerDNS, beside":           {map[string]string{"/usr/sbin/pdns_recursor": "", "/etc/powerdns/recursor.conf": "", "/etc/powerdns/recursor.d/f.conf": "forward-zones-file=/etc/powerdns/list\n", "/etc/powerdns/list": "example=192.0.2.1\n+.=9.9.9.9, 1.1.1.1\n"}, "127.0.0.1", resolve.Forwards, []string{"Quad9", "Cloudflare", "f.conf"}},
		"PowerDNS, YAML":             {map[string]string{"/usr/sbin/pdns_recursor": "", "/etc/powerdns/recursor.yml": "recursor:\n  forward_zones_recurse:\n    - zone: example\n      forwarders: [192.0.2.1]\n    - zone: .\n      forwarders:\n        - 8.8.8.8\n        - '[2001:db8::1]:53'\n  threads: 2\nlogging:\n  x: 9.9.9.9\n"}, "127.0.0.1", resolve.Forwards, []string{"asks 8.8.8.8 of Google, 2001:db8::1 ("}},
		"PowerDNS, YAML, itself":     {map[string]string{"/usr/sbin/pdns_recursor": "", "/etc/powerdns/recursor.yml": "recursor:\n  forward_zones:\n  - zone: example\n    forwarders: [8.8.8.8]\nincoming:\n  zone: .\n"}, "127.0.0.1", resolve.Itself, nil},
		"Knot":                       {map[string]string{"/usr/sbin/kresd": "", "/etc/knot-resolver/kresd.conf": "-- policy.add(policy.all(policy.FORWARD('8.8.8.8')))\npolicy.add(policy.suffix(policy.FORWARD('192.0.2.1'), {todname('example')}))\n"}, "127.0.0.1", resolve.Itself, []string{"Knot"}},
		"Knot forwards":              {map[string]string{"/usr/sbin/kresd": "", "/etc/knot-resolver/kresd.conf": "--[[ old ]]\npolicy.add(policy.all(policy.TLS_FORWARD({\n  {'9.9.9.9', hostname='dns.example'},\n  {'2001:db8::1'}})))\n"}, "127.0.0.1", resolve.Forwards, []string{"9.9.9.9 of Quad9, 2001:db8::1"}},
		"Knot, YAML":                 {map[string]string{"/usr/bin/knot-resolver": "", "/etc/knot-resolver/config.yaml": "forward:\n  - subtree: example\n    servers: [192.0.2.1]\n  - subtree: ['.']\n    servers:\n      - address: [ 1.1.1.1, 1.0.0.1 ]\n        transport: tls\n"}, "127.0.0.1", resolve.Forwards, []string{"asks 1.1.1.1 of Cloudflare, 1.0.0.1 of Cloudflare ("}},
		"too large":                  {unbound(strings.Repeat("#\n", 1<<20)), "127.0.0.1", resolve.NotKnown, []string{"larger"}},
	} {
		t.Run(name, func(t *testing.T) {
			addr := netip.MustParseAddr(c.at)
			got, why := resolve.Recurses(machine(t, c.files), resolve.Found{
				Address: netip.AddrPortFrom(addr, 53).String(), Addr: addr, Own: addr.IsLoopback(),
			})
			if got != c.want || why == "" {
				t.Errorf("got %s (%s), want %s", got, why, c.want)
			}
			for _, says := range c.says {
				if !strings.Contains(why, says) {
					t.Errorf("says %q, want %q in it", why, says)
				}
			}
		})
	}
}

// A file that another program's configuration names may be anything.
func TestRecursesDoesNotWaitForAFIFO(t *testing.T) {
	root := machine(t, map[string]string{"/usr/sbin/unbound": "", "/etc/unbound/unbound.conf": "include: /etc/unbound/more\n"})
	if err := syscall.Mkfifo(filepath.Join(root, "/etc/unbound/more"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("127.0.0.1")
	got, why := resolve.Recurses(root, resolve.Found{Address: "127.0.0.1:53", Addr: addr, Own: true})
	if got != resolve.NotKnown || !strings.Contains(why, "not a regular file") {
		t.Errorf("%s (%s)", got, why)
	}
}
