package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"relayguard/mta/postfix/postfixtest"
)

// What is measured finds all that is planted, and sees every change.
func TestForwardScanFindsWhatIsPlanted(t *testing.T) {
	postfixtest.Need(t)
	sizes := forwardSizes{aliases: 2000, scripts: 200, homes: 400, forwards: 200}
	root := filepath.Join(t.TempDir(), "forward")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := root; dir != os.TempDir(); dir = filepath.Dir(dir) { // accounts of others come as far as their homes
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := plantForwards(t.Context(), root, sizes); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{asCopied, asLive} {
		var out bytes.Buffer
		if err := serveForwardScan(root, how, &out); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		var r forwardReport
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if err := r.complete(sizes); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		for _, kind := range []string{"home", "sieve", "aliases"} {
			if len(r.Changes[kind]) != changesEach {
				t.Errorf("%s: %d changes of %s", how, len(r.Changes[kind]), kind)
			}
		}
		if r.Peak <= 0 || r.PeakAgain < r.Peak || r.Seconds <= 0 {
			t.Errorf("%s: %+v", how, r)
		}
	}
}
