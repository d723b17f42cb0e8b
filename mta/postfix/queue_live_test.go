package postfix

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// queueTest is a real Postfix that holds what has a header X-Hold.
type queueTest struct {
	*testing.T
	*postfixtest.Postfix
	i   *Instance
	ctx context.Context // ends before the test run would
}

func newQueueTest(t *testing.T, main map[string]string) queueTest {
	t.Helper()
	postfixtest.Need(t)
	settings := map[string]string{"header_checks": "regexp:$config_directory/hold"}
	for name, value := range main {
		settings[name] = value
	}
	p := postfixtest.StartTest(t, postfixtest.Options{
		Services: []postfixtest.Service{{Name: "in"}},
		Files:    map[string]string{"hold": "/^X-Hold:/ HOLD\n"},
		Main:     settings,
	})
	i, err := Load(t.Context(), Tools{}, p.ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return queueTest{t, p, i, ctx}
}

// send sends one message to each address and returns what the guard would know.
func (q queueTest) send(hold bool, from string, to ...string) []mta.Target {
	q.Helper()
	client, err := smtptest.Dial(q.ctx, q.Addr("in"))
	if err != nil {
		q.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Ehlo("client.example"); err != nil {
		q.Fatal(err)
	}
	var targets []mta.Target
	for _, to := range to {
		header := "Subject: to " + to + "\r\n"
		if hold {
			header = "X-Hold: yes\r\n" + header
		}
		var args []string
		if strings.ContainsFunc(from+to, func(r rune) bool { return r > 0x7f }) {
			args = []string{"SMTPUTF8"}
		}
		if reply, err := client.Mail(from, args...); err != nil || !reply.Positive() {
			q.Fatalf("MAIL FROM %q: %v, %v", from, reply, err)
		}
		if reply, err := client.Rcpt(to); err != nil || !reply.Positive() {
			q.Fatalf("RCPT TO %q: %v, %v", to, reply, err)
		}
		reply, err := client.Data(header + "\r\nbody to " + to + "\r\n")
		_, id, found := strings.Cut(reply.Text(), "queued as ")
		if err != nil || !found {
			q.Fatalf("DATA: %v, %v", reply, err)
		}
		targets = append(targets, mta.Target{ID: id, Sender: from, Arrival: time.Now()})
	}
	return targets
}

// queue is what ScanQueue sees, by id.
func (q queueTest) queue() map[string]mta.QueueFile {
	q.Helper()
	seen := map[string]mta.QueueFile{}
	if err := q.i.ScanQueue(q.ctx, func(f mta.QueueFile) error { seen[f.ID] = f; return nil }); err != nil {
		q.Fatal(err)
	}
	return seen
}

// in tells in which queue the target is; empty: in none.
func (q queueTest) in(t mta.Target) string { q.Helper(); return q.queue()[t.ID].Queue }

func (q queueTest) wait(what string, is func() bool) { q.Helper(); eventually(q.T, what, is) }

// fates checks what became of the targets.
func (q queueTest) fates(what string, results []mta.Result, err error, want ...mta.Fate) {
	q.Helper()
	if err != nil {
		q.Fatalf("%s: %v", what, err)
	}
	var got []mta.Fate
	for _, r := range results {
		got = append(got, r.Fate)
		if (r.Err != nil) != (r.Fate == mta.Failed) {
			q.Errorf("%s: %+v", what, r)
		}
	}
	if !slices.Equal(got, want) {
		q.Fatalf("%s: got %v, want %v (%+v)", what, got, want, results)
	}
}

func TestQueueListsHostileSenders(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	senders := []string{"", "plain@example.org", `"we ird"@example.org`, `"a\"b\\c"@example.org`, `"need\less"@example.org`, "tanaka@例え.jp", "MAILER-DAEMON", `"a	tab"@example.org`, "Upper@Example.ORG"}
	for n, from := range senders {
		to := fmt.Sprintf("r%d@example.jp", n)
		target := q.send(true, from, to)[0]
		f := q.queue()[target.ID]
		if f.Queue != "hold" || !slices.Equal(f.Recipients, []string{to}) || f.Size < 20 || f.Reason != "" {
			t.Errorf("from %q: got %+v", from, f)
		}
		if !target.Matches(f) || !f.Target().Matches(f) {
			t.Errorf("from %q: %+v does not match %+v", from, target, f)
		}
		for _, target := range []mta.Target{target, f.Target()} { // as the queue file itself says
			if err := q.i.Headers(q.ctx, target, io.Discard); err != nil {
				t.Errorf("from %q: %v", from, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(q.ctx)
	err := q.i.ScanQueue(ctx, func(mta.QueueFile) error { cancel(); return nil })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled scan: %v", err)
	}
	if err := q.i.ScanQueue(ctx, func(mta.QueueFile) error { t.Error("called after the end"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("scan after the end: got %v", err)
	}
	stop := errors.New("stop")
	if err := q.i.ScanQueue(q.ctx, func(mta.QueueFile) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want what fn returned", err)
	}
	if err := q.StopMaster(); err != nil {
		t.Fatal(err)
	}
	if got := len(q.queue()); got != len(senders) {
		t.Errorf("while Postfix is stopped: %d messages, want %d", got, len(senders))
	}
}

// The long ids name other files, and a hashed hold queue other places.
func TestReleaseDeleteRestoreWithLongIDsAndHashedHold(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, map[string]string{"enable_long_queue_ids": "yes", "hash_queue_names": "deferred, defer, hold", "hash_queue_depth": "2"})
	holdReleaseDelete(q)
}

func TestReleaseDeleteRestore(t *testing.T) {
	t.Parallel()
	holdReleaseDelete(newQueueTest(t, nil))
}

func holdReleaseDelete(q queueTest) {
	ctx := q.ctx
	now := mta.Release{Now: time.Now()}
	held := q.send(true, "a@example.org", "one@example.jp", "two@example.jp", "three@example.jp")
	if deferred := q.in(held[0]); deferred != "hold" {
		q.Fatalf("got queue %q", deferred)
	}

	// Another message has the id now: left alone, by every verb.
	foreign := []mta.Target{held[0], held[0], held[0]}
	foreign[0].Sender = "b@example.org"
	foreign[1].Arrival = foreign[1].Arrival.Add(-time.Minute)
	foreign[2].Arrival, foreign[2].Exact = q.queue()[held[0].ID].Arrival.Add(time.Second), true
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}
	results, err := q.i.ReleaseMail(ctx, foreign, now)
	q.fates("release of a reused id", results, err, mta.Changed, mta.Changed, mta.Changed)
	results, err = q.i.DeleteMail(ctx, foreign, keep)
	q.fates("delete of a reused id", results, err, mta.Changed, mta.Changed, mta.Changed)
	results, err = q.i.RequeueMail(ctx, foreign)
	q.fates("requeue of a reused id", results, err, mta.Changed, mta.Changed, mta.Changed)
	if err := q.i.Content(ctx, foreign[0], &bytes.Buffer{}); !errors.Is(err, mta.ErrChanged) {
		q.Errorf("content of a reused id: %v", err)
	}

	// Who is not there, is held already, or has no id at all.
	absent := mta.Target{ID: "00000ABCDEF", Sender: "a@example.org", Arrival: time.Now()}
	results, err = q.i.HoldMail(ctx, []mta.Target{held[0], absent, {ID: "ALL"}, {}})
	q.fates("hold", results, err, mta.Gone, mta.Gone, mta.Failed, mta.Failed)
	if got := q.in(held[0]); got != "hold" {
		q.Errorf("now in %q", got)
	}

	var header, content bytes.Buffer
	if err := q.i.Headers(ctx, held[0], &header); err != nil || !strings.Contains(header.String(), "\nSubject: to one@example.jp\n") || strings.Contains(header.String(), "body") {
		q.Errorf("header %q, %v", &header, err)
	}
	if err := q.i.Content(ctx, held[0], &content); err != nil || content.String() != "\nbody to one@example.jp\n" {
		q.Errorf("content %q, %v", &content, err)
	}
	header.Reset()
	if err := q.i.show(ctx, held[0], &header, "-hq", 10); !errors.Is(err, mta.ErrCut) || header.String() != "Received: " {
		q.Errorf("cut header %q, %v", &header, err)
	}
	if err := q.i.Headers(ctx, absent, &header); !errors.Is(err, mta.ErrGone) {
		q.Errorf("header of nothing: %v", err)
	}

	// Released means delivered, though it had to be asked twice in one call.
	results, err = q.i.ReleaseMail(ctx, []mta.Target{held[0], absent, held[0]}, now)
	q.fates("release", results, err, mta.Done, mta.Gone, mta.Done)
	if _, err := q.Sink.WaitFor(ctx, "one@example.jp"); err != nil {
		q.Fatal(err)
	}
	q.wait("delivered mail gone", func() bool { return q.in(held[0]) == "" })
	results, err = q.i.ReleaseMail(ctx, held[:1], now)
	q.fates("second release", results, err, mta.Gone)

	// Deleted means gone, with a grace folder only for a while.
	results, err = q.i.DeleteMail(ctx, []mta.Target{held[1], absent}, keep)
	q.fates("delete", results, err, mta.Done, mta.Gone)
	if got := q.in(held[1]); got != "" {
		q.Errorf("deleted mail is in %q", got)
	}
	kept, err := keep.List()
	if err != nil || len(kept) != 1 || kept[0].ID != held[1].ID || time.Since(kept[0].Deleted) > time.Minute {
		q.Fatalf("kept %+v, %v", kept, err)
	}
	for path, mode := range map[string]os.FileMode{keep.Dir: os.ModeDir | 0o700, filepath.Join(keep.Dir, kept[0].Name): os.ModeDir | 0o700, filepath.Join(keep.Dir, kept[0].Name, "queue"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			q.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	newID, err := q.i.Restore(ctx, keep, kept[0].Name)
	if err != nil {
		q.Fatal(err)
	}
	back := q.queue()[newID]
	if back.Queue != "hold" || newID == held[1].ID || !back.Arrival.Equal(kept[0].Arrival) || back.Sender != "a@example.org" {
		q.Fatalf("restored as %+v", back)
	}
	if _, err := q.Command(ctx, "postsuper", "-s"); err != nil { // would rename what has a wrong name
		q.Fatal(err)
	}
	if _, err := q.i.Restore(ctx, keep, kept[0].Name); !errors.Is(err, mta.ErrGone) {
		q.Errorf("second restore: %v", err)
	}
	results, err = q.i.ReleaseMail(ctx, []mta.Target{back.Target()}, now)
	q.fates("release of what was restored", results, err, mta.Done)
	if mail, err := q.Sink.WaitFor(ctx, "two@example.jp"); err != nil || mail.MailFrom != "a@example.org" || !bytes.Contains(mail.Data, []byte("\r\nbody to two@example.jp\r\n")) {
		q.Fatalf("%+v, %v", mail, err)
	}

	// Where no copy can be made, nothing is deleted.
	results, err = q.i.DeleteMail(ctx, held[2:], &grace.Folder{Dir: keep.Dir, Bytes: 10})
	q.fates("delete that does not fit", results, err, mta.Failed)
	if _, err := q.i.DeleteMail(ctx, held[2:], &grace.Folder{Dir: "/proc/none"}); err == nil {
		q.Error("deleted without a folder")
	}
	if got := q.in(held[2]); got != "hold" {
		q.Fatalf("what could not be copied is in %q", got)
	}
	results, err = q.i.DeleteMail(ctx, held[2:], nil)
	q.fates("delete at once", results, err, mta.Done)
	q.wait("empty queue", func() bool { return len(q.queue()) == 0 })
	if got := q.Sink.To("three@example.jp"); len(got) > 0 {
		q.Errorf("delivered what was deleted: %v", got)
	}
}

func TestQueueBulk(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	ctx := q.ctx
	addresses := make([]string, 300)
	for n := range addresses {
		addresses[n] = fmt.Sprintf("r%d@example.jp", n)
	}
	held := q.send(true, "spam@example.org", addresses...)
	other := q.send(true, "honest@example.org", "kept@example.jp")[0]
	keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace"), Count: 100}
	var both [2][]mta.Result
	var wait sync.WaitGroup
	for n := range both { // two at once: each message is deleted by one of them, and kept
		wait.Go(func() {
			results, err := q.i.DeleteMail(ctx, held[:100], keep)
			if both[n] = results; err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for n := range held[:100] {
		if a, b := both[0][n].Fate, both[1][n].Fate; (a != mta.Done || b != mta.Gone) && (a != mta.Gone || b != mta.Done) {
			t.Fatalf("deleted by two: %v, %v", a, b)
		}
	}
	results, err := q.i.DeleteMail(ctx, held[100:102], keep)
	q.fates("delete with the folder full", results, err, mta.Failed, mta.Failed)
	if !errors.Is(results[0].Err, grace.ErrFull) || !errors.Is(results[1].Err, grace.ErrFull) || q.in(held[100]) != "hold" {
		t.Errorf("got %v, in %q", results[0].Err, q.in(held[100]))
	}
	if n, err := keep.Sweep(ctx, time.Now()); err != nil || n != 0 {
		t.Errorf("swept %d, %v", n, err)
	}
	kept, err := keep.List()
	if err != nil || len(kept) != 100 || !slices.ContainsFunc(kept, func(k grace.Kept) bool { return k.ID == held[99].ID }) {
		t.Errorf("kept %d, %v", len(kept), err)
	}
	if n, err := keep.Sweep(ctx, time.Now().Add(8*24*time.Hour)); err != nil || n != 100 {
		t.Errorf("swept %d, %v", n, err)
	}
	begin := time.Now()
	results, err = q.i.ReleaseMail(ctx, held, mta.Release{Now: time.Now()})
	t.Logf("release of 200: %v", time.Since(begin))
	q.fates("release", results, err, append(slices.Repeat([]mta.Fate{mta.Gone}, 100), slices.Repeat([]mta.Fate{mta.Done}, 200)...)...)
	q.wait("200 delivered", func() bool { return len(q.Sink.All()) >= 200 })
	if got := q.in(other); got != "hold" {
		t.Errorf("somebody else's mail is in %q", got)
	}
}

func TestHoldAndRequeueOfMailOnItsWay(t *testing.T) {
	t.Parallel()
	port, answer, taken := slowServer(t)
	q := newQueueTest(t, map[string]string{"maximal_queue_lifetime": "3s", "bounce_queue_lifetime": "3s",
		"transport_maps": "inline:{ {slow.example = smtp:[127.0.0.1]:" + port + "} }"})
	ctx := q.ctx
	for _, to := range []string{"later@example.jp", "old@example.jp", "older@example.jp"} {
		q.Sink.Refuse(to, smtptest.Reply{Code: 451, Lines: []string{"4.7.1 later"}})
	}

	sent := append(q.send(false, "a@example.org", "later@example.jp"), q.send(false, "a@example.org", "x@slow.example")...)
	old := q.send(true, "a@example.org", "old@example.jp", "older@example.jp", "late@example.jp")
	born := time.Now()
	q.wait("one deferred, one active", func() bool { return q.in(sent[0]) == "deferred" && q.in(sent[1]) == "active" })
	select {
	case <-taken: // the server has it, and Postfix waits for its answer
	case <-ctx.Done():
		t.Fatal("mail was not tried")
	}
	if f := q.queue()[sent[0].ID]; !strings.Contains(f.Reason, "4.7.1 later") {
		t.Errorf("reason %q", f.Reason)
	}
	results, err := q.i.ReleaseMail(ctx, sent, mta.Release{Now: born})
	q.fates("release of what is not held", results, err, mta.Gone, mta.Gone)
	results, err = q.i.HoldMail(ctx, sent)
	q.fates("hold", results, err, mta.Done, mta.Done)
	if q.in(sent[0]) != "hold" || q.in(sent[1]) != "hold" {
		t.Errorf("held mail is in %q, %q", q.in(sent[0]), q.in(sent[1]))
	}

	// The message that was under way while it was held is not sent twice.
	close(answer)
	q.wait("delivery noted", func() bool { return strings.Contains(q.log(), sent[1].ID+": to=<x@slow.example>") })
	results, err = q.i.ReleaseMail(ctx, sent[1:], mta.Release{Now: born})
	q.fates("release of what was delivered", results, err, mta.Done)
	q.wait("delivered mail gone", func() bool { return q.in(sent[1]) == "" })
	if n := strings.Count(q.log(), sent[1].ID+": to=<x@slow.example>"); n != 1 {
		t.Errorf("delivered %d times", n)
	}

	// A message that waited for its next try is tried at once.
	q.Sink.Refuse("later@example.jp", smtptest.Reply{})
	results, err = q.i.ReleaseMail(ctx, sent[:1], mta.Release{Now: born})
	q.fates("release of what was deferred", results, err, mta.Done)
	if _, err := q.Sink.WaitFor(ctx, "later@example.jp"); err != nil {
		t.Fatal(err)
	}

	// Past its lifetime: as it is, one try that is deferred is the last.
	q.wait("old mail", func() bool { return time.Since(born) > 5*time.Second })
	asItIs := mta.Release{Now: time.Now(), Margin: -1}
	results, err = q.i.ReleaseMail(ctx, []mta.Target{old[0], old[2]}, asItIs)
	q.fates("release of old mail as it is", results, err, mta.Done, mta.Done)
	q.wait("old mail bounced", func() bool { return strings.Contains(q.log(), old[0].ID+": from=<a@example.org>, status=expired") })
	if _, err := q.Sink.WaitFor(ctx, "late@example.jp"); err != nil {
		t.Errorf("old mail that can be delivered was not: %v", err)
	}

	// Requeued, it has a lifetime again, and a new id.
	results, err = q.i.ReleaseMail(ctx, old[1:2], mta.Release{Now: time.Now()})
	q.fates("release of old mail", results, err, mta.Done)
	if !strings.Contains(q.log(), "orig_id="+old[1].ID) {
		t.Errorf("%s was not requeued", old[1].ID)
	}
	if newID := results[0].NewID; newID != "" && !strings.Contains(q.log(), newID+": uid=") {
		t.Errorf("got new id %q", newID)
	}
}

// slowServer is an SMTP server that takes one message, says so on taken, and
// accepts it when answer is closed.
func slowServer(t *testing.T) (port string, answer chan struct{}, taken chan struct{}) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	answer, taken = make(chan struct{}), make(chan struct{})
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewScanner(conn)
		fmt.Fprint(conn, "220 slow\r\n")
		for data := false; in.Scan(); {
			switch line := in.Text(); {
			case data && line == ".":
				data = false
				close(taken)
				<-answer
				fmt.Fprint(conn, "250 kept\r\n")
			case data:
			case line == "DATA":
				data = true
				fmt.Fprint(conn, "354 go\r\n")
			default:
				fmt.Fprint(conn, "250 ok\r\n")
			}
		}
	}()
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port, answer, taken
}

func (q queueTest) log() string {
	text, err := os.ReadFile(q.LogPath())
	if err != nil {
		q.Fatal(err)
	}
	return string(text)
}

func TestRequeueTellsTheNewID(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	ctx := q.ctx
	q.Sink.Refuse("r@example.jp", smtptest.Reply{Code: 451, Lines: []string{"4.7.1 later"}})
	sent := q.send(false, `"a b"@example.org`, "r@example.jp")
	q.wait("deferred", func() bool { return q.in(sent[0]) == "deferred" })
	results, err := q.i.HoldMail(ctx, sent)
	q.fates("hold", results, err, mta.Done)
	was := q.queue()[sent[0].ID]
	results, err = q.i.RequeueMail(ctx, sent)
	q.fates("requeue", results, err, mta.Done)
	is, there := q.queue()[results[0].NewID]
	if !there || is.ID == was.ID || is.Sender != was.Sender || !is.Arrival.Equal(was.Arrival) || !strings.Contains(q.log(), is.ID+": uid=") {
		t.Fatalf("got new id %q: %+v", results[0].NewID, is)
	}

	// While Postfix is stopped mail is released, but not yet sent.
	results, err = q.i.HoldMail(ctx, []mta.Target{is.Target()})
	q.fates("hold again", results, err, mta.Done)
	if err := q.StopMaster(); err != nil {
		t.Fatal(err)
	}
	results, err = q.i.ReleaseMail(ctx, []mta.Target{is.Target()}, mta.Release{Now: time.Now()})
	if !errors.Is(err, mta.ErrNotStarted) || len(results) != 1 || results[0].Fate != mta.Done {
		t.Fatalf("release while Postfix is stopped: %+v, %v", results, err)
	}
	q.Sink.Refuse("r@example.jp", smtptest.Reply{})
	if err := q.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if got := q.in(is.Target()); got == "hold" {
		t.Error("still held")
	}
}
