package desk_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
)

// full is a message of which every field is set, each to something else: a new field
// must be kept, too.
func full(t *testing.T, n int) desk.Queued {
	t.Helper()
	var m desk.Queued
	fields := reflect.ValueOf(&m).Elem()
	for i := range fields.NumField() {
		switch f := fields.Field(i); f.Interface().(type) {
		case string:
			f.SetString(fmt.Sprintf("%s %d of %d", fields.Type().Field(i).Name, n, i))
		case int, int64:
			f.SetInt(int64(n*1000 + i))
		case time.Time:
			f.Set(reflect.ValueOf(time.UnixMicro(int64(n) * 1_000_001).UTC()))
		case map[string]int:
			f.Set(reflect.ValueOf(map[string]int{fmt.Sprintf("d%d.example.net", n): n + 1, "example.org": 2}))
		default:
			t.Fatalf("a Shelf does not know fields as %s", fields.Type().Field(i).Name)
		}
	}
	return m
}

func TestShelfKeepsEveryField(t *testing.T) {
	var s desk.Shelf
	var want []desk.Queued
	put := func(m desk.Queued) {
		s.Add(&m)
		want = append(want, m)
	}
	for n := range 5000 { // several chunks
		put(full(t, n))
	}
	put(desk.Queued{QueueID: "A1"})
	put(desk.Queued{QueueID: "A1", Recipients: -1, Size: 1 << 60, Domains: map[string]int{}, MailFrom: strings.Repeat("x", 1<<17)}) // longer than a chunk
	moved := full(t, 7)
	moved.Queue = "hold"
	s.Set(7, &moved)
	want[7] = moved
	if s.Len() != len(want) {
		t.Fatalf("%d messages, want %d", s.Len(), len(want))
	}
	for n := range want {
		if got := s.At(n); !reflect.DeepEqual(got, want[n]) {
			t.Fatalf("message %d: got %+v, want %+v", n, got, want[n])
		}
	}
}

func TestShelfBoundsDomains(t *testing.T) {
	s := desk.Shelf{MostDomains: 1000}
	for n := range 100 {
		s.Add(&desk.Queued{Domains: map[string]int{fmt.Sprintf("d%d.example.net", n): 2, "example.org": 3}})
	}
	s.Add(&desk.Queued{Domains: map[string]int{"d0.example.net": 2, "example.org": 3}}) // which is there
	for n, want := range map[int]map[string]int{0: {"d0.example.net": 2, "example.org": 3}, 99: {"": 5}, 100: {"d0.example.net": 2, "example.org": 3}} {
		if got := s.At(n).Domains; !reflect.DeepEqual(got, want) {
			t.Errorf("message %d: got %v, want %v", n, got, want)
		}
	}
}
