package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hurry is timing for tests.
func hurry() *mapsTiming {
	return &mapsTiming{
		found: time.Minute, missing: time.Minute, refused: time.Minute, stale: time.Hour,
		settle: 5 * time.Millisecond, poll: 50 * time.Millisecond,
		forkGap: 5 * time.Millisecond, query: 5 * time.Second,
		failFirst: 50 * time.Millisecond, failMost: 100 * time.Millisecond,
	}
}

// configDir makes a configuration directory that postconf and postmap take.
func configDir(t *testing.T, mainCF string) string {
	t.Helper()
	needTool(t, "postconf")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "main.cf"), "compatibility_level=3.6\nmaillog_file=\n"+mainCF)
	writeFile(t, filepath.Join(dir, "master.cf"), "smtp inet n - n - - smtpd\n")
	return dir
}

// lacking skips a test on a laptop, and fails it where all must be there.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(Tools{}.path(name)); err != nil {
		lacking(t, "%s is not installed: %v", name, err)
	}
}

// writeFile replaces a file by an old one: Postfix's tools wait until a file is
// two seconds old before they read it, lest somebody still writes it.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path+".new", past, past); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func postmap(t *testing.T, dir, table, text string) {
	t.Helper()
	parsed, err := ParseTable(table)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, parsed.Name, text)
	if out, err := exec.Command(Tools{}.path("postmap"), "-c", dir, table).CombinedOutput(); err != nil {
		t.Fatalf("postmap %s: %v: %s", table, err, out)
	}
}

// countingTools runs the real postmap and counts how often.
func countingTools(t *testing.T, before string) (Tools, func() int) {
	t.Helper()
	needTool(t, "postmap")
	dir := t.TempDir()
	log := filepath.Join(dir, "runs")
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s\n%s\nexec %s \"$@\"\n", log, before, Tools{}.path("postmap"))
	if err := os.WriteFile(filepath.Join(dir, "postmap"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return Tools{Dir: dir}, func() int {
		text, _ := os.ReadFile(log)
		return bytes.Count(text, []byte("\n"))
	}
}

func openMaps(t *testing.T, config MapsConfig) *Maps {
	t.Helper()
	if config.timing == nil {
		config.timing = hurry()
	}
	m, err := OpenMaps(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func owners(t *testing.T, m *Maps, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	logins, err := ownersOf(ctx, m, address)
	if err != nil {
		t.Errorf("%q: %v", address, err)
	}
	return strings.Join(logins, " ")
}

func ownersOf(ctx context.Context, m *Maps, address string) ([]string, error) {
	logins, err := m.Owners(ctx, []string{address})
	return logins[0], err
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatal("never: " + what)
}

// The order of keys and the form of answers are the same for every kind of
// table, and the same as a real Postfix gives.
func TestOwnersOverEveryKindOfTable(t *testing.T) {
	const text = "Sales@Example.jp taro, Hanako\ttaro2,,x\n@example.jp post\nbob bob\nbob+list lists\nann@example.org ann\n*@x.example star\n"
	dir := configDir(t, "")
	file := filepath.Join(dir, "logins")
	for _, kind := range []string{"hash", "btree", "texthash", "lmdb", "cdb"} {
		t.Run(kind, func(t *testing.T) {
			table := kind + ":" + file
			writeFile(t, file, text)
			if kind != "texthash" { // which needs no database
				if out, err := exec.Command(Tools{}.path("postmap"), "-c", dir, table).CombinedOutput(); err != nil {
					if strings.Contains(string(out), "unsupported dictionary type") {
						lacking(t, "this Postfix has no %s (Debian package postfix-%s)", kind, kind)
					}
					t.Fatalf("%v: %s", err, out)
				}
			}
			m := openMaps(t, MapsConfig{ConfigDir: dir, Tables: table, Delimiters: "+", IsLocal: func(d string) bool { return d == "local.example" }})
			for address, want := range map[string]string{
				"sales@example.jp":        "taro hanako taro2 x",
				"SALES@EXAMPLE.JP":        "taro hanako taro2 x",
				"sales+x@example.jp":      "taro hanako taro2 x",
				"other@example.jp":        "post",
				"bob@local.example":       "bob",
				"bob+a@local.example":     "bob",
				"bob+list@local.example":  "lists",
				"bob@elsewhere.example":   "",
				"ann@example.org":         "ann",
				"ann+@example.org":        "",
				"nobody@example.org":      "",
				"":                        "",
				"@":                       "",
				"bob":                     "bob",
				"sales@example.jp\nbob":   "",
				"bob\x00":                 "",
				"\xff@example.org":        "",
				strings.Repeat("x", 5000): "",
			} {
				if got := owners(t, m, address); got != want {
					t.Errorf("%.40q: got %q, want %q", address, got, want)
				}
			}
			listed := kind != "cdb" // which Postfix cannot list
			if s := m.Tables()[0]; s.Listed != listed || s.Err != nil || listed && s.Entries != 6 {
				t.Errorf("state %+v", s)
			}
		})
	}
}

func TestOwnersOfAskedTables(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)\\+.*@ex\\.jp$/ ext-$1\n/^(.*)@ex\\.jp$/ $1, Boss\n/^@/ never\n/^bob$/ never\n")
	inline := "inline:{{a@b.jp = one two}, c@d.jp=three}"
	m := openMaps(t, MapsConfig{ConfigDir: dir, Delimiters: "+",
		Tables:  "regexp:" + re + ", " + inline + " proxy:texthash:" + filepath.Join(dir, "more") + " unionmap:{static:x,inline:{u@v.jp=y}}",
		IsLocal: func(string) bool { return true }})
	writeFile(t, filepath.Join(dir, "more"), "bob pat\n")
	eventually(t, "texthash that came later", func() bool {
		for _, s := range m.Tables() {
			if s.Listed && s.Err != nil {
				return false
			}
		}
		return true
	})
	for address, want := range map[string]string{
		"taro@ex.jp":    "taro boss",
		"taro+1@ex.jp":  "ext-taro",
		"a@b.jp":        "one two",
		"c@d.jp":        "three",
		"u@v.jp":        "x y",
		"bob@nosuch.jp": "x",
	} {
		if got := owners(t, m, address); got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
	}
}

func TestOwnersStatic(t *testing.T) {
	m := openMaps(t, MapsConfig{Tables: "static:{A b}"})
	if got := owners(t, m, "x@y"); got != "a b" {
		t.Errorf("got %q", got)
	}
}

func TestParseTablesRefuses(t *testing.T) {
	for _, bad := range []string{"hash", ":x", "hash:", "-q:x", "ha sh:x y", "h/a:x", "hash:/a\x01", "{hash:/a", "hash:/a}", "hash:/\xff"} {
		if got, err := ParseTables(bad); err == nil {
			t.Errorf("%q passed as %v", bad, got)
		}
	}
}

// A batch that found nothing and a table that cannot be asked both end with
// status 1.
func TestMissIsNotAFailure(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^a@/ a\n")
	m := openMaps(t, MapsConfig{ConfigDir: dir, Tables: "regexp:" + re})
	if got := owners(t, m, "b@x"); got != "" {
		t.Errorf("got %q", got)
	}
	for _, table := range []string{"fail:x", "nosuchtype:/x", "hash:" + filepath.Join(dir, "nosuch")} {
		m := openMaps(t, MapsConfig{ConfigDir: dir, Tables: table})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if got, err := ownersOf(ctx, m, "b@x"); err == nil || errors.Is(err, ErrSlow) {
			t.Errorf("%s: got %q, %v, want its failure", table, got, err)
		}
		cancel()
		if m.Tables()[0].Err == nil {
			t.Errorf("%s: state without error", table)
		}
	}
}

func TestManyLookupsFewForks(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)@ex\\.jp$/ $1\n")
	tools, runs := countingTools(t, "")
	timing := hurry()
	timing.forkGap = 20 * time.Millisecond
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + re, timing: timing})
	began := time.Now()
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("u%d", (i+g)%60)
				if got := owners(t, m, name+"@ex.jp"); got != name {
					t.Errorf("got %q, want %q", got, name)
				}
				if got := owners(t, m, name+"@none.jp"); got != "" {
					t.Errorf("got %q, want none", got)
				}
			}
		})
	}
	wg.Wait()
	most := int(time.Since(began)/timing.forkGap) + 1
	if n := runs(); n > most {
		t.Errorf("%d runs of postmap in %v", n, time.Since(began))
	}
	before := runs()
	for range 1000 {
		owners(t, m, "u1@ex.jp")
	}
	if runs() != before {
		t.Error("cached answers were asked again")
	}
}

// Each form of an address is a question. Together they must not take longer
// than one, for policy waits a second for all of them.
func TestManyAddressesOneFork(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^news-7@ex\\.jp$/ seven\n/^news-30@ex\\.jp$/ thirty\n")
	tools, runs := countingTools(t, "")
	timing := hurry()
	timing.forkGap = time.Hour // a second run would never come
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "inline:{news-1@ex.jp=one}, regexp:" + re + ", unionmap:{inline:{@ex.jp=Post}}", Delimiters: "+", timing: timing})
	var addresses []string
	for n := range 40 {
		addresses = append(addresses, fmt.Sprintf("news-%d@ex.jp", n), fmt.Sprintf("news-%d+x@other.jp", n))
	}
	addresses = append(addresses, "@ex.jp", "", "news-7@EX.jp", "news-7@ex.jp")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := m.Owners(ctx, addresses)
	if err != nil || len(got) != len(addresses) {
		t.Fatalf("%d results, %v", len(got), err)
	}
	named := map[string]string{"news-1@ex.jp": "one", "news-7@ex.jp": "seven", "news-30@ex.jp": "thirty", "": ""}
	for i, a := range addresses {
		want, ok := named[strings.ToLower(a)]
		if !ok && strings.HasSuffix(a, "@ex.jp") {
			want = "post"
		}
		if strings.Join(got[i], " ") != want {
			t.Errorf("%q: got %q, want %q", a, got[i], want)
		}
	}
	if n := runs(); n != 3 { // one lists the inline table
		t.Errorf("postmap ran %d times, want once for each table", n)
	}
}

func TestWhatMemoryAnswersIsNotAsked(t *testing.T) {
	dir := configDir(t, "")
	tools, runs := countingTools(t, "")
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "inline:{a@ex.jp=one} unionmap:{inline:{b@ex.jp=two}}"})
	before := runs()
	if got := owners(t, m, "a@ex.jp"); got != "one" || runs() != before {
		t.Errorf("got %q after %d runs of postmap", got, runs()-before)
	}
	if got := owners(t, m, "b@ex.jp"); got != "two" {
		t.Errorf("got %q", got)
	}
	before = runs()
	if got := owners(t, m, "b@ex.jp"); got != "two" || runs() != before { // nor @ex.jp behind it
		t.Errorf("got %q after %d runs of postmap", got, runs()-before)
	}
}

// The error is the first address's; of others that are not known yet there is
// no answer.
func TestOwnersTellsWhatItKnows(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)@ex\\.jp$/ $1\n")
	tools, _ := countingTools(t, "")
	timing := hurry()
	timing.forkGap = time.Hour
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + re, timing: timing})
	owners(t, m, "known@ex.jp")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if got, err := m.Owners(ctx, []string{"known@ex.jp", "new@ex.jp", "KNOWN@ex.jp"}); err != nil || !slices.Equal(got[0], []string{"known"}) || got[1] != nil || !slices.Equal(got[2], got[0]) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := m.Owners(ctx, []string{"new@ex.jp", "known@ex.jp"}); !errors.Is(err, ErrSlow) || got[0] != nil || !slices.Equal(got[1], []string{"known"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

// refusing ends as postmap does where a database takes no key with "bad" in it
// (MySQL: illegal mix of collations).
const refusing = `cat >$0.in.$$; if grep -q bad $0.in.$$; then echo 'postmap: fatal: illegal mix of collations' >&2; exit 1; fi; exec <$0.in.$$`

// One key that the database refuses is its sender's own trouble.
func TestRefusedKeyFailsAlone(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)@ex\\.jp$/ $1\n")
	for _, bad := range []string{"bad@ex.jp", "bad\U0001f600@ex.jp"} {
		for name, failFirst := range map[string]time.Duration{"a pause would not end": time.Hour, "asked for a known key": time.Nanosecond} {
			t.Run(bad+" "+name, func(t *testing.T) {
				tools, runs := countingTools(t, refusing)
				timing := hurry()
				timing.failFirst, timing.failMost = failFirst, time.Hour
				var log safeBuffer
				m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + re, timing: timing, Log: slog.New(slog.NewTextHandler(&log, nil))})
				addresses := []string{bad}
				for n := range 20 {
					addresses = append(addresses, fmt.Sprintf("u%d@ex.jp", n))
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				got, err := m.Owners(ctx, addresses)
				if err == nil || !strings.Contains(err.Error(), "collations") || got[0] != nil {
					t.Errorf("%s: got %q, %v", bad, got[0], err)
				}
				for n := range 20 {
					if want := fmt.Sprint("u", n); strings.Join(got[n+1], " ") != want {
						t.Errorf("got %q, want %q", got[n+1], want)
					}
				}
				before := runs()
				if _, err := ownersOf(ctx, m, bad); err == nil || runs() != before {
					t.Errorf("asked for it again: %v", err)
				}
				for n := range 5 { // many such keys are no reason either
					if _, err := ownersOf(ctx, m, fmt.Sprint(n, bad)); err == nil {
						t.Error("a key that is refused has an owner")
					}
				}
				if got := owners(t, m, "new@ex.jp"); got != "new" {
					t.Errorf("got %q", got)
				}
				if text := log.String(); strings.Count(text, "refuses a key") != 1 || strings.Contains(text, "does not answer") {
					t.Errorf("log:\n%s", text)
				}
			})
		}
	}
}

// A table that never had an answer: the second key that fails alone ends it.
func TestTableThatIsNoneIsNotAskedKeyByKey(t *testing.T) {
	dir := configDir(t, "")
	tools, runs := countingTools(t, "")
	timing := hurry()
	timing.failFirst, timing.failMost = time.Hour, time.Hour
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + filepath.Join(dir, "nosuch"), timing: timing})
	var addresses []string
	for n := range 300 {
		addresses = append(addresses, fmt.Sprintf("u%d@ex.jp", n))
	}
	if _, err := m.Owners(context.Background(), addresses); err == nil {
		t.Error("no error")
	}
	if n := runs(); n > 4 {
		t.Errorf("postmap ran %d times", n)
	}
}

func TestSlowTableEndsAtTheDeadline(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)@ex\\.jp$/ $1\n")
	tools, _ := countingTools(t, "sleep 0.3")
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + re})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := ownersOf(ctx, m, "a@ex.jp"); !errors.Is(err, ErrSlow) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("took %v", took)
	}
	eventually(t, "answer for the next message", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		logins, err := ownersOf(ctx, m, "a@ex.jp")
		return err == nil && slices.Equal(logins, []string{"a"})
	})
}

func TestFullQueueIsSlowAtOnce(t *testing.T) {
	dir := configDir(t, "")
	tools, _ := countingTools(t, "sleep 60")
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:/nosuch"})
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range maxQueue {
		if _, err := ownersOf(gone, m, fmt.Sprintf("u%d@x", i)); !errors.Is(err, ErrSlow) {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if _, err := ownersOf(context.Background(), m, "one-more@x"); !errors.Is(err, ErrSlow) {
		t.Fatal(err)
	}
	if time.Since(began) > time.Second {
		t.Error("waited")
	}
	done := make(chan struct{})
	go func() { m.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("Close waits for postmap")
	}
}

// A table server that is down: known answers go on, new questions fail at once
// and it is not hammered.
func TestFailingTable(t *testing.T) {
	dir := configDir(t, "")
	re, down := filepath.Join(dir, "re"), filepath.Join(dir, "down")
	writeFile(t, re, "/^(.*)@ex\\.jp$/ $1\n")
	tools, runs := countingTools(t, "if [ -e "+down+" ]; then echo 'postmap: fatal: table is down' >&2; exit 1; fi")
	timing := hurry()
	timing.found, timing.missing = 20*time.Millisecond, 20*time.Millisecond
	timing.failFirst, timing.failMost = 200*time.Millisecond, 200*time.Millisecond
	var log safeBuffer
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + re, timing: timing, Log: slog.New(slog.NewTextHandler(&log, nil))})
	owners(t, m, "known@ex.jp")
	writeFile(t, down, "")
	known := runs()
	eventually(t, "the known answer has aged, and was asked for again", func() bool {
		if got := owners(t, m, "known@ex.jp"); got != "known" {
			t.Fatalf("got %q", got)
		}
		return runs() > known
	})
	before, began := runs(), time.Now()
	for i := range 200 {
		if _, err := ownersOf(context.Background(), m, fmt.Sprintf("new%d@ex.jp", i)); err == nil || !strings.Contains(err.Error(), "table is down") {
			t.Fatalf("got %v", err)
		}
	}
	if n := runs() - before; n > 2*(int(time.Since(began)/timing.failFirst)+1) { // a new key, and the known one
		t.Errorf("%d runs in %v", n, time.Since(began))
	}
	os.Remove(down)
	eventually(t, "answers again", func() bool {
		logins, err := ownersOf(context.Background(), m, "new1@ex.jp")
		return err == nil && len(logins) == 1
	})
	if text := log.String(); strings.Count(text, "does not answer") != 1 || strings.Count(text, "answers again") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

func TestListedTableFollowsItsFile(t *testing.T) {
	dir := configDir(t, "")
	table := "hash:" + filepath.Join(dir, "logins")
	postmap(t, dir, table, "a@x.jp one\n")
	var log safeBuffer
	tools, runs := countingTools(t, "")
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: table, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if got := owners(t, m, "a@x.jp"); got != "one" {
		t.Fatalf("got %q", got)
	}
	postmap(t, dir, table, "a@x.jp two\n")
	eventually(t, "new value", func() bool { return owners(t, m, "a@x.jp") == "two" })

	writeFile(t, filepath.Join(dir, "logins.db"), "this is no database\n")
	eventually(t, "complaint", func() bool { return strings.Contains(log.String(), "lookup table not read") })
	tries := runs()
	eventually(t, "more tries", func() bool { return runs() > tries+2 })
	if got := owners(t, m, "a@x.jp"); got != "two" {
		t.Errorf("old contents lost: %q", got)
	}
	if n := strings.Count(log.String(), "lookup table not read"); n != 1 {
		t.Errorf("complained %d times", n)
	}
	os.Remove(filepath.Join(dir, "logins.db"))
	postmap(t, dir, table, "a@x.jp three\n")
	eventually(t, "whole again", func() bool { return owners(t, m, "a@x.jp") == "three" })
}

// Lookups race with a table that is rewritten all the time: each sees one of
// its states, never a missing entry.
func TestLookupsRaceWithChanges(t *testing.T) {
	dir := configDir(t, "")
	table := "texthash:" + filepath.Join(dir, "logins")
	write := func(i int) {
		writeFile(t, filepath.Join(dir, "logins"), fmt.Sprintf("a@x.jp v%d\nb@x.jp v%d\n", i, i))
	}
	write(0)
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)@re\\.jp$/ $1\n")
	m := openMaps(t, MapsConfig{ConfigDir: dir, Tables: table + " regexp:" + re})
	var stop atomic.Bool
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if got := owners(t, m, "a@x.jp"); !strings.HasPrefix(got, "v") {
					t.Errorf("got %q", got)
					return
				}
				if i%100 == 0 {
					owners(t, m, fmt.Sprintf("u%d-%d@re.jp", g, i))
				}
				m.Tables()
			}
		})
	}
	for i := 1; i <= 30; i++ {
		write(i)
		time.Sleep(10 * time.Millisecond)
	}
	eventually(t, "last state", func() bool { return owners(t, m, "b@x.jp") == "v30" })
	stop.Store(true)
	wg.Wait()
}

func TestAnswersForKeysNobodyAskedAreRefused(t *testing.T) {
	batch := []*question{{key: "a@x"}, {key: "b@x"}, {key: "c@x"}}
	got, err := parseAnswers("a@x\t1\nc@x\t3\n", batch)
	if err != nil || got["a@x"] != "1" || got["c@x"] != "3" || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"d@x\t1\n", "c@x\t3\na@x\t1\n", "a@x\t1\na@x\t2\n", "a@x\t1\nrest of a value\n", "\n"} {
		if got, err := parseAnswers(text, batch); err == nil {
			t.Errorf("%q passed as %v", text, got)
		}
	}
}

func TestLRUIsBounded(t *testing.T) {
	c := newLRU(3)
	for i := range 100 {
		c.put(fmt.Sprint(i), answer{value: fmt.Sprint(i)})
		c.get("0")
	}
	if _, ok := c.get("0"); !ok || c.len() != 3 || c.order.Len() != 3 {
		t.Errorf("%d entries, used last kept: %v", c.len(), ok)
	}
}

type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func BenchmarkOwnersListed(b *testing.B) {
	m, err := OpenMaps(context.Background(), MapsConfig{Tables: "inline:{a@x.jp=one}", Delimiters: "+"})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	address := []string{"a@x.jp"}
	b.ReportAllocs()
	for b.Loop() {
		m.Owners(context.Background(), address)
	}
}
