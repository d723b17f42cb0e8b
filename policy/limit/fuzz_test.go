package limit_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
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
		use(t, put(t, limit.Entry{State: &s}), s)
	})
}

// put is a memory of one entry, which must come out as it went in.
func put(t *testing.T, e limit.Entry) *limit.Memory {
	t.Helper()
	m := limit.NewMemory()
	if err := m.Put(t.Context(), e); err != nil {
		t.Fatalf("read, but not put: %v", err)
	}
	if err := m.Each(t.Context(), func(back limit.Entry) error {
		was, _ := json.Marshal(e)
		is, err := json.Marshal(back)
		if err != nil || !bytes.Equal(was, is) {
			t.Fatalf("%s became %s, %v", was, is, err)
		}
		var again limit.Entry
		if err := json.Unmarshal(is, &again); err != nil || !reflect.DeepEqual(again, back) {
			t.Fatalf("%s reads as %+v, %v; want %+v", is, again, err, back)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

// FuzzEntry: entries come from a file that an admin hands us.
func FuzzEntry(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var e limit.Entry
		if json.Unmarshal(data, &e) != nil {
			if e != (limit.Entry{}) {
				t.Fatalf("an error, and %+v", e)
			}
			return
		}
		if e == (limit.Entry{}) {
			return // null
		}
		m := put(t, e)
		if e.State != nil {
			use(t, m, *e.State)
			return
		}
		for _, k := range e.Known.Items {
			c := bucket(1, limit.Abuse, 0)
			c.Counts, c.Items = limit.FirstTime, []limit.Item{k.Item}
			var out limit.Outcome
			if err := m.Spend(t.Context(), time.UnixMicro(k.Last), &limit.Step{Charges: []limit.Charge{c}, Known: limit.Known{Account: e.Known.Account, Items: limittest.Items(1, 3)}}, &out); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzBinary: so do states that a store keeps.
func FuzzBinary(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		s := limit.State{Key: limit.Key{Limit: "l", Value: "login:taro@example.jp"}}
		if s.UnmarshalBinary(data) != nil {
			return
		}
		written, err := s.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		again := limit.State{Key: s.Key}
		if err := again.UnmarshalBinary(written); err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%x reads as %+v, %v; want %+v", written, again, err, s)
		}
		use(t, put(t, limit.Entry{State: &s}), s)
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
		if s.Distinct != nil {
			charges[0].Counts, charges[0].Items = limit.Distinct, limittest.Items(1, 2)
		}
		for _, at := range []time.Time{s.Newest(), s.Newest().Add(time.Second), s.Newest().Add(limit.MaxLength)} {
			peeked, err := limittest.Peek(t.Context(), m, at, charges)
			if err != nil {
				t.Fatal(err)
			}
			out, err := limittest.Spend(t.Context(), m, at, charges)
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
	for _, s := range states(t, m) {
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	}
}
