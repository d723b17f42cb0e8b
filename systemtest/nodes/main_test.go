// Package nodes_test is about web nodes that hand their mail to one relay: two
// private Postfixes with web sites on them, a third that sends for both, each with
// a real guard, and a real redis-server between them. It needs root and Debian's
// packages.
package nodes_test

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

// posts is how often an attacker presses a button.
func posts() int {
	if os.Getenv("RELAYGUARD_SOAK") != "" {
		return 2000
	}
	return 200
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if postfixtest.Available() != nil {
			return m.Run() // each test says what is missing
		}
		dir, err := os.MkdirTemp("", "relayguard-nodes")
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
