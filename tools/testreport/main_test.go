package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const (
		start = `{"Action":"start","Package":"p"}` + "\n"
		pass  = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
		end   = `{"Action":"pass","Package":"p","Elapsed":1.5}` + "\n"
	)
	for name, c := range map[string]struct {
		in   string
		ok   bool
		says string
	}{
		"all pass":          {start + pass + end, true, "1 passed, 0 failed, 0 skipped"},
		"nothing ran":       {start + end, false, "0 passed"},
		"nothing at all":    {"go: cannot find main module\n", false, "cannot find main module"},
		"one fails":         {start + pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"b_test.go:1: why\n"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestB"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n", false, "why\n"},
		"package fails":     {start + pass + `{"Action":"output","Package":"p","Output":"panic: x\n"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n", false, "panic: x"},
		"build fails":       {start + pass + end + `{"ImportPath":"q","Action":"build-output","Output":"q.go:1: undefined\n"}` + "\n" + `{"ImportPath":"q","Action":"build-fail"}` + "\n", false, "undefined"},
		"one is skipped":    {start + pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: no postfix\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestB"}` + "\n" + end, true, "skipped: p TestB: b_test.go:1: no postfix\n1 passed, 0 failed, 1 skipped"},
		"killed on its way": {start + pass, false, "p began and never ended"},
		"subtests count":    {start + `{"Action":"output","Package":"p","Test":"TestA/x","Output":"=== RUN\n"}` + "\n" + `{"Action":"pass","Package":"p","Test":"TestA/x"}` + "\n" + pass + end, true, "1 passed"},
	} {
		var out strings.Builder
		ok, err := report(strings.NewReader(c.in), &out)
		if ok != c.ok || err != nil || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %v, %v, %q; want %v and %q", name, ok, err, out.String(), c.ok, c.says)
		}
	}
}
