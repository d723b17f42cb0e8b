package journal_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// childDir names the directory that this binary, started again, appends to.
const childDir = "RELAYGUARD_JOURNAL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := appendForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// appendForEver appends holds and prints the number of each that is appended.
func appendForEver(dir string) error {
	// Small segments and no kept log: segments are deleted all the time.
	j, err := journal.Open(context.Background(), journal.Options{Dir: dir, SegmentBytes: 64 << 10, KeepLogBytes: 1, MinFree: 1, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv(childDir + "_FROM"))
	if err != nil {
		return err
	}
	// All rounds together append fewer holds than one answer may have.
	for most := n + journal.MaxLimit/60; ; n++ {
		if n >= most {
			select {} // until it is killed
		}
		j.Note(accepted(1_000_000_000 + n))
		again := held(2_000_000_000 + n)
		again.Role, again.Verdict = policy.Egress, policy.Defer
		if err := j.Append(held(n), journal.Repeat{ID: newID(n), N: 1}, again); err != nil {
			return err
		}
		if _, err := fmt.Println(n); err != nil {
			return err
		}
	}
}

func TestKilledAtAnyPoint(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	appended, next := 0, 0
	for range rounds {
		n := killedChild(t, dir, next, time.Duration(rand.Int64N(int64(120*time.Millisecond))))
		if n < next {
			continue // killed before it appended
		}
		appended, next = n+1, n+2 // the last may be appended without being printed
	}
	if appended == 0 {
		t.Fatal("no child came to append")
	}
	checkReader(t, dir)
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	times := make(map[string]int)
	for _, h := range holds {
		times[h.DecisionID]++
	}
	lacking := 0
	for i := range next - 1 {
		if times[newID(i)] > 1 {
			t.Fatalf("hold %d is there %d times", i, times[newID(i)])
		}
		if times[newID(i)] == 0 {
			lacking++
		}
	}
	if lacking > rounds { // a number is left out after each round
		t.Errorf("%d of %d holds are lost", lacking, appended)
	}
	checkPrinted(t, dir, j, times)
	t.Logf("%d holds appended in %d rounds", len(holds), rounds)
}

// printed are the numbers that children printed, by directory.
var printed = make(map[string][]int)

func checkPrinted(t *testing.T, dir string, j *journal.Journal, times map[string]int) {
	t.Helper()
	for _, n := range printed[dir] {
		if times[newID(n)] != 1 {
			t.Fatalf("hold %d was appended, and is there %d times", n, times[newID(n)])
		}
	}
	// Each decision counted once, and its repeat once, whatever crash came
	// between a commit and the deletion of a segment.
	totals, err := j.Totals(t.Context(), held(0).Account, time.Time{}, time.Time{})
	must(t, err)
	for _, total := range totals {
		if total.Verdict.String() == "hold" && (total.Messages < int64(2*len(printed[dir])) || total.Messages > 2*int64(len(times))) {
			t.Errorf("total of %d messages for %d holds and their repeats", total.Messages, len(times))
		}
	}
	checkVolumes(t, j, totals)
	for _, n := range printed[dir][max(0, len(printed[dir])-50):] {
		if got := explain(t, j, newID(n)); len(got) != 1 || got[0].Decision.Repeats != 1 {
			t.Fatalf("hold %d: got %+v", n, got)
		}
	}
}

// checkVolumes: each hold is in a volume as often as in a total, and what was seen
// again is in totals alone.
func checkVolumes(t *testing.T, j *journal.Journal, totals []journal.Total) {
	t.Helper()
	type count struct{ messages, recipients int64 }
	counted, leaving := map[policy.Verdict]count{}, map[policy.Verdict]count{}
	for _, total := range totals {
		n := counted[total.Verdict]
		counted[total.Verdict] = count{n.messages + total.Messages, n.recipients + total.Recipients}
	}
	volumes, err := j.Volumes(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	for _, v := range volumes {
		n := leaving[v.Verdict]
		leaving[v.Verdict] = count{n.messages + v.Messages, n.recipients + v.Recipients}
	}
	if counted[policy.Hold] != leaving[policy.Hold] || counted[policy.Defer].messages == 0 || leaving[policy.Defer] != (count{}) {
		t.Errorf("totals %v, volumes %v", counted, leaving)
	}
}

// checkReader: without a daemon every hold is seen, once.
func checkReader(t *testing.T, dir string) {
	t.Helper()
	r := reader(t, dir)
	holds, err := r.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	times := make(map[string]int)
	for _, h := range holds {
		times[h.DecisionID]++
	}
	for _, n := range printed[dir] {
		if times[newID(n)] != 1 {
			t.Fatalf("reader: hold %d was appended, and is there %d times (%q)", n, times[newID(n)], r.Remarks)
		}
	}
}

// killedChild runs a child, kills it after that long, and gives the last number
// that it printed.
func killedChild(t *testing.T, dir string, from int, after time.Duration) int {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir, childDir+"_FROM="+strconv.Itoa(from))
	var complaints strings.Builder
	child.Stderr = &complaints
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	last := from - 1
	lines := bufio.NewScanner(out)
	started := false
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			break // torn by the kill
		}
		last = n
		printed[dir] = append(printed[dir], n)
		if !started {
			started = true
			time.AfterFunc(after, func() { child.Process.Kill() })
		}
	}
	err = child.Wait()
	if !started || err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("child ended with %v\n%s", err, complaints.String())
	}
	return last
}
