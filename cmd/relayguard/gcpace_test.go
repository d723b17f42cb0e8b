package main

import "testing"

func TestGarbageStaysWithinBounds(t *testing.T) {
	for _, c := range []struct {
		live uint64
		bulk bool
		want int
	}{
		{0, false, 400}, {4 << 20, false, 400}, {10 << 20, false, 400}, {20 << 20, false, 200}, {40 << 20, false, 100}, {500 << 20, false, 100},
		{0, true, 400}, {10 << 20, true, 50}, {20 << 20, true, 25}, {60 << 20, true, 20}, {500 << 20, true, 100},
	} {
		if got := garbagePercent(c.live, c.bulk); got != c.want {
			t.Errorf("beside %d octets %d %%, want %d", c.live, got, c.want)
		}
	}
}
