package template_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"relayguard/policy/template"
)

// guard does with names what the limit for templates does: of one name 25 in ten
// minutes and 40 a day are let out, everybody being a stranger. Then it is held.
type guard struct {
	m      *template.Memory
	soft   bool // count only
	r      *rand.Rand
	sent   map[string][]time.Time // by name
	held   map[string]bool        // names
	out    map[string]int         // mails by what they are
	stayed map[string]int
	nobody int // strangers so far
}

func newGuard() *guard {
	return &guard{m: template.New(template.Options{}), r: rand.New(rand.NewPCG(1, 2)), sent: map[string][]time.Time{},
		held: map[string]bool{}, out: map[string]int{}, stayed: map[string]int{}}
}

// mail is a mail to a stranger.
func (g *guard) mail(now time.Time, sender, what, subject, body string) {
	text := g.m.Read(header{"Subject": subject, "Content-Type": "text/plain; charset=utf-8"}, []byte(strings.ReplaceAll(body, "\n", "\r\n")))
	g.nobody++
	match := g.m.Find(now, sender, &text, strangers(g.nobody, 1))
	if match.Name != "" && !g.soft {
		burst, today := 0, 0
		for _, at := range g.sent[match.Name] {
			if now.Sub(at) < 10*time.Minute {
				burst++
			}
			if now.Sub(at) < 24*time.Hour {
				today++
			}
		}
		if g.held[match.Name] = g.held[match.Name] || burst >= 25 || today >= 40; g.held[match.Name] {
			g.stayed[what]++
			return
		}
	}
	g.out[what]++
	g.sent[match.Name] = append(g.sent[match.Name], now)
	g.m.Sent(now, sender, &text)
}

func (g *guard) name() string {
	given := strings.Fields("Anna Bert Carla Daichi Emil Fumiko Greta Hans Ines Jun Kenji Lea Marco Nora Otto Paul Quirin Rosa Sven Taro")
	family := strings.Fields("Abe Berg Costa Duarte Endo Fischer Goto Huber Ito Jansen Kato Lopez Mori Nagel Ono Peters Quast Rossi Sato Tanaka")
	return given[g.r.IntN(len(given))] + " " + family[g.r.IntN(len(family))]
}

// title is one of 400, other ones for each site.
func title(site, n int) string {
	a := strings.Fields("Seven Quiet Hidden Famous Wooden Winter Golden Broken Early Modern Simple Secret Little Ancient Rapid Gentle Bitter Silver Foreign Common")
	b := strings.Fields("gardens bridges recipes markets castles rivers machines stories windows harbours teachers journeys lanterns islands vineyards songs letters clocks temples forests")
	ends := strings.Split("nobody visits anymore|you should see this spring|that changed our valley|for patient beginners|explained by their makers|as our readers remember them", "|")
	return fmt.Sprintf("%s %s %s", a[(n+site)%20], b[(n/20+7*site)%20], ends[(n+site)%len(ends)])
}

func (g *guard) share(now time.Time, site, post int, what string) {
	g.mail(now, "local_user:www-data", what, "[Shared Post] "+title(site, post),
		fmt.Sprintf("%s (v%d@example.com) thinks you may be interested in the following post:\n\n%s\nhttps://site%d.example.com/2026/%s/?share=email&nb=%d\n",
			g.name(), g.r.IntN(1e6), title(site, post), site, strings.ReplaceAll(strings.ToLower(title(site, post)), " ", "-"), g.r.IntN(9)))
}

func (g *guard) reset(now time.Time, site int) {
	g.mail(now, "local_user:www-data", "reset", fmt.Sprintf("[Site %c] Password Reset", 'A'+site), fmt.Sprintf(`Someone has requested a password reset for the following account:

Site Name: Site %c of the valley

Username: %s

If this was a mistake, ignore this email and nothing will happen.

To reset your password, visit the following address:

https://site%d.example.com/wp-login.php?action=rp&key=%x&login=%d

This password reset request originated from the IP address 192.0.2.%d.
`, 'A'+site, g.name(), site, g.r.Uint64(), g.r.IntN(1e5), g.r.IntN(255)))
}

var items = strings.Fields("teapot kettle basket lantern blanket notebook hammer candle mirror umbrella saddle pillow ladder bottle compass whistle carpet apron bucket cushion")

func (g *guard) order(now time.Time, sender, what string, site, catalogue int) {
	var lines strings.Builder
	for range 1 + g.r.IntN(3) {
		item := g.r.IntN(catalogue)
		fmt.Fprintf(&lines, "%s %s number %c%c  x %d  %d.00\nhttps://site%d.example.com/product/%s-%d\n", []string{"Blue", "Green", "Large", "Handmade"}[item/20%4], items[item%20], 'a'+item/80%26, 'a'+site, 1+g.r.IntN(3), g.r.IntN(200), site, items[item%20], item/20)
	}
	g.mail(now, sender, what, fmt.Sprintf("Your Shop %c order #%d has been received", 'A'+site, g.r.IntN(1e5)), fmt.Sprintf(`Dear %s,

thank you for your order. It has been received and is now being processed.

%s
Payment method: direct bank transfer
Billing address:
%s, %s Street %d, %d Newtown

We look forward to fulfilling your order soon.
If you have questions, write to us at shop@site%d.example.com or call +49 30 %d.

Shop %c of the valley, Harbour Lane %d, all prices include taxes
https://site%d.example.com/terms-and-conditions
`, g.name(), lines.String(), g.name(), items[g.r.IntN(20)], g.r.IntN(99), g.r.IntN(1e5), site, g.r.IntN(1e7), 'A'+site, site, site))
}

// ordinary is a day of a server: 20 sites, of which some are shops.
func (g *guard) ordinary(d int, shares int) {
	start := day(d).Truncate(24 * time.Hour)
	for i := range 240 {
		at := start.Add(time.Duration(i) * 6 * time.Minute)
		switch site := g.r.IntN(20); {
		case i%3 == 0:
			g.reset(at, site)
		default:
			g.order(at, "local_user:www-data", "order", site%5, 60)
		}
	}
	for i := range shares {
		g.share(start.Add(time.Duration(i)*time.Hour), g.r.IntN(20), g.r.IntN(400), "share")
	}
}

func (g *guard) check(t *testing.T, most int) {
	t.Helper()
	t.Logf("out %v, stayed %v", g.out, g.stayed)
	if g.out["attack"] > most {
		t.Errorf("%d of the attack left, want at most %d", g.out["attack"], most)
	}
	for what, n := range g.stayed {
		if what != "attack" && n > 0 {
			t.Errorf("%d %ss were held", n, what)
		}
	}
}

// One page of one site among 20, all of which are www-data.
func TestOnePageToManyStrangers(t *testing.T) {
	for _, c := range []struct {
		name  string
		known int // days before
	}{{"known sites", 4}, {"from the first day on", 0}} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuard()
			g.soft = true // learning
			for d := range c.known {
				g.ordinary(d, 4)
			}
			g.soft, g.out = c.known == 0, map[string]int{}
			start := day(c.known).Truncate(24 * time.Hour)
			g.soft = false
			for i := range 1000 {
				at := start.Add(time.Duration(i) * 1400 * time.Millisecond)
				g.share(at, 3, 17, "attack")
				switch {
				case i%100 == 50:
					g.reset(at, i/100)
				case i%100 == 99 && c.known > 0:
					g.order(at, "local_user:www-data", "order", i/100%5, 60)
				case i%400 == 7:
					g.share(at, 5+i/400, 20, "share")
				}
			}
			g.check(t, 40)
		})
	}
}

// Each mail recommends another post: what is the same is the form.
func TestRotatingPosts(t *testing.T) {
	for _, known := range []int{0, 5} {
		g := newGuard()
		g.soft = true
		for d := range known {
			g.ordinary(d, 8)
		}
		g.soft, g.out = false, map[string]int{}
		start := day(known).Truncate(24 * time.Hour)
		for i := range 1000 {
			at := start.Add(time.Duration(i) * 1400 * time.Millisecond)
			g.share(at, 3, i%400, "attack")
			if i%100 == 50 {
				g.reset(at, i/100)
			}
		}
		g.check(t, 100)
	}
}

// One mail each 45 s, or 17 an hour, for days, from a form that had 13
// recipients on its busiest day.
func TestSlowAbuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		every time.Duration
		days  int
		posts int // 1: always the same
		most  int
	}{{45 * time.Second, 3, 1, 60}, {time.Hour / 17, 7, 1, 60}, {45 * time.Second, 3, 400, 100}, {time.Hour / 17, 7, 400, 100}} {
		g := newGuard()
		g.soft = true
		for d := range 7 {
			g.ordinary(d, 5+d%9)
		}
		g.soft, g.out = false, map[string]int{}
		start := day(7).Truncate(24 * time.Hour)
		for i := 0; time.Duration(i)*c.every < time.Duration(c.days)*24*time.Hour; i++ {
			g.share(start.Add(time.Duration(i)*c.every), 3, i%c.posts, "attack")
		}
		t.Logf("each %v, %d posts", c.every, c.posts)
		g.check(t, c.most)
	}
}

// A page that 39 get each day becomes boilerplate, but only for so many.
func TestAbuseJustBelowTheLimit(t *testing.T) {
	g := newGuard()
	for d := range 5 {
		for i := range 39 {
			g.share(day(d).Add(time.Duration(i)*time.Minute), 3, 17, "patience")
		}
	}
	for i := range 1000 {
		g.share(day(5).Add(time.Duration(i)*time.Second), 3, 17, "attack")
	}
	g.check(t, 3*39+40)
}

// highest is the largest number of one name on a day.
func (g *guard) highest(d int) (most int) {
	for name, times := range g.sent {
		n := 0
		for _, at := range times {
			if name != "" && at.Truncate(24*time.Hour).Equal(day(d).Truncate(24*time.Hour)) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// 150 orders a day, all to new customers.
func TestShop(t *testing.T) {
	g := newGuard()
	for d := range 6 {
		g.soft = d < 3 // learning
		n := 150
		if d == 5 {
			n = 350
		}
		for i := range n {
			g.order(day(d).Truncate(24*time.Hour).Add(time.Duration(i)*24*time.Hour/time.Duration(n)), "local_user:shop", "order", 0, 200)
		}
		t.Logf("day %d: %d orders, most of one name: %d", d+1, n, g.highest(d))
		if d >= 3 && g.highest(d) > 20 {
			t.Errorf("day %d: %d of one name, want few", d+1, g.highest(d))
		}
	}
	g.check(t, 0)
}

func (g *guard) japanese(now time.Time, what string) {
	product := []string{"有機栽培の緑茶", "手作りの陶器の湯呑み", "季節の和菓子詰め合わせ", "竹細工の買い物かご", "今治産のタオル", "信州産の蕎麦", "漆塗りの弁当箱", "和紙の便箋"}
	g.mail(now, "local_user:mise", what, fmt.Sprintf("【みせ本舗】ご注文ありがとうございます（注文番号：%d）", g.r.IntN(1e6)), fmt.Sprintf(`%s 様

この度はみせ本舗をご利用いただき、誠にありがとうございます。
以下の内容でご注文を承りました。

ご注文番号：%d
ご注文日時：2026年%d月%d日 %d:%d
商品名：%s　%d点
お届け先：東京都港区%d-%d-%d

商品の発送が完了しましたら、改めてメールでお知らせいたします。
ご不明な点がございましたら、下記までお問い合わせください。

――――――――――――――――――
みせ本舗株式会社　カスタマーサポート
https://mise.example.jp/support/contact
営業時間：平日10時から17時まで
`, []string{"山田太郎", "佐藤花子", "鈴木 一郎", "高橋次郎", "伊藤さくら"}[g.r.IntN(5)], g.r.IntN(1e6), 1+g.r.IntN(12), 1+g.r.IntN(28), g.r.IntN(24), g.r.IntN(60), product[g.r.IntN(8)], 1+g.r.IntN(9), g.r.IntN(9), g.r.IntN(9), g.r.IntN(9)))
}

// 600 confirmations in an hour, with one footer, after days with 220.
func TestJapaneseOrders(t *testing.T) {
	g := newGuard()
	g.soft = true
	for d := range 3 {
		for i := range 220 {
			g.japanese(day(d).Add(time.Duration(i)*time.Minute), "order")
		}
	}
	g.soft = false
	for i := range 600 {
		g.japanese(day(3).Add(time.Duration(i)*6*time.Second), "order")
	}
	t.Logf("most of one name: %d", g.highest(3))
	g.check(t, 0)
}
