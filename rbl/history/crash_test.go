package history_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

// crashEnv has the test binary be a daemon that is killed.
const crashEnv = "RELAYGUARD_RBL_HISTORY_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(4) // the test ended first
		}()
		fmt.Fprintln(os.Stderr, checkUntilKilled(dir))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// atHour is what is said in an hour of an endless story: an address is listed for 6
// of 10 hours, another always.
func atHour(h int) []says {
	a := clean(zone, ours)
	if h%10 < 6 {
		a = listed(zone, ours, hit(2))
	}
	return []says{a, listed(zone, other, hit(3))}
}

// checkUntilKilled goes on with the story where the history says that it stands, and
// says what it tells, an event a line, before it notes it as told.
func checkUntilKilled(dir string) error {
	ctx := context.Background()
	s, err := history.Open(ctx, dir, history.Options{Confirm: confirm})
	if err != nil {
		return err
	}
	if s.Reset() != "" {
		return fmt.Errorf("put aside as %s", s.Reset())
	}
	for {
		events, err := s.Untold(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := json.NewEncoder(os.Stdout).Encode(e); err != nil {
				return err
			}
			if err := s.Told(ctx, e.ID); err != nil {
				return err
			}
		}
		last, _, err := s.Last(ctx)
		if err != nil {
			return err
		}
		h := 0
		if !last.IsZero() {
			h = int(last.Sub(start)/time.Hour) + 1
		}
		if err := s.Take(ctx, roundOf(start.Add(time.Duration(h)*time.Hour), nil, atHour(h)...), []rbl.Subject{ours, other}, zonesNamed(zone)); err != nil {
			return err
		}
	}
}

// A daemon that is killed again and again, wherever it is, tells of each listing's
// beginning and end, and remembers the same listings as one that ran through.
func TestKilledAnywhere(t *testing.T) {
	dir := t.TempDir()
	told := map[int64]history.Event{}
	const kills = 8
	for k := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		_, err = cmd.StdinPipe() // it ends with us
		must(t, err)
		must(t, cmd.Start())
		lines := json.NewDecoder(out)
		for range 2 + k { // then it dies wherever it is
			var e history.Event
			if err := lines.Decode(&e); err != nil {
				t.Fatalf("the daemon ended: %v", err)
			}
			told[e.ID] = e
		}
		must(t, cmd.Process.Kill())
		for { // what it told before it died
			var e history.Event
			if lines.Decode(&e) != nil {
				break
			}
			told[e.ID] = e
		}
		_ = cmd.Wait()
		peek, err := history.Peek(t.Context(), dir)
		must(t, err)
		if len(listings(t, peek, history.Query{})) == 0 {
			t.Error("nothing can be peeked at after a kill")
		}
		must(t, peek.Close())
	}
	s := open(t, dir)
	if s.Reset() != "" {
		t.Fatalf("put aside: %s", s.Reset())
	}
	events, err := s.Untold(t.Context())
	must(t, err)
	for _, e := range events {
		told[e.ID] = e
	}
	last, _, err := s.Last(t.Context())
	must(t, err)

	whole := open(t, t.TempDir())
	for h := 0; !start.Add(time.Duration(h) * time.Hour).After(last); h++ {
		take(t, whole, start.Add(time.Duration(h)*time.Hour), nil, atHour(h)...)
	}
	want, err := whole.Events(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	if len(want) < kills {
		t.Fatalf("only %d events by %v", len(want), last)
	}
	for _, e := range want {
		if got, ok := told[e.ID]; !ok || got.Kind != e.Kind || got.At != e.At || got.Listing.ID != e.Listing.ID {
			t.Errorf("event %d: told %+v, want %+v", e.ID, got, e)
		}
	}
	got := listings(t, s, history.Query{})
	if all := listings(t, whole, history.Query{}); !slices.EqualFunc(got, all, func(a, b history.Listing) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) || len(told) != len(want) {
		t.Errorf("%d events of %d; listings:\n%v\n%v", len(told), len(want), got, all)
	}
}
