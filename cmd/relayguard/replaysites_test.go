package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/replay"
)

// Web sites that send as they do over weeks: traces too long for files. They run
// against the limits of a fresh install, learning phase and all.

// firstDay is when they begin: a Monday.
var firstDay = time.Date(2026, time.March, 2, 0, 0, 0, 0, time.UTC)

// on is a time of a day, from 1.
func on(day, hour, minute int) time.Time {
	return firstDay.Add(time.Duration(day-1)*24*time.Hour + time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
}

// traffic is a trace in the making.
type traffic struct {
	rand   *rand.Rand
	events []map[string]any
	people int
}

func newTraffic() *traffic { return &traffic{rand: rand.New(rand.NewPCG(2017, 7))} }

// person is an address that nobody had before.
func (f *traffic) person() string {
	f.people++
	return fmt.Sprintf("person%d@%s", f.people, []string{"example.net", "example.org", "mail.example.com", "example.edu"}[f.rand.IntN(4)])
}

// site is a web site as mail shows it. Without a name nobody knows that it is one.
type site struct{ user, name, host string }

// sends is one message of the site to one recipient, of a plugin if it is signed:
// "" for none, own for its own software.
func (f *traffic) sends(at time.Time, s site, plugin, label, to string, m text) {
	f.people++
	e := map[string]any{
		"time": at, "event": "message", "id": fmt.Sprint("m", f.people), "label": label,
		"local_user": s.user, "mail_from": s.user + "@web1.example.jp", "header_from": "wordpress@" + s.host, "rcpt_to": []string{to},
		"message_id": fmt.Sprintf("<%d.%d@%s>", at.Unix(), f.people, s.host), "subject": m.subject, "body": m.body,
		"headers": map[string]string{"MIME-Version": "1.0", "Content-Type": "text/" + m.kind + "; charset=UTF-8", "Content-Transfer-Encoding": "8bit"},
	}
	if s.name != "" {
		e["site"] = s.name
	}
	switch plugin {
	case "":
	case own:
		e["plugin"] = ""
	default:
		e["plugin"] = plugin
	}
	f.events = append(f.events, e)
}

// own is WordPress itself.
const own = "-"

// text is what a message says.
type text struct{ kind, subject, body string }

// plain is a text of lines.
func plain(subject string, lines ...string) text {
	return text{"plain", subject, strings.Join(lines, "\r\n") + "\r\n"}
}

// score runs the trace; the configuration is that of a fresh install and what
// more says.
func (f *traffic) score(t *testing.T, more ...string) replay.Score {
	t.Helper()
	slices.SortStableFunc(f.events, func(a, b map[string]any) int { return a["time"].(time.Time).Compare(b["time"].(time.Time)) })
	var trace strings.Builder
	for _, e := range f.events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		trace.Write(append(line, '\n'))
	}
	path := filepath.Join(t.TempDir(), "relayguard.toml")
	if err := os.WriteFile(path, []byte("[inside]\nfrom_mta = false\ndomains = [\"example.jp\"]\n"+strings.Join(more, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := replayOf(t, trace.String(), "replay", "--json", "--config", path)
	var s replay.Score
	if err := json.Unmarshal([]byte(out), &s); code != exitFine || err != nil {
		t.Fatalf("exit %d, %v, stderr %s", code, err, stderr)
	}
	t.Log(told(s))
	return s
}

// told is a score in short, for who reads a failure.
func told(s replay.Score) string {
	var b strings.Builder
	for _, label := range slices.Sorted(maps.Keys(s.Labels)) {
		l := s.Labels[label]
		fmt.Fprintf(&b, "\n%-24s accepted %d, held %d, deferred %d, rejected %d", label, l.Accept.Recipients, l.Hold.Recipients, l.Defer.Recipients, l.Reject.Recipients)
	}
	for _, one := range s.Stops {
		fmt.Fprintf(&b, "\n%s %s %s: %s by %s after %d", one.Time.Format("01-02 15:04:05"), one.Origin, one.Label, one.Verdict, one.Rule, one.AfterRecipients)
	}
	for _, one := range s.Incidents {
		fmt.Fprintf(&b, "\n%s incident %s: %s", one.Opened.Format("01-02 15:04:05"), one.Origin, one.Cause)
	}
	return b.String()
}

// flows fails if anything with one of the labels did not go out.
func flows(t *testing.T, s replay.Score, labels ...string) {
	t.Helper()
	for _, label := range labels {
		l, there := s.Labels[label]
		if !there || l.Accept.Recipients == 0 || l.Hold.Recipients+l.Defer.Recipients+l.Reject.Recipients > 0 {
			t.Errorf("%s: accepted %d, held %d, deferred %d, rejected %d; want all accepted", label, l.Accept.Recipients, l.Hold.Recipients, l.Defer.Recipients, l.Reject.Recipients)
		}
	}
}

// leak fails if more recipients of a label got theirs than may.
func leak(t *testing.T, s replay.Score, label string, most int) {
	t.Helper()
	if l, there := s.Labels[label]; !there || l.Accept.Recipients > most || l.Hold.Recipients == 0 {
		t.Errorf("%s: accepted %d, held %d; want at most %d accepted and the others held", label, l.Accept.Recipients, l.Hold.Recipients, most)
	}
}

// spread is n times of a day, between two hours, in no order.
func (f *traffic) spread(day, from, to, n int) []time.Time {
	all := make([]time.Time, n)
	for i := range all {
		all[i] = on(day, from, 0).Add(time.Duration(f.rand.IntN((to-from)*3600)) * time.Second)
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

// goods are what shops sell.
var goods = []string{"Beech cutting board", "Linen tea towel", "Cast iron teapot", "Walnut spoon", "Stoneware bowl", "Bamboo whisk", "Cedar box", "Copper kettle", "Felt coaster", "Glass carafe", "Oak tray", "Porcelain cup"}

// order is what WooCommerce writes to a customer, whose HTML has links.
func (f *traffic) order(s site, number int, stock []string) text {
	first := []string{"Taro", "Hanako", "Ken", "Yuki", "Mary", "John"}[f.rand.IntN(6)]
	var rows strings.Builder
	total := 0
	for range 1 + f.rand.IntN(3) {
		item := f.rand.IntN(len(stock))
		price := 800 + 350*item
		total += price
		fmt.Fprintf(&rows, "<tr><td><a href=\"https://%s/product/%d/\">%s</a></td><td>%d</td><td>&yen;%d</td></tr>\r\n", s.host, item, stock[item], 1, price)
	}
	return text{"html", fmt.Sprintf("Your %s order has been received! (#%d)", s.host, number), fmt.Sprintf("<html><body>\r\n<h1>Thank you for your order</h1>\r\n<p>Hi %s,</p>\r\n<p>Just to let you know &mdash; we've received your order #%d, and it is now being processed:</p>\r\n"+
		"<table>\r\n%s<tr><th>Total:</th><td>&yen;%d</td></tr>\r\n</table>\r\n<p>Billing address: %s, %d-%d Chuo</p>\r\n<p><a href=\"https://%s/my-account/view-order/%d/\">View your order</a></p>\r\n"+
		"<p>Thanks for using <a href=\"https://%s/\">%s</a>!</p>\r\n</body></html>\r\n", first, number, rows.String(), total, first, f.rand.IntN(9), f.rand.IntN(99), s.host, number, s.host, s.host)}
}

// orders are a shop's confirmations of a day, each to a new customer.
func (f *traffic) orders(day, n int, s site, plugin, label string, stock []string) {
	for _, at := range f.spread(day, 7, 23, n) {
		f.sends(at, s, plugin, label, f.person(), f.order(s, 1000+len(f.events), stock))
	}
}

// posts are what a site has to recommend.
var posts = []string{"How we dye our linen", "Ten quiet places in Kyoto", "A walk along the coast", "The new kiln is here", "What to cook in October", "Wood, from tree to table", "Why copper turns green", "Our summer in pictures"}

// share is what Jetpack wrote for its button.
func (f *traffic) share(s site, post int) text {
	names := []string{"Ann Lee", "Bob", "C. Dupont", "Dai Sato", "Eve", "Franz K."}
	name := fmt.Sprint(names[f.rand.IntN(len(names))], " ", f.rand.IntN(1000))
	title := fmt.Sprint(posts[post%len(posts)], strings.Repeat(" again", post/len(posts)))
	return plain("[Shared Post] "+title,
		fmt.Sprintf("%s (visitor%d@example.com) thinks you may be interested in the following post:", name, f.rand.IntN(100_000)), "", title, fmt.Sprintf("https://%s/%d/%s/", s.host, 2020+post%5, strings.ToLower(strings.ReplaceAll(title, " ", "-"))))
}

// reset is what WordPress writes to who forgot a password.
func (f *traffic) reset(s site, login string) text {
	return plain("["+s.host+"] Password Reset", "Someone has requested a password reset for the following account:", "", "Site Name: "+s.host, "", "Username: "+login, "",
		"If this was a mistake, ignore this email and nothing will happen.", "", "To reset your password, visit the following address:", "",
		fmt.Sprintf("https://%s/wp-login.php?action=rp&key=%016x&login=%s", s.host, f.rand.Uint64(), login), "", fmt.Sprintf("This password reset request originated from the IP address 203.0.113.%d.", f.rand.IntN(250)))
}

// answer is what a contact form says to who filled it in.
func (f *traffic) answer(s site) text {
	return plain("We have received your message", "Thank you for writing to us. We answer within two days.", "", "Your message:", fmt.Sprintf("I would like to know more about no. %d, is it still there?", f.rand.IntN(1000)), "", "--", "This e-mail was sent from the contact form of https://"+s.host+"/")
}

// everyday is what a small site sends on a day beside orders.
func (f *traffic) everyday(day int, s site, labelled bool) {
	as := func(plugin string) string {
		if !labelled {
			return ""
		}
		return plugin
	}
	for _, at := range f.spread(day, 6, 24, 1+f.rand.IntN(4)) {
		f.sends(at, s, as(own), "legit:reset", fmt.Sprintf("member%d@example.net", f.rand.IntN(300)), f.reset(s, fmt.Sprint("member", f.rand.IntN(300))))
	}
	for _, at := range f.spread(day, 8, 22, f.rand.IntN(5)) {
		f.sends(at, s, as("contact-form-7"), "legit:form", f.person(), f.answer(s))
	}
}

// shares are recommendations of a day by honest readers.
func (f *traffic) shares(day, n int, s site, plugin string) {
	for _, at := range f.spread(day, 8, 23, n) {
		f.sends(at, s, plugin, "legit:share", f.person(), f.share(s, f.rand.IntN(len(posts))))
	}
}

// abuse are recommendations that somebody posts, one each so often.
func (f *traffic) abuse(from time.Time, n int, every time.Duration, s site, plugin func(i int) string, posts int) {
	for i := range n {
		f.sends(from.Add(time.Duration(i)*every), s, plugin(i), "abuse:share", f.person(), f.share(s, i%posts))
	}
}

func always(plugin string) func(int) string { return func(int) string { return plugin } }

// An honest shop writes to new customers only, and has a sale on day 21.
func TestReplayShopWithSaleDay(t *testing.T) {
	for name, c := range map[string]struct {
		shop   site
		plugin string
		stock  []string // on the day of the sale
	}{
		"labelled":                  {site{"site12", "shop.example.jp", "shop.example.jp"}, "woocommerce", goods},
		"labelled, sells new goods": {site{"site12", "shop.example.jp", "shop.example.jp"}, "woocommerce", append([]string{"Lacquer lunch box"}, goods[:3]...)},
		"nobody knows the plugin":   {site{"site12", "shop.example.jp", "shop.example.jp"}, "", goods},
		"nothing is known":          {site{"site12", "", "shop.example.jp"}, "", goods},
		"new goods, not known":      {site{"site12", "", "shop.example.jp"}, "", append([]string{"Lacquer lunch box"}, goods[:3]...)},
		"in www-data":               {site{"www-data", "", "shop.example.jp"}, "", goods},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTraffic()
			for day := 1; day <= 20; day++ {
				f.orders(day, 150, c.shop, c.plugin, "legit:order", goods)
				f.everyday(day, c.shop, c.plugin != "")
			}
			f.orders(21, 350, c.shop, c.plugin, "legit:sale", c.stock)
			flows(t, f.score(t), "legit:order", "legit:sale", "legit:reset", "legit:form")
		})
	}
}

// The case of 2017: on day 16 somebody posts to strangers with a site's share
// button, 0.7 times a second, 2,500 times in the first hour.
func TestReplayShareAbuse(t *testing.T) {
	const rate = 1430 * time.Millisecond
	shop, blog := site{"site12", "shop.example.jp", "shop.example.jp"}, site{"site13", "blog.example.jp", "blog.example.jp"}
	for name, posts := range map[string]int{"one post": 1, "each post": len(posts), "200 posts": 200} {
		t.Run(name, func(t *testing.T) {
			f := newTraffic()
			for day := 1; day <= 17; day++ {
				f.orders(day, 20, shop, "woocommerce", "legit:order", goods)
				f.everyday(day, shop, true)
				f.everyday(day, blog, true)
				f.shares(day, 1+f.rand.IntN(6), blog, "share-by-mail")
				if day < 16 {
					f.shares(day, 2+f.rand.IntN(6), shop, "share-by-mail")
				}
			}
			f.abuse(on(16, 9, 0), 4000, rate, shop, always("share-by-mail"), posts)
			s := f.score(t)
			leak(t, s, "abuse:share", 40)
			flows(t, s, "legit:order", "legit:reset", "legit:form", "legit:share")
		})
	}
}

// The same where nobody installed anything: five sites run as www-data.
func TestReplayShareAbuseUnattributed(t *testing.T) {
	for name, c := range map[string]struct {
		posts  int
		shared bool // honest readers used the button before
	}{
		"one post": {1, true}, "each post": {len(posts), true}, "each post, never used before": {len(posts), false}, "200 posts": {200, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTraffic()
			var sites []site
			for _, host := range []string{"shop", "blog", "club", "school", "bakery"} {
				sites = append(sites, site{"www-data", "", host + ".example.jp"})
			}
			for day := 1; day <= 17; day++ {
				for _, s := range sites {
					f.everyday(day, s, false)
				}
				f.orders(day, 20, sites[0], "", "legit:order", goods)
				f.shares(day, 1+f.rand.IntN(6), sites[1], "")
				if day < 16 && c.shared {
					f.shares(day, 2+f.rand.IntN(6), sites[2], "")
				}
			}
			f.abuse(on(16, 9, 0), 2500, 1430*time.Millisecond, sites[2], always(""), c.posts)
			s := f.score(t)
			leak(t, s, "abuse:share", 100)
			flows(t, s, "legit:order", "legit:reset", "legit:form")
			if c.posts == 1 { // else what all have in common is the button's own sentence, the neighbour's too
				flows(t, s, "legit:share")
			}
		})
	}
}

// Slow abuse of a plugin that wrote to at most 13 new recipients on a day: one
// mail each 45 seconds for an hour, then 17 an hour for 7 days.
func TestReplaySlowAbuse(t *testing.T) {
	for name, c := range map[string]struct {
		site   site
		plugin string
		posts  int
	}{
		"labelled":         {site{"site12", "club.example.jp", "club.example.jp"}, "share-by-mail", 3},
		"nothing is known": {site{"www-data", "", "club.example.jp"}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTraffic()
			for day := 1; day <= 25; day++ {
				f.everyday(day, c.site, c.plugin != "")
				if day < 18 {
					f.shares(day, 5+f.rand.IntN(9), c.site, c.plugin)
				}
			}
			f.abuse(on(18, 8, 0), 80, 45*time.Second, c.site, always(c.plugin), c.posts)
			f.abuse(on(18, 9, 0), 17*24*7, time.Hour/17, c.site, always(c.plugin), c.posts)
			s := f.score(t)
			leak(t, s, "abuse:share", 60)
			flows(t, s, "legit:reset", "legit:form", "legit:share")
		})
	}
}

// ja writes mail as shops in Japan do: one form with an order in it, one footer.
func (f *traffic) ja(s site, number int) text {
	goods := []string{"手ぬぐい 藍染", "南部鉄瓶 小", "漆椀 朱", "曲げわっぱ 二段", "九谷焼 小皿", "飛騨 木匙", "有田焼 湯呑", "備前 徳利"}
	family := []string{"佐藤", "鈴木", "高橋", "田中", "伊藤", "渡辺", "山本", "中村"}[f.rand.IntN(8)]
	n, item := 1+f.rand.IntN(3), f.rand.IntN(len(goods))
	return plain(fmt.Sprintf("【%s】ご注文ありがとうございます(注文番号:%d)", s.host, number),
		family+" 様", "", "このたびはご注文いただき、誠にありがとうございます。", "下記の内容でご注文を承りました。", "",
		fmt.Sprintf("ご注文番号:%d", number), fmt.Sprintf("商品名:%s", goods[item]), fmt.Sprintf("数量:%d", n), fmt.Sprintf("合計金額:%d円(税込)", n*(900+400*item)), "",
		"商品の発送が完了しましたら、改めてご連絡いたします。", "", "━━━━━━━━━━━━━━━━━━━━", "手しごと本舗", "〒604-0000 京都市中京区一丁目1-1", "https://"+s.host+"/", "営業時間 10:00~18:00(土日祝休)", "━━━━━━━━━━━━━━━━━━━━")
}

// bill is what goes out at the end of a month.
func (f *traffic) bill(s site, number int) text {
	return plain("【手しごと本舗】3月分ご請求書のご案内", "いつもお世話になっております。", "3月分のご請求書をお送りいたします。", "", fmt.Sprintf("ご請求番号:B-%06d", number), fmt.Sprintf("ご請求金額:%d円", 1000+f.rand.IntN(90_000)), "お支払期限:4月30日", "",
		"明細は下記よりご確認ください。", fmt.Sprintf("https://%s/bill/%d", s.host, number), "", "手しごと本舗 経理部")
}

// reminder is what goes out before an event.
func (f *traffic) reminder(s site) text {
	return plain("【明日開催】春の手しごと市のご案内", "お申し込みいただいた「春の手しごと市」はいよいよ明日です。", "", "日時:3月29日 10時~16時", "会場:京都市勧業館", "", "入場の際に本メールをご提示ください。", "https://"+s.host+"/event/spring/")
}

// campaign answers who filled a form in.
func (f *traffic) campaign(s site) text {
	return plain("キャンペーンへのご応募ありがとうございます", "このたびは「春のプレゼントキャンペーン」にご応募いただき、ありがとうございます。", "抽選の結果は4月下旬に発表いたします。", "", fmt.Sprintf("受付番号:%08d", f.rand.IntN(100_000_000)), "https://"+s.host+"/campaign/spring/")
}

// A shop in Japan: a rush of confirmations with one footer, bills to old customers
// and some new ones, reminders, and a campaign form after a TV spot. Its answers to
// strangers wait for an admin, and nothing else does.
func TestReplayJapaneseShop(t *testing.T) {
	const name = "teshigoto.example.jp"
	for title, c := range map[string]struct {
		shop                  site
		orders, bills, events string // plugins
		form                  string
		daily, rush           int // confirmations on a usual day, and in one hour of day 17
	}{
		"nothing is known": {shop: site{"www-data", "", name}, daily: 400, rush: 600},
		"labelled":         {shop: site{"www-data", name, name}, orders: "welcart", bills: "bills", events: "events", form: "mw-wp-form", daily: 80, rush: 120},
	} {
		t.Run(title, func(t *testing.T) {
			f := newTraffic()
			var customers []string
			confirm := func(at time.Time, label string) {
				to := f.person()
				customers = append(customers, to)
				f.sends(at, c.shop, c.orders, label, to, f.ja(c.shop, 5000+len(f.events)))
			}
			for day := 1; day <= 22; day++ {
				f.everyday(day, c.shop, c.orders != "")
				for _, at := range f.spread(day, 7, 23, c.daily) {
					confirm(at, "legit:order")
				}
			}
			old := customers[:9*c.daily] // of the days before
			for i := range c.rush {
				confirm(on(17, 20, 0).Add(time.Duration(i)*time.Hour/time.Duration(c.rush)), "legit:rush")
			}
			for i, to := range append(slices.Clone(old[:400]), f.person(), f.person(), f.person(), f.person(), f.person()) {
				f.sends(on(19, 1, 0).Add(time.Duration(i)*3*time.Second), c.shop, c.bills, "legit:bill", to, f.bill(c.shop, i))
			}
			for i, to := range old[400:700] {
				f.sends(on(20, 1, 0).Add(time.Duration(i)*2*time.Second), c.shop, c.events, "legit:reminder", to, f.reminder(c.shop))
			}
			for i := range 500 {
				f.sends(on(21, 19, 0).Add(time.Duration(i)*4*time.Second), c.shop, c.form, "campaign", f.person(), f.campaign(c.shop))
			}
			s := f.score(t, "[[override]]", "limit = \"site-volume\"", "for = \"site:"+name+"\"", "windows = [\"3000/1h\"]", "reason = \"this is not about volume\"")
			leak(t, s, "campaign", 40)
			flows(t, s, "legit:order", "legit:rush", "legit:bill", "legit:reminder", "legit:reset", "legit:form")
			if len(s.Incidents) != 1 || slices.ContainsFunc(s.Stops, func(one replay.Stop) bool { return one.Verdict != "hold" || one.Label != "campaign" }) {
				t.Errorf("want one incident, and only the campaign held:%s", told(s))
			}
		})
	}
}

// A site that lies about its plugins gets no more than the site's own budget, and
// no other site of the account suffers from it.
func TestReplaySiteLiesAboutItsPlugins(t *testing.T) {
	rotating := func(i int) string { return fmt.Sprint("plugin-", i) }
	for name, c := range map[string]struct {
		plugin func(i int) string
		most   int
	}{
		"no label":                {always(""), 40},
		"every second label":      {func(i int) string { return []string{"share-by-mail", ""}[i%2] }, 80},
		"another name each":       {rotating, 300},
		"another name or none":    {func(i int) string { return []string{rotating(i), ""}[i%2] }, 300},
		"names of honest plugins": {func(i int) string { return []string{"woocommerce", "contact-form-7", "share-by-mail", own}[i%4] }, 300},
	} {
		t.Run(name, func(t *testing.T) {
			shop, blog := site{"site12", "shop.example.jp", "shop.example.jp"}, site{"site12", "blog.example.jp", "blog.example.jp"}
			f := newTraffic()
			for day := 1; day <= 17; day++ {
				for _, s := range []site{shop, blog} {
					f.everyday(day, s, true)
					if day < 16 || s == blog {
						f.shares(day, 2+f.rand.IntN(6), s, "share-by-mail")
					}
				}
			}
			f.abuse(on(16, 9, 0), 2500, 1430*time.Millisecond, shop, c.plugin, 3)
			s := f.score(t)
			leak(t, s, "abuse:share", c.most)
			flows(t, s, "legit:share")
		})
	}
}
