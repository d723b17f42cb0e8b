package postfix

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
)

// notOurs are settings that only a running program has.
var notOurs = []string{"process_id", "process_name"}

// TestOfflineReadsWhatPostconfPrints holds our own reader of main.cf and
// master.cf, with its expansions and defaults, to the real postconf(1).
func TestOfflineReadsWhatPostconfPrints(t *testing.T) {
	postfixtest.Need(t)
	dirs, err := filepath.Glob("testdata/configs/*")
	if err != nil || len(dirs) < 6 {
		t.Fatalf("configurations: %d found, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			copied := copyConfig(t, dir)
			live, _ := load(t.Context(), host(t, true), copied, "")
			offline, _ := load(t.Context(), host(t, false), copied, "")
			for _, g := range append(live.gaps, offline.gaps...) {
				t.Errorf("gap %s: %s", g.Source, g.Why)
			}
			sameValues(t, "main.cf", live.values, offline.values)
			if len(live.services) != len(offline.services) {
				t.Fatalf("services: postconf has %d, we %d", len(live.services), len(offline.services))
			}
			for n := range live.services {
				sameService(t, &live.services[n], &offline.services[n])
			}
		})
	}
}

func sameService(t *testing.T, live, offline *service) {
	t.Helper()
	if live.id() != offline.id() || live.command != offline.command || live.chroot != offline.chroot || live.line != offline.line || !slices.Equal(live.args, offline.args) {
		t.Errorf("service: postconf says %+v, we %+v", live, offline)
	}
	for _, name := range sortedKeys(live.overrides) {
		if squeeze(live.overrides[name]) != squeeze(offline.overrides[name]) {
			t.Errorf("%s -o %s: postconf says %q, we %q", live.id(), name, live.overrides[name], offline.overrides[name])
		}
	}
	if len(live.overrides) != len(offline.overrides) {
		t.Errorf("%s: postconf says %v, we %v", live.id(), live.overrides, offline.overrides)
	}
	if live.settings != nil {
		sameValues(t, live.id(), live.settings, offline.settings)
	}
}

func sameValues(t *testing.T, where string, live, offline map[string]string) {
	t.Helper()
	if len(live) < 800 {
		t.Errorf("%s: postconf printed %d settings only", where, len(live))
	}
	for _, name := range sortedKeys(live) {
		if slices.Contains(notOurs, name) {
			continue
		}
		ours, known := offline[name]
		if !known && isDerived(name) {
			continue
		}
		if squeeze(ours) != squeeze(live[name]) {
			t.Errorf("%s: %s: postconf says %q, we %q", where, name, live[name], ours)
		}
	}
}

// isDerived reports settings that postconf makes up for each transport of
// master.cf: numbers and times.
func isDerived(name string) bool {
	for _, part := range []string{"_delivery_slot_", "_destination_", "_recipient_", "_minimum_delivery_slots", "_initial_destination_concurrency", "_transport_rate_delay", "_time_limit"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// squeeze makes one blank of all white space: postconf -x does.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func copyConfig(t *testing.T, dir string) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	age(t, copied)
	return copied
}
