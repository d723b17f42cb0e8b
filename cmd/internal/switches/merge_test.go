package switches_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/switches"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// known lists the last that is known of each switch.
func known(f *switches.File) string {
	all := []string{}
	for _, e := range f.Entries() {
		word := "gone"
		if e.Switch != nil {
			word = "set"
		}
		all = append(all, fmt.Sprintf("%s %s %s", e.What.Kind, e.What.Value, word))
	}
	return strings.Join(all, ",")
}

func entry(login string, changed time.Time) switches.Entry {
	s := suspend(login)
	s.ID, s.Changed = "s1", changed
	return switches.Entry{What: whatOf(login), Changed: changed, Switch: &s}
}

func gone(login string, changed time.Time) switches.Entry {
	return switches.Entry{What: whatOf(login), Changed: changed}
}

func whatOf(login string) switches.What {
	return switches.What{Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: login}
}

func remove(t *testing.T, f *switches.File, login string) {
	t.Helper()
	if all, err := f.Remove(func(s policy.Switch) bool { return s.Value == login }); err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
}

func TestWhatWasTakenBackIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, _ := open(t, path, now)
	changes := 0
	f.OnChange(func() { changes++ })
	clock := now
	f.UseClock(func() time.Time { return clock })
	set(t, f, suspend("taro"))
	set(t, f, policy.Switch{Kind: policy.Stop, Reason: "x", Since: now})
	remove(t, f, "taro")
	if _, err := f.Remove(func(s policy.Switch) bool { return s.Kind == policy.Stop }); err != nil {
		t.Fatal(err)
	}
	if got := known(f); got != "suspend taro gone" || changes != 4 {
		t.Errorf("known %q, %d changes", got, changes)
	}
	if again, _ := open(t, path, now); known(again) != "suspend taro gone" {
		t.Errorf("after a restart %q", known(again))
	}
	clock = now.Add(-time.Hour) // a clock that went back dates nothing before what it changes
	set(t, f, suspend("taro"))
	if got := f.Entries(); len(got) != 1 || !got[0].Changed.After(now) || got[0].Switch == nil {
		t.Errorf("%+v", got)
	}
	short := suspend("hanako")
	short.Until = now.Add(time.Minute)
	set(t, f, short)
	if _, err := f.Sweep(now.Add(time.Hour), nil); err != nil || known(f) != "suspend taro set" {
		t.Errorf("what ended by itself was not taken back: %q, %v", known(f), err)
	}
	changes = 0
	if _, err := f.Set(policy.Switch{}); err == nil || changes != 0 {
		t.Errorf("%v, %d changes", err, changes)
	}
}

func TestMergeTakesWhatIsNewer(t *testing.T) {
	old, later := now.Add(-time.Minute), now.Add(time.Minute)
	ended := entry("taro", later)
	ended.Switch.Until = now
	aged := gone("hanako", now.Add(-switches.KeepGone-1))
	stop := switches.Entry{What: switches.What{Kind: policy.Stop}, Changed: later, Switch: &policy.Switch{Kind: policy.Stop}}
	for name, c := range map[string]struct {
		in            switches.Entry
		want          string
		arrived, left int
	}{
		"newer":                   {entry("taro", later), "suspend taro set", 1, 0},
		"older":                   {entry("taro", old), "suspend taro set", 0, 0},
		"taken back":              {gone("taro", later), "suspend taro gone", 0, 1},
		"taken back before":       {gone("taro", old), "suspend taro set", 0, 0},
		"another":                 {entry("hanako", old), "suspend taro set,suspend hanako set", 1, 0},
		"taken back, never known": {gone("hanako", old), "suspend taro set,suspend hanako gone", 0, 0},
		"long ago":                {aged, "suspend taro set", 0, 0},
		"its term was shortened":  {ended, "suspend taro set", 1, 0},
		"ended, never known":      {func() switches.Entry { e := ended; e.What.Value = "hanako"; return e }(), "suspend taro set", 0, 0},
		"the red switch":          {stop, "suspend taro set", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "switches.json")
			f, board := open(t, path, now)
			f.UseClock(func() time.Time { return now })
			set(t, f, suspend("taro"))
			f.OnChange(func() { t.Error("what came is told as if it was ordered here") })
			for range 2 { // the second time it is known
				m, err := f.Merge(now, []switches.Entry{c.in})
				if err != nil || len(m.Arrived) != c.arrived || len(m.Left) != c.left || m.Over != 0 {
					t.Errorf("%+v, %v", m, err)
				}
				c.arrived, c.left = 0, 0
			}
			again, _ := open(t, path, now)
			if known(f) != c.want || known(again) != c.want || strings.Contains(c.want, "taro set") != strings.Contains(abouts(board), "taro") {
				t.Errorf("known %q, after a restart %q, in force %q; want %q", known(f), known(again), abouts(board), c.want)
			}
		})
	}
}

func TestOfTheSameMomentAllPreferTheSame(t *testing.T) {
	a, b := entry("taro", now), entry("taro", now)
	b.Switch.Reason = "zzz"
	g := gone("taro", now)
	var last string
	for i, order := range [][]switches.Entry{{a, b, g}, {g, b, a}, {b, g, a}, {b, a, g}, {a, g, b}, {g, a, b}} {
		f, _ := open(t, filepath.Join(t.TempDir(), "switches.json"), now)
		for _, e := range order {
			if _, err := f.Merge(now, []switches.Entry{e}); err != nil {
				t.Fatal(err)
			}
		}
		text := string(f.Entries()[0].Encode())
		if i > 0 && text != last {
			t.Errorf("%s, or %s", text, last)
		}
		last = text
	}
}

func TestMergeLeavesRoomForOrdersOfThisRelay(t *testing.T) {
	f, _ := open(t, filepath.Join(t.TempDir(), "switches.json"), now)
	var all []switches.Entry
	for i := range 100_000 {
		all = append(all, entry(fmt.Sprint("u", i), now))
	}
	for i := range 20_000 {
		all = append(all, gone(fmt.Sprint("g", i), now.Add(time.Duration(i)*time.Microsecond)))
	}
	m, err := f.Merge(now, all)
	if err != nil || len(m.Arrived) != 90_000 || m.Over != 10_000 || len(f.Entries()) != 90_000+10_000 {
		t.Errorf("%d, %d over, %v; %d are known", len(m.Arrived), m.Over, err, len(f.Entries()))
	}
	set(t, f, suspend("taro"))
}

func TestRedate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, _ := open(t, path, now)
	clock := now.Add(-time.Hour)
	f.UseClock(func() time.Time { return clock })
	set(t, f, suspend("a"))
	clock = now.Add(1000 * time.Hour)
	set(t, f, suspend("b"))
	set(t, f, suspend("c"))
	remove(t, f, "c")
	if found, err := f.Redate(now.Add(time.Minute), now); !found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	if found, err := f.Redate(now.Add(time.Minute), now); found || err != nil {
		t.Errorf("again: %v, %v", found, err)
	}
	again, _ := open(t, path, now)
	for i, e := range again.Entries() {
		if want := []time.Time{now.Add(-time.Hour), now, now}[i]; !e.Changed.Equal(want) {
			t.Errorf("%+v, want %v", e, want)
		}
	}
}

// Of a broken list of what was taken back the switches are in force all the same.
func TestFilesWithAndWithoutWhatWasTakenBack(t *testing.T) {
	const all = `{"switches":[{"id":"s1","kind":"suspend","subject":"login","value":"taro","since":"2026-03-02T09:00:00Z"}]`
	for text, want := range map[string]string{ // "" is broken
		all + `}`:           "suspend taro set",
		all + `,"gone":[]}`: "suspend taro set",
		all + `,"gone":[{"kind":"deny","subject":"helo","value":"x","changed":"2026-03-02T09:00:00Z"}]}`: "suspend taro set,deny x gone",
		all + `,"gone":null}`:              "suspend taro set",
		all + `,"gone":[{"kind":"deny"}]}`: "",
		all + `,"gone":7}`:                 "",
		all + `,"more":[]}`:                "",
		all + `,"gone":[]`:                 "",
		all + `,"gone":[{`:                 "",
	} {
		path := filepath.Join(t.TempDir(), "switches.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		board := new(policy.Board)
		f, err := switches.Open(path, board, now)
		if (err == nil) != (want != "") || want != "" && known(f) != want || abouts(board) != "suspend login:taro" {
			t.Errorf("%s: %v; known %q, in force %q", text, err, known(f), abouts(board))
		}
	}
}

func TestEveryKindOutlivesTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	f, _ := open(t, path, now)
	windows := []limit.Window{{Count: 5, Length: time.Minute, Burst: true}, {Count: 10, Length: time.Hour}}
	set(t, f, policy.Switch{Kind: policy.Set, Subject: policy.SubjectDomain, Value: "例え.jp", Rule: "day", Windows: windows, Since: now})
	set(t, f, policy.Switch{Kind: policy.Bulk, Subject: policy.SubjectLogin, Value: "taro", Count: 5000, Since: now, Until: now.Add(time.Hour)})
	set(t, f, policy.Switch{Kind: policy.Pause, Subject: policy.SubjectSite, Value: "shop.example.jp", Since: now})
	again, board := open(t, path, now)
	if got := abouts(board); got != "bulk login:taro,pause site:shop.example.jp,set domain:xn--r8jz45g.jp" {
		t.Errorf("in force %s", got)
	}
	for i, e := range again.Entries() {
		if was := f.Entries()[i]; !bytes.Equal(e.Encode(), was.Encode()) {
			t.Errorf("%s\nwas %s", e.Encode(), was.Encode())
		}
	}
}

// FuzzDecode reads what anyone may have written into Redis: what is taken over is
// in its one form, and the file outlives it.
func FuzzDecode(f *testing.F) {
	set, back := entry("taro", now), gone("taro", now)
	far := entry("taro", time.UnixMicro(1e16-1))
	f.Add(set.Encode())
	f.Add(back.Encode())
	f.Add(far.Encode())
	f.Add([]byte(`1700000000000000 {"id":"s2","kind":"set","subject":"key","value":"a b","rule":"day","windows":[{"Count":1,"Length":1000000000,"Burst":true}]}`))
	f.Add([]byte(`1700000000000000 {"id":"s2","kind":"bulk","subject":"login","value":"A","count":5,"since":"9999-12-31T23:59:59-23:00","until":"9999-12-31T23:59:59-23:59"}`))
	f.Add([]byte(`1700000000000000 {"gone":true,"kind":"stop"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := switches.Decode(data)
		if err != nil {
			return
		}
		text := e.Encode()
		if len(text) > switches.MaxEntry || e.What.Kind == policy.Stop {
			t.Fatalf("%d octets of %s", len(text), e.What.Kind)
		}
		again, err := switches.Decode(text)
		if err != nil || !bytes.Equal(again.Encode(), text) || again.What != e.What {
			t.Fatalf("%s\nbecomes %s, %v", text, again.Encode(), err)
		}
		if e.Supersedes(&again) {
			t.Fatalf("%s is newer than itself", text)
		}
		path := filepath.Join(t.TempDir(), "switches.json")
		file, err := switches.Open(path, new(policy.Board), now)
		if err != nil {
			t.Fatal(err)
		}
		m, err := file.Merge(now, []switches.Entry{e})
		if err != nil {
			t.Fatal(err)
		}
		after, err := switches.Open(path, new(policy.Board), now)
		if err != nil || known(after) != known(file) {
			t.Fatalf("%+v: %q, then %q, %v", m, known(file), known(after), err)
		}
	})
}
