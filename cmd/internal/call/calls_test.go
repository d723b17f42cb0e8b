package call

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// at is a clock that a test turns.
type at struct{ now time.Time }

func (a *at) clock() time.Time { return a.now }

func TestTokenBelongsToTheFirstMessageThatHasIt(t *testing.T) {
	c := NewCalls(0, time.Now)
	token := c.Add(Call{UID: 1001, Dir: "/srv/shop"})
	first, second := [16]byte{1}, [16]byte{2}
	for n, digest := range [][16]byte{first, first, second, first} {
		got, ok := c.Call(token, digest)
		if ok != (digest == first) || ok && (got.UID != 1001 || got.Dir != "/srv/shop") {
			t.Errorf("%d: got %+v, %v", n, got, ok)
		}
	}
}

func TestOnlyTokensThatWereGivenAreBelieved(t *testing.T) {
	c := NewCalls(0, time.Now)
	token := c.Add(Call{UID: 1001})
	other := c.Add(Call{UID: 1002})
	for _, text := range []string{"", token[:31], token + "0", strings.Repeat("0", 32), strings.Repeat("g", 32), token[:30] + "\r\n"} {
		if got, ok := c.Call(text, [16]byte{1}); ok {
			t.Errorf("%q: got %+v", text, got)
		}
	}
	// Whose it is, is for whoever asks to compare with who sent the message.
	if got, ok := c.Call(other, [16]byte{1}); !ok || got.UID != 1002 {
		t.Errorf("got %+v, %v", got, ok)
	}
}

func TestTokenEndsWithItsTime(t *testing.T) {
	a := &at{time.Unix(1_000_000, 0)}
	c := NewCalls(0, a.clock)
	token := c.Add(Call{UID: 1001})
	a.now = a.now.Add(Lifetime - 1)
	if _, ok := c.Call(token, [16]byte{1}); !ok {
		t.Error("forgotten too early")
	}
	a.now = a.now.Add(1)
	if _, ok := c.Call(token, [16]byte{1}); ok {
		t.Error("believed beyond its time")
	}
	c.Add(Call{UID: 1002})
	if c.Len() != 1 || len(c.ofUID) != 1 {
		t.Errorf("%d remembered, of %d accounts", c.Len(), len(c.ofUID))
	}
}

func TestFloodOfOneAccountLeavesTheOthersCalls(t *testing.T) {
	a := &at{time.Unix(1_000_000, 0)}
	c := NewCalls(100, a.clock)
	shop := c.Add(Call{UID: 1001})
	var last string
	for range 1000 {
		last = c.Add(Call{UID: 6666})
	}
	if _, ok := c.Call(shop, [16]byte{1}); !ok {
		t.Error("the other account's call is forgotten")
	}
	if _, ok := c.Call(last, [16]byte{1}); !ok || c.Len() != 26 {
		t.Errorf("the last call: %v; %d remembered", ok, c.Len())
	}
	for uid := range 1000 {
		c.Add(Call{UID: 10_000 + uid})
	}
	if c.Len() != 100 || c.all.Len() != 100 || len(c.ofUID) != 100 {
		t.Errorf("%d remembered", c.Len())
	}
	if _, ok := c.Call(shop, [16]byte{1}); ok {
		t.Error("the oldest is still there")
	}
}

func TestRacingMessagesOneHasTheToken(t *testing.T) {
	c := NewCalls(0, time.Now)
	token := c.Add(Call{UID: 1001})
	var believed [16]bool
	var all sync.WaitGroup
	for n := range believed {
		all.Go(func() { _, believed[n] = c.Call(token, [16]byte{byte(n + 1)}) })
	}
	all.Wait()
	won := 0
	for _, ok := range believed {
		if ok {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d messages have one token", won)
	}
}
