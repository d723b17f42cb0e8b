package sendmail_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/sendmail"
	"relayguard/policy"
)

// confTree is a configuration directory that no Sendmail runs with, and the guard's
// sockets.
type confTree struct {
	dir       string
	listeners []mta.Listener
}

// newConfTree copies a folder of testdata, whose texts have DIR where the directory
// of the configuration is to stand, and SOCKETS for that of the sockets.
func newConfTree(t *testing.T, name string) confTree {
	t.Helper()
	root, err := os.MkdirTemp("", "sm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	os.Chmod(root, 0o755)
	tr := confTree{dir: filepath.Join(root, "mail")}
	sockets := filepath.Join(root, "relayguard")
	for _, dir := range []string{tr.dir, sockets, filepath.Join(root, "queue"), filepath.Join(root, "client")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(root, "queue"), 0o750)
	os.Chmod(filepath.Join(root, "client"), 0o770)
	for _, role := range []policy.Role{policy.Submission, policy.Relay, policy.Local, policy.Inbound} {
		tr.listeners = append(tr.listeners, mta.Listener{Role: role, Network: "unix", Address: filepath.Join(sockets, role.String()+".sock")})
		l, err := net.Listen("unix", filepath.Join(sockets, role.String()+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		os.Chmod(filepath.Join(sockets, role.String()+".sock"), 0o600)
		t.Cleanup(func() { l.Close() })
	}
	from := filepath.Join("testdata", "setup", name)
	entries, err := os.ReadDir(from)
	if err != nil || len(entries) == 0 {
		t.Fatalf("no files in %s: %v", from, err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.NewReplacer("@DIR@", tr.dir, "@ROOT@", root).Replace(string(text)))
		if err := os.WriteFile(filepath.Join(tr.dir, e.Name()), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func (tr confTree) load(t *testing.T) *sendmail.Instance {
	t.Helper()
	i, err := sendmail.Load(t.Context(), sendmail.Tools{}, tr.dir)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// edit replaces a text in a file, which must be there.
func (tr confTree) edit(t *testing.T, name, old, with string) {
	t.Helper()
	path := filepath.Join(tr.dir, name)
	text, err := os.ReadFile(path)
	if err != nil && old != "" {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q", name, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, with, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func foundTexts(all []mta.Finding) []string {
	var texts []string
	for _, f := range all {
		texts = append(texts, fmt.Sprintf("%s %s %s", f.ID, f.Severity, filepath.Base(f.Where)))
	}
	return texts
}

// rules answers for Sendmail's own.
type fakeRules map[string]bool

func (r fakeRules) Relays(_ context.Context, _ *sendmail.Instance, from string) (bool, string, error) {
	for start, relays := range r {
		if strings.HasPrefix(from, start) {
			return relays, "it says so", nil
		}
	}
	return false, "$# error", nil
}

// Each bad configuration gives its finding and no other.
func TestInspectFindsEachWayRound(t *testing.T) {
	type edit struct{ file, old, with string }
	cf := func(old, with string) []edit { return []edit{{"sendmail.cf", old, with}} }
	const (
		smtp   = "O DaemonPortOptions=Name=MTA-v4, Family=inet, Port=smtp, InputMailFilters=relayguard-relay"
		submit = "O DaemonPortOptions=Name=MSP-v4, Family=inet, Port=submission, M=Ea, InputMailFilters=relayguard-submission"
		local  = "O DaemonPortOptions=Name=relayguard-local, Family=inet, Addr=127.0.0.1, Port=24, M=E, InputMailFilters=relayguard-local"
		relay  = "relay.sock, F=T, T=C:10s;S:10s;R:20s;E:120s"
	)
	for name, c := range map[string]struct {
		edits []edit
		rules fakeRules
		web   bool
		prep  func(t *testing.T, tr confTree)
		want  []string // ID Severity Where
	}{
		"nothing":                    {},
		"service without milters":    {edits: cf(smtp, "O DaemonPortOptions=Name=MTA-v4, Family=inet, Port=smtp"), want: []string{"service-unguarded critical MTA-v4"}},
		"service with others":        {edits: cf(smtp, "Xother, S=inet:8891@127.0.0.1, F=T\nO DaemonPortOptions=Name=MTA-v4, Family=inet, Port=smtp, I=other"), want: []string{"service-unguarded critical MTA-v4"}},
		"one more service":           {edits: cf(smtp, smtp+"\nO DaemonPortOptions=Name=more, Port=2525, InputMailFilters="), want: []string{"service-unguarded critical more"}},
		"service of one address":     {edits: cf(smtp, smtp+"\nO DaemonPortOptions=Name=more, Port=2525, Addr=192.0.2.7, M=A"), want: []string{"service-unguarded critical more"}},
		"inbound of one address":     {edits: cf(smtp, "Xin, S=unix:@ROOT@/relayguard/inbound.sock, F=T\n"+smtp+"\nO DaemonPortOptions=Name=more, Port=2525, Addr=192.0.2.7, M=A, InputMailFilters=in"), want: []string{"relay-as-inbound info more"}},
		"the option for all":         {edits: cf(smtp, "O InputMailFilters=relayguard-relay\nO DaemonPortOptions=Name=MTA-v4, Port=smtp")},
		"no flag":                    {edits: cf(relay, "relay.sock, T=R:20s"), want: []string{"default-accept critical MTA-v4"}},
		"refuses while away":         {edits: cf("F=T, T=C:10s;S:10s;R:20s;E:120s\nXrelayguard-sub", "F=R, T=R:20s\nXrelayguard-sub"), want: []string{"default-reject warning MTA-v4"}},
		"disconnects while away":     {edits: cf(relay, "relay.sock, F=4")},
		"not waited for":             {edits: cf(relay, "relay.sock, F=T, T=R:3s;E:1m"), want: []string{"timeout-short warning MTA-v4"}},
		"not first":                  {edits: cf(smtp, "Xother, S=inet:8891@127.0.0.1, F=T\n"+strings.Replace(smtp, "=relayguard-relay", "=other;relayguard-relay", 1)), want: []string{"guard-not-first warning MTA-v4"}},
		"undefined milter":           {edits: cf(smtp, smtp+";nosuch"), want: []string{"filter-undefined critical MTA-v4"}},
		"relay for submission":       {edits: cf(submit, strings.Replace(submit, "-submission", "-relay", 1)), want: []string{"wrong-role warning MSP-v4"}},
		"local for SMTP":             {edits: cf(smtp, strings.Replace(smtp, "-relay", "-local", 1)), want: []string{"wrong-role warning MTA-v4"}},
		"relay for local":            {edits: cf(local, strings.Replace(local, "Filters=relayguard-local", "Filters=relayguard-relay", 1)), want: []string{"wrong-role critical relayguard-local"}},
		"inbound, this machine":      {edits: cf(smtp, "Xin, S=unix:@ROOT@/relayguard/inbound.sock, F=T\n"+strings.Replace(smtp, "relayguard-relay", "in", 1)), want: []string{"relay-as-inbound info MTA-v4"}},
		"inbound, others too":        {edits: append(cf(smtp, "Xin, S=unix:@ROOT@/relayguard/inbound.sock, F=T\n"+strings.Replace(smtp, "relayguard-relay", "in", 1)), edit{"relay-domains", "", "192.0.2.7\n"}), want: []string{"relay-as-inbound critical MTA-v4"}},
		"local unguarded":            {edits: cf(local, "O DaemonPortOptions=Name=relayguard-local, Addr=127.0.0.1, Port=24, InputMailFilters="), want: []string{"local-unguarded critical relayguard-local"}},
		"local to port 25":           {edits: []edit{{"submit.cf", "A=TCP $h 24", "A=TCP $h"}}, want: []string{"wrong-role critical MTA-v4"}},
		"local to nobody":            {edits: []edit{{"submit.cf", "A=TCP $h 24", "A=TCP $h 26"}}, want: []string{"local-lost warning submit.cf"}},
		"local to a high port":       {edits: []edit{{"submit.cf", "A=TCP $h 24", "A=TCP $h 2424"}, {"sendmail.cf", "Port=24", "Port=2424"}}, want: []string{"local-port warning submit.cf"}},
		"local to another machine":   {edits: []edit{{"submit.cf", "D{MTAHost}[127.0.0.1]", "D{MTAHost}mailhub.example.jp"}}, want: []string{"local-unguarded critical submit.cf"}},
		"no submission program":      {prep: func(t *testing.T, tr confTree) { os.Remove(filepath.Join(tr.dir, "submit.cf")) }, want: []string{"local-unguarded critical submit.cf"}},
		"promiscuous":                {edits: cf("# options\n", "#####  $Id: promiscuous_relay.m4,v 8.13 2013-11-22 20:51:11 ca Exp $  #####\n"), rules: fakeRules{"": true}, want: []string{"open-relay critical sendmail.cf"}},
		"by sender":                  {edits: cf("# options\n", "#####  $Id: relay_local_from.m4,v 8.13 2013-11-22 20:51:11 ca Exp $  #####\n"), rules: fakeRules{"postmaster@": true}, want: []string{"relay-by-sender critical sendmail.cf"}},
		"by MX":                      {edits: cf("# options\n", "#####  $Id: relay_based_on_MX.m4,v 8.13 2013-11-22 20:51:11 ca Exp $  #####\n"), want: []string{"relay-by-mx warning sendmail.cf"}},
		"rules that relay":           {rules: fakeRules{"": true}, want: []string{"open-relay critical sendmail.cf"}},
		"rules that relay by sender": {rules: fakeRules{"postmaster@": true}, want: []string{"relay-by-sender critical sendmail.cf"}},
		"a top-level domain":         {edits: []edit{{"relay-domains", "", "jp\nexample.jp\n10\n"}}, want: []string{"relay-wide critical relay-domains"}},
		"a class A network":          {edits: []edit{{"access", "", "Connect:203\tRELAY\nConnect:10\tRELAY\nTo:example.org RELAY\nConnect:198\tREJECT\n"}}, want: []string{"relay-wide warning access"}},
		"AUTH in the clear":          {edits: cf("O AuthOptions=A,p", "O AuthOptions=A"), want: []string{"auth-without-tls critical MSP-v4", "auth-without-tls critical MTA-v4"}},
		"queue run by all":           {edits: cf(",restrictqrun", ""), want: []string{"queue-run-by-all warning sendmail.cf"}},
		"queue shown to all":         {edits: cf(",restrictmailq", ""), want: []string{"queue-shown-to-all info sendmail.cf"}},
		"expensive mailers":          {edits: cf("# options\n", "O HoldExpensive=True\n"), want: []string{"hold-expensive info sendmail.cf"}},
		"blame":                      {edits: cf("GroupWritableForwardFileSafe", "WorldWritableAliasFile"), want: []string{"dont-blame warning sendmail.cf"}},
		"queue open":                 {prep: func(t *testing.T, tr confTree) { os.Chmod(filepath.Join(filepath.Dir(tr.dir), "queue"), 0o757) }, want: []string{"queue-open critical queue"}},
		"queue readable":             {prep: func(t *testing.T, tr confTree) { os.Chmod(filepath.Join(filepath.Dir(tr.dir), "queue"), 0o755) }, want: []string{"queue-open warning queue"}},
		"source newer": {edits: []edit{{"sendmail.mc", "", "x"}}, prep: func(t *testing.T, tr confTree) {
			past := time.Now().Add(-time.Hour)
			os.Chtimes(filepath.Join(tr.dir, "sendmail.cf"), past, past)
		}, want: []string{"cf-stale warning sendmail.cf"}},
		"web node":                    {web: true, want: []string{"node-relayhost critical sendmail.cf"}},
		"web node with relay":         {web: true, edits: cf("# options\n", "DSrelay:[192.0.2.1]\n")},
		"socket directory of a group": {prep: func(t *testing.T, tr confTree) { os.Chmod(filepath.Dir(tr.listeners[0].Address), 0o775) }, want: []string{"socket-unsafe critical relayguard"}},
		"socket directory of all":     {prep: func(t *testing.T, tr confTree) { os.Chmod(filepath.Dir(tr.listeners[0].Address), 0o777) }, want: []string{"socket-exposed critical relayguard"}},
		"socket of all":               {prep: func(t *testing.T, tr confTree) { os.Chmod(tr.listeners[1].Address, 0o666) }, want: []string{"socket-exposed critical relayguard"}},
		"socket gone":                 {prep: func(t *testing.T, tr confTree) { os.Remove(tr.listeners[1].Address) }, want: []string{"socket-missing critical relay.sock"}},
		"unused socket gone":          {prep: func(t *testing.T, tr confTree) { os.Remove(tr.listeners[3].Address) }, want: []string{"socket-missing warning inbound.sock"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newConfTree(t, "guarded")
			root := filepath.Dir(tr.dir)
			for _, e := range c.edits {
				expand := strings.NewReplacer("@ROOT@", root)
				tr.edit(t, e.file, expand.Replace(e.old), expand.Replace(e.with))
			}
			if c.prep != nil {
				c.prep(t, tr)
			}
			got := sendmail.Inspect(t.Context(), sendmail.Inspection{Instance: tr.load(t), Listeners: tr.listeners, WebNode: c.web, Probe: c.rules})
			if !slices.Equal(foundTexts(got), c.want) {
				t.Errorf("got %q, want %q", foundTexts(got), c.want)
			}
			for _, f := range got {
				if f.What == "" || f.Why == "" || f.Remedy == "" {
					t.Errorf("%s says too little: %+v", f.ID, f)
				}
			}
		})
	}
}

// Sendmail relays for the machine's own addresses, also if it does not look at its
// interfaces: those of its host name are in class w all the same.
func TestInspectCountsTheMachinesOwnAddresses(t *testing.T) {
	for _, probe := range []string{"", "O DontProbeInterfaces=True\n", "O DontProbeInterfaces=loopback\n"} {
		tr := newConfTree(t, "guarded")
		tr.edit(t, "sendmail.cf", "# options\n", "# options\n"+probe+"O DaemonPortOptions=Name=more, Port=2525, Addr=192.0.2.7, M=A, InputMailFilters=\n")
		all := sendmail.Inspect(t.Context(), sendmail.Inspection{Instance: tr.load(t), Listeners: tr.listeners})
		i := slices.IndexFunc(all, func(f mta.Finding) bool { return f.ID == "service-unguarded" && f.Where == "more" })
		if i < 0 {
			t.Fatalf("%q: %v", probe, foundTexts(all))
		}
		if f := all[i]; f.Severity != mta.Critical || !strings.Contains(f.Why, "its own addresses") {
			t.Errorf("%q: %+v", probe, f)
		}
	}
}
