package switches_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relayguard/cmd/internal/switches"
	"relayguard/policy"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func suspend(login string) policy.Switch {
	return policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: login, Reason: "phished", By: "ops", Since: now}
}

func open(t *testing.T, path string, at time.Time) (*switches.File, *policy.Board) {
	t.Helper()
	board := new(policy.Board)
	f, err := switches.Open(path, board, at)
	if err != nil {
		t.Fatal(err)
	}
	return f, board
}

func set(t *testing.T, f *switches.File, s policy.Switch) policy.Switch {
	t.Helper()
	s, err := f.Set(s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// abouts lists what is in force on a board.
func abouts(b *policy.Board) string {
	all := []string{}
	for _, s := range b.Load().All() {
		all = append(all, string(s.Kind)+" "+s.About())
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

func TestOrdersOutliveTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, board := open(t, path, now)
	if len(f.All(now)) != 0 || board.Load() == nil {
		t.Error("a file that is not there has switches")
	}
	stop := policy.Switch{Kind: policy.Stop, Reason: "\"<&>\u2028日本", By: "ops", Since: now}
	taro := suspend("Taro@example.jp")
	taro.Until = now.Add(time.Hour)
	allow := policy.Switch{Kind: policy.Allow, Subject: policy.SubjectTrusted, Value: "web", Rule: "machine-volume", Reason: "newsletter", Since: now.Add(time.Second)}
	for _, s := range []*policy.Switch{&stop, &taro, &allow} {
		*s = set(t, f, *s)
		if s.ID == "" {
			t.Error("a switch without an id")
		}
	}
	again, board := open(t, path, now)
	if got := abouts(board); got != "allow network:web,stop ,suspend login:taro@example.jp" {
		t.Errorf("in force: %s", got)
	}
	all := again.All(now)
	for i, want := range []policy.Switch{stop, taro, allow} {
		if !slices.ContainsFunc(all, func(s policy.Switch) bool { return reflect.DeepEqual(s, want) }) {
			t.Errorf("switch %d is not as it was: %+v", i, want)
		}
	}
	// It is over, and somebody has to be told: sendmail(1) may refuse an account.
	if later, _ := open(t, path, taro.Until); len(later.All(taro.Until)) != 2 || len(later.Over(taro.Until)) != 1 {
		t.Error("a term that ended while the daemon was dead goes on")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestTwoAboutTheSameAreOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, board := open(t, path, now)
	first := set(t, f, suspend("taro@example.jp"))
	second := set(t, f, suspend(" TARO@example.jp"))
	if first.ID == second.ID || len(f.All(now)) != 1 || board.Load().All()[0].ID != second.ID {
		t.Errorf("%+v", f.All(now))
	}
	for _, rule := range []string{"a", "b", "a"} {
		set(t, f, policy.Switch{Kind: policy.Allow, Subject: policy.SubjectLogin, Value: "taro", Rule: rule})
	}
	if len(f.All(now)) != 3 {
		t.Errorf("%+v", f.All(now))
	}
	// In a file that somebody edited, too: or taking one back would leave the other.
	text := `{"switches":[{"id":"s1","kind":"suspend","subject":"login","value":"a"},{"id":"s2","kind":"suspend","subject":"login","value":"A"}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, board = open(t, path, now)
	gone, err := f.Remove(func(s policy.Switch) bool { return s.ID == "s2" })
	if err != nil || len(gone) != 1 || abouts(board) != "" {
		t.Errorf("%v, %v, left %q", gone, err, abouts(board))
	}
}

func TestRemoveAndSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, board := open(t, path, now)
	for i, login := range []string{"a", "b", "c"} {
		s := suspend(login)
		if i > 0 {
			s.Until = now.Add(time.Duration(i) * time.Hour)
		}
		set(t, f, s)
	}
	before, _ := os.Stat(path)
	if gone, err := f.Sweep(now.Add(time.Hour-1), nil); len(gone) != 0 || err != nil {
		t.Errorf("a nanosecond early: %v, %v", gone, err)
	}
	if gone, err := f.Remove(func(policy.Switch) bool { return false }); gone != nil || err != nil {
		t.Errorf("%v, %v", gone, err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("what is unchanged is written again")
	}
	if gone, err := f.Sweep(now.Add(time.Hour), nil); len(gone) != 1 || gone[0].Value != "b" || err != nil {
		t.Errorf("%v, %v", gone, err)
	}
	if abouts(board) != "suspend login:a,suspend login:c" || len(f.All(now.Add(3*time.Hour))) != 1 {
		t.Errorf("left %q", abouts(board))
	}
	if _, board = open(t, path, now); abouts(board) != "suspend login:a,suspend login:c" {
		t.Errorf("after a restart %q", abouts(board))
	}
}

func TestWhatIsNoSwitchIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, board := open(t, path, now)
	for _, s := range []policy.Switch{{}, suspend(""), suspend("a\nb"), {Kind: policy.Deny, Subject: policy.SubjectNetwork, Value: "x/8"}} {
		if _, err := f.Set(s); err == nil {
			t.Errorf("%+v is set", s)
		}
	}
	if _, err := os.Stat(path); err == nil || abouts(board) != "" {
		t.Error("something is in force")
	}
}

// What can be understood of a broken file goes on to be in force: one bad line
// must not let a stolen login send again.
func TestBrokenFileIsPutAside(t *testing.T) {
	const good = `{"id":"s1","kind":"suspend","subject":"login","value":"taro","reason":"x","by":"y","since":"2026-03-02T09:00:00Z"}`
	for name, c := range map[string]struct {
		text string
		left string
	}{
		"empty":              {"", ""},
		"zeros":              {"\x00\x00\x00\x00", ""},
		"another form":       {`[1,2]`, ""},
		"another key":        {`{"orders":[` + good + `]}`, ""},
		"a string":           {`{"switches":"x"}`, ""},
		"cut off":            {`{"switches":[` + good + `,{"id":"s2","ki`, "suspend login:taro"},
		"cut off at the end": {`{"switches":[` + good, "suspend login:taro"},
		"one of a new kind":  {`{"switches":[{"kind":"shadow","value":"x"},` + good + `]}`, "suspend login:taro"},
		"one of no kind":     {`{"switches":[null,` + good + `]}`, "suspend login:taro"},
		"a bad time":         {`{"switches":[{"kind":"stop","since":"yesterday"},` + good + `]}`, "suspend login:taro"},
		"a bad network":      {`{"switches":[{"kind":"deny","subject":"network","value":"::ffff:1.2.3.4/100"},` + good + `]}`, "suspend login:taro"},
		"control characters": {`{"switches":[{"kind":"suspend","subject":"login","value":"a\u001b[2Jb"},` + good + `]}`, "suspend login:taro"},
		"more behind":        {`{"switches":[` + good + `]} x`, "suspend login:taro"},
		"another object":     {`{"switches":[` + good + `]}{"switches":[]}`, "suspend login:taro"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "switches.json")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			board := new(policy.Board)
			f, err := switches.Open(path, board, now)
			if err == nil || f == nil {
				t.Fatalf("%v, %v", f, err)
			}
			asides, _ := filepath.Glob(path + ".broken-*")
			if len(asides) != 1 || !strings.Contains(err.Error(), asides[0]) {
				t.Fatalf("aside is %q: %v", asides, err)
			}
			if kept, _ := os.ReadFile(asides[0]); string(kept) != c.text {
				t.Errorf("aside is %q", kept)
			}
			if abouts(board) != c.left {
				t.Errorf("in force %q, want %q", abouts(board), c.left)
			}
			set(t, f, suspend("hanako"))
			if _, board = open(t, path, now); !strings.Contains(abouts(board), "hanako") || !strings.Contains(abouts(board), c.left) {
				t.Errorf("after a restart %q", abouts(board))
			}
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil { // broken again in the same second
				t.Fatal(err)
			}
			if _, err := switches.Open(path, board, now); err == nil {
				t.Error("the second time it is not told")
			}
			if asides, _ := filepath.Glob(path + ".broken-*"); len(asides) != 2 {
				t.Errorf("asides %q", asides)
			}
		})
	}
	for _, text := range []string{`{"switches":null}`, `{"switches":[]}`, ` { "switches" : [ ] } `} {
		path := filepath.Join(t.TempDir(), "switches.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		open(t, path, now)
	}
}

func TestWriteThatWasCutOffHarmsNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "switches.json")
	f, _ := open(t, path, now)
	set(t, f, suspend("taro"))
	for _, name := range []string{".new-123", ".new-"} {
		if err := os.WriteFile(path+name, []byte(`{"switches":[`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "other.new-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, board := open(t, path, now)
	if abouts(board) != "suspend login:taro" {
		t.Errorf("in force %q", abouts(board))
	}
	set(t, f, suspend("hanako"))
	entries, _ := os.ReadDir(dir)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"other.new-1", "switches.json"}) {
		t.Errorf("the directory has %q", names)
	}
}

func TestOrderThatCannotBeWrittenIsInForceAndWrittenLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "switches.json")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, board := open(t, path, now)
	set(t, f, suspend("hanako"))
	if err := os.Rename(dir, dir+".away"); err != nil { // as root one may write everywhere, but not under a file
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := f.Set(suspend("taro"))
	if err == nil || errors.Is(err, switches.ErrFull) || !strings.Contains(err.Error(), "in force") || s.ID == "" || abouts(board) != "suspend login:hanako,suspend login:taro" {
		t.Errorf("%v; in force %q", err, abouts(board))
	}
	if gone, err := f.Remove(func(s policy.Switch) bool { return s.Value == "hanako" }); err == nil || len(gone) != 1 || abouts(board) != "suspend login:taro" {
		t.Errorf("%v, %v; in force %q", gone, err, abouts(board))
	}
	for i := range 100 { // every second, without a word
		if gone, err := f.Sweep(now.Add(time.Duration(i)*time.Second), nil); err != nil || len(gone) != 0 {
			t.Errorf("%v, %v", gone, err)
		}
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	if _, board := open(t, path, now); abouts(board) != "suspend login:hanako" {
		t.Errorf("the file says %q", abouts(board))
	}
	if _, err := f.Sweep(now.Add(200*time.Second), nil); err != nil {
		t.Error(err)
	}
	if _, board := open(t, path, now); abouts(board) != "suspend login:taro" {
		t.Errorf("with room again the file says %q", abouts(board))
	}
}

func TestFileThatCannotBeReadIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	board := new(policy.Board)
	f, err := switches.Open(path, board, now)
	if err == nil || f == nil {
		t.Fatalf("%v", err)
	}
	set(t, f, suspend("taro"))
	if _, board := open(t, path, now); abouts(board) != "suspend login:taro" {
		t.Errorf("%q", abouts(board))
	}
	sparse := filepath.Join(t.TempDir(), "switches.json")
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 1<<40); err != nil {
		t.Skip(err)
	}
	if _, err := switches.Open(sparse, board, now); err == nil || !strings.Contains(err.Error(), "octets") {
		t.Errorf("%v", err)
	}
}

func TestThereMayBeOnlySoMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	var all []policy.Switch
	for i := range 100_000 {
		s := policy.Switch{ID: fmt.Sprint(i), Kind: policy.Deny, Subject: policy.SubjectNetwork, Value: fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255), Reason: strings.Repeat("<", 20)}
		all = append(all, s)
	}
	text, err := json.Marshal(map[string]any{"switches": all})
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, board := open(t, path, now)
	if _, err := f.Set(suspend("taro")); !errors.Is(err, switches.ErrFull) || len(board.Load().All()) != 100_000 {
		t.Errorf("%v, %d", err, len(board.Load().All()))
	}
	if _, err := f.Set(all[0]); err != nil { // in place of one
		t.Error(err)
	}
}

func TestOrdersRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, board := open(t, path, now)
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 10 {
				login := fmt.Sprintf("u%d-%d", w, i)
				if _, err := f.Set(suspend(login)); err != nil {
					t.Error(err)
				}
				f.All(now)
				if i%2 == 0 {
					if gone, err := f.Remove(func(s policy.Switch) bool { return s.Value == login }); err != nil || len(gone) != 1 {
						t.Errorf("%v, %v", gone, err)
					}
				}
				if _, err := f.Sweep(now, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	_, again := open(t, path, now)
	if abouts(board) != abouts(again) || len(f.All(now)) != 20 {
		t.Errorf("in force %q, written %q", abouts(board), abouts(again))
	}
}

// FuzzOpen reads any file: it is understood or put aside, and what is in force
// afterwards is what the next start finds.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"switches":[{"id":"s1","kind":"suspend","subject":"login","value":"taro","reason":"x","by":"y","since":"2026-03-02T09:00:00Z","until":"2026-03-03T09:00:00Z"}]}`))
	f.Add([]byte(`{"switches":[{"kind":"deny","subject":"network","value":"192.0.2.0/24"},{"kind":"allow","subject":"network","value":"192.0.2.9/24"},{"kind":"stop"}]}`))
	f.Add([]byte(`{"switches":[{"kind":"deny","subject":"helo","value":"."},{"kind":"probation","subject":"local_user","value":"033"}`))
	f.Add([]byte(`{"switches":null}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "switches.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		board := new(policy.Board)
		if _, err := switches.Open(path, board, now); err != nil {
			if asides, _ := filepath.Glob(path + ".broken-*"); len(asides) != 1 {
				t.Fatalf("%v; asides %q", err, asides)
			}
		}
		again := new(policy.Board)
		if _, err := switches.Open(path, again, now); err != nil || abouts(again) != abouts(board) {
			t.Fatalf("first %q, then %q, %v", abouts(board), abouts(again), err)
		}
	})
}

// Review 1, finding 13: root reads the file in a directory of the daemon's, and
// pulls the red switch all the same.
func TestWhatIsNoFileIsPutAside(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link": func(path string) error {
			elsewhere := filepath.Join(filepath.Dir(path), "elsewhere")
			return errors.Join(os.WriteFile(elsewhere, []byte(`{"switches":[{"kind":"stop","reason":"x"}]}`), 0o600), os.Symlink(elsewhere, path))
		},
	} {
		path := filepath.Join(t.TempDir(), "switches.json")
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		type opened struct {
			f   *switches.File
			err error
		}
		done := make(chan opened, 1)
		go func() {
			f, err := switches.Open(path, new(policy.Board), now)
			done <- opened{f, err}
		}()
		select {
		case o := <-done:
			if o.err == nil || len(o.f.All(now)) != 0 {
				t.Errorf("%s: %v, in force %+v", name, o.err, o.f.All(now))
			}
			set(t, o.f, suspend("taro@example.jp"))
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is waited for", name)
		}
		if _, board := open(t, path, now); abouts(board) != "suspend login:taro@example.jp" {
			t.Errorf("%s: in force after it: %s", name, abouts(board))
		}
	}
}

func TestReadChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	if all, err := switches.Read(path, time.Now()); err != nil || len(all) > 0 {
		t.Errorf("without a file: %+v, %v", all, err)
	}
	for _, text := range []string{`{"switches":[]}`, `{"switches":[`, `no`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := switches.Read(path, time.Now())
		left, readErr := os.ReadDir(filepath.Dir(path))
		if got, _ := os.ReadFile(path); string(got) != text || len(left) != 1 || readErr != nil || (err == nil) != (text == `{"switches":[]}`) {
			t.Errorf("%s: became %q among %v, %v", text, got, left, err)
		}
	}
}
