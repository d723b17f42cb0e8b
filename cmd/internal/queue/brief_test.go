package queue

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"relayguard/mta"
)

func TestBriefTellsWhereMailWent(t *testing.T) {
	b := newBrief()
	for range 2 {
		got := b.of(mta.QueueFile{ID: "4F3A29", Queue: "deferred", Sender: "a@example.jp", Arrival: then, Size: 12, More: 3, Reason: "refused <x@example.net>", Recipients: []string{"x@example.net", "\"y@z\"@example.net", "root"}})
		if want := []string{"@example.net", "@example.net", "root"}; !slices.Equal(got.Recipients, want) || got.Reason != "" || got.ID != "4F3A29" || got.Sender != "a@example.jp" || got.Size != 12 || got.More != 3 {
			t.Errorf("got %+v, want domains %q", got, want)
		}
	}
}

// The red switch kept 50 recipients of each message that it put on hold.
func TestBriefKeepsLittle(t *testing.T) {
	const n, most = 20_000, 400 // octets a message
	b, all := newBrief(), []mta.QueueFile(nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		q := mta.QueueFile{ID: fmt.Sprintf("4F%06X", i), Queue: strings.Clone("deferred"), Sender: fmt.Sprintf("user%d@example.jp", i%1000), Arrival: then, Reason: fmt.Sprintf("host mx.example.net said: 450 %d", i)}
		for k := range 50 {
			q.Recipients = append(q.Recipients, fmt.Sprintf("recipient%d-%d@example%d.net", i, k, k%7))
		}
		all = append(all, b.of(q))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	kept := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	t.Logf("%d octets a message", kept)
	if kept > most {
		t.Errorf("%d octets of each message are kept, want at most %d", kept, most)
	}
	runtime.KeepAlive(all)
}
