package redis_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
)

// Within a slot a step reads and writes the heads of its buckets, and no more;
// and what it answers is what the buckets have.
func TestHotStepsNeedHeadsOnly(t *testing.T) {
	r := redistest.Server(t)
	for windows := 1; windows <= limit.MaxWindows; windows++ {
		t.Run(fmt.Sprint(windows, " windows"), func(t *testing.T) {
			s := open(t, r)
			step := &limit.Step{}
			for _, key := range []string{"a", "b"} {
				c := charge(fmt.Sprint(key, windows), 2)
				c.Windows = nil
				for i := range windows {
					c.Windows = append(c.Windows, limit.Window{Count: 100, Length: time.Duration(i+1) * time.Hour})
				}
				step.Charges = append(step.Charges, c)
			}
			var first, out, again limit.Outcome
			spend := func(id string, out *limit.Outcome) {
				step.ID = id
				if err := s.Spend(t.Context(), now, step, out); err != nil {
					t.Fatal(err)
				}
			}
			spend("", &first)
			if err := s.Client().ConfigResetStat(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				spend(fmt.Sprint("id", windows, i), &out)
			}
			stats, err := s.Client().Info(t.Context(), "commandstats").Result()
			if err != nil || strings.Contains(stats, "cmdstat_get:") || !strings.Contains(stats, "cmdstat_getrange:calls=6,") || !strings.Contains(stats, "cmdstat_setrange:calls=6,") {
				t.Errorf("%v, %s", err, stats)
			}
			spend(fmt.Sprint("id", windows, 2), &again)
			if !reflect.DeepEqual(again, out) {
				t.Errorf("the repeat is told %+v, the first %+v", again, out)
			}
			for _, u := range out.Uses {
				if !out.Taken || u.Used != 6 || u.Amount != 2 || u.Over {
					t.Errorf("%+v, want 6 used", u)
				}
			}
			for i := range step.Charges { // other limits: the same amounts, another answer
				step.Charges[i].Windows[0].Count = 9
			}
			if spend("", &out); out.Taken || out.Uses[0].Used != 8 || !out.Uses[0].Over {
				t.Errorf("%+v, want 8 of 9 used", out.Uses[0])
			}
		})
	}
}

// What is under a bucket's key without being one stops its own steps only.
func TestForeignKeyStopsNobodyElse(t *testing.T) {
	s := open(t, redistest.Server(t))
	c := charge("a", 1)
	key := "{relayguard}:b:1:a" + c.Key.Value
	if err := s.Client().RPush(t.Context(), key, "x").Err(); err != nil {
		t.Fatal(err)
	}
	var out limit.Outcome
	if err := s.Spend(t.Context(), now, &limit.Step{Charges: []limit.Charge{c}}, &out); err == nil || !strings.Contains(err.Error(), "reset it") {
		t.Errorf("got %v", err)
	}
	take(t, s, charge("b", 1))
	if err := s.Reset(t.Context(), now, c.Key); err != nil {
		t.Fatal(err)
	}
	take(t, s, c)
}
