package tables

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// The short way for plain lines says what the long one says.
func TestPlainAliasIsWhatItsTokensSay(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 7))
	pieces := []string{"a", "Bc", "9", "-", "_", "+", ".", "@", "x.test", "é", "%", " "}
	plain := 0
	word := func() string {
		var b strings.Builder
		for range 1 + r.IntN(6) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		return b.String()
	}
	for range 200_000 {
		line := word() + ": " + word()
		key, value, ok := plainAlias(line)
		if !ok {
			continue
		}
		plain++
		tokens := scanTokens(line)
		colon := -1
		for i, tok := range tokens {
			if tok.kind == ':' {
				colon = i
				break
			}
		}
		if k, v := internal(tokens[:colon]), external(tokens[colon+1:]); k != key || v != value {
			t.Fatalf("%q: got %q %q, by tokens %q %q", line, key, value, k, v)
		}
	}
	if plain < 1000 {
		t.Errorf("%d plain lines only", plain)
	}
}
