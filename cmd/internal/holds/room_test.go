package holds_test

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"relayguard/cmd/internal/holds"
	"relayguard/policy"
)

var _ policy.HoldRoom = (*holds.Room)(nil)

var caps = holds.Caps{OriginMessages: 5, OriginBytes: 1000, ServerMessages: 12}

// take takes until there is no more room.
func take(r *holds.Room, account string, size int64) (n int) {
	for n < 1000 && r.Take(account, size) {
		n++
	}
	return n
}

func TestCaps(t *testing.T) {
	for name, c := range map[string]struct {
		size int64
		want int
	}{
		"by messages":        {1, 5},
		"by octets":          {250, 4},
		"the last is larger": {400, 3},
		"larger than all":    {5000, 1},
		"empty messages":     {0, 5},
	} {
		r := holds.NewRoom(caps)
		if r.Full("login:taro") {
			t.Errorf("%s: an empty room is full", name)
		}
		if n := take(r, "login:taro", c.size); n != c.want || !r.Full("login:taro") {
			t.Errorf("%s: %d are held, want %d", name, n, c.want)
		}
		if got := r.Totals(); got != (holds.Total{Messages: int64(c.want), Bytes: int64(c.want) * c.size}) {
			t.Errorf("%s: %+v", name, got)
		}
		if r.Full("login:hanako") || !r.Take("login:hanako", c.size) {
			t.Errorf("%s: the neighbour has no room", name)
		}
	}
}

func TestServerCap(t *testing.T) {
	r := holds.NewRoom(caps)
	sum := 0
	for i := range 10 {
		sum += take(r, fmt.Sprintf("local_user:site%d", i), 1)
	}
	if sum != 12 || !r.Full("login:nobody yet") {
		t.Errorf("%d are held, want 12", sum)
	}
	r.Give("local_user:site0", 1)
	if r.Full("login:nobody yet") || take(r, "login:other", 1) != 1 {
		t.Error("no room after one was released")
	}
	r.Add("login:other", 1) // an admin held it
	if got := r.Totals(); got.Messages != 13 {
		t.Errorf("%+v", got)
	}
}

func TestGiveNeverGoesBelowZero(t *testing.T) {
	r := holds.NewRoom(caps)
	r.Give("login:taro", 100)
	if r.Totals() != (holds.Total{}) {
		t.Errorf("nothing was held: %+v", r.Totals())
	}
	r.Take("login:hanako", 300)
	r.Take("login:taro", 100)
	r.Give("login:taro", 900) // more than was counted: it is not hanako's
	if got := r.Totals(); got != (holds.Total{Messages: 1, Bytes: 300}) {
		t.Errorf("%+v", got)
	}
	r.Take("login:taro", 100)
	r.Give("login:taro", 10) // less: nothing stays behind
	r.Give("login:taro", 10)
	if got := r.Totals(); got != (holds.Total{Messages: 1, Bytes: 300}) {
		t.Errorf("%+v", got)
	}
	if n := take(r, "login:taro", 200); n != 5 {
		t.Errorf("%d are held, want 5", n)
	}
}

func TestSetPutsCountsRight(t *testing.T) {
	r := holds.NewRoom(caps)
	take(r, "login:taro", 1)
	mine := map[string]holds.Total{"login:hanako": {Messages: 4, Bytes: 10}, "login:odd": {Messages: -3, Bytes: 10}, "login:none": {}}
	r.Set(mine)
	if got := r.Totals(); got != (holds.Total{Messages: 4, Bytes: 10}) || r.Full("login:taro") {
		t.Errorf("%+v", got)
	}
	if take(r, "login:hanako", 1) != 1 || mine["login:hanako"].Messages != 4 {
		t.Errorf("the caller's map is %+v", mine)
	}
	r.Set(nil)
	if r.Totals() != (holds.Total{}) || take(r, "login:hanako", 1) != 5 {
		t.Error("an empty queue leaves no room")
	}
}

func TestSetCaps(t *testing.T) {
	r := holds.NewRoom(caps)
	take(r, "login:taro", 1)
	more := caps
	more.OriginMessages = 7
	r.SetCaps(more)
	if n := take(r, "login:taro", 1); n != 2 {
		t.Errorf("%d more are held, want 2", n)
	}
	r.SetCaps(holds.Caps{OriginMessages: 1, OriginBytes: 1, ServerMessages: 1})
	r.Give("login:taro", 1)
	if !r.Full("login:taro") || r.Take("login:taro", 1) {
		t.Error("over the new cap there is room")
	}
}

func TestDiskWithoutRoomStopsHolds(t *testing.T) {
	dir := t.TempDir()
	r := holds.NewRoom(caps)
	look := func(c holds.Caps) (string, bool) {
		t.Helper()
		c.OriginMessages, c.OriginBytes, c.ServerMessages = caps.OriginMessages, caps.OriginBytes, caps.ServerMessages
		r.SetCaps(c)
		full, changed, err := r.Look(dir)
		if err != nil {
			t.Fatal(err)
		}
		return full, changed
	}
	if full, changed := look(holds.Caps{MinFree: 1}); full != "" || changed || r.Full("x") {
		t.Errorf("%q, %v", full, changed)
	}
	full, changed := look(holds.Caps{MinFree: math.MaxInt64})
	if !strings.Contains(full, dir) || !strings.Contains(full, "hold.min_free") || !changed || !r.Full("x") || r.Take("x", 1) {
		t.Errorf("%q, %v", full, changed)
	}
	if _, changed := look(holds.Caps{MinFree: math.MaxInt64}); changed {
		t.Error("the same again is a change")
	}
	r.Set(nil) // says nothing about the disk
	if !r.Full("x") {
		t.Error("a look at the queue makes room on the disk")
	}
	if _, _, err := r.Look(filepath.Join(dir, "none")); err == nil || !r.Full("x") {
		t.Errorf("%v: a disk that cannot be looked at has room", err)
	}
	if full, changed := look(holds.Caps{MinFree: 1}); full != "" || !changed || !r.Take("x", 1) {
		t.Errorf("%q, %v", full, changed)
	}
	if full, _ := look(holds.Caps{MinFreeInodes: math.MaxInt64}); full == "" {
		t.Log("the file system counts no inodes")
	} else if !strings.Contains(full, "hold.min_free_inodes") || !r.Full("x") {
		t.Errorf("%q", full)
	}
}

func TestOneSiteAtItsCapWhileOthersFlow(t *testing.T) {
	r := holds.NewRoom(holds.Caps{OriginMessages: 50, OriginBytes: math.MaxInt64, ServerMessages: 1000})
	var held, refused, others atomic.Int64
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range 1000 {
				if r.Take("local_user:flood", 10) {
					held.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	for i := range 4 {
		workers.Go(func() {
			account := fmt.Sprintf("local_user:site%d", i)
			for range 1000 {
				if r.Full(account) || !r.Take(account, 10) {
					others.Add(1)
				}
				r.Totals()
				r.Give(account, 10)
			}
		})
	}
	workers.Wait()
	if held.Load() != 50 || refused.Load() != 3950 || others.Load() != 0 {
		t.Errorf("%d held, %d refused, %d of others refused", held.Load(), refused.Load(), others.Load())
	}
	if got := r.Totals(); got != (holds.Total{Messages: 50, Bytes: 500}) {
		t.Errorf("%+v", got)
	}
}

// A sender can write as many texts as he likes; each has room of its own, and all of
// them leave half of the server's to those whose names nobody chooses.
func TestTextsLeaveRoomForOthers(t *testing.T) {
	r := holds.NewRoom(caps)
	sum := 0
	for i := range 10 {
		sum += take(r, fmt.Sprintf("template:%d", i), 1)
	}
	if sum != 6 || !r.Full("template:10") || r.Full("") || take(r, "site:shop.example.jp", 1) != 5 {
		t.Errorf("%d texts are held, want half of 12, and a site has room", sum)
	}
	r.Give("template:0", 1)
	if !r.Take("template:10", 1) || r.Take("template:11", 1) {
		t.Error("the room of one text is not another's")
	}
	r.Set(map[string]holds.Total{"template:0": {Messages: 5}, "template:1": {Messages: 1}})
	if !r.Full("template:2") || r.Full("site:shop.example.jp") {
		t.Error("Set forgets that texts share")
	}
	r.Set(nil)
	if take(r, "template:0", 1) != 5 {
		t.Error("an empty queue leaves no room for texts")
	}
}

// Else each look at the queue gives away as many places over the cap as messages are
// between Take and the journal.
func TestWatchKeepsWhatIsTakenMeanwhile(t *testing.T) {
	r := holds.NewRoom(caps)
	take(r, "login:taro", 1)
	w, other := r.Watch(), r.Watch()
	r.Give("login:taro", 1) // taken before: the look finds out
	if !r.Take("login:taro", 1) || !r.Take("login:hanako", 7) || !r.Take("login:jiro", 7) {
		t.Fatal("no room")
	}
	r.Give("login:jiro", 7)
	r.Add("login:kept", 1) // by an act, which the look sees
	r.Remove("login:kept", 1)
	found := map[string]holds.Total{"login:taro": {Messages: 4, Bytes: 4}}
	w.Set(found)
	if got := r.Totals(); got != (holds.Total{Messages: 6, Bytes: 12}) || !r.Full("login:taro") || len(found) != 1 {
		t.Errorf("%+v, of %+v", got, found)
	}
	w.End() // again
	other.Set(nil)
	if got := r.Totals(); got != (holds.Total{Messages: 2, Bytes: 8}) {
		t.Errorf("another look that began then: %+v", got)
	}
	r.Watch().End()
}
