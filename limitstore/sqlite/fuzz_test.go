package sqlite

import (
	"bytes"
	"testing"

	"relayguard/policy/limit"
)

// FuzzRow: rows come from a file, which may be damaged. What is read of one is
// written so that it is read as the same.
func FuzzRow(f *testing.F) {
	f.Fuzz(func(t *testing.T, key, data []byte) {
		var s limit.State
		if decode(&s, key, data) != nil || s.Check() != nil {
			return
		}
		written, err := s.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		again := appendKey(nil, s.Key)
		var back limit.State
		if err := decode(&back, again, written); err != nil {
			t.Fatalf("%q %x: %v", again, written, err)
		}
		if third, _ := back.AppendBinary(nil); back.Key != s.Key || !bytes.Equal(third, written) {
			t.Errorf("%+v became %+v", s, back)
		}
	})
}

func TestAfterIsGreater(t *testing.T) {
	for _, c := range []struct{ key, want string }{
		{"a", "b"}, {"ab", "ac"}, {"a\xff", "b"}, {"\xff\xff", ""}, {"", ""}, {"a\x00", "a\x01"},
	} {
		if got := after([]byte(c.key)); string(got) != c.want || (got == nil) != (c.want == "") {
			t.Errorf("%q: got %q, want %q", c.key, got, c.want)
		}
	}
}
