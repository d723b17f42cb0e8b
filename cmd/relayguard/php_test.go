package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// phpRoot is a file system with one PHP.
func phpRoot(t *testing.T) (flags []string, root string) {
	t.Helper()
	root = t.TempDir()
	for path, text := range map[string]string{
		"etc/php/8.2/fpm/conf.d/10-x.ini":  "",
		"etc/php/8.2/fpm/pool.d/shop.conf": "[shop]\n",
		"usr/local/sbin/relayguard":        "",
		"usr/sbin/sendmail":                "",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--root", root, "--binary", root + "/usr/local/sbin/relayguard"}, root
}

func TestPHPIsShownChangedAndPutBack(t *testing.T) {
	flags, root := phpRoot(t)
	config := filepath.Join(t.TempDir(), "relayguard.toml") // no daemon of this machine is asked
	if err := os.WriteFile(config, []byte("[origin]\ncall_socket = \"/nonexistent/call/socket\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags = append(flags, "--config", config)
	php := func(args ...string) (int, string, string) {
		t.Helper()
		return runIn(t, slices.Concat([]string{"php", args[0]}, flags, args[1:])...)
	}
	sendmail := []string{"--sendmail", root + "/usr/sbin/sendmail"}
	ini := root + "/etc/php/8.2/fpm/conf.d/99-relayguard.ini"
	for _, c := range []struct {
		args         []string
		code         int
		out, remarks string
	}{
		{[]string{"status"}, exitFinding, "8.2  fpm     no       no       /usr/sbin/sendmail -t -i", ""},
		{append([]string{"install"}, sendmail...), exitFinding, "+ " + ini + "\n", "3 of 3 files to change"},
		{append([]string{"install", "--apply"}, sendmail...), exitFine, "+ " + ini + "\n", "systemctl reload php8.2-fpm"},
		{append([]string{"install"}, sendmail...), exitFine, "= " + ini + "\n", "nothing to change"},
		{[]string{"status"}, exitFinding, "8.2  fpm     yes", "mail goes without a token"},
		{[]string{"install", "--prepend"}, exitUsage, "", "needs --pool"},
		{[]string{"install", "--prepend", "--pool", root + "/etc/php/8.2/fpm/pool.d/shop.conf", "--apply"}, exitFine, "auto_prepend_file", "reload"},
		{[]string{"install", "--sendmail", "sendmail"}, exitUsage, "", "absolute path"},
		{[]string{"remove", "--files"}, exitFinding, ini + "\n", "reload it first, then run this again"},
		{[]string{"remove"}, exitFine, "", "take them away with --files"},
		{[]string{"remove", "--files"}, exitFine, "relayguard-sendmail\n", ""},
		{[]string{"remove"}, exitFine, "", "nothing of relayguard"},
	} {
		code, out, remarks := php(c.args...)
		if code != c.code || !strings.Contains(out, c.out) || c.out == "" && out != "" || !strings.Contains(remarks, c.remarks) {
			t.Errorf("%q: exit %d, %q, %q; want %d, %q, %q", c.args, code, out, remarks, c.code, c.out, c.remarks)
		}
	}
	if _, err := os.Stat(ini); err == nil {
		t.Errorf("%s is left", ini)
	}
}

func TestPHPAsJSON(t *testing.T) {
	flags, root := phpRoot(t)
	code, out, _ := runIn(t, slices.Concat([]string{"php", "install", "--json", "--sendmail", root + "/usr/sbin/sendmail"}, flags)...)
	var plan struct {
		Files []struct{ Path, Link, Text, Why string }
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil || code != exitFinding || len(plan.Files) != 3 || plan.Files[1].Link != "relayguard" {
		t.Errorf("exit %d, %v, %+v", code, err, plan)
	}
	code, out, _ = runIn(t, slices.Concat([]string{"php", "status", "--json"}, flags)...)
	var status struct {
		Places   []struct{ Version, SAPI string }
		Wrappers int
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil || code != exitFinding || len(status.Places) != 1 || status.Places[0].SAPI != "fpm" {
		t.Errorf("exit %d, %v, %+v", code, err, status)
	}
}
