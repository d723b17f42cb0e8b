package judge_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// Real mail to an alias of every spelling arrives where Canonical says, and
// nowhere outside if it says inside. The same for virtual aliases.
func TestMailGoesWhereCanonicalSays(t *testing.T) {
	for _, way := range []string{"aliases", "virtual"} {
		t.Run(way, func(t *testing.T) { deliverSpellings(t, way) })
	}
}

func deliverSpellings(t *testing.T, way string) {
	w := corpWorld()
	var table strings.Builder
	used := map[int]string{}
	for i, s := range spellings {
		if strings.HasPrefix(s, "#") || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "|") || strings.HasPrefix(s, "@corp.test") && !strings.Contains(s, ":") {
			continue // a comment, a file, a program, a whole domain
		}
		used[i] = s
		fmt.Fprintf(&table, "t%d %s\n", i, s)
	}
	main := map[string]string{"mydestination": "corp.test, $myhostname", "myorigin": "corp.test", "mydomain": "corp.test", "myhostname": "mx.corp.test",
		"append_dot_mydomain": "no", "recipient_delimiter": "+", "local_recipient_maps": ""}
	main[map[string]string{"aliases": "alias_maps", "virtual": "virtual_alias_maps"}[way]] = "texthash:$config_directory/table"
	p := postfixtest.StartTest(t, postfixtest.Options{Inside: []string{"virt.test"}, Main: main, Files: map[string]string{"table": table.String()},
		Services: []postfixtest.Service{{Name: "smtp"}}})
	c, err := p.Dial(t.Context(), "smtp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ehlo("client.test"); err != nil {
		t.Fatal(err)
	}
	for i := range used {
		sent, err := c.Send("cust@partner.test", []string{fmt.Sprintf("t%d@corp.test", i)}, fmt.Sprintf("Subject: spelling-%d-\r\n\r\nx\r\n", i))
		if err != nil || !sent.Accepted() {
			t.Fatalf("mail to t%d: %v %v", i, sent.Refusal(), err)
		}
	}
	if err := p.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
	arrived := arrivals(p.Sink.All())
	outside := 0
	for i, s := range used {
		if way == "virtual" && strings.HasPrefix(s, "@") {
			s = quoteForReading(fmt.Sprintf("t%d%s", i, s)) // such a target keeps the local part
		}
		if checkArrival(t, &w, s, arrived[i]) {
			outside++
		}
	}
	if outside < 60 {
		t.Errorf("%d spellings went outside, want at least 60", outside)
	}
}

// checkArrival compares where mail for a spelling arrived with what Canonical
// says, and tells whether that was outside.
func checkArrival(t *testing.T, w *forward.World, s string, arrived []string) bool {
	t.Helper()
	addr, ok := judge.Canonical(w, s)
	g := judge.New(*w)
	var out []string
	for _, a := range arrived {
		if !g.Inside(quoteForReading(a)) {
			out = append(out, a)
		}
	}
	inside := !ok || g.Inside(quoteForReading(addr))
	switch {
	case inside && len(out) > 0:
		t.Errorf("%q is %q, inside; mail for it arrived at %q", s, addr, out)
	case !inside && len(out) > 0 && !slices.ContainsFunc(out, func(a string) bool { return strings.EqualFold(judge.CleanAddress(a), addr) }):
		t.Errorf("%q is %q; mail for it arrived at %q", s, addr, out)
	}
	return len(out) > 0
}

// quoteForReading is an address in inner form as Canonical reads it.
func quoteForReading(a string) string {
	at := strings.LastIndexByte(a, '@')
	if at < 0 {
		return a
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a[:at]) + `"` + a[at:]
}

var number = regexp.MustCompile(`Subject: spelling-(\d+)-`)

// arrivals are the recipients of what arrived, bounces apart, by the number of
// the spelling, in inner form.
func arrivals(mails []smtptest.Mail) map[int][]string {
	by := map[int][]string{}
	for _, m := range mails {
		if m.MailFrom == "" {
			continue
		}
		var i int
		if match := number.FindSubmatch(m.Data); match != nil {
			fmt.Sscan(string(match[1]), &i)
			for _, to := range m.RcptTo {
				by[i] = append(by[i], unquote822(to))
			}
		}
	}
	return by
}
