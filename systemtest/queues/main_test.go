// Package queues_test shows over a real Postfix and a real Sendmail that queues
// hold at scale: a storm of mail from one suspended site, bulk acts that are cut
// off in their midst, queue ids that are another message's now. It needs root and
// Debian's packages, as all tests over real servers do.
//
// RELAYGUARD_STORM is how many messages the storm on Postfix has, 5,000 if it is
// not set; a million takes hours.
package queues_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/systemtest/relay"
)

// build is relayguard, once as it is shipped, for what is measured, and once with
// the race detector in it.
var build struct {
	dir    string
	mu     sync.Mutex
	plain  string
	racing string
}

// plain and racing build it when a test first needs it.
func plain(t *testing.T) string  { return built(t, &build.plain, "plain") }
func racing(t *testing.T) string { return built(t, &build.racing, "racing", "-race") }

func built(t *testing.T, binary *string, name string, flags ...string) string {
	t.Helper()
	build.mu.Lock()
	defer build.mu.Unlock()
	if *binary == "" {
		dir := filepath.Join(build.dir, name)
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			*binary, err = relay.Build(context.Background(), dir, flags...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return *binary
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if postfixtest.Available() != nil && sendmailtest.Available() != nil {
			return m.Run() // each test says what is missing
		}
		dir, err := os.MkdirTemp("", "relayguard-queues")
		if err == nil {
			defer os.RemoveAll(dir)
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		build.dir = dir
		return m.Run()
	}())
}
