package wordpress_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maria is a private MariaDB that listens on a Unix socket only and lets
// everybody in.
type maria struct {
	socket  string
	process *process
}

// startMaria starts one with its data below dir.
func startMaria(ctx context.Context, dir string) (*maria, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	account, err := user.Lookup("mysql")
	if err != nil {
		return nil, fmt.Errorf("start MariaDB: %w", err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	data := filepath.Join(dir, "data")
	for _, d := range []string{dir, data} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, fmt.Errorf("start MariaDB: %w", err)
		}
		if err := os.Chown(d, uid, gid); err != nil {
			return nil, fmt.Errorf("start MariaDB: %w", err)
		}
	}
	install := exec.CommandContext(ctx, mariadbInstall, "--no-defaults", "--user=mysql", "--datadir="+data, "--skip-test-db", "--auth-root-authentication-method=normal", "--skip-name-resolve")
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make MariaDB's tables: %w\n%s", err, out)
	}
	m := &maria{socket: filepath.Join(dir, "maria.sock")}
	m.process, err = startProcess(exec.Command(mariadbd, "--no-defaults", "--datadir="+data, "--socket="+m.socket, "--pid-file="+filepath.Join(dir, "pid"),
		"--skip-networking", "--skip-grant-tables", "--performance-schema=OFF", "--skip-log-bin", "--max-connections=500",
		// Nothing of it has to outlive the test.
		"--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF", "--innodb-buffer-pool-size=128M"), filepath.Join(dir, "log"), uid, gid)
	if err != nil {
		return nil, err
	}
	err = m.process.waitUntil(ctx, func() bool {
		conn, err := net.Dial("unix", m.socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return m, err
}

// run gives statements to the server.
func (m *maria) run(ctx context.Context, statements string) error {
	_, err := m.ask(ctx, statements)
	return err
}

// ask is run that returns the rows, one a line, with tabs between columns.
func (m *maria) ask(ctx context.Context, statements string) ([]string, error) {
	cmd := exec.CommandContext(ctx, mariadbClient, "--no-defaults", "--socket="+m.socket, "--user=root", "--batch", "--skip-column-names")
	cmd.Stdin = strings.NewReader(statements)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("MariaDB: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}

func (m *maria) stop() error {
	if m == nil {
		return nil
	}
	return m.process.stop()
}

// quote is a text in a statement.
func quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
