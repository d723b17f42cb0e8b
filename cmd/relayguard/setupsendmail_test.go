package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sendmailConfig is a configuration beside a Sendmail that has no .mc files.
func sendmailConfig(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sendmail.cf":     "V10/Berkeley\nO DaemonPortOptions=Name=MTA, Port=smtp\nO DaemonPortOptions=Port=587, Name=MSA, M=E\n",
		"submit.cf":       "V10/Berkeley\nD{MTAHost}[127.0.0.1]\nMrelay, P=[IPC], A=TCP $h\n",
		"relayguard.toml": fmt.Sprintf("[mta]\nkind = \"sendmail\"\nconfig_directory = %q\n", dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "relayguard.toml")
}

func TestSetupSendmailPrintsWhatToChange(t *testing.T) {
	path := sendmailConfig(t)
	code, out, errs := runIn(t, "setup", "sendmail", "--config", path)
	if code != exitFinding {
		t.Errorf("exit %d, %s", code, errs)
	}
	for _, want := range []string{
		"+ sendmail.cf  Xrelayguard-submission, S=local:/run/relayguard/submission.sock, F=T, T=C:10s;S:10s;R:20s;E:120s\n",
		"+ sendmail.cf  O DaemonPortOptions=Name=relayguard-local, Family=inet, Addr=127.0.0.1, Port=24, M=E, InputMailFilters=relayguard-local\n",
		"+ sendmail.cf  O DaemonPortOptions=Port=587, Name=MSA, M=E, InputMailFilters=relayguard-submission\n",
		"             was: O DaemonPortOptions=Port=587, Name=MSA, M=E\n",
		"+ submit.cf  Mrelay, ..., A=TCP $h 24\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
	for _, want := range []string{"5 of 5 settings", "by hand", "there is no such file", "--smtp"} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in %q", want, errs)
		}
	}
	code, out, _ = runIn(t, "setup", "sendmail", "--config", path, "--json")
	var told struct {
		Settings []struct{ Place, Name, Value, Why string }
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil || code != exitFinding || len(told.Settings) != 5 {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
}

func TestSetupSendmailLeavesWhatItCannotRebuild(t *testing.T) {
	path := sendmailConfig(t)
	backups := filepath.Join(t.TempDir(), "backups")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--apply"}, exitCannotTell, "by hand"},
		{[]string{"--undo"}, exitUsage, "no backup"},
		{[]string{"--smtp", "outbound"}, exitUsage, "want off, relay or inbound"},
		{[]string{"--force"}, exitUsage, "--force goes with --undo"},
	} {
		code, out, errs := runIn(t, append([]string{"setup", "sendmail", "--config", path, "--backups", backups}, c.args...)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%q: exit %d, %q, %q", c.args, code, out, errs)
		}
	}
}

func TestSetupIsForTheMailServerOfTheConfiguration(t *testing.T) {
	if code, _, errs := runIn(t, "setup", "postfix", "--config", sendmailConfig(t)); code != exitUsage || !strings.Contains(errs, `mta.kind "sendmail"`) {
		t.Errorf("exit %d, %s", code, errs)
	}
	other := filepath.Join(t.TempDir(), "relayguard.toml")
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := runIn(t, "setup", "sendmail", "--config", other); code != exitUsage || !strings.Contains(errs, `mta.kind "postfix"`) {
		t.Errorf("exit %d, %s", code, errs)
	}
}
