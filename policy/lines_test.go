package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// heldMail is a message of taro that waits for buckets, held so many seconds
// after now.
func heldMail(id string, second int, keys ...string) policy.Waiting {
	return heldOf("taro", id, second, keys...)
}

func heldOf(login, id string, second int, keys ...string) policy.Waiting {
	w := policy.Waiting{ID: "d" + id, QueueID: id, HeldAt: now.Add(time.Duration(second) * time.Second), Recipients: 1, Waits: &policy.Waits{Origin: *who(login)}}
	for _, k := range keys {
		w.Waits.Keys = append(w.Waits.Keys, lineKey(k))
	}
	return w
}

// behind is how many messages of taro wait for a bucket.
func behind(l *policy.Lines, name string) int { return l.Behind(lineKey(name), "login:taro") }

func lineKey(name string) limit.Key { return limit.Key{Limit: "hour", Value: name} }

func queueIDs(all []policy.Waiting) string {
	ids := make([]string, len(all))
	for i, w := range all {
		ids[i] = w.QueueID
	}
	return strings.Join(ids, " ")
}

func wantHeads(t *testing.T, l *policy.Lines, at time.Time, want string) {
	t.Helper()
	if got := queueIDs(l.Heads(at)); got != want {
		t.Errorf("heads %q, want %q", got, want)
	}
}

func TestLinesHeads(t *testing.T) {
	for name, c := range map[string]struct {
		add   []policy.Waiting
		heads string // one after the other, as each leaves
	}{
		"the oldest first":                 {[]policy.Waiting{heldMail("C", 3, "a"), heldMail("A", 1, "a"), heldMail("B", 2, "a")}, "A/B/C"},
		"of the same age in one order":     {[]policy.Waiting{heldMail("B", 1, "a"), heldMail("C", 1, "a"), heldMail("A", 1, "a")}, "A/B/C"},
		"lines do not wait for others":     {[]policy.Waiting{heldMail("A", 1, "a"), heldMail("B", 2, "b"), heldMail("C", 3, "a")}, "A B/B C/C"},
		"one that waits for two, first":    {[]policy.Waiting{heldMail("A", 1, "a", "b"), heldMail("B", 2, "a"), heldMail("C", 3, "b")}, "A/B C/C"},
		"one that waits for two, last":     {[]policy.Waiting{heldMail("A", 1, "a"), heldMail("B", 2, "b"), heldMail("C", 3, "a", "b")}, "A B/B/C"},
		"it keeps its place in both":       {[]policy.Waiting{heldMail("A", 1, "a"), heldMail("B", 2, "a", "b"), heldMail("C", 3, "b")}, "A/B/C"},
		"a key that is named twice":        {[]policy.Waiting{heldMail("A", 1, "a", "a"), heldMail("B", 2, "a")}, "A/B"},
		"what waits for nothing":           {[]policy.Waiting{heldMail("A", 1), {QueueID: "B"}}, ""},
		"the same one twice is there once": {[]policy.Waiting{heldMail("A", 1, "a"), heldMail("A", 1, "a")}, "A"},
	} {
		l := policy.NewLines(10)
		for _, w := range c.add {
			l.Add(w)
		}
		var got []string
		for heads := l.Heads(now); len(heads) > 0; heads = l.Heads(now) {
			got = append(got, queueIDs(heads))
			if !l.Remove(heads[0].QueueID, heads[0].ID) || l.Remove(heads[0].QueueID, heads[0].ID) {
				t.Errorf("%s: %s was not there once", name, heads[0].QueueID)
			}
		}
		if strings.Join(got, "/") != c.heads {
			t.Errorf("%s: heads %q, want %q", name, got, c.heads)
		}
		if l.Len() != 0 || len(l.List()) != 0 {
			t.Errorf("%s: %d messages and %d lines are left", name, l.Len(), len(l.List()))
		}
	}
}

func TestLinesBehind(t *testing.T) {
	l := policy.NewLines(3)
	for i, w := range []policy.Waiting{heldMail("A", 1, "a"), heldMail("B", 2, "a", "b"), heldMail("C", 3, "b"), heldMail("D", 4, "b")} {
		if got, want := l.Add(w), i < 3; got != want {
			t.Errorf("%s waits: %t, want %t: there is room for three", w.QueueID, got, want)
		}
	}
	for name, want := range map[string]int{"a": 2, "b": 2, "c": 0} {
		if got := behind(l, name); got != want {
			t.Errorf("%d wait for %s, want %d", got, name, want)
		}
	}
	l.SetMost(4)
	if !l.Add(heldMail("D", 4, "b")) || behind(l, "b") != 3 {
		t.Error("no more room after all")
	}
	if got := queueIDs(l.All()); got != "A B C D" {
		t.Errorf("all: %s", got)
	}
	l.Clear()
	if behind(l, "b") != 0 || len(l.Heads(now)) != 0 {
		t.Error("cleared, and some wait")
	}
}

func TestLinesWaitUntil(t *testing.T) {
	l := policy.NewLines(10)
	for _, w := range []policy.Waiting{heldMail("A", 1, "a", "b"), heldMail("B", 2, "b"), heldMail("C", 3, "c")} {
		l.Add(w)
	}
	l.Later("A", "dA", now.Add(time.Minute))
	l.Later("B", "dB", now.Add(time.Hour)) // it is not its turn: that says nothing
	wantHeads(t, l, now.Add(59*time.Second), "C")
	wantHeads(t, l, now.Add(time.Minute), "C A") // C was never told to wait
	if got := l.List(); len(got) != 3 || got[1].Bucket != lineKey("b") || got[1].Account != "login:taro" || got[1].Waiting != 2 || got[1].Oldest.QueueID != "A" || !got[1].Until.Equal(now.Add(time.Minute)) {
		t.Errorf("lines %+v", got)
	}
	l.Again()
	wantHeads(t, l, now, "C A")
	l.Later("A", "dA", now.Add(time.Minute))
	l.Remove("A", "dA")
	wantHeads(t, l, now, "C B") // what A waited for is not what B waits for
	b := heldMail("", 0, "a", "b", "b")
	if got := queueIDs(l.HeadsOf(now, b.Waits.Lines())); got != "B" {
		t.Errorf("heads of some: %q", got)
	}
	l.Later("B", "dB", now.Add(time.Hour))
	l.Add(heldMail("0", 0, "b")) // restored, say
	wantHeads(t, l, now, "C 0")
}

// Who asks about no more than some each time comes to all of them.
func TestLinesAreAskedInTurn(t *testing.T) {
	l := policy.NewLines(1000)
	for i := range 1000 {
		l.Add(heldMail(fmt.Sprint(i), i, fmt.Sprint("line", i)))
	}
	asked, at := map[string]int{}, now
	for range 30 {
		at = at.Add(time.Second)
		for _, w := range l.Heads(at)[:100] {
			asked[w.QueueID]++
			l.Later(w.QueueID, w.ID, at.Add(time.Second))
		}
	}
	for i := range 1000 {
		if n := asked[fmt.Sprint(i)]; n != 3 {
			t.Fatalf("line %d was asked %d times, want 3", i, n)
		}
	}
}

func TestLinesExpire(t *testing.T) {
	l := policy.NewLines(10)
	for _, w := range []policy.Waiting{heldMail("A", 0, "a", "b"), heldMail("B", 10, "b"), heldMail("C", 20, "a"), heldMail("D", 5, "c")} {
		l.Add(w)
	}
	if gone := l.Expire(now.Add(time.Hour), 0); len(gone) != 0 {
		t.Errorf("%s left, though nothing is too old", queueIDs(gone))
	}
	if got := queueIDs(l.Expire(now.Add(time.Hour), time.Hour-10*time.Second)); got != "A D B" {
		t.Errorf("expired: %s", got)
	}
	wantHeads(t, l, now, "C")
	if behind(l, "b") != 0 || l.Has("A", "dA") || !l.Has("C", "dC") {
		t.Error("what expired blocks")
	}
}

// What one account has waiting under a limit that many share is no other's to
// wait for.
func TestLinesOfAccountsAreTheirOwn(t *testing.T) {
	l := policy.NewLines(1000)
	for i := range 500 {
		l.Add(heldOf("thief", fmt.Sprintf("T%03d", i), i, "server"))
	}
	for name, want := range map[string]int{"login:thief": 500, "login:hanako": 0, "login:taro": 0} {
		if got := l.Behind(lineKey("server"), name); got != want {
			t.Errorf("%s has %d waiting, want %d", name, got, want)
		}
	}
	l.Add(heldOf("hanako", "H", 600, "server", "domain"))
	l.Add(heldOf("taro", "J", 601, "domain", "server"))
	wantHeads(t, l, now, "T000 H J")
	l.Later("T000", "dT000", now.Add(time.Hour)) // halted, say
	wantHeads(t, l, now, "H J")
	list := l.List()
	if len(list) != 5 || list[4].Account != "login:thief" || list[4].Waiting != 500 || list[0].Bucket != lineKey("domain") || list[0].Account != "login:hanako" {
		t.Errorf("lines %+v", list)
	}
}

// Room that accounts share goes round, whoever has more mail waiting and whenever
// it came.
func TestLinesShareRoom(t *testing.T) {
	l, sent, n := policy.NewLines(2000), map[string]int{}, 0
	add := func(login string, second int) {
		n++
		l.Add(heldOf(login, fmt.Sprint(login, "-", n), second, "server"))
	}
	for i := range 500 {
		add("thief", i)
	}
	for i := range 20 {
		add("hanako", 1000+i)
		add("taro", 2000+i)
	}
	add("trickle", 3000) // has one waiting at all times
	at := now
	for range 60 { // each minute there is room for one
		at = at.Add(time.Minute)
		heads := l.Heads(at)
		w := heads[0]
		l.Remove(w.QueueID, w.ID)
		login := w.Waits.Origin.Login.Value
		sent[login]++
		for _, other := range append(heads[1:], l.HeadsOf(at, w.Waits.Lines())...) {
			l.Later(other.QueueID, other.ID, at.Add(time.Minute))
		}
		if login == "trickle" {
			add("trickle", 3000+n)
		}
	}
	for login, n := range sent {
		if n < 14 || n > 16 {
			t.Errorf("%s got %d of 60, want a fourth: %v", login, n, sent)
		}
	}
}

// Against a model: of everything that waits, the heads are those that nothing
// older of the same account waits with.
func TestLinesAgainstAModel(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 4))
		l, model := policy.NewLines(60), []policy.Waiting{}
		for step := range 300 {
			switch {
			case r.IntN(3) > 0 && len(model) < 60:
				var keys []string
				for _, k := range r.Perm(4)[:1+r.IntN(3)] {
					keys = append(keys, fmt.Sprint(k))
				}
				w := heldOf(fmt.Sprint(r.IntN(3)), fmt.Sprint(step), r.IntN(100), keys...)
				model = append(model, w)
				l.Add(w)
			case len(model) > 0:
				i := r.IntN(len(model))
				l.Remove(model[i].QueueID, model[i].ID)
				model = slices.Delete(model, i, i+1)
			}
			slices.SortFunc(model, older)
			taken, behind := map[policy.LineKey]bool{}, map[policy.LineKey]int{}
			var want []policy.Waiting
			for _, w := range model {
				free := true
				for _, k := range w.Waits.Lines() {
					free = free && !taken[k]
					taken[k] = true
					behind[k]++
				}
				if free {
					want = append(want, w)
				}
			}
			heads := l.Heads(now)
			slices.SortFunc(heads, older) // whose turn comes first is another test's
			if got := queueIDs(heads); got != queueIDs(want) {
				t.Fatalf("seed %d, step %d: heads %q, want %q", seed, step, got, queueIDs(want))
			}
			for k, n := range behind {
				if got := l.Behind(k.Bucket, k.Account); got != n {
					t.Fatalf("seed %d, step %d: %d wait in %v, want %d", seed, step, got, k, n)
				}
			}
			if got := len(l.List()); got != len(behind) {
				t.Fatalf("seed %d, step %d: %d lines, want %d", seed, step, got, len(behind))
			}
		}
	}
}

func older(a, b policy.Waiting) int {
	if c := a.HeldAt.Compare(b.HeldAt); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

func TestLinesTogether(t *testing.T) {
	l := policy.NewLines(100)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 200 {
				w := heldMail(fmt.Sprint(i, "-", j), j, fmt.Sprint("line", j%5), fmt.Sprint("line", i))
				l.Add(w)
				behind(l, "line1")
				for _, h := range l.Heads(now) {
					l.Later(h.QueueID, h.ID, now.Add(time.Second))
				}
				l.Again()
				l.Expire(now.Add(150*time.Second), time.Second)
				l.Remove(w.QueueID, w.ID)
			}
		})
	}
	group.Wait()
	if l.Len() != 0 {
		t.Errorf("%d are left", l.Len())
	}
}

func BenchmarkLines(b *testing.B) {
	const most = 20_000
	for _, lines := range []int{1, most} {
		l := policy.NewLines(most)
		for i := range most {
			l.Add(heldMail(fmt.Sprintf("%06d", i), i, fmt.Sprint("line", i%lines)))
		}
		b.Run(fmt.Sprintf("heads/lines=%d", lines), func(b *testing.B) {
			for b.Loop() {
				l.Heads(now)
			}
		})
		b.Run(fmt.Sprintf("behind/lines=%d", lines), func(b *testing.B) {
			for b.Loop() {
				behind(l, "line0")
			}
		})
		b.Run(fmt.Sprintf("out and in/lines=%d", lines), func(b *testing.B) {
			w := heldMail("000000", 0, "line0")
			for b.Loop() {
				l.Remove(w.QueueID, w.ID)
				l.Add(w)
			}
		})
	}
}
