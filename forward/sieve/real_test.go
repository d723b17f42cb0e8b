package sieve_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// needPigeonhole skips where Pigeonhole's own tools are not installed; where
// they are required, with CI or RELAYGUARD_REQUIRE set, it fails instead.
func needPigeonhole(t testing.TB) {
	t.Helper()
	var missing []string
	for _, program := range []string{"sievec", "sieve-test", "sieve-dump"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	why := ""
	switch {
	case len(missing) > 0:
		why = fmt.Sprintf("not installed: %v (Debian package dovecot-sieve)", missing)
	case os.Geteuid() != 0:
		why = "not root: sieve-test changes its user"
	default:
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatalf("real Pigeonhole required: %s", why)
	}
	t.Skipf("needs a real Pigeonhole: %s", why)
}

const nobody = 65534

const dovecotConf = `mail_home = %[1]s/home
mail_location = maildir:%[1]s/home/Maildir
mail_uid = 65534
mail_gid = 65534
first_valid_uid = 0
first_valid_gid = 0
log_path = /dev/stderr
base_dir = %[1]s/run
state_dir = %[1]s/run
ssl = no
plugin {
  sieve_plugins = sieve_extprograms
  sieve_global = %[1]s/global
  sieve_dir = %[1]s/home/sieve
  sieve = file:%[1]s/home/sieve;active=%[1]s/home/.dovecot.sieve
  sieve_max_redirects = 100
  sieve_max_actions = 200
  sieve_redirect_duplicate_period = 0
  sieve_extensions = +vnd.dovecot.report +vnd.dovecot.environment +vnd.dovecot.pipe +vnd.dovecot.filter +vnd.dovecot.execute +editheader +notify +special-use +vacation-seconds +spamtestplus +virustest +mboxmetadata +servermetadata
  sieve_pipe_bin_dir = %[1]s/bin
  sieve_execute_bin_dir = %[1]s/bin
  sieve_filter_bin_dir = %[1]s/bin
}
`

// pigeonhole is a directory that Pigeonhole's tools work in.
type pigeonhole struct{ dir, conf string }

func newPigeonhole(t testing.TB) *pigeonhole {
	t.Helper()
	needPigeonhole(t)
	dir, err := os.MkdirTemp("", "sieve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &pigeonhole{dir: dir, conf: filepath.Join(dir, "dovecot.conf")}
	for _, d := range []string{"home/sieve", "global", "run", "bin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.write(t, "dovecot.conf", fmt.Appendf(nil, dovecotConf, dir))
	p.write(t, "bin/prog", []byte("#!/bin/sh\ncat\n"))
	p.write(t, "bin/word", []byte("#!/bin/sh\nprintf word\n"))
	p.own(t)
	return p
}

func (p *pigeonhole) write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *pigeonhole) own(t testing.TB) {
	t.Helper()
	err := filepath.Walk(p.dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run returns what a tool printed on its standard output.
func (p *pigeonhole) run(t testing.TB, tool string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool, append([]string{"-c", p.conf}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %v: %w\n%s", tool, args, err, errs.String())
	}
	return out.String(), nil
}

// recipients runs a script on a mail and returns to whom it was sent.
func (p *pigeonhole) recipients(t testing.TB, script, mail string) []string {
	t.Helper()
	m := p.write(t, "mail.eml", []byte(mail))
	out, err := p.run(t, "sieve-test", "-e", script, m)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for l := range strings.Lines(out) {
		if rcpt, ok := strings.CutPrefix(strings.TrimSpace(l), "RECIPIENT: "); ok && !slices.Contains(all, rcpt) {
			all = append(all, rcpt)
		}
	}
	return all
}

// TestCasesOnPigeonhole holds what the cases want against what Pigeonhole does:
// every recipient is told, every target that is told is a recipient.
func TestCasesOnPigeonhole(t *testing.T) {
	p := newPigeonhole(t)
	for _, c := range readCases(t) {
		t.Run(c.name, func(t *testing.T) {
			script := p.write(t, "home/sieve/test.sieve", c.script)
			for name, text := range c.includes {
				kind, name, _ := strings.Cut(name, " ")
				dir := map[string]string{"personal": "home/sieve/", "global": "global/"}[kind]
				p.write(t, dir+name+".sieve", []byte(text))
			}
			p.own(t)
			binary := filepath.Join(p.dir, "home/sieve/test.svbin")
			_, err := p.run(t, "sievec", script, binary)
			p.own(t)
			if c.broken != "" {
				if err == nil {
					t.Errorf("said to be broken, and compiles")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.compileOnly {
				return
			}
			compare(t, c.want, p.recipients(t, script, c.mail))
		})
	}
}

func compare(t *testing.T, want, real []string) {
	t.Helper()
	told := map[string]bool{}
	for _, w := range want {
		f := strings.Fields(w)
		if f[0] != "address" || strings.HasSuffix(w, " dormant") || strings.HasSuffix(w, " broken") {
			continue
		}
		target := strings.Join(f[3:], " ")
		target, unseen := strings.CutSuffix(target, " unseen")
		told[target] = true
		if !unseen && !slices.ContainsFunc(real, func(r string) bool { return matches(target, r) }) {
			t.Errorf("%s is told, Pigeonhole did not send there: %q", target, real)
		}
	}
	for _, r := range real {
		found := r == "x@q.test" // the sender of the mail: an answer to him
		for target := range told {
			found = found || matches(target, r)
		}
		if !found {
			t.Errorf("Pigeonhole sent to %s, which is not told: %q", r, want)
		}
	}
}

// matches: * stands for any characters.
func matches(pattern, s string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return s == pattern
	}
	if !strings.HasPrefix(s, before) {
		return false
	}
	for i := len(before); i <= len(s); i++ {
		if matches(after, s[i:]) {
			return true
		}
	}
	return false
}
