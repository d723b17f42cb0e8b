package milter_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/milter"
	"relayguard/milter/miltertest"
	"relayguard/policy"
)

// pipes is a listener that gives the connections it is handed.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return nil }

// dial returns our end of a new connection.
func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// fuzzLimits end what hangs, and are met by small inputs.
var fuzzLimits = milter.Limits{
	DecisionTimeout: time.Second,
	IdleTimeout:     2 * time.Second,
	FrameTimeout:    2 * time.Second,
	Connections:     4,
	HeaderBytes:     100,
	HeaderFields:    5,
	Recipients:      3,
}

// serveFuzz runs play against a server of its own, in a bubble of time: what is
// left of the server's goroutines fails the test, a silent peer costs nothing.
func serveFuzz(t *testing.T, role policy.Role, g *guard, play func(*testing.T, *milter.Server, *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &milter.Server{Guard: g, Limits: fuzzLimits}
		l := newPipes()
		done := make(chan error, 1)
		go func() { done <- s.Serve(&milter.Listener{Name: "fuzz", Role: role, Listener: l}) }()
		play(t, s, l)
		for end := time.Now().Add(time.Minute); s.Stats.Open.Load() > 0; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the connection does not end")
			}
		}
		s.Close()
		if err := <-done; !errors.Is(err, milter.ErrClosed) {
			t.Fatalf("Serve: %v", err)
		}
		if n := s.Stats.Panics.Load(); n > 0 {
			t.Fatalf("%d panics", n)
		}
		for _, m := range g.seen() {
			if len(m.rcpts) > fuzzLimits.Recipients || len(m.fields) > fuzzLimits.HeaderFields || m.Header.Bytes() > fuzzLimits.HeaderBytes {
				t.Fatalf("beyond the limits: %d recipients, %d fields of %d octets", len(m.rcpts), len(m.fields), m.Header.Bytes())
			}
		}
	})
}

// FuzzFrames sends any octets, after a negotiation or without, and then hangs
// up or falls silent.
func FuzzFrames(f *testing.F) {
	f.Fuzz(func(t *testing.T, octets []byte, negotiate, ancient, hangUp, local bool) {
		role := policy.Submission
		if local {
			role = policy.Local
		}
		serveFuzz(t, role, &guard{}, func(t *testing.T, _ *milter.Server, l *pipes) {
			c := l.dial()
			gone := make(chan struct{})
			go func() { // answers must not block the server
				defer close(gone)
				for b := make([]byte, 4096); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			}()
			if negotiate {
				offer := miltertest.Postfix37
				if ancient {
					offer = miltertest.Ancient
				}
				frame := []byte("\x00\x00\x00\x0dO")
				for _, v := range []uint32{offer.Version, offer.Actions, offer.Protocol} {
					frame = binary.BigEndian.AppendUint32(frame, v)
				}
				c.Write(frame)
			}
			c.Write(octets)
			if hangUp {
				c.Close()
			}
			<-gone
			c.Close()
		})
	})
}

// FuzzSession plays commands in an order that an MTA could send: whatever they
// are, every answer that is awaited comes, and no other.
func FuzzSession(f *testing.F) {
	f.Fuzz(func(t *testing.T, script []byte, ancient, local bool) {
		if len(script) > 400 {
			t.Skip("long enough")
		}
		offer, role := miltertest.Postfix37, policy.Submission
		if ancient {
			offer = miltertest.Ancient
		}
		if local {
			role = policy.Local
		}
		g := &guard{
			recipient: func(_ context.Context, _ *policy.Message, to string) policy.Decision { return decisionFor(to) },
			message:   func(_ context.Context, m *policy.Message) policy.Decision { return decisionFor(m.MailFrom) },
		}
		serveFuzz(t, role, g, func(t *testing.T, s *milter.Server, l *pipes) {
			p := miltertest.New(l.dial())
			defer p.Close()
			if err := p.Negotiate(offer); err != nil {
				t.Fatal(err)
			}
			player := player{t: t, Peer: p}
			for i := 0; i+1 < len(script); i += 2 {
				player.step(script[i], script[i+1])
			}
			// One ordinary message shows that nothing is left over.
			must(t, p.Abort())
			p.Macros = map[byte][]string{}
			ask(t)(p.Connect("mail.example.net", "203.0.113.7", 40000))
			if res, refused := send(t, p, letter); res.Final.Code != 'c' || len(res.Changes) > 0 || len(refused) > 0 {
				t.Fatalf("an ordinary message afterwards: %q %v, refused %v", res.Final.Code, res.Changes, refused)
			}
			last := g.seen()[len(g.seen())-1]
			if last.MailFrom != letter.From || len(last.fields) != len(letter.Header) || len(last.rcpts) != 1 || last.Login != "" {
				t.Fatalf("an ordinary message arrives as %+v", last)
			}
			if n := s.Stats.Malformed.Load(); n > 0 {
				t.Fatalf("%d frames taken for malformed", n)
			}
			must(t, p.Quit())
		})
	})
}

// decisionFor answers by the first letter of an address.
func decisionFor(address string) policy.Decision {
	switch {
	case strings.HasPrefix(address, "r"):
		return refuse(550, "5.7.1", "no")
	case strings.HasPrefix(address, "d"):
		return policy.Decision{Verdict: policy.Defer, Reply: policy.Reply{Code: 451, Enhanced: "4.7.1", Text: "later"}}
	case strings.HasPrefix(address, "h"):
		return policy.Decision{Verdict: policy.Hold, Rule: "test", Strip: []string{"X-A"}}
	case strings.HasPrefix(address, "z"):
		return policy.Decision{}
	}
	return accept
}

// player turns octets into commands.
type player struct {
	t *testing.T
	*miltertest.Peer
	inMail bool
	from   string
}

func (p *player) step(verb, arg byte) {
	t, text := p.t, strings.Repeat("x", int(arg))
	who := fmt.Sprintf("%c%d@example.jp", "arhdz"[arg%5], arg)
	wantC := func(a miltertest.Answer, err error) {
		t.Helper()
		if ask(t)(a, err); a.Code != 'c' {
			t.Fatalf("answer %q, want continue", a.Code)
		}
	}
	switch verb % 14 {
	case 0:
		wantC(p.Connect("localhost", "127.0.0.1", uint16(arg%2)))
	case 1:
		wantC(p.Helo(text))
	case 2:
		p.inMail, p.from = true, who
		wantC(p.Mail("<"+who+">", strings.Fields(strings.Repeat("A=b ", int(arg%4)))...))
	case 3:
		stage := "CHMRELNBT"[arg%9]
		p.Macros[stage] = []string{"i", text, "{daemon_name}", who}
		if stage != 'C' && stage != 'H' { // what is told there is the connection's
			p.Macros[stage] = append(p.Macros[stage], "{auth_authen}", who)
		}
	case 4:
		clear(p.Macros)
	case 5:
		must(t, p.Abort())
		p.inMail = false
	case 6:
		p.Put('K')
		p.inMail = false
	case 7:
		p.Put('U', text, "\x00")
		if p.Agreed.Protocol&(1<<17) == 0 { // SMFIP_NR_UNKN
			wantC(p.Ask())
		}
	}
	if !p.inMail {
		return
	}
	switch verb % 14 {
	case 8:
		p.rcpt(who)
	case 9:
		wantC(p.Data())
	case 10:
		wantC(p.Header([]string{"From", "X-A", text + "-", "Message-ID"}[arg%4], text))
	case 11:
		wantC(p.EOH())
	case 12:
		wantC(p.Body(strings.Repeat(text, 300)))
	case 13:
		p.eom()
	}
}

func (p *player) rcpt(who string) {
	a := ask(p.t)(p.Rcpt("<" + who + ">"))
	switch a.Code {
	case 'c', 't':
	case 'y':
		if !replyForm.MatchString(string(a.Data)) {
			p.t.Fatalf("reply %q", a.Data)
		}
	default:
		p.t.Fatalf("answer %q to RCPT", a.Code)
	}
}

func (p *player) eom() {
	res, err := p.EOM()
	must(p.t, err)
	p.inMail = false
	want := map[byte]byte{'a': 'c', 'r': 'y', 'd': 'y', 'h': 'c', 'z': 't'}[p.from[0]]
	if p.from[0] == 'h' && p.Agreed.Actions&(1<<5) == 0 { // SMFIF_QUARANTINE
		want = 't'
	}
	if res.Final.Code != want || res.Held() != (p.from[0] == 'h' && want == 'c') {
		p.t.Fatalf("message of %s: answer %q, held %v; want %q", p.from, res.Final.Code, res.Held(), want)
	}
}

// replyForm is what an MTA takes for SMFIR_REPLYCODE: one NUL, at the end; each
// percent sign twice.
var replyForm = regexp.MustCompile(`^(4\d\d 4|5\d\d 5)\.\d{1,3}\.\d{1,3} ([ -$&-~]|%%)*\x00$`)

// FuzzReply has the guard say anything.
func FuzzReply(f *testing.F) {
	f.Fuzz(func(t *testing.T, code int, enhanced, text, rule string, hold bool) {
		d := policy.Decision{Verdict: policy.Reject, Reply: policy.Reply{Code: code, Enhanced: enhanced, Text: text}}
		if hold {
			d = policy.Decision{Verdict: policy.Hold, Rule: rule}
		}
		g := &guard{message: func(context.Context, *policy.Message) policy.Decision { return d }}
		serveFuzz(t, policy.Submission, g, func(t *testing.T, _ *milter.Server, l *pipes) {
			p := miltertest.New(l.dial())
			defer p.Close()
			if err := p.Negotiate(miltertest.Postfix37); err != nil {
				t.Fatal(err)
			}
			greet(t, p)
			res, _ := send(t, p, letter)
			switch {
			case hold:
				if reason := string(res.Changes[0].Data); !quarantineForm.MatchString(reason) || res.Final.Code != 'c' {
					t.Fatalf("quarantine %q, answer %q", reason, res.Final.Code)
				}
			case res.Final.Code == 'y':
				if !replyForm.Match(res.Final.Data) || len(res.Final.Data) > 980 { // libmilter's longest reply
					t.Fatalf("reply %q of %d octets", res.Final.Data, len(res.Final.Data))
				}
			case res.Final.Code != 't':
				t.Fatalf("answer %q", res.Final.Code)
			}
			must(t, p.Quit())
		})
	})
}

var quarantineForm = regexp.MustCompile(`^[^\x00-\x1f\x7f]*\x00$`)
