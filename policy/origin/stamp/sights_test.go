package stamp

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// Sights know what a map would.
func TestSightsAreAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s, want := newSights(), map[use]sight{}
	check := func(u use) {
		t.Helper()
		is, known := want[u]
		if got := s.find(u); (got != nil) != known || known && *got != is {
			t.Fatalf("of %x %v, want %v, %v", u, got, is, known)
		}
	}
	for step := range 200_000 {
		u := use{byte(r.IntN(256)), byte(r.IntN(4 + step/10_000%20))} // more of them, and fewer again
		if _, known := want[u]; known {
			s.remove(u)
			delete(want, u)
		} else {
			is := sight{others: uint8(step)}
			s.put(u, is)
			want[u] = is
		}
		check(u)
		check(use{byte(r.IntN(256)), byte(r.IntN(24))})
		if s.n != len(want) {
			t.Fatalf("%d uses, want %d", s.n, len(want))
		}
	}
	for u := range want {
		check(u)
		s.remove(u)
	}
	if len(s.slots) > 64 {
		t.Errorf("%d slots for nothing", len(s.slots))
	}
}

// A suspended site may send for days: what is remembered of its stamps takes no more
// after a million than after the first that filled the memory.
func TestAFullMemoryGrowsNoMore(t *testing.T) {
	const most = 20_000
	r := NewReplays(most)
	now := time.Unix(1_800_000_000, 0)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, sent := heap(), 0
	for _, full := range []int{2, 10} {
		for ; sent < full*most; sent++ {
			at, u := now.Add(time.Duration(sent)*10*time.Millisecond), use{}
			binary.BigEndian.PutUint64(u[:], uint64(sent))
			if !r.take(at, sighting{scope: "site shop", life: siteLife, time: at.Unix(), uses: []use{u}, digest: [16]byte(append(u[:], 1, 2, 3, 4))}) {
				t.Fatalf("message %d is a replay", sent)
			}
		}
		if took := heap() - before; took > most*UseBytes {
			t.Errorf("after %d stamps %d octets, want at most %d for each of %d", sent, took, UseBytes, most)
		}
	}
	if n := r.Len(); n > most {
		t.Errorf("%d uses are remembered, want at most %d", n, most)
	}
}
