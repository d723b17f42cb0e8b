package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/mta/grace"
)

var then = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// fake is an Operator that answers as it is told.
type fake struct {
	mu      sync.Mutex
	asked   []string
	targets int
	at      int // acts on the queue at a time
	most    int

	files   []mta.QueueFile
	results func(t mta.Target) mta.Result
	text    []byte
	err     error
	wait    chan struct{} // until it is closed every verb but Kept waits, or ctx ends
	began   chan string   // is told of every verb
	ended   chan error    // is told how a wait ended
	boom    bool
}

func (f *fake) note(ctx context.Context, what string) error {
	f.mu.Lock()
	f.asked = append(f.asked, what)
	f.mu.Unlock()
	if f.boom {
		panic("boom")
	}
	if f.began != nil {
		f.began <- what
	}
	if f.wait == nil {
		return f.err
	}
	var err error
	select {
	case <-f.wait:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if f.ended != nil {
		f.ended <- err
	}
	return errors.Join(err, f.err)
}

func (f *fake) List(ctx context.Context, fn func(mta.QueueFile) error) error {
	for _, file := range f.files {
		if err := fn(file); err != nil {
			return err
		}
	}
	return f.note(ctx, "list")
}

func (f *fake) act(ctx context.Context, what string, targets []mta.Target) ([]mta.Result, error) {
	f.mu.Lock()
	f.targets += len(targets)
	f.at++
	f.most = max(f.most, f.at)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.at--
		f.mu.Unlock()
	}()
	if err := f.note(ctx, what); err != nil && f.results == nil {
		return nil, err
	}
	var all []mta.Result
	for _, t := range targets {
		r := mta.Result{ID: t.ID, Fate: mta.Done}
		if f.results != nil {
			r = f.results(t)
		}
		all = append(all, r)
	}
	return all, f.err
}

func (f *fake) Hold(ctx context.Context, t []mta.Target, reason string) ([]mta.Result, error) {
	return f.act(ctx, "hold", t)
}
func (f *fake) Release(ctx context.Context, t []mta.Target) ([]mta.Result, error) {
	return f.act(ctx, "release", t)
}
func (f *fake) Delete(ctx context.Context, t []mta.Target) ([]mta.Result, error) {
	return f.act(ctx, "delete", t)
}
func (f *fake) Requeue(ctx context.Context, t []mta.Target) ([]mta.Result, error) {
	return f.act(ctx, "requeue", t)
}
func (f *fake) DeleteQueued(ctx context.Context, t []mta.Target) ([]mta.Result, error) {
	return f.act(ctx, "delete-queued", t)
}
func (f *fake) Headers(ctx context.Context, t mta.Target) ([]byte, error) {
	return f.text, f.note(ctx, fmt.Sprintf("headers %+v", t))
}
func (f *fake) Content(ctx context.Context, t mta.Target) ([]byte, error) {
	return f.text, f.note(ctx, fmt.Sprintf("content %+v", t))
}
func (f *fake) Stop(ctx context.Context) (mta.Stopped, error) {
	err := f.note(ctx, "stop")
	return mta.Stopped{Since: then, Running: true, Ended: 2, Held: f.files, Failed: []mta.Result{{ID: "4F3A29", Err: errors.New("no")}}, Caveats: []string{"a filter"}}, err
}
func (f *fake) Start(ctx context.Context, keep bool) (mta.Started, error) {
	err := f.note(ctx, fmt.Sprint("start ", keep))
	return mta.Started{Since: then, Released: []mta.Result{{ID: "4F3A29", Fate: mta.Done}}, Kept: []mta.Target{aTarget(1)}, Retried: 3, Caveats: []string{"changed"}}, err
}
func (f *fake) ForbidSubmit(ctx context.Context, user string) error {
	return f.note(ctx, "forbid "+user)
}
func (f *fake) AllowSubmit(ctx context.Context, user string) error {
	return f.note(ctx, "allow "+user)
}
func (f *fake) DeleteForGood(ctx context.Context, t []mta.Target) ([]mta.Result, error) {
	return f.act(ctx, "delete for good", t)
}
func (f *fake) Kept(_ context.Context, fn func(grace.Kept) error) error {
	for _, newID := range []string{"", "4F3A2B"} {
		if err := fn(grace.Kept{Name: keptName, ID: "4F3A29", Arrival: then, Deleted: then.Add(time.Hour), Size: 12, NewID: newID}); err != nil {
			return err
		}
	}
	return f.err
}
func (f *fake) Restore(ctx context.Context, names []string) (all []mta.Result, err error) {
	for n, name := range names {
		all = append(all, mta.Result{ID: name, Fate: mta.Done, NewID: fmt.Sprintf("4F3A2B%d", n)})
	}
	return all, f.note(ctx, fmt.Sprint("restore ", names))
}
func (f *fake) Forget(ctx context.Context, names []string) error {
	return f.note(ctx, fmt.Sprint("forget ", names))
}

// keptBy are all that an operator has kept.
func keptBy(ctx context.Context, o Operator) (all []grace.Kept, err error) {
	err = o.Kept(ctx, func(k grace.Kept) error {
		all = append(all, k)
		return nil
	})
	return all, err
}

// restoreOne restores one message.
func restoreOne(ctx context.Context, o Operator, name string) (newID string, err error) {
	results, err := o.Restore(ctx, []string{name})
	if results == nil {
		return "", err
	}
	if results[0].Fate == mta.Gone {
		err = mta.ErrGone
	}
	return results[0].NewID, errors.Join(err, results[0].Err)
}

func (f *fake) Status(ctx context.Context) (Status, error) {
	return Status{Stop: mta.StopStatus{Stopped: true, Since: then, Held: 3, Missing: []string{"defer_transports"}}, Forbidden: []string{"games"}}, f.note(ctx, "status")
}

const keptName = "4F3A29.1772438400"

func (f *fake) said() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func aTarget(n int) mta.Target {
	return mta.Target{ID: fmt.Sprintf("%05X%06X", n, n), Sender: `"a b"@example.jp`, Arrival: then.Add(time.Duration(n) * time.Microsecond), Exact: n%2 == 1}
}

func targetsOf(n int) []mta.Target {
	all := make([]mta.Target, n)
	for k := range all {
		all[k] = aTarget(k)
	}
	return all
}

// lines is a log that a test may read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// served starts a server of the fake's; it ends with the test.
func served(t *testing.T, f *fake, change func(*Server)) (*Client, *lines, chan error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rgq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ln, err := Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	s := &Server{Operator: f, UIDs: []int{os.Getuid()}, Log: slog.New(slog.NewTextHandler(log, nil))}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	return &Client{Path: path}, log, done
}

func TestEveryVerbOverTheSocket(t *testing.T) {
	f := &fake{
		files: []mta.QueueFile{{Queue: "hold", ID: "4F3A29", Arrival: then, Size: 12, Sender: "a@example.jp", Recipients: []string{"b@example.net"}, More: -1, Reason: "<&\"\n"}, {Queue: "active", ID: "4F3A2A", Arrival: then}},
		text:  bytes.Repeat([]byte("A: \xff\x00\n"), 50_000),
	}
	c, log, _ := served(t, f, nil)
	ctx := t.Context()
	var files []mta.QueueFile
	if err := c.List(ctx, func(q mta.QueueFile) error { files = append(files, q); return nil }); err != nil || !reflect.DeepEqual(files, f.files) {
		t.Errorf("list: got %+v, %v", files, err)
	}
	for name, act := range map[string]func(context.Context, []mta.Target) ([]mta.Result, error){
		"hold": func(ctx context.Context, all []mta.Target) ([]mta.Result, error) { return c.Hold(ctx, all, "a test") }, "release": c.Release, "requeue": c.Requeue,
		"delete": c.Delete, "delete for good": c.DeleteForGood, "delete queued": c.DeleteQueued,
	} {
		results, err := act(ctx, targetsOf(3))
		if err != nil || len(results) != 3 || results[2] != (mta.Result{ID: aTarget(2).ID, Fate: mta.Done}) {
			t.Errorf("%s: got %+v, %v", name, results, err)
		}
		if none, err := act(ctx, nil); err != nil || len(none) > 0 {
			t.Errorf("%s nothing: got %+v, %v", name, none, err)
		}
	}
	for name, show := range map[string]func(context.Context, mta.Target) ([]byte, error){"headers": c.Headers, "content": c.Content} {
		if text, err := show(ctx, aTarget(7)); err != nil || !bytes.Equal(text, f.text) {
			t.Errorf("%s: got %d octets, %v", name, len(text), err)
		}
	}
	stopped, err := c.Stop(ctx)
	if err != nil || stopped.Ended != 2 || !stopped.Since.Equal(then) || len(stopped.Held) != 2 || stopped.Held[0].Target() != f.files[0].Target() || stopped.Held[0].Recipients[0] != "@example.net" || len(stopped.Failed) != 1 || stopped.Failed[0].Err == nil || len(stopped.Caveats) != 1 {
		t.Errorf("stop: got %+v, %v", stopped, err)
	}
	started, err := c.Start(ctx, true)
	if err != nil || started.Retried != 3 || len(started.Released) != 1 || !slices.Equal(started.Kept, []mta.Target{aTarget(1)}) || len(started.Caveats) != 1 {
		t.Errorf("start: got %+v, %v", started, err)
	}
	if err := errors.Join(c.ForbidSubmit(ctx, "www-data"), c.AllowSubmit(ctx, "games")); err != nil {
		t.Error(err)
	}
	kept, err := keptBy(ctx, c)
	if want, _ := keptBy(ctx, f); err != nil || !reflect.DeepEqual(kept, want) {
		t.Errorf("kept: got %+v, %v", kept, err)
	}
	if all, err := c.Restore(ctx, []string{keptName, "4F3A29.1"}); err != nil || len(all) != 2 || all[0].NewID != "4F3A2B0" || all[1].NewID != "4F3A2B1" {
		t.Errorf("restore: got %+v, %v", all, err)
	}
	many := make([]string, maxNames+1) // more than a request may name
	for n := range many {
		many[n] = fmt.Sprintf("4F3A29.%d", n)
	}
	if all, err := c.Restore(ctx, many); err != nil || len(all) != len(many) || all[maxNames].ID != many[maxNames] {
		t.Errorf("restore of many: %d results, %v", len(all), err)
	}
	if err := c.Forget(ctx, []string{keptName}); err != nil {
		t.Error(err)
	}
	status, err := c.Status(ctx)
	if want, _ := f.Status(ctx); err != nil || !reflect.DeepEqual(status, want) {
		t.Errorf("status: got %+v, %v", status, err)
	}
	for _, want := range []string{"headers " + fmt.Sprintf("%+v", aTarget(7)), "start true", "forbid www-data", "allow games", "delete for good", "forget [" + keptName + "]"} {
		if !slices.Contains(f.said(), want) {
			t.Errorf("nobody was asked %q", want)
		}
	}
	for _, want := range []string{"verb=hold", "verb=delete", "messages=3", "verb=stop", "verb=suspend-local", "account=www-data", "verb=delete-for-good", "verb=restore", "messages=2", "name=" + many[maxNames]} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("nothing of %s in the log:\n%s", want, log)
		}
	}
}

// Review 1, finding 14: who looks into mail leaves a trace that the daemon cannot
// wipe.
func TestLooksIntoMailAreLogged(t *testing.T) {
	c, log, _ := served(t, &fake{text: []byte("secret text")}, nil)
	for verb, show := range map[string]func(context.Context, mta.Target) ([]byte, error){"headers": c.Headers, "content": c.Content} {
		if _, err := show(t.Context(), aTarget(7)); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`msg="queue operation begins" verb=%s uid=%d pid=%d id=%s`, verb, os.Getuid(), os.Getpid(), aTarget(7).ID)
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log:\n%s", want, log)
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("the log has the text itself")
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	for _, known := range []error{mta.ErrGone, mta.ErrChanged, mta.ErrCut, mta.ErrNotStarted, mta.ErrNotStopped, mta.ErrNoSuchUser, backup.ErrUntrusted, context.DeadlineExceeded} {
		c, _, _ := served(t, &fake{err: fmt.Errorf("do it: %w", known), text: []byte("begin"), results: func(t mta.Target) mta.Result { return mta.Result{ID: t.ID} }}, nil)
		if err := c.ForbidSubmit(t.Context(), "www-data"); !errors.Is(err, known) || !strings.HasPrefix(err.Error(), "do it: ") {
			t.Errorf("%v: got %v", known, err)
		}
		if results, err := c.Hold(t.Context(), targetsOf(2), "a test"); !errors.Is(err, known) || len(results) != 2 {
			t.Errorf("%v: got %+v, %v", known, results, err)
		}
		if text, err := c.Content(t.Context(), aTarget(1)); !errors.Is(err, known) || (string(text) == "begin") != (known == mta.ErrCut) {
			t.Errorf("%v: got %q, %v", known, text, err)
		}
	}
	c, _, _ := served(t, &fake{err: &mta.SkippedError{Lines: 3, First: errors.New("odd")}}, nil)
	var skipped *mta.SkippedError
	if err := c.List(t.Context(), func(mta.QueueFile) error { return nil }); !errors.As(err, &skipped) || skipped.Lines != 3 {
		t.Errorf("got %v", err)
	}
	if results, err := c.Delete(t.Context(), targetsOf(2)); err == nil || len(results) > 0 {
		t.Errorf("got %+v, %v", results, err)
	}
	fates := []mta.Result{{Fate: mta.Changed}, {Fate: mta.Gone}, {Fate: mta.Done, NewID: "4F3A29"}, {Err: errors.New("no")}}
	c, _, _ = served(t, &fake{results: func(t mta.Target) mta.Result {
		n := slices.IndexFunc(targetsOf(len(fates)), func(o mta.Target) bool { return o.ID == t.ID })
		r := fates[n]
		r.ID = t.ID
		return r
	}}, nil)
	results, err := c.Release(t.Context(), targetsOf(len(fates)))
	if err != nil || len(results) != len(fates) {
		t.Fatalf("got %+v, %v", results, err)
	}
	for n, r := range results {
		if r.Fate != fates[n].Fate || r.NewID != fates[n].NewID || (r.Err == nil) != (fates[n].Err == nil) {
			t.Errorf("got %+v, want %+v", r, fates[n])
		}
	}
}

// More than a request takes is asked for in several.
func TestManyTargets(t *testing.T) {
	f := &fake{}
	c, _, _ := served(t, f, nil)
	const many = 2*MaxTargets + 17
	results, err := c.Delete(t.Context(), targetsOf(many))
	if err != nil || len(results) != many || f.targets != many || len(f.said()) < 3 {
		t.Errorf("got %d results of %d in %d requests, %v", len(results), f.targets, len(f.said()), err)
	}
	long := targetsOf(4000)
	for n := range long {
		long[n].Sender = strings.Repeat("\x01", maxSender)
	}
	if results, err := c.Hold(t.Context(), long, "a test"); err != nil || len(results) != len(long) {
		t.Errorf("long senders: got %d results, %v", len(results), err)
	}
}

func TestServerRefusesWhatIsNoRequest(t *testing.T) {
	f := &fake{}
	c, log, _ := served(t, f, nil)
	many := strings.Repeat(`{"id":"4F3A29","sender":"","arrival":1},`, MaxTargets+1)
	for name, line := range map[string]string{
		"empty":                "",
		"no JSON":              "hold 4F3A29",
		"a list":               `["list"]`,
		"no verb":              `{}`,
		"an unknown verb":      `{"verb":"postsuper -d ALL"}`,
		"verb in upper case":   `{"verb":"LIST"}`,
		"an unknown field":     `{"verb":"list","path":"/etc/shadow"}`,
		"two requests":         `{"verb":"list"}{"verb":"list"}`,
		"ALL as an id":         `{"verb":"delete","targets":[{"id":"ALL","sender":"","arrival":1}]}`,
		"an option as an id":   `{"verb":"delete","targets":[{"id":"-d","sender":"","arrival":1}]}`,
		"a path as an id":      `{"verb":"content","targets":[{"id":"../../etc/passwd","sender":"","arrival":1}]}`,
		"a line end in an id":  `{"verb":"hold","targets":[{"id":"4F3A29\nALL","sender":"","arrival":1}]}`,
		"a long sender":        `{"verb":"hold","targets":[{"id":"4F3A29","sender":"` + strings.Repeat("a", maxSender+1) + `","arrival":1}]}`,
		"a far arrival":        `{"verb":"hold","targets":[{"id":"4F3A29","sender":"","arrival":9223372036854775807}]}`,
		"an early arrival":     `{"verb":"hold","targets":[{"id":"4F3A29","sender":"","arrival":-1}]}`,
		"no targets":           `{"verb":"hold"}`,
		"too many targets":     `{"verb":"hold","targets":[` + strings.TrimSuffix(many, ",") + `]}`,
		"two to show":          `{"verb":"headers","targets":[{"id":"4F3A29","sender":"","arrival":1},{"id":"4F3A2A","sender":"","arrival":1}]}`,
		"targets to stop":      `{"verb":"stop","targets":[{"id":"4F3A29","sender":"","arrival":1}]}`,
		"keep with stop":       `{"verb":"stop","keep":true}`,
		"a user with list":     `{"verb":"list","user":"www-data"}`,
		"a path to restore":    `{"verb":"restore","names":["../../etc/passwd.1"]}`,
		"nothing to restore":   `{"verb":"restore"}`,
		"a name with list":     `{"verb":"list","names":["4F3A29.1"]}`,
		"nobody":               `{"verb":"suspend-local"}`,
		"a table as a user":    `{"verb":"suspend-local","user":"static:all"}`,
		"a setting as a user":  `{"verb":"resume-local","user":"a = b"}`,
		"a line end in a user": `{"verb":"suspend-local","user":"a\nmyhostname=b"}`,
		"a huge request":       `{"verb":"list","user":"` + strings.Repeat("a", MaxRequest) + `"}`,
	} {
		conn, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		conn.Write([]byte(line + "\n")) // of a huge one not all is taken
		ended, err := readAnswer(conn, func(r response) error { return fmt.Errorf("got %+v", r) })
		if name == "a huge request" && err != nil && ended == nil {
			conn.Close()
			continue // it hung up while we wrote
		}
		if err != nil || ended.err() == nil || !strings.Contains(ended.Error, errRequest.Error()) {
			t.Errorf("%s: got %+v, %v", name, ended, err)
		}
		conn.Close()
	}
	if asked := f.said(); len(asked) > 0 {
		t.Errorf("the operator was asked %q", asked)
	}
	if !strings.Contains(log.String(), "request refused") {
		t.Error("nothing of it in the log")
	}
	if err := c.ForbidSubmit(t.Context(), "static:all"); !errors.Is(err, mta.ErrNoSuchUser) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Restore(t.Context(), []string{"../passwd.1"}); err == nil {
		t.Error("the client takes a path for a name")
	}
	if _, err := c.Delete(t.Context(), []mta.Target{{ID: "ALL", Arrival: then}}); err == nil {
		t.Error("the client takes ALL for an id")
	}
}

// asUID runs fn on a thread of another account, as the kernel sees it.
func asUID(t *testing.T, uid int, fn func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if errno != 0 {
			done <- errno
			return
		}
		fn()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestOnlyRootAndTheDaemonGetIn(t *testing.T) {
	const daemon, stranger = 61001, 61002
	f := &fake{}
	c, log, _ := served(t, f, func(s *Server) { s.UIDs = []int{daemon} })
	os.Chmod(filepath.Dir(c.Path), 0o755)
	os.Chmod(c.Path, 0o666)
	ask := func() error {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: c.Path}); err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), "socket")
		defer file.Close()
		file.Write([]byte(`{"verb":"kept"}` + "\n")) // a refusal is seen below
		got, _ := readAnswer(file, func(response) error { return nil })
		if got == nil {
			return errors.New("no answer")
		}
		return got.err()
	}
	for uid, in := range map[int]bool{0: true, daemon: true, stranger: false} {
		asUID(t, uid, func() {
			if err := ask(); (err == nil) != in {
				t.Errorf("uid %d: %v", uid, err)
			}
		})
	}
	if !strings.Contains(log.String(), fmt.Sprintf("uid=%d", stranger)) {
		t.Errorf("the log says\n%s", log)
	}
}

func TestCancelledRequestEndsTheOperation(t *testing.T) {
	f := &fake{wait: make(chan struct{}), began: make(chan string), ended: make(chan error)}
	c, _, _ := served(t, f, nil)
	for name, ask := range map[string]func(context.Context) error{
		"list": func(ctx context.Context) error {
			return c.List(ctx, func(mta.QueueFile) error { return nil })
		},
		"hold": func(ctx context.Context) error { _, err := c.Hold(ctx, targetsOf(2), "a test"); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		asked := make(chan error, 1)
		go func() { asked <- ask(ctx) }()
		<-f.began
		cancel()
		if err := <-asked; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := <-f.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the operation ended with %v", name, err)
		}
	}
}

// Who pulled the red switch and died has pulled it.
func TestStopGoesOnWithoutItsClient(t *testing.T) {
	f := &fake{wait: make(chan struct{}), began: make(chan string), ended: make(chan error)}
	c, _, _ := served(t, f, nil)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { _, err := c.Stop(ctx); asked <- err }()
	<-f.began
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(f.wait)
	if err := <-f.ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestReaderThatGivesUpEndsTheList(t *testing.T) {
	f := &fake{}
	for n := range 100_000 {
		f.files = append(f.files, mta.QueueFile{Queue: "hold", ID: aTarget(n).ID, Sender: strings.Repeat("a", 100)})
	}
	c, _, _ := served(t, f, nil)
	enough := errors.New("enough")
	seen := 0
	err := c.List(t.Context(), func(mta.QueueFile) error {
		if seen++; seen == 10 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || seen != 10 {
		t.Errorf("got %d, %v", seen, err)
	}
}

func TestOneActAtATimeButStopAtOnce(t *testing.T) {
	f := &fake{wait: make(chan struct{}), began: make(chan string, 100)}
	c, _, _ := served(t, f, nil)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if _, err := c.Hold(t.Context(), targetsOf(1), "a test"); err != nil {
				t.Error(err)
			}
		})
	}
	if what := <-f.began; what != "hold" {
		t.Fatalf("got %s", what)
	}
	wait.Go(func() {
		if _, err := c.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if what := <-f.began; what != "stop" { // while the first hold goes on
		t.Errorf("got %s", what)
	}
	close(f.wait)
	wait.Wait()
	if f.most != 1 {
		t.Errorf("%d acts at a time", f.most)
	}
}

func TestBusyServerSaysSo(t *testing.T) {
	f := &fake{wait: make(chan struct{}), began: make(chan string, 100)}
	c, _, _ := served(t, f, nil)
	var wait sync.WaitGroup
	list := func() error { return c.List(t.Context(), func(mta.QueueFile) error { return nil }) }
	for range maxParallel {
		wait.Go(func() {
			if err := list(); err != nil {
				t.Error(err)
			}
		})
	}
	for range maxParallel {
		<-f.began
	}
	if err := list(); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	wait.Go(func() { c.Stop(t.Context()) })
	if what := <-f.began; what != "stop" {
		t.Errorf("got %s", what)
	}
	close(f.wait)
	wait.Wait()
}

func TestPanicIsAnError(t *testing.T) {
	f := &fake{boom: true}
	c, log, _ := served(t, f, nil)
	results, err := c.Hold(t.Context(), targetsOf(1), "a test")
	if err != nil || len(results) != 1 || !errors.Is(results[0].Err, ErrUnsure) || strings.Contains(results[0].Err.Error(), "boom") {
		t.Errorf("got %+v, %v", results, err)
	}
	if _, err := c.Stop(t.Context()); !errors.Is(err, ErrUnsure) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(log.String(), "boom") {
		t.Errorf("the log says\n%s", log)
	}
	if _, err := keptBy(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestIdleServerEnds(t *testing.T) {
	c, _, done := served(t, &fake{}, func(s *Server) { s.Idle = 50 * time.Millisecond })
	if _, err := keptBy(t.Context(), c); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		done <- err
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}

func TestUnreachable(t *testing.T) {
	c := &Client{Path: filepath.Join(t.TempDir(), "none")}
	_, err := keptBy(t.Context(), c)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), c.Path) || !strings.Contains(err.Error(), "systemctl status relayguard-queue.socket") {
		t.Errorf("got %v", err)
	}
}

// A helper that dies in the middle, or says nonsense, is an error.
func TestBrokenAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":            "",
		"half a line":        `{"file":{"Qu`,
		"no end":             `{"result":{"id":"00000000000","fate":"done"}}` + "\n",
		"no JSON":            "hello\n",
		"another's result":   `{"result":{"id":"4F3A29","fate":"done"}}` + "\n" + `{"end":{}}` + "\n",
		"too few results":    `{"end":{}}` + "\n",
		"too many results":   strings.Repeat(`{"result":{"id":"00000000000","fate":"done"}}`+"\n", 3) + `{"end":{}}` + "\n",
		"an unknown fate":    `{"result":{"id":"00000000000","fate":"eaten"}}` + "\n" + `{"end":{}}` + "\n",
		"a line without end": strings.Repeat("a", maxResponse+1),
	} {
		path := filepath.Join(t.TempDir(), "s")
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			buf := make([]byte, 4096)
			conn.Read(buf)
			conn.Write([]byte(answer))
		}()
		results, err := (&Client{Path: path}).Hold(t.Context(), targetsOf(2), "a test")
		if err != nil || len(results) != 2 || results[1].Fate != mta.Failed || !errors.Is(results[1].Err, ErrUnsure) {
			t.Errorf("%s: got %+v, %v", name, results, err)
		}
		if told := strings.Contains(answer, aTarget(0).ID) && !strings.Contains(answer, "eaten"); told != (results[0].Fate == mta.Done) {
			t.Errorf("%s: got %+v", name, results)
		}
	}
}

// The later of several requests may fail when the first has done its part.
func TestLaterRequestFails(t *testing.T) {
	f := &fake{}
	c, _, _ := served(t, f, nil)
	first := true
	f.results = func(t mta.Target) mta.Result {
		if t.ID == aTarget(MaxTargets+5).ID {
			panic("boom")
		}
		first = false
		return mta.Result{ID: t.ID, Fate: mta.Done}
	}
	results, err := c.Hold(t.Context(), targetsOf(MaxTargets+10), "a test")
	if err != nil || len(results) != MaxTargets+10 || first {
		t.Fatalf("got %d results, %v", len(results), err)
	}
	if results[0].Fate != mta.Done || results[MaxTargets+9].Err == nil {
		t.Errorf("got %+v ... %+v", results[0], results[MaxTargets+9])
	}
}

const passedEnv = "RELAYGUARD_TEST_PASSED"

// TestPassedSocket hands a socket to a child as systemd does.
func TestPassedSocket(t *testing.T) {
	if os.Getenv(passedEnv) != "" {
		ln, err := PassedSocket()
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv("LISTEN_FDS") != "" {
			t.Error("the environment still says so")
		}
		if _, err := PassedSocket(); !errors.Is(err, ErrNoSocket) {
			t.Errorf("the second time: %v", err)
		}
		s := &Server{Operator: &fake{}, UIDs: []int{os.Getuid()}, Log: slog.New(slog.DiscardHandler), Idle: 200 * time.Millisecond}
		if err := s.Serve(t.Context(), ln); err != nil {
			t.Fatal(err)
		}
		return
	}
	if _, err := PassedSocket(); !errors.Is(err, ErrNoSocket) {
		t.Fatalf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run='^TestPassedSocket$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", passedEnv+"=1")
	cmd.ExtraFiles = []*os.File{file}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := keptBy(t.Context(), &Client{Path: path}); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the child took systemd's socket away: %v", err)
	}
}
