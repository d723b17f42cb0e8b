package sender_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"relayguard/rbl"
	"relayguard/rbl/sender"
)

// world is DNS of a test: "mail.example.jp A" to what it says: records by spaces, "!"
// and an outcome, or "" for NODATA. What is not there is NXDOMAIN.
type world map[string]string

type resolver struct {
	world world

	mu    sync.Mutex
	asked map[string]int
}

func (r *resolver) Name() string { return "test" }

var types = map[rbl.Type]string{rbl.TypeA: "A", rbl.TypeAAAA: "AAAA", rbl.TypePTR: "PTR", rbl.TypeMX: "MX", rbl.TypeTXT: "TXT"}

var outcomes = map[string]rbl.Outcome{"!timeout": rbl.TimedOut, "!servfail": rbl.ServFail, "!refused": rbl.QueryRefused, "!broken": rbl.Broken, "!dangling": rbl.Broken, "": rbl.NoData}

func (r *resolver) Ask(ctx context.Context, name string, t rbl.Type) rbl.Response {
	r.mu.Lock()
	if r.asked == nil {
		r.asked = map[string]int{}
	}
	r.asked[name+" "+types[t]]++
	r.mu.Unlock()
	if ctx.Err() != nil {
		return rbl.Response{Outcome: rbl.TimedOut, Err: ctx.Err()}
	}
	said, known := r.world[name+" "+types[t]]
	if !known {
		if said, known = r.world[name]; !known {
			for key := range r.world {
				if strings.HasPrefix(key, name+" ") {
					return rbl.Response{Outcome: rbl.NoData}
				}
			}
			return rbl.Response{Outcome: rbl.NoName}
		}
	}
	if o, is := outcomes[said]; is {
		response := rbl.Response{Outcome: o, Server: "127.0.0.1:53"}
		if o == rbl.Broken {
			response.Err = errors.New("bad\nanswer")
		}
		if said == "!dangling" {
			response.Err = fmt.Errorf("ask 127.0.0.1:53: %w", rbl.ErrDangling)
		}
		return response
	}
	response := rbl.Response{Outcome: rbl.Answered}
	switch t {
	case rbl.TypeTXT:
		response.Texts = strings.Split(said, "|")
	case rbl.TypeA, rbl.TypeAAAA:
		for _, text := range strings.Fields(said) {
			response.Addrs = append(response.Addrs, netip.MustParseAddr(text))
		}
	default:
		response.Names = strings.Fields(said)
	}
	return response
}

const (
	v4, rev4 = "203.0.113.5", "5.113.0.203.in-addr.arpa PTR"
	v6       = "2001:db8::a:5"
	rev6     = "5.0.0.0.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR"
	helo     = "mail.example.jp"
)

func look(t *testing.T, w world, addr, helo string, domains ...string) map[string]sender.Fact {
	t.Helper()
	facts := sender.Look(t.Context(), &resolver{world: w}, []sender.Sending{{Addr: netip.MustParseAddr(addr), Helo: helo}}, domains)
	by := map[string]sender.Fact{}
	for _, f := range facts {
		key := f.Check
		if strings.Contains(f.Subject, "(HELO)") {
			key = "spf helo"
		}
		by[key] = f
		if (f.State == sender.Wrong) != (f.Wanted != "") || f.Found == "" {
			t.Errorf("%+v: wanted is said if, and only if, it is wrong", f)
		}
		if strings.ContainsAny(f.Found+f.Wanted, "\r\n\x00\x1b") {
			t.Errorf("%+q: a control character", f)
		}
	}
	return by
}

func TestLookSeesReverseNamesHeloAndSPF(t *testing.T) {
	good := world{rev4: helo, rev6: helo, helo + " A": "203.0.113.9 " + v4, helo + " AAAA": v6}
	with := func(more world) world {
		all := world{}
		for _, w := range []world{good, more} {
			for name, said := range w {
				all[name] = said
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		world       world
		addr, helo  string // empty: v4, the usual one
		check       string
		state, told string // part of Found and Wanted
	}{
		"one reverse name":                   {world: good, check: "ptr", state: "ok", told: helo},
		"one reverse name of IPv6":           {world: good, addr: v6, check: "ptr", state: "ok", told: helo},
		"it leads back":                      {world: good, check: "forward", state: "ok", told: v4},
		"it leads back with IPv6":            {world: good, addr: v6, check: "forward", state: "ok", told: v6},
		"4-in-6 is IPv4":                     {world: good, addr: "::ffff:" + v4, check: "forward", state: "ok", told: v4},
		"no reverse name":                    {world: world{}, check: "ptr", state: "wrong", told: "does not exist"},
		"a name without PTR":                 {world: with(world{rev4: ""}), check: "ptr", state: "wrong", told: "no such record"},
		"a reverse name's alias of nothing":  {world: with(world{rev4: "!dangling"}), check: "ptr", state: "wrong", told: "alias of one that does not exist"},
		"it leads to an alias of nothing":    {world: with(world{helo + " A": "!dangling"}), check: "forward", state: "wrong", told: "no A record"},
		"a name that is an alias of nothing": {world: with(world{helo + " A": "!dangling"}), check: "helo", state: "wrong", told: "alias of one that does not exist"},
		"who sets it":                        {world: world{}, check: "ptr", state: "wrong", told: "names mail.example.jp; whoever gave you"},
		"several reverse names":              {world: with(world{rev4: helo + " a.example b.example c.example"}), check: "ptr", state: "wrong", told: "4 reverse names: mail.example.jp, a.example, b.example, and 1 more"},
		"a reverse name that is none":        {world: with(world{rev4: "<b>\x1b"}), check: "ptr", state: "wrong", told: "no host name"},
		"reverse timeout":                    {world: with(world{rev4: "!timeout"}), check: "ptr", state: "unknown", told: "timeout from 127.0.0.1:53"},
		"reverse SERVFAIL":                   {world: with(world{rev4: "!servfail"}), check: "ptr", state: "unknown", told: "servfail"},
		"reverse REFUSED":                    {world: with(world{rev4: "!refused"}), check: "ptr", state: "unknown", told: "refused"},
		"reverse broken":                     {world: with(world{rev4: "!broken"}), check: "ptr", state: "unknown", told: "broken from 127.0.0.1:53: bad?answer"},
		"nothing to lead back":               {world: world{}, check: "forward", state: "wrong", told: "no reverse name"},
		"it leads elsewhere":                 {world: with(world{helo + " A": "203.0.113.9"}), check: "forward", state: "wrong", told: "A 203.0.113.5"},
		"one of several leads back":          {world: with(world{rev4: "x.example y.example " + helo, "y.example A": "!servfail"}), check: "forward", state: "ok", told: helo},
		"none does, one is silent":           {world: world{rev4: "x.example y.example", "x.example A": "203.0.113.9", "y.example A": "!servfail"}, check: "forward", state: "unknown", told: "A of y.example: servfail"},
		"no reverse answer":                  {world: with(world{rev4: "!timeout"}), check: "forward", state: "unknown", told: "timeout"},
		"names beyond ten":                   {world: with(world{rev4: strings.Repeat("x.example ", 10) + helo}), check: "forward", state: "wrong"},
		"HELO has the address":               {world: good, check: "helo", state: "ok", told: "has 203.0.113.5"},
		"HELO with a final dot":              {world: good, helo: helo + ".", check: "helo", state: "ok"},
		"HELO is not the reverse name":       {world: with(world{rev4: "host5.provider.example"}), check: "helo", state: "ok", told: "which is allowed: host5.provider.example"},
		"HELO without IPv6":                  {world: with(world{helo + " AAAA": ""}), addr: v6, check: "helo", state: "wrong", told: "AAAA 2001:db8::a:5 of mail.example.jp"},
		"HELO does not exist":                {world: with(world{}), helo: "no.example.jp", check: "helo", state: "wrong", told: "does not exist"},
		"HELO is elsewhere":                  {world: with(world{helo + " A": "203.0.113.9"}), check: "helo", state: "wrong", told: "others: 203.0.113.9"},
		"HELO unknown":                       {world: with(world{helo + " A": "!timeout"}), check: "helo", state: "unknown", told: "A of mail.example.jp: timeout"},
		"HELO is a literal":                  {world: good, helo: "[203.0.113.5]", check: "helo", state: "wrong", told: "an address, not a name"},
		"HELO is an address":                 {world: good, helo: "203.0.113.5", check: "helo", state: "wrong", told: "an address, not a name"},
		"HELO without a dot":                 {world: good, helo: "web1", check: "helo", state: "wrong", told: "without a domain"},
		"HELO of an installer":               {world: good, helo: "localhost.localdomain", check: "helo", state: "wrong", told: "nothing outside"},
		"HELO that is none":                  {world: good, helo: "a b.example", check: "helo", state: "wrong", told: "not a host name"},
		"HELO without a record":              {world: good, check: "spf helo", state: "ok", told: "no record of its own"},
		"HELO with a record":                 {world: with(world{helo + " TXT": "v=spf1 a -all"}), check: "spf helo", state: "ok", told: "pass"},
		"HELO with a record for others":      {world: with(world{helo + " TXT": "v=spf1 -all"}), check: "spf helo", state: "wrong", told: "bounces are refused"},
		"HELO whose record is not known":     {world: with(world{helo + " TXT": "!servfail"}), check: "spf helo", state: "unknown"},
		"HELO literal has no record":         {world: good, helo: "[203.0.113.5]", check: "spf helo", state: "ok"},
		"SPF by address":                     {world: with(world{"example.jp TXT": "x|v=spf1 ip4:203.0.113.0/24 -all"}), check: "spf", state: "ok", told: "pass"},
		"SPF by IPv6 address":                {world: with(world{"example.jp TXT": "v=spf1 ip6:2001:db8::/32 -all"}), addr: v6, check: "spf", state: "ok", told: "pass"},
		"SPF by name":                        {world: with(world{"example.jp TXT": "v=spf1 a:mail.example.jp -all"}), check: "spf", state: "ok"},
		"SPF by IPv6 name":                   {world: with(world{"example.jp TXT": "v=spf1 a:mail.example.jp -all"}), addr: v6, check: "spf", state: "ok"},
		"SPF by name that has no A":          {world: with(world{"example.jp TXT": "v=spf1 a:six.example -all", "six.example AAAA": v6}), addr: v6, check: "spf", state: "ok"},
		"SPF by MX":                          {world: with(world{"example.jp TXT": "v=spf1 mx -all", "example.jp MX": "z.example " + helo}), check: "spf", state: "ok"},
		"SPF by exists for IPv6":             {world: with(world{"example.jp TXT": "v=spf1 exists:%{d}.ok.example -all", "example.jp.ok.example A": "127.0.0.2"}), addr: v6, check: "spf", state: "ok"},
		"SPF by include and redirect":        {world: with(world{"example.jp TXT": "v=spf1 redirect=r.example", "r.example TXT": "v=spf1 include:i.example -all", "i.example TXT": "v=spf1 ip4:203.0.113.5 -all"}), check: "spf", state: "ok"},
		"SPF by PTR":                         {world: with(world{"example.jp TXT": "v=spf1 ptr -all"}), check: "spf", state: "ok"},
		"SPF for everybody":                  {world: with(world{"example.jp TXT": "v=spf1 +all"}), check: "spf", state: "ok", told: "as for everybody"},
		"SPF fail":                           {world: with(world{"example.jp TXT": "v=spf1 mx -all", "example.jp MX": "z.example"}), check: "spf", state: "wrong", told: `fail: "v=spf1 mx -all"` + "\n" + `add ip4:203.0.113.5 to the TXT record of example.jp: "v=spf1 ip4:203.0.113.5 mx -all"`},
		"SPF softfail for IPv6":              {world: with(world{"example.jp TXT": "v=spf1 ip4:203.0.113.5 ~all"}), addr: v6, check: "spf", state: "wrong", told: "v=spf1 ip6:2001:db8::a:5 ip4:203.0.113.5 ~all"},
		"SPF neutral":                        {world: with(world{"example.jp TXT": "v=spf1 ?all"}), check: "spf", state: "wrong", told: "neutral"},
		"SPF with nothing to say":            {world: with(world{"example.jp TXT": "v=spf1"}), check: "spf", state: "wrong", told: "neutral"},
		"SPF long":                           {world: with(world{"example.jp TXT": "v=spf1 " + strings.Repeat("ip4:192.0.2.1 ", 30) + "-all"}), check: "spf", state: "wrong", told: "right behind v=spf1"},
		"no SPF":                             {world: with(world{"example.jp TXT": "v=spf2|spf"}), check: "spf", state: "wrong", told: "v=spf1 mx ip4:203.0.113.5 ~all"},
		"no domain":                          {world: good, check: "spf", state: "wrong", told: "no SPF record"},
		"a domain that sends nothing":        {world: with(world{"example.jp TXT": "V=SPF1  -ALL"}), check: "spf", state: "ok", told: "sends no mail"},
		"SPF twice":                          {world: with(world{"example.jp TXT": "v=spf1 mx -all|v=spf1 -all"}), check: "spf", state: "wrong", told: "several SPF records"},
		"SPF misspelt":                       {world: with(world{"example.jp TXT": "v=spf1 ipv4:203.0.113.5 -all"}), check: "spf", state: "wrong", told: "a term that does not exist"},
		"SPF of eleven lookups":              {world: with(world{"example.jp TXT": "v=spf1 " + strings.Repeat("a:mail.example.jp ", 10) + "a:x.example -all", helo + " A": "203.0.113.9"}), check: "spf", state: "wrong", told: "at most 10"},
		"SPF that loops":                     {world: with(world{"example.jp TXT": "v=spf1 include:example.jp -all"}), check: "spf", state: "wrong", told: "more than 10 lookups"},
		"SPF of three voids":                 {world: with(world{"example.jp TXT": "v=spf1 a:x.example a:y.example a:z.example ip4:203.0.113.5 -all"}), check: "spf", state: "wrong", told: "lead nowhere"},
		"SPF include of nothing":             {world: with(world{"example.jp TXT": "v=spf1 include:x.example -all"}), check: "spf", state: "wrong", told: "without an SPF record"},
		"SPF of too many MX":                 {world: with(world{"example.jp TXT": "v=spf1 mx -all", "example.jp MX": strings.Repeat("z.example ", 11)}), check: "spf", state: "wrong", told: "10 hosts"},
		"SPF timeout":                        {world: with(world{"example.jp TXT": "!timeout"}), check: "spf", state: "unknown", told: "TXT of example.jp: timeout"},
		"SPF of a silent include":            {world: with(world{"example.jp TXT": "v=spf1 include:i.example -all", "i.example TXT": "!servfail"}), check: "spf", state: "unknown", told: "TXT of i.example: servfail"},
		"SPF covers before it is silent":     {world: with(world{"example.jp TXT": "v=spf1 ip4:203.0.113.5 include:i.example -all", "i.example TXT": "!servfail"}), check: "spf", state: "ok"},
		"SPF of a silent PTR":                {world: with(world{"example.jp TXT": "v=spf1 ptr -all", rev4: "!servfail"}), check: "spf", state: "unknown", told: "PTR of "},
		"SPF passes after a silent PTR":      {world: with(world{"example.jp TXT": "v=spf1 ptr ip4:203.0.113.5 -all", rev4: "!servfail"}), check: "spf", state: "ok"},
		"SPF cut by the resolver":            {world: with(world{"example.jp TXT": ("v=spf1 " + strings.Repeat("ip4:192.0.2.1 ", 80))[:1024]}), check: "spf", state: "unknown", told: "too long"},
		"SPF among too many records":         {world: with(world{"example.jp TXT": strings.Repeat("x|", 63) + "x"}), check: "spf", state: "unknown", told: "not all were read"},
		"SPF with control characters":        {world: with(world{"example.jp TXT": "v=spf1 exp=\x1b[31m\r\n -all x"}), check: "spf", state: "wrong"},
		"SPF of a name that cannot exist":    {world: with(world{"example.jp TXT": "v=spf1 exists:%{l}%_x..example a -all", "example.jp A": v4}), check: "spf", state: "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.addr == "" {
				c.addr = v4
			}
			if c.helo == "" {
				c.helo = helo
			}
			f := look(t, c.world, c.addr, c.helo, "example.jp")[c.check]
			if f.State != c.state || !strings.Contains(f.Found+"\n"+f.Wanted, c.told) {
				t.Errorf("got %+v\nwant %s with %q", f, c.state, c.told)
			}
		})
	}
}

func TestLookKeepsItsOrderAndAsksOnce(t *testing.T) {
	a, b := netip.MustParseAddr(v4), netip.MustParseAddr(v6)
	r := &resolver{world: world{"one.example TXT": "v=spf1 mx -all", "one.example MX": helo, helo + " A": v4}}
	sending := []sender.Sending{{Addr: a, Helo: helo}, {Addr: b}, {Addr: a, Helo: "other.example"}, {Addr: a, Helo: helo}}
	domains := []string{"one.example", "two.example", "one.example"}
	var subjects []string
	facts := sender.Look(t.Context(), r, sending, domains)
	for _, f := range facts {
		subjects = append(subjects, f.Check+" "+f.Subject)
	}
	want := []string{
		"ptr " + v4, "forward " + v4, "helo mail.example.jp at " + v4, "spf mail.example.jp (HELO) from " + v4,
		"ptr " + v6, "forward " + v6,
		"helo other.example at " + v4, "spf other.example (HELO) from " + v4,
		"spf one.example from " + v4, "spf one.example from " + v6,
		"spf two.example from " + v4, "spf two.example from " + v6,
	}
	if !slices.Equal(subjects, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(subjects, "\n"), strings.Join(want, "\n"))
	}
	for q, times := range r.asked {
		if times != 1 {
			t.Errorf("%s: asked %d times", q, times)
		}
	}
	if again := sender.Look(t.Context(), r, sending, domains); !reflect.DeepEqual(again, facts) {
		t.Errorf("a second look says %+v", again)
	}
}

// A domain with many addresses, or many domains, must not make us ask without end.
func TestLookIsBounded(t *testing.T) {
	w := world{}
	var sending []sender.Sending
	var domains []string
	for n := range 40 {
		sending = append(sending, sender.Sending{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})})
	}
	for n := range 150 {
		domain := fmt.Sprintf("d%d.example", n)
		domains = append(domains, domain)
		w[domain+" TXT"] = "v=spf1 " + strings.Repeat("exists:%{i}."+domain+" ", 2) + "exists:x%{i}." + domain + " -all"
		w[domain] = "127.0.0.2"
	}
	r := &resolver{world: w}
	facts := sender.Look(t.Context(), r, sending, domains)
	asked := 0
	for _, times := range r.asked {
		asked += times
	}
	if asked > 4000 {
		t.Errorf("asked %d questions", asked)
	}
	if most := 2*32 + 32*100 + 2; len(facts) != most {
		t.Errorf("got %d facts, want %d", len(facts), most)
	}
	last := facts[len(facts)-1]
	if last.State != sender.Unknown || last.Found != "not looked at: 50 beyond the first 100" {
		t.Errorf("got %+v", last)
	}
	silent := slices.IndexFunc(facts, func(f sender.Fact) bool { return strings.Contains(f.Found, "more than 4000 questions") })
	if silent < 0 || facts[silent].State != sender.Unknown {
		t.Error("questions beyond the bound are not unknown")
	}
}

func TestLookEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	facts := sender.Look(ctx, &resolver{world: world{rev4: helo}}, []sender.Sending{{Addr: netip.MustParseAddr(v4), Helo: helo}}, []string{"example.jp"})
	if len(facts) != 5 {
		t.Fatalf("got %+v", facts)
	}
	for _, f := range facts {
		if f.State != sender.Unknown {
			t.Errorf("got %+v", f)
		}
	}
	if facts := sender.Look(ctx, &resolver{}, nil, []string{"example.jp"}); len(facts) != 0 {
		t.Errorf("without an address: %+v", facts)
	}
}

func TestConfirmedTellsNoFromUnknown(t *testing.T) {
	r := &resolver{world: world{helo + " A": v4, "silent.example A": "!servfail", "broken.example A": "!broken"}}
	for _, c := range []struct {
		name, addr string
		confirmed  bool
		fails      bool
	}{
		{helo, v4, true, false},
		{helo, "::ffff:" + v4, true, false},
		{helo, "203.0.113.6", false, false},
		{helo, v6, false, false},
		{"no.example", v4, false, false},
		{"not a name", v4, false, false},
		{"silent.example", v4, false, true},
		{"broken.example", v4, false, true},
	} {
		got, err := sender.Confirmed(t.Context(), r, c.name, netip.MustParseAddr(c.addr))
		if got != c.confirmed || (err != nil) != c.fails {
			t.Errorf("%s %s: got %v, %v", c.name, c.addr, got, err)
		}
	}
}

// FuzzLook feeds what DNS may hold into every place of it.
func FuzzLook(f *testing.F) {
	for _, seed := range []string{
		"v=spf1 mx -all", "v=spf1 include:%{d2}.x redirect=%{ir}.%{v}.y", "v=spf1 a/0//0 exists:%{S}%%%-%_ ?all",
		"v=spf1 ptr:\x00 ip6:::/0", "v=spf1 \xff\xfe exp=%{", strings.Repeat("v=spf1 ", 200),
	} {
		f.Add(seed, "mail.example.jp")
		f.Add("v=spf1 -all", seed)
	}
	f.Fuzz(func(t *testing.T, record, name string) {
		w := world{rev4: name, helo + " A": v4, "example.jp TXT": record, "example.jp MX": name, "x": v4}
		for _, fact := range look(t, w, v4, name, "example.jp", name) {
			if len(fact.Found)+len(fact.Wanted) > 2000 {
				t.Errorf("%d octets: %+v", len(fact.Found)+len(fact.Wanted), fact)
			}
			if fact.State != sender.OK && fact.State != sender.Wrong && fact.State != sender.Unknown {
				t.Errorf("got %+v", fact)
			}
		}
	})
}
