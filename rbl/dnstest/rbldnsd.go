package dnstest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Dataset is a file of rbldnsd. Several with the same Zone are one zone.
type Dataset struct {
	Zone  string
	Type  string // "ip4set", "ip6trie", "dnset", "generic", "combined", "acl": see rbldnsd(8)
	Lines string // ":127.0.0.2:why, for $\n192.0.2.1\n"; the SOA is added, but to an acl
}

// RBLDNSD is a real rbldnsd. Safe for concurrent use.
type RBLDNSD struct {
	*Server
	mu   sync.Mutex
	sets []Dataset
}

// StartRBLDNSD starts one that has these zones.
func StartRBLDNSD(t testing.TB, sets ...Dataset) *RBLDNSD {
	t.Helper()
	need(t, available(rbldnsdProgram))
	if len(sets) == 0 {
		t.Fatal("rbldnsd: want at least one dataset")
	}
	r := &RBLDNSD{sets: append([]Dataset(nil), sets...)}
	r.Server = start(t, sets[0].Zone, func(dir string, port int) (*exec.Cmd, error) {
		// -c 0: it looks at its files when it is told to, -q would answer before it has read them.
		args := []string{"-n", "-c", "0", "-t", "60", "-w", dir, "-b", fmt.Sprintf("127.0.0.1/%d", port), "-l", "+queries"}
		files := map[string]string{"queries": ""}
		for i, set := range r.sets {
			files[setFile(i)] = set.text()
			args = append(args, set.Zone+":"+set.Type+":"+setFile(i))
		}
		return exec.Command(rbldnsdProgram, args...), writeFiles(dir, files)
	})
	return r
}

func setFile(i int) string { return fmt.Sprintf("set%d", i) }

func (d Dataset) text() string {
	if d.Type == "acl" {
		return d.Lines + "\n"
	}
	return "$SOA 60 ns.invalid hostmaster.invalid 0 600 300 86400 60\n$NS 60 ns.invalid\n" + d.Lines + "\n"
}

// Set gives the zone's dataset of that type other lines. They hold when it returns.
func (r *RBLDNSD) Set(t testing.TB, zone, kind, lines string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.sets {
		if r.sets[i].Zone != zone || r.sets[i].Type != kind {
			continue
		}
		r.sets[i].Lines = lines
		if err := r.reload(i); err != nil {
			t.Fatalf("rbldnsd: change %s of %s: %v", kind, zone, err)
		}
		return
	}
	t.Fatalf("rbldnsd: no dataset %s of %s", kind, zone)
}

func (r *RBLDNSD) reload(i int) error {
	path := filepath.Join(r.Dir, setFile(i))
	before, err := os.Stat(path)
	if err != nil {
		return err
	}
	seen := strings.Count(r.Output(), reloaded)
	if err := os.WriteFile(path, []byte(r.sets[i].text()), 0o644); err != nil {
		return err
	}
	// It knows a change by the file's time, in whole seconds.
	later := before.ModTime().Add(2 * time.Second)
	if err := os.Chtimes(path, later, later); err != nil {
		return err
	}
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for strings.Count(r.Output(), reloaded) == seen {
		select {
		case <-r.ended:
			return fmt.Errorf("the server ended: %s", r.Output())
		case <-limit.C:
			return fmt.Errorf("it was not read in %v: %s", startLimit, r.Output())
		case <-tick.C:
		}
	}
	return nil
}

const reloaded = "zones reloaded"

// Asked are the names that it was asked for so far, as they came but in lower
// case, with the type: "2.0.0.127.bl.example A".
func (r *RBLDNSD) Asked() []string {
	raw, _ := os.ReadFile(filepath.Join(r.Dir, "queries"))
	var asked []string
	for line := range strings.Lines(string(raw)) {
		// 1700000000 127.0.0.1 2.0.0.127.bl.example A IN: NOERROR/1/65
		if f := strings.Fields(line); len(f) >= 4 {
			asked = append(asked, strings.ToLower(f[2])+" "+f[3])
		}
	}
	return asked
}
