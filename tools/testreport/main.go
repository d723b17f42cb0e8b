// Command testreport reads "go test -json" and prints what a person wants to
// know: a line a package, everything about what failed, every skipped test with
// its reason, and the count. It exits 1 if anything failed or nothing ran.
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

// report reports whether tests ran and none failed.
func report(in io.Reader, out io.Writer) (bool, error) {
	output := map[test][]string{}
	parent := map[test]bool{} // has subtests: they are what counts
	var passed, failed, skipped []test
	events := bufio.NewReader(in)
	bad := 0
	for {
		line, err := events.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprint(out, line) // not from go test: a build tool speaks
				continue
			}
			t := test{e.Package, e.Test}
			switch e.Action {
			case "output":
				output[t] = append(output[t], e.Output)
				if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
					parent[test{e.Package, e.Test[:i]}] = true
				}
			case "build-output":
				fmt.Fprint(out, e.Output)
			case "build-fail":
				bad++
			case "pass", "fail", "skip":
				if e.Test == "" {
					packageLine(out, e, output[t])
					if e.Action == "fail" {
						bad++
					}
					continue
				}
				switch e.Action {
				case "pass":
					passed = append(passed, t)
					delete(output, t)
				case "fail":
					failed = append(failed, t)
					fmt.Fprint(out, strings.Join(output[t], ""))
				case "skip":
					skipped = append(skipped, t)
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("read test events: %w", err)
		}
	}
	isParent := func(t test) bool { return parent[t] }
	passed, failed = slices.DeleteFunc(passed, isParent), slices.DeleteFunc(failed, isParent)
	for _, t := range skipped {
		fmt.Fprintf(out, "skipped: %s %s: %s\n", t.pkg, t.name, reason(output[t]))
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", len(passed), len(failed), len(skipped))
	return bad == 0 && len(failed) == 0 && len(passed) > 0, nil
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
