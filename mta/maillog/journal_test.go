package maillog

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// journalLine is what journalctl writes for line(n).
func journalLine(n int) string {
	l, _ := ParseLine(strings.TrimSuffix(line(n), "\n"), now, time.UTC)
	return fmt.Sprintf(`{"__CURSOR":"s=aa;i=%x","__REALTIME_TIMESTAMP":"%d","_UID":"102","_PID":"7","SYSLOG_PID":"1","_HOSTNAME":"mx","SYSLOG_IDENTIFIER":"%s","MESSAGE":"%s"}`+"\n",
		n, l.Time.UnixMicro(), l.Tag, l.Text)
}

func journalLines(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		b.WriteString(journalLine(n))
	}
	return b.String()
}

// fakeJournal is a directory in which a shell script plays journalctl: it
// notes its arguments, writes the file "out" (with "once" a later run writes
// nothing), and ends, or stays if "stay" is there.
func fakeJournal(t *testing.T, out string) (dir, program string) {
	t.Helper()
	dir = t.TempDir()
	program = filepath.Join(dir, "journalctl")
	script := `#!/bin/sh
cd "` + dir + `" || exit 1
echo "$@" >>args
cat out
rm -f out; touch out
test -e err && { cat err >&2; exit 1; }
test -e stay && exec sleep 60
exit 0
`
	for name, content := range map[string]string{"journalctl": script, "out": out, "stay": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir, program
}

func journalReader(t *testing.T, program string, change func(*Options)) *reader {
	return startReader(t, Options{Journal: true, Journalctl: program}, change)
}

func arguments(t *testing.T, dir string) string {
	t.Helper()
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		t.Fatal(err)
	}
	return string(args)
}

func TestJournalFromItsEndAndOn(t *testing.T) {
	dir, program := fakeJournal(t, journalLines(3_600_001, 3_600_005))
	r := journalReader(t, program, nil)
	r.want(ids(3_600_001, 3_600_005)...)
	r.until("the position", func() bool { return r.Position().ID() == "s=aa;i=36ee85" })
	checkpoint := r.stop()
	args := arguments(t, dir)
	if since := fmt.Sprintf("--since=@%d", now.Add(time.Hour).Unix()); !strings.Contains(args, since) || strings.Contains(args, "cursor") {
		t.Errorf("arguments %s", args)
	}
	// On from the checkpoint: its entry is the first and comes not again.
	dir, program = fakeJournal(t, journalLines(3_600_005, 3_600_007))
	r = journalReader(t, program, func(o *Options) { o.Checkpoint = checkpoint })
	r.want(ids(3_600_006, 3_600_007)...)
	r.stop()
	r.wantNone()
	// Without --merge journalctl --follow shows nothing from before a reboot.
	if args := arguments(t, dir); !strings.Contains(args, "--cursor=s=aa;i=36ee85 ") || !strings.Contains(args, " --merge ") {
		t.Errorf("arguments %s", args)
	}
}

func TestJournalThatLostTheEntryIsAGap(t *testing.T) {
	checkpoint := Position{At: now, cursor: "s=aa;i=1"}.String()
	_, program := fakeJournal(t, journalLines(5, 7))
	r := journalReader(t, program, func(o *Options) { o.Checkpoint = checkpoint })
	r.want(ids(5, 7)...)
	if gap := r.wantGap(); !gap.From.Equal(now) || !gap.To.Equal(now.Add(5*time.Millisecond)) {
		t.Errorf("gap %+v", gap)
	}
	r.stop()
	r.wantNone()
}

func TestJournalThatRefusesTheCursor(t *testing.T) {
	dir, program := fakeJournal(t, "")
	if err := os.WriteFile(filepath.Join(dir, "err"), []byte("Failed to seek to cursor: Invalid argument\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := journalReader(t, program, func(o *Options) { o.Checkpoint = Position{At: now, cursor: "bad"}.String() })
	r.until("the other start", func() bool { return r.Position() == Position{At: now} })
	if err := errors.Join(os.Remove(filepath.Join(dir, "err")), os.WriteFile(filepath.Join(dir, "out"), []byte(journalLines(1, 2)), 0o600)); err != nil {
		t.Fatal(err)
	}
	r.want(ids(1, 2)...)
	r.wantGap()
	r.stop()
	if args := arguments(t, dir); !strings.Contains(args, fmt.Sprintf("--since=@%d", now.Unix())) {
		t.Errorf("arguments %s", args)
	}
}

func TestJournalctlIsStartedAgain(t *testing.T) {
	dir, program := fakeJournal(t, journalLines(1, 3))
	if err := os.Remove(filepath.Join(dir, "stay")); err != nil {
		t.Fatal(err)
	}
	r := journalReader(t, program, func(o *Options) { o.From = now })
	r.want(ids(1, 3)...)
	r.until("the second start", func() bool { return strings.Count(arguments(t, dir), "\n") == 2 })
	r.stop()
	r.wantNone()
	if args := arguments(t, dir); !strings.Contains(args, "--cursor=s=aa;i=3 ") {
		t.Errorf("arguments %s", args)
	}
}

func TestJournalBelievesTheUIDsAlone(t *testing.T) {
	forged := strings.Replace(journalLine(2), `"_UID":"102"`, `"_UID":"33"`, 1)
	unknown := strings.Replace(journalLine(3), `"_UID":"102",`, ``, 1)
	_, program := fakeJournal(t, journalLine(1)+forged+unknown+"{broken\n"+journalLine(4))
	r := journalReader(t, program, func(o *Options) { o.From, o.UIDs = now, []int{0, 102} })
	r.want(id(1), id(4))
	r.stop()
	r.wantNone()
	if c := r.Counts(); c.Foreign != 3 {
		t.Errorf("counts %+v", c)
	}
}

func TestJournalEntries(t *testing.T) {
	const frame = `{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1795336713123456","SYSLOG_IDENTIFIER":"postfix/qmgr","MESSAGE":%s}`
	for message, want := range map[string]string{
		`"2E117986156: removed"`:                "2E117986156: removed",
		`[50,69,255,10,65]`:                     "2E??A",
		`["first","second"]`:                    "first",
		`[[65,66],"second"]`:                    "AB",
		`null`:                                  "",
		`[300]`:                                 "",
		`"a\nNov 22 08:00:01 mx postfix/qmgr:"`: "a?Nov 22 08:00:01 mx postfix/qmgr:",
		`{"a":1}`:                               "",
	} {
		e, err := parseEntry(fmt.Appendf(nil, frame, message))
		if err != nil || e.line.Text != want || e.line.Time.UnixMicro() != 1795336713123456 || e.uid != -1 {
			t.Errorf("%s: %+v, %v", message, e, err)
		}
	}
	for _, bad := range []string{"", "null", "[]", "{}", `{"__CURSOR":"a b","__REALTIME_TIMESTAMP":"1"}`, `{"__CURSOR":"a"}`, `{"__CURSOR":"a","__REALTIME_TIMESTAMP":"-1"}`} {
		if e, err := parseEntry([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, e)
		}
	}
}

func FuzzJournalEntry(f *testing.F) {
	f.Add([]byte(strings.TrimSuffix(journalLine(1), "\n")))
	f.Add([]byte(`{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1","_UID":"0","MESSAGE":[50,69,255,10]}`))
	f.Add([]byte(`{"__CURSOR":["c","d"],"__REALTIME_TIMESTAMP":"1","MESSAGE":[[1],[2]],"SYSLOG_IDENTIFIER":"postfix/qmgr"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseEntry(data)
		if err != nil {
			return
		}
		p := Position{At: e.line.Time, cursor: e.cursor}
		if back, err := ParsePosition(p.String()); err != nil || back != p {
			t.Fatalf("position %q reads back as %q: %v", p, back, err)
		}
		if strings.ContainsAny(e.line.Text+e.line.Tag+e.line.Host, "\r\n") || e.line.Tag == "" || !json.Valid(data) {
			t.Fatalf("entry %+v", e)
		}
		_ = Postfix(e.line)
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("file 1795336713123456 fe01 2a 0123456789abcdef 4711")
	f.Add("journal 1795336713123456 s=06;i=48")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePosition(s)
		if err != nil {
			return
		}
		if back, err := ParsePosition(p.String()); err != nil || back != p {
			t.Fatalf("%q reads back as %q: %v", s, back, err)
		}
	})
}

func TestWhatIsDegradedIsSaidOnce(t *testing.T) {
	var out lockedText
	d := newLog(t)
	d.check(os.Mkdir(d.path, 0o700)) // no log can be read from it
	r := startReader(t, Options{Path: d.path, Poll: time.Millisecond}, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&out, nil))
		o.Checkpoint = Position{At: now}.String()
	})
	r.until("the warning", func() bool { return strings.Contains(out.String(), "level=WARN") })
	d.check(os.Remove(d.path))
	d.write("", line(1))
	r.want(id(1))
	r.stop()
	if n := strings.Count(out.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, out.String())
	}
}

// lockedText is a log that can be read while it is written.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
