package aliases_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/aliases"
	"relayguard/mta/postfix/postfixtest"
)

// expand is Expand of one alias.
func (h *homes) expand(right string, as *forward.Account) forward.Reading {
	base := forward.Rule{Owner: "sales", Mechanism: forward.Aliases, Source: "/etc/aliases", Line: 3, Mode: forward.Redirect}
	return aliases.Expand(h.t.Context(), h.host, base, right, as)
}

func TestExpandIncludes(t *testing.T) {
	h := newHomes(t)
	h.plant("secret", "root", 0o600, "no.secret@evil.test\n")
	h.plant("users", "man", 0o644, "yes.users@evil.test\n:include:"+h.at("secret")+"\n")
	h.plant("world", "root", 0o646, "no.world@evil.test\n")
	h.plant("rooted", "root", 0o600, "yes.rooted@evil.test, :include:"+h.at("users")+", :include:"+h.at("rooted")+"\n")
	got := h.expand(fmt.Sprintf(":include:%s, :include:%s, :include:relative, :include:%s, :include:%s, yes.last@evil.test",
		h.at("rooted"), h.at("world"), h.at("nowhere"), h.dir), nil)
	want := []string{"yes.last", "yes.rooted", "yes.users"}
	if have := names(inForce(got.Rules)); !slices.Equal(have, want) {
		t.Errorf("got %q, want %q", have, want)
	}
	broken := 0
	for _, rule := range got.Rules {
		if rule.Broken != "" {
			broken++
		}
		if rule.Owner != "sales" || strings.Contains(rule.Target, "no.") {
			t.Errorf("got %+v", rule)
		}
		if rule.Target == "yes.users@evil.test" && (rule.Source != h.at("users") || rule.Line != 1 || rule.UID != h.uid("man")) {
			t.Errorf("got %+v, want the include file as its place", rule)
		}
	}
	if broken != 5 { // the secret one, world, relative, nowhere, a directory
		t.Errorf("got %d broken rules, want 5: %+v", broken, got.Rules)
	}
	for _, path := range []string{h.at("rooted"), h.at("users"), h.at("secret"), h.at("nowhere")} {
		if !slices.Contains(got.Uses, path) {
			t.Errorf("%s is not among the uses %q", path, got.Uses)
		}
	}
}

// TestExpandAsOwnerOfTheTable: what a user's table includes is read as him.
func TestExpandAsOwnerOfTheTable(t *testing.T) {
	h := newHomes(t)
	h.plant("secret", "root", 0o600, "no.secret@evil.test\n")
	got := h.expand(":include:"+h.at("secret"), h.host.Account("man"))
	if len(got.Rules) != 1 || got.Rules[0].Broken == "" {
		t.Errorf("got %+v", got)
	}
}

func TestExpandIsBounded(t *testing.T) {
	h := newHomes(t)
	for n := range aliases.MaxIncludeDepth + 5 {
		h.plant(fmt.Sprintf("deep%d", n), "root", 0o644, fmt.Sprintf("d%d@evil.test\n:include:%s\n", n, h.at(fmt.Sprintf("deep%d", n+1))))
	}
	h.plant("huge", "root", 0o644, "x")
	if err := os.Truncate(h.at("huge"), 1<<30); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deep0", "huge"} {
		got := h.expand(":include:"+h.at(name), nil)
		asked := slices.ContainsFunc(got.Rules, func(r forward.Rule) bool { return r.Kind == forward.Asked })
		if len(got.Gaps) != 1 || !asked {
			t.Errorf("%s: got gaps %v, asked %t: want one gap and a rule that says so", name, got.Gaps, asked)
		}
	}
	if got := h.expand(strings.Repeat("aaaaaaa ", aliases.MaxRight/8)+"a@evil.test", nil); len(got.Gaps) == 0 {
		t.Error("a right side that is too long has no gap")
	}
	many := h.expand(strings.Repeat("a,", aliases.MaxTargets+5), nil)
	if len(many.Rules) != aliases.MaxTargets+1 || len(many.Gaps) != 1 {
		t.Errorf("got %d rules, %d gaps", len(many.Rules), len(many.Gaps))
	}
}

func TestExpandTellsCopiesAndPrograms(t *testing.T) {
	h := newHomes(t)
	h.plant("script", "root", 0o755, "#!/bin/sh\n")
	right := fmt.Sprintf(`\Sales, x@evil.test, "|%s a@evil.test"`, h.at("script"))
	got := h.expand(right, nil)
	if len(got.Rules) != 2 || got.Rules[0].Mode != forward.Copy || got.Rules[1].Kind != forward.Program || got.Rules[1].Digest == "" {
		t.Fatalf("got %+v", got.Rules)
	}
	h.plant("script", "root", 0o755, "#!/bin/sh\nexec sendmail x@evil.test\n")
	if again := h.expand(right, nil); again.Rules[1].Digest == got.Rules[1].Digest {
		t.Error("another script has the same digest")
	}
	none := ""
	restricted := aliases.ExpandWith(t.Context(), h.host, forward.Rule{Owner: "sales"}, right, nil, aliases.Settings{
		AllowCommands: &none, Local: func(domain string) bool { return domain == "corp.test" }})
	if restricted.Rules[1].Broken == "" {
		t.Errorf("got %+v, want a command that is not allowed", restricted.Rules[1])
	}
}

func FuzzParseForward(f *testing.F) {
	f.Add([]byte("a@evil.test\n#x\n"), 0)
	f.Add([]byte("#\x00\r\n\n a"), 3)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		size := 0
		for _, record := range aliases.ParseForward(data, limit) {
			size += len(record.Text)
			if record.Line < 1 || strings.HasPrefix(record.Text, "#") {
				t.Errorf("got %+v", record)
			}
		}
		if size > len(data) {
			t.Errorf("%d octets became %d", len(data), size)
		}
	})
}

func FuzzParseFile(f *testing.F) {
	text, err := os.ReadFile("testdata/texts/grammar.aliases")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, false)
	f.Add([]byte("a: b \\\n c\n#x\n \"d\": e\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, sendmail bool) {
		for _, entry := range aliases.ParseFile(data, sendmail) {
			if entry.Line < 1 || entry.Broken == "" && entry.Value == "" {
				t.Errorf("got %+v", entry)
			}
		}
	})
}

// TestIncludesAreDelivered: root's alias opens any file, but one that names
// somebody's file has his rights from there on.
func TestIncludesAreDelivered(t *testing.T) {
	postfixtest.Need(t)
	h := newHomes(t)
	h.plant("secret", "root", 0o600, "no.secret@evil.test\n")
	h.plant("group", "root", 0o640, "no.group@evil.test\n")
	h.plant("users", "man", 0o600, "yes.users@evil.test\n:include:"+h.at("secret")+"\n")
	h.plant("grouped", "man", 0o644, "yes.grouped@evil.test\n:include:"+h.at("group")+"\n")
	h.plant("world", "root", 0o646, "no.world@evil.test\n")
	h.plant("rooted", "root", 0o600, "yes.rooted@evil.test\n:include:"+h.at("rooted")+"\nyes.again@evil.test\n")
	var rules []forward.Rule
	var text strings.Builder
	var to []string
	for n, name := range []string{"users", "grouped", "world", "rooted", "nowhere"} {
		fmt.Fprintf(&text, "case%d: :include:%s\n", n, h.at(name))
		to = append(to, fmt.Sprintf("case%d@corp.test", n))
		rules = append(rules, h.expand(":include:"+h.at(name), nil).Rules...)
	}
	p := localPostfix(t, nil, map[string]string{"aliases": text.String()})
	got, want := deliver(t, p, to), names(inForce(rules))
	if !slices.Equal(got, want) {
		t.Errorf("delivered, not found: %q; found, not delivered: %q", minus(got, want), minus(want, got))
	}
}
