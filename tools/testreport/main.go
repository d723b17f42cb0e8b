// Command testreport reads "go test -json" and prints what a person wants to
// know: a line a package, everything about what failed, every skipped test with
// its reason, and the count. It exits 1 if anything failed, nothing ran, or a
// package began and never came to its end.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// event is one line of "go test -json": go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

type test struct{ pkg, name string }

// run collects what the events say.
type run struct {
	out                     io.Writer
	output                  map[test][]string
	parents                 map[test]bool // have subtests, which are what counts
	open                    map[string]bool
	passed, failed, skipped []test
	bad                     bool
}

// report reports whether tests ran and none failed.
func report(in io.Reader, out io.Writer) (bool, error) {
	r := &run{out: out, output: map[test][]string{}, parents: map[test]bool{}, open: map[string]bool{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if err == io.EOF {
			return r.end(), nil
		}
		if err != nil {
			return false, fmt.Errorf("read test events: %w", err)
		}
	}
}

func (r *run) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil {
		fmt.Fprint(r.out, line) // a build tool speaks
		return
	}
	t := test{e.Package, e.Test}
	switch e.Action {
	case "start":
		r.open[e.Package] = true
	case "output":
		r.output[t] = append(r.output[t], e.Output)
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			r.parents[test{e.Package, e.Test[:i]}] = true
		}
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.bad = true
	case "pass", "fail", "skip":
		if e.Test == "" {
			delete(r.open, e.Package)
			r.bad = r.bad || e.Action == "fail"
			packageLine(r.out, e, r.output[t])
			return
		}
		r.ended(t, e.Action)
	}
}

func (r *run) ended(t test, action string) {
	switch action {
	case "pass":
		r.passed = append(r.passed, t)
		delete(r.output, t)
	case "fail":
		r.failed = append(r.failed, t)
		fmt.Fprint(r.out, strings.Join(r.output[t], ""))
	case "skip":
		r.skipped = append(r.skipped, t)
	}
}

func (r *run) end() bool {
	isParent := func(t test) bool { return r.parents[t] }
	passed, failed := slices.DeleteFunc(r.passed, isParent), slices.DeleteFunc(r.failed, isParent)
	for _, t := range r.skipped {
		fmt.Fprintf(r.out, "skipped: %s %s: %s\n", t.pkg, t.name, reason(r.output[t]))
	}
	for pkg := range r.open {
		fmt.Fprintf(r.out, "%s began and never ended\n", pkg)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", len(passed), len(failed), len(r.skipped))
	return !r.bad && len(r.open) == 0 && len(failed) == 0 && len(passed) > 0
}

func packageLine(out io.Writer, e event, output []string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(out, "ok  \t%s\t%.1fs\n", e.Package, e.Elapsed)
	case "fail":
		for _, line := range output {
			if strings.TrimSpace(line) != "FAIL" {
				fmt.Fprint(out, line)
			}
		}
	}
}

// reason is what a test said when it skipped.
func reason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}
