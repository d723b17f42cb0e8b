package sieve_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/forward/sieve"
)

// hostile are scripts that would cost much if nothing were capped; the caps are
// in sieve.go.
func hostile() map[string]string {
	const size = 1 << 20
	many := func(head, s string) string { return head + strings.Repeat(s, (size-len(head))/len(s)) }
	var vars, tests strings.Builder
	for i := range 255 {
		fmt.Fprintf(&vars, "set \"v%d\" \"x\";\n", i)
		fmt.Fprintf(&tests, "if size :over 1 { set \"v%d\" \"${v%d}${v%d}y\"; }\n", i, i, (i+1)%255)
	}
	require := `require ["variables","include","foreverypart","copy","enotify","encoded-character"];` + "\n"
	return map[string]string{
		"branches":  many(require, `if header :matches "a" "*" { set "a" "${1}${a}"; } else { set "b" "${a}"; }`+"\n"),
		"variables": many(require+vars.String(), tests.String()),
		"doubling":  many(require+`set "a" "0123456789abcdef";`, `set "a" "${a}${a}";`),
		"redirects": many(require, `redirect :copy "a@evil.test";`+"\n"),
		"includes":  many(require, `include "a";`+"\n"),
		"loops":     many(require, strings.Repeat("foreverypart {", 30)+`set "a" "${a}x"; redirect "${a}@evil.test";`+strings.Repeat("}", 30)),
		"tests":     many(require, "if anyof ("+strings.Repeat(`header :matches "a" "*", `, 100)+`true) { keep; }`),
		"strings":   many(require+`set "a" "`, "${hex:40}"),
		"mailto":    many(require+`notify "mailto:`, "a%40b%2C"),
		"globs":     require + `if string :matches "` + strings.Repeat("a", size/2) + `" "` + strings.Repeat("*a", size/4) + `b" { keep; }`,
		"lists":     many(require+`redirect ["a@b.test"`, `,"a@b.test"`),
		"depth":     many("", "if not not not "),
		"brackets":  many("", "{[("),
		"comments":  many("", "/* # */ "),
	}
}

func TestHostileScriptsEnd(t *testing.T) {
	for name, script := range hostile() {
		t.Run(name, func(t *testing.T) {
			included := 0
			began := time.Now()
			r := sieve.Targets([]byte(script), sieve.Options{Include: func(string, bool) ([]byte, error) {
				included++
				return []byte(strings.Replace(script, `"a";`, fmt.Sprintf(`"a%d";`, included), 1)), nil
			}})
			// The time is told, not asserted: the caps bound the work.
			t.Logf("%v, %d targets, broken %.60q", time.Since(began), len(r.Targets), r.Broken)
			if len(r.Targets) > 20_000 {
				t.Errorf("%d targets", len(r.Targets))
			}
		})
	}
}
