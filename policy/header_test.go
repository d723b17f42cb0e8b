package policy_test

import (
	"slices"
	"strings"
	"testing"

	"relayguard/policy"
)

func TestHeaderUnfoldsAndKeepsOrder(t *testing.T) {
	var h policy.Header
	for _, f := range [][2]string{{"Subject", " a\r\n b"}, {"From", "x"}, {"subject", "\tc\n\td "}, {"X-Empty", ""}} {
		h.Add([]byte(f[0]), []byte(f[1]))
	}
	if v, ok := h.Get("SUBJECT"); v != "a b" || !ok {
		t.Errorf("first is %q, %v", v, ok)
	}
	if got, want := h.Values("Subject"), []string{"a b", "c\td"}; !slices.Equal(got, want) {
		t.Errorf("values %q, want %q", got, want)
	}
	if v, ok := h.Get("X-Empty"); v != "" || !ok {
		t.Errorf("an empty field is %q, %v", v, ok)
	}
	if v, ok := h.Get("Sub"); ok || h.Count("Sub") != 0 || h.Values("Sub") != nil {
		t.Errorf("there is no Sub: %q", v)
	}
	if name, value := h.Field(2); name != "subject" || value != "\tc\n\td " {
		t.Errorf("as it arrived: %q %q", name, value)
	}
}

func TestHeaderKeepsNothingBeyondItsLimits(t *testing.T) {
	h := policy.Header{MaxBytes: 10, MaxFields: 2}
	h.Add([]byte("A"), []byte("123456789")) // 10 octets: exactly full
	if h.Truncated() || h.Len() != 1 || h.Bytes() != 10 {
		t.Fatalf("%d fields of %d octets, truncated %v", h.Len(), h.Bytes(), h.Truncated())
	}
	h.Add([]byte("B"), nil)
	h.Add(nil, nil) // would fit, but comes after one that did not
	if !h.Truncated() || h.Len() != 1 {
		t.Errorf("%d fields, truncated %v", h.Len(), h.Truncated())
	}
	h.Reset(1 << 20)
	for range 3 {
		h.Add([]byte("A"), nil)
	}
	if h.Len() != 2 || !h.Truncated() {
		t.Errorf("%d fields, truncated %v", h.Len(), h.Truncated())
	}
	h.Reset(0)
	if h.Len() != 0 || h.Truncated() || h.Bytes() != 0 || h.Count("A") != 0 {
		t.Error("reset leaves something")
	}
}

// FuzzHeader cuts text into fields (name:value, separated by NUL) and holds the
// collection against a plain list of them.
func FuzzHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, maxBytes, maxFields uint16) {
		h := policy.Header{MaxBytes: int(maxBytes), MaxFields: int(maxFields)}
		for round := range 2 { // the buffer of one message serves the next
			var want [][2]string
			size, over := 0, false
			for part := range strings.SplitSeq(text, "\x00") {
				name, value, _ := strings.Cut(part, ":")
				h.Add([]byte(name), []byte(value))
				over = over || h.MaxBytes > 0 && size+len(name)+len(value) > h.MaxBytes || h.MaxFields > 0 && len(want) >= h.MaxFields
				if !over {
					want, size = append(want, [2]string{name, value}), size+len(name)+len(value)
				}
			}
			if h.Len() != len(want) || h.Bytes() != size || h.Truncated() != over {
				t.Fatalf("round %d: %d fields of %d octets, truncated %v; want %d of %d, %v", round, h.Len(), h.Bytes(), h.Truncated(), len(want), size, over)
			}
			for i, w := range want {
				name, value := h.Field(i)
				if name != w[0] || value != w[1] {
					t.Fatalf("field %d is %q %q, want %q", i, name, value, w)
				}
				checkField(t, &h, name, value)
			}
			h.Reset(int(maxBytes))
		}
	})
}

func checkField(t *testing.T, h *policy.Header, name, value string) {
	t.Helper()
	values := h.Values(name)
	first, ok := h.Get(name)
	if !ok || len(values) == 0 || values[0] != first || h.Count(name) != len(values) {
		t.Fatalf("%q: get %q, %v; values %q; count %d", name, first, ok, values, h.Count(name))
	}
	if h.Count(strings.ToUpper(name)) != len(values) && len(strings.ToUpper(name)) == len(name) && strings.EqualFold(name, strings.ToUpper(name)) {
		t.Fatalf("%q: case matters", name)
	}
	found := false
	for _, v := range values {
		if strings.ContainsAny(v, "\r\n") || strings.TrimSpace(v) != v {
			t.Fatalf("%q: value %q is not unfolded and trimmed", name, v)
		}
		found = found || v == strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(value))
	}
	if !found {
		t.Fatalf("%q: %q is not among %q", name, value, values)
	}
}
