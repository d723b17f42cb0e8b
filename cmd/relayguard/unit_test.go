package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// unit reads a unit's settings; one that is given several times has several.
func unit(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			all[name] = append(all[name], value)
		}
	}
	return all
}

const crashEnv = "RELAYGUARD_TEST_CRASH"

// Review 1, finding 3: a panic exits with 2 like a wrong configuration, after
// which systemd does not start the daemon again.
func TestUnitStartsACrashedDaemonAgain(t *testing.T) {
	if os.Getenv(crashEnv) != "" {
		go func() { panic("crash") }()
		select {}
	}
	u := unit(t, "../../packaging/relayguard.service")
	cmd := exec.Command(os.Args[0], "-test.run=^TestUnitStartsACrashedDaemonAgain$")
	cmd.Dir = t.TempDir()
	cmd.Env = append(append(os.Environ(), crashEnv+"=1"), u["Environment"]...)
	err := cmd.Run()
	exit, ok := err.(*exec.ExitError)
	if !ok {
		t.Fatal(err)
	}
	status := exit.Sys().(syscall.WaitStatus)
	if code := status.ExitStatus(); status.Exited() && slices.Contains(u["RestartPreventExitStatus"], strings.TrimSpace(number(code))) {
		t.Errorf("a crash exits with %d, and with RestartPreventExitStatus=%v it stays down", code, u["RestartPreventExitStatus"])
	}
	if !slices.Contains(u["LimitCORE"], "0") {
		t.Error("a crash leaves mail in a core file")
	}
}

// Review 1, finding 19: who was behind sudo stands in another process's
// /proc/PID/loginuid.
func TestUnitLetsTheAuditSeeLoginSessions(t *testing.T) {
	for _, value := range unit(t, "../../packaging/relayguard.service")["ProtectProc"] {
		if value != "default" {
			t.Errorf("ProtectProc=%s hides loginuid", value)
		}
	}
}
