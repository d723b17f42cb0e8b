package wordpress_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// install puts the must-use plugin into a site, as its hoster would.
func install(t *testing.T, s *site) {
	t.Helper()
	result, err := s.relay.Relayguard(soon(t), "wordpress", "install", s.root, "--site", s.name)
	if err != nil || result.ExitCode != 0 {
		t.Fatalf("relayguard wordpress install %s: %+v, %v", s.root, result, err)
	}
}

// poolSetting is a setting of PHP in a pool's file.
var poolSetting = regexp.MustCompile(`(?m)^php_admin_value\[(\w+)\] = "?([^"\n]*)"?$`)

// installPrepend lets the site's PHP have relayguard's mail(), with the settings
// that a pool of php-fpm gets. A must-use plugin's key is enough for it.
func (s *site) installPrepend(ctx context.Context) error {
	root := filepath.Join(filepath.Dir(s.root), "php")
	fpm := filepath.Join(root, "etc", "php", "8.2", "fpm")
	pool := filepath.Join(fpm, "pool.d", "site.conf")
	err := errors.Join(os.MkdirAll(filepath.Join(fpm, "conf.d"), 0o755), os.MkdirAll(filepath.Dir(pool), 0o755))
	if err != nil {
		return err
	}
	for path, text := range map[string]string{filepath.Join(fpm, "php.ini"): "", pool: "[site]\nlisten = /run/php/site.sock\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	result, err := s.relay.Relayguard(ctx, "php", "install", "--prepend", "--pool", pool, "--root", root, "--apply")
	if err != nil || result.ExitCode != 0 {
		return fmt.Errorf("relayguard php install: %+v, %w", result, err)
	}
	text, err := os.ReadFile(pool)
	if err != nil {
		return err
	}
	for _, setting := range poolSetting.FindAllStringSubmatch(string(text), -1) {
		s.ini = append(s.ini, setting[1]+"="+setting[2])
	}
	if !strings.Contains(strings.Join(s.ini, "\n"), "auto_prepend_file=") {
		return fmt.Errorf("relayguard php install: no prepend in the pool's file:\n%s", text)
	}
	return nil
}
