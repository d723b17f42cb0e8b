package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/policy/limit"
)

func TestTrafficIsOfOneSenderAStep(t *testing.T) {
	const buckets = 120
	seen := map[limit.Key]bool{}
	for _, size := range stepSizes {
		traffic := newTraffic(500, size, buckets, rawKey)
		for i, step := range traffic.steps {
			if len(step.Charges) != size || step.Check() != nil {
				t.Fatalf("step %d of %d buckets: %v, %v", i, size, step, step.Check())
			}
			limits := map[string]bool{}
			for j, c := range step.Charges {
				limits[c.Key.Limit], seen[c.Key] = true, true
				if traffic.raw[i][j] != c.Key.Limit+"/"+c.Key.Value {
					t.Errorf("raw key %q of bucket %q", traffic.raw[i][j], c.Key)
				}
			}
			if len(limits) != size {
				t.Errorf("step of %d buckets under %d limits", size, len(limits))
			}
		}
	}
	if len(seen) != buckets {
		t.Errorf("%d buckets were drawn, want all %d", len(seen), buckets)
	}
}

func TestFilledBucketsCount(t *testing.T) {
	m, err := fill(t.Context(), 6, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var out limit.Outcome
	if err := m.Peek(t.Context(), time.Now(), &limit.Step{Charges: []limit.Charge{chargeOf(3)}}, &out); err != nil {
		t.Fatal(err)
	}
	for _, u := range out.Uses {
		if u.Used != 8 { // two cells of 1 + 3
			t.Errorf("%v of %d, want 8", u.Window, u.Used)
		}
	}
}

func TestShardedMapCounts(t *testing.T) {
	m := newShardedMap(10)
	work := m.counting(&traffic{raw: [][]string{{rawKey(keyOf(1)), "another"}}})()
	if err := errors.Join(work(0), work(1)); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for i := range m.shards {
		for key, c := range m.shards[i].of {
			got[key] = c.count
		}
	}
	if len(got) != 11 || got["another"] != 2 || got[rawKey(keyOf(1))] != 3 || got[rawKey(keyOf(2))] != 1 {
		t.Errorf("counts %v", got)
	}
}

func TestDriveDoesEveryStepOnce(t *testing.T) {
	var done [1 << 20]atomic.Bool
	var steps atomic.Int64
	p, err := drive(4, time.Millisecond, 8, func() worker {
		return func(i int) error {
			if i < len(done) && done[i].Swap(true) {
				t.Errorf("step %d was done twice", i)
			}
			steps.Add(1)
			return nil
		}
	})
	if err != nil || p.perSecond <= 0 || steps.Load()%8 != 0 {
		t.Errorf("%+v, %v, %d steps", p, err, steps.Load())
	}
	if _, err := drive(2, time.Millisecond, 8, func() worker { return func(int) error { return errors.ErrUnsupported } }); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a worker's error became %v", err)
	}
}

func TestStandingsFitAndNameTheirReference(t *testing.T) {
	all := []standing{
		{"memory/6x64", theMap, []pace{{123456.7, 12500 * time.Microsecond}}, []pace{{246913.4, time.Microsecond}}, &goal{0.4, true, true}},
		{"sqlite/3x16", theMemory, []pace{{250_000, time.Microsecond}}, []pace{{1_000_000, time.Microsecond}}, &goal{2, false, false}},
	}
	var out bytes.Buffer
	printStandings(&out, all)
	lines := slices.Collect(strings.Lines(out.String()))
	for _, line := range lines {
		if len(line) > 80 {
			t.Errorf("line of %d columns: %s", len(line)-1, line)
		}
	}
	for i, want := range []string{
		"memory/6x64 123500 sharded-map 246900 0.50x >=0.4x yes 12500 1",
		"sqlite/3x16 250000 memory 1000000 +3.00us <=2 no 1 1",
	} {
		if got := strings.Join(strings.Fields(lines[len(lines)-2+i]), " "); got != want {
			t.Errorf("row %q, want %q", got, want)
		}
	}
	names := map[string]float64{}
	for _, s := range all {
		for _, r := range s.results() {
			names[r.Name] = r.Value
		}
	}
	if names["limits/memory/6x64/steps_per_s/sharded-map"] != 246900 || names["limits/sqlite/3x16/added"] != 3 || len(names) != 9 {
		t.Errorf("results %v", names)
	}
}
