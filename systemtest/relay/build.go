package relay

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"relayguard/mta/postfix/postfixtest"
)

// Build compiles relayguard into dir and returns the binary's path.
func Build(ctx context.Context, dir string, flags ...string) (string, error) {
	binary := filepath.Join(dir, "relayguard")
	args := append([]string{"build", "-o", binary}, flags...)
	if out, err := exec.CommandContext(ctx, "go", append(args, "relayguard/cmd/relayguard")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build relayguard: %w\n%s", err, out)
	}
	return binary, nil
}

// StartTest is Start for a test: it skips or fails where Postfix is missing, as
// postfixtest.Need does, stops everything at the end, and shows the logs of a
// test that failed.
func StartTest(t testing.TB, o Options) *Relay {
	t.Helper()
	return StartTests(t, o)[0]
}

// StartTests is StartTest of several relays at once.
func StartTests(t testing.TB, each ...Options) []*Relay {
	t.Helper()
	postfixtest.Need(t)
	relays, errs := make([]*Relay, len(each)), make([]error, len(each))
	var all sync.WaitGroup
	for i, o := range each {
		all.Go(func() { relays[i], errs[i] = Start(t.Context(), o) })
	}
	all.Wait()
	for _, r := range relays {
		if r != nil {
			t.Cleanup(func() { r.endTest(t, r) })
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return relays
}

// server is the mail server beside a guard, to be ended with it.
type server interface {
	Log() string
	Stop() error
}

func (g *Guard) endTest(t testing.TB, all server) {
	if err := g.StopGuard(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if bad := g.Broken(); len(bad) > 0 {
		t.Errorf("the guard's log has:\n%s", strings.Join(bad, "\n"))
	}
	end, log := g.LogEnd(), all.Log()
	if err := all.Stop(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("the guard's log ends:\n%s\nThe mail server's log ends:\n%s", end, log[max(0, len(log)-4000):])
	}
}
