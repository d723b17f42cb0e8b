// Package mailbox_test shows forwarding rules of mailboxes by real deliveries:
// Sieve scripts that Dovecot's LMTP runs, tables of a panel in MariaDB, PostgreSQL
// and SQLite, a directory over LDAP, maildrop. The guard runs as root beside a
// private Postfix. It needs root and Debian's packages; make test-forward runs it.
package mailbox_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// guardBinary is relayguard as it is built for these tests, with the race
// detector in it.
var guardBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if postfixtest.Available() != nil {
			return m.Run() // each test says what is missing
		}
		dir, err := os.MkdirTemp("", "relayguard-mailbox")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if guardBinary, err = relay.Build(context.Background(), dir, "-race"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}
