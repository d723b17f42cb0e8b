package config_test

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/forward/ledger"
	"relayguard/policy"
	"relayguard/policy/origin"
)

var update = flag.Bool("update", false, "rewrite expected messages and the packaged example")

// glob finds case files; none is a failure, not a pass.
func glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("cases %s: %d files, %v", pattern, len(files), err)
	}
	return files
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const wantMark = "# want: "

// messages are the problems of a file, without its name.
func messages(t *testing.T, data []byte) []string {
	t.Helper()
	_, err := config.Parse("FILE", data)
	if err == nil {
		return nil
	}
	var problems config.Errors
	if !errors.As(err, &problems) {
		t.Fatalf("error is a %T: %v", err, err)
	}
	var all []string
	for _, line := range strings.Split(err.Error(), "\n") {
		all = append(all, strings.TrimPrefix(line, "FILE:"))
	}
	return all
}

// TestBadFails: each file of testdata/bad begins with the problems that it has,
// all of them.
func TestBadFails(t *testing.T) {
	for _, file := range glob(t, "testdata/bad/*.toml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			data := read(t, file)
			if *update {
				data = withWants(t, data)
				if err := os.WriteFile(file, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, _ := cutWants(data)
			if len(want) == 0 {
				t.Fatalf("%s does not say what it wants", file)
			}
			got := messages(t, data)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func cutWants(data []byte) (want []string, body []byte) {
	for bytes.HasPrefix(data, []byte(wantMark)) {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		want, data = append(want, strings.TrimPrefix(string(line), wantMark)), rest
	}
	return want, data
}

// withWants writes the problems anew: with as many lines above as there are to
// be, so that line numbers agree.
func withWants(t *testing.T, data []byte) []byte {
	_, body := cutWants(data)
	n := len(messages(t, body))
	got := messages(t, append([]byte(strings.Repeat(wantMark+"\n", n)), body...))
	var b strings.Builder
	for _, line := range got {
		b.WriteString(wantMark + line + "\n")
	}
	return append([]byte(b.String()), body...)
}

func TestGoodPasses(t *testing.T) {
	for _, file := range glob(t, "testdata/good/*.toml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			if _, err := config.Load(file); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSigningNode: a web node's file needs no more than its name and key.
func TestSigningNode(t *testing.T) {
	c, err := config.Load("testdata/good/sign.toml")
	if want := (config.Sign{Node: "web3", KeyFile: "/etc/relayguard/node.key"}); err != nil || c.Sign != want {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	_, err := config.Load("testdata/none.toml")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "testdata/none.toml") {
		t.Errorf("got %v", err)
	}
}

func TestEmptyFileIsDefault(t *testing.T) {
	for _, data := range []string{"", "\n", "# nothing\r\n", "[milter]\n[address]\n"} {
		got, err := config.Parse("empty", []byte(data))
		if err != nil || !reflect.DeepEqual(got, config.Default()) {
			t.Errorf("%q: got %+v, %v", data, got, err)
		}
	}
}

// TestUnreadableBytes has the cases that cannot be files with a comment above.
func TestUnreadableBytes(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"byte order mark": {"\xef\xbb\xbfphase = \"learning\"\n", `x:1:1: found a byte order mark, want plain UTF-8; save the file without it`},
		"latin 1":         {"\n# caf\xe9\n", `x:2:6: found the byte 0xe9, want UTF-8; save the file as UTF-8`},
		"too large":       {strings.Repeat("#\n", 1<<20), `x:1:1: found more than 1048576 bytes, want a smaller file; put long lists of addresses into files named by address.files`},
	} {
		if _, err := config.Parse("x", []byte(c.data)); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestNoiseIsBounded(t *testing.T) {
	_, err := config.Parse("x", []byte(strings.Repeat("]\n", 100_000)))
	var problems config.Errors
	if !errors.As(err, &problems) || len(problems) > 101 {
		t.Errorf("got %d problems", len(problems))
	}
}

func TestMessagesAreSafeToPrint(t *testing.T) {
	_, err := config.Parse("a\x1b]0;b\n", []byte("phase = \"\\u001b[31m\u202e\"\n\"\\u001b\" = 1\n[address.logins]\n\"\\u0007\" = [\"\\u001b\"]\n[\"\\u001b\"]\n\"\x1b\" = 1\n"))
	for _, line := range strings.Split(err.Error(), "\n") {
		if regexp.MustCompile(`[\x00-\x1f\x7f]|\x{202e}`).MatchString(line) {
			t.Errorf("unescaped: %q", line)
		}
	}
}

func TestValues(t *testing.T) {
	c, err := config.Load("testdata/good/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	l := c.Listeners[1]
	for _, v := range []struct{ got, want any }{
		{c.Phase.String(), "enforce"},
		{c.Milter.IdleTimeout.String(), "1h30m0s"},
		{c.Log.Level.String(), "WARN"},
		{l.Endpoint.Network(), "tcp"},
		{l.Endpoint.Address(), "[::]:8892"},
		{l.Group, ""},
		{l.Peers, []string{"postfix"}},
		{l.Allow[0].String(), "192.0.2.0/24"},
		{c.Networks[0].Prefixes[1].String(), "2001:db8::7/128"},
		{c.Certificates[0].Login, "printer@example.jp"},
		{c.MTA.Log, config.LogJournal},
		{c.Local.SharedUsers, []string{"www-data", "php"}},
		{c.Hold.OriginBytes, int64(50_000_000)},
		{c.Hold.Grace, 72 * time.Hour},
		{c.Journal.KeepAddresses, 14 * 24 * time.Hour},
		{c.Journal.KeepTotals, 400 * 24 * time.Hour},
		{c.Control.InspectGroup, "privacy"},
		{c.Alert.Syslog, false},
		{c.Limits, []config.Limit{
			{
				Name: "login-volume", Per: []string{"login"}, Counts: "recipients", Kind: "volume", Then: policy.Hold,
				Windows: []config.Window{{200, time.Hour}, {1000, 24 * time.Hour}, {5000, 31 * 24 * time.Hour}},
				Burst:   config.Window{200, 5 * time.Minute}, Recipients: "outside", Warn: 80, ClientBits4: 32, ClientBits6: 64,
			},
			{
				Name: "newsletter-server-2", Per: []string{"network"}, Counts: "messages", Kind: "abuse", Then: policy.Defer, Observe: true,
				Windows: []config.Window{{100_000, 24 * time.Hour}}, Recipients: "all", Warn: 80, ClientBits4: 32, ClientBits6: 64,
			},
			{
				Name: "night-bytes", Per: []string{"client", "recipient_domain"}, Counts: "bytes", Kind: "volume", Then: policy.Tell,
				Windows: []config.Window{{100_000_000, time.Hour}, {2_000_000_000, 24 * time.Hour}}, Burst: config.Window{100_000_000, time.Minute},
				Recipients: "inside", Warn: 50, ClientBits4: 24, ClientBits6: 56,
				When: config.When{
					Origins: []string{"login:*@example.jp", "local_user:www-data", "network:web*", "customer:acme", "plugin:contact-form", "node:web*", "template:*"},
					MinSize: 1_000_000, MaxSize: 20_000_000, MinRecipients: 2, MaxRecipients: 50,
					Hours:  []config.Hours{{From: 22 * 60, To: 6*60 + 30}, {From: 12 * 60, To: 24 * 60}},
					Days:   []time.Weekday{time.Saturday, time.Sunday},
					Header: []string{"list-id"}, NoHeader: []string{"x-spam", "auto-submitted"},
				},
			},
			{
				Name: "bounces", Per: []string{"account"}, Counts: "bounces", Kind: "abuse", Then: policy.Hold,
				Windows: []config.Window{{100, 24 * time.Hour}}, Recipients: "outside", Warn: 80, ClientBits4: 32, ClientBits6: 64,
			},
			{
				Name: "new-friends", Per: []string{"plugin"}, Counts: "first_time", Kind: "volume", Then: policy.Hold,
				Windows: []config.Window{{100, 24 * time.Hour}}, Recipients: "outside", Warn: 80, ClientBits4: 32, ClientBits6: 64,
			},
			{
				Name: "forms", Per: []string{"template"}, Counts: "first_time", Kind: "abuse", Then: policy.Hold,
				Windows: []config.Window{{60, 24 * time.Hour}}, Recipients: "outside", Warn: 80, ClientBits4: 32, ClientBits6: 64,
				Adapt: config.Window{4, 14 * 24 * time.Hour}, When: config.When{Origins: []string{"local_user:*", "node:web-3"}},
			},
		}},
		{c.Milter.MaxBodyBytes, 65_536},
		{c.Origin, config.Origin{
			CallSocket: "/run/relayguard-call/ask", CallTimeout: 250 * time.Millisecond, Fingerprints: "/etc/relayguard/fingerprints.toml",
			MaxPlugins: 80, TemplateParts: 500_000, BoilerplateDays: 2,
		}},
		{c.Sign, config.Sign{}},
		{c.Nodes, []config.Node{
			{Name: "web-3", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.13/32"), netip.MustParsePrefix("2001:db8::/64")}, KeyFile: "/etc/relayguard/web-3.key"},
			{Name: "web-4", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/29"), netip.MustParsePrefix("192.0.2.7/32")}, KeyFile: "/etc/relayguard/web-4.key"},
		}},
		{c.Inside.Free, true},
		{c.Overrides[0], config.Override{
			Limit: "login-volume", For: "login:newsletter@example.jp", Windows: []config.Window{{2000, time.Hour}, {8000, 24 * time.Hour}}, Burst: config.Window{2000, 10 * time.Minute},
			Until: time.Date(2027, time.April, 1, 0, 0, 0, 0, time.Local), Reason: "month's end",
		}},
		{c.Overrides[1].Until, time.Time{}},
		{c.Overrides[1].For, "key:login:a@example.jp recipient_domain:example.org"},
		{c.Overrides[2].Until.UTC(), time.Date(2020, time.March, 31, 9, 0, 0, 500_000_000, time.UTC)}, // past: accepted
		{c.Overrides[3].Until, time.Date(2027, time.March, 31, 18, 0, 0, 0, time.Local)},
		{c.Overrides[3].Windows[0], config.Window{500_000_000, time.Hour}},
		{c.Customers[0], config.Customer{
			Name: "acme", Logins: []string{"boss@example.org"}, Domains: []string{"example.org", "example.net"},
			LocalUsers: []string{"site12"}, Sites: []string{"shop.example.jp"}, Networks: []string{"web-1"},
		}},
		{c.Store, config.Store{Kind: config.StoreRedis, MaxBuckets: 2_000_000, DistinctExact: 500, KnownPerAccount: 10_000, Known: 1_000_000}},
		{c.Redis, config.Redis{
			Mode: "sentinel", Addresses: []string{"127.0.0.1:26379", "[2001:db8::7]:26379", "sentinel-3.example.jp:26379"}, Master: "mymaster", User: "relayguard",
			PasswordFile: "/etc/relayguard/redis.password", SentinelPasswordFile: "/etc/relayguard/sentinel.password", ItemsKeyFile: "/etc/relayguard/items.key", Database: 3, TLS: true, CAFile: "/etc/relayguard/redis-ca.pem",
			Prefix: "rg-2", Timeout: 80 * time.Millisecond, Share: 34, LocalUsers: "shared", Relay: "mx1.example.jp",
		}},
		{c.Redis.Remote(), []string{"[2001:db8::7]:26379", "sentinel-3.example.jp:26379"}},
		{c.Hold.Release, false},
		{c.Hold.MaxAge, 6 * time.Hour},
		{c.Hold.BouncePercent, 10},
		{c.Hold.RemindAfter, 48 * time.Hour},
		{c.Hold.DeleteAfter, 14 * 24 * time.Hour},
		{c.Address.Logins, map[string][]string{
			"taro@example.jp": {"info@example.jp", "@example.org", "*"},
			"hanako":          {"Hanako@example.jp"},
		}},
	} {
		if !reflect.DeepEqual(v.got, v.want) {
			t.Errorf("got %v, want %v", v.got, v.want)
		}
	}
	if _, errs := origin.NewNetworks(c.Networks); len(errs) > 0 {
		t.Error(errs)
	}
}

// TestExampleUncommented: what the example file shows when its keys are
// uncommented is valid, and means the defaults and the samples.
func TestExampleUncommented(t *testing.T) {
	got, err := config.Parse("example", []byte(uncommented(config.Example())))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Networks) == 0 || len(got.Certificates) == 0 || len(got.Address.Logins) == 0 || len(got.Overrides) == 0 || len(got.Customers) == 0 || len(got.Nodes) == 0 || len(got.Databases) == 0 || len(got.ZoneKeys) == 0 {
		t.Errorf("no sample of a network, a certificate, a login, an override, a customer, a node, a database or a zone's key")
	}
	got.Networks, got.Certificates, got.Address.Logins, got.Overrides, got.Customers, got.Nodes, got.Databases, got.ZoneKeys = nil, nil, nil, nil, nil, nil, nil, nil
	if !reflect.DeepEqual(got, config.Default()) {
		t.Errorf("got %+v\nwant %+v", got, config.Default())
	}
}

func uncommented(s string) string {
	return regexp.MustCompile(`(?m)^#([^ \n])`).ReplaceAllString(s, "$1")
}

func TestExampleIsDefault(t *testing.T) {
	got, err := config.Parse("example", []byte(config.Example()))
	if err != nil || !reflect.DeepEqual(got, config.Default()) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPackagedFileIsExample(t *testing.T) {
	const file = "../../../packaging/relayguard.toml"
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(config.Example()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if string(read(t, file)) != config.Example() {
		t.Errorf("%s is not what Example says: go test ./cmd/internal/config -update", file)
	}
}

// TestKeysAreDocumentedOnce compares keys with the example file both ways.
func TestKeysAreDocumentedOnce(t *testing.T) {
	in := map[string]bool{}
	section := ""
	for _, line := range strings.Split(config.Example(), "\n") {
		if m := regexp.MustCompile(`^#?\[+([a-z_.]+)\]+$`).FindStringSubmatch(line); m != nil {
			section = m[1] + "."
			in[m[1]] = true
		} else if m := regexp.MustCompile(`^#([a-z_0-9]+) = `).FindStringSubmatch(line); m != nil {
			in[section+m[1]] = true
		}
	}
	seen := map[string]bool{}
	for _, s := range config.Sections() {
		delete(in, s.Name)
	}
	for _, k := range config.Keys() {
		if seen[k.Name] {
			t.Errorf("%s: twice in Keys", k.Name)
		}
		seen[k.Name] = true
		if !in[k.Name] {
			t.Errorf("%s: not in the example", k.Name)
		}
		delete(in, k.Name)
		if k.Type == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: type %q, doc %q", k.Name, k.Type, k.Doc)
		}
		if k.Required != (k.Default == "") && k.Name != "address.logins" {
			t.Errorf("%s: default %q, required %v", k.Name, k.Default, k.Required)
		}
	}
	for name := range in {
		t.Errorf("%s: in the example, but no key", name)
	}
}

// TestKeysFillTheStruct counts: each field of Config has its key.
func TestKeysFillTheStruct(t *testing.T) {
	want := len(config.Keys())
	if got := leaves(reflect.TypeFor[config.Config]()); got != want {
		t.Errorf("%d fields, %d keys", got, want)
	}
}

func leaves(typ reflect.Type) int {
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ == reflect.TypeFor[map[ledger.Class]ledger.Action]() { // a section of its own
		return len(ledger.Classes())
	}
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[config.Endpoint]() || typ == reflect.TypeFor[config.Window]() || typ == reflect.TypeFor[config.Hours]() || typ == reflect.TypeFor[time.Time]() || typ.PkgPath() == "net/netip" {
		return 1
	}
	n := 0
	for i := range typ.NumField() {
		n += leaves(typ.Field(i).Type)
	}
	return n
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.toml", "testdata/good/*.toml"} {
		for _, file := range glob(f, pattern) {
			f.Add(read(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("x", data)
		if err == nil {
			if len(c.Listeners) == 0 || len(c.Limits) == 0 || c.Milter.DecisionTimeout <= 0 {
				t.Fatalf("accepted, but %+v", c)
			}
			return
		}
		var problems config.Errors
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("%T without problems", err)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Found == "" || p.Wanted == "" || strings.ContainsAny(p.String(), "\n\r\x1b") {
				t.Fatalf("problem %+v", p)
			}
		}
	})
}
