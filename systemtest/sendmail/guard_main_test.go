// Package sendmail holds the tests of the guard beside a real Sendmail. They need
// root and Debian's packages, unpacked; make test-sendmail runs them.
package sendmail

import (
	"context"
	"fmt"
	"os"
	"testing"

	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/systemtest/relay"
)

// guardBinary is relayguard as it is built for these tests, with the race
// detector in it.
var guardBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if sendmailtest.Available() != nil {
			return m.Run() // each test says what is missing
		}
		dir, err := os.MkdirTemp("", "relayguard-systemtest")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // the guard need not run as root
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if guardBinary, err = relay.Build(context.Background(), dir, "-race"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}
