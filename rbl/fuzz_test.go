package rbl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"relayguard/rbl"
)

// A file is taken or refused, with a place in it and nothing that upsets a terminal.
func FuzzExtend(f *testing.F) {
	files, _ := filepath.Glob("testdata/load/*/*.toml")
	if len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("[[zone]]\n[zone.terms]\n[[zone]]\nzone.x = {a.b=1, c=[{}]}"))
	base := rbl.Builtin()
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := base.Extend("zones.toml", data)
		if err == nil {
			for _, z := range table.Zones() {
				if z.Name == "" || len(z.Kinds) == 0 {
					t.Errorf("%+v", z)
				}
			}
			_, _, _ = table.Choose(rbl.Choice{})
			return
		}
		problems, ok := err.(rbl.Problems)
		if !ok || len(problems) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Found == "" || p.Wanted == "" || strings.ContainsFunc(p.String(), func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Errorf("%q", p.String())
			}
		}
	})
}
