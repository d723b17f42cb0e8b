package limit_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
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
	p.Void(days(2), "site:shop.example.jp")
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

// A day that is void for a site or an account is so in all its buckets, in those
// that come later too.
func TestVoidOfASiteOrAnAccount(t *testing.T) {
	for _, c := range []struct {
		who, value string
		want       bool
	}{
		{"site:shop.example.jp", "site:shop.example.jp", true},
		{"site:shop.example.jp", "plugin:share@shop.example.jp", true},
		{"site:shop.example.jp", "plugin:a@b@shop.example.jp", true},
		{"site:shop.example.jp", "template:ab plugin:share@shop.example.jp", true},
		{"site:shop.example.jp", "site:shop.example.jp recipient_domain:example.net", true},
		{"site:shop.example.jp", "site:other.example.jp", false},
		{"site:shop.example.jp", "plugin:share@other.shop.example.jp", false},
		{"site:shop.example.jp", "login:shop.example.jp", false},
		{"site:shop.example.jp", "login:x@shop.example.jp", false},
		{"login:taro@example.jp", "login:taro@example.jp", true},
		{"login:taro yamada", "login:taro yamada", true},
		{"login:taro yamada", "login:taro%20yamada recipient_domain:example.net", true},
		{"login:taro", "login:taro yamada", true}, // as policy.HasPart says
		{"login:taro", "login:taro@example.jp", false},
		{"local_user:1001@web3", "client:192.0.2.0/24 local_user:1001@web3", true},
		{"local_user:1001@web3", "local_user:1001", false},
		{"site:" + strings.Repeat("s", 300), "plugin:p@" + strings.Repeat("s", 300), true},
		{"", "", false},
	} {
		before, after := limit.NewPeaks(0), limit.NewPeaks(0)
		k := limit.Key{Limit: "l", Value: c.value}
		before.Note(noon, k, aDay, 0, 7)
		before.Void(noon, c.who)
		after.Void(noon, c.who)
		after.Note(noon, k, aDay, 0, 7)
		want := int64(7)
		if c.want {
			want = 0
		}
		if got, too := before.Largest(days(2), k, aDay, 21), after.Largest(days(2), k, aDay, 21); got != want || too != want || before.Voided(noon, k) != c.want {
			t.Errorf("%q of %q: %d and %d, want %d", c.value, c.who, got, too, want)
		}
	}
}

// A mail server whose clock was in another year for a while goes on as before.
func TestPeaksAfterAWrongClock(t *testing.T) {
	for name, wrong := range map[string]time.Time{"ahead": noon.AddDate(5, 0, 0), "behind": time.Unix(3600, 0), "a day ahead": days(21), "three days ahead": days(23)} {
		for _, count := range []int{1, 50} { // days on which it is wrong
			p := limit.NewPeaks(0)
			for day := range 20 {
				p.Note(days(day), share, aDay, 0, 150)
			}
			for day := range count {
				p.Note(wrong.AddDate(0, 0, day), share, aDay, 0, 1)
				p.Void(wrong.AddDate(0, 0, day), "site:shop.example.jp")
			}
			if got := p.Largest(days(20), share, aDay, 21); count == 1 && got != 150 {
				t.Errorf("%s: %d is left of what was known", name, got)
			}
			for day := 20; day < 26; day++ {
				p.Note(days(day), share, aDay, 0, 200)
			}
			if got := p.Largest(days(27), share, aDay, 4); count == 1 && got != 200 {
				t.Errorf("%s: six days after it was put right, %d", name, got)
			}
			for day := 80; day < 90; day++ {
				p.Note(days(day), share, aDay, 0, 300)
			}
			if got := p.Largest(days(90), share, aDay, 21); got != 300 {
				t.Errorf("%s for %d days: long after it was put right, %d", name, count, got)
			}
			p.Void(days(90), "site:shop.example.jp")
			if !p.Voided(days(90), share) || p.Largest(days(92), share, aDay, 3) != 0 {
				t.Errorf("%s for %d days: abuse counts", name, count)
			}
			var file bytes.Buffer
			if err := p.Save(&file); err != nil {
				t.Fatal(err)
			}
			if err := limit.NewPeaks(0).Load(&file); err != nil {
				t.Errorf("%s for %d days: %v", name, count, err)
			}
		}
	}
}

func TestMetByAWrongClock(t *testing.T) {
	const blog, shop = "site:blog.example.jp", "site:shop.example.jp"
	p := limit.NewPeaks(0)
	ahead := noon.AddDate(5, 0, 0)
	p.Start(ahead)
	p.Meet(ahead, blog)
	p.Grant(ahead, shop)
	p.Start(noon)
	for _, site := range []string{blog, shop} {
		p.Meet(noon, site)
		if first, granted := p.Met(site); !first.Equal(noon) || granted != (site == shop) {
			t.Errorf("%s was met %s, %v", site, first, granted)
		}
		p.Meet(days(1), site)
		if first, _ := p.Met(site); !first.Equal(noon) {
			t.Errorf("%s was met %s", site, first)
		}
	}
	if got := p.Since(); !got.Equal(noon) {
		t.Errorf("since %s", got)
	}
}

// Who was met makes room for abuse, and for whom an admin makes known.
func TestSitesAndAccountsAreBounded(t *testing.T) {
	p := limit.NewPeaks(10)
	for i := range 20 {
		p.Meet(noon, fmt.Sprint("site:", i))
	}
	if first, _ := p.Met("site:11"); !first.IsZero() {
		t.Error("more are remembered than may be")
	}
	p.Grant(noon, "site:11")
	if _, granted := p.Met("site:11"); !granted {
		t.Error("what an admin makes known is not remembered")
	}
	p.Void(noon, "site:12")
	for i := range 8 {
		p.Void(days(1), fmt.Sprint("login:", i))
	}
	if !p.Voided(noon, limit.Key{Value: "site:12"}) {
		t.Error("abuse is forgotten for somebody who was only met")
	}
	p.Void(days(1), "login:9")
	if p.Voided(noon, limit.Key{Value: "site:12"}) || !p.Voided(days(1), limit.Key{Value: "login:9"}) {
		t.Error("not the oldest abuse goes")
	}
	if _, granted := p.Met("site:11"); !granted {
		t.Error("whom an admin has made known is forgotten for others")
	}
}

// While mail goes on, each bucket is saved whole, and what does not change is there.
func TestSaveWhileMailGoesOn(t *testing.T) {
	const still, most = 2500, 4000
	p := limit.NewPeaks(most)
	key := func(what string, i int) limit.Key {
		return limit.Key{Limit: "plugin-first-time", Value: fmt.Sprintf("plugin:%s@site%d.example.jp", what, i)}
	}
	for i := range still {
		for day := range 3 {
			p.Note(days(day), key("still", i), aDay, 0, int64(i))
		}
		p.Meet(noon, fmt.Sprintf("site:site%d.example.jp", i))
	}
	done := make(chan struct{})
	var mail sync.WaitGroup
	for range 2 {
		mail.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					p.Note(days(2), key("new", i%(most-still)), aDay, 0, 1)
					p.Void(days(2), fmt.Sprintf("login:%d", i%100))
				}
			}
		})
	}
	for range 3 {
		var file bytes.Buffer
		if err := p.Save(&file); err != nil {
			t.Fatal(err)
		}
		again := limit.NewPeaks(most)
		if err := again.Load(&file); err != nil {
			t.Fatal(err)
		}
		for i := range still {
			if got := again.Largest(days(4), key("still", i), aDay, 21); got != int64(i) {
				t.Fatalf("bucket %d: %d", i, got)
			}
			if first, _ := again.Met(fmt.Sprintf("site:site%d.example.jp", i)); !first.Equal(noon) {
				t.Fatalf("site %d was met %s", i, first)
			}
		}
	}
	close(done)
	mail.Wait()
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
		if day%2 == 0 {
			p.Void(days(day), "site:shop.example.jp")
		}
		p.Void(days(day), fmt.Sprintf("site:%d.example.jp", day))
		p.Void(days(day), fmt.Sprintf("login:%d@example.jp", day))
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
	p.Void(days(2), "login:taro@example.jp")
	p.Meet(noon, "site:blog.example.jp")
	p.Grant(days(1), "site:shop.example.jp")
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
	if first, granted := again.Met("site:shop.example.jp"); !first.Equal(days(1)) || !granted {
		t.Errorf("met %s, %v", first, granted)
	}
	if first, granted := again.Met("site:blog.example.jp"); !first.Equal(noon) || granted {
		t.Errorf("met %s, %v", first, granted)
	}
	if taro := (limit.Key{Limit: "l", Value: "login:taro@example.jp"}); !again.Voided(days(2), taro) || again.Voided(days(3), taro) {
		t.Error("the wrong days of the account are void")
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
					p.Void(days(j), fmt.Sprint(j))
					p.Meet(days(j), fmt.Sprint("site:", i, j))
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
	p.Void(noon, "site:shop.example.jp")
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
			p.Void(days(3), "site:shop.example.jp")
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
	data := append([]byte("relayguard peaks 2\n"), body...)
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
		for i := 0; b.Loop(); i++ {
			p.Void(days(21), fmt.Sprintf("site:site%d.example.jp", i%1000))
		}
	})
	b.Run("note while it is saved", func(b *testing.B) {
		saved := make(chan error)
		var longest time.Duration
		for b.Loop() {
			go func() { saved <- p.Save(io.Discard) }()
			for going := true; going; {
				select {
				case err := <-saved:
					if err != nil {
						b.Fatal(err)
					}
					going = false
				default:
					begun := time.Now()
					p.Note(days(21), keys[0], aDay, 0, 1)
					longest = max(longest, time.Since(begun))
					time.Sleep(50 * time.Microsecond)
				}
			}
		}
		b.ReportMetric(float64(longest.Microseconds()), "longest-µs")
	})
}
