package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"relayguard/limitstore/sqlite"
	"relayguard/policy/limit"
)

// usual is what a message charges: its login, its network and the server.
func usual(n int) *limit.Step {
	step := &limit.Step{}
	for _, c := range []struct{ limit, value string }{{"login-volume", fmt.Sprintf("login:%d@example.jp", n)}, {"network-volume", "network:office"}, {"server-volume", "server"}} {
		step.Charges = append(step.Charges, limit.Charge{Key: limit.Key{Limit: c.limit, Value: c.value}, Kind: limit.Volume, Counts: limit.Recipients, Amount: 1,
			Windows: []limit.Window{{Count: limit.MaxCount, Length: 10 * time.Minute, Burst: true}, {Count: limit.MaxCount, Length: time.Hour}, {Count: limit.MaxCount, Length: 24 * time.Hour}}})
	}
	return step
}

// BenchmarkSpend: what the file costs mail, beside memory alone.
func BenchmarkSpend(b *testing.B) {
	for _, logins := range []int{1000, 20_000} {
		steps := make([]*limit.Step, logins)
		for i := range steps {
			steps[i] = usual(i)
		}
		for name, s := range map[string]limit.Store{"memory": limit.NewMemory(), "sqlite": open(b, sqlite.Options{Path: somewhere(b)})} {
			b.Run(fmt.Sprintf("%s/%d", name, logins), func(b *testing.B) {
				b.ReportAllocs()
				var out limit.Outcome
				for n := 0; b.Loop(); n++ {
					if err := s.Spend(b.Context(), time.Now(), steps[n%logins], &out); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// filled makes a file of so many buckets of three windows.
func filled(b *testing.B, n int) (path string) {
	b.Helper()
	path = somewhere(b)
	s := open(b, sqlite.Options{Path: path, Memory: limit.MemoryOptions{Buckets: 2 * n}})
	now := time.Now()
	for i := range n {
		step := usual(i)
		step.Charges = step.Charges[:1]
		must(b, s.Add(b.Context(), now.Add(-time.Duration(i)*time.Millisecond), step))
	}
	began := time.Now()
	must(b, s.Flush(context.Background()))
	b.Logf("the last of %d buckets written after %s", n, time.Since(began))
	must(b, s.Close())
	return path
}

// processor is the processor time that this process has had.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkOpen reads a million buckets. On two cores that are idle it takes
// about half of the processor time.
func BenchmarkOpen(b *testing.B) {
	const n = 1_000_000
	path := filled(b, n)
	info, err := os.Stat(path)
	must(b, err)
	had, rounds := time.Duration(0), 0
	for b.Loop() {
		runtime.GC() // of the one before
		before := processor(b)
		s, err := sqlite.Open(b.Context(), sqlite.Options{Path: path})
		must(b, err)
		b.StopTimer()
		had, rounds = had+processor(b)-before, rounds+1
		if s.Len() < n*99/100 { // its parts fill up one by one
			b.Errorf("%d of %d buckets were read", s.Len(), n)
		}
		must(b, s.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(info.Size())/(1<<20), "MiB")
	b.ReportMetric(had.Seconds()/float64(rounds), "cpu-s/op")
}

// BenchmarkWrite counts from the changed bucket in memory to the commit, in a
// file of many.
func BenchmarkWrite(b *testing.B) {
	const n, hot = 200_000, 10_000
	s := open(b, sqlite.Options{Path: filled(b, n), Every: time.Hour})
	written := 0
	for b.Loop() {
		b.StopTimer()
		for i := range hot {
			step := usual(i * 7919 % n)
			step.Charges = step.Charges[:1]
			must(b, s.Add(b.Context(), time.Now(), step))
		}
		b.StartTimer()
		must(b, s.Flush(b.Context()))
		written += hot
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(written), "ns/bucket")
}
