package sieve_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward/sieve"
)

// facts are what a script does, without lines and dead branches, which a
// compiled script has not.
func facts(r sieve.Result) []string {
	var out []string
	for _, t := range r.Targets {
		if t.Dormant == "" {
			t.Line = 0
			t.Script = ""
			if s := line(t); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestCompiledSaysTheSame: the binary that sievec makes of a case does what its
// text does.
func TestCompiledSaysTheSame(t *testing.T) {
	p := newPigeonhole(t)
	for _, c := range readCases(t) {
		if c.broken != "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			script := p.write(t, "home/sieve/test.sieve", c.script)
			for name, text := range c.includes {
				kind, name, _ := strings.Cut(name, " ")
				dir := map[string]string{"personal": "home/sieve/", "global": "global/"}[kind]
				p.write(t, dir+name+".sieve", []byte(text))
			}
			p.own(t)
			file := filepath.Join(p.dir, "home/sieve/test.svbin")
			if _, err := p.run(t, "sievec", script, file); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if os.Getenv("SIEVE_WRITE_BINARIES") != "" {
				if err := os.WriteFile("testdata/compiled/"+c.name+".svbin", data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, want := facts(sieve.Targets(data, sieve.Options{})), facts(sieve.Targets(c.script, c.options()))
			if !slices.Equal(got, want) {
				t.Errorf("compiled:\n%s\ntext:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestCompiledCases reads binaries that Pigeonhole 0.5.19 made of the cases
// (SIEVE_WRITE_BINARIES=1 go test -run TestCompiledSaysTheSame writes them).
func TestCompiledCases(t *testing.T) {
	cases := map[string]testCase{}
	for _, c := range readCases(t) {
		cases[c.name] = c
	}
	files, err := filepath.Glob("testdata/compiled/*.svbin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no compiled cases: %v", err)
	}
	for _, file := range files {
		c, ok := cases[strings.TrimSuffix(filepath.Base(file), ".svbin")]
		if !ok {
			t.Errorf("%s has no case", file)
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, want := facts(sieve.Targets(data, sieve.Options{})), facts(sieve.Targets(c.script, c.options()))
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\ntext:\n%s", file, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestCompiledThatCannotBeFollowed: mail may go anywhere by it.
func TestCompiledThatCannotBeFollowed(t *testing.T) {
	data, err := os.ReadFile("testdata/compiled/redirect-plain.svbin")
	if err != nil {
		t.Fatal(err)
	}
	unknownCode := slices.Clone(data)
	unknownCode[strings.Index(string(data), "\x07\x02\x0d")] = 0xf0
	for name, broken := range map[string][]byte{
		"cut": data[:len(data)-10], "head only": data[:16], "unknown code": unknownCode,
		"other byte order": append([]byte{0xca, 0xfe, 0xba, 0xbe}, data[4:]...),
	} {
		r := sieve.Targets(broken, sieve.Options{})
		if len(r.Targets) != 1 || kindName(r.Targets[0].Kind) != "asked" || r.Targets[0].Note == "" {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}
