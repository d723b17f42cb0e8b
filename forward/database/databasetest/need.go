package databasetest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// need skips the test where one of the programs is missing, or fails it where
// servers are required: with CI or RELAYGUARD_REQUIRE set.
func need(t testing.TB, packages string, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		_, err := exec.LookPath(p)
		if strings.HasSuffix(p, ".so") {
			_, err = os.Stat(p)
		}
		if err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return
	}
	why := fmt.Sprintf("not installed: %s (Debian packages %s)", strings.Join(missing, ", "), packages)
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// NeedPostmap is for tests that compare with postmap -q on tables of that type.
func NeedPostmap(t testing.TB, kind string) {
	t.Helper()
	need(t, "postfix, postfix-"+kind, "/usr/sbin/postmap", "/usr/lib/postfix/postfix-"+kind+".so")
}
