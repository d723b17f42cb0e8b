package report_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"relayguard/cmd/internal/report"
)

var update = flag.Bool("update", false, "write the snapshots in testdata anew; look at them before they are committed")

func TestSnapshots(t *testing.T) {
	for name, r := range cases() {
		for _, lang := range report.Languages {
			var text, page bytes.Buffer
			if err := report.Text(&text, r, lang); err != nil {
				t.Fatal(err)
			}
			if err := report.HTML(&page, r, lang); err != nil {
				t.Fatal(err)
			}
			snapshot(t, name+"."+lang+".txt", text.Bytes())
			snapshot(t, name+"."+lang+".html", page.Bytes())
		}
	}
}

func snapshot(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was; if it is better, run with -update", file)
		for i, line := range bytes.Split(got, []byte("\n")) {
			if old := bytes.Split(want, []byte("\n")); i >= len(old) || !bytes.Equal(line, old[i]) {
				t.Logf("first other line, %d: %.300q", i+1, line)
				break
			}
		}
	}
}
