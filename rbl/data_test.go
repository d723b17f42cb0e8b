package rbl_test

import (
	"bytes"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
)

func TestBuiltinZonesAreWhole(t *testing.T) {
	table := rbl.Builtin()
	if n := len(table.Zones()); n != 82 {
		t.Errorf("%d zones, want 82: change the number with the table", n)
	}
	seen := map[string]bool{}
	for _, z := range table.Zones() {
		wrong := func(what string) { t.Errorf("%s: %s", z.Name, what) }
		if seen[z.Name] || z.Name != strings.ToLower(z.Name) {
			wrong("its name is there twice, or has capitals")
		}
		seen[z.Name] = true
		if z.Operator == "" || z.Class == "" || z.AsOf == "" || len(z.Source) == 0 || len(z.Kinds) == 0 {
			wrong("something that every row has is missing")
		}
		if z.Status == "own" {
			wrong("nobody says how well it is evidenced")
		}
		if (len(z.Codes) == 0) == (z.Means == "") {
			wrong("wants codes, or else what a listing means")
		}
		if closed, is := table.IsClosed(z.Name); is {
			wrong("it is closed as " + closed.Name)
		}
		for _, link := range []string{z.Terms.URL, z.Removal.URL} {
			if u, err := url.Parse(link); err != nil || link != "" && (u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
				wrong("a link that is none: " + link)
			}
		}
		if tm := z.Terms; (tm.NonCommercial || tm.Register || tm.Account || tm.PerDay > 0 || tm.PerSecond > 0) && tm.URL == "" {
			wrong("it has terms, and says not where")
		}
		if z.Default == rbl.On && z.Removal.URL == "" && len(z.Removal.How) == 0 {
			wrong("it is on, and nothing is known of how a listing ends")
		}
		if (z.Key != "") != (z.Default == rbl.WithKey || z.Key != "" && z.Default == rbl.Off) {
			wrong("key and default do not go together")
		}
		if z.Welcome && (z.Severity != rbl.Info || z.Class != "welcome") {
			wrong("a welcome list harms nobody")
		}
		if slices.Contains(z.Removal.How, "none") && len(z.Removal.How) > 1 {
			wrong("there is no way to be removed, and others")
		}
		if z.Ranges && z.Scope == rbl.ScopeASN {
			wrong("a whole network is listed or is not: its neighbours say nothing")
		}
		checkCodes(t, &z)
	}
}

func checkCodes(t *testing.T, z *rbl.Zone) {
	t.Helper()
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	for _, c := range append(slices.Clone(z.Codes), z.Blocks...) {
		if c.Bit == 0 && (!loopback.Contains(c.From) || !loopback.Contains(c.To)) || c.Bit != 0 && !z.Bits {
			t.Errorf("%s: code %v to %v, bit %d", z.Name, c.From, c.To, c.Bit)
		}
		if c.Means == "" {
			t.Errorf("%s: code %v means nothing", z.Name, c.From)
		}
	}
	for _, kind := range z.Kinds {
		listed := map[rbl.Kind]string{rbl.IP4: z.Test.Listed4, rbl.IP6: z.Test.Listed6, rbl.Domain: z.Test.ListedDomain}[kind]
		if listed == "" && z.Default == rbl.On && z.Severity > rbl.Info {
			t.Errorf("%s: no test entry for %s: that it is empty could not be told", z.Name, kind)
		}
	}
}

func TestBuiltinClosedListsAreWhole(t *testing.T) {
	table := rbl.Builtin()
	if n := len(table.ClosedLists()); n != 52 {
		t.Errorf("%d closed lists, want 52: change the number with the table", n)
	}
	for _, c := range table.ClosedLists() {
		if c.Message == "" || c.Died == "" || len(c.Source) == 0 || c.Status == "own" {
			t.Errorf("%s: %+v: something is missing", c.Name, c)
		}
		if c.Warn == (c.Status == "verified") && c.Warn {
			t.Errorf("%s: what is verified is not doubtful", c.Name)
		}
	}
}

func TestIsClosed(t *testing.T) {
	table := rbl.Builtin()
	for name, want := range map[string]string{
		"sorbs.net":                 "sorbs.net",
		"dnsbl.sorbs.net":           "sorbs.net",
		"DNSBL.SORBS.NET.":          "sorbs.net",
		"notsorbs.net":              "",
		"ix.dnsbl.manitu.net":       "ix.dnsbl.manitu.net",
		"x.ix.dnsbl.manitu.net":     "",
		"sa-other.bondedsender.org": "",
		"zen.spamhaus.org":          "",
		"rbl.spamhaus.org":          "rbl.spamhaus.org",
		"dnsbl.zapbl.net":           "zapbl.net",
		"":                          "",
		".":                         "",
	} {
		if c, is := table.IsClosed(name); c.Name != want || is != (want != "") {
			t.Errorf("%q: %q, %t, want %q", name, c.Name, is, want)
		}
	}
}

func TestFind(t *testing.T) {
	table := rbl.Builtin()
	if z, found := table.Find("ZEN.spamhaus.ORG."); !found || z.Name != "zen.spamhaus.org" {
		t.Errorf("zen: %q, %t", z.Name, found)
	}
	if z, found := table.Find("dnsbl.zapbl.net"); !found || z.Name != "dnsbl.zapbl.net" || !z.Asks(rbl.IP4) || z.Default != rbl.Off || z.Test.Listed4 != "2.0.0.127" {
		t.Errorf("a doubtful list: %+v, %t", z, found)
	}
	for _, name := range []string{"", ".", "bl.sorbs.net", "example.org"} {
		if z, found := table.Find(name); found {
			t.Errorf("%q is found: %+v", name, z)
		}
	}
	if z, _ := table.Find("uribl.rspamd.com"); z.Asks(rbl.Domain) {
		t.Error("a list of hashes can be asked about names")
	}
}

func TestWarnings(t *testing.T) {
	got := rbl.Builtin().Warnings([]string{"zen.spamhaus.org", "Bl.fmb.la.", "bl.sorbs.net", "a.msrbl.net"})
	if len(got) != 2 || !strings.HasPrefix(got[0], "bl.fmb.la: ") || !strings.HasPrefix(got[1], "a.msrbl.net: ") {
		t.Errorf("%q", got)
	}
}

func TestRemovalOfACode(t *testing.T) {
	zen, _ := rbl.Builtin().Find("zen.spamhaus.org")
	for code, want := range map[string]struct {
		how   []string
		first string
	}{
		"127.0.0.2":  {[]string{"isp"}, ""},
		"127.0.0.3":  {[]string{"form", "expires"}, "127.0.0.2"},
		"127.0.0.10": {[]string{"form"}, "127.0.0.2"},
		"127.0.0.99": {[]string{"form", "expires", "isp"}, "127.0.0.2"},
	} {
		hits, _, _ := zen.Decode([]netip.Addr{netip.MustParseAddr(code)})
		if r := zen.RemovalOf(hits[0]); !slices.Equal(r.How, want.how) || r.First != want.first || r.URL == "" {
			t.Errorf("%s: %+v", code, r)
		}
	}
}

func TestLoadExtends(t *testing.T) {
	table := load(t, "extend.toml")
	if z, found := table.Find("bl.example.org"); !found || z.Default != rbl.On || z.Status != "own" || z.Severity != rbl.High || z.Test.Listed6 == "" {
		t.Errorf("a new zone: %+v, %t", z, found)
	}
	z, _ := table.Find("psbl.surriel.com")
	if z.Operator != "us" || z.Removal.Expires != 21*24*time.Hour || z.Default != rbl.Off || len(z.Source) > 0 {
		t.Errorf("a zone in place of another: %+v", z)
	}
	z, _ = table.Find("private.example.net")
	if z.Default != rbl.WithKey || z.Scope != rbl.ScopeDomain || z.Terms.PerDay != 1000 || z.Test.ListedDomain != "_DNSBL_.test" || z.Test.CleanDomain != "" {
		t.Errorf("a zone with a key: %+v", z)
	}
	if _, found := table.Find("bl.nordspam.com"); found {
		t.Error("a list that the file closes is still a zone")
	}
	if n, was := len(table.Zones()), len(rbl.Builtin().Zones()); n != was+2-2 {
		t.Errorf("%d zones, there were %d", n, was)
	}
}

// What a file says of a key is worth nothing where the key is an operator's.
func TestLoadLeavesKeysToTheirOperators(t *testing.T) {
	table := load(t, "operators-zones.toml")
	for name, want := range map[string]struct {
		key       string
		perSecond float64
	}{"sbl.dq.spamhaus.net": {"spamhaus", 0.5}, "noptr.spamrats.com": {"spamrats", 10}, "mail.abusix.zone": {"abusix", 0}} {
		if z, found := table.Find(name); !found || z.Key != want.key || z.Terms.PerSecond != want.perSecond {
			t.Errorf("%s: %+v, %t", name, z, found)
		}
	}
	foreign := []byte("[[zone]]\nname = \"bl.example.org\"\nkinds = [\"ip4\"]\nseverity = \"low\"\nkey = \"abusix\"\n")
	if _, err := table.Extend("second", foreign); err == nil {
		t.Error("by two files one gets the key")
	}
	own := bytes.ReplaceAll(foreign, []byte("abusix"), []byte("ours"))
	first, err := table.Extend("first", own)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Extend("second", bytes.ReplaceAll(own, []byte("example"), []byte("test"))); err != nil {
		t.Errorf("a key's name of one's own: %v", err)
	}
}

// Operators count by who asks: each of their zones says how often.
func TestBuiltinRates(t *testing.T) {
	rates := map[string]float64{"Spam Eating Monkey": 5, "SPFBL.net": 10}
	seen := map[string]bool{}
	for _, z := range rbl.Builtin().Zones() {
		seen[z.Operator] = true
		if z.Terms.PerSecond != rates[z.Operator] {
			t.Errorf("%s: %v a second, want %v", z.Name, z.Terms.PerSecond, rates[z.Operator])
		}
	}
	for operator := range rates {
		if !seen[operator] {
			t.Errorf("no zone of %s", operator)
		}
	}
}

func TestLoadReplaces(t *testing.T) {
	table := load(t, "replace.toml")
	if zones := table.Zones(); len(zones) != 1 || zones[0].Name != "bl.example.org" {
		t.Errorf("%d zones", len(zones))
	}
	if _, closed := table.IsClosed("bl.sorbs.net"); !closed {
		t.Error("closed lists are gone")
	}
}

func TestLoadOfADoubtfulListWarns(t *testing.T) {
	table := load(t, "doubtful.toml")
	use, _, err := table.Choose(rbl.Choice{})
	if err != nil || !slices.ContainsFunc(use, func(z rbl.Zone) bool { return z.Name == "dnsbl.zapbl.net" }) {
		t.Errorf("not in use: %v", err)
	}
	if w := table.Warnings([]string{"dnsbl.zapbl.net"}); len(w) != 1 {
		t.Errorf("%q", w)
	}
}

func TestLoadOfNothing(t *testing.T) {
	if n := len(load(t, "empty.toml").Zones()); n != len(rbl.Builtin().Zones()) {
		t.Errorf("%d zones", n)
	}
	if _, err := rbl.Load(filepath.Join(t.TempDir(), "none.toml")); !os.IsNotExist(unwrapped(err)) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestLoadBoundsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "big.toml")
	if err := os.WriteFile(file, []byte(strings.Repeat("#", 2<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rbl.Load(file); err == nil || !strings.Contains(err.Error(), "want a smaller file") {
		t.Errorf("%v", err)
	}
}

func unwrapped(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		if _, path := err.(*os.PathError); path {
			return err
		}
		err = u.Unwrap()
	}
}

func load(t *testing.T, name string) *rbl.Table {
	t.Helper()
	table, err := rbl.Load(filepath.Join("testdata", "load", "good", name))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// Each file says in its first lines what is wrong with it: all of that, and nothing
// else.
func TestLoadTellsEveryProblem(t *testing.T) {
	files, _ := filepath.Glob("testdata/load/bad/*.toml")
	if len(files) < 10 {
		t.Fatalf("%d files: are they there?", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = rbl.Load(file)
			problems, ok := err.(rbl.Problems)
			if !ok {
				t.Fatalf("no problems, but %v", err)
			}
			var wants []string
			for line := range strings.Lines(string(data)) {
				if want, found := strings.CutPrefix(line, "# want: "); found {
					wants = append(wants, strings.TrimSpace(want))
				}
			}
			if len(wants) == 0 || len(problems) != len(wants) {
				t.Errorf("%d problems, want %d:\n%v", len(problems), len(wants), err)
			}
			for _, want := range wants {
				if !slices.ContainsFunc(problems, func(p rbl.Problem) bool { return strings.Contains(p.String(), want) }) {
					t.Errorf("nobody tells %q:\n%v", want, err)
				}
			}
			if strings.Contains(strings.ToLower(err.Error()), "topsecret") {
				t.Errorf("a key is told:\n%v", err)
			}
		})
	}
}
