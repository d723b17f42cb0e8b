package limit_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/policy/limit"
)

var (
	share = limit.Key{Limit: "plugin-first-time", Value: "plugin:share@shop.example.jp"}
	noon  = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
)

func days(n int) time.Time { return noon.AddDate(0, 0, n) }

const aDay = 24 * time.Hour

func TestPeaksAreOfEarlierDays(t *testing.T) {
	p := limit.NewPeaks(0)
	if !p.Since().IsZero() || p.Largest(noon, share, aDay, 21) != 0 {
		t.Error("something is known before anything was noted")
	}
	p.Note(noon, share, aDay, 0, 100)
	p.Note(noon.Add(time.Hour), share, aDay, 100, 50)
	p.Note(noon.Add(time.Minute), share, 10*time.Minute, 3, 2)
	p.Note(noon, share, 10*time.Minute, 0, 7)
	p.Note(days(1), share, aDay, 0, 30)
	for _, c := range []struct {
		day, back  int
		window     time.Duration
		want       int64
		whatWindow string
	}{
		{0, 21, aDay, 0, "today"}, {1, 21, aDay, 0, "yesterday"}, {2, 21, aDay, 150, "the day before"}, {2, 21, 10 * time.Minute, 7, "another window"}, {2, 21, time.Hour, 0, "a window that nobody noted"},
		{3, 2, aDay, 30, "only the last two days"}, {21, 21, aDay, 150, "the last of 21 days"}, {22, 21, aDay, 30, "a day later"}, {23, 21, aDay, 0, "nothing left"}, {31, 31, aDay, 150, "the last of 31 days"}, {32, 1000, aDay, 30, "no more days than are kept"},
	} {
		if got := p.Largest(days(c.day), share, c.window, c.back); got != c.want {
			t.Errorf("%s: %d, want %d", c.whatWindow, got, c.want)
		}
	}
	if got := p.Since(); !got.Equal(noon) {
		t.Errorf("since %s", got)
	}
	other := limit.Key{Limit: "mine", Value: share.Value}
	if p.Largest(days(2), other, aDay, 21) != 0 {
		t.Error("another limit's bucket has its peaks")
	}
}

// A window of a day is what came on that day, of a bucket that several relays
// share also what the others say by what it holds.
func TestPeakOfADayIsWhatCameOnIt(t *testing.T) {
	p := limit.NewPeaks(0)
	evening, morning := noon.Add(9*time.Hour), days(1).Add(-3*time.Hour)
	p.Note(evening, share, aDay, 0, 13)
	p.Note(morning, share, aDay, 13, 13) // the window slides over both
	if got := p.Largest(days(3), share, aDay, 21); got != 13 {
		t.Errorf("%d, want 13", got)
	}
	p.Note(days(5), share, aDay, 0, 10)
	p.Note(days(5).Add(time.Hour), share, aDay, 25, 5)
	p.Note(days(5).Add(2*time.Hour), share, aDay, 20, 1) // some of yesterday has left it
	if got := p.Largest(days(7), share, aDay, 21); got != 31 {
		t.Errorf("%d, want 31", got)
	}
}

// Abuse that trips a window of a day began today or yesterday.
func TestVoidDaysCountForNothing(t *testing.T) {
	p := limit.NewPeaks(0)
	other := limit.Key{Limit: share.Limit, Value: "plugin:share@blog.example.jp"}
	for day := range 3 {
		p.Note(days(day), share, aDay, 0, int64(10+day))
		p.Note(days(day), other, aDay, 0, int64(10+day))
	}
	p.Void(days(2), func(value string) bool { return strings.HasSuffix(value, "@shop.example.jp") })
	p.Note(days(2).Add(time.Hour), share, aDay, 0, 900)
	if !p.Voided(days(2), share) || p.Voided(days(1).Add(-aDay), share) || p.Voided(days(2), other) {
		t.Error("the wrong days are void")
	}
	if a, b := p.Largest(days(4), share, aDay, 21), p.Largest(days(4), other, aDay, 21); a != 10 || b != 12 {
		t.Errorf("%d and %d, want 10 and 12", a, b)
	}
	p.Note(days(3), share, aDay, 0, 50) // the next day counts again
	if got := p.Largest(days(5), share, aDay, 21); got != 50 {
		t.Errorf("%d, want 50", got)
	}
	fresh := limit.Key{Value: "site:new.example.jp"}
	p.VoidKey(days(5), fresh)
	if !p.Voided(days(5), fresh) || p.Voided(days(6), fresh) {
		t.Error("what was not known is not void today, or is for longer")
	}
}

func TestPeaksAreBounded(t *testing.T) {
	p := limit.NewPeaks(100)
	for day := range 10 {
		p.Note(days(day), share, aDay, 0, 150)
	}
	for i := range 1000 { // names that somebody makes up in a day
		p.Note(days(9), limit.Key{Limit: "l", Value: fmt.Sprintf("template:%d", i)}, aDay, 0, 20)
	}
	if p.Len() != 100 {
		t.Errorf("%d are remembered, want 100", p.Len())
	}
	if got := p.Largest(days(11), share, aDay, 21); got != 150 {
		t.Error("what is known for ten days went for what is known for one")
	}
	for day := range 100 {
		p.Note(days(day), share, aDay, 0, 150)
		p.Void(days(day), func(string) bool { return day%2 == 0 })
	}
	var file bytes.Buffer
	if err := p.Save(&file); err != nil || file.Len() > 20_000 {
		t.Errorf("%d octets, %v", file.Len(), err)
	}
}

func TestPeaksOutliveARestart(t *testing.T) {
	p := limit.NewPeaks(0)
	p.Note(noon, share, aDay, 0, 150)
	p.Note(noon, share, time.Minute, 0, limitTooLarge)
	p.Note(days(1), share, aDay, 0, 200)
	p.VoidKey(days(2), share)
	var file bytes.Buffer
	if err := p.Save(&file); err != nil {
		t.Fatal(err)
	}
	saved := bytes.Clone(file.Bytes())
	again := limit.NewPeaks(0)
	if err := again.Load(&file); err != nil {
		t.Fatal(err)
	}
	if got := again.Largest(days(4), share, aDay, 21); got != 150 || !again.Since().Equal(noon) || !again.Voided(days(2), share) || again.Largest(days(4), share, time.Minute, 21) < 1<<47 {
		t.Errorf("%d since %s", got, again.Since())
	}
	if err := again.Save(&file); err != nil || !bytes.Equal(file.Bytes(), saved) {
		t.Errorf("saved again it is another, %v", err)
	}
	for i := range saved {
		damaged := bytes.Clone(saved)
		damaged[i] ^= 1
		if err := again.Load(bytes.NewReader(damaged)); err == nil {
			t.Errorf("octet %d is another, and nothing is said", i)
		}
		if err := again.Load(bytes.NewReader(saved[:i])); err == nil {
			t.Errorf("%d octets are enough", i)
		}
	}
	if again.Largest(days(4), share, aDay, 21) != 150 {
		t.Error("a file that cannot be read has changed what is known")
	}
}

const limitTooLarge = 1 << 60

func TestPeaksAtOnce(t *testing.T) {
	p := limit.NewPeaks(50)
	var workers sync.WaitGroup
	for i := range 8 {
		workers.Go(func() {
			for j := range 200 {
				k := limit.Key{Limit: "l", Value: fmt.Sprint((i + j) % 70)}
				p.Note(days(j%40), k, aDay, 0, int64(j))
				p.Largest(days(j%40), k, aDay, 21)
				if j%50 == 0 {
					p.Void(days(j), func(string) bool { return true })
					if err := p.Save(new(bytes.Buffer)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	workers.Wait()
}

func TestNoPeaksAreNoFault(t *testing.T) {
	var p *limit.Peaks
	p.Start(noon)
	p.Note(noon, share, aDay, 0, 1)
	p.Void(noon, func(string) bool { return true })
	p.VoidKey(noon, share)
	if p.Largest(noon, share, aDay, 21) != 0 || p.Voided(noon, share) || !p.Since().IsZero() {
		t.Error("nobody remembers, and something is known")
	}
}

// FuzzPeaks: they come from a file, which may be damaged.
func FuzzPeaks(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, data := range [][]byte{body, sealed(body)} {
			p := limit.NewPeaks(100)
			if p.Load(bytes.NewReader(data)) != nil {
				continue
			}
			p.Note(days(3), share, aDay, 0, 5)
			p.Largest(days(3), share, aDay, 31)
			p.Void(days(3), func(string) bool { return true })
			var first, second bytes.Buffer
			if err := p.Save(&first); err != nil {
				t.Fatal(err)
			}
			again := limit.NewPeaks(100)
			if err := again.Load(bytes.NewReader(first.Bytes())); err != nil {
				t.Fatal(err)
			}
			if err := again.Save(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
				t.Fatalf("%x became %x, %v", first.Bytes(), second.Bytes(), err)
			}
		}
	})
}

// sealed is a body with the head and the checksum of a whole file.
func sealed(body []byte) []byte {
	data := append([]byte("relayguard peaks 1\n"), body...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

func BenchmarkPeaks(b *testing.B) {
	p := limit.NewPeaks(0)
	keys := make([]limit.Key, 100_000)
	for i := range keys {
		keys[i] = limit.Key{Limit: "plugin-first-time", Value: fmt.Sprintf("plugin:share@site%d.example.jp", i)}
		for day := range 21 {
			p.Note(days(day), keys[i], aDay, 0, int64(day))
		}
	}
	b.Run("note", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p.Note(days(21), keys[i%1000], aDay, 0, int64(i))
		}
	})
	b.Run("largest", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p.Largest(days(21), keys[i%1000], aDay, 21)
		}
	})
	b.Run("void", func(b *testing.B) {
		for b.Loop() {
			p.Void(days(21), func(value string) bool { return value == "x" })
		}
	})
}
