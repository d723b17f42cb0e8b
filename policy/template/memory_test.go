package template_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/policy/template"
)

// rcpt is a recipient's keyed hash, as limits have it.
func rcpt(address string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(address))
	return h.Sum64()
}

func strangers(from, n int) (all []uint64) {
	for i := range n {
		all = append(all, rcpt(fmt.Sprintf("stranger%d@example.net", from+i)))
	}
	return all
}

func TestFindCountsDifferentRecipients(t *testing.T) {
	m := template.New(template.Options{})
	text := template.Text{Links: []uint64{7}}
	for _, c := range []struct {
		after time.Duration
		to    []uint64
		want  int // before
	}{
		{0, strangers(0, 1), 0},
		{0, strangers(0, 1), 1},
		{0, strangers(1, 5), 1},
		{time.Hour, strangers(0, 6), 6},
		{23 * time.Hour, strangers(0, 1), 6},
		{33 * time.Hour, nil, 6}, // those of the first hour are forgotten, and came again in the second
		{70 * time.Hour, nil, 0},
	} {
		got := m.Find(day(0).Add(c.after), "a", &text, c.to)
		if c.after == 33*time.Hour {
			c.want = 1
		}
		if got.Day != c.want || got.Kind != "link" || len(got.Name) != 16 {
			t.Errorf("after %v: %+v, want %d recipients", c.after, got, c.want)
		}
	}
	if got := m.Find(day(0), "b", &text, strangers(0, 1)); got.Day != 0 {
		t.Errorf("another sender: %+v, want no recipients", got)
	}
	if n := m.Len(); n < 2 || n > 4 { // a link and the sender, of each of two
		t.Errorf("%d parts are remembered", n)
	}
}

// The error that part's comment states.
func TestManyRecipientsAreEstimated(t *testing.T) {
	for _, c := range []struct {
		n         int
		tolerance float64 // four standard errors
	}{{10, 0.2}, {40, 0.2}, {64, 0.2}, {250, 0.22}, {750, 0.33}} {
		m := template.New(template.Options{})
		text := template.Text{Skeleton: 1}
		for i := range c.n {
			m.Find(day(0), "a", &text, strangers(i, 1))
		}
		if got := m.Find(day(0), "a", &text, nil).Day; float64(got) < float64(c.n)*(1-c.tolerance) || float64(got) > float64(c.n)*(1+c.tolerance) {
			t.Errorf("of %d recipients %d are counted, want %v more or less", c.n, got, c.tolerance)
		}
	}
}

func TestFindPrefersWhatTellsMore(t *testing.T) {
	link := func(n uint64) template.Text {
		return template.Text{Skeleton: 1, Links: []uint64{n}, Lines: []uint64{2, 3}, Shape: []uint64{4}}
	}
	t.Run("a link, all being equal", func(t *testing.T) {
		m, names := template.New(template.Options{}), map[string]int{}
		for i := range 50 {
			text := link(9)
			match := m.Find(day(0), "a", &text, strangers(i, 1))
			if names[match.Name]++; match.Kind != "link" {
				t.Fatalf("mail %d: %+v", i, match)
			}
		}
		if len(names) != 1 {
			t.Errorf("names %v, want one", names)
		}
	})
	t.Run("the subject, if the link is always another", func(t *testing.T) {
		m, names := template.New(template.Options{}), map[string]int{}
		for i := range 50 {
			text := link(uint64(100 + i))
			match := m.Find(day(0), "a", &text, strangers(i, 1))
			names[match.Name]++
			if i > 3 && match.Kind != "subject" {
				t.Fatalf("mail %d: %+v", i, match)
			}
		}
		if len(names) > 4 {
			t.Errorf("%d names, want a few and then one", len(names))
		}
	})
	t.Run("nothing of an empty text", func(t *testing.T) {
		if match := template.New(template.Options{}).Find(day(0), "a", &template.Text{}, strangers(0, 1)); match != (template.Match{}) {
			t.Errorf("%+v, want nothing", match)
		}
	})
}

func TestBoilerplateIsNoKey(t *testing.T) {
	for _, c := range []struct {
		name  string
		daily []int // recipients on days before
		today int
		want  bool // that it is no key
	}{
		{"two days", []int{50, 50}, 1, false},
		{"three days", []int{50, 50, 50}, 1, true},
		{"as on other days", []int{50, 50, 50}, 60, true},
		{"a sale day", []int{150, 150, 150}, 350, true},
		{"slow abuse", []int{39, 39, 39}, 160, false},
		{"one large day before", []int{5, 200, 5, 5}, 40, false},
	} {
		m := template.New(template.Options{})
		text := template.Text{Lines: []uint64{1}}
		n := 0
		mail := func(d int) template.Match {
			n++
			return m.Find(day(d), "a", &text, strangers(n, 1))
		}
		for d, count := range c.daily {
			for range count {
				mail(d * 2) // with days between
				m.Sent(day(d*2), "a", &text)
			}
		}
		var match template.Match
		for range c.today {
			if match = mail(len(c.daily) * 2); match.Name == "" { // else it is held
				m.Sent(day(len(c.daily)*2), "a", &text)
			}
		}
		if got := match.Name == ""; got != c.want || match.Trained != (len(c.daily) >= 3) {
			t.Errorf("%s: %+v, want boilerplate: %v", c.name, match, c.want)
		}
	}
}

func TestRefusedMailIsNoHistory(t *testing.T) {
	m := template.New(template.Options{})
	text := template.Text{Lines: []uint64{1}}
	for d := range 10 {
		for i := range 100 {
			if match := m.Find(day(d), "a", &text, strangers(100*d+i, 1)); match.Name == "" || match.Days != 0 {
				t.Fatalf("day %d: %+v, want a key that was never sent", d, match)
			}
		}
	}
}

// A sender who writes to himself all day makes no room for others' copies.
func TestSameRecipientsMakeNoHistory(t *testing.T) {
	m := template.New(template.Options{})
	text := template.Text{Lines: []uint64{1}}
	for d := range 5 {
		for range 500 {
			m.Find(day(d), "a", &text, strangers(0, 1))
			m.Sent(day(d), "a", &text)
		}
	}
	var match template.Match
	for i := range 30 {
		match = m.Find(day(5), "a", &text, strangers(i, 1))
		m.Sent(day(5), "a", &text)
	}
	if match.Name == "" {
		t.Error("boilerplate, want a key: its copies went to one recipient a day")
	}
}

func TestNewPartsOfASteadyForm(t *testing.T) {
	m := template.New(template.Options{})
	order := func(product uint64) *template.Text {
		return &template.Text{Skeleton: 1, Links: []uint64{100 + product}, Lines: []uint64{1, 2, 3, 4, 100 + product}}
	}
	n := 0
	mail := func(d int, text *template.Text) template.Match {
		n++
		match := m.Find(day(d), "shop", text, strangers(n, 1))
		m.Sent(day(d), "shop", text)
		return match
	}
	for d := range 3 {
		for i := range 150 {
			mail(d, order(uint64(i%40)))
		}
	}
	for i := range 350 { // everybody wants the new one
		if match := mail(3, order(99)); match.Name != "" {
			t.Fatalf("order %d of the sale day: %+v, want no key", i, match)
		}
	}
	alone := template.Text{Skeleton: 1, Links: []uint64{7}, Lines: []uint64{11, 12, 13}}
	if match := mail(3, &alone); match.Name == "" {
		t.Error("another text under the subject: no key, want one")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const parts = 20_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := template.New(template.Options{Parts: parts})
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 4_000 {
		text := template.Text{Skeleton: r.Uint64()}
		for range 20 {
			text.Lines = append(text.Lines, r.Uint64())
		}
		sender := fmt.Sprint("sender", i%1000)
		m.Find(day(i/1000), sender, &text, strangers(i, 3))
		m.Sent(day(i/1000), sender, &text)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if took := float64(after.HeapAlloc) - float64(before.HeapAlloc); took > 217*parts*1.02 {
		t.Errorf("%.0f octets for each of %d parts, want at most 217", took/parts, parts)
	} else {
		t.Logf("%.1f octets for each part", took/parts)
	}
	runtime.KeepAlive(m)
}

// A flood of one sender's new texts leaves the others' parts.
func TestFloodPushesOutItself(t *testing.T) {
	m := template.New(template.Options{Parts: 5_000})
	remembered := func(d int) (n int) {
		for i := range 500 {
			text := template.Text{Lines: []uint64{uint64(i)}}
			if match := m.Find(day(d), fmt.Sprint("quiet", i%50), &text, nil); match.Day > 0 {
				n++
			}
		}
		return n
	}
	for i := range 500 {
		text := template.Text{Lines: []uint64{uint64(i)}}
		m.Find(day(0), fmt.Sprint("quiet", i%50), &text, strangers(i, 1))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 4_000 {
		text := template.Text{}
		for range 20 {
			text.Lines = append(text.Lines, r.Uint64())
		}
		m.Find(day(0).Add(time.Hour), "loud", &text, strangers(i, 1))
	}
	if n := remembered(0); n < 495 {
		t.Errorf("%d of 500 parts of others are left after a flood, want nearly all", n)
	}
}

func TestSaveAndLoad(t *testing.T) {
	texts := []template.Text{{Skeleton: 1, Links: []uint64{2}, Lines: []uint64{3, 4}}, {Lines: []uint64{5}}}
	a := template.New(template.Options{})
	for d := range 3 {
		for i := range 10 {
			a.Find(day(d), "a", &texts[0], strangers(d*10+i, 1))
			a.Sent(day(d), "a", &texts[0])
		}
	}
	a.Find(day(2), "a", &texts[1], strangers(0, 1))
	var file bytes.Buffer
	if err := a.Save(&file); err != nil {
		t.Fatal(err)
	}
	saved := file.Bytes()
	b := template.New(template.Options{Parts: 1000})
	if err := b.Load(bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	for i := range texts {
		if got, want := b.Find(day(3), "a", &texts[i], nil), a.Find(day(3), "a", &texts[i], nil); got.Trained != want.Trained || got.Days != want.Days || i == 0 && got != want {
			t.Errorf("text %d: %+v, want %+v", i, got, want)
		}
	}

	t.Run("damaged", func(t *testing.T) {
		c := template.New(template.Options{Parts: 1000})
		if err := c.Load(bytes.NewReader(saved)); err != nil {
			t.Fatal(err)
		}
		for at := range saved {
			bad := bytes.Clone(saved)
			bad[at] ^= 0x10
			if err := c.Load(bytes.NewReader(bad)); err == nil {
				t.Fatalf("octet %d is another: no error", at)
			}
			if err := c.Load(bytes.NewReader(saved[:at])); err == nil {
				t.Fatalf("cut after %d octets: no error", at)
			}
		}
		if match := c.Find(day(3), "a", &texts[0], nil); !match.Trained {
			t.Error("what was loaded is gone")
		}
	})
	t.Run("another key", func(t *testing.T) {
		err := template.New(template.Options{Key: [16]byte{1}}).Load(bytes.NewReader(saved))
		if !errors.Is(err, template.ErrKey) {
			t.Errorf("%v, want %v", err, template.ErrKey)
		}
	})
	t.Run("no room", func(t *testing.T) {
		if err := a.Save(full{}); err == nil || !strings.Contains(err.Error(), "no space") {
			t.Errorf("%v, want the writer's error", err)
		}
	})
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestTextOfTrace(t *testing.T) {
	a := template.TextOf("[shared post] title", []string{"1f00", "", "2f00", "1f00"})
	b := template.TextOf("", []string{"2f00"})
	if a.Skeleton == 0 || len(a.Lines) != 2 || b.Skeleton != 0 || len(b.Lines) != 1 || a.Lines[1] != b.Lines[0] {
		t.Errorf("%+v and %+v", a, b)
	}
}

func TestNameDependsOnKeySenderAndPart(t *testing.T) {
	names := map[string]bool{}
	for key := range byte(2) {
		m := template.New(template.Options{Key: [16]byte{key}})
		for _, sender := range []string{"a", "b"} {
			for part := range uint64(2) {
				for _, text := range []template.Text{{Skeleton: part + 1}, {Links: []uint64{part + 1}}, {Lines: []uint64{part + 1}}, {Shape: []uint64{part + 1}}} {
					names[m.Find(day(0), sender, &text, nil).Name] = true
				}
			}
		}
	}
	if len(names) != 32 || names[""] {
		t.Errorf("%d names, want 32", len(names))
	}
	if _, err := hex.DecodeString(template.New(template.Options{}).Find(day(0), "a", &template.Text{Skeleton: 1}, nil).Name); err != nil {
		t.Error(err)
	}
}

func TestClockSetBack(t *testing.T) {
	m := template.New(template.Options{})
	text := template.Text{Lines: []uint64{1}}
	for _, d := range []int{5, 1, 0, 6, -10_000_000, 3, 10_000_000, 2} {
		m.Find(day(d), "a", &text, strangers(d, 1))
		m.Sent(day(d), "a", &text)
	}
}

func TestManyAtOnce(t *testing.T) {
	m := template.New(template.Options{Parts: 1000})
	fields, body := mailOf(t, "jetpack-00")
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 200 {
				text := m.Read(fields, body)
				m.Find(day(0), fmt.Sprint(g%2), &text, strangers(i, 2))
				m.Sent(day(0), fmt.Sprint(g%2), &text)
				if i%50 == 0 {
					var file bytes.Buffer
					if err := m.Save(&file); err != nil {
						t.Error(err)
					}
					if err := m.Load(&file); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
}

// Two that load at once: a signal while one is under way.
func TestLoadsAtOnce(t *testing.T) {
	m := template.New(template.Options{Parts: 1000})
	var file bytes.Buffer
	if err := m.Save(&file); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				if err := m.Load(bytes.NewReader(file.Bytes())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
