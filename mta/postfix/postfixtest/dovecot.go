package postfixtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// dovecotConf is a Dovecot that only answers Postfix's AUTH questions. The
// verbs are its directory, the socket, its owner and group.
const dovecotConf = `base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/log
protocols =
ssl = no
listen = 127.0.0.1
auth_mechanisms = plain login
disable_plaintext_auth = no
auth_failure_delay = 0
auth_verbose = yes
# keeps the login as it was written
auth_username_format =
passdb {
  driver = passwd-file
  args = scheme=PLAIN %[1]s/users
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}
# no growing delay after failures from one address
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener %[2]s {
    mode = 0660
    user = postfix
    group = postfix
  }
}
`

// dovecot is a running Dovecot that serves AUTH only.
type dovecot struct {
	dir     string
	process *process
}

// startDovecot starts one whose auth socket is at the path, in a directory
// that exists. It returns when the socket answers.
func startDovecot(ctx context.Context, dir, socket string, users map[string]string) (*dovecot, error) {
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		return nil, fmt.Errorf("make directory for Dovecot: %w", err)
	}
	if err := writeUsers(filepath.Join(dir, "users"), users); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, dovecotConf, dir, socket), 0o644); err != nil {
		return nil, fmt.Errorf("write Dovecot's configuration: %w", err)
	}
	process, err := startProcess(exec.Command(dovecotProgram, "-F", "-c", config), filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	d := &dovecot{dir: dir, process: process}
	if err := process.waitUntil(ctx, 10*time.Second, func() bool { return answers("unix", socket) }); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		err = fmt.Errorf("start Dovecot: auth socket %s: %w\n%s%s", socket, err, process.output(), log)
		return nil, errors.Join(err, process.kill())
	}
	return d, nil
}

// stop ends it at once: it has nothing to finish, and asked politely it takes
// a second.
func (d *dovecot) stop() error { return d.process.kill() }

// writeUsers writes the passwd-file. Dovecot reads it again when it changes.
func writeUsers(path string, users map[string]string) error {
	var out strings.Builder
	for _, login := range slices.Sorted(maps.Keys(users)) {
		if strings.ContainsAny(login+users[login], ":\n") {
			return fmt.Errorf("login %q: a passwd-file holds no colon or line feed in login or password", login)
		}
		fmt.Fprintf(&out, "%s:{PLAIN}%s\n", login, users[login])
	}
	// The auth process runs as dovecot; these passwords are no secrets.
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		return fmt.Errorf("write Dovecot's users: %w", err)
	}
	return nil
}
