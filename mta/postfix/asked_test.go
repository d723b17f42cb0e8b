package postfix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// gatedTools runs the real postmap, except for keys with "!" in them, which a
// database refuses. Each run waits until so many are allowed; keys tells what
// each one asked.
func gatedTools(t *testing.T) (tools Tools, allow func(int), keys func() [][]string) {
	t.Helper()
	dir := t.TempDir()
	gate, asked := filepath.Join(dir, "gate"), filepath.Join(dir, "asked")
	tools, _ = countingTools(t, fmt.Sprintf(`cat >$0.in.$$; tr '\n' ' ' <$0.in.$$ >>%[1]s; echo >>%[1]s
while [ $(wc -l <%[1]s) -gt $(cat %[2]s) ]; do sleep 0.01; done
if grep -q '!' $0.in.$$; then echo 'postmap: fatal: illegal mix of collations' >&2; exit 1; fi; exec <$0.in.$$`, asked, gate))
	allow = func(n int) { writeFile(t, gate, fmt.Sprint(n)) }
	keys = func() (runs [][]string) {
		text, _ := os.ReadFile(asked)
		for line := range strings.Lines(string(text)) {
			runs = append(runs, strings.Fields(line))
		}
		return runs
	}
	return tools, allow, keys
}

// One MAIL FROM with an odd octet has many forms, each refused. Nobody else waits
// for that, whether his address is plain or odd.
func TestRefusedKeysHoldUpNobodyElse(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)@ex\\.jp$/ $1\n")
	tools, allow, runs := gatedTools(t)
	timing := hurry()
	timing.failFirst, timing.failMost, timing.query = time.Hour, time.Hour, time.Minute
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + re, timing: timing})
	table := m.tables[0].source.(*asked)
	queued := func() int {
		table.mu.Lock()
		defer table.mu.Unlock()
		return len(table.queue)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	ask := func(addresses ...string) {
		if _, err := m.Owners(gone, addresses); !errors.Is(err, ErrSlow) {
			t.Fatalf("got %v", err)
		}
	}
	allow(1)
	owners(t, m, "known@ex.jp")
	ask("first@ex.jp")
	eventually(t, "second run", func() bool { return len(runs()) == 2 })
	var odd []string
	for n := range 17 {
		odd = append(odd, fmt.Sprintf("list!%d@ex.jp", n))
	}
	ask(odd...)
	ask("o'brien@ex.jp")
	if n := queued(); n != 18 {
		t.Fatalf("%d keys wait", n)
	}
	allow(2)
	eventually(t, "the odd batch", func() bool { return len(runs()) == 3 })
	ask("plain@ex.jp")
	allow(1000)
	for address, want := range map[string]string{"plain@ex.jp": "plain", "o'brien@ex.jp": "o'brien", "first@ex.jp": "first"} {
		if got := owners(t, m, address); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
	if n := slices.IndexFunc(runs(), func(keys []string) bool { return slices.Contains(keys, "plain@ex.jp") }); n > 4 {
		t.Errorf("the plain key came in run %d:\n%q", n+1, runs())
	}
	for _, address := range odd {
		if _, err := ownersOf(t.Context(), m, address); err == nil || !strings.Contains(err.Error(), "collations") {
			t.Errorf("%s: got %v", address, err)
		}
	}
	if n := len(runs()); n > 16 {
		t.Errorf("postmap ran %d times:\n%q", n, runs())
	}
	again := len(runs())
	if got, err := m.Owners(t.Context(), odd); err == nil || got[16] != nil || len(runs()) != again {
		t.Errorf("asked again: %q, %v", got, err)
	}
	if got, err := m.Owners(t.Context(), []string{"plain@ex.jp", odd[3], "@", "x@elsewhere.jp"}); err != nil || got[1] != nil || got[2] == nil || got[3] == nil {
		t.Errorf("a refused key is not known, the others are nobody's: got %#v, %v", got, err)
	}
}

// While odd keys are refused, plain ones that never cease keep no odd one waiting.
func TestPlainAndOddKeysTakeTurns(t *testing.T) {
	a := &asked{timing: hurry(), life: t.Context(), waiting: map[string]*question{}, oddApart: time.Now().Add(time.Hour)}
	add := func(keys ...string) {
		for _, key := range keys {
			a.queue = append(a.queue, &question{key: key, sender: &sender{}})
		}
	}
	var got []string
	add("a", "b!", "c", "d!")
	for n := range 5 {
		var keys []string
		for _, q := range a.next() {
			keys = append(keys, q.key)
		}
		got = append(got, strings.Join(keys, " "))
		switch n {
		case 0:
			add("e", "f!")
		case 1:
			add("g")
		}
	}
	if want := []string{"a c", "b! d!", "e g", "f!", ""}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A map that answers too late is no reason to forget what it said.
func TestSlowTableKeepsKnownAnswers(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^(.*)@ex\\.jp$/ $1\n")
	tools, allow, _ := gatedTools(t)
	timing := hurry()
	timing.found, timing.missing = time.Nanosecond, time.Nanosecond
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "regexp:" + re, timing: timing})
	allow(2)
	owners(t, m, "known@ex.jp")
	owners(t, m, "nobody@other.jp")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got, err := m.Owners(ctx, []string{"known@ex.jp", "new@ex.jp", "nobody@other.jp"}); err != nil || !slices.Equal(got[0], []string{"known"}) || got[1] != nil || got[2] != nil {
		t.Errorf("got %#v, %v", got, err)
	}
}

func TestOwnersTellsNobodyFromNotKnown(t *testing.T) {
	dir := configDir(t, "")
	re := filepath.Join(dir, "re")
	writeFile(t, re, "/^none@ex\\.jp$/ ,\n")
	m := openMaps(t, MapsConfig{ConfigDir: dir, Tables: "inline:{a@ex.jp=one} regexp:" + re})
	got, err := m.Owners(t.Context(), []string{"a@ex.jp", "b@ex.jp", "none@ex.jp", "", "\xff@ex.jp"})
	if err != nil {
		t.Fatal(err)
	}
	for i, logins := range got[1:] {
		if logins == nil || len(logins) > 0 {
			t.Errorf("%d: got %#v, want nobody", i+1, logins)
		}
	}
	m = openMaps(t, MapsConfig{ConfigDir: dir, Tables: "inline:{a@ex.jp=one} fail:x"})
	if got, err := m.Owners(t.Context(), []string{"a@ex.jp", "b@ex.jp"}); err != nil || got[1] != nil {
		t.Errorf("got %#v, %v, want not known", got, err)
	}
	if got, err := m.Owners(t.Context(), []string{"b@ex.jp"}); err == nil || got[0] != nil {
		t.Errorf("got %#v, %v, want an error", got, err)
	}
}

// A table that is too large to be listed and answers when asked is sound.
func TestTableAskedInsteadIsSound(t *testing.T) {
	dir := configDir(t, "")
	file := filepath.Join(dir, "logins")
	writeFile(t, file, "a@ex.jp one\n")
	tools, _ := countingTools(t, fmt.Sprintf(`case "$*" in *-s*) exec head -c %d /dev/zero;; esac`, maxListing+1))
	m := openMaps(t, MapsConfig{Tools: tools, ConfigDir: dir, Tables: "texthash:" + file})
	for _, when := range []string{"before it is asked", "after"} {
		if s := m.Tables()[0]; s.Err != nil || s.Listed || s.Table != "texthash:"+file {
			t.Errorf("%s: state %+v", when, s)
		}
		if got := owners(t, m, "a@ex.jp"); got != "one" {
			t.Errorf("got %q", got)
		}
	}
	os.Remove(file)
	if _, err := ownersOf(t.Context(), m, "b@ex.jp"); err == nil || m.Tables()[0].Err == nil {
		t.Errorf("a table that fails: got %v, state %+v", err, m.Tables()[0])
	}
}
