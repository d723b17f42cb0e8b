package wordpress_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// templateName is the database that each site's is a copy of.
const templateName = "template"

func templateDir() string { return filepath.Join(shared.dir, "template") }

// makeTemplate copies Debian's WordPress, whose files partly are links, adds
// our plugins and the theme, and installs it in a database.
func makeTemplate(ctx context.Context) error {
	// Where every account may read them, wherever our source lies.
	if err := os.CopyFS(filepath.Join(shared.dir, "testdata"), os.DirFS("testdata")); err != nil {
		return fmt.Errorf("copy our scripts: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "cp", "-rL", "--", wordpressTree, templateDir()).CombinedOutput(); err != nil {
		return fmt.Errorf("copy WordPress: %w\n%s", err, out)
	}
	for _, name := range []string{"plugins", "themes"} {
		if err := os.CopyFS(filepath.Join(templateDir(), "wp-content", name), os.DirFS(filepath.Join("testdata", name))); err != nil {
			return fmt.Errorf("add our %s: %w", name, err)
		}
	}
	if err := shared.maria.run(ctx, "CREATE DATABASE "+templateName+" CHARACTER SET utf8mb4;"); err != nil {
		return err
	}
	if err := writeSettings(templateDir(), templateName, nil); err != nil {
		return err
	}
	return runPHP(ctx, "install.php", templateDir())
}

// script is the path of a PHP script of testdata.
func script(name string) string { return filepath.Join(shared.dir, "testdata", name) }

// runPHP runs a script of testdata to its end. It cannot mail.
func runPHP(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, php, append([]string{"-d", "sendmail_path=/bin/false", script(name)}, args...)...)
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "PHP ") { // a warning or worse
		err = fmt.Errorf("it said")
	}
	if err != nil {
		return fmt.Errorf("php %s: %w: %s", name, err, out)
	}
	return nil
}

// writeSettings writes wp-config.php in the place of Debian's.
func writeSettings(root, database string, more map[string]any) error {
	settings := map[string]any{
		"DB_NAME": database, "DB_USER": "root", "DB_PASSWORD": "", "DB_HOST": "localhost:" + shared.maria.socket, "DB_CHARSET": "utf8mb4",
		"DISABLE_WP_CRON":            true, // a hoster's crontab calls it
		"WP_HTTP_BLOCK_EXTERNAL":     true,
		"AUTOMATIC_UPDATER_DISABLED": true,
	}
	for name, value := range more {
		settings[name] = value
	}
	var b strings.Builder
	b.WriteString("<?php\n")
	for name, value := range settings {
		if text, ok := value.(string); ok {
			value = quote(text)
		}
		fmt.Fprintf(&b, "define( '%s', %v );\n", name, value)
	}
	b.WriteString("$table_prefix = 'wp_';\ndefined( 'ABSPATH' ) || define( 'ABSPATH', __DIR__ . '/' );\nrequire_once ABSPATH . 'wp-settings.php';\n")
	path := filepath.Join(root, "wp-config.php")
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) { // it may be a hard link
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
