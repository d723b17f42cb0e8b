// Package forward_test shows forwarding rules by real deliveries: a private
// Postfix, the guard as root beside it, a web server that gets its alerts, and a
// sink that stands for the world outside. It needs root and Debian's packages;
// make test-forward runs it.
//
// The trap: the guard looks at the whole machine. Tests count only rules that
// stand in files of their own.
package forward_test

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
		dir, err := os.MkdirTemp("", "relayguard-forward")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
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
