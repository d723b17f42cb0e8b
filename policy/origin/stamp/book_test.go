package stamp_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/policy/origin/stamp"
)

var now = time.Unix(1784000000, 0).UTC()

func key(first byte) stamp.Key {
	k := bytes.Repeat([]byte{7}, stamp.KeySize)
	k[0] = first
	return k
}

func nonce(n int) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%012d", n))
}

var (
	shop = stamp.Site{Name: "shop.example.jp", UID: 6001, KeyID: "0a1b2c3d", Key: key(1), Root: "/var/www/shop"}
	blog = stamp.Site{Name: "blog.example.jp", UID: 6002, KeyID: "11112222", Key: key(2), Root: "/var/www/shop/blog"}
	away = stamp.Site{Name: "away.example.jp", UID: -1, Login: "away@example.jp", KeyID: "33334444", Key: key(3)}

	share  = stamp.Stamp{Plugin: "share-by-mail", Entry: "ajax", Script: "a.php:1"}
	friend = []string{"friend@example.com"}
)

func mail() *stamp.Mail {
	return &stamp.Mail{UID: 6001, RcptTo: friend, Subject: "Hello", Digest: [16]byte{1}}
}

func made(at time.Time, n int) string {
	return stamp.Make(at, &shop, &share, friend, "Hello", nonce(n))
}

func book(t testing.TB) *stamp.Book {
	t.Helper()
	b, err := stamp.NewBook([]stamp.Site{shop, blog, away}, stamp.NewReplays(100))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhyAStampIsNotBelieved(t *testing.T) {
	good := made(now, 1)
	stranger := shop
	stranger.KeyID = "99999999"
	forger := shop
	forger.Key = key(9)
	for _, c := range []struct {
		name   string
		field  string
		change func(*stamp.Mail)
		want   error
	}{
		{"good", good, nil, nil},
		{"login in place of a uid", stamp.Make(now, &away, &share, friend, "Hello", nonce(1)), func(m *stamp.Mail) { m.UID, m.Login = -1, "Away@Example.jp" }, nil},
		{"login and a uid", stamp.Make(now, &away, &share, friend, "Hello", nonce(1)), func(m *stamp.Mail) { m.Login = "away@example.jp" }, nil},
		{"the oldest", made(now.Add(-24*time.Hour), 1), nil, nil},
		{"the latest", made(now.Add(10*time.Minute), 1), nil, nil},

		{"empty", "", nil, stamp.ErrForm},
		{"another version", strings.Replace(good, "v1", "v2", 1), nil, stamp.ErrForm},
		{"a token more", good + " x=1", nil, stamp.ErrForm},
		{"a token less", strings.Replace(good, " b=0", "", 1), nil, stamp.ErrForm},
		{"another order", strings.Replace(good, " b=0 p=c2hhcmUtYnktbWFpbA", " p=c2hhcmUtYnktbWFpbA b=0", 1), nil, stamp.ErrForm},
		{"a token twice", strings.Replace(good, " b=0", " b=0 b=0", 1), nil, stamp.ErrForm},
		{"a sign", strings.Replace(good, " b=0", " b=+0", 1), nil, stamp.ErrForm},
		{"a leading zero", strings.Replace(good, " b=0", " b=00", 1), nil, stamp.ErrForm},
		{"a large number", strings.Replace(good, " b=0", " b=99999999999999999999", 1), nil, stamp.ErrForm},
		{"no ASCII", strings.Replace(good, "e=ajax", "e=äjax", 1), nil, stamp.ErrForm},
		{"a control character", strings.Replace(good, "e=ajax", "e=aj\x00ax", 1), nil, stamp.ErrForm},
		{"a short nonce", stamp.Make(now, &shop, &share, friend, "Hello", "AAAA"), nil, stamp.ErrForm},
		{"a long name", strings.Replace(good, "p=c2hh", "p="+strings.Repeat("c2hh", 40), 1), nil, stamp.ErrForm},
		{"too long", good + strings.Repeat(" ", 5000), nil, stamp.ErrForm},
		{"a key in capitals", strings.Replace(good, "k=0a1b2c3d", "k=0A1B2C3D", 1), nil, stamp.ErrForm},

		{"key of nobody", stamp.Make(now, &stranger, &share, friend, "Hello", nonce(1)), nil, stamp.ErrKey},
		{"another's key", stamp.Make(now, &forger, &share, friend, "Hello", nonce(1)), nil, stamp.ErrSignature},
		{"another's key id", strings.Replace(good, "k=0a1b2c3d", "k=11112222", 1), nil, stamp.ErrSignature},
		{"another plugin", strings.Replace(good, "p=c2hhcmUtYnktbWFpbA", "p=", 1), nil, stamp.ErrSignature},
		{"another's uid", good, func(m *stamp.Mail) { m.UID = 6002 }, stamp.ErrAccount},
		{"no uid", good, func(m *stamp.Mail) { m.UID = -1 }, stamp.ErrAccount},
		{"a login is no uid", good, func(m *stamp.Mail) { m.UID, m.Login = -1, "away@example.jp" }, stamp.ErrAccount},
		{"another's login", stamp.Make(now, &away, &share, friend, "Hello", nonce(1)), func(m *stamp.Mail) { m.UID, m.Login = -1, "taro@example.jp" }, stamp.ErrAccount},
		{"no login", stamp.Make(now, &away, &share, friend, "Hello", nonce(1)), func(m *stamp.Mail) { m.UID = -1 }, stamp.ErrAccount},
		{"yesterday's", made(now.Add(-24*time.Hour-time.Second), 1), nil, stamp.ErrTime},
		{"from the future", made(now.Add(10*time.Minute+time.Second), 1), nil, stamp.ErrTime},
		{"a recipient more", good, func(m *stamp.Mail) { m.RcptTo = []string{"friend@example.com", "b@example.com"} }, stamp.ErrRecipients},
		{"another recipient", good, func(m *stamp.Mail) { m.RcptTo = []string{"b@example.com"} }, stamp.ErrRecipients},
		{"no recipient", good, func(m *stamp.Mail) { m.RcptTo = nil }, stamp.ErrRecipients},
		{"another subject", good, func(m *stamp.Mail) { m.Subject = "Buy" }, stamp.ErrSubject},
	} {
		m := mail()
		if c.change != nil {
			c.change(m)
		}
		s, err := book(t).Verify(now, []string{c.field}, m)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil && s != (stamp.Stamp{}) {
			t.Errorf("%s: not believed, and yet %+v", c.name, s)
		}
	}
	if _, err := book(t).Verify(now, nil, mail()); err != stamp.ErrNone {
		t.Errorf("no field: %v", err)
	}
	if _, err := new(stamp.Book).Verify(now, []string{good}, mail()); !errors.Is(err, stamp.ErrKey) {
		t.Errorf("a book of no sites: %v", err)
	}
}

func TestWhereFoldingAndRepetitionMakeNoDifference(t *testing.T) {
	s := stamp.Make(now, &shop, &share, []string{"a@x.jp", " B@x.jp "}, "one  two", nonce(1))
	m := mail()
	m.RcptTo, m.Subject = []string{"b@X.jp", "A@x.jp", "a@x.jp"}, " one\r\n two "
	if _, err := book(t).Verify(now, []string{s}, m); err != nil {
		t.Error(err)
	}
}

func TestTheFirstBelievableFieldCounts(t *testing.T) {
	forged := strings.Replace(made(now, 1), "e=ajax", "e=cron", 1)
	other := stamp.Make(now, &shop, &stamp.Stamp{Plugin: "other"}, friend, "Hello", nonce(2))
	s, err := book(t).Verify(now, []string{"garbage", forged, made(now, 1), other}, mail())
	if err != nil || s.Plugin != "share-by-mail" {
		t.Errorf("%+v, %v", s, err)
	}
	many := append(slices.Repeat([]string{forged}, 8), made(now, 1))
	if _, err := book(t).Verify(now, many, mail()); !errors.Is(err, stamp.ErrSignature) {
		t.Errorf("the ninth field: %v", err)
	}
	m := mail()
	m.Subject = "Buy"
	if _, err := book(t).Verify(now, []string{"garbage", made(now, 1), forged}, m); !errors.Is(err, stamp.ErrSubject) {
		t.Errorf("the refusal of the field that came furthest: %v", err)
	}
}

func TestNamesOfASiteAreCleanedAndBounded(t *testing.T) {
	for _, c := range []struct{ plugin, script, want, wantScript string }{
		{"Share\r\nBcc: a", "a.php\x00:1", "share__bcc: a", "a.php_:1"},
		{strings.Repeat("日", 50), strings.Repeat("é", 150), strings.Repeat("日", 33), strings.Repeat("é", 100)},
		{"a\xff\u202eb", "", "a__b", ""},
	} {
		field := stamp.Make(now, &shop, &stamp.Stamp{Plugin: c.plugin, Script: c.script, Entry: "graphql"}, friend, "Hello", nonce(1))
		s, err := book(t).Verify(now, []string{field}, mail())
		if err != nil || s.Plugin != c.want || s.Script != c.wantScript || s.Entry != "other" {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

func TestAStampIsForOneMessage(t *testing.T) {
	b := book(t)
	verify := func(field string, digest byte) error {
		m := mail()
		m.Digest = [16]byte{digest}
		_, err := b.Verify(now, []string{field}, m)
		return err
	}
	for i, c := range []struct {
		field  string
		digest byte
		want   error
	}{
		{made(now, 1), 1, nil},
		{made(now, 1), 1, nil}, // the MTA tries again
		{made(now, 1), 2, stamp.ErrReplay},
		{made(now, 1), 1, nil},
		{made(now, 2), 2, nil},
		{made(now.Add(-time.Second), 2), 3, stamp.ErrReplay}, // the nonce is used
		{made(now, 3), 0, nil},
		{made(now, 3), 0, stamp.ErrReplay}, // not known to be the same
	} {
		if err := verify(c.field, c.digest); !errors.Is(err, c.want) {
			t.Errorf("step %d: %v, want %v", i, err, c.want)
		}
	}
}

func TestReplaysOutliveTheBook(t *testing.T) {
	replays := stamp.NewReplays(100)
	for i, want := range []error{nil, stamp.ErrReplay} {
		b, err := stamp.NewBook([]stamp.Site{shop}, replays)
		if err != nil {
			t.Fatal(err)
		}
		m := mail()
		m.Digest = [16]byte{byte(i + 1)}
		if _, err := b.Verify(now, []string{made(now, 1)}, m); !errors.Is(err, want) {
			t.Errorf("book %d: %v, want %v", i, err, want)
		}
	}
}

// A site that floods the memory forgets its own oldest stamps, which are then
// replays; its neighbour's are as good as before.
func TestAFullMemoryHasAHorizon(t *testing.T) {
	replays := stamp.NewReplays(100)
	b, err := stamp.NewBook([]stamp.Site{shop, blog}, replays)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(site *stamp.Site, second, n int, digest byte) error {
		field := stamp.Make(now.Add(time.Duration(second)*time.Second), site, &share, friend, "Hello", nonce(n))
		m := mail()
		m.UID, m.Digest = site.UID, [16]byte{digest}
		_, err := b.Verify(now.Add(5*time.Minute), []string{field}, m)
		return err
	}
	if err := verify(&blog, 0, 1, 1); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if err := verify(&shop, i, i, 1); err != nil {
			t.Fatal(i, err)
		}
		if replays.Len() > 100 {
			t.Fatalf("%d uses are remembered", replays.Len())
		}
	}
	for _, c := range []struct {
		name      string
		site      *stamp.Site
		second, n int
		digest    byte
		want      error
	}{
		{"forgotten", &shop, 0, 0, 2, stamp.ErrReplay},
		{"forgotten, even as the same", &shop, 0, 0, 1, stamp.ErrReplay},
		{"never seen and as old", &shop, 100, 999, 1, stamp.ErrReplay},
		{"remembered as the same", &shop, 299, 299, 1, nil},
		{"remembered as another", &shop, 299, 299, 2, stamp.ErrReplay},
		{"new", &shop, 299, 998, 1, nil},
		{"the neighbour's new one of old", &blog, 0, 997, 1, nil},
		{"the neighbour's remembered one", &blog, 0, 1, 2, stamp.ErrReplay},
	} {
		if err := verify(c.site, c.second, c.n, c.digest); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestWhatIsTooOldIsForgotten(t *testing.T) {
	replays := stamp.NewReplays(100)
	b, err := stamp.NewBook([]stamp.Site{shop}, replays)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := b.Verify(now, []string{made(now, i)}, mail()); err != nil {
			t.Fatal(err)
		}
	}
	later := now.Add(25 * time.Hour)
	if _, err := b.Verify(later, []string{made(later, 100)}, mail()); err != nil || replays.Len() != 1 {
		t.Errorf("%v; %d uses are remembered, want that of today", err, replays.Len())
	}
	if _, err := b.Verify(now, []string{made(now, 1)}, &stamp.Mail{UID: 6001, RcptTo: friend, Subject: "Hello", Digest: [16]byte{2}}); !errors.Is(err, stamp.ErrReplay) {
		t.Errorf("a clock that was set back: %v", err)
	}
}

func TestOneOfManyAtOnceIsBelieved(t *testing.T) {
	b := book(t)
	field := made(now, 1)
	var wg sync.WaitGroup
	believed := make(chan byte, 32)
	for i := range byte(32) {
		wg.Go(func() {
			m := mail()
			m.Digest = [16]byte{i + 1}
			if _, err := b.Verify(now, []string{field}, m); err == nil {
				believed <- i
			}
		})
	}
	wg.Wait()
	if len(believed) != 1 {
		t.Errorf("%d messages with one stamp were believed", len(believed))
	}
}

func TestBookTellsEveryFault(t *testing.T) {
	good := stamp.Site{Name: "a.jp", UID: 1, KeyID: "00000001", Key: key(1), Root: "/a"}
	with := func(change func(*stamp.Site)) []stamp.Site {
		s := stamp.Site{Name: "b.jp", UID: 2, KeyID: "00000002", Key: key(2), Root: "/b"}
		change(&s)
		return []stamp.Site{good, s}
	}
	for _, c := range []struct {
		sites []stamp.Site
		want  string
	}{
		{with(func(s *stamp.Site) { s.Name = "" }), "site[1]: no name"},
		{with(func(s *stamp.Site) { s.Name = "A.jp." }), `site "A.jp.": name used twice`},
		{with(func(s *stamp.Site) { s.Name = "a b" }), "a name with blanks"},
		{with(func(s *stamp.Site) { s.Name = "x@b.jp" }), "a name with blanks"},
		{with(func(s *stamp.Site) { s.KeyID = "1234" }), `site "b.jp": key id "1234", want 8 hexadecimal digits`},
		{with(func(s *stamp.Site) { s.KeyID = "0000000A" }), `key id "0000000A"`},
		{with(func(s *stamp.Site) { s.KeyID = "00000001" }), `key id 00000001 is also that of site "a.jp"`},
		{with(func(s *stamp.Site) { s.Key = key(1) }), `its key is also that of site "a.jp"`},
		{with(func(s *stamp.Site) { s.Key = s.Key[:31] }), "a key of 31 octets, want 32"},
		{with(func(s *stamp.Site) { s.Key = make([]byte, 32) }), "a key of zeros"},
		{with(func(s *stamp.Site) { s.UID = -2 }), "uid -2"},
		{with(func(s *stamp.Site) { s.UID = -1 }), "neither uid nor login"},
		{with(func(s *stamp.Site) { s.Root = "www" }), `root "www"`},
		{with(func(s *stamp.Site) { s.Root = "/b/" }), `root "/b/"`},
		{with(func(s *stamp.Site) { s.Root = "/" }), `root "/"`},
		{with(func(s *stamp.Site) { s.Root = "/a" }), `root "/a" is also that of site "a.jp"`},
	} {
		b, err := stamp.NewBook(c.sites, nil)
		if err == nil || b != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q alone", err, c.want)
		}
	}
	_, err := stamp.NewBook([]stamp.Site{{UID: -1}, {UID: -1}}, nil)
	if err == nil || strings.Count(err.Error(), "\n") != 7 {
		t.Errorf("%v, want every fault of both", err)
	}
}

func TestTheSiteOfADirectory(t *testing.T) {
	b := book(t)
	for dir, want := range map[string]string{
		"/var/www/shop":               "shop.example.jp",
		"/var/www/shop/wp-admin":      "shop.example.jp",
		"/var/www/shop/blog/wp-admin": "blog.example.jp",
		"/var/www/shopping":           "",
		"/var/www":                    "",
		"/":                           "",
		"":                            "",
		"shop":                        "",
	} {
		for _, s := range []stamp.Site{shop, blog} {
			want := want
			if want != s.Name { // nobody may say that he is in another account's directory
				want = ""
			}
			if got, ok := b.RootOf(s.UID, dir); got != want || ok != (want != "") {
				t.Errorf("%q of uid %d: %q, %v", dir, s.UID, got, ok)
			}
		}
	}
	if got, ok := new(stamp.Book).RootOf(6001, "/var/www/shop"); ok {
		t.Error(got)
	}
}

func TestReasonsAreAClosedSet(t *testing.T) {
	_, err := book(t).Verify(now, []string{made(now.Add(-48*time.Hour), 1)}, mail())
	if got := stamp.Reason(err); got != "time" || !slices.Contains(stamp.Reasons(), got) {
		t.Errorf("%v is %q", err, got)
	}
	if stamp.Reason(nil) != "" || stamp.Reason(errors.New("x")) != "" || stamp.Reason(stamp.ErrNone) != "none" {
		t.Error("reasons of no refusals")
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	if s := fmt.Sprintf("%v %+v %#v %s %x", shop, shop, shop, shop.Key, shop.Key); strings.Contains(s, "7 7") || strings.Contains(s, "0707") || strings.Contains(s, "0x7") {
		t.Error(s)
	}
	raw, err := json.Marshal(shop)
	var back stamp.Site
	if err != nil || json.Unmarshal(raw, &back) != nil || !bytes.Equal(back.Key, shop.Key) {
		t.Errorf("%s, %v", raw, err)
	}
}

// What is read of a message that is still to come is believed of it when it comes.
func TestReadUsesNoStampUp(t *testing.T) {
	b := book(t)
	unknown := mail()
	unknown.Digest = [16]byte{}
	for range 2 {
		if s, err := b.Read(now, []string{"garbage", made(now, 1)}, unknown); err != nil || s.Plugin != share.Plugin || s.Site != shop.Name {
			t.Errorf("read: %+v, %v", s, err)
		}
	}
	if _, err := b.Verify(now, []string{made(now, 1)}, mail()); err != nil {
		t.Errorf("the message that follows: %v", err)
	}
	another := mail()
	another.Digest = [16]byte{2}
	for name, m := range map[string]*stamp.Mail{"not known to be the same": unknown, "another": another} {
		if _, err := b.Read(now, []string{made(now, 1)}, m); !errors.Is(err, stamp.ErrReplay) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Read(now, []string{made(now, 1)}, mail()); err != nil {
		t.Errorf("the same message: %v", err)
	}
	stranger := mail()
	stranger.UID = blog.UID
	if _, err := b.Read(now, []string{made(now, 2)}, stranger); !errors.Is(err, stamp.ErrAccount) {
		t.Errorf("another account: %v", err)
	}
}
