package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/cmd/internal/config"
)

func TestSurroundingsOfBlocklists(t *testing.T) {
	const key = "abcdefghij0123456789"
	fill := func(text string, mode os.FileMode) func(*testing.T, *config.Config) {
		return func(t *testing.T, c *config.Config) {
			path := filepath.Join(t.TempDir(), "key")
			must(t, os.WriteFile(path, []byte(text), mode))
			must(t, os.Chmod(path, mode))
			c.ZoneKeys = []config.ZoneKey{{Operator: "spamhaus", File: path}}
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *config.Config)
		want   string // the id; "": none
		says   string
	}{
		"all is well":       {func(*testing.T, *config.Config) {}, "", ""},
		"nobody checks":     {func(_ *testing.T, c *config.Config) { c.RBL.Watch = false }, "rbl-watch", "rbl check --nagios"},
		"a public resolver": {func(_ *testing.T, c *config.Config) { c.RBL.Resolvers = []string{"192.0.2.53:53", "8.8.8.8:53"} }, "rbl-resolver", "8.8.8.8:53 this is no resolver to ask blocklists: it is a public one, of Google"},
		"a key in a FIFO": {func(t *testing.T, c *config.Config) {
			path := filepath.Join(t.TempDir(), "key")
			must(t, syscall.Mkfifo(path, 0o640))
			c.ZoneKeys = []config.ZoneKey{{Operator: "spamhaus", File: path}}
		}, "zone-key", "not a regular file"},
		"a list is not known":   {func(_ *testing.T, c *config.Config) { c.RBL.Enable = []string{"nobody.knows.example"} }, "rbl-zones", "nobody.knows.example"},
		"a key in a file":       {fill(key+"\n", 0o640), "", ""},
		"everybody may read it": {fill(key+"\n", 0o644), "zone-key", "chmod o-r"},
		"it is no key":          {fill("s3cret\n", 0o640), "zone-key", "its first line is no key"},
		"there is no file": {func(_ *testing.T, c *config.Config) {
			c.ZoneKeys = []config.ZoneKey{{Operator: "spamhaus", File: "/nowhere/key"}}
		}, "zone-key", "no such file"},
		"for business":      {func(_ *testing.T, c *config.Config) { c.RBL.Use = config.UseCommercial }, "rbl-not-asked", "zen.spamhaus.org"},
		"nobody registered": {func(_ *testing.T, c *config.Config) { c.RBL.Enable = nil }, "rbl-not-asked", "register at "},
		"and does not want to": {func(_ *testing.T, c *config.Config) {
			c.RBL.Enable, c.RBL.Disable = nil, []string{"b.barracudacentral.org"}
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := well(t)
			c.change(t, s.config)
			all := s.blocklists()
			var text strings.Builder
			for _, f := range all {
				text.WriteString(f.ID + " " + f.Where + " " + f.What + " " + f.Why + " " + f.Remedy + "\n")
			}
			if c.want == "" && len(all) > 0 || c.want != "" && (len(all) != 1 || all[0].ID != c.want || !strings.Contains(text.String(), c.says)) {
				t.Errorf("%s, want %q", text.String(), c.want)
			}
			if strings.Contains(text.String(), key) || strings.Contains(text.String(), "s3cret") {
				t.Errorf("the key is in %s", text.String())
			}
		})
	}
}

// Of two names for the same data one is missed, with both ways to have it.
func TestListsThatAreMissedAreNamedOnce(t *testing.T) {
	s, _ := well(t)
	s.config.RBL.Use = config.UseCommercial
	a := &asking{}
	must(t, a.choose(s.config))
	names, remedies := a.missed()
	if slices.ContainsFunc(names, func(n string) bool { return strings.Contains(strings.SplitN(n, " ", 2)[0], ".dq.spamhaus.net") }) || len(names) == 0 {
		t.Errorf("%q", names)
	}
	if text := strings.Join(remedies, "\n"); !strings.Contains(text, "[[zone_key]]") || !strings.Contains(text, "noncommercial") {
		t.Errorf("%q", remedies)
	}
}
