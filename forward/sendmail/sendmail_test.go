package sendmail_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/sendmail"
)

// hostAt is the machine in a directory of testdata.
func hostAt(t *testing.T, dir string) *forward.Host {
	t.Helper()
	rooted, err := files.Rooted(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rooted.Close() })
	accounts, err := files.ReadAccounts(t.Context(), rooted)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// The files of testdata are whose checkout it is.
	if info, err := rooted.Lstat(t.Context(), "/etc/passwd"); err == nil {
		for n := range accounts {
			accounts[n].UID, accounts[n].GID = info.UID, info.GID
		}
	}
	return &forward.Host{Files: rooted, Accounts: accounts, Hostname: "mail.corp.test"}
}

func described(r forward.Rule) string {
	kind := map[forward.Kind]string{forward.Address: "to", forward.NextHop: "hop", forward.Program: "program",
		forward.File: "file", forward.Asked: "asked"}[r.Kind]
	target := strings.ReplaceAll(r.Target, forward.Unknown, "?")
	line := fmt.Sprintf("%s %s %s %s %s:%d", r.Owner, r.Mechanism, kind, target, r.Mode, r.Line)
	for _, is := range [...]struct{ name, why string }{{"differs", r.Differs}, {"broken", r.Broken}, {"dormant", r.Dormant}} {
		if is.why != "" {
			line += " " + is.name
		}
	}
	return line
}

func TestPlanFindsEveryPlace(t *testing.T) {
	plan := sendmail.Plan(t.Context(), hostAt(t, "testdata/host"), sendmail.Options{})
	if len(plan.Gaps) > 0 {
		t.Errorf("gaps: %v", plan.Gaps)
	}
	for _, domain := range []string{"corp.test", "other.test", "localhost", "mail.corp.test", "virt.test"} {
		if !plan.World.Inside[domain] {
			t.Errorf("%s is not inside: %v", domain, plan.World.Inside)
		}
	}
	var got []string
	for _, unit := range plan.Units {
		if len(unit.Paths) == 0 {
			t.Errorf("%s has no paths", unit.ID)
		}
		for _, rule := range unit.Read(t.Context()).Rules {
			got = append(got, described(rule))
		}
	}
	slices.Sort(got)
	text, err := os.ReadFile("testdata/want.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Sort(want)
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("found, not wanted: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("wanted, not found: %s", line)
		}
	}
}

func TestNoSendmailNoPlan(t *testing.T) {
	plan := sendmail.Plan(t.Context(), hostAt(t, "testdata/host/home"), sendmail.Options{})
	if len(plan.Units) > 0 || len(plan.Gaps) > 0 || len(plan.Uses) != 1 {
		t.Errorf("got %+v", plan)
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/host/etc/mail/sendmail.cf")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("D{x\nK\nO\nF\nC{}\nKa b -c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		config := sendmail.Parse(data)
		size := 0
		for _, m := range config.Maps {
			size += len(m.Name)
		}
		if size > 2*len(data) || config.Rules == "" {
			t.Errorf("%d octets of map names from %d", size, len(data))
		}
	})
}
