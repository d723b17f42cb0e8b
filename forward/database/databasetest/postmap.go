package databasetest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Postmap is the real postmap(1) with a configuration of its own.
type Postmap struct {
	dir string
}

// NewPostmap makes one for tables of that type.
func NewPostmap(t testing.TB, kind string) *Postmap {
	t.Helper()
	NeedPostmap(t, kind)
	dir := directory(t, "")
	Write(t, filepath.Join(dir, "main.cf"), "compatibility_level = 3.6\nmyhostname = mail.corp.test\nmydomain = corp.test\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nsmtputf8_enable = no\ndata_directory = "+dir+"\nqueue_directory = "+dir+"\n")
	if os.Geteuid() == 0 { // where the types are that Debian packages apart
		if data, err := os.ReadFile("/etc/postfix/dynamicmaps.cf"); err == nil {
			Write(t, filepath.Join(dir, "dynamicmaps.cf"), string(data))
		}
	}
	return &Postmap{dir: dir}
}

// Query is postmap -q key table: the value, "" if there is none.
func (p *Postmap) Query(t testing.TB, table, key string) string {
	t.Helper()
	out, err := p.Try(table, key)
	if err != nil {
		t.Fatalf("postmap -q %q %s: %v", key, table, err)
	}
	return out
}

// Try is Query; an error is a lookup that failed.
func (p *Postmap) Try(table, key string) (string, error) {
	cmd := exec.Command("/usr/sbin/postmap", "-c", p.dir, "-q", key, table)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if errs.Len() > 0 && strings.Contains(errs.String(), "fatal") || strings.Contains(errs.String(), "query failed") || strings.Contains(errs.String(), "limit exceeded") {
		return "", errors.New(strings.TrimSpace(errs.String()))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
