package origin_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"relayguard/policy/origin"
)

func TestLabelsOfASite(t *testing.T) {
	for _, c := range []struct {
		name                   string
		evidence               origin.Evidence
		site, plugin, template origin.Key
	}{
		{"none", origin.Evidence{}, origin.Key{}, origin.Key{}, origin.Key{}},
		{"proven", origin.Evidence{Site: "Shop.Example.JP.", Plugin: "Share-By-Mail", Template: "T1", SiteConfidence: origin.Kernel, PluginConfidence: origin.Signed, TemplateConfidence: origin.Fingerprint},
			origin.Key{Value: "shop.example.jp", Confidence: origin.Kernel}, origin.Key{Value: "share-by-mail", Confidence: origin.Signed}, origin.Key{Value: "T1", Confidence: origin.Fingerprint}},
		{"of no told confidence", origin.Evidence{Site: "a.jp", Plugin: "p", Template: "t"}, origin.Key{Value: "a.jp", Confidence: origin.Claimed}, origin.Key{Value: "p", Confidence: origin.Claimed}, origin.Key{Value: "t", Confidence: origin.Claimed}},
		{"the site's own software", origin.Evidence{Site: "a.jp", SiteConfidence: origin.Wrapper, PluginConfidence: origin.Wrapper}, origin.Key{Value: "a.jp", Confidence: origin.Wrapper}, origin.Key{Value: origin.OwnSoftware, Confidence: origin.Wrapper}, origin.Key{}},
		{"blanks and control characters", origin.Evidence{Site: "a b\r\nX: 1\x00.jp", Plugin: "p\t\u200b\u00a0q"}, origin.Key{Value: "a_b__x:_1_.jp", Confidence: origin.Claimed}, origin.Key{Value: "p___q", Confidence: origin.Claimed}, origin.Key{}},
		{"an @ that would be another's", origin.Evidence{Site: "x@a.jp"}, origin.Key{Value: "x_a.jp", Confidence: origin.Claimed}, origin.Key{}, origin.Key{}},
		{"no UTF-8", origin.Evidence{Template: "t\xff\xfe"}, origin.Key{}, origin.Key{}, origin.Key{Value: "t_", Confidence: origin.Claimed}},
	} {
		c.evidence.UID = origin.NoUID
		o := new(origin.Finder).Find(&c.evidence)
		if o.Site != c.site || o.Plugin != c.plugin || o.Template != c.template {
			t.Errorf("%s: %+v %+v %+v", c.name, o.Site, o.Plugin, o.Template)
		}
	}
}

func TestLabelsHaveABound(t *testing.T) {
	e := origin.NewEvidence()
	e.Site, e.Plugin, e.Template = strings.Repeat("a", 100_000), strings.Repeat("日本", 50_000), strings.Repeat("\x00", 100_000)
	o := new(origin.Finder).Find(&e)
	for _, k := range []origin.Key{o.Site, o.Plugin, o.Template} {
		if len(k.Value) > 255 || len(k.Value) < 250 || !utf8.ValidString(k.Value) {
			t.Errorf("%d octets, valid %v", len(k.Value), utf8.ValidString(k.Value))
		}
	}
}

func TestDomainOfAnOrigin(t *testing.T) {
	for _, c := range []struct {
		login, site string
		confidence  origin.Confidence
		want        string
	}{
		{"Taro@Example.JP", "", 0, "example.jp"},
		{"a@b@example.jp.", "", 0, "example.jp"},
		{"taro@example.jp", "shop.example.org", origin.Signed, "example.jp"},
		{"taro", "", 0, ""},
		{"taro", "shop.example.org", origin.Signed, ""}, // whose login it is, it does not tell
		{"", "shop.example.org", origin.Signed, "shop.example.org"},
		{"", "shop.example.org:8080/blog", origin.Signed, "shop.example.org"},
		{"", "shop.example.org", origin.Claimed, ""},
		{"", "", 0, ""},
	} {
		e := origin.NewEvidence()
		e.Login, e.Site, e.SiteConfidence = c.login, c.site, c.confidence
		if o := new(origin.Finder).Find(&e); o.Domain() != c.want {
			t.Errorf("login %q, site %q (%v): %q, want %q", c.login, c.site, c.confidence, o.Domain(), c.want)
		}
	}
}

// Where taro+shop logs in as taro, a tag makes no other account.
func TestTagsOfALogin(t *testing.T) {
	for _, c := range []struct{ tags, login, want string }{
		{"+", "Taro+Shop@example.jp", "taro@example.jp"},
		{"+", "taro+a+b@example.jp", "taro@example.jp"},
		{"+", "taro@sub+x.example.jp", "taro@sub+x.example.jp"},
		{"+", "taro+shop", "taro"},
		{"+", "+shop@example.jp", "+shop@example.jp"},
		{"+-", "taro-shop@example.jp", "taro@example.jp"},
		{"", "taro+shop@example.jp", "taro+shop@example.jp"},
	} {
		e := origin.NewEvidence()
		e.Login = c.login
		if o := (&origin.Finder{LoginTags: c.tags}).Find(&e); o.Login.Value != c.want {
			t.Errorf("%q of %q: %q, want %q", c.tags, c.login, o.Login.Value, c.want)
		}
	}
}
