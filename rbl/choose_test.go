package rbl_test

import (
	"slices"
	"strings"
	"testing"

	"relayguard/rbl"
)

func choose(t *testing.T, c rbl.Choice) (use []string, not map[string]string) {
	t.Helper()
	zones, left, err := rbl.Builtin().Choose(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range zones {
		use = append(use, z.Name)
	}
	if !slices.IsSorted(use) {
		t.Errorf("not by name: %q", use)
	}
	not = map[string]string{}
	for _, n := range left {
		if n.Why == "" || slices.Contains(use, n.Zone.Name) {
			t.Errorf("%s: not chosen, why %q", n.Zone.Name, n.Why)
		}
		not[n.Zone.Name] = n.Why
	}
	return use, not
}

func TestChooseForCommercialUse(t *testing.T) {
	use, not := choose(t, rbl.Choice{Commercial: true})
	for _, name := range []string{"zen.spamhaus.org", "dbl.spamhaus.org", "list.dnswl.org"} {
		if slices.Contains(use, name) || !strings.Contains(not[name], "non-commercial use only (https://") {
			t.Errorf("%s: %q", name, not[name])
		}
	}
	if !strings.Contains(not["zen.spamhaus.org"], "get a key") || !strings.Contains(not["zen.spamhaus.org"], "zen.dq.spamhaus.net") {
		t.Errorf("zen: %q", not["zen.spamhaus.org"])
	}
	if !slices.Contains(use, "bl.spamcop.net") || !slices.Contains(use, "multi.surbl.org") {
		t.Errorf("%q", use)
	}
	if _, told := not["tor.dan.me.uk"]; told || slices.Contains(use, "tor.dan.me.uk") {
		t.Error("a zone that is off is told")
	}
}

func TestChooseForNonCommercialUse(t *testing.T) {
	use, not := choose(t, rbl.Choice{})
	if !slices.Contains(use, "zen.spamhaus.org") || !strings.Contains(not["zen.dq.spamhaus.net"], `operator = "spamhaus"`) {
		t.Errorf("%q", not)
	}
}

func TestChooseWithAKey(t *testing.T) {
	for _, commercial := range []bool{true, false} {
		use, not := choose(t, rbl.Choice{Commercial: commercial, Keys: map[string]bool{"spamhaus": true}})
		if !slices.Contains(use, "zen.dq.spamhaus.net") || slices.Contains(use, "zen.spamhaus.org") || !strings.Contains(not["zen.spamhaus.org"], "same data") {
			t.Errorf("commercial %t: %q", commercial, use)
		}
	}
	use, _ := choose(t, rbl.Choice{Keys: map[string]bool{"spamhaus": true}, Disable: []string{"zen.dq.spamhaus.net"}})
	if !slices.Contains(use, "zen.spamhaus.org") {
		t.Error("neither of the two is asked")
	}
}

func TestChooseEnabledAndDisabled(t *testing.T) {
	use, not := choose(t, rbl.Choice{
		Enable:  []string{"BL.nosolicitado.org.", "tor.dan.me.uk", "uribl.rspamd.com", "black.mail.abusix.zone", "dnsbl.zapbl.net", "dnsbl.zapbl.net"},
		Disable: []string{"psbl.surriel.com", "rbl.efnetrbl.org"},
	})
	for name, in := range map[string]bool{"bl.nosolicitado.org": true, "dnsbl.zapbl.net": true, "tor.dan.me.uk": false, "uribl.rspamd.com": false, "black.mail.abusix.zone": false, "psbl.surriel.com": false} {
		if slices.Contains(use, name) != in || (not[name] == "") != in {
			t.Errorf("%s: in use %t, why not: %q", name, !in, not[name])
		}
	}
	if _, told := not["rbl.efnetrbl.org"]; told {
		t.Error("told that a zone that was off is switched off")
	}
}

func TestChooseTellsEveryName(t *testing.T) {
	_, _, err := rbl.Builtin().Choose(rbl.Choice{
		Enable:  []string{"bl.sorbs.net", "spamhaus.org", "nothing.example.org", "psbl.surriel.com", "", "topsecretkey.zen.dq.spamhaus.net"},
		Disable: []string{"PSBL.surriel.com", "rbl.spamhaus.org"},
	})
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{
		`enable: zone "bl.sorbs.net": SORBS was shut down`,
		`enable: zone "spamhaus.org": not known: did you mean`,
		`enable: zone "nothing.example.org": not known: "rbl zones --all"`,
		`enable: zone "": not known`,
		`zone "psbl.surriel.com": both enabled and disabled`,
		`disable: zone "rbl.spamhaus.org": Never was a list`,
		`enable: a name below that of a zone of dq.spamhaus.net`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nobody tells %s:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 7 {
		t.Errorf("%d errors:\n%v", n, err)
	}
	if strings.Contains(err.Error(), "topsecret") {
		t.Errorf("a key is told:\n%v", err)
	}
}

// Nor where the table of keys' zones was replaced.
func TestChooseFromAReplacedTableTellsNoKey(t *testing.T) {
	_, _, err := load(t, "replace.toml").Choose(rbl.Choice{Enable: []string{"topsecretkey.zen.dq.spamhaus.net"}})
	if err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Errorf("%v", err)
	}
}
