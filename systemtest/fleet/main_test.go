// Package fleet_test is about several relays that share one Redis: whether they
// limit and obey as one, and what passes while Redis is away. Each relay is a
// private Postfix with a real relayguard daemon, and a network of its own to a
// real redis-server. It needs root and Debian's packages.
package fleet_test

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
		dir, err := os.MkdirTemp("", "relayguard-fleet")
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
