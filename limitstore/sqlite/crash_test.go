package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/limitstore/sqlite"
	"relayguard/policy/limit"
)

// childFile names the file that this binary, started again, counts in.
const childFile = "RELAYGUARD_LIMITS_CHILD"

// childKeys is how many buckets it counts in, in turn.
const childKeys = 500

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		if err := countForEver(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// countForEver prints, for each charge, when it was about to be taken; "flushed"
// and their number after Flush.
func countForEver(path string) error {
	s, err := sqlite.Open(context.Background(), sqlite.Options{Path: path})
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		now := time.Now()
		if err := s.Add(context.Background(), now, &limit.Step{Charges: []limit.Charge{charge(childKey(n), 1)}}); err != nil {
			return err
		}
		if _, err := fmt.Println(n, now.UnixMicro()); err != nil {
			return err
		}
		if n%20_000 == 19_999 {
			if err := s.Flush(context.Background()); err != nil {
				return err
			}
			fmt.Println("flushed", n)
		}
	}
}

func childKey(n int) string { return fmt.Sprint("login:", n%childKeys) }

// TestKilledAtAnyPoint: nothing that Flush wrote is lost, and of the rest no more
// than 100 ms; on a machine that has other things to do, in most rounds.
func TestKilledAtAnyPoint(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	var losses []time.Duration
	for round := range rounds {
		losses = append(losses, killedRound(t, 1000+17_000*round))
	}
	slices.Sort(losses)
	t.Logf("charges lost at most: %v", losses)
	if median := losses[rounds/2]; median > 100*time.Millisecond {
		t.Errorf("charges of %s are lost, want at most 100 ms", median)
	}
}

// killedRound has a child killed after so many charges, and says how long before
// the end the oldest charge was that is lost.
func killedRound(t *testing.T, after int) time.Duration {
	t.Helper()
	path := somewhere(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childFile+"="+path)
	var complaints strings.Builder
	child.Stderr = &complaints
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	var taken []time.Time
	var killed time.Time
	flushed := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var n int
		var at int64
		if _, err := fmt.Sscanf(lines.Text(), "flushed %d", &n); err == nil {
			flushed = n
			continue
		}
		if _, err := fmt.Sscan(lines.Text(), &n, &at); err != nil || n != len(taken) {
			break // torn by the kill
		}
		if taken = append(taken, time.UnixMicro(at)); len(taken) == after {
			killed = time.Now()
			must(t, child.Process.Kill())
		}
	}
	if err := child.Wait(); killed.IsZero() || err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("child ended with %v\n%s", err, complaints.String())
	}
	var said said
	s := open(t, sqlite.Options{Path: path, Log: said.log()})
	defer s.Close()
	if ok, text := s.Health(); !ok || text != "fine" {
		t.Errorf("health after a kill: %s\n%s", text, said.String())
	}
	oldest := len(taken)
	for k := range childKeys {
		got := int(used(t, s, childKey(k)))
		if most := len(taken)/childKeys + 2; got > most {
			t.Errorf("bucket %d counts %d, at most %d were taken", k, got, most)
		}
		oldest = min(oldest, k+got*childKeys)
	}
	if oldest <= flushed {
		t.Errorf("charge %d is lost; %d were flushed", oldest, flushed)
	}
	if oldest == len(taken) {
		return 0
	}
	return killed.Sub(taken[oldest])
}
