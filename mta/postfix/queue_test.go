package postfix

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"relayguard/mta"
)

const queueLine = `{"queue_name": "hold", "queue_id": "12A5D98404C", "arrival_time": 1795336393, "message_size": 288, "forced_expire": false, "sender": "a@example.org", "recipients": [{"address": "b@example.jp"}]}`

func TestParseQueueLine(t *testing.T) {
	f, err := ParseQueueLine([]byte(`{"queue_name": "deferred", "queue_id": "3Nkc9T0zcDzBsYZ", "arrival_time": 1795336393, "message_size": 288, "new_field": {"a": [1]}, "sender": "\"a\\\" b\"@x", "recipients": [{"address": "r1"}, {"address": "r2", "delay_reason": "said \u0007 no"}, {"address": "r3", "delay_reason": "other"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := mta.QueueFile{Queue: "deferred", ID: "3Nkc9T0zcDzBsYZ", Arrival: time.Unix(1795336393, 0).UTC(), Size: 288, Sender: `"a\" b"@x`, Recipients: []string{"r1", "r2", "r3"}, Reason: "said \a no"}
	if got, want := fmt.Sprintf("%+v", f), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if f, err := ParseQueueLine([]byte(strings.Replace(queueLine, "a@example.org", "MAILER-DAEMON", 1))); err != nil || f.Sender != "" {
		t.Errorf("null sender: got %+v, %v", f, err)
	}
	for what, change := range map[string][2]string{
		"no queue":         {`"queue_name": "hold", `, ``},
		"a path":           {`"hold"`, `"../etc"`},
		"no id":            {`"queue_id"`, `"id"`},
		"an option":        {`12A5D98404C`, `-r`},
		"all":              {`12A5D98404C`, `ALL`},
		"no arrival":       {`"arrival_time": 1795336393, `, ``},
		"early arrival":    {`1795336393`, `-1`},
		"late arrival":     {`1795336393`, `253402300800`},
		"too late":         {`1795336393`, `99999999999999999999`},
		"half a second":    {`1795336393`, `1.5`},
		"arrival as text":  {`1795336393`, `"1795336393"`},
		"no size":          {`"message_size": 288, `, ``},
		"negative size":    {`288`, `-288`},
		"no sender":        {`"sender": "a@example.org", `, ``},
		"cut":              {`}]}`, ``},
		"two objects":      {`}]}`, `}]}{}`},
		"raw control":      {`a@example`, "a\x01@example"},
		"recipients a map": {`[{"address": "b@example.jp"}]`, `{}`},
	} {
		line := strings.Replace(queueLine, change[0], change[1], 1)
		if f, err := ParseQueueLine([]byte(line)); err == nil || line == queueLine {
			t.Errorf("%s passed: %+v", what, f)
		}
	}
}

func TestValidQueueID(t *testing.T) {
	for id, want := range map[string]bool{
		"12A5D98404C": true, "12A5D9": true, "3Nkc9T0zcDzBsYZ": true, "4bWcVf0XyZz0": true,
		"": false, "12A5D": false, "12a5d98404c": false, "ALL": false, "-": false, "-rALL": false, "12A5D98404C ": false, "12A5D\n98404C": false,
		"../12A5D98404C": false, "3Nkc9T0zcDz": false, "3Nkc9T0acDzBsYZ": false, "short0z1": false, strings.Repeat("A", 101): false,
	} {
		if got := ValidQueueID(id); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}

func TestTargetMatches(t *testing.T) {
	at := time.Unix(1795336393, 0).UTC()
	const id = "12A5D98404C"
	for name, c := range map[string]struct {
		target mta.Target
		sender string // in the queue
		want   bool
	}{
		"decided in the same second":  {mta.Target{ID: id, Sender: "a@b", Arrival: at.Add(700 * time.Millisecond)}, "a@b", true},
		"took an hour to send":        {mta.Target{ID: id, Sender: "a@b", Arrival: at.Add(time.Hour)}, "a@b", true},
		"decided two days later":      {mta.Target{ID: id, Sender: "a@b", Arrival: at.Add(48 * time.Hour)}, "a@b", false},
		"clock set back by a second":  {mta.Target{ID: id, Sender: "a@b", Arrival: at.Add(-time.Second)}, "a@b", true},
		"reused two seconds later":    {mta.Target{ID: id, Sender: "a@b", Arrival: at.Add(-2 * time.Second)}, "a@b", false},
		"another id":                  {mta.Target{ID: id + "0", Sender: "a@b", Arrival: at}, "a@b", false},
		"another sender":              {mta.Target{ID: id, Sender: "c@b", Arrival: at}, "a@b", false},
		"another letter case":         {mta.Target{ID: id, Sender: "A@b", Arrival: at}, "a@b", false},
		"nothing known":               {mta.Target{}, "", false},
		"null sender":                 {mta.Target{ID: id, Arrival: at}, "", true},
		"null sender by its name":     {mta.Target{ID: id, Sender: "MAILER-DAEMON", Arrival: at}, "", true},
		"not the null sender":         {mta.Target{ID: id, Sender: "a@b", Arrival: at}, "", false},
		"needless quotes":             {mta.Target{ID: id, Sender: `"a\b"@c`, Arrival: at}, "ab@c", true},
		"needed quotes":               {mta.Target{ID: id, Sender: `"a b"@c`, Arrival: at}, `"a b"@c`, true},
		"quotes that never end":       {mta.Target{ID: id, Sender: `"a@c`, Arrival: at}, `a@c`, false},
		"UTF-8 kept":                  {mta.Target{ID: id, Sender: "é@c", Arrival: at}, "é@c", true},
		"UTF-8 not printed":           {mta.Target{ID: id, Sender: "é@c", Arrival: at}, "??@c", true},
		"invalid UTF-8":               {mta.Target{ID: id, Sender: "\xff@c", Arrival: at}, "?@c", true},
		"control character":           {mta.Target{ID: id, Sender: "\"\x01\"@c", Arrival: at}, `"?"@c`, true},
		"a question mark is one":      {mta.Target{ID: id, Sender: "?@c", Arrival: at}, "x@c", false},
		"exact":                       {mta.Target{ID: id, Sender: "a@b", Arrival: at, Exact: true}, "a@b", true},
		"exact, a second earlier":     {mta.Target{ID: id, Sender: "a@b", Arrival: at.Add(-time.Second), Exact: true}, "a@b", false},
		"exact, a second later":       {mta.Target{ID: id, Sender: "a@b", Arrival: at.Add(time.Second), Exact: true}, "a@b", false},
		"exact, quotes are no matter": {mta.Target{ID: id, Sender: `"a"@b`, Arrival: at, Exact: true}, "a@b", false},
	} {
		if got := c.target.Matches(mta.QueueFile{Queue: "hold", ID: id, Sender: c.sender, Arrival: at}); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	f := mta.QueueFile{Queue: "hold", ID: id, Sender: `"a b"@c`, Arrival: at}
	if !f.Target().Matches(f) {
		t.Error("a file does not match its own target")
	}
}

// endless makes a listing line by line, without ever holding it.
type endless struct {
	lines, n    int
	line        func(n int) string
	rest        []byte
	first, most uint64 // live heap at the start, and at most
}

func (l *endless) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		if l.n == l.lines {
			return 0, io.EOF
		}
		if l.n%5000 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			if l.most = max(l.most, m.HeapAlloc); l.n == 0 {
				l.first = m.HeapAlloc
			}
		}
		l.rest = []byte(l.line(l.n) + "\n")
		l.n++
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func TestScanOfAHugeQueueKeepsNothing(t *testing.T) {
	reason := strings.Repeat("x", 1000)
	in := &endless{lines: 30_000, line: func(n int) string {
		return fmt.Sprintf(`{"queue_name": "hold", "queue_id": "%05X%X", "arrival_time": %d, "message_size": 1, "sender": "a@b", "recipients": [{"address": "r", "delay_reason": "%s"}]}`, n, n, n, reason)
	}}
	seen := 0
	err := scanLines(in, func(f mta.QueueFile) error {
		if f.Arrival.Unix() != int64(seen) {
			return fmt.Errorf("got arrival %v at line %d", f.Arrival, seen)
		}
		seen++
		return nil
	})
	if err != nil || seen != in.lines {
		t.Errorf("saw %d of %d: %v", seen, in.lines, err)
	}
	if grown := int64(in.most) - int64(in.first); grown > 4<<20 {
		t.Errorf("%d octets of heap for a stream of 30 MB", grown)
	}
}

// Root reads in directories that belong to Postfix's account.
func TestOnlyCompleteFilesOfPostfixsAccountAreCopied(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	dirFile, err := root.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	s := &spool{root: root, dir: dirFile, uid: os.Getuid(), gid: os.Getgid(), opened: map[string]int{}}
	defer s.Close()
	os.Mkdir(filepath.Join(dir, "hold"), 0o700)
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "secret")
	for name, put := range map[string]func(path string) error{
		"A00001": func(path string) error { return os.WriteFile(path, nil, 0o700) },
		"A00002": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"A00003": func(path string) error { return os.Symlink(secret, path) },
		"A00004": func(path string) error { return syscall.Mkfifo(path, 0o700) },
		"A00005": func(path string) error { return os.Mkdir(path, 0o700) },
		"A00007": func(path string) error { return os.Symlink("A00001", path) },
	} {
		if err := put(filepath.Join(dir, "hold", name)); err != nil {
			t.Fatal(err)
		}
		f, _, err := s.open("hold", name)
		if f != nil {
			f.Close()
		}
		if (err == nil) != (name == "A00001") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.uid++
	if _, _, err := s.open("hold", "A00001"); err == nil {
		t.Error("copied a file of another account")
	}
}

func TestScanSkipsWhatItCannotRead(t *testing.T) {
	long := strings.Replace(queueLine, "12A5D98404C", "22A5D98404C", 1)
	long = strings.Replace(long, `{"address": "b@example.jp"}`, strings.Repeat(`{"address": "b@example.jp"}, `, maxQueueLine/28)+`{"address": "z"}`, 1)
	hostile := strings.Replace(queueLine, "a@example.org", strings.Repeat(`, \"recipients\": [`, maxQueueLine/18+1), 1)
	text := strings.Join([]string{"postqueue: warning", queueLine, "", long, hostile, strings.Replace(queueLine, "12A5D", "32A5D", 1)}, "\n") // no end of line
	var seen []string
	err := scanLines(strings.NewReader(text), func(f mta.QueueFile) error {
		seen = append(seen, fmt.Sprint(f.ID, len(f.Recipients), f.More, f.Sender))
		return nil
	})
	var skipped *mta.SkippedError
	if !errors.As(err, &skipped) || skipped.Lines != 2 || !strings.Contains(err.Error(), "2 lines") {
		t.Errorf("got %v", err)
	}
	if got, want := fmt.Sprint(seen), "[12A5D98404C1 0a@example.org 22A5D98404C0 -1a@example.org 32A5D98404C1 0a@example.org]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	stop := errors.New("stop")
	if err := scanLines(strings.NewReader(text), func(mta.QueueFile) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want what fn returned", err)
	}
	many := strings.Replace(queueLine, `{"address": "b@example.jp"}`, strings.Repeat(`{"address": "b"},`, 1499)+`{"address": "b"}`, 1)
	if f, err := ParseQueueLine([]byte(many)); err != nil || len(f.Recipients) != 1000 || f.More != 500 {
		t.Errorf("got %d recipients and %d more, %v", len(f.Recipients), f.More, err)
	}
}

func TestPostsuperMessagesInPieces(t *testing.T) {
	for size := range 40 {
		a := ackReader{verb: "removed", asked: map[string]bool{"AAAAA1": true, "AAAAA2": true}, done: map[string]bool{}, rest: capped{limit: 200}}
		text := []byte("postsuper: AAAAA1: removed\npostsuper: warning: AAAAA2: not removed\npostsuper: AAAAA3: removed\n" + strings.Repeat("x", 10_000) + "\npostsuper: Deleted: 1 message\n")
		for len(text) > 0 {
			n := min(size+1, len(text))
			a.Write(text[:n])
			text = text[n:]
		}
		if len(a.done) != 1 || !a.done["AAAAA1"] || !strings.Contains(a.rest.buf.String(), "not removed") {
			t.Fatalf("in pieces of %d: %v, %q", size+1, a.done, a.rest.buf.String())
		}
	}
}

func FuzzParseQueueLine(f *testing.F) {
	files, err := filepath.Glob("testdata/queue/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds in testdata/queue")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			f.Add(line)
		}
	}
	for _, change := range [][2]string{{"a@example.org", `\u0000\u001B[2J\n`}, {"a@example.org", "\xff\xfe"}, {"a@example.org", `\ud800`}, {"1795336393", "1e400"}, {"288", "-1"},
		{`"sender"`, `"Sender"`}, {"12A5D98404C", "-HALL"}, {`[{"address": "b@example.jp"}]`, "null"}, {`}]}`, `}`}, {`"b@example.jp"`, "7"}} {
		f.Add([]byte(strings.Replace(queueLine, change[0], change[1], 1)))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		for _, whole := range []bool{true, false} {
			q, err := parseQueueLine(line, whole)
			if !bytes.Equal(line, before) {
				t.Fatal("the line was changed")
			}
			if err != nil {
				if len(err.Error()) > 1000 {
					t.Fatalf("an error of %d octets", len(err.Error()))
				}
				continue
			}
			if !ValidQueueID(q.ID) || !queueName(q.Queue) || q.Size < 0 || q.Arrival.Unix() < 0 || q.Arrival.Year() > 9999 || len(q.Recipients) > maxRecipients || !utf8.ValidString(q.Sender) {
				t.Fatalf("%q passed as %+v", line, q)
			}
			if !q.Target().Matches(q) || !(mta.Target{ID: q.ID, Sender: q.Sender, Arrival: q.Arrival}).Matches(q) {
				t.Fatalf("%+v does not match itself", q)
			}
		}
	})
}
