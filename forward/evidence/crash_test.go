package evidence_test

import (
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward/evidence"
	"relayguard/mta/maillog"
)

// realRules are those that the mail of testdata went by.
func realRules() (r rules) {
	for _, c := range realCases {
		for _, want := range c.rules {
			r = append(r, want.rule)
		}
	}
	return r
}

// everything is all that a database holds of evidence, but for its row numbers.
func everything(t *testing.T, path string) (all []string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=ro")
	must(t, err)
	defer db.Close()
	for _, query := range []string{
		`SELECT flight || '|' || rcpt || '|' || orig || '|' || queue_id || '|' || root_id || '|' || message_id || '|' || time || '|' || mail_from || '|' || outside || '|' ||
			status || '|' || dsn || '|' || relay || '|' || depth || '|' || how || '|' || sure || '|' || cited FROM mail ORDER BY 1`,
		`SELECT rule || '|' || flight || '|' || rcpt FROM cites JOIN mail ON n = mail ORDER BY 1`,
		`SELECT program || '|' || relay || '|' || first || '|' || last || '|' || mails FROM relay ORDER BY 1`,
		`SELECT day || '|' || lines FROM unclear ORDER BY 1`,
		`SELECT since || '|' || until || '|' || why FROM gap ORDER BY 1`,
	} {
		rows, err := db.Query(query)
		must(t, err)
		for rows.Next() {
			var line string
			must(t, rows.Scan(&line))
			all = append(all, line)
		}
		must(t, rows.Err())
		rows.Close()
	}
	return all
}

// merged is the recorded log of Postfix and Dovecot as one file, in the order of
// their times.
func merged(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, name := range []string{"testdata/postfix-3.7.11.log", "testdata/dovecot-2.3.19.log"} {
		data, err := os.ReadFile(name)
		must(t, err)
		lines = append(lines, strings.Split(strings.TrimRight(string(data), "\n"), "\n")...)
	}
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(a[:15], b[:15]) })
	if len(lines) < 200 {
		t.Fatalf("only %d lines in testdata", len(lines))
	}
	return lines
}

func options() evidence.Options { return evidence.Options{Now: func() time.Time { return now }} }

// readAll reads a log with its rotated files into a database.
func readAll(t *testing.T, db, log string, batch int) {
	t.Helper()
	store, err := evidence.Open(t.Context(), db, options())
	must(t, err)
	defer store.Close()
	r := realRules()
	x, err := evidence.NewTracker(store, func() evidence.Rules { return r }, evidence.TrackerOptions{Batch: batch})
	must(t, err)
	if lines, err := x.Read(t.Context(), log, time.Time{}, time.UTC); err != nil || lines == 0 {
		t.Fatalf("read %s: %d lines, %v", log, lines, err)
	}
}

// What was recorded of real servers proves each rule, also when it lies in rotated
// and compressed files; nothing is unexplained, and no line is read twice.
func TestRecordedLog(t *testing.T) {
	dir := t.TempDir()
	lines := merged(t)
	third := len(lines) / 3
	part := func(name string, lines []string) {
		text := []byte(strings.Join(lines, "\n") + "\n")
		if strings.HasSuffix(name, ".gz") {
			file, err := os.Create(filepath.Join(dir, name))
			must(t, err)
			w := gzip.NewWriter(file)
			_, err = w.Write(text)
			must(t, errors.Join(err, w.Close(), file.Close()))
			return
		}
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	part("mail.log.2.gz", lines[:third])
	part("mail.log.1", lines[third:2*third])
	part("mail.log", lines[2*third:])
	part("whole.log", lines)
	readAll(t, filepath.Join(dir, "parts.db"), filepath.Join(dir, "mail.log"), 7)
	readAll(t, filepath.Join(dir, "whole.db"), filepath.Join(dir, "whole.log"), 1000)
	got, want := everything(t, filepath.Join(dir, "parts.db")), everything(t, filepath.Join(dir, "whole.db"))
	if !slices.Equal(got, want) {
		t.Errorf("rotated files say otherwise than one:\n%s\n\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	store, err := evidence.Open(t.Context(), filepath.Join(dir, "whole.db"), options())
	must(t, err)
	defer store.Close()
	for _, r := range realRules() {
		sum, err := store.Summary(t.Context(), rules{r}.id(0))
		if err != nil || sum.Mails != 1 || sum.Since.IsZero() {
			t.Errorf("%s>%s: %+v, %v", r.owner, r.target, sum, err)
		}
	}
	flows, err := store.Unexplained(t.Context(), time.Time{})
	if err != nil || len(flows) != 0 {
		t.Errorf("unexplained: %+v, %v", flows, err)
	}
}

// A tracker that is made anew after each line, from what was committed, comes to
// the same: nothing of a message in flight is lost.
func TestRestartAfterEveryLine(t *testing.T) {
	dir := t.TempDir()
	lines := merged(t)
	log := filepath.Join(dir, "mail.log")
	must(t, os.WriteFile(log, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	readAll(t, filepath.Join(dir, "once.db"), log, 1000)
	store, err := evidence.Open(t.Context(), filepath.Join(dir, "often.db"), options())
	must(t, err)
	defer store.Close()
	r := realRules()
	var x *evidence.Tracker
	for i, line := range lines {
		x, err = evidence.NewTracker(store, func() evidence.Rules { return r }, evidence.TrackerOptions{Batch: 1})
		must(t, err)
		l, ok := maillog.ParseLine(line, now, time.UTC)
		if e := maillog.Read(l); ok && e.Kind != maillog.None {
			must(t, x.Event(e, position(t, i)))
		}
	}
	must(t, x.Finish(t.Context()))
	got, want := everything(t, filepath.Join(dir, "often.db")), everything(t, filepath.Join(dir, "once.db"))
	if !slices.Equal(got, want) {
		t.Errorf("restarts lose or double something:\n%s\n\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// crashEnv has the test binary be a follower that is killed.
const crashEnv = "RELAYGUARD_EVIDENCE_CRASH"

func TestMain(m *testing.M) {
	if setup := os.Getenv(crashEnv); setup != "" {
		var names []string
		if json.Unmarshal([]byte(setup), &names) != nil || len(names) != 2 {
			os.Exit(2)
		}
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(4) // the test ended first
		}()
		fmt.Fprintln(os.Stderr, followUntilKilled(names[0], names[1]))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// followUntilKilled follows a log and says on stdout how many events it took.
func followUntilKilled(db, log string) error {
	store, err := evidence.Open(context.Background(), db, options())
	if err != nil {
		return err
	}
	r := realRules()
	x, err := evidence.NewTracker(store, func() evidence.Rules { return r }, evidence.TrackerOptions{Batch: 3})
	if err != nil {
		return err
	}
	f, err := maillog.New(maillog.Options{Path: log, Checkpoint: store.Checkpoint(), From: time.Unix(1, 0), Gap: x.Gap,
		Now: func() time.Time { return now }, Zone: time.UTC, Poll: 10 * time.Millisecond})
	if err != nil {
		return err
	}
	return f.Run(context.Background(), func(e maillog.Event, p maillog.Position) error {
		defer fmt.Println(".")
		return x.Event(e, p)
	})
}

// events counts those of lines.
func events(lines []string) (n int) {
	for _, line := range lines {
		if l, ok := maillog.ParseLine(line, now, time.UTC); ok && maillog.Read(l).Kind != maillog.None {
			n++
		}
	}
	return n
}

// A follower that is killed again and again, between events and in the midst of
// transactions, while the log grows and is rotated, has at the end each mail once.
func TestKilledBetweenRows(t *testing.T) {
	dir := t.TempDir()
	lines := merged(t)
	log := filepath.Join(dir, "mail.log")
	db := filepath.Join(dir, "killed.db")
	setup, err := json.Marshal([]string{db, log})
	must(t, err)
	const kills = 8
	for k := range kills {
		part := lines[k*len(lines)/kills : (k+1)*len(lines)/kills]
		if k == kills/2 {
			must(t, os.Rename(log, log+".1"))
		}
		file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = file.WriteString(strings.Join(part, "\n") + "\n")
		must(t, errors.Join(err, file.Close()))
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+string(setup))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		_, err = cmd.StdinPipe() // it ends with us
		must(t, err)
		must(t, cmd.Start())
		for n, until := 0, 2*min(10+k, events(part)); n < until; { // then it dies wherever it is
			got, err := out.Read(make([]byte, 2))
			if n += got; err != nil {
				t.Fatalf("the follower ended: %v", err)
			}
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
	}
	store, err := evidence.Open(t.Context(), db, options())
	must(t, err)
	r := realRules()
	x, err := evidence.NewTracker(store, func() evidence.Rules { return r }, evidence.TrackerOptions{})
	must(t, err)
	f, err := maillog.New(maillog.Options{Path: log, Checkpoint: store.Checkpoint(), Once: true, Gap: x.Gap, Now: func() time.Time { return now }, Zone: time.UTC})
	must(t, err)
	must(t, f.Run(t.Context(), x.Event))
	must(t, x.Finish(t.Context()))
	must(t, store.Close())

	whole := filepath.Join(dir, "whole.log")
	must(t, os.WriteFile(whole, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	readAll(t, filepath.Join(dir, "once.db"), whole, 1000)
	got, want := everything(t, db), everything(t, filepath.Join(dir, "once.db"))
	if !slices.Equal(got, want) {
		t.Errorf("kills lose or double something:\n%s\n\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
