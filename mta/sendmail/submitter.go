package sendmail

import (
	"cmp"
	"fmt"
	"os/user"
	"path/filepath"
	"strings"
)

// defaultSubmitUser is the account of the submission program in Sendmail's own
// FEATURE(`msp'). Debian's queue runs are started as it, too.
const defaultSubmitUser = "smmsp"

// SubmitUser is the account, or its number, as which the submission program hands on
// what waited in its queue: RunAsUser of submit.cf in configDir ("": /etc/mail).
// Where that is not set it is the usual one.
func SubmitUser(configDir string) (string, error) {
	path := filepath.Join(cmp.Or(configDir, "/etc/mail"), "submit.cf")
	text, err := readFile(path, maxConfig)
	if err != nil {
		return defaultSubmitUser, fmt.Errorf("find the account of Sendmail's submission program: %w", err)
	}
	return cmp.Or(accountIn(ParseSettings(text).Option("RunAsUser")), defaultSubmitUser), nil
}

// accountIn is the account of "name" or "name:group", where ":" may be "/" or "." as well
// (readcf.c). Some builds of Sendmail leave names with a dot whole: so one that is an
// account is.
func accountIn(option string) string {
	name := strings.TrimSpace(option)
	if at := strings.IndexAny(name, ":/"); at >= 0 {
		name = strings.TrimSpace(name[:at])
	}
	if before, _, dotted := strings.Cut(name, "."); dotted {
		if _, err := user.Lookup(name); err != nil {
			name = strings.TrimSpace(before)
		}
	}
	return name
}
