package limittest

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// keeper is the store as one that can be moved.
func keeper(t *testing.T, s limit.Store) limit.Keeper {
	t.Helper()
	k, ok := s.(limit.Keeper)
	if !ok {
		t.Fatalf("%T is no limit.Keeper", s)
	}
	return k
}

// move puts all that one store knows, as it is written down, into another.
func move(t *testing.T, from, to limit.Store) (entries int) {
	t.Helper()
	err := keeper(t, from).Each(t.Context(), func(e limit.Entry) error {
		entries++
		return keeper(t, to).Put(t.Context(), reread(t, e))
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// reread is the entry after it was JSON and, a state, binary.
func reread(t *testing.T, e limit.Entry) (read limit.Entry) {
	t.Helper()
	if err := e.Check(); err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &read); err != nil || !reflect.DeepEqual(read, e) {
		t.Fatalf("%s reads as %+v, %v; want %+v", data, read, err, e)
	}
	if e.State == nil {
		return read
	}
	data, err = e.State.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := limit.State{Key: e.State.Key}
	if err := s.UnmarshalBinary(data); err != nil || !reflect.DeepEqual(s, *e.State) {
		t.Fatalf("%x reads as %+v, %v; want %+v", data, s, err, *e.State)
	}
	return limit.Entry{State: &s}
}

// putReplaces: an entry is set in place of what there is, an empty one forgets.
func putReplaces(t *testing.T, s limit.Store) {
	k, all, w := keeper(t, s), Items(30, 6), window(10, time.Hour)
	d, f := distinct("d", all[:3], w), firstTime("f", all[:3], w)
	mail(t, s, 0, "taro", all[:3], charge("a", 4, w), d, f)
	var was []limit.Entry
	if err := k.Each(t.Context(), func(e limit.Entry) error {
		was = append(was, reread(t, e))
		return nil
	}); err != nil || len(was) != 4 {
		t.Fatalf("%d entries, %v; want three buckets and an account", len(was), err)
	}
	d.Items, f.Items = all[3:], all[3:]
	mail(t, s, time.Minute, "taro", all[3:], charge("a", 20, w), charge("a", 1, w))
	mail(t, s, time.Minute, "taro", all[3:], charge("a", 1, w), d, f)
	for _, e := range was {
		if err := k.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() limit.Outcome {
		t.Helper()
		d.Items, f.Items = all, all
		return mail(t, s, time.Minute, "taro", nil, charge("a", 11, w), d, f)
	}
	out := ask()
	wantUsed(t, out, 4, 3, 3)
	wantAmount(t, out, 11, 3, 3)
	if out.Attempts[0] != 0 {
		t.Errorf("%d attempts, want 0", out.Attempts[0])
	}
	for _, e := range was {
		if e.State != nil {
			e.State = &limit.State{Key: e.State.Key}
		} else {
			e.Known = &limit.KnownState{Account: e.Known.Account}
		}
		if err := k.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Each(t.Context(), func(e limit.Entry) error {
		t.Errorf("still there: %+v", e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	out = ask()
	wantUsed(t, out, 0, 0, 0)
	wantAmount(t, out, 11, 6, 6)
	if err := k.Put(t.Context(), limit.Entry{}); err == nil {
		t.Error("an entry of nothing was put")
	}
}
