package judge_test

import (
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
)

// An address in canonical form stays inside or outside when it is read again, as
// long as its local part is a plain one.
func FuzzCanonical(f *testing.F) {
	for _, s := range spellings {
		f.Add(s)
	}
	f.Add(strings.Repeat("(", 4000))
	f.Add(strings.Repeat("%corp.test", 400))
	f.Add(strings.Repeat("@corp.test", 400))
	f.Add(strings.Repeat(`"`, 3999))
	w := corpWorld()
	g := judge.New(w)
	f.Fuzz(func(t *testing.T, s string) {
		addr, ok := judge.Canonical(&w, s)
		if !ok {
			return
		}
		if len(addr) > 4*forward.MaxTarget {
			t.Fatalf("%d octets of %d", len(addr), len(s))
		}
		at := strings.LastIndexByte(addr, '@')
		if at <= 0 || strings.ContainsAny(addr[:at], "@%!\"\\ ") {
			return
		}
		if again, ok := judge.Canonical(&w, quoteForReading(addr)); ok && g.Inside(quoteForReading(again)) != g.Inside(s) {
			t.Errorf("%q is %q, and that is %q", s, addr, again)
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add("alice", "bob@corp.test", uint8(0), "relayhost in main.cf")
	f.Add("@virt.test", "@evil.test", uint8(0), "")
	f.Add("*", "smtp:[mx.evil.test]:25", uint8(1), "")
	f.Add("alice", "IFS=' ' && exec /usr/bin/procmail -f- || exit 75 #alice", uint8(2), "")
	f.Add("\"a b\"@corp.test", "x\uFFFC@evil.test", uint8(0), "")
	f.Add("*", "[::1]:25, inet:[", uint8(1), "smtp_fallback_relay in main.cf")
	f.Fuzz(func(t *testing.T, owner, target string, kind uint8, source string) {
		g := judge.New(corpWorld())
		rules := []forward.Rule{
			{Owner: owner, Mechanism: forward.Virtual, Target: target, Kind: forward.Kind(kind % 5), Source: source, Mode: forward.Redirect},
			{Owner: target, Mechanism: forward.Aliases, Target: owner, Mode: forward.Redirect},
			{Owner: owner, Mechanism: forward.Aliases, Target: owner, Mode: forward.Copy},
		}
		g.Set("u", rules)
		g.Match(owner, target)
		g.Targets(target)
		g.Findings()
		if g.Set("u", nil); len(g.All()) > 0 {
			t.Error("findings without rules")
		}
	})
}
