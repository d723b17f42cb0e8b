package check_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

func TestNeighbours(t *testing.T) { synctest.Test(t, neighbours) }

func neighbours(t *testing.T) {
	ranges := func(name string) rbl.Zone {
		z := zone4(name)
		z.Ranges = true
		return z
	}
	f := newFake("r")
	f.serve("half.example", func(labels string, _ rbl.Type) rbl.Response {
		switch {
		case labels == listed4:
			return addrs("127.0.0.2")
		case strings.HasSuffix(labels, ".113.0.203") && len(strings.Split(labels, ".")[0]) == 3:
			return addrs("127.0.0.2") // 100 to 255
		}
		return noName()
	})
	f.serve("wild.example", func(string, rbl.Type) rbl.Response { return addrs("127.0.0.2") })
	f.serve("silent.example", func(string, rbl.Type) rbl.Response { return timedOut() })
	f.serve("addresses.example", well(nil).server())
	welcome := ranges("welcome.example")
	welcome.Welcome = true
	zones := []rbl.Zone{ranges("wild.example"), ranges("half.example"), ranges("silent.example"), zone4("addresses.example"), welcome}
	c := check.New(check.Options{Resolvers: []rbl.Resolver{f}})

	got := c.Neighbours(t.Context(), []netip.Prefix{netip.MustParsePrefix("203.0.113.7/24")}, zones, 256)
	want := []check.Neighbour{
		{Zone: "half.example", Asked: 256, Listed: 156},
		{Zone: "silent.example", Asked: 256, Unknown: 256},
		{Zone: "wild.example", Asked: 256, Unknown: 256},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, n := range got {
		w := want[i]
		w.Prefix, w.At = netip.MustParsePrefix("203.0.113.0/24"), n.At
		if n != w || n.At.IsZero() {
			t.Errorf("%+v, want %+v", n, w)
		}
	}
	if asked := f.questions(".addresses.example A"); len(asked)+len(f.questions(".welcome.example A")) > 0 {
		t.Errorf("asked %v", asked)
	}
	if txt := f.questions("TXT"); len(txt) > 0 {
		t.Errorf("asked for reasons: %v", txt)
	}
}

// At most most addresses are asked about, spread over the prefix, ours among them.
func TestNeighboursAreSpread(t *testing.T) { synctest.Test(t, neighboursAreSpread) }

func neighboursAreSpread(t *testing.T) {
	for prefix, c := range map[string]struct {
		most, asked int
		own         string // as labels
	}{
		"203.0.113.7/24":      {16, 16, "7.113.0.203"},
		"203.0.113.77/32":     {16, 1, "77.113.0.203"},
		"203.0.113.77/30":     {0, 4, "77.113.0.203"},
		"203.0.113.255/20":    {256, 256, "255.113.0.203"},
		"2001:db8::1234:5/64": {32, 32, "5.0.0.0.4.3.2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"},
		"2001:db8::ffff/0":    {8, 8, "f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"},
	} {
		z := zone4("bl.example")
		z.Kinds, z.Ranges = []rbl.Kind{rbl.IP4, rbl.IP6}, true
		z.Test.Listed6, z.Test.Clean6 = listed6, clean6
		f := newFake("r").serve("bl.example", entries{listed4: addrs("127.0.0.2"), listed6: addrs("127.0.0.2")}.server())
		p := netip.MustParsePrefix(prefix)
		got := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Neighbours(t.Context(), []netip.Prefix{p, p, {}, netip.MustParsePrefix("::ffff:203.0.113.7/120")}, []rbl.Zone{z}, c.most)
		if len(got) != 1 || got[0].Asked != c.asked || got[0].Listed+got[0].Unknown != 0 || got[0].Prefix != p.Masked() {
			t.Errorf("%s: %+v", prefix, got)
		}
		if len(f.questions(c.own+".bl.example A")) != 1 {
			t.Errorf("%s: ours was not asked about", prefix)
		}
	}
}

// Two of ours side by side are both asked about.
func TestNeighboursBothOurs(t *testing.T) { synctest.Test(t, neighboursBothOurs) }

func neighboursBothOurs(t *testing.T) {
	z := zone4("bl.example")
	z.Ranges = true
	f := newFake("r").serve("bl.example", well(nil).server())
	got := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Neighbours(t.Context(),
		[]netip.Prefix{netip.MustParsePrefix("203.0.113.16/24"), netip.MustParsePrefix("203.0.113.17/24")}, []rbl.Zone{z}, 16)
	if len(got) != 1 || got[0].Asked > 16 {
		t.Errorf("%+v", got)
	}
	for _, own := range []string{"16.113.0.203", "17.113.0.203"} {
		if len(f.questions(own+".bl.example A")) != 1 {
			t.Errorf("%s was not asked about", own)
		}
	}
}

// However many prefixes there are, one look asks a list no more than 1,024 questions,
// four a second, and some of each prefix.
func TestNeighboursAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := zone4("bl.example")
		z.Ranges = true
		first := newFake("first").serve("bl.example", well(nil).server())
		second := newFake("second").serve("bl.example", well(nil).server())
		c := check.New(check.Options{Resolvers: []rbl.Resolver{first, second}})
		prefixes := []netip.Prefix{netip.MustParsePrefix("198.51.100.77/32")}
		for i := range 63 {
			prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(i), 7}), 24))
		}
		began := time.Now()
		got := c.Neighbours(t.Context(), prefixes, []rbl.Zone{z}, 0)
		sum := 0
		for i, n := range got {
			if n.Unknown+n.Listed > 0 || i == 0 && n.Asked != 1 || i > 0 && (n.Asked < 15 || n.Asked > 16) {
				t.Errorf("%+v", n)
			}
			sum += n.Asked
		}
		if len(got) != 64 || sum != 1000 {
			t.Errorf("%d addresses of %d prefixes", sum, len(got))
		}
		any := func(string) bool { return true }
		if n := len(first.questions("")); n > 1024 || first.tightest(2, any) < 250*time.Millisecond || time.Since(began) < 4*time.Minute {
			t.Errorf("%d questions in %v, two in %v", n, time.Since(began), first.tightest(2, any))
		}

		// The first resolver loses the list half-way: the second is asked what is left.
		n := 0
		first.serve("bl.example", func(labels string, ty rbl.Type) rbl.Response {
			if n++; n > 500 {
				return servFail()
			}
			return well(nil).server()(labels, ty)
		})
		before := len(first.questions("bl.example A")) + len(first.questions("bl.example SOA"))
		got = c.Neighbours(t.Context(), prefixes, []rbl.Zone{z}, 0)
		asked := len(first.questions("bl.example A")) + len(first.questions("bl.example SOA")) + len(second.questions("")) - before
		unknown := 0
		for _, n := range got {
			unknown += n.Unknown
		}
		if asked != 1024 || unknown == 0 {
			t.Errorf("%d questions, %d unknown", asked, unknown)
		}
	})
}

// A round does not wait for a look around.
func TestRoundBesideNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		zones, subjects := paced(f, "op.example", 0, 2, 10)
		c := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1})
		var around sync.WaitGroup
		around.Go(func() {
			c.Neighbours(t.Context(), []netip.Prefix{netip.MustParsePrefix("203.0.113.7/24")}, zones, 256)
		})
		synctest.Wait()
		if round := c.Run(t.Context(), subjects, zones, nil); round.Took > time.Second {
			t.Errorf("took %v", round.Took)
		}
		around.Wait()
	})
}

// More prefixes than questions: some are left out, and nothing breaks.
func TestNeighboursOfThousands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := zone4("bl.example")
		z.Ranges = true
		f := newFake("r").serve("bl.example", well(nil).server())
		var prefixes []netip.Prefix
		for i := range 1500 {
			prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 7}), 24))
		}
		got := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Neighbours(t.Context(), prefixes, []rbl.Zone{z}, 0)
		if len(got) != 1000 || got[999].Asked != 1 {
			t.Errorf("%d prefixes", len(got))
		}
	})
}
