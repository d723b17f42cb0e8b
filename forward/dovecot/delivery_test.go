package dovecot_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/dovecot"
)

const (
	ldaProgram = "/usr/lib/dovecot/dovecot-lda"
	ldaUID     = 65534
)

const ldaConf = `mail_home = %[1]s/home
mail_location = maildir:%[1]s/home/Maildir
first_valid_uid = 0
first_valid_gid = 0
log_path = /dev/stderr
base_dir = %[1]s/run
state_dir = %[1]s/run
ssl = no
sendmail_path = %[1]s/sendmail
postmaster_address = postmaster@corp.test
userdb {
  driver = passwd
}
protocol lda {
  mail_plugins = sieve
}
plugin {
  sieve_redirect_duplicate_period = 0
%[2]s
}
`

// delivery is a home that dovecot-lda delivers to.
type delivery struct {
	t    *testing.T
	dir  string
	past time.Time
}

func newDelivery(t *testing.T, plugin string) *delivery {
	needDovecot(t)
	d := &delivery{t: t, dir: t.TempDir(), past: time.Now().Add(-time.Hour)}
	openUp(t, d.dir)
	mkdir(t, filepath.Join(d.dir, "run"))
	mkdir(t, filepath.Join(d.dir, "home/sieve"))
	d.write("dovecot.conf", fmt.Sprintf(ldaConf, d.dir, strings.ReplaceAll(plugin, "DIR", d.dir)))
	d.write("sendmail", "#!/bin/sh\ncat >/dev/null\nfor a; do :; done\necho \"$a\" >>"+d.dir+"/home/sent\n")
	return d
}

// write makes a file of an hour ago.
func (d *delivery) write(name, text string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	mkdir(d.t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		d.t.Fatal(err)
	}
	d.date(name, d.past)
}

func (d *delivery) date(name string, at time.Time) {
	d.t.Helper()
	if err := os.Chtimes(filepath.Join(d.dir, name), at, at); err != nil {
		d.t.Fatal(err)
	}
}

// link makes a symbolic link, of now; what is to be newer is dated later.
func (d *delivery) link(name, to string) {
	d.t.Helper()
	if err := os.Symlink(to, filepath.Join(d.dir, name)); err != nil {
		d.t.Fatal(err)
	}
}

// compile puts the compiled form of a text at name, as that of the script that
// lies, or is to lie, at script: a binary of another place is not run.
func (d *delivery) compile(text, script, name string, at time.Time) {
	d.t.Helper()
	aside := filepath.Join(d.dir, script)
	if err := os.Rename(aside, aside+".aside"); err != nil {
		d.t.Fatal(err)
	}
	d.write(script, text)
	mkdir(d.t, filepath.Dir(filepath.Join(d.dir, name)))
	d.own()
	out, err := exec.Command("sievec", "-c", filepath.Join(d.dir, "dovecot.conf"), "-o", "mail_uid=65534", "-o", "mail_gid=65534",
		filepath.Join(d.dir, script), filepath.Join(d.dir, name)).CombinedOutput()
	if err != nil {
		d.t.Fatalf("sievec: %v: %s", err, out)
	}
	d.date(name, at)
	if err := os.Rename(aside+".aside", aside); err != nil {
		d.t.Fatal(err)
	}
}

func (d *delivery) own() {
	d.t.Helper()
	err := filepath.Walk(d.dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, ldaUID, ldaUID)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// deliver hands a mail to dovecot-lda and returns to whom it was sent on.
func (d *delivery) deliver() []string {
	d.t.Helper()
	d.own()
	cmd := exec.CommandContext(d.t.Context(), ldaProgram, "-c", filepath.Join(d.dir, "dovecot.conf"), "-f", "sender@partner.test", "-a", "nobody@corp.test")
	cmd.Stdin = strings.NewReader("From: sender@partner.test\nTo: nobody@corp.test\nSubject: x\nMessage-ID: <1@partner.test>\n\nbody\n")
	cmd.Env = []string{"HOME=" + filepath.Join(d.dir, "home"), "USER=nobody", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ldaUID, Gid: ldaUID}}
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("dovecot-lda: %v: %s", err, out)
	}
	sent, err := os.ReadFile(filepath.Join(d.dir, "home/sent"))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	got := strings.Fields(string(sent))
	slices.Sort(got)
	return got
}

// TestDeliveryDoesWhatIsTold: what dovecot-lda sends on is what the plan told
// before, in force; and what it told in force is sent, but for the one form of a
// script of two that does not run (Differs).
func TestDeliveryDoesWhatIsTold(t *testing.T) {
	const (
		standard = "  sieve = file:DIR/home/sieve;active=DIR/home/.dovecot.sieve\n"
		text     = `redirect "text@evil.test";`
		planted  = `redirect "planted@evil.test";`
	)
	future := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		plugin string
		plant  func(d *delivery)
		sent   []string
	}{
		"active link": {standard, func(d *delivery) {
			d.write("home/sieve/main.sieve", text)
			d.write("home/sieve/old.sieve", planted)
			d.link("home/.dovecot.sieve", "sieve/main.sieve")
		}, []string{"text@evil.test"}},
		"plain file": {standard, func(d *delivery) { d.write("home/.dovecot.sieve", text) }, []string{"text@evil.test"}},
		"compiled newer": {standard, func(d *delivery) {
			d.write("home/.dovecot.sieve", "keep;")
			d.compile(planted, "home/.dovecot.sieve", "home/.dovecot.svbin", future)
		}, []string{"planted@evil.test"}},
		"compiled newer beside the link": {standard, func(d *delivery) {
			d.write("home/sieve/main.sieve", text)
			d.link("home/.dovecot.sieve", "sieve/main.sieve")
			d.compile(planted, "home/.dovecot.sieve", "home/.dovecot.svbin", future)
		}, []string{"planted@evil.test"}},
		"compiled newer beside the script": {standard, func(d *delivery) {
			d.write("home/sieve/main.sieve", text)
			d.link("home/.dovecot.sieve", "sieve/main.sieve")
			d.compile(planted, "home/sieve/main.sieve", "home/sieve/main.svbin", future)
		}, []string{"text@evil.test"}},
		"compiled older": {standard, func(d *delivery) {
			d.write("home/.dovecot.sieve", text)
			d.compile(planted, "home/.dovecot.sieve", "home/.dovecot.svbin", d.past.Add(-time.Hour))
		}, []string{"text@evil.test"}},
		"compiled in its own directory": {"  sieve = file:DIR/home/sieve;active=DIR/home/.dovecot.sieve;bindir=DIR/home/bin\n", func(d *delivery) {
			d.write("home/sieve/main.sieve", text)
			d.link("home/.dovecot.sieve", "sieve/main.sieve")
			d.compile(planted, "home/.dovecot.sieve", "home/.dovecot.svbin", future)
		}, []string{"planted@evil.test"}},
		"path alone, compiled in its own directory": {"  sieve = file:~/filter.sieve;bindir=DIR/home/bin\n", func(d *delivery) {
			d.write("home/filter.sieve", text)
			d.compile(planted, "home/filter.sieve", "home/bin/filter.svbin", future)
		}, []string{"planted@evil.test"}},
		"path alone": {"  sieve = ~/filter.sieve\n", func(d *delivery) { d.write("home/filter.sieve", text) }, []string{"text@evil.test"}},
		"path alone, compiled newer": {"  sieve = ~/filter.sieve\n", func(d *delivery) {
			d.write("home/filter.sieve", "keep;")
			d.compile(planted, "home/filter.sieve", "home/filter.svbin", future)
		}, []string{"planted@evil.test"}},
		"before and after": {standard + "  sieve_before = DIR/before\n  sieve_after = DIR/after.sieve\n", func(d *delivery) {
			d.write("before/a.sieve", `require "copy"; redirect :copy "before@evil.test";`)
			d.write("home/.dovecot.sieve", `require "copy"; redirect :copy "text@evil.test";`)
			d.write("after.sieve", `require "copy"; redirect :copy "after@evil.test";`)
		}, []string{"after@evil.test", "before@evil.test", "text@evil.test"}},
		"default": {standard + "  sieve_default = DIR/default.sieve\n", func(d *delivery) { d.write("default.sieve", text) }, []string{"text@evil.test"}},
		"include": {standard + "  sieve_global = DIR/global\n", func(d *delivery) {
			d.write("home/.dovecot.sieve", `require ["include","variables"]; global "t"; set "t" "text@evil.test"; include "p"; include :global "g";`)
			d.write("home/sieve/p.sieve", `require "copy"; redirect :copy "planted@evil.test";`)
			d.write("global/g.sieve", `require ["include","variables"]; global "t"; redirect "${t}";`)
		}, []string{"planted@evil.test", "text@evil.test"}},
		"does not compile": {standard, func(d *delivery) { d.write("home/.dovecot.sieve", text+"nosuch;") }, nil},
		"link out of the directory": {standard, func(d *delivery) {
			d.write("elsewhere/x.sieve", text)
			d.link("home/.dovecot.sieve", d.dir+"/elsewhere/x.sieve")
		}, nil},
		"compiled of another place": {standard, func(d *delivery) {
			d.write("home/.dovecot.sieve", text)
			d.write("home/other.sieve", text)
			d.compile(planted, "home/other.sieve", "home/.dovecot.svbin", future)
		}, []string{"text@evil.test"}},
		"no directory of scripts": {standard, func(d *delivery) {
			if err := os.Remove(filepath.Join(d.dir, "home/sieve")); err != nil {
				d.t.Fatal(err)
			}
			d.write("home/.dovecot.sieve", text)
		}, []string{"text@evil.test"}},
		"link to another user's directory of that name": {standard, func(d *delivery) {
			d.write("elsewhere/main.sieve", planted)
			d.write("home/sieve/main.sieve", text)
			d.link("home/.dovecot.sieve", d.dir+"/elsewhere/main.sieve")
		}, nil},
		"script is a link": {standard, func(d *delivery) {
			d.write("elsewhere/x", text)
			d.link("home/sieve/main.sieve", d.dir+"/elsewhere/x")
			d.link("home/.dovecot.sieve", "sieve/main.sieve")
		}, []string{"text@evil.test"}},
		"environment": {standard + "  sieve_extensions = +vnd.dovecot.environment\n  sieve_env_to = text@evil.test\n", func(d *delivery) {
			d.write("home/.dovecot.sieve", `require ["variables","environment","vnd.dovecot.environment"]; redirect "${env.vnd.dovecot.config.to}";`)
		}, []string{"text@evil.test"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDelivery(t, c.plugin)
			c.plant(d)
			d.own()
			h := liveHost([]forward.Account{{Name: "nobody", UID: ldaUID, GID: ldaUID, Home: filepath.Join(d.dir, "home")}})
			p := dovecot.Plan(t.Context(), h, dovecot.Options{ConfigDir: d.dir})
			told, must := map[string]bool{}, map[string]bool{}
			for _, u := range p.Units {
				for _, r := range u.Read(t.Context()).Rules {
					if r.Kind == forward.Address && r.Mechanism == forward.Sieve && r.Dormant == "" && r.Broken == "" {
						told[r.Target] = true
						must[r.Target] = r.Differs == ""
					}
				}
			}
			sent := d.deliver()
			if !slices.Equal(sent, c.sent) {
				t.Errorf("sent to %q, want %q", sent, c.sent)
			}
			for _, to := range sent {
				if !told[to] {
					t.Errorf("sent to %s, told was %v", to, told)
				}
			}
			for to := range must {
				if must[to] && !slices.Contains(sent, to) {
					t.Errorf("told %s, sent to %q", to, sent)
				}
			}
		})
	}
}
