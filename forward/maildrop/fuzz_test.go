package maildrop_test

import (
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/maildrop"
)

// FuzzTargets: no text makes the reading panic, hang, or tell more than it may.
func FuzzTargets(f *testing.F) {
	for _, c := range filterCases(f) {
		f.Add(c.filter, c.files["more.filter"])
	}
	f.Add("include \"more.filter\"\ninclude \"more.filter\"\n", "include \"more.filter\"\ninclude \"more.filter\"\n")
	f.Add(strings.Repeat("A=$A$A`x`\nif (1)\n", 50), "while (1)\n while (1)\n cc \"!$A\"\n")
	f.Fuzz(func(t *testing.T, filter, more string) {
		c := filterCase{files: map[string]string{"more.filter": more}}
		for _, result := range []maildrop.Result{
			maildrop.Targets([]byte(filter), c.options(home)),
			maildrop.Targets([]byte(filter), maildrop.Options{Name: "/etc/maildroprc"}),
			maildrop.After([]byte(more), "/etc/maildroprc", nil, []byte(filter), c.options(home)),
		} {
			if len(result.Targets) > 3000 {
				t.Errorf("%d targets", len(result.Targets))
			}
			for _, target := range result.Targets {
				if target.Kind == forward.Address && (target.Target == "" || target.Dynamic != strings.Contains(target.Target, forward.Unknown)) {
					t.Errorf("%+v", target)
				}
			}
		}
	})
}

// TestHostileFiltersEnd: each costs a bounded effort.
func TestHostileFiltersEnd(t *testing.T) {
	for name, filter := range map[string]string{
		"doubling": "A=\"x\"\n" + strings.Repeat("A=\"$A$A\"\n", 10_000) + "to \"!$A@evil.test\"\n",
		"branches": strings.Repeat("if (/x/)\n A=\"${A}a\"\nelse\n B=\"$A$B\"\n", 10_000) + "to \"!$A$B@evil.test\"\n",
		"loops":    strings.Repeat("while (1)\n{\n", 150) + "cc \"!$A\"\nA=\"x$A\"\n" + strings.Repeat("}\n", 150),
		"nested":   strings.Repeat("if (1)\n", 100_000) + "to \"!a@evil.test\"\n",
		"elsif":    "if (1)\nA=\"x\"\n" + strings.Repeat("elsif (1)\nA=\"y\"\n", 100_000),
		"concat":   "to " + strings.Repeat("\"$A\" `x` ", 50_000) + "\n",
		"commands": strings.Repeat("cc \"|$A$B sendmail a@evil.test\"\nA=\"x$A\"\n", 20_000),
		"include":  strings.Repeat("include \".mailfilter\"\n", 1000),
	} {
		t.Run(name, func(t *testing.T) {
			result := maildrop.Targets([]byte(filter), maildrop.Options{Name: "/home/x/.mailfilter", Account: &forward.Account{Name: "x", Home: "/home/x"},
				Read: func(string) ([]byte, error) { return []byte(filter), nil }})
			t.Logf("%d targets, gaps %v", len(result.Targets), result.Gaps)
		})
	}
}
