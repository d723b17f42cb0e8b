package procmail_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"relayguard/forward"
	"relayguard/forward/procmail"
)

// FuzzTargets: no text makes the reading panic, hang, or tell more than it may.
func FuzzTargets(f *testing.F) {
	for _, c := range rcCases(f) {
		f.Add(c.rc, c.files["more.rc"])
	}
	f.Add("INCLUDERC=more.rc\nINCLUDERC=more.rc\n", "INCLUDERC=more.rc\nSWITCHRC=more.rc\n")
	f.Add(strings.Repeat(":0 c\n* x\n{\n A=$A$A`echo $A`\n", 50), "${A:-${B:+${C-`x`}}}")
	f.Add(":0\n* $ $ $ $A\n! $\\A", "A=\"\\\"'`\\`\\``'\"")
	f.Fuzz(func(t *testing.T, rc, more string) {
		c := rcCase{files: map[string]string{"more.rc": more}}
		for _, result := range []procmail.Result{
			procmail.Targets([]byte(rc), c.options(home)),
			procmail.Targets([]byte(rc), procmail.Options{Name: "/etc/procmailrc"}),
			procmail.After([]byte(more), "/etc/procmailrc", nil, []byte(rc), c.options(home)),
		} {
			if len(result.Targets) > 11_000 || len(result.Uses) > 10_000 {
				t.Errorf("%d targets, %d paths", len(result.Targets), len(result.Uses))
			}
			for _, target := range result.Targets {
				if target.Kind == forward.Address && target.Target == "" {
					t.Error("an empty address")
				}
				if target.Dynamic != strings.Contains(target.Target, forward.Unknown) && target.Kind == forward.Address {
					t.Errorf("%q: dynamic %t", target.Target, target.Dynamic)
				}
				_ = utf8.ValidString(target.Target)
			}
		}
	})
}

// TestHostileRcfilesEnd: each costs a bounded effort.
func TestHostileRcfilesEnd(t *testing.T) {
	for name, rc := range map[string]string{
		"doubling":   "A=x\n" + strings.Repeat("A=$A$A\n", 10_000) + ":0\n! $A@evil.test\n",
		"values":     strings.Repeat(":0\n* x\n{\nA=$A\"a\"\nB=$A$B\n}\n", 5_000) + ":0\n! $A$B@evil.test\n",
		"variables":  strings.Repeat("A", 100) + "=x\n" + manyVariables() + ":0\n! $V9@evil.test\n",
		"blocks":     strings.Repeat(":0 c\n* x\n{\n", 50_000),
		"traps":      "TRAP='sendmail $A a@b.test'\n" + strings.Repeat("A=$A.\n:0 c\n! x@evil.test\n", 20_000),
		"conditions": ":0\n" + strings.Repeat("* $ $ $ ? sendmail $A\n", 50_000) + "! x@evil.test\n",
		"backticks":  "A=" + strings.Repeat("`\\`", 50_000),
		"braces":     ":0\n! " + strings.Repeat("${A:-", 200_000),
		"newlines":   strings.Repeat("\n", 4<<20),
		"addresses":  ":0 c\n! " + strings.Repeat("a@evil.test ", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			result := procmail.Targets([]byte(rc), procmail.Options{Name: "/home/x/.procmailrc", Account: &forward.Account{Name: "x", Home: "/home/x"}})
			t.Logf("%d targets, gaps %v", len(result.Targets), result.Gaps)
		})
	}
}

func manyVariables() string {
	var b strings.Builder
	for n := range 10_000 {
		b.WriteString("V")
		for ; n > 0; n /= 10 {
			b.WriteByte(byte('0' + n%10))
		}
		b.WriteString("=x\n")
	}
	return b.String()
}
