package history_test

import (
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

// A listing on a list that is dead, emptied or parked for 14 days in a row is
// dropped, and nobody is told of an end.
func TestListingOnAListThatIsGoneIsDropped(t *testing.T) {
	gone := []rbl.State{rbl.Dead, rbl.Emptied, rbl.Parked}
	for name, c := range map[string]struct {
		state   func(d int) rbl.State // of the days after it was confirmed
		dropped int                   // on that day; -1: not in 40
	}{
		"dead":              {func(int) rbl.State { return rbl.Dead }, 15},
		"emptied":           {func(int) rbl.State { return rbl.Emptied }, 15},
		"parked":            {func(int) rbl.State { return rbl.Parked }, 15},
		"one after another": {func(d int) rbl.State { return gone[d%3] }, 15},
		"well on one day": {func(d int) rbl.State {
			if d == 10 {
				return rbl.Healthy
			}
			return rbl.Dead
		}, 25},
		"not in a row": {func(d int) rbl.State {
			if d%10 == 0 {
				return rbl.Silent
			}
			return rbl.Dead
		}, -1},
		"silent":   {func(int) rbl.State { return rbl.Silent }, -1},
		"filtered": {func(int) rbl.State { return rbl.Filtered }, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			take(t, s, start.Add(-time.Hour), nil, listed(zone, ours, hit(2)), listed("b.example", ours, hit(2)))
			take(t, s, start, nil, listed(zone, ours, hit(2)), listed("b.example", ours, hit(2)))
			untold(t, s)
			dropped := -1
			for d := 1; d <= 40 && dropped < 0; d++ {
				sick := map[string]rbl.State{}
				if state := c.state(d); state != rbl.Healthy {
					sick[zone] = state
				}
				take(t, s, start.Add(time.Duration(d)*day), sick, listed(zone, ours, hit(2)), listed("b.example", ours, hit(2)))
				l := listings(t, s, history.Query{Zone: zone})[0]
				if l.Phase == history.Dropped {
					dropped = d
				} else if l.Phase != history.Standing {
					t.Fatalf("day %d: %+v", d, l)
				}
			}
			if dropped != c.dropped {
				t.Errorf("dropped on day %d, want %d", dropped, c.dropped)
			}
			if kinds := untold(t, s); slices.Contains(kinds, history.Over) {
				t.Errorf("told: %v", kinds)
			}
			if l := listings(t, s, history.Query{Zone: "b.example"})[0]; l.Phase != history.Standing {
				t.Errorf("of another list: %+v", l)
			}
		})
	}
}

// A clock set back once does not make a list be gone for long.
func TestClockSetBackMakesNoListGoneForLong(t *testing.T) {
	s := open(t, t.TempDir())
	for _, h := range []int{-1, 0} {
		take(t, s, start.Add(time.Duration(h)*time.Hour), nil, listed(zone, ours, hit(2)))
	}
	for _, at := range []time.Time{start.Add(time.Hour), time.Unix(3600, 0), start.Add(2 * time.Hour), start.Add(6 * day), start.Add(12 * day)} {
		take(t, s, at, map[string]rbl.State{zone: rbl.Dead}, unknown(zone, ours))
	}
	if l := listings(t, s, history.Query{})[0]; l.Phase != history.Standing {
		t.Errorf("%+v", l)
	}
}
