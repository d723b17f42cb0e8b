package sendmailtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeUsers writes the passwords into a database of Cyrus SASL, which reads
// them itself (auxprop): no further server.
func (s *Sendmail) makeUsers(ctx context.Context) error {
	database := filepath.Join(s.saslDir(), "sasldb2")
	conf := "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: " + database + "\nmech_list: PLAIN LOGIN\n"
	if err := os.WriteFile(filepath.Join(s.saslDir(), "Sendmail.conf"), []byte(conf), 0o644); err != nil {
		return fmt.Errorf("configure SASL: %w", err)
	}
	for login, password := range s.options.Users {
		name, realm, ok := strings.Cut(login, "@")
		if !ok {
			realm = s.options.Hostname
		}
		cmd := exec.CommandContext(ctx, passwdProgram, "-p", "-c", "-f", database, "-u", realm, name)
		cmd.Stdin = strings.NewReader(password)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("saslpasswd2 for %q: %w: %s", login, err, out)
		}
	}
	return nil
}
