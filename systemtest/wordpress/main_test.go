// Package wordpress_test drives real WordPress sites - Debian's package, PHP,
// MariaDB - through a real Postfix with the guard, as visitors and attackers
// do: by HTTP. It needs root and Debian's packages; make test-wordpress runs
// it, make soak at full size.
//
// All sites of a run share one MariaDB and one copy of WordPress's files, which
// the sites link to; each has its own database, Unix account and web server.
package wordpress_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// Where Debian puts what the tests start.
const (
	wordpressTree  = "/usr/share/wordpress"
	php            = "/usr/bin/php"
	mariadbd       = "/usr/sbin/mariadbd"
	mariadbInstall = "/usr/bin/mariadb-install-db"
	mariadbClient  = "/usr/bin/mariadb"
)

// soak is whether the whole size is wanted: 2,000 posts of each kind.
var soak = os.Getenv("RELAYGUARD_SOAK") != ""

// posts is how often an attacker presses a button.
func posts() int {
	if soak {
		return 2000
	}
	return 200
}

// shared is what all tests of a run use; the first that needs it starts it.
var shared struct {
	once  sync.Once
	err   error
	dir   string
	guard string // relayguard as it is built for these tests, with the race detector in it
	maria *maria
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// need skips the test where something is missing, or fails it where it is
// required, and starts what all tests share.
func need(t *testing.T) {
	t.Helper()
	postfixtest.Need(t)
	if missing := missing(); len(missing) > 0 {
		say := fmt.Sprintf("not installed: %s (Debian packages wordpress, php-cli, php-mysql, mariadb-server; ./dev test-wordpress installs them)", strings.Join(missing, ", "))
		if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
			t.Fatal(say)
		}
		t.Skip(say)
	}
	shared.once.Do(func() { shared.err = startShared(context.Background()) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
}

func missing() []string {
	var missing []string
	for _, path := range []string{filepath.Join(wordpressTree, "wp-load.php"), php, mariadbd, mariadbInstall, mariadbClient} {
		if _, err := os.Stat(path); err != nil {
			missing = append(missing, path)
		}
	}
	if len(missing) == 0 && exec.Command(php, "-r", `exit(extension_loaded("mysqli") ? 0 : 1);`).Run() != nil {
		missing = append(missing, "PHP's mysqli")
	}
	return missing
}

func startShared(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "rg-wordpress-")
	if err != nil {
		return err
	}
	shared.dir = dir
	if err := os.Chmod(dir, 0o755); err != nil { // sites run as their own accounts
		return err
	}
	var built, started sync.WaitGroup
	var errBuild, errStart error
	built.Go(func() { shared.guard, errBuild = relay.Build(ctx, dir, "-race") })
	started.Go(func() {
		if shared.maria, errStart = startMaria(ctx, filepath.Join(dir, "maria")); errStart == nil {
			errStart = makeTemplate(ctx)
		}
	})
	built.Wait()
	started.Wait()
	return errors.Join(errBuild, errStart)
}

func stopShared() error {
	if shared.dir == "" {
		return nil
	}
	err := shared.maria.stop()
	if os.Getenv("RELAYGUARD_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "kept for a look:", shared.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(shared.dir))
}
