package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/cmd/internal/config"
	"relayguard/rbl/dnstest"
)

// unboundIn is a machine whose unbound has others ask for it.
func unboundIn(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	for path, text := range map[string]string{
		"usr/sbin/unbound":         "",
		"etc/unbound/unbound.conf": "server:\n  interface: 127.0.0.1\nforward-zone:\n  name: \".\"\n  forward-addr: 192.0.2.53\n",
		"etc/resolv.conf":          "nameserver 127.0.0.1\n",
	} {
		path = filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o755))
	}
	return root
}

// Whoever names a resolver gets it, and is told if lists do not like it.
func TestResolversThatListsDoNotSeeAreWarnedOf(t *testing.T) {
	for name, c := range map[string]struct {
		resolvers []string
		says      []string // of each warning
	}{
		"the machine's":   {nil, []string{"the resolver 127.0.0.1:53 does not ask by itself, but unbound asks 192.0.2.53"}},
		"named":           {[]string{"127.0.0.1:53"}, []string{"the resolver 127.0.0.1:53 does not ask by itself, but unbound asks 192.0.2.53"}},
		"public":          {[]string{"8.8.8.8:53", "[2606:4700:4700::1111]:53"}, []string{"8.8.8.8:53 is a public resolver (Google)", "[2606:4700:4700::1111]:53 is a public resolver (Cloudflare)"}},
		"on another port": {[]string{"127.0.0.1:5335"}, nil},
		"elsewhere":       {[]string{"192.0.2.53:53"}, nil},
	} {
		conf := config.Default()
		conf.RBL.Resolvers = c.resolvers
		a := &asking{root: unboundIn(t)}
		must(t, a.resolve(conf))
		if want := max(1, len(c.resolvers)); len(a.resolvers) != want {
			t.Errorf("%s: %d resolvers, want %d", name, len(a.resolvers), want)
		}
		if len(a.warnings) != len(c.says) || len(a.doubted) != len(c.says) || (a.forwarded != "") != (len(c.says) > 0) {
			t.Errorf("%s: %q, %+v, %q", name, a.warnings, a.doubted, a.forwarded)
			continue
		}
		for i, says := range c.says {
			if !strings.HasPrefix(a.warnings[i], says) {
				t.Errorf("%s: %q, want %q", name, a.warnings[i], says)
			}
		}
	}
}

func TestDaemonWarnsOfAPublicResolverOnce(t *testing.T) {
	s := watchingState(t, "", func(c *config.Config) { c.RBL.Resolvers = []string{"8.8.8.8:53"} })
	log := &written{}
	s.log = textLog(log)
	for range 3 {
		if p := s.blocklists.plan(t.Context()); p.Resolver == nil || p.Resolver.Name() != "8.8.8.8:53" {
			t.Fatalf("%+v", p)
		}
	}
	if n := strings.Count(log.String(), "8.8.8.8:53 is a public resolver"); n != 1 {
		t.Errorf("%d times in %s", n, log.String())
	}
}

func TestKeyInAFIFOIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	must(t, syscall.Mkfifo(path, 0o600))
	if _, err := readZoneKey(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

// A history that cannot be read, and domains that the MTA did not tell, are trouble: what
// is missing then is not taken for removed.
func TestWhatAPlanCouldNotReadIsTrouble(t *testing.T) {
	s := watchingState(t, "", nil)
	if p := s.blocklists.plan(t.Context()); p.Trouble != "" {
		t.Errorf("%q", p.Trouble)
	}
	in := *s.rules.Load()
	in.unread = []error{errorText("inside.from_mta: postconf: exit status 1"), errorText("address.postfix_maps: slow")}
	s.rules.Store(&in)
	if p := s.blocklists.plan(t.Context()); p.Trouble != "inside.from_mta: postconf: exit status 1" || len(p.Subjects) == 0 {
		t.Errorf("%q", p.Trouble)
	}
	must(t, s.blocklists.store.Close())
	if p := s.blocklists.plan(t.Context()); !strings.HasPrefix(p.Trouble, "addresses that were learnt are not known: ") || len(p.Subjects) == 0 {
		t.Errorf("%q", p.Trouble)
	}
}

type errorText string

func (e errorText) Error() string { return string(e) }

// Only what an admin took out is taken out; all else that is not asked about goes on.
func TestReloadDropsWhatItTookOut(t *testing.T) {
	const ours = "from_mta = false\nneighbours = false\naddresses = [\"203.0.113.5\", \"203.0.113.6\"]\ndomains = [\"shop.example.jp\", \"example.com\"]\n[inside]\nfrom_mta = false\ndomains = [\"example.net\"]\n"
	second := ourAddr
	second.Addr = netip.MustParseAddr("203.0.113.6")
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   []string // what goes on
	}{
		"nothing":         {func(*config.Config) {}, []string{"203.0.113.5 bl.example", "203.0.113.5 bl.keyed.example", "203.0.113.6 bl.example", "example.com bl.example", "example.jp bl.example", "shop.example.jp bl.example"}},
		"a key":           {func(c *config.Config) { c.ZoneKeys = nil }, []string{"203.0.113.5 bl.example", "203.0.113.5 bl.keyed.example", "203.0.113.6 bl.example", "example.com bl.example", "example.jp bl.example", "shop.example.jp bl.example"}},
		"a list is off":   {func(c *config.Config) { c.RBL.Disable = []string{"bl.example"} }, []string{"203.0.113.5 bl.keyed.example"}},
		"an address less": {func(c *config.Config) { c.RBL.Addresses = []string{"203.0.113.6"} }, []string{"203.0.113.6 bl.example", "example.com bl.example", "example.jp bl.example", "shop.example.jp bl.example"}},
		"a domain less":   {func(c *config.Config) { c.RBL.Domains = []string{"example.com"} }, []string{"203.0.113.5 bl.example", "203.0.113.5 bl.keyed.example", "203.0.113.6 bl.example", "example.com bl.example"}},
		"not known if it stays": {func(c *config.Config) {
			c.RBL.Domains, c.RBL.FromMTA, c.MTA.ConfigDirectory, c.RBL.Addresses = nil, true, "/nowhere", nil
		}, []string{"203.0.113.5 bl.example", "203.0.113.5 bl.keyed.example", "203.0.113.6 bl.example", "example.com bl.example", "example.jp bl.example", "shop.example.jp bl.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := listsOf(t, twoLists, ours, dnstest.Records())
			conf, err := config.Load(path)
			must(t, err)
			conf.MTA.Log, conf.MTA.QueueHelper, conf.Alert.Syslog, conf.Forward.Watch = config.LogNone, path+".no-helper", false, false
			s := aState(t, conf)
			t.Cleanup(func() { s.close(nil) })
			b := s.blocklists
			one := hit(2, 3, 0)
			wellRound(t, b, noon, isListed(ourAddr, "bl.example", one), isListed(ourAddr, "bl.keyed.example", one), isListed(second, "bl.example", one),
				isListed(domainSubject("shop.example.jp"), "bl.example", one), isListed(domainSubject("example.jp"), "bl.example", one), isListed(domainSubject("example.com"), "bl.example", one))
			next := *conf
			c.change(&next)
			s.config.Store(&next)
			b.apply(t.Context())
			if got := openIn(t, b); !slices.Equal(got, c.want) {
				t.Errorf("%q go on, want %q", got, c.want)
			}
		})
	}
}

func TestListingsOfAListThatIsNotKnownAnyMoreAreDropped(t *testing.T) {
	s := watchingState(t, "", nil)
	one := hit(2, 3, 0)
	wellRound(t, s.blocklists, noon, isListed(ourAddr, "bl.example", one), isListed(ourAddr, "gone.example", one), isListed(ourAddr, "bl.keyed.example", one))
	s.blocklists.plan(t.Context())
	if got, want := openIn(t, s.blocklists), []string{"203.0.113.5 bl.example", "203.0.113.5 bl.keyed.example"}; !slices.Equal(got, want) {
		t.Errorf("%q go on, want %q", got, want)
	}
}
