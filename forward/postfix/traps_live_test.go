package postfix

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
	"relayguard/mta/postfix/postfixtest"
)

// Files in which what delivers looks like what does not: what a real Postfix sends
// outside is what is found to lead outside, no more and no less.
func TestTrapsLeadWherePostfixSends(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Inside: []string{"example.jp"},
		Main: map[string]string{
			"myhostname": "mx.corp.test", "myorigin": "corp.test", "mydestination": "corp.test", "local_recipient_maps": "",
			"virtual_alias_maps": "texthash:$config_directory/virtual", "alias_maps": "texthash:$config_directory/names",
		},
		Files:    map[string]string{"names": "", "virtual": "v1@corp.test \"in@corp.test\" <virtual@evil.test>\nv2@corp.test out2@evil.test <in@corp.test>\n"},
		Services: []postfixtest.Service{{Name: "smtp"}},
	})
	for name, text := range map[string]string{
		"chunk": "#" + strings.Repeat(" ", 2047) + "chunk@evil.test\n",
		"whole": "#" + strings.Repeat(" ", 2047) + "# none1@evil.test\n#" + strings.Repeat(" ", 2000) + "none2@evil.test\n",
		"nul":   "in\x00, none3@evil.test\nnul@evil.test\x00\n\x00none4@evil.test\n",
		"names": "a1 :include:@/chunk\na2 :include:@/whole\na3 :include:@/nul\na4 none5@evil.test <in@corp.test>\na5 in@corp.test <phrase@evil.test>\nin in@example.jp\n",
	} {
		if err := os.WriteFile(filepath.Join(p.ConfigDir, name), []byte(strings.ReplaceAll(text, "@/", p.ConfigDir+"/")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := p.Dial(t.Context(), "smtp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ehlo("client.test"); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"a1", "a2", "a3", "a4", "a5", "v1", "v2"} {
		sent, err := c.Send("cust@partner.test", []string{to + "@corp.test"}, "Subject: trap\r\n\r\nx\r\n")
		if err != nil || !sent.Accepted() {
			t.Fatalf("%s: %v %v", to, sent.Refusal(), err)
		}
	}
	if err := p.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
	var arrived []string
	for _, m := range p.Sink.All() {
		for _, to := range m.RcptTo {
			if strings.HasSuffix(to, "@evil.test") {
				arrived = append(arrived, to)
			}
		}
	}
	plan := Plan(t.Context(), host(t, false), Options{ConfigDir: p.ConfigDir})
	g := judge.New(plan.World)
	for _, u := range plan.Units {
		g.Set(u.ID, u.Read(t.Context()).Rules)
	}
	var found []string
	for _, f := range g.Findings() {
		if f.Verdict == forward.Outside && strings.HasSuffix(f.Target, "@evil.test") {
			found = append(found, f.Target)
		}
	}
	slices.Sort(arrived)
	slices.Sort(found)
	if want := []string{"chunk@evil.test", "nul@evil.test", "phrase@evil.test", "virtual@evil.test"}; !slices.Equal(arrived, want) || !slices.Equal(found, want) {
		t.Errorf("arrived %q, found %q, want %q", arrived, found, want)
	}
}
