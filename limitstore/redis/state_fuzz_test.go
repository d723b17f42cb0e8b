package redis

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"relayguard/policy/limit"
)

var fuzzKey = limit.Key{Limit: "a", Value: "login:taro@example.jp"}

// FuzzState: whatever Redis keeps under a bucket's key is a state that is in
// order and is written as it was read, or an error.
func FuzzState(f *testing.F) {
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for _, s := range []limit.State{
		{Windows: []limit.WindowState{{Length: time.Hour}}},
		{Latched: at, Windows: []limit.WindowState{{Length: time.Hour, Cells: []limit.Cell{{Last: 1, Count: 2}, {Last: 1 << 40, Count: limit.MaxCount}}}, {Length: limit.MaxLength}}, Attempts: []limit.Cell{{Last: 3, Count: 4}}},
		{Windows: []limit.WindowState{{Length: time.Minute}}, Distinct: &limit.DistinctState{Level: 3, Thrown: 7}},
	} {
		f.Add(bucketOf(&s))
	}
	f.Add([]byte(strings.Repeat("\x00", kindAt) + "\x01\x06" + strings.Repeat("\xff", 400)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := stateOf(fuzzKey, string(data), nil)
		if err != nil {
			return
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		again, err := stateOf(fuzzKey, string(bucketOf(s)), nil)
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v is read again as %+v, %v", s, again, err)
		}
	})
}

// FuzzAnswer: whatever is given for an answer is one of that step, or an error.
func FuzzAnswer(f *testing.F) {
	charges := []limit.Charge{
		{Key: fuzzKey, Kind: limit.Volume, Windows: []limit.Window{{Count: 10, Length: time.Hour}, {Count: 20, Length: time.Minute}}, Amount: 1},
		{Key: fuzzKey, Kind: limit.Abuse, Counts: limit.Distinct, Windows: []limit.Window{{Count: 10, Length: time.Hour}}, Items: []limit.Item{1}},
	}
	answer := func(numbers ...int64) (text []byte) {
		for _, n := range numbers {
			text = append56(text, n)
		}
		return text
	}
	f.Add(answer(1, 0, 1, 2, 0, 0, 3, 4))
	f.Add(answer(0, 1, 1, 2, 0, 0, 0, 1, 0, 0, 1, 1000, 7, 3, 4, 1, 0, 1, 2))
	f.Add(answer(2, 1))
	f.Add(answer(2, 3))
	f.Add(append([]byte{hotAnswer}, make([]byte, headSize(2)+headSize(1))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out limit.Outcome
		if err := decode(string(data), charges, false, &out); err != nil {
			return
		}
		if len(out.Uses) != 3 || len(out.Latched) != 2 || len(out.Attempts) != 2 {
			t.Fatalf("%+v", out)
		}
		for _, u := range out.Uses {
			if u.Used < 0 || u.Amount < 0 || u.Never && (!u.Over || !u.FreeAt.IsZero()) || u.Over != (u.Never || !u.FreeAt.IsZero()) {
				t.Fatalf("%+v", u)
			}
		}
	})
}
