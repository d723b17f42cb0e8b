package address_test

import (
	"slices"
	"strings"
	"testing"

	"relayguard/policy/address"
)

func TestParseReadsWhatMTAsHandOver(t *testing.T) {
	for in, want := range map[string]address.Address{
		"taro@example.jp":               {Local: "taro", Domain: "example.jp"},
		" taro@example.jp ":             {Local: "taro", Domain: "example.jp"},
		"Taro@EXAMPLE.JP":               {Local: "Taro", Domain: "example.jp"},
		"taro@example.jp.":              {Local: "taro", Domain: "example.jp"},
		"taro @ example.jp":             {Local: "taro", Domain: "example.jp"},
		`"taro"@example.jp`:             {Local: "taro", Domain: "example.jp"},
		`"a b"@example.jp`:              {Local: "a b", Domain: "example.jp"},
		`"a\"b"@example.jp`:             {Local: `a"b`, Domain: "example.jp"},
		`"a@b"@example.jp`:              {Local: "a@b", Domain: "example.jp"},
		"a@b@example.jp":                {Local: "a@b", Domain: "example.jp"},
		"@a.example,@b.example:taro@jp": {Local: "taro", Domain: "jp"},
		"taro@[192.0.2.1]":              {Local: "taro", Domain: "[192.0.2.1]"},
		"taro@[IPv6:2001:DB8::1]":       {Local: "taro", Domain: "[ipv6:2001:db8::1]"},
		"太郎@例え.jp":                      {Local: "太郎", Domain: "xn--r8jz45g.jp"},
		"太郎@例え。jp":                      {Local: "太郎", Domain: "xn--r8jz45g.jp"},
		"taro@XN--R8JZ45G.jp":           {Local: "taro", Domain: "xn--r8jz45g.jp"},
	} {
		if got, ok := address.Parse(in); !ok || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", in, got, ok, want)
		}
	}
}

func TestParseRefusesWhatIsNoAddress(t *testing.T) {
	for _, in := range []string{
		"", " ", "<>", "taro", "@example.jp", "taro@", "taro@.", "@", "@a:b", "@a.example",
		"taro@.example.jp", "taro@example..jp", "taro@example.jp..", "taro@exa mple.jp", "taro@a,b", "taro@a<b", `""@example.jp`,
		"ta\x00ro@example.jp", "ta\nro@example.jp", "taro@example.jp\r\nBcc: x@y", "taro\x7f@example.jp",
		"taro@" + strings.Repeat("a.", 300) + "jp",
	} {
		if got, ok := address.Parse(in); ok {
			t.Errorf("Parse(%q) = %+v, want none", in, got)
		}
	}
}

func TestKeyIsOneForAllSpellings(t *testing.T) {
	for _, in := range []string{"taro@example.jp", "TARO@Example.JP.", `"Taro"@example.jp`, "@relay.example:taro@example.jp"} {
		a, ok := address.Parse(in)
		if !ok || a.Key() != "taro@example.jp" {
			t.Errorf("key of %q is %q", in, a.Key())
		}
	}
	if null := (address.Address{}); null.Key() != "" || null.String() != "<>" {
		t.Errorf("null reverse-path is %q, %q", null.Key(), null)
	}
}

func TestDomainIsComparable(t *testing.T) {
	for in, want := range map[string]string{
		"example.jp": "example.jp", "EXAMPLE.jp.": "example.jp", "例え.JP": "xn--r8jz45g.jp", "例え.jp。": "xn--r8jz45g.jp",
		"mail_1.example.jp": "mail_1.example.jp", "[192.0.2.1]": "[192.0.2.1]",
		"": "", ".": "", ".jp": "", "a..b": "", "a.jp..": "", "a b": "", "a@b": "", "a\x00b": "", "a\tb": "", "a\nb": "",
	} {
		if got := address.Domain(in); got != want {
			t.Errorf("Domain(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestListReadsWhatMailProgramsWrite(t *testing.T) {
	for in, want := range map[string]string{
		"taro@example.jp":                                "taro@example.jp",
		"Taro <taro@example.jp>":                         "taro@example.jp",
		`"Yamada, Taro" <taro@example.jp>, hanako@ex.jp`: "taro@example.jp hanako@ex.jp",
		`"a\"b, c@d.jp" <taro@example.jp>`:               "taro@example.jp",
		"山田 太郎 <taro@example.jp>":                        "taro@example.jp",
		"=?utf-8?q?ceo=40ex.jp?= <taro@example.jp>":      "taro@example.jp",
		"taro@example.jp (Taro, of (the) house)":         "taro@example.jp",
		`(a \) ceo@ex.jp) taro@example.jp`:               "taro@example.jp",
		"taro(comment)@example.jp":                       "taro@example.jp",
		"taro @ example.jp":                              "taro@example.jp",
		"<@a.example,@b.example:taro@example.jp>":        "taro@example.jp",
		`"taro"@example.jp`:                              "taro@example.jp",
		`<"a>b"@example.jp>`:                             `"a>b"@example.jp`,
		"[External] Taro <taro@example.jp>":              "taro@example.jp",
		"House: taro@example.jp, Hanako <hanako@ex.jp>;": "taro@example.jp hanako@ex.jp",
		"a@[IPv6:2001:db8::1], taro@example.jp":          "a@[ipv6:2001:db8::1] taro@example.jp",
		"undisclosed-recipients:;":                       "",
		"":                                               "",
		", ,taro@example.jp,,":                           "taro@example.jp",
		"Taro taro@example.jp":                           "taro@example.jp",
		"taro@example.jp <taro@example.jp>":              "taro@example.jp",
		"Taro\t<taro@example.jp>":                        "taro@example.jp",
	} {
		if got, ok := address.List(in); !ok || words(got) != want {
			t.Errorf("List(%q) = %q, %v; want %q", in, words(got), ok, want)
		}
	}
}

// What one reader shows and another does not must be among the addresses that
// are judged, or the field counts as unreadable.
func TestListHidesNoAddress(t *testing.T) {
	for _, in := range []string{
		"<ceo@ex.jp> <taro@example.jp>",
		"<taro@example.jp> <ceo@ex.jp>",
		"ceo@ex.jp <taro@example.jp>",
		"Boss ceo@ex.jp <taro@example.jp>",
		"ceo@ex.jp: taro@example.jp;",
		"Group: taro@example.jp, ceo@ex.jp;",
		"Group: ;, ceo@ex.jp, taro@example.jp",
		"taro@example.jp; ceo@ex.jp",
		"ceo@ex.jp taro@example.jp",
		`ceo@ex.jp "Taro" <taro@example.jp>`,
		`"ceo"@ex.jp, taro@example.jp`,
	} {
		got, ok := address.List(in)
		if ok && !slices.Contains(got, address.Address{Local: "ceo", Domain: "ex.jp"}) {
			t.Errorf("List(%q) = %q: ceo is hidden", in, words(got))
		}
	}
	for _, in := range []string{
		"taro@example.jp, ceo@", "taro@example.jp, <ceo@ex..jp>", "taro@example.jp, ceo@e\x01x.jp",
		strings.Repeat("taro@example.jp,", 65),
	} {
		if got, ok := address.List(in); ok || len(got) > 64 {
			t.Errorf("List(%.40q) = %d addresses, %v; want it refused", in, len(got), ok)
		}
	}
}

func words(list []address.Address) string {
	var all []string
	for _, a := range list {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

func TestFormsNameThePossibleOwner(t *testing.T) {
	for _, c := range []struct{ local, delimiters, owner string }{
		{"taro+shop", "+", "taro"},
		{"taro-shop", "+-", "taro"},
		{"prvs=0123ABCDEF=taro", "", "taro"},
		{"prvs=taro/0123abcdef", "", "taro"},
		{"btv1==0123abcdef==taro", "", "taro"},
		{"prvs=0123abcdef=taro+shop", "+", "taro"},
		{"news-hanako=example.net", "", "news"},
		{"news+hanako=example.net", "", "news"},
		{"news-bounces+hanako=example.net", "", "news"},
		{"news-return-42-hanako=example.net", "", "news"},
		{"news-bounces", "", "news"},
		{"owner-news", "", "news"},
		{"news-owner", "", "news"},
	} {
		a := address.Address{Local: c.local, Domain: "example.jp"}
		if forms := address.Forms(a, c.delimiters); !slices.Contains(forms, address.Address{Local: c.owner, Domain: "example.jp"}) {
			t.Errorf("Forms(%s, %q) = %q, want %s among them", a, c.delimiters, words(forms), c.owner)
		}
	}
}

func TestFormsGuessNothing(t *testing.T) {
	for _, c := range []struct{ local, delimiters string }{
		{"taro", "+"}, {"taro+shop", ""}, {"+taro", "+"}, {"prvs=taro", "+"}, {"prvs=short=taro", "+"}, {"prvs=012345678g=taro", "+"},
		{"prvs=0123abcdef=", ""}, {"btv1==0123abcdef=taro", ""}, {"taro-hanako", ""}, {"taro-x=localhost", ""}, {"-bounces", ""}, {"owner-", ""},
	} {
		if forms := address.Forms(address.Address{Local: c.local, Domain: "example.jp"}, c.delimiters); len(forms) > 0 {
			t.Errorf("Forms(%s, %q) = %q, want none", c.local, c.delimiters, words(forms))
		}
	}
}

func TestFormsAreFew(t *testing.T) {
	a := address.Address{Local: strings.Repeat("a-", 200) + "x=y.z", Domain: "example.jp"}
	if n := len(address.Forms(a, "-")); n > 40 {
		t.Errorf("%d forms: each costs a look at the map", n)
	}
}

func TestIsSRS(t *testing.T) {
	for local, want := range map[string]bool{
		"SRS0=HHH=TT=example.net=hanako": true, "srs0+HHH=TT=example.net=hanako": true, "SRS0-HHH=TT=example.net=hanako": true,
		"SRS1=HHH=example.org==HHH=TT=example.net=hanako": true,
		"SRS0": false, "SRS0=": false, "SRS0=a=b": false, "SRS2=a=b=c=d": false, "SRS0xa=b=c=d": false, "taro": false,
	} {
		if got := address.IsSRS(address.Address{Local: local, Domain: "example.jp"}); got != want {
			t.Errorf("IsSRS(%q) = %v", local, got)
		}
	}
}
