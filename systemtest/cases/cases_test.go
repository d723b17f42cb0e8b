package cases

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"relayguard/systemtest/relay"
)

// guardBinary is relayguard as it is built for these tests, with the race
// detector in it.
var guardBinary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			return m.Run() // each test says what is missing
		}
		if os.Getenv(insideVar) == "" {
			status, err := runInside()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			return status
		}
		os.Unsetenv(insideVar)
		if err := openNetwork(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "relayguard-cases")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil { // else each command takes a second more
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

// casesDir is where the cases are.
const casesDir = "../../testdata/relay"

// TestCases plays every case beside every mail server: one of each plays them
// one after another, with a guard that knows nothing of the case before.
func TestCases(t *testing.T) {
	all, err := All(casesDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Postfix, Sendmail} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &host{start: starters[name]}
			t.Cleanup(func() { h.end(t) })
			for _, c := range all {
				t.Run(filepath.Base(c.Name), func(t *testing.T) { h.play(t, c) })
			}
		})
	}
}

// host has one server at a time.
type host struct {
	start  func(t *testing.T) server
	server server
}

// play plays a case. A server that met a failure gets no second case.
func (h *host) play(t *testing.T, c *Case) {
	if h.server == nil {
		h.server = h.start(t)
	}
	defer func() {
		if t.Failed() {
			t.Logf("%s\nthe guard's log ends:\n%s\nthe mail server's log ends:\n%s", c.Title, h.server.guard().LogEnd(), end(h.server.log()))
			h.end(t)
			return
		}
		if err := h.server.forget(context.Background()); err != nil {
			t.Error(err)
			h.end(t)
		}
	}()
	playCase(t, h.server, c)
}

func (h *host) end(t *testing.T) {
	if h.server == nil {
		return
	}
	if err := h.server.stop(); err != nil {
		t.Error(err)
	}
	h.server = nil
}

func end(log string) string { return log[max(0, len(log)-3000):] }
