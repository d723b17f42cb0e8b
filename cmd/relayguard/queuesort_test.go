package main

import (
	"fmt"
	"io"
	"runtime"
	"testing"

	"relayguard/cmd/internal/desk"
)

// countQueued is a writer that keeps nothing.
type countQueued int

func (c *countQueued) message(*desk.Queued) error { *c++; return nil }
func (c *countQueued) end(*desk.QueueEnd) error   { return nil }

// A list of 200,000 that is sorted fits into 100 MB beside the rest of the command.
func TestSortedListKeepsLittleOfEachMessage(t *testing.T) {
	const few, most = 5000, 170 // octets a message
	living := func(messages int) (kept int64) {
		var out countQueued
		s := &queueSorter{to: &out, by: queueOrders["sender"], told: newProgress(io.Discard)}
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		for n := range messages {
			m := someQueued(fmt.Sprintf("%010X", 0xA000000000+n), fmt.Sprintf("bounces+%d@example.jp", n))
			m.Account, m.Error = "login:taro@example.jp", "timed out"
			if err := s.message(&m); err != nil {
				t.Fatal(err)
			}
		}
		kept = heap() - before
		if err := s.end(nil); err != nil || int(out) != messages {
			t.Fatalf("%d of %d messages, %v", out, messages, err)
		}
		return kept
	}
	living(few) // what is made once
	each := (living(4*few) - living(few)) / (3 * few)
	t.Logf("%d octets a message", each)
	if each > most {
		t.Errorf("%d octets of each message are kept, want at most %d", each, most)
	}
}
