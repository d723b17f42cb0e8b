package postfix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/forward"
)

// seeds adds all files of that name below testdata/configs.
func seeds(f *testing.F, name string) {
	f.Helper()
	files, err := filepath.Glob("testdata/configs/*/" + name)
	if err != nil || len(files) < 6 {
		f.Fatalf("seeds: %d found, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
}

// FuzzMain reads any main.cf with all its expansions: whatever it says, every
// value is bounded and no setting gets lost.
func FuzzMain(f *testing.F) {
	seeds(f, "main.cf")
	f.Add("a = $a\n")
	f.Add("a = ${a?{$a$a}:{$b}}\nb=$a$a$a$a\n")
	f.Add("mydomain = $myhostname\nmyhostname = x.$mydomain\n")
	f.Add("x = ${{$x} <level {$y} ? {(} : $)}\n")
	f.Fuzz(func(t *testing.T, text string) {
		settings, _ := parseMain(text)
		e := &evaluation{main: settings, hostname: "mx", configDir: "/etc/postfix"}
		n := 0
		for _, name := range append(sortedKeys(settings), "mydomain", "myhostname", "forward_path", "smtpd_relay_restrictions") {
			if n++; n > 50 {
				break
			}
			value, _ := e.expand(name)
			if len(value) > maxExpandSize+maxLine {
				t.Errorf("%s expands to %d octets", name, len(value))
			}
			splitList(value)
			parseTables(value)
		}
	})
}

// FuzzMaster reads any master.cf.
func FuzzMaster(f *testing.F) {
	seeds(f, "master.cf")
	f.Add("a unix - - n - - cleanup -vo {a = b} -Dob=c -- -o x\nb unix - - n - -\n")
	f.Add("a unix - - - - - pipe flags=X { argv=/bin/x y } -o { a = b c } -oa=b {")
	f.Fuzz(func(t *testing.T, text string) {
		services, _ := parseMaster(text, true)
		for _, s := range services {
			if s.name == "" || s.command == "" && s.unread == "" || strings.Contains(s.name, "\n") {
				t.Errorf("service %+v", s)
			}
			s.argv()
		}
	})
}

// FuzzRestrictions walks any list of restrictions, with itself as the class
// that it names.
func FuzzRestrictions(f *testing.F) {
	f.Add("permit_mynetworks, check_recipient_access hash:/x, class, check_policy_service { inet:h:1, timeout=1 }", "class")
	f.Add("class class", "class class")
	f.Add("check_sender_access inline:{{a=REDIRECT b@c}}, { {", "{")
	f.Fuzz(func(t *testing.T, list, classes string) {
		w := &restrictionWalk{value: func(string) string { return list }, classes: splitList(classes)}
		w.add(list, "check_recipient_access", nil)
		for _, c := range w.checks {
			if c.name != "check_policy_service" {
				parseTables(c.table)
			}
		}
	})
}

// FuzzRightSides reads any right side of an access, a transport or a virtual
// table, and any pattern as an owner.
func FuzzRightSides(f *testing.F) {
	for _, s := range []string{"REDIRECT a@b", "smtp:[mx]:25", "@evil.test", "a@b, c@d", "FILTER x:y", "RCPT TO:<\uFFFC@x>", "$user@${x}", "/^a@b$/i", "/^(.*)@b$/", "lmtp:unix:private/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		finder := &finder{h: &forward.Host{}, i: &instance{values: map[string]string{"default_transport": "smtp"}, services: []service{{name: "smtp", kind: "unix", command: "smtp"}}}}
		r, _ := finder.action(t.Context(), forward.Rule{}, value)
		r2 := finder.route(t.Context(), routing{}, forward.Rule{}, value)
		for _, rule := range append(r.Rules, r2.Rules...) {
			if len(rule.Target) > forward.MaxTarget {
				t.Errorf("target of %d octets", len(rule.Target))
			}
		}
		keepLocal(value, value)
		patternOwner(value)
		unknownParts(value)
		filtered(value, value)
		possible(value)
		policyItem(value)
		variables(value)
		cutHop(value)
		agent(value, value)
		proxyHop(value)
	})
}
