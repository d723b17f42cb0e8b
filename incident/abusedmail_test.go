package incident_test

import (
	"testing"
	"time"

	"relayguard/incident"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// What waits of one site of a shared account goes on while another is abused.
func TestAbuseOfOneSiteIsNotItsNeighbours(t *testing.T) {
	const account = "local_user:www-data"
	mail := func(site, template string, buckets ...string) incident.Mail {
		return incident.Mail{Account: account, Site: site, Template: template, Buckets: buckets}
	}
	shop, blog := "shop.example.jp", "blog.example.jp"
	for name, c := range map[string]struct {
		cause   string
		buckets []string
		where   incident.Where
		want    map[*incident.Mail]bool
	}{
		"plugin": {"plugin-first-time", []string{"plugin:share@" + shop}, incident.Where{Site: shop, Plugin: "share"}, map[*incident.Mail]bool{
			{Account: account, Site: shop}:                                true,
			{Account: account, Site: blog}:                                false,
			{Account: account, Template: "t1"}:                            false,
			{Account: account}:                                            false,
			{Account: account, Buckets: []string{"plugin:share@" + shop}}: true,
			{Account: "local_user:other", Site: shop}:                     false,
		}},
		"text": {"template-first-time", []string{"template:t1"}, incident.Where{Template: "t1"}, map[*incident.Mail]bool{
			{Account: account, Template: "t1"}:                                   true,
			{Account: account, Template: "t2", Buckets: []string{"template:t2"}}: false,
			{Account: account, Site: blog}:                                       false,
		}},
		"text of a site": {"template-first-time", []string{"template:t1"}, incident.Where{Site: shop, Template: "t1"}, map[*incident.Mail]bool{
			{Account: account, Site: shop, Template: "t2"}: true,
			{Account: account, Site: blog, Template: "t2"}: false,
			{Account: account, Template: "t1"}:             true,
		}},
		"account": {"shared-abuse", []string{"local_user:33"}, incident.Where{}, map[*incident.Mail]bool{
			{Account: account, Site: blog, Buckets: []string{"site:" + blog, "local_user:33"}}: true,
		}},
		"sender": {"shared-abuse", []string{"mail_from:a@example.jp"}, incident.Where{}, map[*incident.Mail]bool{
			{Account: account, Buckets: []string{"mail_from:a@example.jp"}}: true,
			{Account: account, Buckets: []string{"mail_from:b@example.jp"}}: false,
		}},
		"account, not known how": {"shared-abuse", nil, incident.Where{}, map[*incident.Mail]bool{{Account: account, Site: blog}: true}},
		"volume":                 {"site-volume", []string{"site:" + shop}, incident.Where{Site: shop}, map[*incident.Mail]bool{{Account: account, Site: shop}: false}},
	} {
		b, _ := newBook(incident.Options{Abuses: func() []string { return []string{"plugin-first-time", "template-first-time", "shared-abuse"} }})
		s := stop(account, c.cause)
		s.Account, s.Buckets, s.Where = account, c.buckets, c.where
		if len(c.buckets) > 0 && c.cause != "shared-abuse" {
			s.Origin = c.buckets[0]
		}
		b.Observe(start, s)
		for m, want := range c.want {
			if got := b.AbusedMail(*m); got != want {
				t.Errorf("%s: %+v: %t, want %t", name, *m, got, want)
			}
		}
		b.Tick(start.Add(time.Hour))
		for m := range c.want {
			if b.AbusedMail(*m) {
				t.Errorf("%s: it is closed, and still counts for %+v", name, *m)
			}
		}
	}
	none, _ := newBook(incident.Options{})
	if none.AbusedMail(mail(shop, "", "plugin:share@"+shop)) {
		t.Error("without causes of abuse")
	}
}

func TestMailOfWhatWaits(t *testing.T) {
	w := &policy.Waits{Charges: []policy.WaitCharge{{Value: "local_user:33"}, {Value: "template:t1"}}}
	w.Origin.UID, w.Origin.LocalUser = 33, origin.Key{Value: "www-data", Confidence: origin.Kernel}
	w.Origin.Site, w.Origin.Template = origin.Key{Value: "shop.example.jp", Confidence: origin.Claimed}, origin.Key{Value: "t1", Confidence: origin.Fingerprint}
	if m := incident.MailOf(w); m.Account != "local_user:www-data" || m.Site != "" || m.Template != "t1" || len(m.Buckets) != 2 {
		t.Errorf("%+v", m)
	}
	w.Origin.Site.Confidence = origin.Signed
	if m := incident.MailOf(w); m.Site != "shop.example.jp" {
		t.Errorf("%+v", m)
	}
}
