package postfix

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/mta"
)

const sendingMaster = `
smtp inet n - y - - smtpd
cleanup unix n - y - 0 cleanup
smtp unix - - y - - smtp
relay unix - - y - - smtp
  -o syslog_name=postfix/$service_name
out2 unix - - y - - smtp
  -o smtp_bind_address=$second
  -o smtp_bind_address6=[2001:db8::2]
  -o smtp_helo_name=two.example.jp
out3 unix - - n - - smtp -o inet_protocols=ipv4 -o { smtp_bind_address = 203.0.113.3 } -o smtp_bind_address_enforce=yes -o myhostname=three.example.jp
only6 unix - - n - - smtp -o inet_protocols=ipv6 -o smtp_bind_address=203.0.113.4
lmtp unix - - y - - lmtp
dead unix - - y - - error
uucp unix - n n - - pipe flags=F user=uucp argv=uux -r -n
`

// waysOf writes them a line each: setting key>service>next hop from helo.
func waysOf(s mta.Sending) []string {
	var all []string
	for _, w := range s.Ways {
		line := fmt.Sprintf("%s %s>%s>%s", w.Setting, w.Key, w.Service, w.NextHop)
		for _, b := range []mta.Bind{w.Bind4, w.Bind6} {
			if b.Addr.IsValid() {
				line += fmt.Sprintf(" %s", b.Addr)
			}
		}
		all = append(all, line)
	}
	return all
}

func sendingOf(t *testing.T, mainCF string) mta.Sending {
	t.Helper()
	s, err := newInstance(t, "second=203.0.113.2\n"+mainCF, sendingMaster).load(t).Sending(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSendingFollowsTheSettings(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "map"), "example.jp lmtp:unix:private/dovecot\nb.example out3:\n.c.example :[c.example]\nd.example dead:no\na@e.example out2:[e.example]:587\nf.example :\nexample.net lmtp:inet:lmtp.example:24\n")
	writeFile(t, filepath.Join(dir, "star"), "* out2:[all.example]\nb.example out3:\n")
	writeFile(t, filepath.Join(dir, "by-sender"), "@one.example out2\n@two.example out3:[gate.example]\n@three.example DUNNO\n")
	writeFile(t, filepath.Join(dir, "relays"), "@one.example [relay1.example]\n@two.example DUNNO\n")
	writeFile(t, filepath.Join(dir, "patterns"), "if /x/\n/^(.*)@slash\\/.example$/i out2:[p.example]\nendif\n# no\n!/@ours$/ out3:\n/dollar/ out2:$1\n")
	writeFile(t, filepath.Join(dir, "everyone"), "/./ out2:\n")
	for name, c := range map[string]struct {
		main   string
		want   []string
		unread []string // parts
	}{
		"as installed":                  {"", []string{"default_transport >smtp>"}, nil},
		"bound":                         {"smtp_bind_address=$second\nsmtp_bind_address6=2001:db8::9\n", []string{"default_transport >smtp> 203.0.113.2 2001:db8::9"}, nil},
		"bound to any":                  {"smtp_bind_address=0.0.0.0\nsmtp_bind_address6=::\n", []string{"default_transport >smtp>"}, nil},
		"bound to nonsense":             {"smtp_bind_address=2001:db8::9\n", []string{"default_transport >smtp>", " >only6>", " >out2> 203.0.113.2 2001:db8::2", " >out3> 203.0.113.3", " >relay>"}, []string{"smtp/unix smtp_bind_address: 2001:db8::9: not an address of that protocol", "relay/unix smtp_bind_address: 2001:db8::9"}},
		"relay host":                    {"relayhost=[mx.provider.example]:587\n", []string{"relayhost >smtp>[mx.provider.example]:587"}, nil},
		"default with a next hop":       {"default_transport=out2:[gate.example]\nrelayhost=[unused.example]\n", []string{"default_transport >out2>[gate.example] 203.0.113.2 2001:db8::2"}, nil},
		"overrides of main.cf":          {"default_transport=out3\n", []string{"default_transport >out3> 203.0.113.3"}, nil},
		"IPv6 only":                     {"default_transport=only6\n", []string{"default_transport >only6>"}, nil},
		"relay domains":                 {"relay_domains=relayed.example\nrelayhost=[r.example]\n", []string{"relay_transport >relay>[r.example]", "relayhost >smtp>[r.example]"}, nil},
		"relay domains that are ours":   {"relay_domains=$mydestination\n", []string{"default_transport >smtp>"}, nil},
		"one interface":                 {"inet_interfaces=203.0.113.7, 127.0.0.1\n", []string{"default_transport >smtp>"}, nil}, // Postfix counts loopback too
		"one interface alone":           {"inet_interfaces=203.0.113.7, 203.0.113.7, [2001:db8::7]\n", []string{"default_transport >smtp> 203.0.113.7 2001:db8::7"}, nil},
		"two interfaces":                {"inet_interfaces=203.0.113.7, 203.0.113.8\n", []string{"default_transport >smtp>"}, nil},
		"loopback interface":            {"inet_interfaces=localhost\ninet_protocols=ipv4\n", []string{"default_transport >smtp>"}, nil},
		"loopback only":                 {"inet_interfaces=loopback-only\n", []string{"default_transport >smtp>"}, nil},
		"protocol not spoken":           {"inet_interfaces=203.0.113.7, [2001:db8::7]\ninet_protocols=ipv4\n", []string{"default_transport >smtp> 203.0.113.7"}, nil},
		"transport table":               {"transport_maps=texthash:" + dir + "/map\nrelayhost=r.example\n", []string{"relayhost >smtp>r.example", "transport_maps example.net>lmtp>lmtp.example:24", "transport_maps a@e.example>out2>[e.example]:587 203.0.113.2 2001:db8::2", "transport_maps b.example>out3> 203.0.113.3", "transport_maps .c.example>smtp>[c.example]"}, nil},
		"transport for all":             {"transport_maps=texthash:" + dir + "/star\nrelayhost=unused.example\n", []string{"transport_maps >out2>[all.example] 203.0.113.2 2001:db8::2", "transport_maps b.example>out3> 203.0.113.3"}, nil},
		"transport by chance":           {"transport_maps=randmap:{out2:,out3:}\n", []string{"transport_maps >out2> 203.0.113.2 2001:db8::2", "transport_maps >out3> 203.0.113.3"}, nil},
		"sender by chance":              {"sender_dependent_default_transport_maps=randmap:{out2,{out3:}}\n", []string{"sender_dependent_default_transport_maps >out2> 203.0.113.2 2001:db8::2", "sender_dependent_default_transport_maps >out3> 203.0.113.3"}, nil},
		"in the setting itself":         {"transport_maps=inline:{ { b.example = out3: } }\n", []string{"default_transport >smtp>", "transport_maps b.example>out3> 203.0.113.3"}, nil},
		"static for all":                {"sender_dependent_relayhost_maps=static:{[always.example]}\nrelayhost=unused.example\n", []string{"sender_dependent_relayhost_maps >smtp>[always.example]"}, nil},
		"by sender":                     {"sender_dependent_default_transport_maps=texthash:" + dir + "/by-sender\n", []string{"default_transport >smtp>", "sender_dependent_default_transport_maps @one.example>out2> 203.0.113.2 2001:db8::2", "sender_dependent_default_transport_maps @two.example>out3>[gate.example] 203.0.113.3"}, nil},
		"relay host by sender":          {"sender_dependent_relayhost_maps=texthash:" + dir + "/relays\n", []string{"default_transport >smtp>", "sender_dependent_relayhost_maps @one.example>smtp>[relay1.example]"}, nil},
		"patterns":                      {"transport_maps=regexp:" + dir + "/patterns\n", []string{" >only6>", " >relay>", "default_transport >smtp>", `transport_maps /^(.*)@slash\/.example$/i>out2>[p.example] 203.0.113.2 2001:db8::2`, "transport_maps !/@ours$/>out3> 203.0.113.3"}, []string{"transport_maps: /dollar/: what it stands for depends"}},
		"a pattern for all":             {"transport_maps=pcre:" + dir + "/everyone\n", []string{"transport_maps >out2> 203.0.113.2 2001:db8::2"}, nil},
		"content filter elsewhere":      {"content_filter=out2:[filter.example]:10025\n", []string{"content_filter >out2>[filter.example]:10025 203.0.113.2 2001:db8::2", "default_transport >smtp>"}, nil},
		"content filter here":           {"content_filter=smtp:[127.0.0.1]:10025\n", []string{"default_transport >smtp>"}, nil},
		"a table that cannot be listed": {"transport_maps=mysql:" + dir + "/none.cf\n", []string{" >only6>", " >out2> 203.0.113.2 2001:db8::2", " >out3> 203.0.113.3", " >relay>", "default_transport >smtp>"}, []string{"transport_maps: mysql:" + dir + "/none.cf: tables of type mysql cannot be listed"}},
		"another program":               {"default_transport=uucp:gate\n", []string{" >only6>", " >out2> 203.0.113.2 2001:db8::2", " >out3> 203.0.113.3", " >relay>", " >smtp>"}, []string{"default_transport: uucp: pipe(8) is no SMTP client"}},
		"no such service":               {"default_transport=gone\n", []string{" >only6>", " >out2> 203.0.113.2 2001:db8::2", " >out3> 203.0.113.3", " >relay>", " >smtp>"}, []string{"default_transport: gone: master.cf has no such service"}},
		"nothing leaves":                {"default_transport=dead:no mail leaves here\n", nil, nil},
		"a list that is none":           {"transport_maps={\n", []string{" >only6>", " >out2> 203.0.113.2 2001:db8::2", " >out3> 203.0.113.3", " >relay>", "default_transport >smtp>"}, []string{"transport_maps: {: "}},
	} {
		t.Run(name, func(t *testing.T) {
			got := sendingOf(t, c.main)
			ways := waysOf(got)
			slices.Sort(ways)
			slices.Sort(c.want)
			if !slices.Equal(ways, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(ways, "\n"), strings.Join(c.want, "\n"))
			}
			for _, part := range c.unread {
				if !slices.ContainsFunc(got.Unread, func(u mta.Unread) bool { return strings.Contains(u.Error(), part) }) {
					t.Errorf("unread: got %v, want %q", got.Unread, part)
				}
			}
			if (len(got.Unread) > 0) != (len(c.unread) > 0) {
				t.Errorf("unread: got %v", got.Unread)
			}
		})
	}
}

func TestSendingTellsHowAClientIntroducesItself(t *testing.T) {
	s := sendingOf(t, "proxy_interfaces=198.51.100.1 [2001:db8::1]\nsmtp_helo_name=$myhostname\nsmtp_address_preference=ipv4\nsmtp_fallback_relay=[back.example]\n"+
		"transport_maps=inline:{ { b.example = out3: }, { c.example = out2: }, { d.example = lmtp:inet:x.example } }\nlmtp_lhlo_name=lhlo.example.jp\n")
	want := map[string]mta.Way{
		"smtp": {Helo: "mx.example.jp", IP4: true, IP6: true, Prefer: "ipv4", Fallback: "[back.example]"},
		"out2": {Helo: "two.example.jp", IP4: true, IP6: true, Prefer: "ipv4", Fallback: "[back.example]"},
		"out3": {Helo: "three.example.jp", IP4: true, Prefer: "ipv4", Fallback: "[back.example]", Enforced: true},
		"lmtp": {Helo: "lhlo.example.jp", IP4: true, IP6: true, Prefer: "any"},
	}
	for _, w := range s.Ways {
		got := mta.Way{Helo: w.Helo, IP4: w.IP4, IP6: w.IP6, Prefer: w.Prefer, Fallback: w.Fallback, Enforced: w.Enforced}
		if got != want[w.Service] {
			t.Errorf("%s: got %+v, want %+v", w.Service, got, want[w.Service])
		}
		if w.Every() != (w.Service == "smtp") {
			t.Errorf("%s: every is %v", w.Service, w.Every())
		}
	}
	if len(s.Ways) != len(want) || s.Hostname != "mx.example.jp" {
		t.Errorf("got %+v", s)
	}
	if want := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}; !slices.Equal(s.Proxies, want) {
		t.Errorf("proxies: got %v, want %v", s.Proxies, want)
	}
}

// While the red switch is pulled all that it left are the clients.
func TestSendingWhileStopped(t *testing.T) {
	s := sendingOf(t, "default_transport="+stopTransport+"\nrelayhost=[r.example]\n")
	want := []string{" >only6>[r.example]", " >out2>[r.example] 203.0.113.2 2001:db8::2", " >out3>[r.example] 203.0.113.3", " >relay>[r.example]", " >smtp>[r.example]"}
	ways := waysOf(s)
	if slices.Sort(ways); !s.Stopped || !slices.Equal(ways, want) {
		t.Errorf("got %q, want %q", ways, want)
	}
}

func TestSendingOfALargeTableIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "map")
	var b strings.Builder
	for n := range 5000 {
		fmt.Fprintf(&b, "d%d.example smtp:[h%d.example]\n", n, n)
		fmt.Fprintf(&b, "e%d.example out3:\n", n)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	s := sendingOf(t, "transport_maps=texthash:"+file+"\n")
	more := 0
	for _, w := range s.Ways {
		more += w.More
	}
	if len(s.Ways) != maxNextHops+2 || len(s.Unread) != 0 || more != 5000-maxNextHops {
		t.Errorf("got %d ways and %d more, %v", len(s.Ways), more, s.Unread)
	}
	if !slices.ContainsFunc(s.Ways, func(w mta.Way) bool { return w.Service == "out3" }) || !slices.ContainsFunc(s.Ways, mta.Way.Every) {
		t.Error("a client is missing")
	}
}

func TestSendingDoesNotWaitForAFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	s := sendingOf(t, "transport_maps=regexp:"+fifo+"\n")
	if len(s.Unread) != 1 || s.Unread[0].Setting != "transport_maps" || !strings.Contains(s.Unread[0].Error(), "not a file") {
		t.Errorf("got %v", s.Unread)
	}
}

func FuzzPatterns(f *testing.F) {
	for _, seed := range []string{"/./ smtp:", "if /x/\n/a\\/b/i out2:[x]\nendif\n", "!/x/", "192.0.2.0/24 out:\n", "/", "\\", "!", "/a/\n b\n"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, delimited bool) {
		for _, m := range patterns(text, delimited) {
			if m.value == "" {
				t.Fatalf("%q: got %+v", text, m)
			}
			service, nextHop := splitRoute(m.value)
			if len(service)+len(nextHop) > len(m.value) {
				t.Fatalf("%q: got %q, %q", m.value, service, nextHop)
			}
		}
	})
}
