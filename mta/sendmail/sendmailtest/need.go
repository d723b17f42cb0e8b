package sendmailtest

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"relayguard/mta/servertest"
)

// defaultFolder is where ./dev unpacks Debian's packages; the environment
// variable RELAYGUARD_SENDMAIL names another folder.
const defaultFolder = "/var/lib/relayguard-dev/sendmail"

func packageFolder() string { return cmp.Or(os.Getenv("RELAYGUARD_SENDMAIL"), defaultFolder) }

// libexec and share are where the packages have programs and m4 files.
func libexec(name string) string {
	return filepath.Join(packageFolder(), "usr/libexec/sendmail", name)
}

func share(name string) string { return filepath.Join(packageFolder(), "usr/share/sendmail", name) }

const (
	m4Program     = "/usr/bin/m4"
	passwdProgram = "/usr/sbin/saslpasswd2"
)

// Available says what is missing to start a Sendmail here, nil if nothing.
func Available() error {
	var missing []string
	for _, file := range []string{libexec("sendmail"), libexec("makemap"), share("cf/m4/cf.m4"), m4Program, passwdProgram} {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, file)
		}
	}
	for _, name := range []string{"smmta", "smmsp"} {
		if _, err := user.Lookup(name); err != nil {
			missing = append(missing, "account "+name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing: %s (./dev test-sendmail unpacks Debian's Sendmail)", strings.Join(missing, ", "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("uid %d: Sendmail starts as root only", os.Geteuid())
	}
	return errors.Join(runs(), mayUnshare())
}

// runs tells whether the unpacked binary finds its libraries. Without a
// configuration it ends at once.
var runs = sync.OnceValue(func() error {
	out, err := exec.Command("/usr/bin/ldd", libexec("sendmail")).CombinedOutput()
	if err != nil || strings.Contains(string(out), "not found") {
		return fmt.Errorf("%s lacks libraries (./dev test-sendmail installs them): %v\n%s", libexec("sendmail"), err, out)
	}
	return nil
})

var mayUnshare = sync.OnceValue(func() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: spaceFlags}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("no mount and host name space of its own can be made here (a container without CAP_SYS_ADMIN?): %w", err)
	}
	return nil
})

// Need skips the test where Sendmail cannot be started. Where it is required,
// with CI or RELAYGUARD_REQUIRE set, it fails instead.
func Need(t testing.TB) {
	t.Helper()
	servertest.Need(t, "Sendmail", Available())
}

// StartTest is Start for a test: it calls Need, stops the Sendmail at the end
// of the test, and shows the end of the log if the test failed.
func StartTest(t testing.TB, options Options) *Sendmail {
	t.Helper()
	Need(t)
	s, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	servertest.StopWith(t, s)
	return s
}
