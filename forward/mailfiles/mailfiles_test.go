package mailfiles_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/mailfiles"
)

// hostAt is the machine in a directory of testdata.
func hostAt(t *testing.T, dir string) *forward.Host {
	t.Helper()
	rooted, err := files.Rooted(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rooted.Close() })
	host := &forward.Host{Files: rooted}
	info, err := rooted.Lstat(t.Context(), "/etc/passwd")
	if err != nil {
		return host
	}
	if host.Accounts, err = files.ReadAccounts(t.Context(), rooted); err != nil {
		t.Fatal(err)
	}
	for n := range host.Accounts { // the files of testdata are whose checkout it is
		host.Accounts[n].UID, host.Accounts[n].GID = info.UID, info.GID
	}
	return host
}

func described(unit string, r forward.Rule) string {
	kind := map[forward.Kind]string{forward.Address: "to", forward.NextHop: "hop", forward.Program: "program",
		forward.File: "file", forward.Asked: "asked"}[r.Kind]
	line := fmt.Sprintf("%s: %s %s %s %s %s:%d", unit, r.Owner, r.Mechanism, kind, strings.ReplaceAll(r.Target, forward.Unknown, "?"), r.Mode, r.Line)
	for name, is := range map[string]bool{" dynamic": r.Dynamic, " broken": r.Broken != "", " dormant": r.Dormant != "", " no digest": r.Kind == forward.Program && r.Digest == ""} {
		if is {
			line += name
		}
	}
	return line
}

func TestPlanFindsEveryPlace(t *testing.T) {
	plan := mailfiles.Plan(t.Context(), hostAt(t, "testdata/host"))
	if len(plan.Gaps) > 0 {
		t.Errorf("gaps: %v", plan.Gaps)
	}
	var got []string
	for _, unit := range plan.Units {
		reading := unit.Read(t.Context())
		if len(unit.Paths) == 0 || len(reading.Gaps) > 0 {
			t.Errorf("%s: paths %v, gaps %v", unit.ID, unit.Paths, reading.Gaps)
		}
		for _, rule := range reading.Rules {
			got = append(got, described(unit.ID, rule))
		}
	}
	text, err := os.ReadFile("testdata/want.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(text)), "\n")
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

func TestNothingThere(t *testing.T) {
	plan := mailfiles.Plan(t.Context(), hostAt(t, "testdata/host/home"))
	if len(plan.Units) > 0 || len(plan.Gaps) > 0 || len(plan.Uses) == 0 {
		t.Errorf("got %+v", plan)
	}
}

func FuzzEximFilter(f *testing.F) {
	text, err := os.ReadFile("testdata/host/home/alice/.forward")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("deliver \"\\x\\400\\\n${${$h_:"))
	f.Fuzz(func(t *testing.T, data []byte) {
		size := 0
		for _, action := range mailfiles.ParseEximFilter(data) {
			size += len(action.Target)
			if action.Target == "" || action.Line < 1 {
				t.Errorf("got %+v", action)
			}
		}
		if size > 4*len(data) {
			t.Errorf("%d octets became %d", len(data), size)
		}
	})
}

func FuzzQmail(f *testing.F) {
	f.Add([]byte("# x\n&a@evil.test\n|x\n./m\n+list\nb\n!c@d\n||x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, parse := range []func([]byte) []mailfiles.Instruction{mailfiles.ParseQmail, mailfiles.ParseCourier} {
			for _, i := range parse(data) {
				if i.Line < 1 || len(i.Target) > len(data) {
					t.Errorf("got %+v", i)
				}
			}
		}
	})
}
