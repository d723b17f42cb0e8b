package incident_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/incident"
)

// fake is a channel that does what the test wants.
type fake struct {
	do func(ctx context.Context, a incident.Alert) error

	mu  sync.Mutex
	got []incident.Alert
	at  []time.Time
}

func (f *fake) Name() string { return "fake" }

func (f *fake) Deliver(ctx context.Context, a incident.Alert) error {
	f.mu.Lock()
	f.got, f.at = append(f.got, a), append(f.at, time.Now())
	f.mu.Unlock()
	if f.do != nil {
		return f.do(ctx, a)
	}
	return nil
}

func (f *fake) texts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, a := range f.got {
		all = append(all, fmt.Sprintf("%s %s", a.Event, a.Incident.ID))
	}
	return all
}

func alert(id string, e incident.Event) incident.Alert {
	return incident.Alert{Incident: incident.Incident{ID: id, Origin: "login:a", Cause: "login-hour", Opened: start}, Event: e, Text: "t", Time: start}
}

func TestChannelsDeliverInOrder(t *testing.T) {
	f, g := &fake{}, &fake{}
	c := incident.NewChannels(incident.ChannelsOptions{}, f, g)
	for i := range 10 {
		c.Send(alert(fmt.Sprint(i), incident.Opened))
	}
	c.Close()
	c.Close()
	c.Send(alert("late", incident.Opened))
	for _, ch := range []*fake{f, g} {
		if got := ch.texts(); len(got) != 10 || got[0] != "opened 0" || got[9] != "opened 9" {
			t.Errorf("delivered %q", got)
		}
	}
	if n := c.Counts(); n[1].Delivered != 10 || n[1].Name != "fake" || n[1].Waiting != 0 {
		t.Errorf("%+v", n)
	}
}

func TestChannelsJoinWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		f := &fake{do: func(context.Context, incident.Alert) error { <-free; return nil }}
		c := incident.NewChannels(incident.ChannelsOptions{}, f)
		c.Send(alert("first", incident.Opened))
		synctest.Wait() // it is being delivered
		for _, a := range []incident.Alert{
			alert("first", incident.Updated), alert("a", incident.Opened), alert("b", incident.Opened), alert("a", incident.Updated),
			alert("first", incident.Closed), alert("b", incident.Closed),
		} {
			c.Send(a)
		}
		close(free)
		synctest.Wait()
		if got, want := f.texts(), []string{"opened first", "closed first", "opened a", "closed b"}; !slices.Equal(got, want) {
			t.Errorf("delivered %q, want %q", got, want)
		}
		if n := c.Counts()[0]; n.Joined != 3 || n.Kept != 0 {
			t.Errorf("%+v", n)
		}
		c.Close()
	})
}

// No hour has more deliveries than allowed, whatever comes, and the admin
// learns how many there were.
func TestChannelsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		c := incident.NewChannels(incident.ChannelsOptions{PerHour: 10}, f)
		const sent = 5000
		for i := range sent {
			c.Send(alert(fmt.Sprint(i), incident.Opened))
			time.Sleep(10 * time.Second)
		}
		time.Sleep(3 * time.Hour)
		c.Close()
		told, kept := 0, 0
		for i, a := range f.got {
			if i >= 10 && f.at[i].Sub(f.at[i-10]) < time.Hour {
				t.Fatalf("deliveries %d to %d within %v", i-10, i, f.at[i].Sub(f.at[i-10]))
			}
			var n int
			if a.Event != incident.More {
				told++
			} else if _, err := fmt.Sscanf(a.Text, "and %d more alerts", &n); err == nil {
				kept += n
			} else if !strings.HasPrefix(a.Text, "more than 9 alerts in an hour") {
				t.Errorf("text %q", a.Text)
			}
		}
		if told+kept != sent || told < 9*10 {
			t.Errorf("%d told, %d told of, %d sent", told, kept, sent)
		}
	})
}

func TestChannelsQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		f := &fake{do: func(context.Context, incident.Alert) error { <-free; return nil }}
		c := incident.NewChannels(incident.ChannelsOptions{Queue: 5, PerHour: 30}, f)
		c.Send(alert("first", incident.Opened))
		synctest.Wait()
		for i := range 1000 {
			c.Send(alert(fmt.Sprint(i), incident.Opened))
		}
		if n := c.Counts()[0]; n.Waiting != 5 || n.Kept != 995 {
			t.Errorf("%+v", n)
		}
		close(free)
		synctest.Wait()
		if last := f.got[len(f.got)-1]; len(f.got) != 7 || !strings.HasPrefix(last.Text, "and 995 more alerts") {
			t.Errorf("%d delivered, the last %q", len(f.got), last.Text)
		}
		c.Close()
	})
}

func TestChannelsFailureIsNotATightLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		broken := true
		f := &fake{do: func(context.Context, incident.Alert) error {
			if broken {
				return errors.New("no route\x1b to host")
			}
			return nil
		}}
		c := incident.NewChannels(incident.ChannelsOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}, f)
		for i := range 24 * 60 {
			c.Send(alert(fmt.Sprint(i%20), incident.Opened))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		n := c.Counts()[0]
		if n.Failed < 24 || n.Failed > 24*8 || n.Delivered != 0 || n.LastError != `no route\x1b to host` {
			t.Errorf("in a day: %+v", n)
		}
		if lines := strings.Count(log.String(), "alert not delivered"); lines == 0 || lines > int(n.Failed) {
			t.Errorf("%d lines", lines)
		}
		broken = false
		c.Send(alert("last", incident.Opened))
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := f.texts(); !slices.Contains(got, "opened last") && !slices.ContainsFunc(f.got, func(a incident.Alert) bool { return strings.HasPrefix(a.Text, "and ") }) {
			t.Errorf("after it works again: %q", got[max(0, len(got)-30):])
		}
		c.Close()
	})
}

func TestChannelsRetryOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 2
		f := &fake{do: func(context.Context, incident.Alert) error {
			if failures--; failures >= 0 {
				return errors.New("busy")
			}
			return nil
		}}
		c := incident.NewChannels(incident.ChannelsOptions{}, f)
		c.Send(alert("a", incident.Opened))
		synctest.Wait()
		c.Send(alert("a", incident.Updated)) // while it pauses
		time.Sleep(time.Hour)
		synctest.Wait()
		if got, want := f.texts(), []string{"opened a", "opened a", "opened a"}; !slices.Equal(got, want) {
			t.Errorf("tried %q, want %q", got, want)
		}
		if gap := f.at[1].Sub(f.at[0]); gap < 30*time.Second {
			t.Errorf("tried again after %v", gap)
		}
		if n := c.Counts()[0]; n.Failed != 2 || n.Delivered != 1 || n.LastError != "" {
			t.Errorf("it goes again, and counts %+v", n)
		}
		c.Close()
	})
}

// Close comes back though a channel hangs, even one that ignores its context.
func TestChannelsCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		deaf := &fake{do: func(context.Context, incident.Alert) error { <-stuck; return nil }}
		slow := &fake{do: func(ctx context.Context, _ incident.Alert) error { <-ctx.Done(); return ctx.Err() }}
		c := incident.NewChannels(incident.ChannelsOptions{Timeout: time.Hour}, deaf, slow)
		for i := range 3 {
			c.Send(alert(fmt.Sprint(i), incident.Opened))
		}
		synctest.Wait()
		began := time.Now()
		c.Close()
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("Close took %v", took)
		}
		close(stuck)
	})
}

func TestChannelsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &fake{do: func(ctx context.Context, _ incident.Alert) error { <-ctx.Done(); return ctx.Err() }}
		c := incident.NewChannels(incident.ChannelsOptions{Timeout: 3 * time.Second}, slow)
		c.Send(alert("a", incident.Opened))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if n := c.Counts()[0]; n.Failed != 1 {
			t.Errorf("%+v", n)
		}
		c.Close()
	})
}

// Whoever wants to know what became of an alert is told once: well as soon as one
// channel has it, badly once none will.
func TestChannelsTellWhatBecameOfAnAlert(t *testing.T) {
	deliver := func(err error) *fake { return &fake{do: func(context.Context, incident.Alert) error { return err }} }
	bad := errors.New("nobody hears")
	for name, c := range map[string]struct {
		channels []incident.Channel
		perHour  int
		want     string
	}{
		"delivered":          {[]incident.Channel{deliver(nil)}, 0, "true"},
		"by all":             {[]incident.Channel{deliver(nil), deliver(nil)}, 0, "true"},
		"by one of two":      {[]incident.Channel{deliver(bad), deliver(nil)}, 0, "true"},
		"by none":            {[]incident.Channel{deliver(bad), deliver(bad)}, 0, "false"},
		"there is no one":    {nil, 0, "false"},
		"too many this hour": {[]incident.Channel{deliver(nil)}, 2, "false"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				channels := incident.NewChannels(incident.ChannelsOptions{PerHour: c.perHour}, c.channels...)
				if c.perHour > 0 {
					for i := range c.perHour {
						channels.Send(alert(fmt.Sprint(i), incident.Opened))
					}
					synctest.Wait()
				}
				told := make(chan bool, 9)
				a := alert("asked", incident.Opened)
				a.Done = func(delivered bool) { told <- delivered }
				channels.Send(a)
				time.Sleep(2 * time.Hour)
				channels.Close()
				synctest.Wait()
				if got := fmt.Sprint(<-told); got != c.want || len(told) > 0 {
					t.Errorf("got %s and %d more, want %s", got, len(told), c.want)
				}
			})
		})
	}
}

// The log of this machine takes everything: with others beside it, their deliveries
// count.
func TestChannelsTellOfTheOwnLogOnlyIfItIsAlone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, alone := range []bool{true, false} {
		channels := []incident.Channel{&incident.Syslog{Path: socket}}
		if !alone {
			channels = append(channels, &fake{do: func(ctx context.Context, _ incident.Alert) error { <-ctx.Done(); return ctx.Err() }})
		}
		c := incident.NewChannels(incident.ChannelsOptions{Close: time.Millisecond}, channels...)
		told := make(chan bool, 1)
		a := alert("asked", incident.Opened)
		a.Done = func(delivered bool) { told <- delivered }
		c.Send(a)
		if _, err := l.Read(make([]byte, 4096)); err != nil { // it gets it in any case
			t.Fatal(err)
		}
		if !alone {
			c.Close()
			c = incident.NewChannels(incident.ChannelsOptions{})
		}
		if got := <-told; got != alone {
			t.Errorf("alone %v: told %v", alone, got)
		}
		c.Close()
	}
}

func TestChannelsTellOfJoinedAndUnsentAlerts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		f := &fake{do: func(ctx context.Context, _ incident.Alert) error {
			select {
			case <-free:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		c := incident.NewChannels(incident.ChannelsOptions{Queue: 2, Timeout: time.Hour, Close: time.Second}, f)
		var mu sync.Mutex
		told := map[string]string{}
		send := func(name, id string) {
			a := alert(id, incident.Updated)
			a.Done = func(delivered bool) {
				mu.Lock()
				defer mu.Unlock()
				told[name] += fmt.Sprint(delivered)
			}
			c.Send(a)
		}
		send("first", "first")
		synctest.Wait() // it is being delivered
		send("older", "a")
		send("newer", "a")
		free <- struct{}{}
		synctest.Wait() // a is being delivered
		free <- struct{}{}
		synctest.Wait()
		send("hangs", "hangs")
		synctest.Wait()
		send("waits", "b")
		send("waits too", "c")
		send("too many", "d")
		c.Close()
		synctest.Wait()
		send("late", "e")
		want := map[string]string{"first": "true", "older": "true", "newer": "true", "hangs": "false", "waits": "false", "waits too": "false", "too many": "false", "late": "false"}
		if !maps.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}
