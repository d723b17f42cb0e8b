package sendmail_test

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/policy"
)

// debianMC is the beginning of Debian's .mc files.
const debianMC = "divert(0)dnl\ndefine(`_USE_ETC_MAIL_')dnl\ndefine(`MAIL_SETTINGS_DIR', `@DIR@/')dnl\ninclude(`@CF@/m4/cf.m4')dnl\ninclude(`@CF@/debian/autoconf.m4')dnl\nOSTYPE(`debian')dnl\n"

// debianMTA is what Debian's sendmail.mc says beside comments.
const debianMTA = debianMC + `DOMAIN(` + "`debian-mta'" + `)dnl
define(` + "`confPID_FILE', `@DIR@/sendmail.pid'" + `)dnl
undefine(` + "`confHOST_STATUS_DIRECTORY'" + `)dnl
FEATURE(` + "`no_default_msa'" + `)dnl
dnl DAEMON_OPTIONS(` + "`Family=inet6, Name=MTA-v6, Port=smtp, Addr=::1'" + `)dnl
DAEMON_OPTIONS(` + "`Family=inet,  Name=MTA-v4, Port=smtp, Addr=127.0.0.1'" + `)dnl
dnl DAEMON_OPTIONS(` + "`Family=inet6, Name=MSP-v6, Port=submission, M=Ea, Addr=::1'" + `)dnl
DAEMON_OPTIONS(` + "`Family=inet,  Name=MSP-v4, Port=submission, M=Ea, Addr=127.0.0.1'" + `)dnl
define(` + "`confPRIVACY_FLAGS',dnl\n`needmailhelo,restrictqrun,restrictmailq,authwarnings'" + `)dnl
FEATURE(` + "`use_cw_file'" + `)dnl
FEATURE(` + "`delay_checks', `friend', `n'" + `)dnl
dnl # Default Mailer setup
MAILER_DEFINITIONS
MAILER(` + "`local'" + `)dnl
MAILER(` + "`smtp'" + `)dnl
`

const debianMSP = debianMC + `DOMAIN(` + "`debian-msp'" + `)dnl
FEATURE(` + "`msp', `[127.0.0.1]', `25'" + `)dnl
dnl #
`

// mcTree is a configuration made by m4 of these sources, as Debian's Makefile does
// it; no Sendmail runs with it.
type mcTree struct {
	confTree
	setup sendmail.Setup
}

func newMCTree(t *testing.T, mta, msp string) mcTree {
	t.Helper()
	sendmailtest.Need(t)
	tr := mcTree{confTree: newConfTree(t, "names")}
	bin := filepath.Join(filepath.Dir(tr.dir), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// A name without a domain makes each start of Sendmail take a minute.
	program := "#!/bin/sh\nexec unshare --uts sh -c 'hostname relay.example.jp; exec \"$0\" \"$@\"' " + filepath.Join(packageFolder(), "usr/libexec/sendmail/sendmail") + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "sendmail"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	tr.setup = sendmail.Setup{Tools: sendmail.Tools{Dir: bin}, ConfigDir: tr.dir, Listeners: tr.listeners, SMTP: policy.Relay, Backups: filepath.Join(filepath.Dir(tr.dir), "backups")}
	tr.make(t, mta, msp)
	return tr
}

func packageFolder() string {
	return cmp.Or(os.Getenv("RELAYGUARD_SENDMAIL"), "/var/lib/relayguard-dev/sendmail")
}

// make writes the sources and has m4 make the rest.
func (tr mcTree) make(t *testing.T, mta, msp string) {
	t.Helper()
	expand := strings.NewReplacer("@DIR@", tr.dir, "@CF@", filepath.Join(packageFolder(), "usr/share/sendmail/cf"))
	for name, text := range map[string]string{"sendmail": mta, "submit": msp} {
		if text == "" {
			continue
		}
		mc, cf := filepath.Join(tr.dir, name+".mc"), filepath.Join(tr.dir, name+".cf")
		if err := os.WriteFile(mc, []byte(expand.Replace(text)), 0o644); err != nil {
			t.Fatal(err)
		}
		make := fmt.Sprintf("m4 %[1]s >%[2]s && echo '### %[1]s ###' >>%[2]s && sed -e 's/^/# /' %[1]s >>%[2]s", mc, cf)
		cmd := exec.Command("sh", "-c", make)
		cmd.Dir = tr.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

func (tr mcTree) files(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(tr.dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(tr.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

func sameTexts(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			was, is := strings.Split(text, "\n"), strings.Split(got[name], "\n")
			n := 0
			for n < min(len(was), len(is)) && was[n] == is[n] {
				n++
			}
			t.Errorf("%s differs from line %d on: got %q, want %q", name, n+1, is[n:min(n+3, len(is))], was[n:min(n+3, len(was))])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s was left", name)
		}
	}
}

func edited(text string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }

// Whatever was there before: after Apply no way round the guard is left, a second
// Apply changes nothing, and Undo gives every file back byte for byte.
func TestSetupApplyAndUndo(t *testing.T) {
	const smtp, submission = "DAEMON_OPTIONS(`Family=inet,  Name=MTA-v4, Port=smtp, Addr=127.0.0.1')dnl\n", "DAEMON_OPTIONS(`Family=inet,  Name=MSP-v4, Port=submission, M=Ea, Addr=127.0.0.1')dnl\n"
	for name, c := range map[string]struct {
		mta, msp string
		want     []string // lines of sendmail.mc
	}{
		"Debian's": {debianMTA, debianMSP, []string{"DAEMON_OPTIONS(`Family=inet,  Name=MTA-v4, Port=smtp, Addr=127.0.0.1, InputMailFilters=relayguard-relay')dnl",
			"DAEMON_OPTIONS(`Family=inet,  Name=MSP-v4, Port=submission, M=Ea, Addr=127.0.0.1, InputMailFilters=relayguard-submission')dnl",
			"DAEMON_OPTIONS(`Name=relayguard-local, Family=inet, Addr=127.0.0.1, Port=24, M=E, InputMailFilters=relayguard-local')dnl",
			"MAIL_FILTER(`relayguard-local', `S=local:@SOCKETS@/local.sock, F=T, T=C:10s;S:10s;R:20s;E:120s')dnl"}},
		"Sendmail's own services": {edited(debianMTA, smtp, "", submission, "", "FEATURE(`no_default_msa')dnl\n", ""), debianMSP,
			[]string{"DAEMON_OPTIONS(`Port=587, Name=MSA, M=E, InputMailFilters=relayguard-submission')dnl"}},
		"its own submission service": {edited(debianMTA, submission, "", "FEATURE(`no_default_msa')dnl\n", ""), debianMSP, nil},
		"other milters": {edited(debianMTA, smtp, "INPUT_MAIL_FILTER(`dkim', `S=inet:8891@127.0.0.1')dnl\nMAIL_FILTER(`clamav', `S=inet:8892@127.0.0.1, F=')dnl\n"+smtp, "M=Ea,", "M=Ea, I=clamav;dkim,"), debianMSP,
			[]string{"DAEMON_OPTIONS(`Family=inet,  Name=MTA-v4, Port=smtp, Addr=127.0.0.1, InputMailFilters=relayguard-relay;dkim')dnl",
				"DAEMON_OPTIONS(`Family=inet,  Name=MSP-v4, Port=submission, M=Ea, Addr=127.0.0.1, InputMailFilters=relayguard-submission;clamav;dkim')dnl"}},
		"the guard, unsound and late": {edited(debianMTA, smtp, "MAIL_FILTER(`mine', `S=local:@SOCKETS@/relay.sock')dnl\nMAIL_FILTER(`dkim', `S=inet:8891@127.0.0.1')dnl\n"+edited(smtp, "smtp,", "smtp, I=dkim;mine,")), debianMSP,
			[]string{"DAEMON_OPTIONS(`Family=inet,  Name=MTA-v4, Port=smtp, Addr=127.0.0.1, InputMailFilters=relayguard-relay;dkim')dnl"}},
		"the guard by another name":      {edited(debianMTA, smtp, "MAIL_FILTER(`mine', `S=unix:@SOCKETS@/relay.sock, F=4, T=R:1m')dnl\n"+edited(smtp, "smtp,", "smtp, I=mine,")), debianMSP, nil},
		"a listener that was there once": {edited(debianMTA, smtp, "MAIL_FILTER(`once', `S=local:@SOCKETS@/once.sock')dnl\n"+edited(smtp, "smtp,", "smtp, I=once,")), debianMSP, nil},
		"submit.cf to port 587":          {debianMTA, edited(debianMSP, "`25'", "`MSA'"), nil},
		"submit.cf to localhost":         {debianMTA, edited(debianMSP, "`msp', `[127.0.0.1]', `25'", "`msp'"), nil},
		"a port of its own":              {edited(debianMTA, smtp, smtp+"DAEMON_OPTIONS(`Name=mine, Addr=127.0.0.1, Port=26')dnl\n"), edited(debianMSP, "FEATURE(`msp'", "define(`RELAY_MAILER_ARGS', `TCP $h 26')dnl\nFEATURE(`msp'"), []string{"DAEMON_OPTIONS(`Name=mine, Addr=127.0.0.1, Port=26, InputMailFilters=relayguard-local')dnl"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newMCTree(t, strings.ReplaceAll(c.mta, "@SOCKETS@", "@DIR@/../relayguard"), c.msp)
			sockets := filepath.Join(filepath.Dir(tr.dir), "relayguard")
			before := tr.files(t)
			out, err := tr.setup.Apply(t.Context(), setupDay)
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Changed) == 0 || out.Running || out.Backup == "" {
				t.Errorf("got %+v", out)
			}
			after := tr.files(t)
			for _, line := range c.want {
				if !strings.Contains(after["sendmail.mc"], strings.ReplaceAll(line, "@SOCKETS@", sockets)+"\n") {
					t.Errorf("no line %s in\n%s", line, after["sendmail.mc"])
				}
			}
			for _, f := range sendmail.Inspect(t.Context(), sendmail.Inspection{Instance: tr.load(t), Listeners: tr.listeners, Built: true, Probe: sendmail.RulesProbe{Tools: tr.setup.Tools}}) {
				t.Errorf("found %s %s %s: %s", f.ID, f.Severity, f.Where, f.What)
			}
			if out, err := tr.setup.Apply(t.Context(), setupDay.Add(time.Hour)); err != nil || len(out.Changed) > 0 || out.Backup != "" {
				t.Errorf("second time: got %v, %v", out.Changed, err)
			}
			sameTexts(t, tr.files(t), after)
			if _, err := tr.setup.Undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			sameTexts(t, tr.files(t), before)
			if _, err := tr.setup.Undo(t.Context(), false); !errors.Is(err, backup.ErrNone) {
				t.Errorf("second undo: %v", err)
			}
		})
	}
}

// What it cannot change safely it leaves alone, and says why.
func TestSetupLeavesToTheAdmin(t *testing.T) {
	for name, c := range map[string]struct {
		mta, msp string
		prep     func(t *testing.T, tr mcTree)
		want     string
	}{
		"no source":        {debianMTA, debianMSP, func(t *testing.T, tr mcTree) { os.Remove(filepath.Join(tr.dir, "sendmail.mc")) }, "there is no such file"},
		"no submit source": {debianMTA, debianMSP, func(t *testing.T, tr mcTree) { os.Remove(filepath.Join(tr.dir, "submit.mc")) }, "there is no such file"},
		"edited cf":        {debianMTA, debianMSP, func(t *testing.T, tr mcTree) { tr.edit(t, "sendmail.cf", "O MaxHopCount=100", "O MaxHopCount=17") }, "not what is in force"},
		"edited source": {debianMTA, debianMSP, func(t *testing.T, tr mcTree) {
			tr.edit(t, "sendmail.mc", "MAILER_DEF", "define(`confMAX_HOP', `17')\nMAILER_DEF")
		}, "not what is in force"},
		"edited submit":    {debianMTA, debianMSP, func(t *testing.T, tr mcTree) { tr.edit(t, "submit.cf", "O DeliveryMode=i", "O DeliveryMode=b") }, "not what is in force"},
		"included service": {edited(debianMTA, "DAEMON_OPTIONS(`Family=inet,  Name=MTA-v4", "include(`@DIR@/more.m4')dnl\ndnl (`"), debianMSP, nil, "a file that it includes"},
		"other quotes":     {debianMTA + "changequote(<, >)dnl\nchangequote(`, ')dnl\n", debianMSP, nil, "quotes"},
		"broken source": {debianMTA, debianMSP, func(t *testing.T, tr mcTree) {
			tr.edit(t, "sendmail.mc", "MAILER_DEF", "include(`/nosuch')\nMAILER_DEF")
		}, "by m4"},
		"submit by no rule": {debianMTA, edited(debianMSP, "FEATURE(`msp', `[127.0.0.1]', `25')dnl", "include(`@DIR@/msp.m4')dnl"), nil, "no FEATURE"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newMCTree(t, "", "")
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(tr.dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("more.m4", "DAEMON_OPTIONS(`Family=inet,  Name=MTA-v4, Port=smtp, Addr=127.0.0.1')dnl\n")
			write("msp.m4", "FEATURE(`msp', `[127.0.0.1]', `25')dnl\n")
			tr.make(t, c.mta, c.msp)
			if c.prep != nil {
				c.prep(t, tr)
			}
			before := tr.files(t)
			_, err := tr.setup.Apply(t.Context(), setupDay)
			if !errors.Is(err, sendmail.ErrByHand) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			sameTexts(t, tr.files(t), before)
			settings, err := tr.setup.Plan(t.Context(), tr.load(t))
			if err != nil || !slices.ContainsFunc(settings, sendmail.Setting.Changes) {
				t.Errorf("it does not say what to do: %v, %v", settings, err)
			}
			if err := tr.setup.Obstacle(t.Context(), tr.load(t)); !errors.Is(err, sendmail.ErrByHand) {
				t.Errorf("obstacle: %v", err)
			}
		})
	}
}

func TestSetupWithoutSourcesTellsLinesOfTheConfiguration(t *testing.T) {
	tr := newConfTree(t, "names")
	for name, text := range map[string]string{"sendmail.cf": "V10\nO DaemonPortOptions=Name=MTA, Port=smtp\nO DaemonPortOptions=Port=587, Name=MSA, M=E\n", "submit.cf": "D{MTAHost}[127.0.0.1]\nMrelay, P=[IPC], A=TCP $h\n"} {
		if err := os.WriteFile(filepath.Join(tr.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	settings, err := sendmail.Setup{ConfigDir: tr.dir, Listeners: tr.listeners}.Plan(t.Context(), tr.load(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range settings {
		got = append(got, string(s.Place)+" "+strings.ReplaceAll(s.Value, filepath.Dir(tr.listeners[0].Address), "DIR"))
	}
	want := []string{
		"sendmail.cf Xrelayguard-local, S=local:DIR/local.sock, F=T, T=C:10s;S:10s;R:20s;E:120s",
		"sendmail.cf Xrelayguard-submission, S=local:DIR/submission.sock, F=T, T=C:10s;S:10s;R:20s;E:120s",
		"sendmail.cf O DaemonPortOptions=Name=relayguard-local, Family=inet, Addr=127.0.0.1, Port=24, M=E, InputMailFilters=relayguard-local",
		"sendmail.cf O DaemonPortOptions=Port=587, Name=MSA, M=E, InputMailFilters=relayguard-submission",
		"submit.cf Mrelay, ..., A=TCP $h 24",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSetupRefusesWhereLocalMailGoesElsewhere(t *testing.T) {
	tr := newConfTree(t, "guarded")
	tr.edit(t, "submit.cf", "[127.0.0.1]", "mailhub.example.jp")
	if _, err := (sendmail.Setup{ConfigDir: tr.dir, Listeners: tr.listeners}).Plan(t.Context(), tr.load(t)); err == nil || !strings.Contains(err.Error(), "mailhub.example.jp") {
		t.Errorf("got %v", err)
	}
	without := slices.DeleteFunc(slices.Clone(tr.listeners), func(l mta.Listener) bool { return l.Role == policy.Local })
	if _, err := (sendmail.Setup{ConfigDir: tr.dir, Listeners: without}).Plan(t.Context(), tr.load(t)); err != nil {
		t.Error(err)
	}
}

func TestUndoRefusesWhatOthersChanged(t *testing.T) {
	tr := newMCTree(t, debianMTA, debianMSP)
	before := tr.files(t)
	for n, smtp := range []policy.Role{0, policy.Inbound} {
		tr.setup.SMTP = smtp
		if _, err := tr.setup.Apply(t.Context(), setupDay.Add(time.Duration(n)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	tr.edit(t, "sendmail.mc", "MAILER_DEF", "dnl mine\nMAILER_DEF")
	if _, err := tr.setup.Undo(t.Context(), false); !errors.Is(err, backup.ErrChangedSince) || !strings.Contains(err.Error(), "sendmail.mc") {
		t.Errorf("got %v", err)
	}
	for _, earlier := range []bool{true, false} {
		out, err := tr.setup.Undo(t.Context(), true)
		if err != nil || out.Earlier != earlier {
			t.Errorf("got %+v, %v, want earlier %v", out, err, earlier)
		}
	}
	sameTexts(t, tr.files(t), before)
}

// What Sendmail would not start with is not put in force.
func TestSetupRefusesWhatSendmailRefuses(t *testing.T) {
	tr := newMCTree(t, debianMTA, debianMSP)
	before := tr.files(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tr.setup.LocalPort = taken.Addr().(*net.TCPAddr).Port
	if _, err := tr.setup.Apply(t.Context(), setupDay); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port that is taken: %v", err)
	}
	tr.setup.LocalPort = 0
	if err := os.Chmod(filepath.Dir(tr.listeners[0].Address), 0o775); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.setup.Apply(t.Context(), setupDay); err == nil || !strings.Contains(err.Error(), "Sendmail would not start") {
		t.Errorf("sockets that others may replace: %v", err)
	}
	sameTexts(t, tr.files(t), before)
}
