package judge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
)

// parse makes rules of lines "OWNER MECHANISM TARGET [copy] [nexthop|program|...]".
func parse(t testing.TB, text string) []forward.Rule {
	t.Helper()
	var rules []forward.Rule
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if len(f) < 3 {
			t.Fatalf("rule %q", line)
		}
		r := forward.Rule{Owner: f[0], Mechanism: forward.Mechanism(f[1]), Target: strings.ReplaceAll(f[2], "_", " "), Mode: forward.Redirect, Source: "place", Line: i + 1, UID: forward.NoUID}
		for _, word := range f[3:] {
			switch word {
			case "copy":
				r.Mode = forward.Copy
			case "nexthop":
				r.Kind = forward.NextHop
			case "program":
				r.Kind = forward.Program
			case "file":
				r.Kind = forward.File
			case "asked":
				r.Kind = forward.Asked
			case "digest":
				r.Digest = "abc"
			case "sender":
				r.Sender = true
			case "dormant":
				r.Dormant = "not active"
			case "broken":
				r.Broken = "no such file"
			case "differs":
				r.Differs = "compiled form has it, the text has not"
			default:
				t.Fatalf("word %q", word)
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// say writes findings as "owner mechanism target verdict mode [a>b]".
func say(list []forward.Finding) []string {
	var all []string
	for _, f := range list {
		s := fmt.Sprintf("%s %s %s %s %s", f.Owner, f.Mechanism, strings.ReplaceAll(f.Target, " ", "_"), f.Verdict, f.Mode)
		if !f.Direct() {
			s += " " + strings.Join(f.Chain, ">")
		}
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

func expect(t *testing.T, got []forward.Finding, want string) {
	t.Helper()
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(want), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	if s := say(got); !slices.Equal(s, lines) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(s, "\n  "), strings.Join(lines, "\n  "))
	}
}

func graphOf(t testing.TB, rules string) *judge.Graph {
	g := judge.New(corpWorld())
	g.Load(map[string][]forward.Rule{"unit": parse(t, rules)})
	return g
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct{ rules, want string }{
		"inside":                        {"alice aliases bob", ""},
		"outside":                       {"alice aliases Eve@EVIL.test", "alice aliases Eve@evil.test outside redirect"},
		"copy":                          {"alice aliases eve@evil.test copy", "alice aliases eve@evil.test outside copy"},
		"percent":                       {"alice aliases eve%evil.test@corp.test", "alice aliases eve@evil.test outside redirect"},
		"subdomain":                     {"alice aliases a@sub.corp.test", "alice aliases a@sub.corp.test outside redirect"},
		"domain unknown":                {"alice sieve eve@\uFFFC", "alice sieve eve@\uFFFC dynamic redirect"},
		"all unknown":                   {"alice sieve \uFFFC", "alice sieve \uFFFC dynamic redirect"},
		"local part unknown":            {"alice sieve x\uFFFC@EVIL.test", "alice sieve x\uFFFC@evil.test dynamic-outside redirect"},
		"local part unknown, inside":    {"alice sieve x\uFFFC@corp.test", ""},
		"whole domain":                  {"@virt.test virtual @evil.test", "@virt.test virtual @evil.test outside redirect"},
		"whole domain, as others write": {"@virt.test virtual \uFFFC@evil.test", "@virt.test virtual @evil.test outside redirect"},
		"anybody by a pattern":          {"* virtual \uFFFC@evil.test", "* virtual \uFFFC@evil.test dynamic-outside redirect"},
		"keeps the local part":          {"bob@virt.test virtual @evil.test", "bob@virt.test virtual bob@evil.test outside redirect"},
		"program":                       {"alice forward /home/a/x.sh program", "alice forward /home/a/x.sh opaque redirect"},
		"delivery agent":                {"alice forward /usr/bin/procmail program digest", ""},
		"delivery agent, hash unknown":  {"alice forward /usr/bin/procmail program", "alice forward /usr/bin/procmail opaque redirect"},
		"delivery agent in a home":      {"alice forward /home/a/procmail program digest", "alice forward /home/a/procmail opaque redirect"},
		"delivery agent with a file":    {"alice forward /usr/bin/procmail_/tmp/rc program digest", "alice forward /usr/bin/procmail_/tmp/rc opaque redirect"},
		"delivery agent, and more":      {"alice forward /usr/bin/procmail_;x program digest", "alice forward /usr/bin/procmail_;x opaque redirect"},
		"delivery agent of Debian":      {"* command procmail_-a_\"$EXTENSION\" program digest", ""},
		"delivery agent, pipe":          {"* command /usr/lib/dovecot/deliver_-f_${sender}_-d_${user}@${domain} program digest", ""},
		"delivery agent, its settings":  {"* command /usr/lib/dovecot/deliver_-c_/tmp/x program digest", "* command /usr/lib/dovecot/deliver_-c_/tmp/x opaque redirect"},
		"delivery agent, a command":     {"* command procmail_-a_$(x) program digest", "* command procmail_-a_$(x) opaque redirect"},
		"procmail's classic":            {"alice forward IFS='_'_&&_exec_/usr/bin/procmail_-f-_||_exit_75_#alice program digest", ""},
		"file":                          {"alice aliases /var/mail/x file", ""},
		"asked":                         {"* access tcp:127.0.0.1:1 asked", "* access tcp:127.0.0.1:1 opaque redirect"},
		"dormant wins":                  {"alice forward eve@evil.test dormant", "alice forward eve@evil.test dormant redirect"},
		"broken wins":                   {"alice forward eve@evil.test broken", "alice forward eve@evil.test broken redirect"},
		"differs shows an inside one":   {"alice virtual bob differs", "alice virtual bob@corp.test inside redirect"},
		"next hop outside":              {"* transport smtp:[mx.evil.test]:25 nexthop", "* transport smtp:[mx.evil.test]:25 outside redirect"},
		"relayed for another":           {"@partner.test transport smtp:[mx.evil.test] nexthop", ""},
		"next hop of its own":           {"@virt.test transport smtp: nexthop", ""},
		"loopback":                      {"* transport smtp:[127.0.0.1]:10025 nexthop", ""},
		"loopback, IPv6":                {"* transport smtp:[::1]:10025 nexthop", ""},
		"localhost":                     {"* transport lmtp:localhost:24 nexthop", ""},
		"socket":                        {"@virt.test transport lmtp:unix:private/dovecot-lmtp nexthop", ""},
		"error text":                    {"@virt.test transport error:moved_to_evil.test nexthop", ""},
		"transport alone":               {"* setting dovecot nexthop", ""},
		"host of ours":                  {"* transport relay:[mx.corp.test] nexthop", ""},
		"the second host is not":        {"* transport relay:[mx.corp.test],[mx.evil.test] nexthop", "* transport relay:[mx.corp.test],[mx.evil.test] outside redirect"},
		"host and port":                 {"* setting mx.evil.test:25 nexthop", "* setting mx.evil.test:25 outside redirect"},
		"inet":                          {"* setting lmtp:inet:mx.evil.test:24 nexthop", "* setting lmtp:inet:mx.evil.test:24 outside redirect"},
		"address, not ours":             {"* setting smtp:[192.0.2.9] nexthop", "* setting smtp:[192.0.2.9] outside redirect"},
		"address 6, not ours":           {"* setting smtp:[IPv6:2001:db8::9]:25 nexthop", "* setting smtp:[ipv6:2001:db8::9]:25 outside redirect"},
		"no domain can be called so":    {"alice aliases x@evil..test", "alice aliases x@evil..test broken redirect"},
		"another's letters":             {"alice aliases a@c\u043erp.test", "alice aliases a@xn--crp-sed.test outside redirect"},
		"other dots":                    {"alice aliases a@corp\u3002test", "alice aliases a@corp\u3002test outside redirect"},
		"a string ends at NUL":          {"alice aliases eve@evil.test\x00@corp.test", "alice aliases eve@evil.test outside redirect"},
		"nested too deeply":             {"alice aliases e%evil.test" + strings.Repeat("%corp.test", 200), "alice aliases e%evil.test" + strings.Repeat("%corp.test", 200) + " opaque redirect"},
		"nested, and read to its end":   {"alice aliases e%evil.test" + strings.Repeat("%corp.test", 50), "alice aliases e@evil.test outside redirect"},
		"twice is one":                  {"alice aliases eve@evil.test\nalice aliases eve@EVIL.test", "alice aliases eve@evil.test outside redirect"},
		"outgoing and incoming are two": {"alice@virt.test bcc eve@evil.test copy\nalice@virt.test bcc eve@evil.test copy sender", "alice@virt.test bcc eve@evil.test outside copy\nalice@virt.test bcc eve@evil.test outside copy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, graphOf(t, c.rules).Findings(), c.want)
		})
	}
}

func TestFollowsToTheEnd(t *testing.T) {
	for name, c := range map[string]struct{ rules, want string }{
		"across mechanisms": {`
			info@virt.test virtual alice@corp.test
			alice aliases bob
			bob forward eve@evil.test copy`, `
			bob forward eve@evil.test outside copy
			alice aliases eve@evil.test outside redirect alice>bob
			info@virt.test virtual eve@evil.test outside redirect info@virt.test>alice>bob`},
		"subaddress of its own": {`
			team aliases bob+x
			bob+x forward eve@evil.test
			bob forward other@evil.test`, `
			bob+x forward eve@evil.test outside redirect
			bob forward other@evil.test outside redirect
			team aliases eve@evil.test outside redirect team>bob+x`},
		"extension is carried over": {`
			a@virt.test virtual b@virt.test
			b+x@virt.test virtual eve@evil.test
			team aliases a+x@virt.test`, `
			b+x@virt.test virtual eve@evil.test outside redirect
			team aliases eve@evil.test outside redirect team>a@virt.test>b+x@virt.test`},
		"catch-all, where nothing else is": {`
			@virt.test virtual eve@evil.test
			bob@virt.test virtual bob@virt.test
			one aliases bob@virt.test
			two aliases joe@virt.test`, `
			@virt.test virtual eve@evil.test outside redirect
			two aliases eve@evil.test outside redirect two>@virt.test`},
		"a domain for another": {`
			@virt.test virtual @corp.test
			bob aliases eve@evil.test
			team aliases bob@virt.test`, `
			bob aliases eve@evil.test outside redirect
			team aliases eve@evil.test outside redirect team>@virt.test>bob`},
		"everybody's copy": {`
			* always_bcc archive@corp.test copy
			archive aliases eve@evil.test`, `
			archive aliases eve@evil.test outside redirect
			* always_bcc eve@evil.test outside copy *>archive`},
		"next hop at the end": {`
			team aliases bob@virt.test
			bob@virt.test transport smtp:[mx.evil.test] nexthop`, `
			bob@virt.test transport smtp:[mx.evil.test] outside redirect
			team aliases smtp:[mx.evil.test] outside redirect team>bob@virt.test`},
		"outgoing rules do not meet incoming mail": {`
			team aliases bob@virt.test
			bob@virt.test bcc eve@evil.test copy sender`, `
			bob@virt.test bcc eve@evil.test outside copy`},
		"dormant ones lead nowhere": {`
			team aliases bob
			bob forward eve@evil.test dormant`, `
			bob forward eve@evil.test dormant redirect`},
		"loop": {`
			a aliases b
			b aliases a`, `
			a aliases b@corp.test broken redirect
			b aliases a@corp.test broken redirect`},
		"into a loop": {`
			c aliases a
			a aliases b
			b aliases a`, `
			a aliases b@corp.test broken redirect
			b aliases a@corp.test broken redirect
			c aliases a@corp.test broken redirect`},
		"loop with a way out": {`
			a aliases b
			b aliases a
			b aliases eve@evil.test`, `
			a aliases eve@evil.test outside redirect a>b
			b aliases eve@evil.test outside redirect`},
		"itself is no loop": {"alice aliases alice", ""},
		"a copy is no loop": {`
			a aliases b
			b forward a copy`, ""},
		"catch-all to one of its own is no loop": {"@virt.test virtual info@virt.test", ""},
		"hidden in a spelling": {`
			a aliases "b%corp.test"@mx.corp.test
			b aliases eve@evil.test`, `
			a aliases eve@evil.test outside redirect a>b
			b aliases eve@evil.test outside redirect`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, graphOf(t, c.rules).Findings(), c.want)
		})
	}
}

// Whatever the order of changes, the outcome is that of loading everything.
func TestSetTellsWhatChanged(t *testing.T) {
	g := graphOf(t, "team aliases bob\nbob forward joe")
	d := g.Set("joe", parse(t, "joe sieve eve@evil.test copy"))
	expect(t, d.Appeared, `
		joe sieve eve@evil.test outside copy
		bob forward eve@evil.test outside redirect bob>joe
		team aliases eve@evil.test outside redirect team>bob>joe`)
	expect(t, d.Gone, "")
	d = g.Set("unit", parse(t, "other aliases bob\nteam aliases bob\nbob forward ann"))
	expect(t, d.Appeared, "")
	expect(t, d.Gone, `
		bob forward eve@evil.test outside redirect bob>joe
		team aliases eve@evil.test outside redirect team>bob>joe`)
	if d = g.Set("unit", parse(t, "x aliases y\nother aliases bob\nteam aliases bob\nbob forward ann")); len(d.Appeared)+len(d.Gone) > 0 {
		t.Errorf("lines that moved are a change: %v", d)
	}
	d = g.Set("joe", nil)
	expect(t, d.Gone, "joe sieve eve@evil.test outside copy")
	expect(t, g.Findings(), "")
}

func TestSetTellsOfAnotherProgram(t *testing.T) {
	g := judge.New(corpWorld())
	rules := parse(t, "alice forward /x.sh program digest")
	g.Set("u", rules)
	rules[0].Digest = "def"
	d := g.Set("u", rules)
	expect(t, d.Appeared, "alice forward /x.sh opaque redirect")
	expect(t, d.Gone, "alice forward /x.sh opaque redirect")
}

func TestLinesFollowTheSource(t *testing.T) {
	g := graphOf(t, "a aliases eve@evil.test")
	g.Set("unit", parse(t, "x aliases y\na aliases eve@evil.test"))
	if f := g.Findings(); len(f) != 1 || f[0].Line != 2 {
		t.Errorf("findings %+v", f)
	}
}

func TestDerivedFindingsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, "all aliases u%d\nu%d forward e%d@evil.test\n", i, i, i)
	}
	n := 0
	f := graphOf(t, b.String()).Findings()
	for _, f := range f {
		if !f.Direct() {
			n++
		}
	}
	if n != 100 || len(f) != 400 {
		t.Errorf("%d findings, %d derived", len(f), n)
	}
}

func TestMatchExplainsTraffic(t *testing.T) {
	g := graphOf(t, `
		team aliases bob
		bob forward eve@evil.test
		@virt.test virtual @evil.test
		* always_bcc spy@bcc.test copy
		b@virt.test bcc out@b.test copy`)
	for _, c := range []struct{ orig, rcpt, owner string }{
		{"bob@corp.test", "EVE@evil.test.", "bob"},
		{"bob+x@mx.corp.test", "eve+x@evil.test", "bob"},
		{"team@corp.test", "eve@evil.test", "team"},
		{"joe@virt.test", "joe@evil.test", "@virt.test"},
		{"ann@corp.test", "spy@bcc.test", "*"},
		{"", "spy@bcc.test", "*"},
		{"", "out@b.test", "b@virt.test"},
		{"ann@corp.test", "eve@evil.test", ""},
		{"ann@corp.test", "x@other.test", ""},
	} {
		id, ok := g.Match(c.orig, c.rcpt)
		f, _ := g.Find(id)
		if ok != (c.owner != "") || f.Owner != c.owner {
			t.Errorf("Match(%q, %q) = %q %v, want %q", c.orig, c.rcpt, f.Owner, ok, c.owner)
		}
	}
	if ids := g.Targets("eve@EVIL.test"); len(ids) != 2 {
		t.Errorf("Targets: %v", ids)
	}
}
