package judge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
	"relayguard/mta/postfix/postfixtest"
)

// What a graph says of a list with one subaddress is where Postfix delivers mail
// to that subaddress: which key is met, and whether the extension is kept.
func TestSubaddressesGoWhereTheGraphSays(t *testing.T) {
	virtual := []string{
		"a@virt.test b@evil.test", "c+x@virt.test d@evil.test", "c@virt.test wrong@evil.test", "@virt.test catch@evil.test",
		"keep@virt.test keep@virt.test", "hop@virt.test a@virt.test", "bare e@evil.test", "bare2+x f@evil.test", "bare2 wrong@evil.test",
		"toalias@virt.test alice@corp.test", "tokeep@virt.test @corp.test",
	}
	aliases := []string{"alice g@evil.test", "al2+x h@evil.test", "al2 wrong@evil.test", "tokeep i@evil.test"}
	p := postfixtest.StartTest(t, postfixtest.Options{
		Inside: []string{"virt.test"},
		Main: map[string]string{"mydestination": "corp.test, $myhostname", "myorigin": "corp.test", "mydomain": "corp.test", "myhostname": "mx.corp.test", "append_dot_mydomain": "no",
			"recipient_delimiter": "+", "local_recipient_maps": "", "virtual_alias_maps": "texthash:$config_directory/virtual", "alias_maps": "texthash:$config_directory/aliases"},
		Files:    map[string]string{"virtual": strings.Join(virtual, "\n") + "\n", "aliases": strings.Join(aliases, "\n") + "\n"},
		Services: []postfixtest.Service{{Name: "smtp"}},
	})
	var rules []forward.Rule
	for mechanism, table := range map[forward.Mechanism][]string{forward.Virtual: virtual, forward.Aliases: aliases} {
		for _, line := range table {
			owner, target, _ := strings.Cut(line, " ")
			rules = append(rules, forward.Rule{Owner: owner, Target: target, Mechanism: mechanism, Mode: forward.Redirect})
		}
	}
	c, err := p.Dial(t.Context(), "smtp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ehlo("client.test"); err != nil {
		t.Fatal(err)
	}
	asked := []string{"a+x@virt.test", "A+X@virt.test", "c+x@virt.test", "joe+x@virt.test", "joe@virt.test", "hop+x@virt.test", "bare+x@corp.test", "bare@mx.corp.test",
		"bare2+x@corp.test", "alice+x@corp.test", "al2+x@corp.test", "toalias+x@virt.test", "tokeep+x@virt.test"}
	for i, to := range asked {
		if sent, err := c.Send("cust@partner.test", []string{to}, fmt.Sprintf("Subject: spelling-%d-\r\n\r\nx\r\n", i)); err != nil || !sent.Accepted() {
			t.Fatalf("%s: %v %v", to, sent.Refusal(), err)
		}
	}
	if err := p.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
	arrived := arrivals(p.Sink.All())
	for i, to := range asked {
		g := judge.New(corpWorld())
		g.Load(map[string][]forward.Rule{"tables": rules, "list": {{Owner: "list", Target: to, Mechanism: forward.Aliases, Mode: forward.Redirect}}})
		var said []string
		for _, f := range g.Findings() {
			if f.Owner == "list" {
				said = append(said, strings.ToLower(f.Target))
			}
		}
		got := strings.ToLower(strings.Join(arrived[i], " "))
		if !slices.Equal(said, strings.Fields(got)) {
			t.Errorf("mail to %s arrived at %q; the graph says %q", to, got, said)
		}
	}
}
