package postfix

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/backup"
	"relayguard/policy"
)

var day = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

func (in instance) files(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(in.dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(in.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

func sameFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got[name], text)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s was left", name)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("postfix check needs root")
	}
}

func TestUndoSaysThatAnEarlierApplyIsInForce(t *testing.T) {
	needRoot(t)
	t.Parallel()
	in := newInstance(t, "", masterCF)
	ctx := context.Background()
	for n, smtp := range []policy.Role{0, policy.Relay} {
		setup := in.setup(t)
		setup.SMTP = smtp
		if _, err := setup.Apply(ctx, day.Add(time.Duration(n)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for _, earlier := range []bool{true, false} {
		out, err := in.setup(t).Undo(ctx, false)
		if err != nil || out.Earlier != earlier {
			t.Errorf("got %+v, %v, want earlier %v", out, err, earlier)
		}
	}
}

// Whatever was there before: after Apply no way round the guard is left, a
// second Apply changes nothing, and Undo gives every file back byte for byte.
func TestApplyAndUndo(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct{ main, master string }{
		"fresh":                         {"", masterCF},
		"another milter and own checks": {"opendkim=inet:localhost:8891\nsmtpd_milters=$opendkim\nnon_smtpd_milters=$opendkim, { inet:localhost:8892, connect_timeout=10s }\nmilter_default_action=accept\nheader_checks=regexp:/etc/own\nsmtp_header_checks=static:DUNNO\nmilter_command_timeout=2s\n", masterCF},
		"own milters of services":       {"", strings.Replace(masterCF, "-o syslog_name=postfix/submission", "-o { smtpd_milters = { inet:localhost:8891, default_action=accept }, inet:localhost:8892 }", 1) + "2525 inet n - n - - smtpd -o smtpd_milters=inet:localhost:8891 -o milter_default_action=accept\n"},
		"guard somewhere in the list":   {"smtpd_milters=inet:localhost:8891, { unix:relayguard/relay.sock, default_action=accept }\nnon_smtpd_milters=unix:relayguard/local.sock\n", masterCF},
		"listener that was there once":  {"smtpd_milters=unix:relayguard/once.sock, inet:localhost:8891\nnon_smtpd_milters=unix:relayguard/local.sock, unix:relayguard/once.sock\n", masterCF},
		"wrong listener of the guard":   {"smtpd_milters=unix:relayguard/local.sock\n", masterCF},
		"own cleanup for local mail":    {"", strings.Replace(masterCF, "1 pickup", "1 pickup -o cleanup_service_name=mine", 1) + "mine unix n - y - 0 cleanup -o header_checks=regexp:/etc/mine\n"},
		"submissions":                   {"", masterCF + "465 inet n - y - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes -o milter_macro_daemon_name=MINE\n"},
		"another mail_name":             {"mail_name=Mail of ours\n", masterCF},
		"relay client with checks":      {"", masterCF + "slow unix - - y - - smtp -o smtp_header_checks=regexp:/etc/slow\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // Postfix's tools wait two seconds after each change
			in := newInstance(t, c.main, c.master)
			before := in.files(t)
			setup := in.setup(t)
			ctx := context.Background()
			out, err := setup.Apply(ctx, day)
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Changed) == 0 || out.Running || out.Backup == "" {
				t.Errorf("got %+v", out)
			}
			for _, c := range out.Changed {
				if c.Why == "" {
					t.Errorf("%s: no reason", c)
				}
			}
			after := in.files(t)
			t.Logf("%s%s", after["main.cf"], after["master.cf"])
			if strings.Contains(after["main.cf"], "once.sock") {
				t.Error("a socket that no listener has any more is still asked")
			}
			in.age()
			for _, f := range Inspect(ctx, Inspection{Instance: in.load(t), Listeners: in.listeners, LocalMail: localMail}) {
				t.Errorf("found %s %s %s: %s", f.ID, f.Severity, f.Where, f.What)
			}
			out, err = setup.Apply(ctx, day.Add(time.Hour))
			if err != nil || len(out.Changed) > 0 || out.Backup != "" {
				t.Errorf("second time: got %v, %v", out.Changed, err)
			}
			sameFiles(t, in.files(t), after)
			if _, err := setup.Undo(ctx, false); err != nil {
				t.Fatal(err)
			}
			sameFiles(t, in.files(t), before)
			if _, err := setup.Undo(ctx, false); !errors.Is(err, backup.ErrNone) {
				t.Errorf("second undo: %v", err)
			}
		})
	}
}

func TestPlanLeavesWhatTheAdminChose(t *testing.T) {
	in := newInstance(t, "", masterCF+"2525 inet n - y - - smtpd -o smtpd_milters=unix:relayguard/relay.sock\n2526 inet n - y - - smtpd -o smtpd_milters=inet:localhost:8891\n")
	for role, want := range map[policy.Role]string{0: "", policy.Inbound: "unix:relayguard/inbound.sock"} {
		settings, err := Setup{Listeners: in.listeners, SMTP: role, LocalMail: localMail}.Plan(t.Context(), in.load(t))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, s := range settings {
			if s.Name == "smtpd_milters" {
				got[s.Service] = s.Value
			}
		}
		if _, touched := got["2525/inet"]; touched {
			t.Errorf("role %v: 2525 has a listener of ours, and becomes %q", role, got["2525/inet"])
		}
		if got[""] != want || got["submission/inet"] != "unix:relayguard/submission.sock" {
			t.Errorf("role %v: got %v", role, got)
		}
		if value, touched := got["2526/inet"]; touched != (role != 0) || touched && value != want+", inet:localhost:8891" {
			t.Errorf("role %v: 2526 becomes %q", role, value)
		}
	}
}

func TestPlanKeepsWhatTheAdminHas(t *testing.T) {
	in := newInstance(t, "opendkim=inet:localhost:8891\nsmtpd_milters=$opendkim\nheader_checks=regexp:/etc/own\n", masterCF)
	settings, err := in.setup(t).Plan(context.Background(), in.load(t))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"smtpd_milters":                            "unix:relayguard/relay.sock, $opendkim",
		"submission/inet smtpd_milters":            "unix:relayguard/submission.sock, $opendkim",
		"submission/inet milter_macro_daemon_name": "ORIGINATING",
		"non_smtpd_milters":                        "unix:relayguard/local.sock",
		"smtp_header_checks":                       "regexp:" + in.dir + "/relayguard-strip.regexp",
		"pickup/unix cleanup_service_name":         "relayguard-cleanup",
		"relayguard-cleanup/unix ":                 "relayguard-cleanup unix n - y - 0 cleanup -o {header_checks=regexp:" + in.dir + "/relayguard-uid.regexp, regexp:/etc/own} -o milter_macro_daemon_name=LOCAL-PICKUP -o nested_header_checks=regexp:/etc/own",
	}
	for _, s := range settings {
		key := strings.TrimPrefix(s.Service+" "+s.Name, " ")
		if value, ok := want[key]; ok && value != s.Value {
			t.Errorf("%s: got %q, want %q", key, s.Value, value)
		}
		delete(want, key)
	}
	for key := range want {
		t.Errorf("%s is not in the plan", key)
	}
}

func TestPlanSaysWhatBecomesOfOwnHeaderChecks(t *testing.T) {
	for main, want := range map[string]bool{"": false, "header_checks=regexp:/etc/own\n": true} {
		in := newInstance(t, main, masterCF)
		settings, err := in.setup(t).Plan(t.Context(), in.load(t))
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for _, s := range settings {
			told = told || strings.Contains(s.Why, "your own header_checks")
		}
		if told != want {
			t.Errorf("%q: told %v", main, told)
		}
	}
}

// The names are the guard's configuration's, not ours.
func TestPlanTakesNamesFromTheConfiguration(t *testing.T) {
	in := newInstance(t, "", masterCF)
	setup := in.setup(t)
	setup.LocalMail = LocalMail{DaemonName: "CRON-AND-PHP", UIDHeader: "X-Sent-By", Strip: []string{"X-Relayguard-Origin"}}
	settings, err := setup.Plan(t.Context(), in.load(t))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, s := range settings {
		text.WriteString(s.Value + "\n")
	}
	for _, want := range []string{"milter_macro_daemon_name=CRON-AND-PHP", "PREPEND X-Sent-By: $1", "/^X-Sent-By:/ IGNORE", "/^X-Relayguard-Origin:/ IGNORE"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), localMail.DaemonName) || strings.Contains(text.String(), localMail.UIDHeader) {
		t.Errorf("other names in\n%s", text.String())
	}
}

func TestApplyAfterManualEditsKeepsThem(t *testing.T) {
	needRoot(t)
	t.Parallel()
	in := newInstance(t, "", masterCF)
	setup, ctx := in.setup(t), context.Background()
	if _, err := setup.Apply(ctx, day); err != nil {
		t.Fatal(err)
	}
	edited := in.files(t)["main.cf"] + "# by hand\nsmtpd_banner=hello\nmilter_default_action=accept\n"
	writeFile(t, filepath.Join(in.dir, "main.cf"), edited)
	in.age()
	if _, err := setup.Undo(ctx, false); !errors.Is(err, backup.ErrChangedSince) || !strings.Contains(err.Error(), "main.cf") || strings.Contains(err.Error(), "master.cf") {
		t.Fatalf("undo of edited settings: %v", err)
	}
	out, err := setup.Apply(ctx, day.Add(time.Hour))
	if err != nil || len(out.Changed) != 1 {
		t.Fatalf("got %v, %v", out.Changed, err)
	}
	if text := in.files(t)["main.cf"]; !strings.Contains(text, "# by hand\nsmtpd_banner=hello\n") {
		t.Errorf("edits lost:\n%s", text)
	}
	if _, err := setup.Undo(ctx, false); err != nil {
		t.Fatal(err)
	}
	if text := in.files(t)["main.cf"]; text != edited {
		t.Errorf("got\n%s\nwant\n%s", text, edited)
	}
	if _, err := setup.Undo(ctx, false); !errors.Is(err, backup.ErrChangedSince) {
		t.Fatalf("undo below the edits: %v", err)
	}
	if _, err := setup.Undo(ctx, true); err != nil {
		t.Fatal(err)
	}
	if text := in.files(t)["main.cf"]; strings.Contains(text, "relayguard") {
		t.Errorf("forced undo left\n%s", text)
	}
}

// What Postfix itself refuses is put back.
func TestApplyRollsBack(t *testing.T) {
	needRoot(t)
	in := newInstance(t, "", masterCF)
	before := in.files(t)
	tools := t.TempDir()
	for _, name := range []string{"postconf", "postmap"} {
		os.Symlink(Tools{}.path(name), filepath.Join(tools, name))
	}
	os.WriteFile(filepath.Join(tools, "postfix"), []byte("#!/bin/sh\necho 'postfix: fatal: no' >&2\nexit 1\n"), 0o755)
	setup := in.setup(t)
	setup.Tools = Tools{Dir: tools}
	if _, err := setup.Apply(context.Background(), day); err == nil || !strings.Contains(err.Error(), "old settings are back") {
		t.Fatalf("got %v", err)
	}
	sameFiles(t, in.files(t), before)
}

func TestPlanRefusesSocketsThatChrootHides(t *testing.T) {
	in := newInstance(t, "", masterCF)
	in.listeners[0].Address = "/run/relayguard/milter.sock"
	if _, err := in.setup(t).Plan(context.Background(), in.load(t)); err == nil || !strings.Contains(err.Error(), "queue directory") {
		t.Fatalf("got %v", err)
	}
}

// Undo runs as root: whoever could write the backups could have it write any
// file.
func TestUndoRefusesBackupsOfOthers(t *testing.T) {
	needRoot(t)
	const stranger = 65533
	manifestOf := func(dir string) string { return filepath.Join(dir, backup.ManifestName) }
	edit := func(old, new string) func(*testing.T, string, string) {
		return func(t *testing.T, root, dir string) {
			text, err := os.ReadFile(manifestOf(dir))
			if err != nil || !strings.Contains(string(text), old) {
				t.Fatalf("manifest %s, %v", text, err)
			}
			writeFile(t, manifestOf(dir), strings.Replace(string(text), old, new, 1))
		}
	}
	link := func(name string) func(*testing.T, string, string) {
		return func(t *testing.T, root, dir string) {
			moved := filepath.Join(root, "moved")
			if err := errors.Join(os.Rename(filepath.Join(dir, name), moved), os.Symlink(moved, filepath.Join(dir, name))); err != nil {
				t.Fatal(err)
			}
		}
	}
	do := func(f func(root, dir string) error) func(*testing.T, string, string) {
		return func(t *testing.T, root, dir string) {
			if err := f(root, dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, plant := range map[string]func(t *testing.T, root, dir string){
		"the directory is another's":          do(func(root, dir string) error { return os.Chown(root, stranger, 0) }),
		"a directory above is another's":      do(func(root, dir string) error { return os.Chown(filepath.Dir(root), stranger, 0) }),
		"others may write the directory":      do(func(root, dir string) error { return os.Chmod(root, 0o777|os.ModeSticky) }),
		"a group may write a directory above": do(func(root, dir string) error { return os.Chmod(filepath.Dir(root), 0o775) }),
		"the backup is another's":             do(func(root, dir string) error { return os.Chown(dir, stranger, 0) }),
		"the manifest is another's":           do(func(root, dir string) error { return os.Chown(manifestOf(dir), stranger, 0) }),
		"others may write the manifest":       do(func(root, dir string) error { return os.Chmod(manifestOf(dir), 0o666) }),
		"a copy is another's":                 do(func(root, dir string) error { return os.Chown(filepath.Join(dir, "0-main.cf"), stranger, 0) }),
		"the manifest is a link":              link(backup.ManifestName),
		"a copy is a link":                    link("0-main.cf"),
		"the manifest names another file":     edit(`/main.cf"`, `/other"`),
		"the manifest names a file elsewhere": edit(`/etc/main.cf"`, `/main.cf"`),
		"the manifest climbs":                 edit(`/etc/main.cf"`, `/etc/../main.cf"`),
		"the manifest names a copy elsewhere": edit(`"0-main.cf"`, `"../0-main.cf"`),
		"the manifest is a pipe that nobody fills": do(func(root, dir string) error {
			return errors.Join(os.Remove(manifestOf(dir)), syscall.Mkfifo(manifestOf(dir), 0o600))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstance(t, "", masterCF)
			setup := in.setup(t)
			setup.Backups = filepath.Join(filepath.Dir(in.dir), "var", "backups")
			before := in.files(t)
			dir, m, err := backup.BackUp(setup.Backups, in.dir, day, []string{filepath.Join(in.dir, "main.cf")})
			if err == nil {
				os.Chmod(filepath.Dir(setup.Backups), 0o755)
				err = m.Finish(dir)
			}
			if err != nil {
				t.Fatal(err)
			}
			plant(t, setup.Backups, dir)
			if _, err := setup.Undo(t.Context(), true); err == nil || errors.Is(err, backup.ErrNone) {
				t.Errorf("restored: %v", err)
			}
			sameFiles(t, in.files(t), before)
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(in.dir), "*.cf")); len(left) > 0 {
				t.Errorf("wrote %q", left)
			}
		})
	}
	t.Run("nothing is put there either", func(t *testing.T) {
		in := newInstance(t, "", masterCF)
		setup := in.setup(t)
		if err := errors.Join(os.Mkdir(setup.Backups, 0o700), os.Chown(setup.Backups, stranger, 0)); err != nil {
			t.Fatal(err)
		}
		setup.Backups = filepath.Join(setup.Backups, "below")
		before := in.files(t)
		if _, err := setup.Apply(t.Context(), day); !errors.Is(err, backup.ErrUntrusted) {
			t.Errorf("got %v", err)
		}
		sameFiles(t, in.files(t), before)
	})
}
