package origin_test

import (
	"net/netip"
	"strings"
	"testing"

	"relayguard/policy/origin"
)

func TestWhoseAnOriginIs(t *testing.T) {
	customers, errs := origin.NewCustomers([]origin.Customer{
		{Name: "acme", Logins: []string{"Boss@elsewhere.example"}, Domains: []string{"Acme.example."}, LocalUsers: []string{"acme", "6001"}, Sites: []string{"shop.acme.example"}, Networks: []string{"acme-office"}},
		{Name: "bolt", Logins: []string{"guest@acme.example"}, Domains: []string{"bolt.example"}},
	})
	networks, more := origin.NewNetworks([]origin.Network{{Name: "acme-office", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Reason: "office", Owner: "ops"}})
	if len(errs)+len(more) > 0 {
		t.Fatal(errs, more)
	}
	finder := origin.Finder{Customers: customers, Networks: networks, UserName: func(uid int) string { return map[int]string{33: "www-data", 6000: "acme"}[uid] }}
	site := func(uid int, site string, c origin.Confidence) origin.Evidence {
		return origin.Evidence{UID: uid, Submitted: true, Site: site, SiteConfidence: c}
	}
	for _, c := range []struct {
		name     string
		evidence origin.Evidence
		want     origin.Key
	}{
		{"nobody", origin.Evidence{UID: origin.NoUID}, origin.Key{}},
		{"login", origin.Evidence{UID: origin.NoUID, Login: "boss@elsewhere.example"}, origin.Key{Value: "acme", Confidence: origin.Kernel}},
		{"its domain", origin.Evidence{UID: origin.NoUID, Login: "taro@ACME.example"}, origin.Key{Value: "acme", Confidence: origin.Kernel}},
		{"the login before its domain", origin.Evidence{UID: origin.NoUID, Login: "guest@acme.example"}, origin.Key{Value: "bolt", Confidence: origin.Kernel}},
		{"no domain below", origin.Evidence{UID: origin.NoUID, Login: "taro@sub.acme.example"}, origin.Key{}},
		{"local user by name", origin.Evidence{UID: 6000}, origin.Key{Value: "acme", Confidence: origin.Kernel}},
		{"local user by uid", origin.Evidence{UID: 6001}, origin.Key{Value: "acme", Confidence: origin.Kernel}},
		{"another", origin.Evidence{UID: 6002}, origin.Key{}},
		{"network", origin.Evidence{UID: origin.NoUID, ClientIP: netip.MustParseAddr("192.0.2.7")}, origin.Key{Value: "acme", Confidence: origin.Address}},
		{"site", site(33, "shop.acme.example", origin.Signed), origin.Key{Value: "acme", Confidence: origin.Signed}},
		{"domain of a site", site(33, "bolt.example", origin.Signed), origin.Key{Value: "bolt", Confidence: origin.Signed}},
		{"claimed site", site(33, "shop.acme.example", origin.Claimed), origin.Key{}},
		{"the account before the site", site(6000, "bolt.example", origin.Signed), origin.Key{Value: "acme", Confidence: origin.Kernel}},
		{"claims", origin.Evidence{UID: origin.NoUID, MailFrom: "taro@acme.example", HeaderFrom: "taro@acme.example"}, origin.Key{}},
	} {
		if o := finder.Find(&c.evidence); o.Customer != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, o.Customer, c.want)
		}
	}
}

func TestCustomersFaults(t *testing.T) {
	for _, c := range []struct {
		entries []origin.Customer
		want    string
	}{
		{[]origin.Customer{{Domains: []string{"a.jp"}}}, `customer[0]: no name`},
		{[]origin.Customer{{Name: "acme"}}, `customer "acme": nothing belongs to it`},
		{[]origin.Customer{{Name: "a b", Domains: []string{"a.jp"}}}, `a name with blanks`},
		{[]origin.Customer{{Name: "acme", Domains: []string{""}}}, `customer "acme": an empty domain`},
		{[]origin.Customer{{Name: "acme", Domains: []string{"a.jp"}}, {Name: "acme", Domains: []string{"b.jp"}}}, `customer "acme": name used twice`},
		{[]origin.Customer{{Name: "acme", Domains: []string{"a.jp", "A.jp."}}}, `customer "acme": domain "a.jp" is named twice`},
		{[]origin.Customer{{Name: "acme", Logins: []string{"taro@a.jp"}}, {Name: "bolt", Logins: []string{"TARO@a.jp"}}}, `customer "bolt": login "taro@a.jp" is also with customer "acme"; everything has one customer`},
		{[]origin.Customer{{Name: "acme", LocalUsers: []string{"33"}}, {Name: "bolt", LocalUsers: []string{"uid:33"}}}, `local_user "uid:33" is also with customer "acme"`},
	} {
		_, errs := origin.NewCustomers(c.entries)
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%v, want %q", errs, c.want)
		}
	}
	if _, errs := origin.NewCustomers([]origin.Customer{{}, {}}); len(errs) != 4 {
		t.Errorf("%v, want every fault", errs)
	}
}
