package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/dnstest"
)

var (
	ourAddr   = rbl.Subject{Addr: netip.MustParseAddr("203.0.113.5")}
	ourAddr6  = rbl.Subject{Addr: netip.MustParseAddr("2001:db8::25")}
	ourDomain = rbl.Subject{Name: "example.jp"}
)

// anAnswer is what a list said of a subject; a hit for each severity.
func anAnswer(s rbl.Subject, zone string, result rbl.Result, hits ...rbl.Hit) rbl.Answer {
	a := rbl.Answer{Zone: zone, Subject: s, Result: result, Hits: hits, Resolver: "127.0.0.1:53", At: noon}
	if result == rbl.Unknown || result == rbl.Refused {
		a.Why = "no answer within 5s"
	}
	return a
}

func aHit(severity rbl.Severity, scope rbl.Scope) rbl.Hit {
	return rbl.Hit{Code: netip.MustParseAddr("127.0.0.2"), Means: "spam source", Severity: severity, Scope: scope}
}

// aRound is what a check found about subjects.
func aRound(subjects []rbl.Subject, answers ...rbl.Answer) *rblChecked {
	found := &rblChecked{Resolvers: []string{"127.0.0.1:53"}, NotAsked: []rblNotAsked{}, Trouble: []string{}}
	found.take(check.Round{Began: noon, Took: 1500 * time.Millisecond, Queries: 42, Answers: answers}, subjects, nil)
	return found
}

// theRounds are what can be found, and what it means to who asks.
var theRounds = map[string]struct {
	found  func() *rblChecked
	allow  int
	code   int
	plugin int
	line   string // of the plugin
}{
	"clean": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr, ourDomain}, anAnswer(ourAddr, "a.example", rbl.Clean), anAnswer(ourDomain, "d.example", rbl.Clean))
	}, 0, exitFine, pluginOK, "RBL OK - 203.0.113.5 and 1 more not listed | listed=0 unknown=0 refused=0 clean=2 info=0"},
	"listed": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Listed, aHit(rbl.High, rbl.ScopeAddress)), anAnswer(ourAddr, "b.example", rbl.Clean))
	}, 0, exitFinding, pluginCritical, "RBL CRITICAL - 203.0.113.5 on a.example (high) | listed=1 unknown=0 refused=0 clean=1 info=0"},
	"listed on a small list": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Listed, aHit(rbl.Low, rbl.ScopeAddress)))
	}, 0, exitFinding, pluginWarning, "RBL WARNING - 203.0.113.5 on a.example (low) | listed=1 unknown=0 refused=0 clean=0 info=0"},
	"a range is never critical": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Listed, aHit(rbl.Critical, rbl.ScopeASN)))
	}, 0, exitFinding, pluginWarning, "RBL WARNING - 203.0.113.5 on a.example (critical, asn) | listed=1 unknown=0 refused=0 clean=0 info=0"},
	"an address beside a range": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Listed, aHit(rbl.Critical, rbl.ScopeRange), aHit(rbl.High, rbl.ScopeAddress)))
	}, 0, exitFinding, pluginCritical, "RBL CRITICAL - 203.0.113.5 on a.example (high), 203.0.113.5 on a.example (critical, range) | listed=1 unknown=0 refused=0 clean=0 info=0"},
	"info harms nobody": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "white.example", rbl.Listed, aHit(rbl.Info, rbl.ScopeAddress)))
	}, 0, exitFine, pluginOK, "RBL OK - 203.0.113.5 not listed | listed=0 unknown=0 refused=0 clean=0 info=1"},
	"unknown is not clean": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Clean), anAnswer(ourAddr, "b.example", rbl.Unknown))
	}, 0, exitCannotTell, pluginUnknown, "RBL UNKNOWN - 1 answer unknown, 0 refused | listed=0 unknown=1 refused=0 clean=1 info=0"},
	"unknown is not listed": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Clean), anAnswer(ourAddr, "b.example", rbl.Unknown))
	}, 1, exitFine, pluginOK, "RBL OK - 203.0.113.5 not listed | listed=0 unknown=1 refused=0 clean=1 info=0"},
	"refused is not clean": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Refused), anAnswer(ourAddr, "b.example", rbl.Unknown))
	}, 1, exitCannotTell, pluginUnknown, "RBL UNKNOWN - 1 answer unknown, 1 refused | listed=0 unknown=1 refused=1 clean=0 info=0"},
	"listed before unknown": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Unknown), anAnswer(ourAddr, "b.example", rbl.Listed, aHit(rbl.Medium, rbl.ScopeAddress)))
	}, 0, exitFinding, pluginWarning, "RBL WARNING - 203.0.113.5 on b.example (medium) | listed=1 unknown=1 refused=0 clean=0 info=0"},
	"a subject that no list takes": {func() *rblChecked {
		return aRound([]rbl.Subject{ourAddr, ourDomain}, anAnswer(ourAddr, "a.example", rbl.Clean))
	}, 0, exitCannotTell, pluginUnknown, "RBL UNKNOWN - of something no list was asked | listed=0 unknown=0 refused=0 clean=1 info=0"},
	"an address that sends may be missing": {func() *rblChecked {
		found := aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Clean))
		found.own, found.Unsure, found.Trouble = true, true, []string{"behind NAT"}
		return found
	}, 9, exitCannotTell, pluginUnknown, "RBL UNKNOWN - an address that sends may not have been checked: behind NAT | listed=0 unknown=0 refused=0 clean=1 info=0"},
	"a key that cannot be read": {func() *rblChecked {
		found := aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Clean))
		found.Unread = []string{"zone_key spamhaus: permission denied; its lists are not asked"}
		return found
	}, 9, exitCannotTell, pluginUnknown, "RBL UNKNOWN - zone_key spamhaus: permission denied; its lists are not asked | listed=0 unknown=0 refused=0 clean=1 info=0"},
	"domains alone say nothing of what sends": {func() *rblChecked {
		found := aRound([]rbl.Subject{ourDomain}, anAnswer(ourDomain, "d.example", rbl.Clean))
		found.own = true
		return found
	}, 0, exitCannotTell, pluginUnknown, "RBL UNKNOWN - it is not known which addresses send | listed=0 unknown=0 refused=0 clean=1 info=0"},
}

// display runs what shows something, as a command would.
func display(show func(*cobra.Command) error) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err := show(cmd)
	if exit, ok := err.(*exitError); ok {
		if code = exit.code; exit.err != nil {
			tell(&errs, exit.err)
		}
	}
	return code, out.String(), errs.String()
}

func TestRBLCheckExitsByWhatIsListedAndWhatIsNotKnown(t *testing.T) {
	for name, c := range theRounds {
		for _, f := range []rblCheck{{allowUnknown: c.allow}, {allowUnknown: c.allow, all: true}, {allowUnknown: c.allow, asJSON: true}} {
			code, stdout, stderr := display(func(cmd *cobra.Command) error { return f.show(cmd, c.found(), noon) })
			if code != c.code {
				t.Errorf("%s, %+v: exit %d, want %d; stdout %q, stderr %q", name, f, code, c.code, stdout, stderr)
			}
			if f.asJSON && !json.Valid([]byte(stdout)) {
				t.Errorf("%s: %q", name, stdout)
			}
		}
	}
}

func TestRBLCheckTellsMonitoringInOneLine(t *testing.T) {
	for name, c := range theRounds {
		line, code := c.found().plugin(c.allow)
		if line != c.line || code != c.plugin {
			t.Errorf("%s: exit %d, %q\nwant %d, %q", name, code, line, c.plugin, c.line)
		}
	}
}

func TestRBLPluginLineIsOneLineWithOneBarAndBounded(t *testing.T) {
	found := aRound([]rbl.Subject{{Name: "x|y=9;1"}}, anAnswer(rbl.Subject{Name: "x|y=9;1"}, hostile, rbl.Listed, aHit(rbl.High, rbl.ScopeAddress)))
	for range 200 {
		found.Answers = append(found.Answers, found.Answers[0])
	}
	line, _ := found.plugin(0)
	noTricks(t, "plugin", line)
	if strings.Count(line, "|") != 1 || len(line) > 500 || strings.Contains(line, "\n") {
		t.Errorf("%q", line)
	}
}

func TestRBLCheckListsWhatIsNotCleanTheWorstFirst(t *testing.T) {
	found := aRound([]rbl.Subject{ourAddr, ourAddr6},
		anAnswer(ourAddr, "clean.example", rbl.Clean),
		anAnswer(ourAddr, "white.example", rbl.Listed, aHit(rbl.Info, rbl.ScopeAddress)),
		anAnswer(ourAddr, "slow.example", rbl.Unknown),
		anAnswer(ourAddr, "range.example", rbl.Listed, aHit(rbl.Critical, rbl.ScopeRange)),
		anAnswer(ourAddr, "no.example", rbl.Refused),
		anAnswer(ourAddr6, "slow.example", rbl.Unknown),
		anAnswer(ourAddr6, "low.example", rbl.Listed, aHit(rbl.Low, rbl.ScopeAddress)),
		anAnswer(ourAddr6, "high.example", rbl.Listed, aHit(rbl.High, rbl.ScopeAddress)))
	_, stdout, stderr := display(func(cmd *cobra.Command) error { return (&rblCheck{}).show(cmd, found, noon) })
	var zones []string
	for line := range strings.Lines(stdout) {
		zones = append(zones, strings.Fields(line)[1])
	}
	if want := []string{"ZONE", "high.example", "low.example", "range.example", "no.example", "slow.example", "slow.example", "white.example"}; !slices.Equal(zones, want) {
		t.Errorf("zones %q, want %q in\n%s", zones, want, stdout)
	}
	for _, want := range []string{"203.0.113.5: its network on 1, harmless entry on 1, unknown on 1, refused by 1, clean on 1\n", "2001:db8::25: listed on 2, unknown on 1\n", "42 questions by 127.0.0.1:53 in 1.5s"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in %q", want, stderr)
		}
	}
	_, stdout, _ = display(func(cmd *cobra.Command) error { return (&rblCheck{all: true}).show(cmd, found, noon) })
	if !strings.Contains(stdout, "clean.example") {
		t.Errorf("--all leaves out what is clean:\n%s", stdout)
	}
}

func TestRBLCheckJoinsOnATerminalWhatAListSaysOfAll(t *testing.T) {
	rows := rblRows([]rbl.Answer{anAnswer(ourAddr, "slow.example", rbl.Unknown), anAnswer(ourAddr6, "slow.example", rbl.Unknown)}, false, true)
	if len(rows) != 1 || rows[0].more != 1 {
		t.Errorf("rows %+v", rows)
	}
}

func TestRBLCheckNamesListsThatCannotBeBelieved(t *testing.T) {
	found := aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Clean))
	found.Zones = []rbl.Health{
		{Zone: "a.example", Kind: rbl.IP4, State: rbl.Healthy},
		{Zone: "wild.example", Kind: rbl.IP4, State: rbl.Wild, Why: "it lists 127.0.0.1"}, {Zone: "wild.example", Kind: rbl.IP6, State: rbl.Wild, Why: "it lists 127.0.0.1"},
		{Zone: "half.example", Kind: rbl.IP4, State: rbl.Healthy}, {Zone: "half.example", Kind: rbl.IP6, State: rbl.Emptied},
	}
	found.NotAsked = []rblNotAsked{{"zen.example", "free for non-commercial use only", true}, {"small.example", "it wants a key", false}}
	found.remarks, found.Trouble = []string{"zone_key spamhaus: cannot be read"}, []string{"behind NAT: set rbl.addresses"}
	_, _, stderr := display(func(cmd *cobra.Command) error { return (&rblCheck{}).show(cmd, found, noon) })
	for _, want := range []string{"not believed: wild.example (ip4, ip6) is wild: it lists 127.0.0.1\n", "not believed: half.example (ip6) is emptied\n",
		"not asked: zen.example: free for non-commercial use only\n", "not asked: 1 list more, for want of a key or by their terms", "zone_key spamhaus: cannot be read\n", "behind NAT: set rbl.addresses\n"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in %q", want, stderr)
		}
	}
	if strings.Contains(stderr, "a.example (") {
		t.Errorf("a healthy list is named: %q", stderr)
	}
}

func TestRBLCheckJoinsListsThatAreAllInOneState(t *testing.T) {
	found := aRound([]rbl.Subject{ourAddr}, anAnswer(ourAddr, "a.example", rbl.Clean))
	for i := range 40 {
		found.Zones = append(found.Zones, rbl.Health{Zone: number(i) + ".example", State: rbl.Silent, Why: "timeout " + number(i)})
	}
	_, _, stderr := display(func(cmd *cobra.Command) error { return (&rblCheck{}).show(cmd, found, noon) })
	if strings.Count(stderr, "not believed") != 1 || !strings.Contains(stderr, "not believed: 40 lists are silent: 0.example, ") || !strings.Contains(stderr, "the first: timeout 0\n") {
		t.Errorf("%q", stderr)
	}
}

func TestRBLWrongCommandLinesExit2(t *testing.T) {
	d := newFakeDaemon(t)
	for line, says := range map[string]string{
		"rbl chek":                                     `relayguard rbl has no command "chek"`,
		"rbl check no_address_or_domain":               `"no_address_or_domain" is neither an address nor a domain`,
		"rbl check 203.0.113.256":                      "neither an address nor a domain",
		"rbl check fe80::1%eth0":                       "leave out the zone behind the %",
		"rbl check 203.0.113.0/24":                     "neither an address nor a domain",
		"rbl check 192.168.7.9":                        "192.168.7.9 is not seen outside",
		"rbl check 203.0.113.5 10.0.0.1":               "10.0.0.1 is not seen outside",
		"rbl check 100.64.0.1":                         "is not seen outside",
		"rbl check fd00::1":                            "is not seen outside",
		"rbl check localhost.localdomain":              "no list can know it",
		"rbl check server.ad.corp":                     "no list can know it",
		"rbl addresses --trust":                        "--trust goes with --learn only",
		"rbl check 203.0.113.5 --allow-unknown=-1":     "--allow-unknown: got -1, want at least 0",
		"rbl check 203.0.113.5 --resolver dns":         `--resolver: got "dns", want an address such as 127.0.0.1:53`,
		"rbl check 203.0.113.5 --zone nowhere.example": "--zone: ",
		"rbl check --nope":                             "unknown flag: --nope",
		"rbl status surplus":                           `takes no argument "surplus"`,
		"rbl history --since yesteryear":               "yesteryear",
		"rbl history --limit 0":                        "--limit: got 0, want 1 to 10000",
		"rbl history --subject x":                      "--subject: ",
		"rbl history --since 2d --until 3d":            "--until is not after --since",
		"rbl zones --all --dead":                       "do not go together",
		"rbl addresses --learn a --forget b":           "do not go together",
		"rbl addresses --forget nobody":                `--forget: got "nobody", want an address`,
		"rbl addresses --learn=":                       "--learn: name a file",
	} {
		code, stdout, stderr := d.run(strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want 2 and %q", line, code, stdout, stderr, says)
		}
	}
	if asked := d.lastAsked(""); asked != "" {
		t.Errorf("a wrong command line was sent to the daemon: %s", asked)
	}
}

func TestRBLCheckForMonitoringSaysEveryErrorAsUnknown(t *testing.T) {
	d := newFakeDaemon(t)
	for _, line := range []string{"rbl check --nagios 203.0.113.256", "rbl check --nagios --json 203.0.113.5", "rbl check --nagios 192.168.7.9", "rbl check --nagios server.ad.corp", "rbl check --nagios 203.0.113.5 --zone nowhere.example", "rbl check --nagios --config /nonexistent/relayguard.toml"} {
		args := strings.Fields(line)
		if !slices.Contains(args, "--config") {
			args = append(args, "--config", d.config)
		}
		code, stdout, stderr := runIn(t, args...)
		if code != pluginUnknown || !strings.HasPrefix(stdout, "RBL UNKNOWN - ") || strings.Count(stdout, "\n") != 1 || stderr != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
}

// listsOf writes a configuration that asks these lists only, by a name server of the
// test.
func listsOf(t *testing.T, zones string, more string, h dnstest.Handler) (config string, server *dnstest.Fake) {
	t.Helper()
	config, _ = commandDir(t)
	file := filepath.Join(filepath.Dir(config), "zones.toml")
	if err := os.WriteFile(file, []byte("replace = true\n"+zones), 0o600); err != nil {
		t.Fatal(err)
	}
	server = dnstest.StartFake(t, h)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "[rbl]\nzones_file = \""+file+"\"\nresolvers = [\""+server.Addr+"\"]\ntimeout = \"2s\"\n"+more...)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return config, server
}

// twoLists are two small lists of addresses; the second is asked with a key.
const twoLists = `
[[zone]]
name = "bl.example"
operator = "Bl"
kinds = ["ip4"]
severity = "high"
scope = "ip"
default = "on"
status = "verified"

[[zone]]
name = "bl.keyed.example"
operator = "Keyed"
kinds = ["ip4"]
severity = "medium"
scope = "ip"
default = "key"
key = "keyed"
status = "verified"
`

// zonesOfTest are those lists as a name server has them; ours is on both.
func zonesOfTest(key string) dnstest.Handler {
	keyed := "bl.keyed.example."
	return dnstest.Records(
		"bl.example. SOA ns.invalid. hostmaster.invalid. 1 2 3 4 5", "2.0.0.127.bl.example. A 127.0.0.2", "5.113.0.203.bl.example. A 127.0.0.2", `5.113.0.203.bl.example. TXT "seen on 2026-03-02"`,
		keyed+" SOA ns.invalid. hostmaster.invalid. 1 2 3 4 5", "2.0.0.127."+key+"."+keyed+" A 127.0.0.2", "5.113.0.203."+key+"."+keyed+" A 127.0.0.2", "5.113.0.203."+key+"."+keyed+` TXT "`+key+` was asked"`)
}

func TestRBLCheckAsksListsAndNeverShowsAKey(t *testing.T) {
	const key = "s3cretkeys3cretkey"
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config, server := listsOf(t, twoLists, "[[zone_key]]\noperator = \"keyed\"\nfile = \""+keyFile+"\"\n", zonesOfTest(key))
	for _, flags := range []string{"", "--json", "--all", "--nagios", "--zone bl.keyed.example"} {
		code, stdout, stderr := runIn(t, append([]string{"rbl", "check", "203.0.113.5", "--config", config}, strings.Fields(flags)...)...)
		if want := map[bool]int{false: exitFinding, true: pluginCritical}[flags == "--nagios"]; code != want || !strings.Contains(stdout, "bl.keyed.example") {
			t.Errorf("%s: exit %d, want %d; stdout %q, stderr %q", flags, code, want, stdout, stderr)
		}
		if strings.Contains(stdout+stderr, key) {
			t.Errorf("%s: the key is shown: stdout %q, stderr %q", flags, stdout, stderr)
		}
		if flags == "" && !strings.Contains(stdout, "seen on 2026-03-02") {
			t.Errorf("the list's own words are not there: %q", stdout)
		}
	}
	if !slices.ContainsFunc(server.Asked(), func(q dnstest.Query) bool { return q.Name == "5.113.0.203."+key+".bl.keyed.example" }) {
		t.Error("it was not asked with the key")
	}
	code, stdout, stderr := runIn(t, "rbl", "check", "203.0.113.9", "--config", config)
	if code != exitFine || stdout != "" || !strings.Contains(stderr, "203.0.113.9: clean on 2") {
		t.Errorf("clean: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestRBLCheckWithoutArgumentsAsksAboutWhatReallySends(t *testing.T) {
	config, _ := listsOf(t, twoLists, "from_mta = false\naddresses = [\"203.0.113.5\"]\n[inside]\nfrom_mta = false\ndomains = [\"example.jp\"]\n", zonesOfTest("nokey"))
	code, stdout, stderr := runIn(t, "rbl", "check", "--json", "--config", config)
	var found rblChecked
	if err := json.Unmarshal([]byte(stdout), &found); err != nil {
		t.Fatalf("%v in stdout %q, stderr %q", err, stdout, stderr)
	}
	if code != exitFinding || len(found.Subjects) == 0 || found.Subjects[0].Subject != ourAddr || found.Subjects[0].How != "rbl.addresses" || found.Subjects[0].Listed != 1 {
		t.Errorf("exit %d, %+v", code, found.Subjects)
	}
}

func TestRBLCheckBelievesNoListThatHasNotItsTestEntries(t *testing.T) {
	config, _ := listsOf(t, twoLists, "", dnstest.Records("bl.example. SOA ns.invalid. hostmaster.invalid. 1 2 3 4 5"))
	code, stdout, stderr := runIn(t, "rbl", "check", "203.0.113.5", "--config", config)
	if code != exitCannotTell || !strings.Contains(stdout, "unknown") || !strings.Contains(stderr, "not believed: bl.example (ip4) is emptied") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if !strings.Contains(stderr, "not asked: 1 list more") {
		t.Errorf("a list that wants a key is not named: %q", stderr)
	}
	code, _, stderr = runIn(t, "rbl", "check", "203.0.113.5", "--config", config, "--zone", "bl.keyed.example")
	if code != exitUsage || !strings.Contains(stderr, "bl.keyed.example is not asked: ") {
		t.Errorf("a list named without its key: exit %d, %q", code, stderr)
	}
	if code, _, stderr = runIn(t, "rbl", "check", "203.0.113.5", "--config", config, "--allow-unknown", "1"); code != exitFine {
		t.Errorf("--allow-unknown: exit %d, %q", code, stderr)
	}
}

// Others than root cannot read the keys of lists: what those would say is not known.
func TestRBLCheckCannotTellWithoutAKeyThatIsConfigured(t *testing.T) {
	config, _ := listsOf(t, twoLists, "[[zone_key]]\noperator = \"keyed\"\nfile = \"/nowhere/key\"\n", zonesOfTest("nokey"))
	code, _, stderr := runIn(t, "rbl", "check", "203.0.113.9", "--config", config, "--allow-unknown", "5")
	if code != exitCannotTell || !strings.Contains(stderr, "zone_key keyed: ") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	code, stdout, _ := runIn(t, "rbl", "check", "203.0.113.9", "--config", config, "--nagios")
	if code != pluginUnknown || !strings.Contains(stdout, "zone_key keyed: ") {
		t.Errorf("monitoring: exit %d, stdout %q", code, stdout)
	}
	if code, _, stderr = runIn(t, "rbl", "check", "203.0.113.9", "--config", config, "--zone", "bl.example"); code != exitFine {
		t.Errorf("a list that wants no key: exit %d, stderr %q", code, stderr)
	}
}

// It asks what the daemon asks, registered domains too.
func TestRBLCheckWithoutArgumentsAsksAboutRegisteredDomains(t *testing.T) {
	config, _ := listsOf(t, twoLists, "from_mta = false\naddresses = [\"203.0.113.9\"]\ndomains = [\"mail.shop.example.jp\"]\n[inside]\nfrom_mta = false\ndomains = [\"example.net\"]\n", zonesOfTest("nokey"))
	_, stdout, stderr := runIn(t, "rbl", "check", "--json", "--config", config)
	var found rblChecked
	if err := json.Unmarshal([]byte(stdout), &found); err != nil {
		t.Fatalf("%v in stdout %q, stderr %q", err, stdout, stderr)
	}
	how := map[string]string{}
	for _, s := range found.Subjects {
		how[s.Subject.String()] = s.How
	}
	if how["mail.shop.example.jp"] != "sending domain" || how["example.jp"] != "registered domain of mail.shop.example.jp" {
		t.Errorf("%q", how)
	}
}

func TestRBLCheckSaysUnknownWhileWhatSendsIsNotKnown(t *testing.T) {
	config, _ := listsOf(t, twoLists, "from_mta = true\ndomains = [\"example.jp\"]\n[inside]\nfrom_mta = false\ndomains = [\"example.net\"]\n[mta]\nconfig_directory = \"/nowhere\"\n", zonesOfTest("nokey"))
	code, stdout, stderr := runIn(t, "rbl", "check", "--config", config, "--nagios", "--allow-unknown", "50")
	if code != pluginUnknown || !strings.Contains(stdout, "an address that sends may not have been checked") && !strings.Contains(stdout, "it is not known which addresses send") || !strings.Contains(stdout, "rbl.from_mta") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
