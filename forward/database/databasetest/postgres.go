package databasetest

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

const postgresPrograms = "/usr/lib/postgresql/15/bin/"

// Postgres is a private PostgreSQL. Its socket's name has the default port, of
// which nothing listens.
type Postgres struct {
	Dir      string // of the socket
	User     string
	Password string
	Database string
}

// StartPostgres starts one with an empty database "mail".
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	need(t, "postgresql-15", postgresPrograms+"initdb", postgresPrograms+"postgres", postgresPrograms+"psql")
	dir := directory(t, "postgres")
	data := filepath.Join(dir, "data")
	p := &Postgres{Dir: dir, User: "mail", Password: `s3cret'of\pgsql`, Database: "mail"}
	secret := Write(t, filepath.Join(dir, "pw"), "root"+"\n")
	run(t, as(t, exec.Command(postgresPrograms+"initdb", "-D", data, "-U", "super", "--auth=scram-sha-256", "--pwfile="+secret, "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"), "postgres"), "")
	cmd := as(t, exec.Command(postgresPrograms+"postgres", "-D", data, "-k", dir, "-p", "5432", "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"), "postgres")
	start(t, cmd, filepath.Join(dir, "log"), syscall.SIGINT, func(ctx context.Context) error {
		return p.psql(ctx, "postgres", "-c", "SELECT 1").Run()
	})
	p.exec(t, "postgres", `CREATE ROLE mail LOGIN PASSWORD 's3cret''of\pgsql'`)
	p.exec(t, "postgres", `CREATE DATABASE mail OWNER mail`)
	return p
}

func (p *Postgres) psql(ctx context.Context, database string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, postgresPrograms+"psql", append([]string{"-h", p.Dir, "-U", "super", "-d", database, "-At", "-q", "-v", "ON_ERROR_STOP=1"}, args...)...)
	cmd.Env = append(cmd.Environ(), "PGPASSWORD=root")
	return cmd
}

// Exec runs SQL as the server's superuser; what it makes belongs to User.
func (p *Postgres) Exec(t testing.TB, sql string) string {
	t.Helper()
	return p.exec(t, p.Database, "SET ROLE mail;\n"+sql)
}

func (p *Postgres) exec(t testing.TB, database, sql string) string {
	t.Helper()
	return run(t, p.psql(t.Context(), database, "-f", "-"), sql)
}

// CF is how a .cf file begins that asks this server.
func (p *Postgres) CF() string {
	return "hosts = unix:" + p.Dir + "\nuser = " + p.User + "\npassword = " + p.Password + "\ndbname = " + p.Database + "\n"
}
