package dnstest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const (
	rbldnsdProgram = "/usr/sbin/rbldnsd"
	nsdProgram     = "/usr/sbin/nsd"
	unboundProgram = "/usr/sbin/unbound"
)

// Available says which of the real servers are missing here, nil if none is.
func Available() error {
	return available(rbldnsdProgram, nsdProgram, unboundProgram)
}

func available(programs ...string) error {
	var missing []string
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not installed: %s (Debian packages rbldnsd, nsd, unbound; ./dev test installs them)",
			strings.Join(missing, ", "))
	}
	return nil
}

// Need skips the test where a real server is missing. Where they are required,
// with CI or RELAYGUARD_REQUIRE set, it fails instead.
func Need(t testing.TB) {
	t.Helper()
	need(t, Available())
}

func need(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatalf("real name servers required: %v", err)
	}
	t.Skipf("needs real name servers: %v", err)
}
