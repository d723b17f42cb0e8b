package servertest

import (
	"os"
	"testing"
)

// Need skips a test where something is missing that a server needs. Where it is
// required, with CI or RELAYGUARD_REQUIRE set, the test fails instead.
func Need(t testing.TB, server string, missing error) {
	t.Helper()
	if missing == nil {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatalf("real %s required: %v", server, missing)
	}
	t.Skipf("needs a real %s: %v", server, missing)
}

// Server is one that runs.
type Server interface {
	LogPath() string
	LogTail(lines int) string
	Stop() error
}

// StopWith stops a server at the end of a test, and shows the end of its log if the
// test failed.
func StopWith(t testing.TB, s Server) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of %s:\n%s", s.LogPath(), s.LogTail(60))
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
}
