package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/incident"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

// manyBegan are listings of as many addresses, the last of them the worst.
func manyBegan(n int) (all []history.Event) {
	for i := range n {
		e := anEvent(history.Began, rbl.Medium, rbl.ScopeAddress)
		e.ID, e.Listing.Subject = int64(i+1), rbl.Subject{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})}
		all = append(all, e)
	}
	all[n-1].Listing.Hit.Severity = rbl.Critical
	return all
}

// Alerts of mail's abuse have their number for the hour, whatever is listed.
func TestListingsOfOneMomentAreOneAlert(t *testing.T) {
	webhook, alerts := alertsTo(t)
	s := watchingState(t, "", func(c *config.Config) { c.Alert.Webhook = webhook })
	events := manyBegan(40)
	for i := range 40 {
		over := anEvent(history.Over, rbl.High, rbl.ScopeAddress)
		over.ID = int64(100 + i)
		events = append(events, over)
		for _, kind := range []rbl.Kind{rbl.IP4, rbl.IP6} {
			events = append(events, history.Event{ID: int64(200 + 2*i + int(kind)), Kind: history.ZoneBad, At: noon, Health: &rbl.Health{Zone: fmt.Sprintf("z%d.example", i), Kind: kind, State: rbl.Wild, Why: "why"}})
		}
	}
	must(t, s.blocklists.tell(t.Context(), events))
	got := alerts.String()
	if n := strings.Count(got, `"alert"`); n != 3 {
		t.Errorf("%d alerts: %s", n, got)
	}
	for _, part := range []string{
		"40 of our addresses are listed, worst first: 203.0.113.39 by bl.example (means 2), 203.0.113.0 by bl.example (means 2), 203.0.113.1 by bl.example (means 2) and 37 more; see relayguard rbl status",
		"40 listings of 203.0.113.5 are over", "what 40 blocklists say is not believed until they are well again: z0.example is wild: why, ",
	} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in %s", part, got)
		}
	}
	for i := range 40 {
		if addr := fmt.Sprintf(`"subject":"203.0.113.%d"`, i); !strings.Contains(got, addr) {
			t.Errorf("programs are not told of %s", addr)
		}
	}
}

func TestTextsOfAlertsOfListingsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 250)
	for _, kind := range []history.EventKind{history.Began, history.Over, history.ZoneBad} {
		for _, n := range []int{2, 9} {
			var events []history.Event
			for i := range n {
				e := anEvent(kind, rbl.High, rbl.ScopeDomain)
				e.Listing.Subject, e.Listing.Zone, e.Listing.Hit.Means = rbl.Subject{Name: fmt.Sprint(i) + long}, long, long
				if kind == history.ZoneBad {
					e.Listing, e.Health = nil, &rbl.Health{Zone: fmt.Sprint(i) + long, State: rbl.Wild, Why: long}
				}
				events = append(events, e)
			}
			all := listingAlerts(events, rbl.Info)
			if len(all) != 1 || len(all[0].text) > 700 || !strings.HasSuffix(all[0].text, "; see relayguard rbl status") {
				t.Errorf("%s: %+v", kind, all)
			}
		}
	}
}

func TestSeveralListingsOfOneAddressSayEach(t *testing.T) {
	other := anEvent(history.Began, rbl.Critical, rbl.ScopeAddress)
	other.Listing.Hit = hit(3, rbl.Critical, rbl.ScopeAddress)
	all := listingAlerts([]history.Event{anEvent(history.Began, rbl.High, rbl.ScopeAddress), other}, rbl.Medium)
	if len(all) != 1 || all[0].text != "203.0.113.5 is listed for 2 reasons, worst first: 203.0.113.5 by bl.example (means 3), 203.0.113.5 by bl.example (means 2); see relayguard rbl status" {
		t.Errorf("%+v", all)
	}
}

func TestEndOfAListingSaysFromWhenUntilWhenItWas(t *testing.T) {
	over := anEvent(history.Over, rbl.High, rbl.ScopeAddress)
	over.Listing.Ended = noon.Add(26 * time.Hour)
	want := fmt.Sprintf("203.0.113.5 is no longer listed by bl.example (means 2); it was from %s until %s", localTime(noon), localTime(noon.Add(26*time.Hour)))
	if all := listingAlerts([]history.Event{over}, rbl.Medium); len(all) != 1 || all[0].text != want || localTime(noon) == localTime(over.Listing.Ended) {
		t.Errorf("%+v, want %q", all, want)
	}
}

// What channels have in memory is lost with the process: an event counts as told only
// once one has delivered it, and it is not sent twice while it waits.
func TestListingIsToldOnceAChannelDelivered(t *testing.T) {
	var asked atomic.Int32
	answer := make(chan int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case code := <-answer:
			w.WriteHeader(code)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	s := watchingState(t, "", func(c *config.Config) { c.Alert.Webhook = server.URL })
	b, events := s.blocklists, manyBegan(3)
	soon, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 { // nobody has answered yet
		if err := b.tell(soon, events); !errors.Is(err, errTelling) {
			t.Fatalf("%v", err)
		}
	}
	answer <- http.StatusNoContent
	must(t, b.tell(t.Context(), events))
	if n := asked.Load(); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

// deafChannel delivers nothing.
type deafChannel struct{ tries atomic.Int32 }

func (*deafChannel) Name() string { return "deaf" }

func (d *deafChannel) Deliver(context.Context, incident.Alert) error {
	d.tries.Add(1)
	return errors.New("nobody hears")
}

func TestListingThatNoChannelCouldDeliverIsSentAgain(t *testing.T) {
	s := watchingState(t, "tighten = \"off\"\n", nil)
	b, events := s.blocklists, manyBegan(1)
	first := s.channels
	t.Cleanup(func() { s.channels = first })
	synctest.Test(t, func(t *testing.T) {
		deaf := &deafChannel{}
		s.channels = incident.NewChannels(incident.ChannelsOptions{}, deaf)
		defer s.channels.Close()
		begun := time.Now()
		untold := 0
		for deaf.tries.Load() < 6 && time.Since(begun) < 24*time.Hour {
			err := b.tell(t.Context(), events)
			if err == nil {
				t.Fatal("told though nobody heard it")
			}
			if errors.Is(err, errUntold) {
				untold++
			}
			time.Sleep(time.Minute)
		}
		if deaf.tries.Load() < 6 || untold == 0 {
			t.Errorf("%d tries, given up %d times", deaf.tries.Load(), untold)
		}
	})
}

// Review: a channel that delivers and then says that it did not was told for ever.
func TestListingThatNobodyTakesIsGivenUp(t *testing.T) {
	s := watchingState(t, "tighten = \"off\"\n", nil)
	b, events := s.blocklists, manyBegan(1)
	first := s.channels
	t.Cleanup(func() { s.channels = first })
	synctest.Test(t, func(t *testing.T) {
		deaf := &deafChannel{}
		s.channels = incident.NewChannels(incident.ChannelsOptions{}, deaf)
		defer s.channels.Close()
		begun := time.Now()
		for b.tell(t.Context(), events) != nil {
			if time.Since(begun) > 7*24*time.Hour {
				t.Fatal("it is told again and again")
			}
			time.Sleep(time.Hour)
		}
		if n := deaf.tries.Load(); n < mostLost || n > 20*mostLost { // with the alerts about what was kept back
			t.Errorf("%d tries", n)
		}
		if len(b.told.sent)+len(b.told.lost)+len(b.told.acted) > 0 {
			t.Error("it is remembered")
		}
	})
}

func TestListingIsToldByTheLogWhereThereIsNoChannel(t *testing.T) {
	s := watchingState(t, "", nil)
	must(t, s.blocklists.tell(t.Context(), manyBegan(2)))
}

// What was done about listings is not done again because they were not told.
func TestTellingAgainTightensNobodyAgain(t *testing.T) {
	first := time.Now().Add(-10 * time.Minute)
	s := abusedState(t, "observe", first)
	s.channels = incident.NewChannels(incident.ChannelsOptions{}, &deafChannel{})
	s.channels.Close() // it delivers nothing any more
	e := anEvent(history.Began, rbl.High, rbl.ScopeAddress)
	e.Listing.First, e.Listing.CleanBefore = first, first.Add(-time.Hour)
	for range 2 {
		if err := s.blocklists.tell(t.Context(), []history.Event{e}); !errors.Is(err, errUntold) {
			t.Errorf("%v", err)
		}
	}
	must(t, s.journal.Sync(t.Context()))
	all, err := s.journal.AdminActions(t.Context(), 100)
	must(t, err)
	if len(all) != 2 { // one for each of the two that are the likely cause
		t.Errorf("%+v", all)
	}
}
