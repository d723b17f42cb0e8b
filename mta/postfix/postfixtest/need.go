package postfixtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"relayguard/mta/servertest"
)

const (
	masterProgram   = "/usr/lib/postfix/sbin/master"
	postfixProgram  = "/usr/sbin/postfix"
	sendmailProgram = "/usr/sbin/sendmail"
	dovecotProgram  = "/usr/sbin/dovecot"
)

// Available says what is missing to start a Postfix here, nil if nothing.
func Available() error {
	var missing []string
	for _, program := range []string{masterProgram, postfixProgram, sendmailProgram, dovecotProgram} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not installed: %s (Debian packages postfix, dovecot-core; ./dev test installs them)",
			strings.Join(missing, ", "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("uid %d: Postfix starts as root only", os.Geteuid())
	}
	return nil
}

// Need skips the test where Postfix or Dovecot cannot be started. Where they
// are required, with CI or RELAYGUARD_REQUIRE set, it fails instead.
func Need(t testing.TB) {
	t.Helper()
	servertest.Need(t, "Postfix", Available())
}

// StartTest is Start for a test: it calls Need, stops the Postfix at the end
// of the test, and shows the end of the log if the test failed.
func StartTest(t testing.TB, options Options) *Postfix {
	t.Helper()
	Need(t)
	p, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	servertest.StopWith(t, p)
	return p
}
