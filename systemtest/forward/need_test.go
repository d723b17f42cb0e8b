package forward_test

import (
	"os"
	"os/exec"
	"testing"
)

// need skips or fails as postfixtest.Need does, for programs of other packages.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
			t.Fatalf("%s required: ./dev test installs it", name)
		}
		t.Skipf("needs %s", name)
	}
}
