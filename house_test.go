// Package house_test holds the floors of the house: which room may import
// which. It reads every Go file, whatever its build constraints, tests too.
package house_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "relayguard"

// floors say what a room may import of ours beside itself. A room is named by
// the longest entry that its path begins with; one without an entry has no
// floor yet, which is a fault.
var floors = map[string][]string{
	"policy":          {"policy/origin", "policy/limit", "policy/address", "policy/template"},
	"policy/template": {},
	"wordpress":       {},
	"policy/origin":   {},
	"policy/limit":    {},
	"policy/address":  {},
	"limitstore":      {"policy/limit"},
	"milter":          {"policy"},
	"rbl":             {"policy"},
	"mta":             {"policy"},
	"journal":         {"policy"},
	"incident":        {"policy"},
	"replay":          {"policy"},
	"forward":         {"policy", "mta"},
	"cmd":             {"*"},
	"demo":            {"*"},
	"bench":           {"*"},
	"tools":           {},
	"systemtest":      {"*"},
	".":               {}, // this test
}

// wires are the rooms that nobody imports: they put the others together.
var wires = []string{"cmd", "demo", "bench", "systemtest"}

// policy and its leaves decide and do nothing else. Beside pure packages of the
// standard library they use these.
var (
	pureLibraries = []string{"golang.org/x/net/idna", "github.com/emersion/go-message", "golang.org/x/text"}
	impure        = []string{"net", "net/http", "net/smtp", "net/rpc", "os", "os/exec", "os/signal", "os/user", "syscall", "database/sql", "plugin", "unsafe", "log", "expvar"}
)

func TestFloors(t *testing.T) {
	faults, rooms := violations(t, os.DirFS("."))
	for _, f := range faults {
		t.Error(f)
	}
	for _, room := range []string{"policy", "policy/origin", "policy/address", "milter", "mta", "cmd"} {
		if !slices.Contains(rooms, room) {
			t.Errorf("no Go file in %s: was it looked at?", room)
		}
	}
}

func TestFloorsSeeAViolation(t *testing.T) {
	for name, c := range map[string]struct {
		file, imports string
		fault         bool
	}{
		"policy uses a leaf":              {"policy/a.go", "relayguard/policy/origin", false},
		"policy uses std":                 {"policy/a.go", "net/netip", false},
		"policy opens sockets":            {"policy/a.go", "net", true},
		"policy reads files":              {"policy/limit/a.go", "os", true},
		"policy's test reads files":       {"policy/a_test.go", "os", false},
		"policy uses a strange library":   {"policy/a.go", "github.com/emersion/go-milter", true},
		"policy uses milter":              {"policy/a.go", "relayguard/milter", true},
		"policy's test uses milter":       {"policy/a_test.go", "relayguard/milter", true},
		"a leaf uses policy":              {"policy/origin/a.go", "relayguard/policy", true},
		"a leaf uses a leaf":              {"policy/limit/a.go", "relayguard/policy/origin", true},
		"a leaf's suite uses the leaf":    {"policy/limit/limittest/a.go", "relayguard/policy/limit", false},
		"milter uses policy":              {"milter/a.go", "relayguard/policy", false},
		"milter uses a leaf":              {"milter/miltertest/a.go", "relayguard/policy/origin", false},
		"milter uses mta":                 {"milter/a.go", "relayguard/mta/postfix", true},
		"mta uses itself":                 {"mta/postfix/a.go", "relayguard/mta/local", false},
		"journal uses mta":                {"journal/a.go", "relayguard/mta", true},
		"forward uses mta":                {"forward/a.go", "relayguard/mta/postfix", false},
		"forward uses journal":            {"forward/a.go", "relayguard/journal", true},
		"a store uses limit":              {"limitstore/redis/a.go", "relayguard/policy/limit", false},
		"a store uses limit's suite":      {"limitstore/redis/a_test.go", "relayguard/policy/limit/limittest", false},
		"a store uses policy":             {"limitstore/redis/a.go", "relayguard/policy", true},
		"cmd wires":                       {"cmd/relayguard/a.go", "relayguard/limitstore/redis", false},
		"systemtest wires":                {"systemtest/a_test.go", "relayguard/cmd/internal/guard", false},
		"milter uses cmd":                 {"milter/a.go", "relayguard/cmd/internal/config", true},
		"a room without a floor":          {"attic/a.go", "fmt", true},
		"a room that is like another":     {"policyx/a.go", "fmt", true},
		"a violation behind a constraint": {"milter/a_windows.go", "relayguard/rbl", true},
	} {
		src := fmt.Sprintf("//go:build never\n\npackage a\n\nimport _ %q\n", c.imports)
		faults, _ := violations(t, fstest.MapFS{c.file: {Data: []byte(src)}, "policy/testdata/b.go": {Data: []byte("no Go")}})
		if (len(faults) > 0) != c.fault {
			t.Errorf("%s: %q", name, faults)
		}
	}
}

// violations reads all Go files below root and tells which imports are not
// allowed, and which rooms there are.
func violations(t *testing.T, root fs.FS) (faults, rooms []string) {
	t.Helper()
	err := fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != "." && (name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(file) != ".go" {
			return nil
		}
		room := roomOf(path.Dir(file))
		if !slices.Contains(rooms, room) {
			rooms = append(rooms, room)
		}
		if room == "" {
			faults = append(faults, fmt.Sprintf("%s: its room has no floor; give it one in house_test.go", file))
			return nil
		}
		src, err := fs.ReadFile(root, file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(room, imported, strings.HasSuffix(file, "_test.go")); why != "" {
				faults = append(faults, fmt.Sprintf("%s imports %s: %s", file, imported, why))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return faults, rooms
}

// roomOf is the longest entry of floors that dir is or lies in; "" for none.
func roomOf(dir string) string {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := floors[dir]; ok {
			return dir
		}
		if path.Dir(dir) == "." {
			return ""
		}
	}
	return dir
}

func forbidden(room, imported string, test bool) string {
	ours, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return forbiddenLibrary(room, imported, test)
	}
	target := roomOf(ours)
	allowed := floors[room]
	switch {
	case target == room || slices.Contains(allowed, "*"):
		return ""
	case target == "" || slices.Contains(wires, target):
		return "nobody imports what wires"
	case slices.Contains(allowed, target):
		return ""
	case strings.HasPrefix(target, "policy/") && slices.Contains(allowed, "policy"):
		return "" // who may use policy may use its leaves
	}
	return fmt.Sprintf("%s may import of ours only %q", room, allowed)
}

func forbiddenLibrary(room, imported string, test bool) string {
	if test || room != "policy" && !strings.HasPrefix(room, "policy/") {
		return ""
	}
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case slices.Contains(impure, imported):
		return "policy is pure: no sockets, files, databases or global loggers"
	case !strings.Contains(first, "."): // of the standard library
		return ""
	case slices.ContainsFunc(pureLibraries, func(l string) bool { return imported == l || strings.HasPrefix(imported, l+"/") }):
		return ""
	}
	return fmt.Sprintf("policy uses no libraries but %q", pureLibraries)
}
