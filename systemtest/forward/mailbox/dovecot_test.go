package mailbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/forward/forwardtest"
)

// needSieve skips where Dovecot's LMTP and Sieve are missing; where they are
// required, with CI or RELAYGUARD_REQUIRE set, it fails instead.
func needSieve(t *testing.T) {
	t.Helper()
	postfixtest.Need(t)
	for _, file := range []string{"/usr/lib/dovecot/lmtp", "/usr/bin/sievec"} {
		if _, err := os.Stat(file); err != nil {
			if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
				t.Fatalf("real Dovecot with Sieve required: %v", err)
			}
			t.Skipf("needs Dovecot's LMTP and Sieve (Debian packages dovecot-lmtpd, dovecot-sieve): %v", err)
		}
	}
}

// dovecotConf takes mail of virtual mailboxes by LMTP and runs their scripts; it
// logs into the mail server's log, as syslog would. Its verbs: the directory,
// Postfix's queue directory, the uid and gid of the mail store, the mail log, how
// redirected mail is handed in.
const dovecotConf = `base_dir = %[1]s/dovecot/run
state_dir = %[1]s/dovecot/run
log_path = %[5]s
log_timestamp = "%%b %%d %%H:%%M:%%S relay dovecot: "
protocols = lmtp
ssl = no
listen = 127.0.0.1
hostname = relay.example.jp
postmaster_address = postmaster@corp.test
first_valid_uid = 1
mail_uid = %[3]d
mail_gid = %[4]d
mail_location = maildir:~/Maildir
%[6]s
recipient_delimiter = +
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[3]d gid=%[4]d home=%[1]s/vmail/%%d/%%n allow_all_users=yes
}
protocol lmtp {
  mail_plugins = sieve
}
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
  sieve_global = %[1]s/global
  sieve_user_log =
}
service lmtp {
  unix_listener %[2]s/private/dlmtp {
    mode = 0666
  }
}
service stats {
  client_limit = 100
}
`

// mailStore is a Dovecot with virtual mailboxes that are one account's.
type mailStore struct {
	dir     string
	account forwardtest.Account
}

func newMailStore(t *testing.T, dir string) *mailStore {
	t.Helper()
	s := &mailStore{dir: dir, account: forwardtest.AddAccount(t, "postdrop", filepath.Join(dir, "vmail"))}
	for _, sub := range []string{"dovecot", "dovecot/run", "global"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	s.account.Dir(t, filepath.Join(dir, "vmail"), 0o700)
	s.account.Dir(t, filepath.Join(dir, "vmail/vbox.test"), 0o700)
	return s
}

// configure writes dovecot.conf for the mail server that is, or will be, in dir.
func (s *mailStore) configure(t *testing.T, queueDir, mailLog, handIn string) {
	t.Helper()
	write(t, filepath.Join(s.dir, "dovecot", "dovecot.conf"), fmt.Sprintf(dovecotConf, s.dir, queueDir, s.account.UID, s.account.GID, mailLog, handIn), 0o644)
}

// bySendmail has redirected mail handed in by sendmail(1), as Debian does: a
// private Postfix takes it from whoever names its configuration, in the group
// postdrop.
func (s *mailStore) bySendmail(t *testing.T, configDir string) string {
	t.Helper()
	return "sendmail_path = " + write(t, filepath.Join(s.dir, "dovecot", "sendmail"), "#!/bin/sh\nMAIL_CONFIG="+configDir+" exec /usr/sbin/sendmail \"$@\"\n", 0o755)
}

func bySubmission(address string) string { return "submission_host = " + address }

// serve starts Dovecot and waits until it takes mail.
func (s *mailStore) serve(t *testing.T, queueDir string) *forwardtest.Process {
	t.Helper()
	p := forwardtest.Start(t, filepath.Join(s.dir, "dovecot", "output"), "/usr/sbin/dovecot", "-F", "-c", filepath.Join(s.dir, "dovecot", "dovecot.conf"))
	forwardtest.Until(t, "Dovecot's LMTP", func() bool {
		_, err := os.Stat(filepath.Join(queueDir, "private", "dlmtp"))
		return err == nil
	})
	return p
}

// home is the path of a mailbox's home, or of a file in it.
func (s *mailStore) home(mailbox, name string) string {
	return filepath.Join(s.dir, "vmail", "vbox.test", mailbox, name)
}

// mailbox makes the home of a mailbox with scripts, by their path in it.
func (s *mailStore) mailbox(t *testing.T, name string, scripts map[string]string) {
	t.Helper()
	s.account.Dir(t, s.home(name, ""), 0o700)
	s.account.Dir(t, s.home(name, "sieve"), 0o700)
	for path, text := range scripts {
		s.account.Plant(t, s.home(name, path), text, 0o600)
		past := time.Now().Add(-time.Hour) // a compiled form of now is newer
		must(t, os.Chtimes(s.home(name, path), past, past))
	}
}

// activate makes a script the one that runs, as ManageSieve does.
func (s *mailStore) activate(t *testing.T, mailbox, script string) {
	t.Helper()
	next := s.home(mailbox, "next")
	must(t, os.Symlink("sieve/"+script, next))
	must(t, os.Lchown(next, s.account.UID, s.account.GID))
	must(t, os.Rename(next, s.home(mailbox, ".dovecot.sieve")))
}

// compile compiles a text for the place of a mailbox's active script, where it is
// never seen, into a file aside.
func (s *mailStore) compile(t *testing.T, text, mailbox string) string {
	t.Helper()
	script, out := s.home(mailbox, ".dovecot.sieve"), filepath.Join(s.dir, mailbox+".svbin")
	s.account.Plant(t, script, text, 0o600)
	said, err := exec.Command("sievec", "-c", filepath.Join(s.dir, "dovecot", "dovecot.conf"), script, out).CombinedOutput()
	if err != nil {
		t.Fatalf("sievec: %v: %s", err, said)
	}
	must(t, os.Remove(script))
	return out
}
