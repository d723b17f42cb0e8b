package judge_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
	"relayguard/mta/postfix/postfixtest"
)

// worldOf are Postfix settings and the same as a World.
type worldOf struct {
	name  string
	main  map[string]string
	world forward.World
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

func corpWorld() forward.World {
	return forward.World{
		Inside: set("corp.test", "mx.corp.test", "virt.test"), Local: set("corp.test", "mx.corp.test"), Mailboxes: set("virt.test"),
		Hosts: set("mx.corp.test", "127.0.0.1"), Origin: "corp.test", Domain: "corp.test", Delimiters: "+",
		PercentHack: true, SwapBangPath: true, AppendAtOrigin: true,
	}
}

func worlds() []worldOf {
	main := func(more map[string]string) map[string]string {
		m := map[string]string{"mydestination": "corp.test, $myhostname", "myorigin": "corp.test", "mydomain": "corp.test", "myhostname": "mx.corp.test", "append_dot_mydomain": "no"}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	dot, plain, virtual := corpWorld(), corpWorld(), corpWorld()
	dot.AppendDotDomain = true
	plain.PercentHack, plain.SwapBangPath = false, false
	virtual.Origin = "virt.test"
	return []worldOf{
		{"defaults", main(nil), corpWorld()},
		{"append_dot_mydomain", main(map[string]string{"append_dot_mydomain": "yes"}), dot},
		{"no percent, no bang", main(map[string]string{"allow_percent_hack": "no", "swap_bangpath": "no"}), plain},
		{"origin is virtual", main(map[string]string{"myorigin": "virt.test"}), virtual},
	}
}

// spellings are ways to write addresses that somebody may hope are not read.
var spellings = []string{
	"user@evil.test", "User@Evil.TEST", "user@evil.test.", "user@evil.test..", "user@EVIL.test.", "user @ evil.test", "user@ evil . test",
	"user%evil.test", "user%evil.test@corp.test", "user%evil.test@virt.test", "user%evil.test%corp.test", "user%evil.test%corp.test@corp.test",
	"evil.test!user", "evil.test!user@corp.test", "corp.test!evil.test!user", "evil.test!user%corp.test", "user%evil.test@mx.corp.test.",
	"evil.test!user@virt.test", "evil!user", "user%evil", "user@evil", "user",
	"@corp.test:user@evil.test", "@evil.test:alice@corp.test", "@corp.test,@virt.test:user@evil.test", "@corp.test:user%evil.test@corp.test",
	"@corp.test:alice", "@evil.test:", "@:user@evil.test",
	`"user@evil.test"`, `"user@evil.test"@corp.test`, `"user\@evil.test"`, `"user\@evil.test"@corp.test`, `user\@evil.test`, `user\@evil.test@corp.test`,
	`"user%evil.test"`, `"user%evil.test"@corp.test`, `"evil.test!user"@corp.test`, `"user@evil.test"@virt.test`, `user"@"evil.test`, `"user"@evil.test`,
	`"user"@"evil.test"`, `"us"er@evil.test`, `\user`, `\u\s\e\r@evil.test`, `user@ev\il.test`, `user@\evil.test`, `user\%evil.test@corp.test`,
	`"\"user@evil.test\""@corp.test`, `"\"user@evil.test\""`, `"user@evil.test"%corp.test`, `"@evil.test:user"@corp.test`,
	"user@evil.test@corp.test", "user@evil.test@corp.test@corp.test", "user@corp.test@evil.test", "user@evil.test@virt.test", "user%evil.test@corp.test@mx.corp.test",
	"user(hidden)@evil.test", "user@evil.test(alice@corp.test)", "(alice@corp.test)user@evil.test", "user@(corp.test)evil.test", "user@evil.test(", `user(\))@evil.test`,
	"user((x)y)@evil.test", "user@evil.(x)test", "alice@corp.test(user@evil.test)",
	"alice@corp.test", "Alice@CORP.test", "alice", "ALICE@mx.corp.test", "alice+ext@corp.test", "alice@[127.0.0.1]", "alice@[192.0.2.1]", "user%evil.test@[127.0.0.1]",
	"alice@[ipv6:2001:db8::1]", "alice@corp.test.evil.test", "alice@sub.corp.test", "alice@xcorp.test", "alice@.corp.test", "alice@corp..test",
	"user@xn--evil-1234.test", "alice@c\u043erp.test", "alice@corp\u3002test", "alice@\uff43orp.test", "alice@corp.test\u3002", "alice@corp\uff0etest", "alice@corp\uff61test",
	"mailto:user@evil.test", "mailto:alice@corp.test", "user@evil.test:25", "user:x@evil.test", "x:user@evil.test", "alice@corp.test:25",
	"/user@evil.test", "user/x@evil.test", "|user@evil.test", "user|x@evil.test", "#user@evil.test", "-user@evil.test", "=user@evil.test",
	"@corp.test", "alice@", "%evil.test@corp.test", "!user@corp.test", "evil.test!@corp.test", "user%@corp.test", "%", "!", "..@corp.test", ".user@evil.test", "user.@evil.test", "us..er@evil.test",
	"%evil.test", "user%evil.test.@corp.test", "user@evil.test.@corp.test", "[x]@evil.test", "user[x]@evil.test", "user@[evil.test]", "user@evil[x].test", "a b@evil.test",
	`""@corp.test`, `""@evil.test`, `"a b"@evil.test`, `"a b%evil.test"@corp.test`, `"a b@evil.test"`, `a\ b@evil.test`,
}

// What Canonical says is what the server itself makes of an address.
func TestCanonicalIsWhatTrivialRewriteMakes(t *testing.T) {
	for _, c := range worlds() {
		t.Run(c.name, func(t *testing.T) {
			p := postfixtest.StartTest(t, postfixtest.Options{Inside: []string{"virt.test"}, Main: c.main})
			r := newRewriter(t, p)
			for _, s := range spellings {
				compare(t, r, &c.world, s)
			}
			random := rand.New(rand.NewPCG(6, 1))
			for range 4000 {
				compare(t, r, &c.world, randomAddress(random))
			}
		})
	}
}

// compare asks both about one address. Bare "@dom" is a rule's form, not an
// address; what has several addresses is a matter of the parser before it.
func compare(t *testing.T, r *rewriter, w *forward.World, s string) {
	t.Helper()
	if trimmed := strings.TrimSpace(s); strings.HasPrefix(trimmed, "@") && !strings.ContainsAny(trimmed[1:], ":@%! ") || !oneAddress(s) {
		return
	}
	answer := r.resolve(unquote822(r.rewrite(s)))
	if answer["transport"] == "CHANNEL NOT UPDATED" {
		return // "bad address syntax": it bounces
	}
	want := strings.ToLower(answer["recipient"])
	got, ok := judge.Canonical(w, s)
	if !ok {
		if !undeliverable(want) {
			t.Errorf("Canonical(%q) finds none; Postfix goes to %q by %s", s, want, answer["transport"])
		}
		return
	}
	got = strings.ToLower(got)
	if at := strings.LastIndexByte(want, '@'); at >= 0 {
		want = want[:at+1] + judge.CleanDomain(want[at+1:])
	}
	if got != want && !undeliverable(want) {
		t.Errorf("Canonical(%q) = %q; Postfix goes to %q by %s", s, got, want, answer["transport"])
	}
}

func undeliverable(address string) bool {
	at := strings.LastIndexByte(address, '@')
	return at < 0 || strings.HasPrefix(address, "mailer-daemon@")
}

// oneAddress: no list, group, phrase or comment, of which trivial-rewrite, which
// gets single addresses, knows nothing.
func oneAddress(s string) bool {
	return judge.CountAddresses(s) == 1
}

func randomAddress(r *rand.Rand) string {
	pieces := []string{"user", "alice", "evil.test", "corp.test", "virt.test", "mx.corp.test", "evil", "@", "@", "@", "%", "!", ".", `"`, `\`, ":", "(", ")", " ", "[127.0.0.1]", "[", "]", "+x", "x"}
	var b strings.Builder
	for range 1 + r.IntN(9) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// unquote822 is an address in inner form: Postfix's clients do that to the answer
// of a rewriting before they ask for a resolving.
func unquote822(s string) string {
	var b []byte
	start, inQuote, at, src := 0, false, -1, 0
	if strings.HasPrefix(s, "@") {
		if c := strings.IndexByte(s, ':'); c >= 0 {
			start = c + 1
			b = append(b, s[:start]...)
		}
	}
	for i := start; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			inQuote = !inQuote
			continue
		case c == '@' && !inQuote:
			at, src = len(b), i
		case c == '\\':
			if i+1 == len(s) {
				continue
			}
			i++
			c = s[i]
		}
		b = append(b, c)
	}
	if at >= 0 {
		return string(b[:at]) + s[src:]
	}
	return string(b)
}
