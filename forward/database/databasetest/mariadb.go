package databasetest

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// MySQL is a private MariaDB.
type MySQL struct {
	Socket   string
	User     string // may read and write the database, as a panel does
	Password string
	Database string
}

// StartMySQL starts one with an empty database "mail".
func StartMySQL(t testing.TB) *MySQL {
	t.Helper()
	need(t, "mariadb-server, mariadb-client", "/usr/sbin/mariadbd", "mariadb-install-db", "mariadb")
	dir := directory(t, "mysql")
	data := filepath.Join(dir, "data")
	m := &MySQL{Socket: filepath.Join(dir, "s"), User: "mail", Password: "s3cret'of\\mysql", Database: "mail"}
	run(t, as(t, exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"), "mysql"), "")
	cmd := as(t, exec.Command("/usr/sbin/mariadbd", "--no-defaults", "--datadir="+data, "--socket="+m.Socket, "--skip-networking",
		"--pid-file="+filepath.Join(dir, "pid"), "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"), "mysql")
	start(t, cmd, filepath.Join(dir, "log"), syscall.SIGTERM, func(ctx context.Context) error {
		return exec.CommandContext(ctx, "mariadb", "--no-defaults", "--socket="+m.Socket, "-uroot", "-e", "SELECT 1").Run()
	})
	m.exec(t, "", `CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;
CREATE USER mail@localhost IDENTIFIED BY 's3cret''of\\mysql'; GRANT ALL ON mail.* TO mail@localhost; GRANT FILE ON *.* TO mail@localhost;`)
	return m
}

// Exec runs SQL as the server's root.
func (m *MySQL) Exec(t testing.TB, sql string) string {
	t.Helper()
	return m.exec(t, m.Database, sql)
}

func (m *MySQL) exec(t testing.TB, database, sql string) string {
	t.Helper()
	args := []string{"--no-defaults", "--default-character-set=utf8mb4", "--socket=" + m.Socket, "-uroot", "-N", "-B"}
	if database != "" {
		args = append(args, database)
	}
	return run(t, exec.Command("mariadb", args...), sql)
}

// CF is how a .cf file begins that asks this server.
func (m *MySQL) CF() string {
	return "hosts = unix:" + m.Socket + "\nuser = " + m.User + "\npassword = " + m.Password + "\ndbname = " + m.Database + "\n"
}
