package history_test

import (
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

// believed is what the last looks at a code said: a model of what is to be told,
// written the other way round, from the looks to the events.
type believed struct {
	told    bool      // that it is listed
	differs time.Time // since when all that could be believed says otherwise; zero: it does not
}

// look is one that could be believed.
func (b *believed) look(listed bool, at time.Time) history.EventKind {
	switch {
	case listed == b.told:
		b.differs = time.Time{}
	case b.differs.IsZero():
		b.differs = at
	case at.Sub(b.differs) >= confirm:
		b.told, b.differs = listed, time.Time{}
		if listed {
			return history.Began
		}
		return history.Over
	}
	return ""
}

// Whatever the order of looks, what is told is what two looks that can be believed
// say, Confirm apart and with none in between that says otherwise.
func FuzzLooks(f *testing.F) {
	f.Add([]byte{0x00, 0x21, 0x41, 0x10, 0x20})
	f.Add([]byte{0x00, 0x02, 0x42, 0x82, 0x01, 0x41, 0x81})
	f.Add([]byte("a list that lists and does not"))
	f.Add([]byte{0x30, 0x31, 0x32, 0x33, 0xf0, 0xf1, 0xf2, 0xf3})
	states := rbl.States()
	f.Fuzz(func(t *testing.T, looks []byte) {
		s := open(t, t.TempDir())
		at := start
		models := map[byte]*believed{2: {}, 3: {}}
		for i, look := range looks[:min(len(looks), 40)] {
			at = at.Add(time.Duration(look>>4) * 3 * time.Minute)
			a, sick := says{zone: zone, subject: ours, result: rbl.Clean}, map[string]rbl.State(nil)
			codes := look & 3
			for bit, last := range []byte{2, 3} {
				if codes>>bit&1 == 1 {
					a.result, a.hits = rbl.Listed, append(a.hits, hit(last))
				}
			}
			switch look >> 2 & 3 {
			case 1:
				a.result = rbl.Unknown
			case 2:
				sick = map[string]rbl.State{zone: states[1+i%(len(states)-1)]}
			}
			var want []history.EventKind
			for _, last := range []byte{2, 3} {
				m := models[last]
				if a.result == rbl.Unknown || sick != nil {
					if !m.told && sick[zone] == rbl.Wild {
						m.differs = time.Time{}
					}
					continue
				}
				if kind := m.look(codes>>(last-2)&1 == 1, at); kind != "" {
					want = append(want, kind)
				}
			}
			due, err := s.Due(t.Context(), at)
			must(t, err)
			if len(due) > 0 && i%2 == 1 {
				must(t, s.TakeAgain(t.Context(), due[0].ID, answerOf(at, a), healthOf(at, zone, rbl.IP4, sick)))
			} else {
				take(t, s, at, sick, a)
			}
			var got []history.EventKind
			for _, kind := range untold(t, s) {
				if kind == history.Began || kind == history.Over {
					got = append(got, kind)
				}
			}
			slices.Sort(got) // codes of one look are told in any order
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("look %d at %v (%+v, %v): told %v, want %v", i, at.Sub(start), a, sick, got, want)
			}
			for _, l := range listings(t, s, history.Query{OpenOnly: true}) {
				if waits := l.Phase != history.Standing; waits == l.Due.IsZero() {
					t.Fatalf("look %d: %+v", i, l)
				}
			}
		}
	})
}
