package config

import (
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// FuzzTreeAcceptsTOML holds our tree against the library's own decoder: what is
// TOML must not be called none. (The other way round, Parse asks the decoder.)
func FuzzTreeAcceptsTOML(f *testing.F) {
	for _, s := range []string{
		"a.b.c=1\n[a]\n[a.b.d]\n", "[a.b]\n[a]\nb.c=1\n", "[[a]]\n[a.b]\n[[a]]\n[a.b]\n", "a={b.c=1,b.d=2}\n",
		"[a.b.c]\n[a]\nb.x=1\n", "a=[{}]\n[[a]]\n", "[a]\nb.c=1\n[a.b]\n", "[a]\nb.c=1\n[a.b.d]\n", "\"\"=1\n[\"\"]\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReport("x", data)
		r.parse()
		var all map[string]any
		if err := toml.Unmarshal(data, &all); err == nil && len(r.problems) > 0 {
			t.Fatalf("valid TOML, but: %v", r.problems)
		}
	})
}
