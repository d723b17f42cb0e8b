package database

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"

	"relayguard/forward"
)

// mysqlSocket is where Debian's client library looks for "localhost".
const mysqlSocket = "/run/mysqld/mysqld.sock"

type mysqlSession struct {
	db      *sql.DB
	tx      *sql.Tx
	d       dialect
	maria   bool
	secrets []Secret
}

// login is how to come in.
type login struct {
	User     string
	Password Secret
	Database string
	TLS      *tls.Config
}

// mysqlHosts reads "hosts" as host_init of dict_mysql.c does: Unix sockets first.
// option is what an option file says.
func mysqlHosts(hosts string, option myOptions) (addresses []string) {
	socket := mysqlSocket
	if option.socket != "" {
		socket = option.socket
	}
	all := list(hosts)
	if len(all) == 0 {
		all = []string{"localhost"}
	}
	var inet []string
	for _, h := range all {
		if path, unix := strings.CutPrefix(h, "unix:"); unix {
			addresses = append(addresses, "unix:"+path)
			continue
		}
		h = strings.TrimPrefix(h, "inet:")
		host, port := h, "3306"
		if option.port != "" {
			port = option.port
		}
		if at := strings.LastIndexByte(h, ':'); at >= 0 {
			host, port = h[:at], h[at+1:]
		}
		if strings.EqualFold(host, "localhost") {
			addresses = append(addresses, "unix:"+socket)
			continue
		}
		inet = append(inet, "tcp:"+net.JoinHostPort(strings.Trim(host, "[]"), port))
	}
	return append(addresses, inet...)
}

// openMySQL opens a read-only transaction on the first of the addresses that answers.
func openMySQL(ctx context.Context, addresses []string, l login) (session, error) {
	var errs []error
	for _, address := range addresses {
		s, err := connectMySQL(ctx, address, l)
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("open mysql %s: %w", address, scrub(err, l.Password)))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func connectMySQL(ctx context.Context, address string, l login) (*mysqlSession, error) {
	c := mysql.NewConfig()
	c.Net, c.Addr, _ = strings.Cut(address, ":")
	c.User, c.Passwd, c.DBName, c.TLS = l.User, l.Password.reveal(), l.Database, l.TLS
	if l.TLS == nil && c.Net == "tcp" {
		c.TLSConfig = "preferred"
	}
	c.Timeout, c.ReadTimeout, c.WriteTimeout = statementFor, 2*statementFor, statementFor
	c.Collation, c.Logger = "", log.New(io.Discard, "", 0) // what the driver has to say comes as errors, too
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	s := &mysqlSession{db: sql.OpenDB(connector), secrets: []Secret{l.Password}}
	s.db.SetMaxOpenConns(1)
	if err := s.begin(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *mysqlSession) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementFor)
	defer cancel()
	var version, mode string
	if err := s.db.QueryRowContext(ctx, "SELECT @@version, @@sql_mode").Scan(&version, &mode); err != nil {
		return err
	}
	s.maria = strings.Contains(version, "MariaDB")
	has := func(m string) bool { return strings.Contains(","+mode+",", ","+m+",") }
	s.d = dialect{kind: "mysql", noBackslash: has("NO_BACKSLASH_ESCAPES"), ansiQuotes: has("ANSI_QUOTES"), pipesConcat: has("PIPES_AS_CONCAT")}
	limit := fmt.Sprintf("SET SESSION max_execution_time = %d", statementFor.Milliseconds())
	if s.maria {
		limit = fmt.Sprintf("SET SESSION max_statement_time = %d", int(statementFor.Seconds()))
	}
	if _, err := s.db.ExecContext(ctx, limit); err != nil {
		var refused *mysql.MySQLError
		if !errors.As(err, &refused) {
			return err
		} // a server that has no such limit: the context is one
	}
	if _, err := s.db.ExecContext(ctx, "SET SESSION TRANSACTION READ ONLY"); err != nil {
		return err
	}
	// Not the timeout's context: its end would roll the transaction back.
	tx, err := s.db.BeginTx(context.WithoutCancel(ctx), &sql.TxOptions{ReadOnly: true})
	s.tx = tx
	return err
}

func (s *mysqlSession) rows(ctx context.Context, statement string, each func([]sql.NullString) error) error {
	if err := runnable(statement); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statementFor+statementFor/10)
	defer cancel()
	rows, err := s.tx.QueryContext(ctx, statement)
	if err == nil {
		err = collect(rows, each)
	}
	return scrub(err, s.secrets...)
}

func (s *mysqlSession) dialect() dialect { return s.d }

func (s *mysqlSession) quote(key string) string { return quoteMySQL(key, s.d.noBackslash) }

func (s *mysqlSession) close() {
	if s.tx != nil {
		_ = s.tx.Rollback() // nothing was written
	}
	s.db.Close()
}

// quoteMySQL is mysql_real_escape_string(3).
func quoteMySQL(key string, noBackslash bool) string {
	if noBackslash {
		return strings.ReplaceAll(key, "'", "''")
	}
	return strings.NewReplacer("\x00", `\0`, "\n", `\n`, "\r", `\r`, `\`, `\\`, `'`, `\'`, `"`, `\"`, "\x1a", `\Z`).Replace(key)
}

// mysqlTLS is the TLS that the .cf asks for; nil: none.
func (d *Databases) mysqlTLS(ctx context.Context, s settings) (*tls.Config, error) {
	cert, key, ca := s["tls_cert_file"], s["tls_key_file"], s["tls_CAfile"]
	if s.first("tls_cert_file", "tls_key_file", "tls_CAfile", "tls_CApath") == "" {
		return nil, nil
	}
	return d.tlsConfig(ctx, cert, key, ca, strings.EqualFold(s["tls_verify_cert"], "yes"))
}

func (d *Databases) tlsConfig(ctx context.Context, certFile, keyFile, caFile string, verify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify} // as the .cf says; Postfix would do the same
	if caFile != "" {
		pem, _, err := d.host.Files.Read(ctx, caFile, forward.ReadOptions{Max: maxCF})
		if err != nil {
			return nil, fmt.Errorf("read certificates %s: %w", caFile, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates %s: none in it", caFile)
		}
	}
	if certFile == "" {
		return c, nil
	}
	if keyFile == "" {
		keyFile = certFile
	}
	cert, _, err := d.host.Files.Read(ctx, certFile, forward.ReadOptions{Max: maxCF})
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", certFile, err)
	}
	key, _, err := d.host.Files.Read(ctx, keyFile, forward.ReadOptions{Max: maxCF})
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", keyFile, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", certFile, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
