package postfix

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/mta/postfix/postfixtest"
)

// delivery is one mail, and where a real Postfix with the settings below brings
// it. Of every place the rule must be found.
type delivery struct {
	from, to, subject string
	service           string
	arrives           []string
}

var deliveries = []delivery{
	{to: "v1@corp.test", arrives: []string{"v1out@evil.test"}},
	{to: "spaces@corp.test", arrives: []string{"s1@evil.test", "s2@evil.test"}},
	{to: "bare@corp.test", arrives: []string{"bareout@evil.test"}},
	{to: "anyone@old.test", arrives: []string{"anyone@evil.test"}},
	{to: "user@old.test", arrives: []string{"user@evil2.test"}},
	{to: "copied@old2.test", arrives: []string{"copied@old2.test", "copy@evil.test"}},
	{to: "twice@old2.test", arrives: []string{"first@evil.test"}},
	{to: "can@corp.test", arrives: []string{"canout@evil.test"}},
	{to: "multi@corp.test", arrives: []string{"multi1@evil.test"}},
	{to: "rbcc@partner.test", arrives: []string{"rbcc@partner.test", "rbccout@evil.test"}},
	{from: "boss@corp.test", to: "a1@partner.test", arrives: []string{"a1@partner.test", "sbccout@evil.test"}},
	{to: "a2@partner.test", subject: "HRED", arrives: []string{"hred@evil.test"}},
	{to: "a3@partner.test", subject: "HBCC", arrives: []string{"a3@partner.test", "hbcc@evil.test"}},
	{to: "accred@partner.test", arrives: []string{"accredout@evil.test"}},
	{to: "accbcc@partner.test", arrives: []string{"accbcc@partner.test", "accbccout@evil.test"}},
	{to: "class@partner.test", arrives: []string{"classout@evil.test"}},
	{to: "nobodyhere@corp.test", arrives: []string{"nobodyhere@evil.test"}},
	{to: "a4@partner.test", service: "smtpd-override", arrives: []string{"a4@partner.test"}},
	{to: "a5@partner.test", service: "cleanup-override", arrives: []string{"a5@partner.test", "always@evil.test"}},
	{to: "al@corp.test", arrives: []string{"al1@evil.test", "al2@evil.test"}},
	{to: "filtered@partner.test", service: "filtering", arrives: []string{"cmdfilter@evil.test"}},
}

func deliveryOptions() postfixtest.Options {
	return postfixtest.Options{
		Inside: []string{"example.jp"},
		Main: map[string]string{
			"myhostname": "mx.corp.test", "myorigin": "corp.test", "mydestination": "corp.test", "local_recipient_maps": "",
			"virtual_alias_maps":       "texthash:$config_directory/virtual, texthash:$config_directory/virtual2",
			"recipient_canonical_maps": "texthash:$config_directory/canonical", "recipient_bcc_maps": "texthash:$config_directory/rbcc",
			"sender_bcc_maps": "inline:{boss@corp.test=sbccout@evil.test}", "header_checks": "regexp:$config_directory/checks",
			"smtpd_restriction_classes": "far", "far": "check_recipient_access inline:{ { class@partner.test = REDIRECT classout@evil.test } }",
			"smtpd_recipient_restrictions": "check_recipient_access texthash:$config_directory/access",
			"luser_relay":                  "${user}@evil.test", "alias_maps": "texthash:$config_directory/aliases",
		},
		Files: map[string]string{
			"virtual":   "v1@corp.test v1out@evil.test\nspaces@corp.test s1@evil.test s2@evil.test\nbare bareout@evil.test\n@old.test @evil.test\nuser@old.test @evil2.test\ncopied@old2.test copied@old2.test, copy@evil.test\ntwice@old2.test first@evil.test\n",
			"virtual2":  "twice@old2.test second@evil.test\n",
			"canonical": "can@corp.test canout@evil.test\nmulti@corp.test multi1@evil.test, multi2@evil.test\n",
			"rbcc":      "rbcc@partner.test rbccout@evil.test\n",
			"checks":    "/^Subject: HRED/ REDIRECT hred@evil.test\n/^Subject: HBCC/ bcc hbcc@evil.test\n",
			"access":    "accred@partner.test REDIRECT accredout@evil.test\naccbcc@partner.test BCC accbccout@evil.test\nclass@partner.test far\n",
			"filter":    "/^RCPT TO:<filtered@partner\\.test>/ RCPT TO:<cmdfilter@evil.test>\n",
			"aliases":   "al al1@evil.test al2@evil.test\n",
		},
		Services: []postfixtest.Service{
			{Name: "smtp"},
			{Name: "smtpd-override", Options: map[string]string{"always_bcc": "nowhere@evil.test"}},
			{Name: "cleanup-override", Options: map[string]string{"cleanup_service_name": "bccclean"}},
			{Name: "filtering", Options: map[string]string{"smtpd_command_filter": "regexp:$config_directory/filter"}},
		},
		Master: []string{"bccclean unix n - n - 0 cleanup -o always_bcc=always@evil.test"},
	}
}

// TestRulesAreWhatPostfixDoes plants rules in a real Postfix, sends mail, and
// compares where it arrives with the rules that are found.
func TestRulesAreWhatPostfixDoes(t *testing.T) {
	p := postfixtest.StartTest(t, deliveryOptions())
	rules := inForce(t, p.ConfigDir)
	for n, d := range deliveries {
		name := fmt.Sprintf("%02d %s", n, d.to)
		p.Sink.Forget()
		if accepted := d.send(t, p, n); accepted != (len(d.arrives) > 0) {
			t.Errorf("%s: accepted: %v", name, accepted)
			continue
		}
		if err := p.WaitEmpty(t.Context()); err != nil {
			t.Fatal(err)
		}
		arrived := map[string]bool{}
		for _, m := range p.Sink.All() {
			for _, rcpt := range m.RcptTo {
				arrived[rcpt] = true
			}
		}
		if got := slices.Sorted(maps.Keys(arrived)); !slices.Equal(got, d.arrives) {
			t.Errorf("%s: arrives at %v, want %v", name, got, d.arrives)
		}
		for _, rcpt := range d.arrives {
			if strings.Contains(rcpt, "@evil") && !explained(rules, d, rcpt) {
				t.Errorf("%s: no rule says that it goes to %s", name, rcpt)
			}
		}
	}
	for _, r := range rules {
		for _, not := range []string{"second@", "multi2@", "nowhere@"} {
			if strings.HasPrefix(r.Target, not) {
				t.Errorf("in force: %s", line(r))
			}
		}
	}
}

func (d delivery) send(t *testing.T, p *postfixtest.Postfix, n int) bool {
	t.Helper()
	service, from := d.service, d.from
	if service == "" {
		service = "smtp"
	}
	if from == "" {
		from = "cust@partner.test"
	}
	c, err := p.Dial(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Ehlo("client.test"); err != nil {
		t.Fatal(err)
	}
	sent, err := c.Send(from, []string{d.to}, fmt.Sprintf("Subject: %s\r\nMessage-ID: <%d@test>\r\n\r\nx\r\n", d.subject, n))
	if err != nil {
		t.Fatal(err)
	}
	return sent.Accepted()
}

// inForce are the rules of all units that are neither dormant nor broken.
func inForce(t *testing.T, dir string) []forward.Rule {
	t.Helper()
	var rules []forward.Rule
	for _, u := range Plan(t.Context(), host(t, true), Options{ConfigDir: dir}).Units {
		for _, r := range u.Read(t.Context()).Rules {
			if r.Dormant == "" && r.Broken == "" {
				rules = append(rules, r)
			}
		}
	}
	return rules
}

func explained(rules []forward.Rule, d delivery, rcpt string) bool {
	return slices.ContainsFunc(rules, func(r forward.Rule) bool {
		if !ownerFits(r, d) {
			return false
		}
		if head, tail, dynamic := strings.Cut(r.Target, forward.Unknown); dynamic {
			return strings.HasPrefix(rcpt, head) && strings.HasSuffix(rcpt, tail)
		}
		return r.Target == rcpt
	})
}

func ownerFits(r forward.Rule, d delivery) bool {
	address := d.to
	if r.Sender {
		address = d.from
	}
	local, domain, _ := strings.Cut(address, "@")
	return slices.Contains([]string{forward.Everybody, address, local, "@" + domain}, r.Owner)
}
