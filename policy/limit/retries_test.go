package limit_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/policy/limit"
)

const account = "login:taro@example.jp"

var (
	content = [16]byte{1}
	another = [16]byte{2}
)

// keep is a message that goes on its way; it returns how many were charged.
func keep(r *limit.Retries, at time.Time, queueID string, digest [16]byte, rcptTo ...string) int {
	t := r.Begin(at, account, "<1@example.jp>", queueID, digest, rcptTo)
	t.Keep()
	return t.Charged()
}

func TestRetryIsFreeThreeTimes(t *testing.T) {
	r := limit.NewRetries(100)
	for i, want := range []int{2, 0, 0, 0, 2, 2} {
		if got := keep(r, now.Add(time.Duration(i)*time.Hour), fmt.Sprint("Q", i), content, "a@example.org", "b@example.org"); got != want {
			t.Errorf("try %d: %d charged, want %d", i, got, want)
		}
	}
}

func TestRepeatedThousandTimesIsCharged(t *testing.T) {
	r := limit.NewRetries(100)
	charged := 0
	for i := range 1000 {
		charged += keep(r, now.Add(time.Duration(i)*time.Second), fmt.Sprint("Q", i), content, "a@example.org")
	}
	if charged != 997 {
		t.Errorf("%d of 1000 charged, want 997", charged)
	}
}

func TestRepeatedWhenQueuedIsAlwaysCharged(t *testing.T) {
	r := limit.NewRetries(100)
	for i := range 100 {
		queueID := fmt.Sprint("Q", i)
		if got := keep(r, now, queueID, content, "a@example.org"); got != 1 {
			t.Fatalf("try %d was free", i)
		}
		r.Queued(queueID)
	}
	// The second try was free, and it is that which got queued.
	keep(r, now, "R0", content, "b@example.org")
	if got := keep(r, now, "R1", content, "b@example.org"); got != 0 {
		t.Fatal("not free")
	}
	r.Queued("R1")
	r.Queued("unknown")
	if got := keep(r, now, "R2", content, "b@example.org"); got != 1 {
		t.Error("free after it was queued")
	}
}

func TestOnlyDeferredRecipientsComeBack(t *testing.T) {
	r := limit.NewRetries(100)
	keep(r, now, "Q1", content, "a@example.org", "b@example.org")
	r.Queued("Q1")
	try := r.Begin(now, account, "<1@example.jp>", "Q2", content, []string{"c@example.org"})
	if try.Charged() != 1 {
		t.Error("a recipient that was never charged is free")
	}
	try.Keep()
	try = r.Begin(now, account, "<1@example.jp>", "Q3", content, []string{"a@example.org", "c@example.org", "d@example.org"})
	if !slices.Equal(try.Free, []bool{false, true, false}) {
		t.Errorf("free: %v", try.Free)
	}
}

func TestWhatIsNoRetry(t *testing.T) {
	type args struct {
		account, messageID, queueID, rcpt string
		content                           [16]byte
		after                             time.Duration
	}
	first := args{account, "<1@example.jp>", "Q1", "a@example.org", content, 0}
	for name, c := range map[string]struct {
		change func(*args)
		free   bool
	}{
		"the same":                   {func(*args) {}, true},
		"after 24 h":                 {func(a *args) { a.after = 24 * time.Hour }, true},
		"after more than 24 h":       {func(a *args) { a.after = 24*time.Hour + time.Microsecond }, false},
		"clock jumped back":          {func(a *args) { a.after = -time.Hour }, true},
		"another account":            {func(a *args) { a.account = "login:hanako@example.jp" }, false},
		"another Message-ID":         {func(a *args) { a.messageID = "<2@example.jp>" }, false},
		"another recipient":          {func(a *args) { a.rcpt = "b@example.org" }, false},
		"another content":            {func(a *args) { a.content = another }, false},
		"no queue id":                {func(a *args) { a.queueID = "" }, false},
		"account and id shifted":     {func(a *args) { a.account, a.messageID = account+"<", "1@example.jp>" }, false},
		"id and recipient shifted":   {func(a *args) { a.messageID, a.rcpt = "<1@example.jp>a", "@example.org" }, false},
		"content that is not text":   {func(a *args) { a.content = [16]byte{0: 1, 15: 1} }, false},
		"recipient in another case?": {func(a *args) { a.rcpt = "A@example.org" }, false}, // the caller's to decide
	} {
		r := limit.NewRetries(100)
		r.Begin(now, first.account, first.messageID, first.queueID, first.content, []string{first.rcpt}).Keep()
		a := first
		a.queueID = "Q2"
		c.change(&a)
		if try := r.Begin(now.Add(a.after), a.account, a.messageID, a.queueID, a.content, []string{a.rcpt}); try.Free[0] != c.free {
			t.Errorf("%s: free %t, want %t", name, try.Free[0], c.free)
		}
	}
	for name, a := range map[string]args{"no Message-ID": {account, "", "Q", "a", content, 0}, "no account": {"", "<1>", "Q", "a", content, 0}, "no queue id": {account, "<1>", "", "a", content, 0}} {
		r := limit.NewRetries(100)
		for range 5 {
			try := r.Begin(now, a.account, a.messageID, a.queueID, a.content, []string{a.rcpt})
			if try.Charged() != 1 {
				t.Errorf("%s: free", name)
			}
			try.Keep()
		}
		if r.Len() != 0 {
			t.Errorf("%s: remembered", name)
		}
	}
}

// Else one would send a first message, and then another under its name.
func TestChangedContentEndsFreeTries(t *testing.T) {
	r := limit.NewRetries(100)
	for i, digest := range [][16]byte{content, another, content, another} {
		if got := keep(r, now, fmt.Sprint("Q", i), digest, "a@example.org"); got != 1 {
			t.Errorf("try %d was free", i)
		}
	}
}

func TestAfterTheTermItBeginsAgain(t *testing.T) {
	r := limit.NewRetries(100)
	for day := range 3 {
		for i, want := range []int{1, 0, 0, 0, 1} {
			at := now.Add(time.Duration(day)*25*time.Hour + time.Duration(i)*time.Minute)
			if got := keep(r, at, fmt.Sprint("Q", day, i), content, "a@example.org"); got != want {
				t.Errorf("day %d, try %d: %d charged, want %d", day, i, got, want)
			}
		}
	}
	if r.Len() != 1 {
		t.Errorf("%d units, want 1", r.Len())
	}
}

func TestStoppedTryDoesNotCount(t *testing.T) {
	r := limit.NewRetries(100)
	begin := func(queueID string) *limit.Try {
		return r.Begin(now, account, "<1@example.jp>", queueID, content, []string{"a@example.org"})
	}
	begin("Q0").Cancel()
	if r.Len() != 0 || begin("Q1").Charged() != 1 {
		t.Fatal("what was stopped was not charged, so a repeat is not free")
	}
	begin("Q2").Keep()
	for i := range 10 {
		try := begin(fmt.Sprint("R", i))
		if try.Charged() != 0 {
			t.Fatalf("try %d after stopped ones is charged", i)
		}
		try.Cancel()
		try.Cancel()
		try.Keep() // after Cancel they do nothing
		r.Queued(fmt.Sprint("R", i))
	}
	for i, want := range []int{0, 0, 0, 1} {
		try := begin(fmt.Sprint("S", i))
		try.Keep()
		try.Cancel()
		if try.Charged() != want {
			t.Errorf("try %d: %d charged, want %d", i, try.Charged(), want)
		}
	}
}

func TestRacingRepeatsShareThreeTries(t *testing.T) {
	r := limit.NewRetries(100)
	keep(r, now, "Q", content, "a@example.org")
	var free atomic.Int64
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for j := range 4 {
				try := r.Begin(now, account, "<1@example.jp>", fmt.Sprint("Q", i, ".", j), content, []string{"a@example.org"})
				free.Add(int64(1 - try.Charged()))
				try.Keep()
			}
		})
	}
	all.Wait()
	if free.Load() != 3 {
		t.Errorf("%d were free, want 3", free.Load())
	}
}

func TestRacingFirstTriesAreAllCharged(t *testing.T) {
	r := limit.NewRetries(100)
	var tries []*limit.Try
	for i := range 64 {
		try := r.Begin(now, account, "<1@example.jp>", fmt.Sprint("Q", i), content, []string{"a@example.org"})
		if try.Charged() != 1 {
			t.Fatal("free before anything was charged")
		}
		tries = append(tries, try)
	}
	for _, try := range tries {
		try.Keep()
	}
	if got := keep(r, now, "R", content, "a@example.org"); got != 1 {
		t.Error("64 copies, and one more for free")
	}
}

func TestSameRecipientTwice(t *testing.T) {
	r := limit.NewRetries(100)
	for i, want := range []int{2, 0, 2} {
		if got := keep(r, now, fmt.Sprint("Q", i), content, "a@example.org", "a@example.org"); got != want {
			t.Errorf("try %d: %d charged, want %d", i, got, want)
		}
	}
}

func TestRetriesAreBoundedAndTheOldestAreForgotten(t *testing.T) {
	const most = 50
	r := limit.NewRetries(most)
	rcpt := func(i int) string { return fmt.Sprintf("rcpt%d@example.org", i) }
	for i := range 1000 {
		keep(r, now, fmt.Sprint("Q", i), content, rcpt(i))
		if r.Len() > most {
			t.Fatalf("%d units, want at most %d", r.Len(), most)
		}
	}
	if got := keep(r, now, "R1", content, rcpt(999-most+1)); got != 0 {
		t.Error("the last fifty are not remembered")
	}
	if got := keep(r, now, "R2", content, rcpt(999-most)); got != 1 {
		t.Error("an older one is remembered")
	}
	r.Queued("Q0") // of a unit that was forgotten
	var many []string
	for i := range 3 * most {
		many = append(many, rcpt(i))
	}
	keep(r, now, "R3", content, many...)
	if r.Len() != most {
		t.Errorf("%d units, want %d", r.Len(), most)
	}
}
