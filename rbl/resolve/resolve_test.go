package resolve_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"relayguard/rbl"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/resolve"
)

// secret is a label of the questions: a key of a list is one.
const secret = "s3cr3tk3y"

const asked = "2.0.0.127." + secret + ".bl.example"

// long is for questions that are answered: nothing waits for it.
const long = time.Minute

// short is for questions that nobody answers.
const short = 100 * time.Millisecond

// while is for answers that only the end of the time tells from silence.
const while = time.Second

func server(t *testing.T, h dnstest.Handler, timeout time.Duration) (*resolve.Server, *dnstest.Fake) {
	t.Helper()
	f := dnstest.StartFake(t, h)
	return resolve.New(f.Addr, timeout), f
}

func always(r dnstest.Reply) dnstest.Handler {
	return func(dnstest.Query) dnstest.Reply { return r }
}

// gone says that the name does not exist, with records of it. The server must be asked
// for addresses of what is asked for here.
func gone(t *testing.T, records ...string) dnstest.Reply {
	t.Helper()
	m := new(dns.Msg).SetQuestion(asked+".", dns.TypeA)
	m.Response, m.RecursionAvailable, m.Rcode = true, true, dns.RcodeNameError
	for _, record := range records {
		rr, err := dns.NewRR(record)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return dnstest.Garbage(true, raw[2:]...)
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// kept fails if the response tells the key.
func kept(t *testing.T, r rbl.Response) {
	t.Helper()
	if r.Err != nil && strings.Contains(strings.ToLower(r.Err.Error()), secret) {
		t.Errorf("the error tells the key")
	}
	if failed := r.Outcome != rbl.Answered && r.Outcome != rbl.NoData && r.Outcome != rbl.NoName; failed != (r.Err != nil) {
		t.Errorf("outcome %s with error %v", r.Outcome, r.Err)
	}
}

func TestAskTellsOutcomesApart(t *testing.T) {
	listed := dnstest.Addrs("127.0.0.2")
	for name, c := range map[string]struct {
		reply   dnstest.Reply
		timeout time.Duration
		want    rbl.Outcome
		says    string
	}{
		"answer":                        {listed, long, rbl.Answered, ""},
		"no name":                       {dnstest.NoName(), long, rbl.NoName, ""},
		"no data":                       {dnstest.NoData(), long, rbl.NoData, ""},
		"no data but an alias":          {dnstest.Lines(asked + ". 60 IN CNAME other.example."), long, rbl.NoData, ""},
		"no name but an alias":          {gone(t, asked+". 60 IN CNAME other.example."), long, rbl.Broken, "alias of one that does not exist"},
		"no name but its record":        {gone(t, asked+". 60 IN A 127.0.0.2"), long, rbl.Broken, "and has records"},
		"an unrelated record":           {dnstest.Lines("other.example. 60 IN A 127.0.0.2"), long, rbl.Broken, "records of other names"},
		"one that aliases do not reach": {dnstest.Lines(asked+". 60 IN CNAME a.example.", "b.example. 60 IN CNAME c.example.", "c.example. 60 IN A 127.0.0.2"), long, rbl.Broken, "records of other names"},
		"aliases in a circle":           {dnstest.Lines(asked+". 60 IN CNAME a.example.", "a.example. 60 IN CNAME "+asked+".", "b.example. 60 IN A 127.0.0.2"), long, rbl.Broken, "records of other names"},
		"records of another type":       {dnstest.Texts("why"), long, rbl.NoData, ""},
		"records of another class":      {dnstest.Lines(asked + ". 60 CH A 127.0.0.2"), long, rbl.NoData, ""},
		"server failed":                 {dnstest.ServFail(), long, rbl.ServFail, "SERVFAIL"},
		"server will not":               {dnstest.Refused(), long, rbl.QueryRefused, "REFUSED"},
		"server will not, says no more": {dnstest.NoQuestion(dnstest.Refused()), long, rbl.QueryRefused, "REFUSED"},
		"server does not understand":    {dnstest.Code(1), long, rbl.Broken, "FORMERR"},
		"server cannot":                 {dnstest.Code(4), long, rbl.Broken, "NOTIMP"},
		"unknown code":                  {dnstest.Code(14), long, rbl.Broken, "code 14"},
		"a referral":                    {dnstest.Referral(), long, rbl.Broken, "does not ask others"},
		"nothing":                       {dnstest.Silence(), short, rbl.TimedOut, ""},
		"another id":                    {dnstest.WrongID(listed), short, rbl.TimedOut, ""},
		"another name":                  {dnstest.WrongName(listed), short, rbl.TimedOut, ""},
		"another type":                  {dnstest.WrongType(listed), short, rbl.TimedOut, ""},
		"no question":                   {dnstest.NoQuestion(listed), short, rbl.TimedOut, ""},
		"no question, no name":          {dnstest.NoQuestion(dnstest.NoName()), short, rbl.TimedOut, ""},
		"a question back":               {dnstest.NotReply(listed), short, rbl.TimedOut, ""},
		"another server":                {dnstest.Elsewhere(listed), short, rbl.TimedOut, ""},
		"octets":                        {dnstest.Garbage(false, 1, 2, 3), short, rbl.TimedOut, ""},
		"less than a header":            {dnstest.Garbage(true, 0x80), short, rbl.TimedOut, ""},
		"a header, no more":             {dnstest.Clipped(listed, 12), while, rbl.Broken, "records are missing"},
		"a cut record":                  {dnstest.Clipped(listed, 70), while, rbl.Broken, "cannot be read"},
		// The library makes "no data" of this one.
		"all but the records": {dnstest.Clipped(listed, 12+len(asked)+2+4), while, rbl.Broken, "records are missing"},
		"truncated for ever":  {dnstest.Cut(), long, rbl.Broken, "truncated over TCP"},
		"fits over TCP":       {dnstest.Truncated(listed), long, rbl.Answered, ""},
		"over TCP nothing":    {dnstest.Truncated(dnstest.Silence()), long, rbl.Broken, "over TCP"},
		"over TCP half":       {dnstest.Truncated(dnstest.Clipped(listed, 20)), short, rbl.TimedOut, ""},
		"over TCP another id": {dnstest.Truncated(dnstest.WrongID(listed)), long, rbl.Broken, "over TCP"},
		"over TCP octets":     {dnstest.Truncated(dnstest.Garbage(true, 0x80, 0, 0, 1, 0, 9, 0, 0, 0, 0, 3)), long, rbl.Broken, "over TCP"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, f := server(t, always(c.reply), c.timeout)
			r := s.Ask(t.Context(), asked, rbl.TypeA)
			kept(t, r)
			if r.Outcome != c.want || r.Server != f.Addr {
				t.Errorf("%s by %s (%v), want %s by %s", r.Outcome, r.Server, r.Err, c.want, f.Addr)
			}
			if c.says != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), c.says)) {
				t.Errorf("error %v, want one with %q", r.Err, c.says)
			}
			if r.Outcome == rbl.Answered && !slices.Equal(r.Addrs, addrs("127.0.0.2")) {
				t.Errorf("addresses %v", r.Addrs)
			}
		})
	}
}

func TestAskPassesOverWhatIsNoAnswer(t *testing.T) {
	good := dnstest.Addrs("127.0.0.2")
	bad := dnstest.Addrs("127.0.0.99")
	s, f := server(t, always(dnstest.All(
		dnstest.WrongID(bad), dnstest.WrongName(bad), dnstest.WrongType(bad), dnstest.NotReply(bad), dnstest.Elsewhere(bad),
		dnstest.NoQuestion(bad), dnstest.Garbage(false), dnstest.Garbage(true, 0xff, 0xff, 1), dnstest.Clipped(bad, 30),
		dnstest.Upper(good))), long)
	r := s.Ask(t.Context(), asked, rbl.TypeA)
	kept(t, r)
	if r.Outcome != rbl.Answered || !slices.Equal(r.Addrs, addrs("127.0.0.2")) || len(f.Asked()) != 1 {
		t.Errorf("%+v after %d questions", r, len(f.Asked()))
	}
}

func TestAskRepeatsOnce(t *testing.T) {
	s, f := server(t, func(q dnstest.Query) dnstest.Reply {
		if q.Nth == 1 {
			return dnstest.Silence()
		}
		return dnstest.Addrs("127.0.0.2")
	}, 3*time.Second)
	if r := s.Ask(t.Context(), asked, rbl.TypeA); r.Outcome != rbl.Answered || len(f.Asked()) != 2 {
		t.Errorf("%+v after %d questions", r, len(f.Asked()))
	}
	f.Handle(always(dnstest.Silence()))
	before := len(f.Asked())
	if r := resolve.New(f.Addr, while).Ask(t.Context(), asked, rbl.TypeA); r.Outcome != rbl.TimedOut || len(f.Asked())-before != 2 {
		t.Errorf("%+v after %d questions", r, len(f.Asked())-before)
	}
}

func TestAskEndsWithContext(t *testing.T) {
	for name, over := range map[string]func(dnstest.Reply) dnstest.Reply{
		"UDP": func(r dnstest.Reply) dnstest.Reply { return r },
		"TCP": dnstest.Truncated,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, _ := server(t, func(q dnstest.Query) dnstest.Reply {
				if q.TCP == (name == "TCP") {
					cancel()
				}
				return over(dnstest.Held(nil, dnstest.NoName()))
			}, long)
			r := s.Ask(ctx, asked, rbl.TypeA)
			kept(t, r)
			if r.Outcome != rbl.TimedOut || !errors.Is(r.Err, context.Canceled) {
				t.Errorf("%s: %v", r.Outcome, r.Err)
			}
			if r := s.Ask(ctx, asked, rbl.TypeA); r.Outcome != rbl.TimedOut {
				t.Errorf("with an ended context: %s: %v", r.Outcome, r.Err)
			}
		})
	}
}

func TestAskKnowsAtOnceThatNobodyListens(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := conn.LocalAddr().String()
	conn.Close()
	for _, address := range []string{address, "127.0.0.1:99999", "nonsense"} {
		r := resolve.New(address, long).Ask(t.Context(), asked, rbl.TypeA)
		kept(t, r)
		if r.Outcome != rbl.Broken {
			t.Errorf("%s: %s: %v", address, r.Outcome, r.Err)
		}
	}
}

func TestAskUsesAnotherIDAndPortEachTime(t *testing.T) {
	s, f := server(t, always(dnstest.NoName()), long)
	ports := map[string]bool{}
	ids := map[uint16]bool{}
	for range 20 {
		s.Ask(t.Context(), asked, rbl.TypeA)
	}
	for _, q := range f.Asked() {
		ports[q.From], ids[q.ID] = true, true
		if !q.Recursion || q.EDNS != 1232 {
			t.Errorf("recursion %t, EDNS %d", q.Recursion, q.EDNS)
		}
	}
	if len(ports) < 10 || len(ids) < 15 {
		t.Errorf("%d ports and %d ids in 20 questions", len(ports), len(ids))
	}
}

func TestAskWithoutEDNSWhereItIsNotUnderstood(t *testing.T) {
	s, f := server(t, func(q dnstest.Query) dnstest.Reply {
		if q.EDNS > 0 {
			return dnstest.NoQuestion(dnstest.Code(1))
		}
		return dnstest.Addrs("127.0.0.2")
	}, long)
	if r := s.Ask(t.Context(), asked, rbl.TypeA); r.Outcome != rbl.Answered || len(f.Asked()) != 2 {
		t.Errorf("%+v after %d questions", r, len(f.Asked()))
	}
}

func TestAskRefusesNamesThatAreNone(t *testing.T) {
	s, f := server(t, always(dnstest.NoName()), long)
	for _, name := range []string{
		strings.Repeat("a", 64) + "." + secret, "a.." + secret, strings.Repeat("abcdefg.", 40) + secret, "." + secret, secret + "\\",
	} {
		r := s.Ask(t.Context(), name, rbl.TypeA)
		kept(t, r)
		if r.Outcome != rbl.Broken {
			t.Errorf("%q: %s", name, r.Outcome)
		}
	}
	if n := len(f.Asked()); n > 0 {
		t.Errorf("%d questions", n)
	}
	for _, name := range []string{"", "a b.example", "ä.example", "_dmarc.Example", "a.example."} {
		if r := s.Ask(t.Context(), name, rbl.TypeA); r.Outcome != rbl.NoName {
			t.Errorf("%q: %s: %v", name, r.Outcome, r.Err)
		}
	}
}

func TestAskTakesWhatWasAskedFor(t *testing.T) {
	text := strings.Repeat("x", 255) + "\x00\"\\;\xff" + "tail"
	for name, c := range map[string]struct {
		reply dnstest.Reply
		t     rbl.Type
		want  rbl.Response
	}{
		"all addresses": {dnstest.Addrs("127.0.0.2", "127.0.0.10", "203.0.113.1"), rbl.TypeA,
			rbl.Response{Addrs: addrs("127.0.0.2", "127.0.0.10", "203.0.113.1")}},
		"behind aliases": {dnstest.Lines(asked+". 60 IN CNAME a.example.", "a.example. 60 IN CNAME b.example.", "b.example. 60 IN A 127.0.0.2"), rbl.TypeA,
			rbl.Response{Addrs: addrs("127.0.0.2")}},
		"behind aliases in any order, in capitals": {dnstest.Lines("B.example. 60 IN A 127.0.0.2", "A.example. 60 IN CNAME b.EXAMPLE.", strings.ToUpper(asked)+". 60 IN CNAME a.example."), rbl.TypeA,
			rbl.Response{Addrs: addrs("127.0.0.2")}},
		"not those of others": {dnstest.Lines("x.example. 60 IN A 127.0.0.9", asked+". 60 IN A 127.0.0.2"), rbl.TypeA, rbl.Response{Addrs: addrs("127.0.0.2")}},
		"not those beside": {dnstest.Lines(asked+". 60 IN A 127.0.0.2", asked+". 60 IN AAAA 2001:db8::1", asked+`. 60 IN TXT "x"`), rbl.TypeAAAA,
			rbl.Response{Addrs: addrs("2001:db8::1")}},
		"texts joined, raw": {dnstest.Texts(text, "second"), rbl.TypeTXT, rbl.Response{Texts: []string{text, "second"}}},
		"names":             {dnstest.Lines(asked+". 60 IN PTR Mail.Example.", asked+". 60 IN PTR b\\.c.example."), rbl.TypePTR, rbl.Response{Names: []string{"mail.example", `b\.c.example`}}},
		"exchangers":        {dnstest.Lines(asked+". 60 IN MX 20 b.example.", asked+". 60 IN MX 10 C.example.", asked+". 60 IN MX 20 a.example."), rbl.TypeMX, rbl.Response{Names: []string{"c.example", "b.example", "a.example"}}},
		"servers":           {dnstest.Lines(asked + ". 60 IN NS ns.Example."), rbl.TypeNS, rbl.Response{Names: []string{"ns.example"}}},
		"authority":         {dnstest.Lines(asked + ". 60 IN SOA ns.example. h.example. 1 2 3 4 5"), rbl.TypeSOA, rbl.Response{}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := server(t, always(c.reply), long)
			r := s.Ask(t.Context(), asked, c.t)
			if r.Outcome != rbl.Answered || r.Err != nil || !slices.Equal(r.Addrs, c.want.Addrs) || !slices.Equal(r.Texts, c.want.Texts) || !slices.Equal(r.Names, c.want.Names) {
				t.Errorf("got %+v, want %+v", r, c.want)
			}
		})
	}
}

func TestAskIsBounded(t *testing.T) {
	var many []string
	for i := range 1000 {
		many = append(many, netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}).String())
	}
	s, f := server(t, always(dnstest.Truncated(dnstest.Addrs(many...))), long)
	if r := s.Ask(t.Context(), asked, rbl.TypeA); r.Outcome != rbl.Answered || len(r.Addrs) != 64 {
		t.Errorf("%s with %d addresses", r.Outcome, len(r.Addrs))
	}
	big := strings.Repeat("\x01", 20000)
	f.Handle(always(dnstest.Truncated(dnstest.Texts(big, big))))
	if r := s.Ask(t.Context(), asked, rbl.TypeTXT); r.Outcome != rbl.Answered || len(r.Texts) != 2 || len(r.Texts[0]) != 1024 {
		t.Errorf("%s with %d texts", r.Outcome, len(r.Texts))
	}
}

var _ rbl.Resolver = (*resolve.Server)(nil)
