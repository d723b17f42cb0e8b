// Package rights_test shows that a guard without rights, as the packages run it,
// finds and watches what only root may read, through the helper that has them: homes
// and mailboxes that are closed to others, on a private real Postfix. It needs root;
// make test-forward runs it.
package rights_test

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
		dir, err := os.MkdirTemp("", "relayguard-rights")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // the guard's account runs it
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
