package limit_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// FuzzState: states come from a file, which may be damaged.
func FuzzState(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var s limit.State
		if json.Unmarshal(data, &s) != nil {
			if !reflect.DeepEqual(s, limit.State{}) {
				t.Fatalf("an error, and %+v", s)
			}
			return
		}
		if reflect.DeepEqual(s, limit.State{}) {
			return // null
		}
		m := limit.NewMemory()
		if err := m.Load(s); err != nil {
			t.Fatalf("read, but not loaded: %v", err)
		}
		m.Each(func(back limit.State) {
			written, err := json.Marshal(back)
			if err != nil {
				t.Fatal(err)
			}
			var again limit.State
			if err := json.Unmarshal(written, &again); err != nil || !reflect.DeepEqual(again, back) {
				t.Fatalf("%s reads as %+v, %v; want %+v", written, again, err, back)
			}
			if again.Key != s.Key || !again.Latched.Equal(s.Latched) || len(again.Windows) != len(s.Windows) {
				t.Fatalf("%+v became %+v", s, again)
			}
		})
		use(t, m, s)
	})
}

// use spends from a loaded bucket, with its windows and with others.
func use(t *testing.T, m *limit.Memory, s limit.State) {
	windows := []limit.Window{{Count: 5, Length: time.Minute}, {Count: limit.MaxCount, Length: limit.MaxLength}}
	var own []limit.Window
	for _, w := range s.Windows {
		own = append(own, limit.Window{Count: 3, Length: w.Length})
	}
	for _, windows := range [][]limit.Window{own, windows, windows[:1], own} {
		if len(windows) == 0 {
			continue
		}
		charges := []limit.Charge{{Key: s.Key, Kind: limit.Abuse, Windows: windows, Amount: 2}}
		for _, at := range []time.Time{s.Newest(), s.Newest().Add(time.Second), s.Newest().Add(limit.MaxLength)} {
			peeked, err := m.Peek(t.Context(), at, charges)
			if err != nil {
				t.Fatal(err)
			}
			out, err := m.Spend(t.Context(), at, charges)
			if err != nil || !reflect.DeepEqual(out, peeked) {
				t.Fatalf("%+v, %v; peeked %+v", out, err, peeked)
			}
			for _, u := range out.Uses {
				if u.Used < 0 || !u.FreeAt.IsZero() && u.FreeAt.Before(at) {
					t.Fatalf("%+v", u)
				}
			}
		}
	}
	m.Each(func(s limit.State) {
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	})
}
