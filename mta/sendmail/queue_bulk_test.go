package sendmail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
)

// The daemon delivers, its queue runners run every second, somebody looks at the
// queue, and all the while mail is held and released: each message arrives once.
func TestActsBesideTheDaemon(t *testing.T) {
	const messages = 60
	q := startQueue(t, sendmailtest.Options{QueueInterval: time.Second})
	q.Sink.Refuse("never@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.2.0 come again"}})
	done := make(chan struct{})
	var sending, acting sync.WaitGroup
	for sender := range 3 {
		sending.Go(func() {
			for n := sender; n < messages; n += 3 {
				client, err := q.Dial(q.ctx, "relay")
				if err != nil {
					t.Error(err)
					return
				}
				client.Ehlo("client.example.jp")
				// The second recipient keeps the message in the queue.
				if sent, err := client.Send("a@example.jp", []string{fmt.Sprintf("r%d@example.net", n), "never@example.net"}, "Subject: t\r\n\r\nbody\r\n"); err != nil || !sent.Accepted() {
					t.Errorf("%d: %+v, %v", n, sent, err)
				}
				client.Close()
			}
		})
	}
	var held, released, busy int
	acting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			var some []mta.Target
			q.i.ScanQueue(q.ctx, func(f mta.QueueFile) error {
				if rand.IntN(2) == 0 {
					some = append(some, f.Target())
				}
				return nil
			})
			results, err := q.i.HoldMail(q.ctx, some, "why")
			held += count(results, mta.Done)
			busy += count(results, mta.Failed)
			if err != nil {
				t.Error(err)
			}
			results, err = q.i.ReleaseMail(q.ctx, some, mta.Release{Now: time.Now()})
			released += count(results, mta.Done)
			if err != nil {
				t.Error(err)
			}
		}
	})
	acting.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				q.Command(q.ctx, "mailq", "-Am", "-v")
			}
		}
	})
	sending.Wait()
	for n := range messages {
		if _, err := q.Sink.WaitFor(q.ctx, fmt.Sprintf("r%d@example.net", n)); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	acting.Wait()
	for n := range messages {
		if got := len(q.Sink.To(fmt.Sprintf("r%d@example.net", n))); got != 1 {
			t.Errorf("message %d arrived %d times", n, got)
		}
	}
	if held == 0 || released == 0 {
		t.Errorf("held %d, released %d, busy %d: nothing was tried", held, released, busy)
	}
	if found := q.scan(); len(found) != messages {
		t.Errorf("%d messages wait for their second recipient, want %d", len(found), messages)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // a queue run may be writing one
		left := slices.DeleteFunc(names(t, q.QueueDir), func(name string) bool { return name[:2] != "tf" && name[:2] != "Qf" })
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v are left", left)
		}
	}
	if log := q.Sendmail.Log(); strings.Contains(log, "SYSERR") || strings.Contains(log, "cannot") && strings.Contains(log, "queueup") {
		t.Errorf("Sendmail complains:\n%s", log)
	}
}

func count(results []mta.Result, fate mta.Fate) (n int) {
	for _, r := range results {
		if r.Fate == fate {
			n++
		}
	}
	return n
}

// clones puts copies of one message under many ids into its directory.
func clones(t *testing.T, entry sendmailtest.Queued, n int) {
	t.Helper()
	dir := filepath.Dir(entry.Path)
	qf, df := readFile(t, entry.Path), readFile(t, filepath.Join(dir, "df"+entry.QueueID))
	for c := range n {
		id := fmt.Sprintf("6AN18P39%06d", c)
		write(t, filepath.Join(dir, "df"+id), df)
		write(t, filepath.Join(dir, "qf"+id), bytes.ReplaceAll(qf, []byte("x@example.net"), fmt.Appendf(nil, "c%d@example.net", c)))
	}
}

func TestBulkOf2000(t *testing.T) {
	const messages = 2000
	q := startQueue(t, sendmailtest.Options{DeliveryMode: "queueonly"})
	clones(t, q.submit("a@example.jp", "x@example.net"), messages-1)
	targets := q.targets("incoming")
	if len(targets) != messages {
		t.Fatalf("%d found", len(targets))
	}
	var stop = errors.New("stop")
	seen := 0
	if err := q.i.ScanQueue(q.ctx, func(mta.QueueFile) error { seen++; return stop }); !errors.Is(err, stop) || seen != 1 {
		t.Errorf("scan that is stopped saw %d: %v", seen, err)
	}
	results, err := q.i.HoldMail(q.ctx, targets, "why")
	all(t, "hold", mta.Done, results, err)
	if said, err := q.Command(q.ctx, "mailq", "-Am", "-qQ"); err != nil || !strings.Contains(said, "Total requests: 2000") {
		t.Errorf("mailq: %v\n%.1000s", err, said)
	}
	kept := 500
	results, err = q.i.DeleteMail(q.ctx, targets[:kept], q.keep)
	all(t, "delete", mta.Done, results, err)
	full := &grace.Folder{Dir: q.keep.Dir, Count: kept + 1}
	results, err = q.i.DeleteMail(q.ctx, targets[kept:kept+2], full)
	if err != nil || results[0].Fate != mta.Done || results[1].Fate != mta.Failed || !errors.Is(results[1].Err, grace.ErrFull) {
		t.Errorf("delete into a full folder: %+v, %v", results, err)
	}
	results, err = q.i.DeleteMail(q.ctx, targets[kept+1:1900], nil)
	all(t, "delete for good", mta.Done, results, err)
	ids := map[string]bool{}
	list, err := q.keep.List()
	for _, k := range list[:20] {
		id, err := q.i.Restore(q.ctx, q.keep, k.Name)
		if err != nil || ids[id] {
			t.Fatalf("restored as %s: %v", id, err)
		}
		ids[id] = true
	}
	results, err = q.i.ReleaseMail(q.ctx, q.targets("hold"), mta.Release{Now: time.Now(), Margin: -1})
	if all(t, "release", mta.Done, results, err); len(results) != 120 { // too many to be named to one sendmail(8)
		t.Fatalf("%d released", len(results))
	}
	if err := q.WaitEmpty(q.ctx); err != nil {
		t.Error(err)
	}
	if got := len(q.Sink.All()); got != 120 {
		t.Errorf("%d arrived", got)
	}
}

func TestScanOfManyKeepsNothing(t *testing.T) {
	i, queue := tree(t)
	for n := range 3000 {
		plant(t, queue, fmt.Sprintf("6AN18P39%06d", n), strings.Repeat("why", 100))
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	first, most, seen := heap(), uint64(0), 0
	err := i.ScanQueue(t.Context(), func(f mta.QueueFile) error {
		if seen++; seen%500 == 0 {
			most = max(most, heap())
		}
		return nil
	})
	if err != nil || seen != 3000 || most > first+2<<20 {
		t.Errorf("saw %d, heap %d then %d, %v", seen, first, most, err)
	}
}

// Many releases start few queue runs, however long those take.
func TestQueueRunsAreBounded(t *testing.T) {
	i, queue := tree(t)
	log := filepath.Join(t.TempDir(), "log")
	i = loadWith(t, i.ConfigDir, "echo \"$@\" >> "+log+"\necho BEGIN >> "+log+"\n[ -e "+log+".proven ] && sleep 2\ntouch "+log+".proven\necho OVER >> "+log+"\n")
	for n := range 40 {
		id := fmt.Sprintf("6AN18P39%06d", n)
		plant(t, queue, id, "why")
		if results, err := i.ReleaseMail(t.Context(), []mta.Target{target(id)}, mta.Release{Now: time.Unix(1795396105, 0)}); err != nil || results[0].Fate != mta.Done {
			t.Fatal(results, err)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		data, _ := os.ReadFile(log)
		text := string(data)
		missing := 0
		for n := range 40 {
			if !strings.Contains(text, "-qI"+fmt.Sprintf("6AN18P39%06d", n)) {
				missing++
			}
		}
		if missing == 0 && strings.Count(text, "BEGIN") == strings.Count(text, "OVER") {
			at, most := 0, 0
			for line := range strings.Lines(text) {
				at += strings.Count(line, "BEGIN") - strings.Count(line, "OVER")
				most = max(most, at)
			}
			if most > 4 {
				t.Errorf("%d runs at a time:\n%s", most, text)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d never started:\n%s", missing, text)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestManyAreLeftToOneQueueRun(t *testing.T) {
	i, queue := tree(t)
	log := filepath.Join(t.TempDir(), "log")
	i = loadWith(t, i.ConfigDir, "echo \"$@\" >> "+log+"\nsleep 2\n")
	var targets []mta.Target
	for n := range 1000 {
		id := fmt.Sprintf("6AN18P39%06d", n)
		plant(t, queue, id, "why")
		targets = append(targets, target(id))
	}
	for part := range slices.Chunk(targets, 200) {
		results, err := i.ReleaseMail(t.Context(), part, mta.Release{Now: time.Unix(1795396105, 0)})
		all(t, "release", mta.Done, results, err)
	}
	text := string(readFile(t, log))
	if lines := strings.Split(strings.TrimSpace(text), "\n"); len(lines) > 3 || lines[0] != "-C "+i.Config+" -qf" {
		t.Errorf("runs: %q", lines)
	}
}

func TestActsEndWithTheirContext(t *testing.T) {
	i, queue := tree(t)
	plant(t, queue, idA, "why")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for verb, act := range acts(i, nil) {
		results, err := act(ctx, []mta.Target{target(idA)})
		if err != nil || results[0].Fate != mta.Failed || !errors.Is(results[0].Err, ctx.Err()) {
			t.Errorf("%s: %+v, %v", verb, results, err)
		}
	}
	if err := i.ScanQueue(ctx, func(mta.QueueFile) error { return nil }); !errors.Is(err, ctx.Err()) {
		t.Errorf("scan: %v", err)
	}
}
