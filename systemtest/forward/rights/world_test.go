package rights_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/forward/forwardtest"
	"relayguard/systemtest/relay"
)

// world is a mail server of the domain corp.test, with a guard that runs as an
// account without rights, and two accounts with closed homes.
type world struct {
	*relay.Relay
	hook   *forwardtest.Webhook
	dir    string
	guard  forwardtest.Account
	alice  forwardtest.Account // has mail
	vmail  forwardtest.Account // has all mailboxes
	helper *forwardtest.Process
}

const inbound = "inbound"

// dovecotConf is that of a Dovecot that does not run: only its settings are read.
const dovecotConf = `ssl = no
protocols =
log_path = %[1]s/dovecot.log
base_dir = %[1]s/dovecot
mail_uid = %[2]d
mail_gid = %[3]d
mail_location = maildir:~/Maildir
userdb {
  driver = static
  args = uid=%[2]d gid=%[3]d home=%[1]s/vmail/%%n
}
protocol lda {
  mail_plugins = sieve
}
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
`

// start starts Postfix, the helper if it is wanted, and the guard; it returns when
// the guard knows what there is.
func start(t *testing.T, helper bool) *world {
	t.Helper()
	postfixtest.Need(t)
	dir, err := os.MkdirTemp("", "rights-")
	must(t, err)
	t.Cleanup(func() {
		if os.Getenv("RELAYGUARD_KEEP") == "" {
			os.RemoveAll(dir)
		}
	})
	must(t, os.Chmod(dir, 0o755))
	w := &world{dir: dir, hook: forwardtest.NewWebhook(t)}
	w.guard = forwardtest.AddAccount(t, "nogroup", "/nonexistent")
	w.alice = forwardtest.AddAccount(t, "nogroup", filepath.Join(dir, "alice"))
	w.vmail = forwardtest.AddAccount(t, "nogroup", filepath.Join(dir, "vmail"))
	w.alice.Dir(t, w.alice.Home, 0o700)
	w.vmail.Dir(t, w.vmail.Home, 0o700)
	w.vmail.Dir(t, filepath.Join(w.vmail.Home, "box"), 0o700)
	w.vmail.Plant(t, filepath.Join(w.vmail.Home, "box", ".dovecot.sieve"), "keep;", 0o600)
	must(t, os.Mkdir(filepath.Join(dir, "dovecot"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "dovecot", "dovecot.conf"), fmt.Appendf(nil, dovecotConf, dir, w.vmail.UID, w.vmail.GID), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "maillog"), nil, 0o644)) // Debian's is the group adm's, the guard's, too
	must(t, os.Chmod(filepath.Join(dir, "maillog"), 0o644))
	if helper {
		w.startHelper(t)
	}
	w.Relay = relay.StartTest(t, relay.Options{
		Binary: guardBinary, UID: w.guard.UID, Config: w.config(),
		Postfix: postfixtest.Options{
			Dir: dir, Inside: []string{"vbox.test"}, Services: []postfixtest.Service{{Name: inbound}},
			Main: map[string]string{
				"myorigin": "corp.test", "mydestination": "corp.test", "local_recipient_maps": "",
				"alias_maps": "texthash:$config_directory/aliases", "mail_spool_directory": dir + "/spool/",
			},
			Files: map[string]string{"aliases": "old: old@evil.test\n"},
		},
	})
	return w
}

func (w *world) config() string {
	return fmt.Sprintf(`[alert]
syslog = false
webhook = %q
per_hour = 1000

[inside]
domains = ["corp.test", "vbox.test"]

[forward]
directory = %q
helper = %q
dovecot = %q
sendmail = ""
rescan = "24h" # what is not seen at once is not seen here
tell_owner = false

[forward.policy]
customer = "alert"
`, w.hook.URL, filepath.Join(w.dir, "state", "forwards"), w.socket(), filepath.Join(w.dir, "dovecot"))
}

func (w *world) socket() string { return filepath.Join(w.dir, "watch.sock") }

const unit = "../../../packaging/relayguard-watch.service"

// capabilities are those that the packaged unit leaves the helper, for setpriv(1).
func capabilities(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(unit)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if names, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			set := "-all,+chown" // of the socket, which systemd makes otherwise
			for name := range strings.FieldsSeq(names) {
				set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
			}
			return set
		}
	}
	t.Fatalf("%s bounds no capabilities", unit)
	return ""
}

// startHelper starts the root helper, with the capabilities of its unit, and waits
// until it answers.
func (w *world) startHelper(t *testing.T) {
	t.Helper()
	w.helper = forwardtest.Start(t, filepath.Join(w.dir, "watch-helper.log"), "/usr/bin/setpriv", "--bounding-set="+capabilities(t), "--inh-caps=-all", "--no-new-privs", guardBinary, "watch-helper", "--socket", w.socket(), "--uid", strconv.Itoa(w.guard.UID))
	forwardtest.Until(t, "the watch helper", func() bool {
		c, err := net.Dial("unix", w.socket())
		if err != nil {
			return false
		}
		// The guard's group here is the test's invention; its uid is looked at.
		must(t, os.Chmod(w.socket(), 0o666))
		return c.Close() == nil
	})
}

// writer is a shell of an account that writes files itself and lives until the test
// ends, so that the kernel can be asked who it is.
type writer struct {
	t     *testing.T
	stdin *os.File
	done  chan string
}

func newWriter(t *testing.T, uid, gid int) *writer {
	t.Helper()
	in, stdin, err := os.Pipe()
	must(t, err)
	out, stdout, err := os.Pipe()
	must(t, err)
	cmd := exec.Command("/bin/sh")
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = in, stdout, os.Stderr, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	must(t, cmd.Start())
	in.Close()
	stdout.Close()
	w := &writer{t: t, stdin: stdin, done: make(chan string)}
	go func() {
		defer close(w.done)
		buf := make([]byte, 100)
		for {
			n, err := out.Read(buf)
			if err != nil {
				return
			}
			w.done <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		stdin.Close() // the shell ends
		for range w.done {
		}
		out.Close()
		cmd.Wait()
	})
	return w
}

// plant writes a file of one line that only its owner may read.
func (w *writer) plant(path, line string) {
	w.t.Helper()
	_, err := fmt.Fprintf(w.stdin, "umask 077; echo '%s' >'%s'; echo done\n", line, path)
	must(w.t, err)
	if said := <-w.done; strings.TrimSpace(said) != "done" {
		w.t.Fatalf("the writer says %q", said)
	}
}

// is tells whether an alert is about that target.
func is(target string) func(*forwardtest.AlertRule) bool {
	return func(r *forwardtest.AlertRule) bool { return r.Target == target }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
