package redis_test

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

const (
	raceSocket    = "RELAYGUARD_TEST_RACE_SOCKET"
	raceProcesses = 3
	raceCallers   = 64
	raceSteps     = 200 // of each caller
)

// raced are the buckets that everybody spends from.
var raced = []limit.Charge{
	{Key: limit.Key{Limit: "server", Value: "server"}, Windows: []limit.Window{{Count: 400, Length: time.Second}, {Count: 600, Length: 2 * time.Second}}},
	{Key: limit.Key{Limit: "domain", Value: "domain:example.jp"}, Windows: []limit.Window{{Count: 250, Length: time.Second}}},
	{Key: limit.Key{Limit: "login", Value: "login:taro@example.jp"}, Windows: []limit.Window{{Count: 150, Length: 2 * time.Second}}},
	{Key: limit.Key{Limit: "login", Value: "login:hanako@example.jp"}, Windows: []limit.Window{{Count: 120, Length: time.Second}, {Count: 140, Length: 2 * time.Second}}},
}

// turn numbers the taken steps: how many there were before is what it has used.
var turn = limit.Charge{Key: limit.Key{Limit: "turn", Value: "turn"}, Kind: limit.Volume, Windows: []limit.Window{{Count: limit.MaxCount, Length: limit.MaxLength}}, Amount: 1}

// raceStep is one step of a race.
type raceStep struct {
	turn    int64 // of a refused one, that of the next taken one
	taken   bool
	now     int64   // microseconds
	amounts []int64 // from each of raced
}

func (r raceStep) String() string { return fmt.Sprintln(r.turn, r.taken, r.now, r.amounts) }

func parseRaceStep(line string) (r raceStep, ok bool) {
	a := make([]int64, len(raced))
	n, _ := fmt.Sscanf(line, "%d %t %d [%d %d %d %d]", &r.turn, &r.taken, &r.now, &a[0], &a[1], &a[2], &a[3])
	r.amounts = a
	return r, n == 3+len(a)
}

// Three processes of 64 callers spend from the same buckets. In no closed
// interval as long as a window more passes than it allows, not by one.
func TestRacingProcesses(t *testing.T) {
	r := redistest.Server(t)
	outputs := make([]bytes.Buffer, raceProcesses)
	var all sync.WaitGroup
	for i := range outputs {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRacer$")
		cmd.Env = append(os.Environ(), raceSocket+"="+r.Socket)
		cmd.Stdout, cmd.Stderr = &outputs[i], os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("process %d: %v", i, err)
			}
		})
	}
	all.Wait()
	var steps []raceStep
	for i := range outputs {
		n := len(steps)
		for lines := bufio.NewScanner(&outputs[i]); lines.Scan(); {
			if step, ok := parseRaceStep(lines.Text()); ok {
				steps = append(steps, step)
			}
		}
		if len(steps)-n != raceCallers*raceSteps {
			t.Errorf("process %d told of %d steps", i, len(steps)-n)
		}
	}
	judgeRace(t, steps)
}

func judgeRace(t *testing.T, steps []raceStep) {
	slices.SortFunc(steps, func(a, b raceStep) int { // refused ones come before the next that was taken
		return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(flag(a.taken), flag(b.taken)))
	})
	events := make([][]event, len(raced))
	clocks := make([]int64, len(raced)) // of the buckets, which never run backwards
	passed := int64(0)
	for _, s := range steps {
		if s.taken {
			if s.turn != passed {
				t.Fatalf("turn %d is taken %d times", s.turn, 1+passed-s.turn)
			}
			passed++
		}
		for i, amount := range s.amounts {
			if amount == 0 {
				continue
			}
			if clocks[i] = max(clocks[i], s.now); s.taken {
				events[i] = append(events[i], event{time.UnixMicro(clocks[i]), amount})
			}
		}
	}
	if refused := int64(len(steps)) - passed; passed < 100 || refused < 100 {
		t.Errorf("%d steps taken, %d refused: was there a race?", passed, refused)
	}
	for i, c := range raced {
		for _, w := range c.Windows {
			if got := densest(events[i], w.Length); got > w.Count || got < w.Count/2 {
				t.Errorf("%s: %d within %s, want at most %d, and not much less", c.Key, got, w.Length, w.Count)
			}
		}
	}
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// densest is the largest sum in a closed interval of this length; the events
// are in order.
func densest(events []event, length time.Duration) (most int64) {
	sum, from := int64(0), 0
	for _, e := range events {
		for sum += e.amount; events[from].at.Before(e.at.Add(-length)); from++ {
			sum -= events[from].amount
		}
		most = max(most, sum)
	}
	return most
}

// TestRacer is one of the processes of TestRacingProcesses. It prints its steps.
func TestRacer(t *testing.T) {
	socket := os.Getenv(raceSocket)
	if socket == "" {
		return // nobody races
	}
	s, err := redis.Open(t.Context(), redis.Options{Addresses: []string{socket}, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var all sync.WaitGroup
	for caller := range raceCallers {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(caller)))
			for range raceSteps {
				step := race(t, s, rnd)
				os.Stdout.WriteString(step.String()) // one write a line
			}
		})
	}
	all.Wait()
}

// race spends from some of the buckets, in any order, now.
func race(t *testing.T, s *redis.Store, rnd *rand.Rand) raceStep {
	step := raceStep{amounts: make([]int64, len(raced))}
	charges := []limit.Charge{turn}
	for _, i := range rnd.Perm(len(raced))[:1+rnd.IntN(len(raced))] {
		c := raced[i]
		c.Kind, c.Amount = limit.Volume, 1+rnd.Int64N(4)
		step.amounts[i] = c.Amount
		charges = append(charges, c)
	}
	now := time.Now()
	out, err := limittest.Spend(t.Context(), s, now, charges)
	if err != nil {
		t.Fatal(err)
	}
	step.now, step.turn, step.taken = now.UnixMicro(), out.Uses[0].Used, out.Taken
	return step
}
