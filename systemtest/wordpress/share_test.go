package wordpress_test

import (
	"fmt"
	"testing"

	"relayguard/systemtest/relay"
)

// ways are those in which the share plugin's mail leaves.
var ways = []struct {
	name string
	site siteOptions
	smtp bool // by the Postfix's SMTP port
}{
	{name: "wp_mail"},
	{name: "PHPMailer of its own", site: siteOptions{consts: map[string]any{"SHARE_BY_MAIL_WAY": "own_mailer"}}},
	{name: "plain mail()", site: siteOptions{consts: map[string]any{"SHARE_BY_MAIL_WAY": "plain"}}},
	{name: "PHPMailer of its own, prepend", site: siteOptions{prepend: true, consts: map[string]any{"SHARE_BY_MAIL_WAY": "own_mailer"}}},
	{name: "plain mail(), prepend", site: siteOptions{prepend: true, consts: map[string]any{"SHARE_BY_MAIL_WAY": "plain"}}},
	{name: "linked plugin", site: siteOptions{linked: true}},
	{name: "multisite", site: siteOptions{network: true}},
	{name: "wp-cron", site: siteOptions{consts: map[string]any{"SHARE_BY_MAIL_WAY": "cron"}}},
	{name: "SMTP to this host", smtp: true, site: siteOptions{plugins: []string{"share-by-mail", "contact-form", "send-by-smtp"}}},
}

// labelled is whether the must-use plugin or the prepend sees the share mails.
func (s *site) labelled() bool {
	way := s.consts["SHARE_BY_MAIL_WAY"]
	return s.prepend || way != "own_mailer" && way != "plain"
}

// entry is how the site is called when a share mail leaves.
func (s *site) entry() string {
	if s.consts["SHARE_BY_MAIL_WAY"] == "cron" {
		return "cron"
	}
	return "ajax"
}

// startShop starts a site that sends in the i-th of the ways.
func startShop(t *testing.T, r *relay.Relay, i int, name string) *site {
	t.Helper()
	o := ways[i].site
	o.name = name
	if o.network {
		o.blog = "second." + name
	}
	if ways[i].smtp {
		o.consts = map[string]any{"SEND_BY_SMTP_PORT": smtpPort(t, r)}
	}
	return startSite(t, r, o)
}

// A hoster installs the must-use plugin; then attackers drive the share button
// of one site. It is stopped, and nothing else is.
func TestShareButtonIsStopped(t *testing.T) {
	need(t)
	for i, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, relay.Options{})
			shop, neighbour := startShop(t, r, i, "shop.example.jp"), startSite(t, r, siteOptions{name: "neighbour.example.jp"})
			install(t, shop)
			install(t, neighbour)
			f := wantStopped(t, shop, 30, func(round int) []errand {
				return append(append(shop.everyday(round), neighbour.everyday(round)...), neighbour.friendly(round)...)
			})
			wantIncident(t, shop, f.held)
		})
	}
}

// Without anything installed, and without an attack, all mail of all sites
// arrives: else the tests of this package would prove little.
func TestEverydayMailArrives(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{})
	var shops []*site
	for i := range ways {
		shops = append(shops, startShop(t, r, i, fmt.Sprintf("shop%d.example.jp", i)))
	}
	sent := make(map[string]int) // by account
	var done []errand
	for _, shop := range shops {
		for round := range rounds {
			errands := append(shop.everyday(round), shop.friendly(round)...)
			if err := run(t.Context(), errands); err != nil {
				t.Fatal(err)
			}
			sent[fmt.Sprintf("local_user:uid:%d", shop.uid)] += len(errands)
			done = append(done, errands...)
			if err := shop.work(t.Context(), round); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantErrands(t, r, done)
	for _, v := range verdicts(t, r, 0, len(done)) {
		sent[v.Account]--
		if v.Confidence != "kernel" {
			t.Errorf("whose mail it is was not told by the kernel: %s", v.Raw)
		}
	}
	for account, missing := range sent {
		if missing != 0 {
			t.Errorf("%s: %d mails more were sent than are counted as its own", account, missing)
		}
	}
}
