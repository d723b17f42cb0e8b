package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/policy"
)

// call runs a command line as a user would.
func runIn(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestWrongCommandLinesSayWhatIsWrongAndExit2(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "Usage:"},
		{[]string{"nope"}, `unknown command "nope"`},
		{[]string{"serve", "--nope"}, "unknown flag: --nope; see: relayguard serve --help"},
		{[]string{"serv"}, `unknown command "serv" for "relayguard"; did you mean: serve; see: relayguard --help`},
		{[]string{"serve", "surplus"}, `relayguard serve takes no argument "surplus"; see: relayguard serve --help`},
		{[]string{"setup", "exim"}, `knows no MTA "exim"`},
		{[]string{"setup", "postfix", "--smtp", "outbound"}, "want off, relay or inbound"},
		{[]string{"setup", "postfix", "--apply", "--undo"}, "--apply and --undo do not go together"},
		{[]string{"serve", "--config"}, "flag needs an argument"},
		{[]string{"serve", "--config", "/nonexistent/relayguard.toml"}, "/nonexistent/relayguard.toml"},
	} {
		code, stdout, stderr := runIn(t, c.args...)
		if code != exitUsage || !strings.Contains(stderr, c.says) || stdout != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want 2 and %q", c.args, code, stdout, stderr, c.says)
		}
	}
}

func TestEveryFaultOfTheConfigurationIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relayguard.toml")
	if err := os.WriteFile(path, []byte("phase = \"hard\"\n[milter]\nidle_timeout = 0\nnope = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := runIn(t, "serve", "--config", path)
	if code != exitUsage {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{path + ":1:", path + ":3:", path + ":4:"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no line %s in %q", want, stderr)
		}
	}
}

func TestHelpGoesToStandardOutput(t *testing.T) {
	code, stdout, stderr := runIn(t, "serve", "--help")
	if code != exitFine || stderr != "" || !strings.Contains(stdout, "SIGHUP") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// commands are all commands that a user meets.
func commands(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || slices.Contains(unitCommands, sub.Name()) {
			all = append(all, commands(sub)...)
		}
	}
	return all
}

func TestEveryCommandHasAManualPageAndNoPageIsLeft(t *testing.T) {
	dir := t.TempDir()
	if code, _, stderr := runIn(t, "man", dir); code != exitFine {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	pages := map[string]bool{"relayguard.toml.5": true}
	root := newRoot()
	root.InitDefaultCompletionCmd()
	for _, c := range commands(root) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".8"
		pages[name] = true
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if c.Short == "" || !strings.Contains(string(text), "NAME") {
			t.Errorf("%s says nothing", name)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !pages[f.Name()] {
			t.Errorf("%s is the page of no command", f.Name())
		}
	}
}

func TestManualOfTheConfigurationNamesEveryKeyOnceAndNoOther(t *testing.T) {
	page := configManual(time.Unix(0, 0))
	keys := map[string]bool{}
	for _, k := range config.Keys() {
		keys[k.Name] = true
		if n := strings.Count(page, `\fB`+roff(k.Name)+`\fR`); n != 1 {
			t.Errorf("%s stands %d times", k.Name, n)
		}
	}
	for _, part := range strings.Split(page, `\fB`)[1:] {
		name, _, _ := strings.Cut(part, `\fR`)
		if name = strings.ReplaceAll(name, `\-`, "-"); !keys[name] {
			t.Errorf("the page names %q, which is no key", name)
		}
	}
}

func TestAddressFiles(t *testing.T) {
	book := &policy.AddressBook{}
	errs := addLines(book, "f", strings.NewReader("# people\n\ntaro@example.jp sales@example.jp, @example.org # both\nhanako@example.jp\nboss *\nx y z@\n"))
	var got []string
	for _, err := range errs {
		got = append(got, err.Error())
	}
	want := []string{`f:4: found only "hanako@example.jp", want a login and its addresses`, `f:6: address of login "x": found "y"`, `f:6: address of login "x": found "z@"`}
	if len(got) != len(want) {
		t.Fatalf("errors %q, want %q", got, want)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("error %q, want %q", got[i], want[i])
		}
	}
}
