package telemetry_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/cmd/internal/telemetry"
)

// target counts what is written to it, and fails if told to.
type target struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	writes int
	err    error
}

func (w *target) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	if w.err != nil {
		return 0, w.err
	}
	return w.buf.Write(p)
}

func (w *target) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *target) state() (text string, writes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String(), w.writes
}

func write(t *testing.T, w *telemetry.Writer, line string) {
	t.Helper()
	if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

func TestLinesAreJoinedForATenthOfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(target)
		w := telemetry.NewWriter(out)
		defer w.Close()
		for round := range 3 {
			write(t, w, "one\n")
			time.Sleep(60 * time.Millisecond)
			write(t, w, "two\n")
			time.Sleep(30 * time.Millisecond)
			if _, n := out.state(); n != round {
				t.Fatalf("round %d: %d writes before the time", round, n)
			}
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			if text, n := out.state(); n != round+1 || text != strings.Repeat("one\ntwo\n", round+1) {
				t.Fatalf("round %d: %d writes of %q", round, n, text)
			}
		}
		time.Sleep(time.Hour)
		if _, n := out.state(); n != 3 {
			t.Errorf("%d writes: one of nothing", n)
		}
	})
}

func TestManyLinesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(target)
		w := telemetry.NewWriter(out)
		defer w.Close()
		line := strings.Repeat("x", 1023) + "\n"
		for range 32 {
			write(t, w, line)
		}
		synctest.Wait()
		if text, n := out.state(); n != 1 || len(text) != 32<<10 {
			t.Errorf("%d writes of %d octets", n, len(text))
		}
	})
}

func TestUrgentLinesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(target)
		w := telemetry.NewWriter(out)
		defer w.Close()
		write(t, w, "accepted\n")
		fmt.Fprintln(w.Urgent(), "held")
		synctest.Wait()
		if text, n := out.state(); text != "accepted\nheld\n" || n != 1 {
			t.Errorf("%d writes of %q", n, text)
		}
	})
}

func TestFlushWritesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(target)
		w := telemetry.NewWriter(out)
		defer w.Close()
		w.Flush()
		write(t, w, "held\n")
		w.Flush()
		synctest.Wait()
		if text, n := out.state(); text != "held\n" || n != 1 {
			t.Fatalf("%d writes of %q", n, text)
		}
		write(t, w, "next\n") // its time runs, too
		time.Sleep(101 * time.Millisecond)
		synctest.Wait()
		if text, _ := out.state(); text != "held\nnext\n" {
			t.Errorf("after the time: %q", text)
		}
	})
}

func TestFailingTargetStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &target{err: errors.New("no space left on device")}
		w := telemetry.NewWriter(out)
		defer w.Close()
		w.Lost = func(lines int64) { fmt.Fprintf(w, "%d lost\n", lines) }
		for range 3 {
			write(t, w, "lost\nlost\n")
			w.Flush()
			synctest.Wait()
		}
		if n := w.Dropped(); n != 6 {
			t.Errorf("%d dropped, want 6", n)
		}
		out.fail(nil)
		write(t, w, "kept\n")
		w.Flush()
		synctest.Wait()
		w.Flush()
		synctest.Wait()
		if text, _ := out.state(); text != "kept\n6 lost\n" || w.Dropped() != 6 {
			t.Errorf("afterwards %q, %d dropped", text, w.Dropped())
		}
	})
}

// stuck is a target whose reader sleeps.
type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.release; return len(p), nil }

func TestStuckTargetStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := stuck{make(chan struct{})}
		w := telemetry.NewWriter(out)
		line := strings.Repeat("x", 1023) + "\n"
		write(t, w, line)
		w.Flush()
		synctest.Wait() // one line is being written, for ever
		for range 2000 {
			write(t, w, line)
		}
		if n := w.Dropped(); n != 2000-1024 {
			t.Errorf("%d dropped, want what is beyond a megabyte", n)
		}
		for range 1024 {
			w.Urgent().Write([]byte(line))
		}
		if n := w.Dropped(); n != 2000-1024 {
			t.Errorf("%d dropped: what is urgent had no room of its own", n)
		}
		w.Close() // gives up
		close(out.release)
	})
}

func TestLinesOfManyWritersStayWhole(t *testing.T) {
	out := new(target)
	w := telemetry.NewWriter(out)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 500 {
				write(t, w, fmt.Sprintf("writer %d\n", i))
				if i == 0 {
					w.Flush()
				}
			}
		})
	}
	all.Wait()
	w.Close()
	text, _ := out.state()
	count := map[string]int{}
	for line := range strings.Lines(text) {
		count[line]++
	}
	for i := range 8 {
		if line := fmt.Sprintf("writer %d\n", i); count[line] != 500 {
			t.Errorf("%q is there %d times", line, count[line])
		}
	}
}

func TestLoggerFormats(t *testing.T) {
	for format, want := range map[string]string{"text": `msg=verdict client="a\nb"`, "json": `"msg":"verdict","client":"a\nb"`} {
		var out bytes.Buffer
		log, err := telemetry.NewLogger(&out, format, slog.LevelInfo)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("not asked for")
		log.Info("verdict", "client", "a\nb")
		if got := out.String(); !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q", format, got)
		}
	}
	if _, err := telemetry.NewLogger(new(bytes.Buffer), "xml", slog.LevelInfo); err == nil {
		t.Error("xml is no format")
	}
}
