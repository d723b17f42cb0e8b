package cause_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"relayguard/rbl/cause"
)

// who makes an activity of which nothing odd is known.
func who(kind, name string, recipients int64, usual float64) cause.Activity {
	return cause.Activity{
		Kind: kind, Name: name, Messages: recipients, Recipients: recipients, FirstTime: -1, Sent: recipients, Usual: usual, UsualMost: 2 * usual,
	}
}

// shop is an account with a site, whose mail is all its shop software's.
func shop(n string, recipients int64, usual float64) []cause.Activity {
	account, site, plugin := who(cause.Account, "local_user:"+n, recipients, usual), who(cause.Site, n+".example.jp", recipients, usual), who(cause.Plugin, "woocommerce@"+n+".example.jp", recipients, usual)
	account.Account, site.Account, plugin.Account, plugin.Site = account.Name, account.Name, account.Name, site.Name
	all := []cause.Activity{account, site, plugin}
	for i := range all {
		all[i].FirstTime = recipients * 9 / 10 // orders go to new customers
	}
	return all
}

// newsletter has sent as much every day, goes over a soft limit every day, and some
// of it comes back every day.
func newsletter() cause.Activity {
	a := who(cause.Account, "login:news@example.jp", 20_000, 19_700)
	a.UsualMost, a.Told, a.Bounced, a.UsualBounced = 20_100, 19_500, 180, 175
	return a
}

// weekly sends one day of seven.
func weekly() cause.Activity {
	a := who(cause.Account, "login:weekly@example.jp", 9_000, 1_290)
	a.UsualMost, a.Told = 9_100, 8_700
	return a
}

// shared is abuse of a form that sends whatever to whomever.
func shared() []cause.Activity {
	all := []cause.Activity{
		who(cause.Account, "local_user:site12", 640, 31), who(cause.Site, "shop.example.jp", 640, 31), who(cause.Plugin, "share-by-mail@shop.example.jp", 612, 3),
		who(cause.Plugin, "woocommerce@shop.example.jp", 28, 28), who(cause.Template, "9f31", 610, 0),
	}
	for i := range all {
		all[i].Account = all[0].Name
		if all[i].Kind == cause.Plugin {
			all[i].Site = "shop.example.jp"
		}
		if all[i].Recipients > 600 {
			all[i].FirstTime, all[i].Told, all[i].Bounced = 590, 570, 71
		}
	}
	return all
}

func quiet() []cause.Activity {
	return slices.Concat(shop("a", 120, 115), shop("b", 40, 52), shop("c", 9, 2), []cause.Activity{
		who(cause.Account, "login:taro@example.jp", 31, 22), who(cause.Account, "login:jiro@example.jp", 4, 0), who(cause.Forward, "info@example.jp", 44, 40),
	})
}

// strangers were refused at the door, as every day.
func strangers() cause.Activity {
	return cause.Activity{Kind: cause.Account, Name: "unknown", Stopped: 48_000, FirstTime: -1}
}

func stolen() cause.Activity {
	a := who(cause.Account, "login:hanako@example.jp", 1_480, 12)
	a.Bounced, a.Told = 260, 1_200
	return a
}

func TestRankNamesWhoStoodOut(t *testing.T) {
	grows := func(recipients int64) cause.Activity {
		a := who(cause.Account, "login:grows@example.jp", recipients, 500)
		a.UsualMost = 700
		return a
	}
	forwards := who(cause.Forward, "sales@example.jp", 800, 5)
	forwards.Bounced = 310
	forwards.Sent -= forwards.Bounced
	released := who(cause.Account, "login:let-go@example.jp", 20, 20)
	released.Released, released.Held = 300, 12
	pressed := who(cause.Account, "login:pressed@example.jp", 150, 10) // what passed before a limit stopped the rest
	pressed.Stopped = 5_000
	bought := who(cause.Account, "login:bought-list@example.jp", 5_000, 4_800) // no more than usual, to addresses that do not exist
	bought.Sent, bought.Bounced, bought.UsualBounced = 3_900, 1_100, 60
	known := shared()
	for i := range known {
		known[i].Usual, known[i].UsualBounced, known[i].UsualMost = -1, -1, -1
	}
	firstDay := slices.Concat(shop("a", 900, -1), known)
	dragging := stolen() // for days already
	dragging.Usual, dragging.UsualMost, dragging.UsualBounced = 330, 1_500, 55
	shared2 := func(usual float64) []cause.Activity { // two sites of one account
		one, two := shared(), shared()
		for i := range two {
			two[i].Name += "-2"
			if two[i].Kind == cause.Plugin {
				two[i].Site += "-2"
			}
			two[i].Account = one[0].Name
		}
		both := who(cause.Account, one[0].Name, 1_280, 62)
		both.Account, both.FirstTime, both.Told, both.Bounced = both.Name, 1_180, 1_140, 142
		return slices.Concat([]cause.Activity{both}, one[1:], two[1:])
	}
	spread := who(cause.Template, "77aa", 900, 0) // one text from many logins
	spread.FirstTime = 850
	many := []cause.Activity{spread}
	for _, login := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"} {
		many = append(many, who(cause.Account, "login:"+login, 100, 60))
	}
	many[0].Account = "login:a"
	wwwData := who(cause.Account, "local_user:www-data", 2_610, 2_000) // of a hundred sites, and nobody knows which
	unlabelled := who(cause.Template, "9f31", 610, 0)
	unlabelled.FirstTime, unlabelled.Bounced, unlabelled.Account = 600, 70, wwwData.Name
	usualLogin := who(cause.Account, "login:office@example.jp", 1_500, 300)
	itsText := who(cause.Template, "9f31", 1_200, 0)
	itsText.Account = usualLogin.Name
	for _, c := range []struct {
		name string
		all  []cause.Activity
		want []string // the first; all of them if the last is ""
	}{
		{"nobody", nil, []string{""}},
		{"everybody quiet", append(quiet(), newsletter(), strangers()), []string{""}},
		{"share-by-mail among shops", slices.Concat(quiet(), shared(), []cause.Activity{newsletter(), strangers()}),
			[]string{"share-by-mail@shop.example.jp", "shop.example.jp", "local_user:site12", "9f31", ""}},
		{"share-by-mail on a busy server", slices.Concat(quiet(), shared(), []cause.Activity{newsletter(), weekly(), grows(900)}),
			[]string{"share-by-mail@shop.example.jp", "shop.example.jp", "local_user:site12"}},
		{"stolen login", append(quiet(), newsletter(), weekly(), stolen()), []string{"login:hanako@example.jp"}},
		{"stolen login for days", append(quiet(), newsletter(), weekly(), dragging), []string{"login:hanako@example.jp"}},
		{"newsletter of every day", append(quiet(), newsletter()), []string{""}},
		{"newsletter of every week is less than a login that grew", append(quiet(), weekly(), grows(2_400)), []string{"login:grows@example.jp", "login:weekly@example.jp", ""}},
		{"bought addresses", append(quiet(), newsletter(), bought), []string{"login:bought-list@example.jp", ""}},
		{"forwarding mailbox", append(quiet(), newsletter(), forwards), []string{"sales@example.jp", ""}},
		{"held and let go", append(quiet(), newsletter(), released), []string{"login:let-go@example.jp", ""}},
		{"stopped halfway", append(quiet(), newsletter(), pressed), []string{"login:pressed@example.jp", ""}},
		{"all stopped", append(quiet(), cause.Activity{Kind: cause.Account, Name: "login:stopped", Stopped: 900, Held: 900, Usual: 3}), []string{""}},
		{"first day", firstDay, []string{"share-by-mail@shop.example.jp", "shop.example.jp", "local_user:site12"}},
		{"two sites of one account", append(quiet(), shared2(31)...), []string{"local_user:site12", "share-by-mail@shop.example.jp", "share-by-mail@shop.example.jp-2"}},
		{"one text of a shared account", append(quiet(), wwwData, unlabelled), []string{"9f31"}},
		{"one text of a login", append(quiet(), usualLogin, itsText), []string{"login:office@example.jp", "9f31", ""}},
		{"one text of many logins", append(quiet(), many...), []string{"77aa"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := cause.Rank(c.all)
			names := make([]string, len(got))
			for i, s := range got {
				names[i] = s.Name
				if !(s.Score > 0 && s.Score <= 1) || !(s.Share >= 0 && s.Share <= 1) {
					t.Errorf("%s: score %v, share %v", s.Name, s.Score, s.Share)
				}
				t.Logf("%.3f %.3f %s", s.Score, s.Share, s.Name)
			}
			want := c.want
			if want[len(want)-1] == "" {
				want = want[:len(want)-1]
				if len(names) != len(want) {
					t.Errorf("%d suspects, want %d: %q", len(names), len(want), names)
				}
			}
			if len(names) < len(want) || !slices.Equal(names[:len(want)], want) {
				t.Errorf("%q, want %q first", names, want)
			}
		})
	}
}

func TestShareIsOfAllThatWentOut(t *testing.T) {
	got := cause.Rank([]cause.Activity{who(cause.Account, "login:a", 300, 0), who(cause.Account, "login:b", 600, 600), who(cause.Forward, "c", 100, 100)})
	if len(got) != 1 || got[0].Share != 0.3 {
		t.Errorf("%+v", got)
	}
	if got[0].Activity != who(cause.Account, "login:a", 300, 0) {
		t.Errorf("the activity is another: %+v", got[0].Activity)
	}
}

func TestRankGoesByNoOrder(t *testing.T) {
	all := slices.Concat(quiet(), shared(), []cause.Activity{newsletter(), weekly(), stolen()})
	for i := range all {
		all[i].Usual *= 1.1 // fractions, whose sum depends on their order
	}
	want := cause.Rank(all)
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got := cause.Rank(all); !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v\nwant %+v", got, want)
		}
	}
}

// FuzzRank: whatever the numbers are, scores and shares are shares.
func FuzzRank(f *testing.F) {
	f.Add(int64(640), int64(570), int64(590), int64(71), int64(9), 31.0, 1.0, 60.0)
	f.Add(int64(-1), int64(math.MaxInt64), int64(math.MaxInt64), int64(-5), int64(0), -1.0, -1.0, -1.0)
	f.Add(int64(math.MaxInt64), int64(0), int64(-1), int64(1), int64(math.MaxInt64), 0.0, 1e300, 1e-300)
	f.Fuzz(func(t *testing.T, recipients, stops, first, bounced, released int64, usual, usualBounced, most float64) {
		if math.IsNaN(usual+usualBounced+most) || math.IsInf(usual+usualBounced+most, 0) {
			return // the caller divides by nothing
		}
		a := cause.Activity{Kind: cause.Account, Name: "a", Account: "a", Recipients: recipients, Told: stops, Stopped: stops, FirstTime: first, Bounced: bounced, Sent: bounced,
			Released: released, Usual: usual, UsualBounced: usualBounced, UsualMost: most}
		b, c := a, a
		b.Kind, b.Usual = cause.Site, 0
		c.Kind, c.Site, c.Stopped = cause.Plugin, "a", 0
		for _, s := range cause.Rank([]cause.Activity{a, b, c, {Kind: cause.Account, Name: "b", Recipients: 1}}) {
			if !(s.Score >= 0 && s.Score <= 1) || !(s.Share >= 0 && s.Share <= 1) {
				t.Errorf("score %v, share %v of %+v", s.Score, s.Share, s.Activity)
			}
		}
	})
}
