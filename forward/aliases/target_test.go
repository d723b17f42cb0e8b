package aliases_test

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/aliases"
)

// rightCase is one of testdata/rights.
type rightCase struct {
	right string
	want  []string // "to: x", "file: x", ...
}

func rightCases(t testing.TB) []rightCase {
	t.Helper()
	text, err := os.ReadFile("testdata/rights/cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	var cases []rightCase
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if right, ok := strings.CutPrefix(line, "right: "); ok {
			cases = append(cases, rightCase{right: right})
		} else if !strings.HasPrefix(line, "#") {
			cases[len(cases)-1].want = append(cases[len(cases)-1].want, line)
		}
	}
	if len(cases) < 30 {
		t.Fatalf("got %d cases, want them all", len(cases))
	}
	return cases
}

func described(t aliases.Target) string {
	switch {
	case t.Include:
		return "include: " + t.Text
	case t.Kind == forward.File:
		return "file: " + t.Text
	case t.Kind == forward.Program:
		return "program: " + t.Text
	}
	return "to: " + t.Text
}

func TestParseTargets(t *testing.T) {
	for _, c := range rightCases(t) {
		var got []string
		for _, target := range aliases.ParseTargets(c.right) {
			got = append(got, described(target))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s\ngot  %q\nwant %q", c.right, got, c.want)
		}
	}
}

func TestParseTargetsTellsSelf(t *testing.T) {
	got := aliases.ParseTargets(`\alice, bob, \carol@evil.test`)
	if len(got) != 3 || !got[0].Self || got[0].Text != "alice" || got[1].Self || got[2].Self {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseTargets(f *testing.F) {
	for _, c := range rightCases(f) {
		f.Add(c.right)
	}
	f.Add("((((((")
	f.Add("\\")
	f.Add(";:;:;:<>")
	f.Add("a.b+c@d-e.test")
	f.Fuzz(func(t *testing.T, right string) {
		if got, want := aliases.ParseTargets(right), aliases.ParseTargets(" "+right); len(right) < aliases.MaxRight && !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, behind a blank %+v", right, got, want)
		}
		size := 0
		for _, target := range aliases.ParseTargets(right) {
			size += len(target.Text)
		}
		if size > 4*len(right)+16 {
			t.Errorf("%d octets became %d", len(right), size)
		}
	})
}
