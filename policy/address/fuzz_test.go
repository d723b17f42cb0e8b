package address_test

import (
	"strings"
	"testing"

	"relayguard/policy/address"
)

// check holds what is true of every address that was read.
func check(t *testing.T, from string, a address.Address) {
	t.Helper()
	if a.Local == "" || a.Domain == "" {
		t.Fatalf("%q gave %+v, which lacks a part", from, a)
	}
	if len(a.Local)+len(a.Domain) > 4096 {
		t.Fatalf("%q gave an address of %d octets", from, len(a.Local)+len(a.Domain))
	}
	if s := a.Local + a.Domain; strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		t.Fatalf("%q gave %q with control characters", from, s)
	}
	if again := address.Domain(a.Domain); again != a.Domain {
		t.Fatalf("%q gave domain %q, whose normal form is %q", from, a.Domain, again)
	}
	again, ok := address.Parse(a.String())
	if len(a.String()) <= 512 && (!ok || again != a) {
		t.Fatalf("%q gave %+v, written %q, which reads as %+v, %v", from, a, a, again, ok)
	}
	forms := address.Forms(a, "+-")
	if len(forms) > 40 {
		t.Fatalf("%q has %d forms", from, len(forms))
	}
	for _, f := range forms {
		if f.Local == "" || f.Domain != a.Domain || len(f.Local) >= len(a.Local) {
			t.Fatalf("%q has the form %+v", a, f)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		if a, ok := address.Parse(s); ok {
			check(t, s, a)
			address.IsSRS(a)
		}
	})
}

func FuzzList(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		list, ok := address.List(s)
		if len(list) > 64 || !strings.Contains(s, "@") && (len(list) > 0 || !ok) {
			t.Fatalf("List(%q) = %d addresses, %v", s, len(list), ok)
		}
		for _, a := range list {
			check(t, s, a)
		}
		// What the whole field shows, it shows beside another mailbox, too.
		if beside, ok2 := address.List("taro@example.jp," + s); ok2 && len(beside) != len(list)+1 {
			t.Fatalf("List(%q) has %d addresses, after another mailbox %d", s, len(list), len(beside))
		}
	})
}
