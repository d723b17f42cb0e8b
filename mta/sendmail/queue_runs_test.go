package sendmail_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
)

// bootedVariable has a process of this test be where systemd runs.
const bootedVariable = "RELAYGUARD_TEST_BOOTED"

// What bounds the root helper as a service must not bound local delivery, and the
// helper's end must not be the run's. In a mount name space of its own the test has
// a /run as systemd makes it; a script stands for systemd-run.
func TestQueueRunsAreServicesOfTheirOwn(t *testing.T) {
	sendmailtest.Need(t)
	if os.Getenv(bootedVariable) == "" {
		inside := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `mount -t tmpfs none /run && mkdir /run/systemd /run/systemd/system && exec "$@"`,
			"sh", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		inside.Env = append(os.Environ(), bootedVariable+"=1")
		if out, err := inside.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const passOn = "while [ \"$1\" != -- ]; do shift; done; shift\nBY=service exec \"$@\"\n"
	for what, c := range map[string]struct {
		invocation, systemdRun string
		by                     string // who ran sendmail; "": nobody
	}{
		"as a service":            {"5a3f", passOn, "service"},
		"systemd says no":         {"5a3f", "echo no bus >&2; exit 1\n", ""},
		"no systemd-run":          {"5a3f", "", "us"},
		"by hand":                 {"", passOn, "us"},
		"nothing was deliverable": {"5a3f", "exit 0\n", "nobody"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Setenv("INVOCATION_ID", c.invocation)
			base, queue := tree(t)
			plant(t, queue, idA, "why")
			tools := t.TempDir()
			said := filepath.Join(tools, "said")
			script(t, filepath.Join(tools, "sendmail"), "echo ${BY:-us} \"$@\" >>"+said+"\n")
			if c.systemdRun != "" {
				script(t, filepath.Join(tools, "systemd-run"), "echo \"$@\" >>"+said+".asked\n"+c.systemdRun)
			}
			i, err := sendmail.Load(t.Context(), sendmail.Tools{Dir: tools}, base.ConfigDir)
			if err != nil {
				t.Fatal(err)
			}
			results, err := i.ReleaseMail(t.Context(), []mta.Target{target(idA)}, mta.Release{Now: time.Unix(1795396105, 0)})
			if c.by == "" {
				if !errors.Is(err, mta.ErrNotStarted) || !strings.Contains(err.Error(), "no bus") {
					t.Errorf("got %v", err)
				}
				return
			}
			all(t, "release", mta.Done, results, err)
			want := fmt.Sprintf("%s -C %s/sendmail.cf -qf -qI%s\n", c.by, base.ConfigDir, idA)
			got := func() string { text, _ := os.ReadFile(said); return string(text) }
			for end := time.Now().Add(30 * time.Second); c.by != "nobody" && got() != want; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("ran %q, want %q", got(), want)
				}
			}
			asked, _ := os.ReadFile(said + ".asked")
			if c.by == "service" && !strings.Contains(string(asked), "--collect --no-ask-password") {
				t.Errorf("asked for %q", asked)
			}
		})
	}
}

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}
