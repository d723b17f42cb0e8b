package share_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/cmd/internal/share"
	"relayguard/cmd/internal/switches"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy"
	"relayguard/policy/limit"
)

var perDay = []limit.Window{{Count: 7, Length: 24 * time.Hour}}

func TestWhatIsNoSwitchInRedisIsIgnoredAndToldOnce(t *testing.T) {
	const name, taro = `["suspend","login","taro",""]`, `{"id":"s1","kind":"suspend","subject":"login","value":"taro","reason":"","by":"","since":"2026-03-02T09:00:00Z"}`
	const date = "1700000000000000 "
	server := redistest.Server(t)
	ahead := func(d time.Duration) string { return fmt.Sprintf("%016d ", time.Now().Add(d).UnixMicro()) }
	for what, c := range map[string]struct{ name, value string }{
		"nothing":               {name, ""},
		"no date":               {name, taro},
		"a short date":          {name, "17000000000000 " + taro},
		"a negative date":       {name, "-170000000000000 " + taro},
		"no JSON":               {name, date + "{"},
		"a list":                {name, date + "[]"},
		"the red switch":        {`["stop","","",""]`, date + `{"id":"s1","kind":"stop","reason":"","by":"","since":"2026-03-02T09:00:00Z"}`},
		"its end":               {`["stop","","",""]`, date + `{"gone":true,"kind":"stop"}`},
		"a new kind":            {`["shadow","login","taro",""]`, date + `{"id":"s1","kind":"shadow","subject":"login","value":"taro"}`},
		"another name":          {`["suspend","login","hanako",""]`, date + taro},
		"a name of no list":     {"taro", date + taro},
		"another form":          {`["suspend","login","TARO",""]`, date + strings.Replace(taro, `"taro"`, `"TARO"`, 1)},
		"no id":                 {name, date + strings.Replace(taro, `"s1"`, `""`, 1)},
		"an id to be typed":     {name, date + strings.Replace(taro, `"s1"`, `"s1; rm -rf"`, 1)},
		"a bulk without end":    {`["bulk","login","taro",""]`, date + `{"id":"s1","kind":"bulk","subject":"login","value":"taro","count":5}`},
		"a broken network":      {`["deny","network","::ffff:1.2.3.4/100",""]`, date + `{"id":"s1","kind":"deny","subject":"network","value":"::ffff:1.2.3.4/100"}`},
		"a broken network gone": {`["deny","network","x",""]`, date + `{"gone":true,"kind":"deny","subject":"network","value":"x"}`},
		"of tomorrow":           {name, ahead(24*time.Hour) + taro},
		"broken and new":        {name, ahead(30*time.Second) + "{"},
		"of the last day":       {name, "9999999999999999 " + taro},
		"longer than any":       {name, date + strings.Replace(taro, `"reason":""`, `"reason":"`+strings.Repeat("x", 30<<10)+`"`, 1)},
		"of 20 MB":              {name, strings.Repeat("9", 20<<20)},
		"with a name of 1 MB":   {strings.Repeat("x", 1<<20), date + taro},
	} {
		t.Run(what, func(t *testing.T) {
			db := client(t, server.Addr)
			db.FlushAll(t.Context())
			a, b := join(t, db, "mx1", nil), join(t, db, "mx2", nil)
			raw(t, db, c.name, c.value)
			settle(t, a, b)
			a.set(policy.Switch{Kind: policy.Deny, Subject: policy.SubjectHelo, Value: "x"})
			settle(t, a, b)
			if got := b.abouts(); got != "deny helo:x" || b.Health().Refused != 1 {
				t.Errorf("in force %s, %+v", got, b.Health())
			}
			if n := strings.Count(b.log.String(), "is ignored"); n != 1 {
				t.Errorf("told %d times: %.2000s", n, b.log.String())
			}
			// It cannot keep an order from being shared, either.
			b.suspend("taro")
			settle(t, b, a)
			if got := a.abouts(); got != "deny helo:x,suspend login:taro" {
				t.Errorf("in force %s", got)
			}
		})
	}
}

func TestKeyOfAnotherTypeIsTold(t *testing.T) {
	server := redistest.Server(t)
	db := client(t, server.Addr)
	for _, key := range []string{"{test}:switches", "{test}:switches:version"} {
		a := join(t, db, "mx1", nil)
		db.FlushAll(t.Context())
		db.LPush(t.Context(), key, "x")
		a.suspend("taro")
		if err := a.Sync(t.Context()); err == nil || !strings.Contains(a.Health().Why, "WRONGTYPE") || a.abouts() != "suspend login:taro" {
			t.Errorf("%v, %+v, %s", err, a.Health(), a.abouts())
		}
	}
}

func TestMoreThanRelaysPutThereIsNotRead(t *testing.T) {
	server := redistest.Server(t)
	db := client(t, server.Addr)
	a := join(t, db, "mx1", nil)
	if err := db.Eval(t.Context(), `for i = 1, 200001 do redis.call('HSET', KEYS[1], i, '') end return 0`, []string{"{test}:switches"}).Err(); err != nil {
		t.Fatal(err)
	}
	a.suspend("taro")
	if err := a.Sync(t.Context()); err == nil || !strings.Contains(a.Health().Why, "more than 200000") || a.abouts() != "suspend login:taro" {
		t.Errorf("%v, %+v, %s", err, a.Health(), a.abouts())
	}
	if n := strings.Count(a.log.String(), "is ignored"); n != 1000 {
		t.Errorf("told %d times", n)
	}
	db.Del(t.Context(), "{test}:switches")
	settle(t, a, join(t, db, "mx2", nil))
}

func TestManySwitches(t *testing.T) {
	server := redistest.Server(t)
	a, b := join(t, client(t, server.Addr), "mx1", nil), join(t, client(t, server.Addr), "mx2", nil)
	var all []switches.Entry
	for i := range 3000 {
		s := policy.Switch{ID: fmt.Sprint("s", i), Kind: policy.Deny, Subject: policy.SubjectClient, Value: fmt.Sprintf("10.0.%d.%d", i>>8, i&255), Reason: strings.Repeat("<", 900)}
		all = append(all, switches.Entry{What: switches.What{Kind: s.Kind, Subject: s.Subject, Value: s.Value}, Changed: time.UnixMicro(int64(i)).UTC(), Switch: &s})
	}
	if _, err := a.file.Merge(time.Now(), all); err != nil {
		t.Fatal(err)
	}
	settle(t, a, b)
	if n := len(b.file.All(time.Now())); n != 3000 {
		t.Errorf("%d have come", n)
	}
}

// Two that write at the same moment do not miss each other.
func TestExchangesRace(t *testing.T) {
	server := redistest.Server(t)
	all := fleet(t, func(int) goredis.UniversalClient { return client(t, server.Addr) }, nil)
	for i := range 30 {
		var work sync.WaitGroup
		for _, r := range all {
			r.suspend(fmt.Sprint("of-", r.name, i))
			r.suspend("of-all")
			work.Go(func() {
				if err := r.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		if settle(t, all...); t.Failed() {
			t.Fatalf("in round %d", i)
		}
	}
}

// Whatever is ordered where, in whatever order they exchange, whoever is cut off
// meanwhile: in the end all relays know the same, and what each ordered last and
// nobody changed afterwards is in force.
func TestChangesInAnyOrderConverge(t *testing.T) {
	server := redistest.Server(t)
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			client(t, server.Addr).FlushAll(t.Context())
			var nets []*redistest.Network
			all := fleet(t, func(int) goredis.UniversalClient {
				nets = append(nets, redistest.Proxy(t, server.Addr))
				return client(t, nets[len(nets)-1].Addr)
			}, func(i int, o *share.Options) {
				skew := time.Duration(random.IntN(7200)-3600) * time.Second
				o.Now = func() time.Time { return time.Now().Add(skew) }
			})
			for range 60 {
				i := random.IntN(3)
				login := fmt.Sprint("u", random.IntN(5))
				switch random.IntN(8) {
				case 0, 1:
					all[i].suspend(login)
				case 2:
					if _, err := all[i].file.Remove(func(s policy.Switch) bool { return s.Value == login }); err != nil {
						t.Fatal(err)
					}
				case 3:
					nets[i].Refuse()
				case 4:
					nets[i].Restore()
				default:
					_ = all[i].Sync(t.Context()) // it may be cut off
				}
			}
			for _, n := range nets {
				n.Restore()
			}
			settle(t, all...)
			all[0].suspend("last")
			settle(t, all...)
			all[1].resume("last")
			settle(t, all...)
			if strings.Contains(all[2].abouts(), "last") {
				t.Errorf("in force %s", all[2].abouts())
			}
		})
	}
}
