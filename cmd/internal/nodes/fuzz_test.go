package nodes_test

import (
	"bytes"
	"strings"
	"testing"

	"relayguard/cmd/internal/nodes"
)

// What was read is written so that it is read again.
func FuzzLoad(f *testing.F) {
	f.Add("")
	f.Add("33@web1\twww-data@web1\n1001@web1\tsite12@web1\n")
	f.Add("33@web1\twww-data@web1\n33@web1\tother@web1")
	f.Add("4294967296@web1\tx@web1\n")
	f.Add("1@web1\tx\t@web1\n")
	f.Fuzz(func(t *testing.T, text string) {
		h := nodes.New()
		if h.Load(strings.NewReader(text)) != nil {
			return
		}
		var first, second bytes.Buffer
		if err := h.Save(&first); err != nil {
			t.Fatal(err)
		}
		again := nodes.New()
		if err := again.Load(bytes.NewReader(first.Bytes())); err != nil {
			t.Fatalf("%q: %v", first.String(), err)
		}
		if err := again.Save(&second); err != nil || first.String() != second.String() {
			t.Errorf("%q, then %q, %v", first.String(), second.String(), err)
		}
	})
}
