package evidence_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/mta/maillog"
	"relayguard/mta/postfix/postfixtest"
)

// needSieve skips or fails as postfixtest.Need does, for Dovecot's LMTP and Sieve.
func needSieve(t *testing.T) {
	t.Helper()
	postfixtest.Need(t)
	for _, file := range []string{"/usr/sbin/dovecot", "/usr/lib/dovecot/lmtp", "/usr/bin/sievec"} {
		if _, err := os.Stat(file); err != nil {
			if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
				t.Fatalf("real Dovecot with Sieve required: %v", err)
			}
			t.Skipf("needs Dovecot's LMTP and Sieve (Debian packages dovecot-lmtpd, dovecot-sieve): %v", err)
		}
	}
}

// world is a Postfix and a Dovecot with a forwarding rule of every kind.
type world struct {
	*postfixtest.Postfix
	dir string // the test's own, open to all
}

const gamesUID, gamesGID = 5, 60 // of Debian's base-passwd

func startWorld(t *testing.T) *world {
	t.Helper()
	needSieve(t)
	dir, err := os.MkdirTemp("", "evidence-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	w := &world{dir: dir}
	script := filepath.Join(dir, "program")
	w.Postfix = postfixtest.StartTest(t, postfixtest.Options{
		Inside:   []string{"vbox.test"},
		Services: []postfixtest.Service{{Name: "inbound"}, {Name: "submission"}},
		Main: map[string]string{
			"mydestination": "corp.test", "myorigin": "corp.test", "local_recipient_maps": "",
			"alias_maps": "texthash:$config_directory/aliases", "forward_path": dir + "/$user.forward",
			"virtual_alias_domains": "valias.test", "virtual_alias_maps": "texthash:$config_directory/virtual",
			"recipient_bcc_maps": "texthash:$config_directory/recipient_bcc", "recipient_canonical_maps": "texthash:$config_directory/canonical",
			"smtp_generic_maps": "texthash:$config_directory/generic", "header_checks": "regexp:$config_directory/header_checks",
			"smtpd_recipient_restrictions": "check_recipient_access texthash:$config_directory/access",
			"mailbox_command_maps":         "texthash:$config_directory/commands", "luser_relay": "luser@evil.test",
			"transport_maps":    "texthash:$config_directory/transports",
			"virtual_transport": "lmtp:unix:private/dlmtp", "virtual_mailbox_maps": "static:x", "lmtp_destination_recipient_limit": "10",
			"recipient_delimiter": "+",
		},
		Master: []string{"mypipe unix - n n - - pipe flags=R user=games argv=" + script},
		Files: map[string]string{
			"aliases":       "al1 out1@evil.test\nal2 al1\ninc :include:" + dir + "/include\n",
			"virtual":       "v1@valias.test vout1@evil.test\nv3@valias.test al1@corp.test\ncopy@vbox.test copy@vbox.test, cp@evil.test\n",
			"recipient_bcc": "bccme@vbox.test bcc@evil.test\n",
			"canonical":     "canon@corp.test canonout@evil.test\n",
			"generic":       "gen@gen.test gen@evil.test\n",
			"header_checks": "/^Subject: HCBCC/ BCC hcbcc@evil.test\n/^Subject: HCREDIR/ REDIRECT hcredir@evil.test\n",
			"access":        "accredir@vbox.test REDIRECT accredir-out@evil.test\naccbcc@vbox.test BCC accbcc-out@evil.test\n",
			"commands":      "games " + script + "\n",
			"transports":    "pipe@vbox.test mypipe:\n",
		},
	})
	write := func(name, text string, mode os.FileMode) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), mode))
	}
	// A program that has the test run sendmail(1) for it: a private Postfix takes mail
	// only from a sendmail that is run as postfixtest does.
	write("program", "#!/bin/sh\numask 0\nd="+dir+"/spool/$$\ncat >$d.new && mv $d.new $d.msg\nwhile [ ! -e $d.done ]; do sleep 0.05; done\n", 0o755)
	must(t, os.Mkdir(filepath.Join(dir, "spool"), 0o777))
	must(t, os.Chmod(filepath.Join(dir, "spool"), 0o777))
	write("include", "incout@evil.test\n", 0o644)
	write("nobody.forward", "fwnobody@evil.test\n", 0o644)
	must(t, os.Chown(filepath.Join(dir, "nobody.forward"), 65534, 65534))
	w.startDovecot(t)
	w.runPrograms(t)
	return w
}

// dovecotConf is a Dovecot that takes mail by LMTP and runs Sieve scripts. The verbs
// are its directory, Postfix's queue directory and the host:port that redirects go to.
const dovecotConf = `base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/log
protocols = lmtp
ssl = no
listen = 127.0.0.1
auth_username_format =
first_valid_uid = 1
hostname = dv.corp.test
mail_location = maildir:%[1]s/mail/%%n
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=%[1]s/mail/%%n
}
submission_host = %[3]s
protocol lmtp {
  mail_plugins = sieve
}
plugin {
  sieve = file:%[1]s/sieve/%%n.sieve
  sieve_user_log =
  sieve_plugins = sieve_extprograms
  sieve_extensions = +vnd.dovecot.pipe
  sieve_pipe_bin_dir = %[1]s/bin
  sieve_redirect_envelope_from = sender
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

func (w *world) dovecotLog() string { return filepath.Join(w.dir, "dovecot", "log") }

func (w *world) startDovecot(t *testing.T) {
	t.Helper()
	dir := filepath.Join(w.dir, "dovecot")
	for _, sub := range []string{"run", "mail", "sieve", "bin"} {
		must(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
		must(t, os.Chmod(filepath.Join(dir, sub), 0o777))
	}
	must(t, os.Chmod(filepath.Join(dir, "run"), 0o755))
	files := map[string]string{
		"conf":           fmt.Sprintf(dovecotConf, dir, w.QueueDir, w.Addr("submission")),
		"sieve/s1.sieve": "redirect \"svout1@evil.test\";\n",
		"sieve/s2.sieve": "require [\"copy\"]; redirect :copy \"svout2@evil.test\"; keep;\n",
		"sieve/s3.sieve": "require [\"enotify\"]; notify :message \"hi\" \"mailto:nout@evil.test?cc=nout2@evil.test\"; keep;\n",
		"sieve/s4.sieve": "require [\"vnd.dovecot.pipe\"]; pipe \"prog\";\n",
	}
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, "bin", "prog"), []byte("#!/bin/sh\ncat >/dev/null\n"), 0o755))
	cmd := exec.Command("/usr/sbin/dovecot", "-F", "-c", filepath.Join(dir, "conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(w.dovecotLog())
			t.Logf("Dovecot: %s%s", output.String(), log)
		}
	})
	until(t, "Dovecot's LMTP", func() bool {
		_, err := os.Stat(filepath.Join(w.QueueDir, "private", "dlmtp"))
		return err == nil
	})
}

// runPrograms sends on what program got, as its uid.
func (w *world) runPrograms(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	running.Go(func() {
		for ctx.Err() == nil {
			files, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*.msg"))
			for _, file := range files {
				info, err := os.Stat(file)
				if err != nil {
					continue
				}
				message, _ := os.ReadFile(file)
				uid := int(info.Sys().(*syscall.Stat_t).Uid)
				sent, err := w.Sendmail(ctx, uid, []string{"-i", "-f", "cust@partner.test", "piped@evil.test"}, bytes.NewReader(message))
				if err != nil || sent.ExitCode != 0 {
					t.Errorf("sendmail: %v %+v", err, sent)
				}
				os.Remove(file)
				os.WriteFile(strings.TrimSuffix(file, ".msg")+".done", nil, 0o666)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// follow has a tracker follow a log until the test ends.
func follow(t *testing.T, x *evidence.Tracker, store *evidence.Store, path string) {
	t.Helper()
	f, err := maillog.New(maillog.Options{Path: path, Checkpoint: store.CheckpointOf(path), From: time.Now().Add(-time.Hour), Gap: x.Gap})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- f.Run(ctx, func(e maillog.Event, p maillog.Position) error { return x.EventOf(path, e, p) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Each rule of a real Postfix and Dovecot is proven by a real delivery.
func TestRealDeliveries(t *testing.T) {
	w := startWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := rules{}
	store, err := evidence.Open(t.Context(), filepath.Join(t.TempDir(), "evidence.db"), evidence.Options{})
	must(t, err)
	defer store.Close()
	uid := func(local string) (int, bool) { return gamesUID, local == "games" }
	for _, c := range realCases {
		for i := range c.rules {
			r = append(r, c.rules[i].rule)
		}
	}
	x, err := evidence.NewTracker(store, func() evidence.Rules { return r }, evidence.TrackerOptions{UID: uid})
	must(t, err)
	follow(t, x, store, w.LogPath())
	follow(t, x, store, w.dovecotLog())

	for i, c := range realCases {
		w.send(t, i, c.subject, c.to...)
	}
	for _, c := range realCases {
		for _, want := range c.rules {
			id := rules{want.rule}.id(0)
			var got []evidence.Mail
			until(t, "evidence for "+id, func() bool {
				must(t, x.Flush(t.Context()))
				var err error
				got, err = store.Mails(t.Context(), id, time.Time{}, time.Time{}, 0)
				must(t, err)
				return len(got) > 0 && got[0].Status == want.status && got[0].RootID != "" && got[0].How == want.how
			})
			m := got[0]
			if len(got) != 1 || m.How != want.how || m.Sure != want.sure || !m.Outside || m.SenderDomain != "partner.test" || m.RootID == "" {
				t.Errorf("%s: %+v\nwant %s, %s", id, got, want.how, want.sure)
			}
			if strings.HasPrefix(want.target, "|") {
				continue
			}
			if _, err := w.Sink.WaitFor(ctx, want.target); err != nil {
				t.Errorf("%s did not arrive: %v", want.target, err)
			}
		}
	}
	must(t, x.Finish(t.Context()))
	flows, err := store.Unexplained(t.Context(), time.Time{})
	must(t, err)
	if len(flows) != 0 {
		t.Errorf("unexplained: %+v", flows)
	}
	if path := os.Getenv("RELAYGUARD_RECORD"); path != "" { // to renew testdata
		log, _ := os.ReadFile(w.dovecotLog())
		must(t, os.WriteFile(filepath.Join(path, "postfix.log"), []byte(strings.ReplaceAll(w.Log(), w.dir, "/srv/test")), 0o644))
		must(t, os.WriteFile(filepath.Join(path, "dovecot.log"), []byte(strings.ReplaceAll(string(log), w.dir, "/srv/test")), 0o644))
	}
}

// expectation is what a rule's evidence is to be.
type expectation struct {
	rule
	how    evidence.How
	sure   evidence.Sure
	status string
}

// realCases are the mails that are sent, and the rules that they go by.
var realCases = []struct {
	subject string
	to      []string
	rules   []expectation
}{
	{"x", []string{"al1@corp.test"}, []expectation{{rule{"al1@corp.test", "out1@evil.test", forward.Aliases, false}, evidence.ByCopy, evidence.Certain, "sent"}}},
	{"x", []string{"inc@corp.test"}, []expectation{{rule{"inc@corp.test", "incout@evil.test", forward.Aliases, false}, evidence.ByCopy, evidence.Certain, "sent"}}},
	{"x", []string{"nobody@corp.test"}, []expectation{{rule{"nobody@corp.test", "fwnobody@evil.test", forward.DotForward, false}, evidence.ByCopy, evidence.Certain, "sent"}}},
	{"x", []string{"nouser@corp.test"}, []expectation{{rule{"nouser@corp.test", "luser@evil.test", forward.LuserRelay, false}, evidence.ByCopy, evidence.Certain, "sent"}}},
	{"x", []string{"v1@valias.test"}, []expectation{{rule{"v1@valias.test", "vout1@evil.test", forward.Virtual, false}, evidence.ByOrigTo, evidence.Certain, "sent"}}},
	{"x", []string{"v1+ext@valias.test"}, []expectation{{rule{"v1+ext@valias.test", "vout1+ext@evil.test", forward.Virtual, false}, evidence.ByOrigTo, evidence.Certain, "sent"}}},
	{"x", []string{"copy@vbox.test"}, []expectation{{rule{"copy@vbox.test", "cp@evil.test", forward.Virtual, false}, evidence.ByOrigTo, evidence.Certain, "sent"}}},
	{"x", []string{"canon@corp.test"}, []expectation{{rule{"canon@corp.test", "canonout@evil.test", forward.Canonical, false}, evidence.ByOrigTo, evidence.Certain, "sent"}}},
	{"x", []string{"bccme@vbox.test"}, []expectation{{rule{"bccme@vbox.test", "bcc@evil.test", forward.BCC, false}, evidence.ByGrowth, evidence.Possible, "sent"}}},
	{"HCBCC", []string{"plain@vbox.test"}, []expectation{{rule{"*", "hcbcc@evil.test", forward.Checks, false}, evidence.ByAction, evidence.Certain, "sent"}}},
	{"HCREDIR", []string{"plain@vbox.test"}, []expectation{{rule{"*", "hcredir@evil.test", forward.Checks, false}, evidence.ByOrigTo, evidence.Certain, "sent"}}},
	{"x", []string{"accredir@vbox.test"}, []expectation{{rule{"accredir@vbox.test", "accredir-out@evil.test", forward.Access, false}, evidence.ByOrigTo, evidence.Certain, "sent"}}},
	{"x", []string{"accbcc@vbox.test"}, []expectation{{rule{"accbcc@vbox.test", "accbcc-out@evil.test", forward.Access, false}, evidence.ByAction, evidence.Certain, "sent"}}},
	{"x", []string{"s1@vbox.test", "plain@vbox.test"}, []expectation{{rule{"s1@vbox.test", "svout1@evil.test", forward.Sieve, false}, evidence.BySieve, evidence.Certain, "sent"}}},
	{"x", []string{"plain@vbox.test", "s2@vbox.test"}, []expectation{{rule{"s2@vbox.test", "svout2@evil.test", forward.Sieve, false}, evidence.BySieve, evidence.Certain, "sent"}}},
	{"x", []string{"s3@vbox.test"}, []expectation{
		{rule{"s3@vbox.test", "nout@evil.test", forward.Sieve, false}, evidence.ByNotice, evidence.Certain, "handed"},
		{rule{"s3@vbox.test", "nout2@evil.test", forward.Sieve, false}, evidence.ByNotice, evidence.Certain, "handed"}}},
	{"x", []string{"s4@vbox.test"}, []expectation{{rule{"s4@vbox.test", "|prog", forward.Sieve, false}, evidence.BySieve, evidence.Certain, "handed"}}},
	{"x", []string{"games@corp.test"}, []expectation{{rule{"games@corp.test", "piped@evil.test", forward.Procmail, false}, evidence.ByResubmitted, evidence.Likely, "sent"}}},
	{"x", []string{"pipe@vbox.test"}, []expectation{{rule{"pipe@vbox.test", "piped@evil.test", forward.Command, false}, evidence.ByResubmitted, evidence.Possible, "sent"}}},
}

// send sends a message from outside.
func (w *world) send(t *testing.T, n int, subject string, to ...string) {
	t.Helper()
	c, err := w.Dial(t.Context(), "inbound")
	must(t, err)
	defer c.Close()
	_, err = c.Ehlo("client.partner.test")
	must(t, err)
	message := fmt.Sprintf("From: cust@partner.test\r\nTo: x@x.test\r\nSubject: %s\r\nMessage-ID: <T%d@partner.test>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\nhi\r\n", subject, n)
	sent, err := c.Send("cust@partner.test", to, message)
	must(t, err)
	if !sent.Accepted() {
		t.Fatalf("send to %s: %+v", to, sent)
	}
	_, err = c.Quit()
	must(t, err)
}
