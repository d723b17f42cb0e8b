package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Review 2, finding 13: the daemon goes on when its configuration turns wrong, and
// so does the helper, which is started again and again.
func TestQueueHelperGoesByTheLastConfigurationThatWasRight(t *testing.T) {
	dir, kept := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "relayguard.toml")
	load := func() (directory string, wrong, err error) {
		cmd := &cobra.Command{}
		cmd.Flags().String("config", "", "")
		if err := cmd.Flags().Set("config", path); err != nil {
			t.Fatal(err)
		}
		c, wrong, err := helperConfig(cmd)
		if err == nil {
			directory = c.MTA.ConfigDirectory
		}
		return directory, wrong, err
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const right, typo = "[mta]\nconfig_directory = \"/etc/postfix-out\"\n", "[mta]\nconfig_dirrectory = \"/etc/postfix-in\"\n"

	write(typo)
	t.Setenv("STATE_DIRECTORY", kept)
	if _, _, err := load(); err == nil {
		t.Error("a wrong configuration, and none before it, is taken")
	}
	write(right)
	if got, wrong, err := load(); got != "/etc/postfix-out" || wrong != nil || err != nil {
		t.Fatalf("got %q, %v, %v", got, wrong, err)
	}
	write(typo)
	got, wrong, err := load()
	if got != "/etc/postfix-out" || err != nil || wrong == nil || !strings.Contains(wrong.Error(), "config_dirrectory") {
		t.Errorf("got %q, %v, %v; want the last one, and the typo told", got, wrong, err)
	}
	if info, err := os.Stat(filepath.Join(kept, "relayguard.toml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info, err)
	}
	t.Setenv("STATE_DIRECTORY", "")
	if _, _, err := load(); err == nil {
		t.Error("without a state directory there is nothing to go by")
	}
	t.Setenv("STATE_DIRECTORY", filepath.Join(dir, "not-there"))
	write(right)
	if got, wrong, err := load(); got != "/etc/postfix-out" || err != nil || wrong == nil {
		t.Errorf("got %q, %v, %v; want it to serve all the same", got, wrong, err)
	}
}
