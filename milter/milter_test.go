package milter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayguard/milter"
	"relayguard/milter/miltertest"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// guard records what it is asked and answers as told.
type guard struct {
	mu        sync.Mutex
	recipient func(ctx context.Context, m *policy.Message, to string) policy.Decision
	message   func(ctx context.Context, m *policy.Message) policy.Decision
	messages  []snapshot
	asked     []string
}

// snapshot is a message as it was when the guard was asked: it may not be kept.
type snapshot struct {
	policy.Message
	fields   [][2]string
	rcpts    []string
	rcptArgs []string
}

var accept = policy.Decision{Verdict: policy.Accept}

func refuse(code int, enhanced, text string) policy.Decision {
	return policy.Decision{Verdict: policy.Reject, Reply: policy.Reply{Code: code, Enhanced: enhanced, Text: text}}
}

func (g *guard) Recipient(ctx context.Context, m *policy.Message, to string) policy.Decision {
	g.mu.Lock()
	g.asked = append(g.asked, to)
	f := g.recipient
	g.mu.Unlock()
	if f == nil {
		return accept
	}
	return f(ctx, m, to)
}

func (g *guard) Message(ctx context.Context, m *policy.Message) policy.Decision {
	s := snapshot{Message: *m, rcpts: slices.Clone(m.RcptTo)}
	for i := range m.Header.Len() {
		name, value := m.Header.Field(i)
		s.fields = append(s.fields, [2]string{name, value})
	}
	g.mu.Lock()
	g.messages = append(g.messages, s)
	f := g.message
	g.mu.Unlock()
	if f == nil {
		return accept
	}
	return f(ctx, m)
}

func (g *guard) seen() []snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.messages)
}

// rig is a server on a Unix socket.
type rig struct {
	*milter.Server
	guard *guard
	log   *lockedBuffer
	path  string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, role policy.Role, change func(*milter.Server)) *rig {
	t.Helper()
	return startListener(t, &milter.Listener{Name: "test", Role: role}, change)
}

func startListener(t *testing.T, listener *milter.Listener, change func(*milter.Server)) *rig {
	t.Helper()
	r := &rig{guard: &guard{}, log: &lockedBuffer{}, path: filepath.Join(t.TempDir(), "m.sock")}
	r.Server = &milter.Server{Guard: r.guard, Limits: defaultLimits(), Log: slog.New(slog.NewTextHandler(r.log, nil))}
	if change != nil {
		change(r.Server)
	}
	l, err := milter.Socket{Network: "unix", Address: r.path, Mode: 0o600, GID: -1}.Listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	listener.Listener = l
	go func() { done <- r.Serve(listener) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-done; !errors.Is(err, milter.ErrClosed) {
			t.Errorf("Serve: %v, want ErrClosed", err)
		}
	})
	return r
}

// dial connects and negotiates.
func (r *rig) dial(t *testing.T, offer miltertest.Offer) *miltertest.Peer {
	t.Helper()
	p := r.dialRaw(t)
	must(t, p.Negotiate(offer))
	return p
}

func (r *rig) dialRaw(t *testing.T) *miltertest.Peer {
	t.Helper()
	p, err := miltertest.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// greet announces a client from a documentation address.
func greet(t *testing.T, p *miltertest.Peer) {
	t.Helper()
	ask(t)(p.Connect("mail.example.net", "203.0.113.7", 40000))
	ask(t)(p.Helo("mail.example.net"))
}

func ask(t *testing.T) func(miltertest.Answer, error) miltertest.Answer {
	return func(a miltertest.Answer, err error) miltertest.Answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, p *miltertest.Peer, m miltertest.Mail) (miltertest.Result, map[string]miltertest.Answer) {
	t.Helper()
	r, refused, err := p.Send(m)
	must(t, err)
	return r, refused
}

var letter = miltertest.Mail{
	From:   "taro@example.jp",
	To:     []string{"hanako@example.net"},
	Header: [][2]string{{"From", "Taro <taro@example.jp>"}, {"Message-ID", "<1@example.jp>"}},
	Body:   "Minutes\r\n",
}

// eventually waits on a condition that another goroutine makes true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func TestMessageArrivesWhole(t *testing.T) {
	for name, offer := range map[string]miltertest.Offer{"postfix": miltertest.Postfix37, "ancient": miltertest.Ancient} {
		t.Run(name, func(t *testing.T) {
			r := start(t, policy.Submission, nil)
			p := r.dial(t, offer)
			p.Macros['C'] = []string{"j", "mx.example.jp", "{daemon_name}", "ORIGINATING"}
			p.Macros['M'] = []string{"{auth_type}", "PLAIN", "{auth_authen}", "taro@example.jp"}
			p.Macros['L'] = []string{"i", "QID1"}
			p.Macros['E'] = []string{"i", "QID1"}
			greet(t, p)
			ask(t)(p.Mail("<taro@example.jp>", "SIZE=100", "BODY=8BITMIME"))
			ask(t)(p.Rcpt("<hanako@example.net>", "NOTIFY=NEVER"))
			ask(t)(p.Data())
			ask(t)(p.Header("Subject", " one"))
			ask(t)(p.Header("X-Empty", ""))
			ask(t)(p.EOH())
			ask(t)(p.Body(strings.Repeat("x", 200000)))
			res, err := p.EOM()
			must(t, err)
			if res.Final.Code != 'c' {
				t.Fatalf("answer %q", res.Final.Code)
			}
			must(t, p.Quit())

			got := r.guard.seen()[0]
			if got.Login != "taro@example.jp" || got.AuthType != "PLAIN" || got.QueueID != "QID1" || got.DaemonName != "ORIGINATING" {
				t.Errorf("macros: login %q, type %q, queue id %q, daemon %q", got.Login, got.AuthType, got.QueueID, got.DaemonName)
			}
			if got.MailFrom != "taro@example.jp" || !slices.Equal(got.MailArgs, []string{"SIZE=100", "BODY=8BITMIME"}) || !slices.Equal(got.rcpts, []string{"hanako@example.net"}) {
				t.Errorf("envelope: %q %q %q", got.MailFrom, got.MailArgs, got.rcpts)
			}
			if want := [][2]string{{"Subject", " one"}, {"X-Empty", ""}}; !slices.Equal(got.fields, want) {
				t.Errorf("header %q, want %q", got.fields, want)
			}
			if got.ClientIP != netip.MustParseAddr("203.0.113.7") || got.ClientPort != 40000 || got.Helo != "mail.example.net" {
				t.Errorf("client %v:%d %q", got.ClientIP, got.ClientPort, got.Helo)
			}
			if got.Size < 200000 || got.Size > 200100 {
				t.Errorf("size %d", got.Size)
			}
		})
	}
}

// TestOriginalRecipients: on the way out each recipient has its own original, and a
// refused one leaves none behind.
func TestOriginalRecipients(t *testing.T) {
	for _, role := range []policy.Role{policy.Egress, policy.Relay} {
		r := start(t, role, nil)
		r.guard.recipient = func(_ context.Context, _ *policy.Message, to string) policy.Decision {
			if to == "no@example.net" {
				return refuse(550, "5.7.1", "no")
			}
			return accept
		}
		p := r.dial(t, miltertest.Postfix37)
		greet(t, p)
		for range 2 { // the second message has nothing of the first
			ask(t)(p.Mail("<a@example.net>"))
			ask(t)(p.Rcpt("<out@example.net>", "ORCPT=rfc822;taro@example.jp"))
			ask(t)(p.Rcpt("<no@example.net>", "ORCPT=rfc822;jiro@example.jp"))
			ask(t)(p.Rcpt("<copy@example.net>", "NOTIFY=NEVER", "ORCPT=rfc822;copy@example.net"))
			ask(t)(p.Rcpt("<plain@example.net>"))
			ask(t)(p.Data())
			ask(t)(p.EOH())
			if _, err := p.EOM(); err != nil {
				t.Fatal(err)
			}
		}
		must(t, p.Quit())
		want := []policy.Original{{Address: "taro@example.jp"}, {Address: "copy@example.net", Silent: true}, {}}
		if role != policy.Egress {
			want = nil
		}
		for _, got := range r.guard.seen() {
			if !slices.Equal(got.RcptOrig, want) || len(got.rcpts) != 3 {
				t.Errorf("%s: %q came from %+v", role, got.rcpts, got.RcptOrig)
			}
		}
	}
}

func TestNegotiationAsksForNothingThatWasNotOffered(t *testing.T) {
	r := start(t, policy.Submission, nil)
	p := r.dial(t, miltertest.Postfix37)
	if p.Agreed.Version != 6 {
		t.Errorf("version %d, want 6", p.Agreed.Version)
	}
	for stage := range uint32(7) {
		if _, ok := p.SymList[stage]; !ok {
			t.Errorf("no macro list for stage %d: an MTA would send none there", stage)
		}
	}
	old := r.dial(t, miltertest.Ancient) // Negotiate fails on a bit too many
	if old.Agreed.Version != 2 || len(old.SymList) != 0 {
		t.Errorf("ancient MTA got version %d, macro lists %v", old.Agreed.Version, old.SymList)
	}
}

func TestStateSurvivesMessages(t *testing.T) {
	r := start(t, policy.Relay, nil)
	r.guard.recipient = func(_ context.Context, _ *policy.Message, to string) policy.Decision {
		if strings.HasPrefix(to, "bad") {
			return refuse(550, "5.7.1", "100% no")
		}
		return accept
	}
	p := r.dial(t, miltertest.Postfix37)
	p.Macros['C'] = []string{"{daemon_name}", "relay"}
	greet(t, p)
	for i := range 20 {
		m := letter
		m.From = fmt.Sprintf("u%d@example.jp", i)
		m.To = []string{"a@example.net", "bad@example.net", "b@example.net"}
		_, refused := send(t, p, m)
		if got := refused["bad@example.net"].Text(); got != "550 5.7.1 100%% no" || len(refused) != 1 {
			t.Fatalf("message %d: refused %v, text %q", i, refused, got)
		}
		switch i % 3 { // Postfix aborts after every message and may do so twice; Sendmail never
		case 1:
			must(t, p.Abort())
		case 2:
			must(t, p.Abort())
			must(t, p.Abort())
		}
	}
	for i, m := range r.guard.seen() {
		if m.MailFrom != fmt.Sprintf("u%d@example.jp", i) || m.DaemonName != "relay" || m.ClientIP.String() != "203.0.113.7" || m.Helo != "mail.example.net" {
			t.Errorf("message %d: from %q, daemon %q, client %v, helo %q", i, m.MailFrom, m.DaemonName, m.ClientIP, m.Helo)
		}
		if len(m.fields) != 2 || !slices.Equal(m.rcpts, []string{"a@example.net", "b@example.net"}) {
			t.Errorf("message %d: fields pile up: %q %q", i, m.fields, m.rcpts)
		}
	}
}

func TestMacrosOfAMessageEndWithIt(t *testing.T) {
	r := start(t, policy.Submission, nil)
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	p.Macros['M'] = []string{"{auth_authen}", "taro@example.jp"}
	p.Macros['E'] = []string{"i", "QID1"}
	send(t, p, letter)
	clear(p.Macros)
	send(t, p, letter)
	second := r.guard.seen()[1]
	if second.Login != "" || second.QueueID != "" {
		t.Errorf("second message has login %q and queue id %q of the first", second.Login, second.QueueID)
	}
}

func TestAbortInEveryState(t *testing.T) {
	steps := []func(p *miltertest.Peer) (miltertest.Answer, error){
		func(p *miltertest.Peer) (miltertest.Answer, error) { return p.Mail("<a@example.jp>") },
		func(p *miltertest.Peer) (miltertest.Answer, error) { return p.Rcpt("<b@example.net>") },
		(*miltertest.Peer).Data,
		func(p *miltertest.Peer) (miltertest.Answer, error) { return p.Header("Subject", "lost") },
		(*miltertest.Peer).EOH,
		func(p *miltertest.Peer) (miltertest.Answer, error) { return p.Body("lost") },
	}
	r := start(t, policy.Submission, nil)
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	for n := range len(steps) + 1 {
		for _, step := range steps[:n] {
			ask(t)(step(p))
		}
		must(t, p.Abort())
	}
	send(t, p, letter)
	got := r.guard.seen()
	if len(got) != 1 || got[0].MailFrom != "taro@example.jp" || len(got[0].fields) != 2 {
		t.Fatalf("after aborts the guard saw %+v", got)
	}
}

func TestPeerVanishesInEveryState(t *testing.T) {
	r := start(t, policy.Submission, nil)
	var whole bytes.Buffer // the octets of a session, to be cut anywhere
	rec := miltertest.New(&recordingConn{w: &whole})
	rec.Put('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")
	rec.Put('C', "host\x004\x12\x34", "203.0.113.7\x00")
	rec.Put('D', "M{auth_authen}\x00taro\x00")
	rec.Put('M', "<a@example.jp>\x00")
	rec.Put('R', "<b@example.net>\x00")
	rec.Put('L', "Subject\x00x\x00")
	rec.Put('N')
	rec.Put('B', "body")
	rec.Put('E')
	must(t, rec.Flush())
	for n := range whole.Len() {
		p := r.dialRaw(t)
		p.PutRaw(whole.Bytes()[:n])
		must(t, p.Flush())
		p.Close()
	}
	eventually(t, "all connections gone", func() bool { return r.Stats.Open.Load() == 0 })
	if n := r.Stats.Messages.Load(); n != 0 {
		t.Errorf("%d messages decided that never came to their end", n)
	}
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	if res, _ := send(t, p, letter); res.Final.Code != 'c' {
		t.Errorf("server does not serve afterwards: %q", res.Final.Code)
	}
}

type recordingConn struct {
	net.Conn
	w io.Writer
}

func (c *recordingConn) Write(p []byte) (int, error)      { return c.w.Write(p) }
func (c *recordingConn) SetWriteDeadline(time.Time) error { return nil }

func TestQuitNewConnectionForgetsTheClient(t *testing.T) {
	r := start(t, policy.Submission, nil)
	p := r.dial(t, miltertest.Postfix37)
	p.Macros['C'] = []string{"{daemon_name}", "first"}
	greet(t, p)
	send(t, p, letter)
	p.Put('K')
	clear(p.Macros)
	ask(t)(p.Connect("other.example.net", "IPv6:2001:db8::1", 25000))
	send(t, p, letter)
	second := r.guard.seen()[1]
	if second.DaemonName != "" || second.Helo != "" || second.ClientIP != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("second session: daemon %q, helo %q, client %v", second.DaemonName, second.Helo, second.ClientIP)
	}
}

func TestUnknownCommandsAreAnswered(t *testing.T) {
	for name, offer := range map[string]miltertest.Offer{"no reply agreed": miltertest.Postfix37, "reply awaited": miltertest.Ancient} {
		t.Run(name, func(t *testing.T) {
			r := start(t, policy.Submission, nil)
			p := r.dial(t, offer)
			greet(t, p)
			p.Put('U', "XYZZY\x00")
			if offer == miltertest.Ancient {
				if a := ask(t)(p.Ask()); a.Code != 'c' {
					t.Fatalf("answer %q", a.Code)
				}
			}
			if res, _ := send(t, p, letter); res.Final.Code != 'c' {
				t.Fatalf("session is out of step: %q", res.Final.Code)
			}
		})
	}
}

func TestVerdictsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name     string
		decision policy.Decision
		final    byte
		text     string
		held     bool
	}{
		{name: "accept", decision: accept, final: 'c'},
		{name: "tell", decision: policy.Decision{Verdict: policy.Tell}, final: 'c'},
		{name: "hold", decision: policy.Decision{Verdict: policy.Hold, Rule: "envelope-address"}, final: 'c', held: true},
		{name: "reject", decision: refuse(550, "5.7.1", "no"), final: 'y', text: "550 5.7.1 no"},
		{name: "defer", decision: policy.Decision{Verdict: policy.Defer, Reply: policy.Reply{Code: 451, Enhanced: "4.7.1", Text: "later"}}, final: 'y', text: "451 4.7.1 later"},
		{name: "hostile text", decision: refuse(550, "5.7.1", "a\r\n250 ok\x00%s"), final: 'y', text: "550 5.7.1 a??250 ok?%%s"},
		{name: "codes of two classes", decision: refuse(550, "4.7.1", "no"), final: 't'},
		{name: "no code", decision: policy.Decision{Verdict: policy.Reject}, final: 't'},
		{name: "no verdict", decision: policy.Decision{}, final: 't'},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, policy.Submission, nil)
			r.guard.message = func(context.Context, *policy.Message) policy.Decision { return c.decision }
			p := r.dial(t, miltertest.Postfix37)
			greet(t, p)
			for range 2 { // the answer to one message must not touch the next
				res, _ := send(t, p, letter)
				if res.Final.Code != c.final || res.Held() != c.held || res.Final.Text() != c.text {
					t.Errorf("answer %q %q, held %v; want %q %q %v", res.Final.Code, res.Final.Text(), res.Held(), c.final, c.text, c.held)
				}
			}
		})
	}
}

func TestHoldWithoutQuarantineDefers(t *testing.T) {
	r := start(t, policy.Submission, nil)
	r.guard.message = func(context.Context, *policy.Message) policy.Decision {
		return policy.Decision{Verdict: policy.Hold}
	}
	p := r.dial(t, miltertest.Offer{Version: 6, Actions: 0x1f, Protocol: 0x1fffff})
	greet(t, p)
	if res, _ := send(t, p, letter); res.Final.Code != 't' || res.Held() {
		t.Errorf("answer %q, held %v", res.Final.Code, res.Held())
	}
	if !strings.Contains(r.log.String(), "offers no quarantine") {
		t.Errorf("not said: %s", r.log)
	}
}

func TestStripsEveryOccurrenceLastFirst(t *testing.T) {
	r := start(t, policy.Local, nil)
	r.guard.message = func(context.Context, *policy.Message) policy.Decision {
		return policy.Decision{Verdict: policy.Hold, Strip: []string{milter.UIDHeader}}
	}
	p := r.dial(t, miltertest.Postfix37)
	ask(t)(p.Connect("localhost", "127.0.0.1", 0))
	m := letter
	m.Header = [][2]string{{milter.UIDHeader, "33"}, {"Subject", "x"}, {strings.ToLower(milter.UIDHeader), "0"}}
	res, _ := send(t, p, m)
	var deleted []byte
	for _, c := range res.Changes {
		if c.Code == 'm' {
			if !bytes.Equal(c.Data[4:], []byte(milter.UIDHeader+"\x00\x00")) {
				t.Errorf("change %q", c.Data)
			}
			deleted = append(deleted, c.Data[3])
		}
	}
	if !bytes.Equal(deleted, []byte{2, 1}) || !res.Held() {
		t.Errorf("deleted %v, held %v; want 2 then 1, held", deleted, res.Held())
	}
}

func TestInsertsFieldsBeforeAllOthers(t *testing.T) {
	r := start(t, policy.Local, nil)
	r.guard.message = func(context.Context, *policy.Message) policy.Decision {
		return policy.Decision{Verdict: policy.Accept, Strip: []string{"Subject"}, Add: []policy.Field{{Name: "X-Origin", Value: "v1 a\r\nBcc: all"}}}
	}
	for _, offer := range []miltertest.Offer{miltertest.Postfix37, {Version: 6, Actions: 0x3e, Protocol: 0x1fffff}} { // the second cannot add fields
		p := r.dial(t, offer)
		ask(t)(p.Connect("localhost", "127.0.0.1", 0))
		res, _ := send(t, p, letter)
		var added []string
		for _, c := range res.Changes {
			if c.Code == 'i' {
				added = append(added, string(c.Data))
			}
		}
		want := []string{"\x00\x00\x00\x00X-Origin\x00v1 aBcc: all\x00"}
		if offer.Actions&1 == 0 {
			want = nil
		}
		if !slices.Equal(added, want) || res.Final.Code != 'c' {
			t.Errorf("added %q, answer %q; want %q", added, res.Final.Code, want)
		}
	}
}

func TestBeginningOfTheBodyIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		room   int
		memory int64
		kept   int
	}{
		"whole":            {100, 1 << 20, 50},
		"just whole":       {50, 1 << 20, 50},
		"cut":              {30, 1 << 20, 30},
		"not asked for":    {0, 1 << 20, 0},
		"no memory at all": {1 << 20, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := startListener(t, &milter.Listener{Name: "test", Role: policy.Local, BodyBytes: c.room}, func(s *milter.Server) { s.Limits.Memory = c.memory })
			var body string
			r.guard.message = func(_ context.Context, m *policy.Message) policy.Decision {
				body = string(m.Body)
				return policy.Decision{Verdict: policy.Accept}
			}
			p := r.dial(t, miltertest.Postfix37)
			ask(t)(p.Connect("localhost", "127.0.0.1", 0))
			m := letter
			text := strings.Repeat("0123456789", 5)
			if c.memory == 0 {
				text = strings.Repeat("x", 20<<10) // more than each connection may keep by itself
			}
			m.Body = text
			for range 2 { // the second begins with an empty one
				send(t, p, m)
				if body != text[:c.kept] {
					t.Errorf("kept %d octets, want %d", len(body), c.kept)
				}
			}
		})
	}
}

func TestLocalMailIsAnsweredAtItsEndOnly(t *testing.T) {
	r := start(t, policy.Local, nil)
	r.guard.recipient = func(context.Context, *policy.Message, string) policy.Decision { return refuse(550, "5.7.1", "no") }
	r.guard.message = func(context.Context, *policy.Message) policy.Decision { return refuse(550, "5.7.1", "no") }
	p := r.dial(t, miltertest.Postfix37)
	p.Macros['M'] = []string{"{auth_authen}", "root"} // not a thing that sendmail(1) can prove
	ask(t)(p.Connect("localhost", "127.0.0.1", 0))
	ask(t)(p.Helo("localhost"))
	res, refused := send(t, p, letter)
	if len(refused) != 0 || res.Final.Code != 'y' {
		t.Errorf("refused at RCPT: %v; at the end: %q", refused, res.Final.Code)
	}
	got := r.guard.seen()[0]
	if got.Role != policy.Local || !got.Submitted || got.Login != "" {
		t.Errorf("role %v, submitted %v, login %q", got.Role, got.Submitted, got.Login)
	}
}

func TestLocalListenerDoesNotTakeStrangersForLocal(t *testing.T) {
	r := start(t, policy.Local, nil)
	for i, c := range []struct {
		addr string
		port uint16
	}{{"203.0.113.7", 0}, {"203.0.113.7", 4000}, {"127.0.0.1", 4000}} {
		p := r.dial(t, miltertest.Postfix37)
		ask(t)(p.Connect("localhost", c.addr, c.port))
		send(t, p, letter)
		if got := r.guard.seen()[i]; got.Role != policy.Relay || got.Submitted {
			t.Errorf("%s port %d: role %v, submitted %v; want relay", c.addr, c.port, got.Role, got.Submitted)
		}
	}
}

func TestClientUIDIsAskedForLoopbackOnce(t *testing.T) {
	var asked atomic.Int64
	r := start(t, policy.Relay, func(s *milter.Server) {
		s.ClientUID = func(client, daemon netip.AddrPort) int {
			asked.Add(1)
			if client != netip.MustParseAddrPort("127.0.0.1:4000") || daemon != netip.MustParseAddrPort("127.0.0.1:25") {
				t.Errorf("asked for %v to %v", client, daemon)
			}
			return 33
		}
	})
	p := r.dial(t, miltertest.Postfix37)
	p.Macros['C'] = []string{"{daemon_addr}", "127.0.0.1", "{daemon_port}", "25"}
	ask(t)(p.Connect("localhost", "127.0.0.1", 4000))
	send(t, p, letter)
	send(t, p, letter)
	stranger := r.dial(t, miltertest.Postfix37)
	greet(t, stranger)
	send(t, stranger, letter)
	got := r.guard.seen()
	if asked.Load() != 1 || got[0].UID != 33 || got[1].UID != 33 || got[2].UID != origin.NoUID {
		t.Errorf("asked %d times, uids %d %d %d", asked.Load(), got[0].UID, got[1].UID, got[2].UID)
	}
}

// A local process that connects to the machine's outer address is one all the same.
func TestClientUIDIsAskedForTheMachinesOwnAddresses(t *testing.T) {
	r := start(t, policy.Inbound, func(s *milter.Server) {
		s.ClientUID = func(client, daemon netip.AddrPort) int { return 33 }
		s.Own = func(a netip.Addr) bool { return a == netip.MustParseAddr("198.51.100.4") }
	})
	for i, c := range []struct {
		client, daemon, interfaceAddr string
		port                          uint16
		here                          bool
	}{
		{"203.0.113.9", "203.0.113.9", "", 4000, true},
		{"203.0.113.9", "0.0.0.0", "203.0.113.9", 4000, true},
		{"IPv6:2001:db8::9", "IPv6:0:0:0:0:0:0:0:0", "IPv6:2001:db8::9", 4000, true},
		{"198.51.100.4", "203.0.113.9", "203.0.113.9", 4000, true},
		{"203.0.113.7", "203.0.113.9", "203.0.113.9", 4000, false},
		{"127.0.0.1", "127.0.0.1", "", 0, false},
	} {
		p := r.dial(t, miltertest.Sendmail17)
		p.Macros['C'] = []string{"{daemon_addr}", c.daemon, "{daemon_port}", "25"}
		if c.interfaceAddr != "" {
			p.Macros['C'] = append(p.Macros['C'], "{if_addr}", c.interfaceAddr)
		}
		ask(t)(p.Connect("host", c.client, c.port))
		send(t, p, letter)
		got, uid := r.guard.seen()[i], origin.NoUID
		if c.here {
			uid = 33
		}
		if got.UID != uid || got.FromHere != c.here {
			t.Errorf("%+v: uid %d, from here %t", c, got.UID, got.FromHere)
		}
	}
}

func TestCertificateOnlyAsFarAsTheMTAVerified(t *testing.T) {
	r := start(t, policy.Relay, nil)
	for i, c := range []struct {
		macros []string
		want   bool
	}{
		{[]string{"{cert_subject}", "web1", "{cert_issuer}", "CA"}, true}, // Postfix
		{[]string{"{cert_subject}", "web1", "{verify}", "OK"}, true},      // Sendmail
		{[]string{"{cert_subject}", "web1", "{verify}", "FAIL"}, false},
		{[]string{"{verify}", "OK"}, false},
		{[]string{"{cert_subject}", "web1"}, true},
	} {
		p := r.dial(t, miltertest.Postfix37)
		p.Macros['M'] = c.macros
		greet(t, p)
		send(t, p, letter)
		if got := r.guard.seen()[i]; got.CertVerified != c.want {
			t.Errorf("%q: verified %v", c.macros, got.CertVerified)
		}
	}
}

func TestPanicDefersAndSessionGoesOn(t *testing.T) {
	r := start(t, policy.Submission, nil)
	fail := true
	r.guard.message = func(context.Context, *policy.Message) policy.Decision {
		if fail {
			panic("bug")
		}
		return accept
	}
	r.guard.recipient = func(_ context.Context, _ *policy.Message, to string) policy.Decision {
		if to == "panic@example.net" {
			panic("bug at rcpt")
		}
		return accept
	}
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	if res, _ := send(t, p, letter); res.Final.Code != 't' {
		t.Errorf("panic at end of message: %q, want tempfail", res.Final.Code)
	}
	fail = false
	m := letter
	m.To = []string{"panic@example.net"}
	if _, refused := send(t, p, m); refused["panic@example.net"].Code != 't' {
		t.Errorf("panic at RCPT: %v, want tempfail", refused)
	}
	if res, _ := send(t, p, letter); res.Final.Code != 'c' {
		t.Errorf("next message: %q", res.Final.Code)
	}
	if n := r.Stats.Panics.Load(); n != 2 {
		t.Errorf("%d panics counted", n)
	}
	if log := r.log.String(); !strings.Contains(log, "panic=bug") || strings.Count(log, "panic; message deferred") != 1 {
		t.Errorf("want one line with the panic, the second within a second is only counted: %s", log)
	}
}

func TestOverdueDecisionIsAnsweredForTheGuard(t *testing.T) {
	for name, acceptIt := range map[string]bool{"defer": false, "accept": true} {
		t.Run(name, func(t *testing.T) {
			r := start(t, policy.Submission, func(s *milter.Server) {
				s.Limits.DecisionTimeout = time.Second // no other decision takes so long, on a busy machine either
				s.Limits.AcceptOverdue = acceptIt
			})
			release, entered := make(chan struct{}), make(chan struct{}, 2)
			hang := func(ctx context.Context) policy.Decision {
				entered <- struct{}{}
				<-release
				if ctx.Err() == nil {
					t.Error("the guard's context has not ended")
				}
				return policy.Decision{Verdict: policy.Hold, Strip: []string{"From"}}
			}
			r.guard.message = func(ctx context.Context, _ *policy.Message) policy.Decision { return hang(ctx) }
			p := r.dial(t, miltertest.Postfix37)
			greet(t, p)
			res, _ := send(t, p, letter)
			want := byte('t')
			if acceptIt {
				want = 'c'
			}
			if res.Final.Code != want || len(res.Changes) != 0 {
				t.Errorf("answer %q after %v, want %q alone", res.Final.Code, res.Changes, want)
			}
			<-entered
			r.guard.mu.Lock()
			r.guard.message = nil
			r.guard.mu.Unlock()
			close(release) // the late answer must not reach the wire
			if res, _ := send(t, p, letter); res.Final.Code != 'c' || len(res.Changes) != 0 {
				t.Errorf("next message: %q after %v", res.Final.Code, res.Changes)
			}
			if n := r.Stats.Overdue.Load(); n != 1 {
				t.Errorf("%d overdue decisions counted", n)
			}
		})
	}
}

func TestSlowDecisionKeepsTheMTAPatient(t *testing.T) {
	r := start(t, policy.Submission, nil)
	release := make(chan struct{})
	r.guard.message = func(context.Context, *policy.Message) policy.Decision { <-release; return accept }
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	ask(t)(p.Mail("<a@example.jp>"))
	ask(t)(p.Rcpt("<b@example.net>"))
	p.Put('E')
	must(t, p.Flush())
	if a := ask(t)(p.Read()); a.Code != 'p' {
		t.Errorf("first answer %q, want progress", a.Code)
	}
	close(release)
	if a := ask(t)(p.Ask()); a.Code != 'c' {
		t.Errorf("answer %q", a.Code)
	}
}

func TestHostileFramesCloseTheirConnectionOnly(t *testing.T) {
	f := func(cmd byte, payload string) string {
		var b bytes.Buffer
		p := miltertest.New(&recordingConn{w: &b})
		p.Put(cmd, payload)
		must(t, p.Flush())
		return b.String()
	}
	offer := "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"
	optneg := f('O', offer)
	mail := optneg + f('M', "<a@b>\x00")
	for name, octets := range map[string]string{
		"zero length":               "\x00\x00\x00\x00",
		"huge length":               "\xff\xff\xff\xffB",
		"unknown command":           optneg + f('Z', ""),
		"command before greeting":   f('M', "<a@b>\x00"),
		"greeting too short":        f('O', offer[:11]),
		"greeting twice":            optneg + optneg,
		"connect without NUL":       optneg + f('C', "host"),
		"connect without family":    optneg + f('C', "host\x00"),
		"connect without address":   optneg + f('C', "host\x004\x00\x19"),
		"connect of strange family": optneg + f('C', "host\x00X"),
		"helo without NUL":          optneg + f('H', "host"),
		"helo empty":                optneg + f('H', ""),
		"mail without NUL":          optneg + f('M', "<a@b"),
		"mail empty":                optneg + f('M', ""),
		"macro without stage":       optneg + f('D', ""),
		"macro without value":       optneg + f('D', "Mi\x00"),
		"macro without NUL":         optneg + f('D', "Mi\x00Q"),
		"rcpt outside mail":         optneg + f('R', "<a@b>\x00"),
		"body outside mail":         optneg + f('B', "xxxx"),
		"end outside mail":          optneg + f('E', ""),
		"header without value":      mail + f('L', "xxx\x00"),
		"header without name":       mail + f('L', "\x00\x00"),
		"header empty":              mail + f('L', ""),
		"header with NUL":           mail + f('L', "x\x00y\x00z\x00"),
		"command too large":         optneg + f('M', strings.Repeat("x", 17000)+"\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, policy.Submission, nil)
			p := r.dialRaw(t)
			p.PutRaw([]byte(octets))
			must(t, p.Flush())
			for {
				a, err := p.Read()
				if errors.Is(err, io.EOF) || err != nil && strings.Contains(err.Error(), "reset") {
					break
				}
				if err != nil || a.Code != 'O' {
					t.Fatalf("answer %q, %v; want the connection closed", a.Code, err)
				}
			}
			eventually(t, "connection counted as malformed", func() bool { return r.Stats.Malformed.Load() == 1 })
			if n := r.Stats.Panics.Load(); n != 0 {
				t.Errorf("%d panics", n)
			}
		})
	}
}

func TestHeaderIsBounded(t *testing.T) {
	r := start(t, policy.Submission, func(s *milter.Server) { s.Limits.HeaderBytes, s.Limits.HeaderFields = 20000, 50 })
	for name, fields := range map[string][][2]string{
		"many fields":   slices.Repeat([][2]string{{"X", "y"}}, 60),
		"many octets":   slices.Repeat([][2]string{{"X", strings.Repeat("y", 3000)}}, 10),
		"one too large": {{"X", strings.Repeat("y", 21000)}},
		"one huge":      {{"X", strings.Repeat("y", 900000)}},
		"one monstrous": {{"X", strings.Repeat("y", 2<<20)}},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.dial(t, miltertest.Postfix37)
			greet(t, p)
			m := letter
			m.Header = append(fields, [2]string{"From", "late@example.net"})
			if res, _ := send(t, p, m); res.Final.Code != 'c' {
				t.Fatalf("answer %q", res.Final.Code)
			}
			seen := r.guard.seen()
			got := seen[len(seen)-1]
			if !got.Header.Truncated() || len(got.fields) > 50 {
				t.Errorf("truncated %v, %d fields", got.Header.Truncated(), len(got.fields))
			}
		})
	}
}

func TestRecipientsAreBounded(t *testing.T) {
	for role, addr := range map[policy.Role]string{policy.Submission: "203.0.113.7", policy.Local: "127.0.0.1"} {
		t.Run(role.String(), func(t *testing.T) {
			r := start(t, role, func(s *milter.Server) { s.Limits.Recipients = 3 })
			p := r.dial(t, miltertest.Postfix37)
			ask(t)(p.Connect("localhost", addr, 0))
			m := letter
			m.To = []string{"a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example"}
			_, refused := send(t, p, m)
			got := r.guard.seen()[0]
			switch role {
			case policy.Submission:
				if len(refused) != 2 || !strings.HasPrefix(refused["d@x.example"].Text(), "452 4.5.3 ") || len(got.rcpts) != 3 {
					t.Errorf("refused %v, kept %q", refused, got.rcpts)
				}
			case policy.Local: // nobody waits for an answer: told to the guard
				if len(refused) != 0 || got.RcptMore != 2 || len(got.rcpts) != 3 {
					t.Errorf("refused %v, kept %q and %d more", refused, got.rcpts, got.RcptMore)
				}
			}
		})
	}
}

func TestConnectionsAreCapped(t *testing.T) {
	r := start(t, policy.Submission, func(s *milter.Server) { s.Limits.Connections = 2 })
	a, b := r.dial(t, miltertest.Postfix37), r.dial(t, miltertest.Postfix37)
	over := r.dialRaw(t)
	if err := over.Negotiate(miltertest.Postfix37); err == nil {
		t.Fatal("a third connection was served")
	}
	greet(t, a)
	send(t, a, letter)
	must(t, b.Quit())
	eventually(t, "place free again", func() bool { return r.Stats.Open.Load() == 1 })
	c := r.dial(t, miltertest.Postfix37)
	greet(t, c)
	send(t, c, letter)
	if r.Stats.Refused.Load() != 1 || !strings.Contains(r.log.String(), "milter.max_connections") {
		t.Errorf("refused %d, log %s", r.Stats.Refused.Load(), r.log)
	}
}

func TestSilentPeersAreClosed(t *testing.T) {
	for name, octets := range map[string]string{"between frames": "", "inside a frame": "\x00\x00\x00\x0dO\x00"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, policy.Submission, func(s *milter.Server) {
				s.Limits.IdleTimeout, s.Limits.FrameTimeout = 30*time.Millisecond, 30*time.Millisecond
			})
			p := r.dialRaw(t)
			p.PutRaw([]byte(octets))
			must(t, p.Flush())
			if _, err := p.Read(); !errors.Is(err, io.EOF) {
				t.Errorf("read: %v, want EOF", err)
			}
		})
	}
}

func TestRefusedPeerIsNotServed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &milter.Server{Guard: &guard{}, Limits: defaultLimits()}
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(&milter.Listener{Name: "t", Role: policy.Relay, Listener: l, Admit: func(net.Conn) error { return errors.New("uid 1000 is not the MTA") }})
	}()
	p, err := miltertest.Dial("tcp", l.Addr().String())
	must(t, err)
	defer p.Close()
	if err := p.Negotiate(miltertest.Postfix37); err == nil {
		t.Error("served")
	}
	eventually(t, "refusal counted", func() bool { return s.Stats.Refused.Load() == 1 && s.Stats.Open.Load() == 0 })
	s.Close()
	<-done
}

// flaky fails to accept for a while, as with too many open files.
type flaky struct {
	net.Listener
	failures atomic.Int64
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, errors.New("accept4: too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptErrorsAreSurvived(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	f := &flaky{Listener: l}
	f.failures.Store(3)
	s := &milter.Server{Guard: &guard{}, Limits: defaultLimits()}
	done := make(chan error, 1)
	go func() { done <- s.Serve(&milter.Listener{Name: "t", Role: policy.Relay, Listener: f}) }()
	p, err := miltertest.Dial("unix", l.Addr().String())
	must(t, err)
	defer p.Close()
	must(t, p.Negotiate(miltertest.Postfix37))
	if n := s.Stats.AcceptFails.Load(); n != 3 {
		t.Errorf("%d failures counted", n)
	}
	s.Close()
	<-done
}

func TestShutdownLetsTransactionsFinish(t *testing.T) {
	r := start(t, policy.Submission, nil)
	idle, busy := r.dial(t, miltertest.Postfix37), r.dial(t, miltertest.Postfix37)
	greet(t, idle)
	must(t, idle.Flush())
	greet(t, busy)
	ask(t)(busy.Mail("<a@example.jp>"))
	ask(t)(busy.Rcpt("<b@example.net>"))

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- r.Shutdown(ctx) }()
	if _, err := idle.Read(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) { // it may have had something to read yet
		t.Errorf("idle session: %v, want it closed", err)
	}
	ask(t)(busy.Header("Subject", "last"))
	ask(t)(busy.EOH())
	ask(t)(busy.Body("x"))
	res, err := busy.EOM()
	must(t, err)
	if res.Final.Code != 'c' {
		t.Errorf("running transaction: %q", res.Final.Code)
	}
	must(t, <-down)
	if _, err := miltertest.Dial("unix", r.path); err == nil {
		t.Error("still listening")
	}
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	r := start(t, policy.Submission, nil)
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	ask(t)(p.Mail("<a@example.jp>"))
	ask(t)(p.Rcpt("<b@example.net>"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) && err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	eventually(t, "connection closed", func() bool { return r.Stats.Open.Load() == 0 })
}

func TestShutdownDoesNotWaitForAFrameThatNeverEnds(t *testing.T) {
	r := start(t, policy.Submission, func(s *milter.Server) { s.Limits.FrameTimeout = 100 * time.Millisecond })
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	ask(t)(p.Mail("<a@example.jp>"))
	ask(t)(p.Rcpt("<b@example.net>"))
	p.PutRaw([]byte("\x00\x00\x00\x20LSub"))
	must(t, p.Flush())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, r.Shutdown(ctx)) // the frame's time-out ends it, long before ctx does
}

func TestManyConnectionsAtOnce(t *testing.T) {
	r := start(t, policy.Submission, nil)
	var wg sync.WaitGroup
	for n := range 32 {
		wg.Go(func() {
			p := r.dial(t, miltertest.Postfix37)
			p.Macros['M'] = []string{"{auth_authen}", fmt.Sprintf("user%d", n)}
			if _, err := p.Connect("h", "203.0.113.7", 1); err != nil {
				t.Error(err)
				return
			}
			for range 20 {
				m := letter
				m.From = fmt.Sprintf("user%d@example.jp", n)
				if res, _, err := p.Send(m); err != nil || res.Final.Code != 'c' {
					t.Errorf("%v %q", err, res.Final.Code)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, m := range r.guard.seen() {
		if m.Login+"@example.jp" != m.MailFrom {
			t.Fatalf("login %q sent as %q: connections mix", m.Login, m.MailFrom)
		}
	}
}

func TestGuardThatWaitsIsEndedByItsDeadline(t *testing.T) {
	r := start(t, policy.Submission, func(s *milter.Server) { s.Limits.DecisionTimeout = 50 * time.Millisecond })
	ended := make(chan error, 2)
	r.guard.message = func(ctx context.Context, _ *policy.Message) policy.Decision {
		if by, ok := ctx.Deadline(); !ok || time.Until(by) > time.Second {
			t.Errorf("deadline %v, %v", by, ok)
		}
		inner, cancel := context.WithTimeout(ctx, time.Hour) // as a lookup makes one
		defer cancel()
		<-inner.Done()
		ended <- inner.Err()
		ended <- ctx.Err()
		return accept
	}
	p := r.dial(t, miltertest.Postfix37)
	greet(t, p)
	send(t, p, letter)
	for range 2 {
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("context ended with %v", err)
		}
	}
	r.guard.mu.Lock()
	r.guard.message = nil
	r.guard.mu.Unlock()
	if res, _ := send(t, p, letter); res.Final.Code != 'c' {
		t.Errorf("next message: %q", res.Final.Code)
	}
}

func TestRecipientOfAnOverdueDecisionCountsAsTheMTAWasTold(t *testing.T) {
	for name, acceptIt := range map[string]bool{"deferred": false, "accepted": true} {
		t.Run(name, func(t *testing.T) {
			r := start(t, policy.Submission, func(s *milter.Server) {
				s.Limits.DecisionTimeout, s.Limits.AcceptOverdue = time.Second, acceptIt
			})
			r.guard.recipient = func(ctx context.Context, _ *policy.Message, to string) policy.Decision {
				if to == "slow@example.net" {
					<-ctx.Done()
					eventually(t, "answered for the guard", func() bool { return r.Stats.Overdue.Load() == 1 })
				}
				return accept
			}
			p := r.dial(t, miltertest.Postfix37)
			greet(t, p)
			m := letter
			m.To = []string{"slow@example.net", "quick@example.net"}
			_, refused := send(t, p, m)
			got := r.guard.seen()[0].rcpts
			if acceptIt && (len(refused) != 0 || len(got) != 2) || !acceptIt && (len(refused) != 1 || !slices.Equal(got, m.To[1:])) {
				t.Errorf("refused %v, the guard knows %q", refused, got)
			}
		})
	}
}

func TestCertificateIsNotBelievedOfAnMTAThatCannotBeAskedForVerify(t *testing.T) {
	r := start(t, policy.Relay, nil)
	p := r.dial(t, miltertest.Ancient)
	p.Macros['H'] = []string{"{cert_subject}", "web1"} // self-signed, for all we know
	greet(t, p)
	send(t, p, letter)
	p.Macros['M'] = []string{"{verify}", "OK"}
	send(t, p, letter)
	got := r.guard.seen()
	if got[0].CertVerified || !got[1].CertVerified {
		t.Errorf("verified %v without {verify}, %v with it", got[0].CertVerified, got[1].CertVerified)
	}
}

func TestSecondConnectForgetsWhatHeloSaid(t *testing.T) {
	r := start(t, policy.Relay, nil)
	p := r.dial(t, miltertest.Postfix37)
	p.Macros['H'] = []string{"{cert_subject}", "web1"}
	greet(t, p)
	send(t, p, letter)
	clear(p.Macros)
	ask(t)(p.Connect("other.example.net", "198.51.100.1", 25000))
	send(t, p, letter)
	if got := r.guard.seen(); got[0].CertSubject != "web1" || got[1].CertSubject != "" {
		t.Errorf("certificates %q, then %q", got[0].CertSubject, got[1].CertSubject)
	}
}

func TestMemoryOfAllConnectionsIsBounded(t *testing.T) {
	r := start(t, policy.Submission, func(s *milter.Server) { s.Limits.Memory = 100 << 10 })
	large := letter
	large.Header = slices.Repeat([][2]string{{"X", strings.Repeat("y", 1000)}}, 80)
	many := letter
	many.To = nil
	for i := range 1200 {
		many.To = append(many.To, fmt.Sprintf("recipient-number-%d-of-a-long-list@example.net", i))
	}
	// They await an answer to each command: so what came before is done with.
	first, second := r.dial(t, miltertest.Ancient), r.dial(t, miltertest.Ancient)
	for range 3 { // what a message took is given back with it
		greet(t, first)
		ask(t)(first.Mail("<a@example.jp>"))
		ask(t)(first.Rcpt("<b@example.net>"))
		for _, h := range large.Header {
			ask(t)(first.Header(h[0], h[1]))
		}
		ask(t)(first.EOH())
		greet(t, second)
		send(t, second, large)
		if seen := r.guard.seen(); !seen[len(seen)-1].Header.Truncated() {
			t.Error("a second large header was kept beside the first")
		}
		_, refused := send(t, second, many)
		if len(refused) == 0 || len(refused) == len(many.To) {
			t.Errorf("%d of %d recipients refused while another holds the memory", len(refused), len(many.To))
		}
		for _, a := range refused {
			if !strings.HasPrefix(a.Text(), "452 4.5.3 ") {
				t.Fatalf("answer %q", a.Text())
			}
		}
		res, err := first.EOM()
		must(t, err)
		seen := r.guard.seen()
		if got := seen[len(seen)-1]; res.Final.Code != 'c' || got.Header.Truncated() || len(got.fields) != len(large.Header) {
			t.Errorf("the first message: answer %q, %d fields, truncated %v", res.Final.Code, len(got.fields), got.Header.Truncated())
		}
		greet(t, first)
		if _, refused := send(t, second, many); len(refused) != 0 {
			t.Errorf("%d recipients refused afterwards", len(refused))
		}
		greet(t, second)
	}
	ask(t)(first.Mail("<a@example.jp>")) // and with the connection
	ask(t)(first.Rcpt("<b@example.net>"))
	for _, h := range large.Header {
		ask(t)(first.Header(h[0], h[1]))
	}
	first.Close()
	eventually(t, "memory of a client that vanished", func() bool {
		_, refused := send(t, second, many)
		return len(refused) == 0
	})
}

// brittle is a connection whose writes fail, or wait, when told to.
type brittle struct {
	net.Conn
	fail  atomic.Bool
	stuck chan struct{} // nil: not stuck
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.fail.Load() {
		n, _ := b.Conn.Write(p[:1]) // part of it is out
		return n, errors.New("write: broken pipe")
	}
	if b.stuck != nil && p[4] == 't' {
		<-b.stuck
	}
	return b.Conn.Write(p)
}

// wrapping hands out connections as brittle ones.
type wrapping struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (w *wrapping) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return w.wrap(c), nil
}

// startWrapped is start with every connection wrapped.
func startWrapped(t *testing.T, limits milter.Limits, g *guard, wrap func(net.Conn) net.Conn) (*milter.Server, string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	s := &milter.Server{Guard: g, Limits: limits}
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(&milter.Listener{Name: "t", Role: policy.Submission, Listener: &wrapping{l, wrap}})
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return s, l.Addr().String()
}

func TestFailedWriteEndsTheConnection(t *testing.T) {
	var broken *brittle
	s, addr := startWrapped(t, defaultLimits(), &guard{}, func(c net.Conn) net.Conn { broken = &brittle{Conn: c}; return broken })
	p, err := miltertest.Dial("unix", addr)
	must(t, err)
	defer p.Close()
	must(t, p.Negotiate(miltertest.Postfix37))
	greet(t, p)
	ask(t)(p.Mail("<a@example.jp>"))
	must(t, p.Flush())
	broken.fail.Store(true)
	if a, err := p.Rcpt("<b@example.net>"); err == nil {
		t.Errorf("answer %q after a failed write", a.Code)
	}
	eventually(t, "connection gone", func() bool { return s.Stats.Open.Load() == 0 })
}

func TestPeerThatDoesNotReadDelaysNobodyElse(t *testing.T) {
	limits := defaultLimits()
	limits.DecisionTimeout = 300 * time.Millisecond
	g := &guard{message: func(ctx context.Context, _ *policy.Message) policy.Decision { <-ctx.Done(); return accept }}
	stuck := make(chan struct{})
	var n atomic.Int64
	_, addr := startWrapped(t, limits, g, func(c net.Conn) net.Conn {
		if n.Add(1) == 1 {
			return &brittle{Conn: c, stuck: stuck}
		}
		return c
	})
	defer close(stuck)
	var peers []*miltertest.Peer
	for range 2 {
		p, err := miltertest.Dial("unix", addr)
		must(t, err)
		defer p.Close()
		must(t, p.Negotiate(miltertest.Postfix37))
		greet(t, p)
		peers = append(peers, p)
	}
	ask(t)(peers[0].Mail("<a@example.jp>"))
	ask(t)(peers[0].Rcpt("<b@example.net>"))
	peers[0].Put('E')
	must(t, peers[0].Flush())
	if res, _ := send(t, peers[1], letter); res.Final.Code != 't' && res.Final.Code != 'c' {
		t.Errorf("answer %q", res.Final.Code)
	}
}

// Sendmail's submission program is an SMTP client like any other: whose socket it
// is, the kernel tells, and it is asked while the client waits for its greeting.
func TestLocalMailBySMTPIsTheSocketsOwners(t *testing.T) {
	asked := make(chan [2]netip.AddrPort, 10)
	r := startListener(t, &milter.Listener{Name: "test", Role: policy.Local, LocalBySMTP: true}, func(s *milter.Server) {
		s.ClientUID = func(client, daemon netip.AddrPort) int {
			asked <- [2]netip.AddrPort{client, daemon}
			return int(client.Port()) - 4000
		}
	})
	r.guard.recipient = func(context.Context, *policy.Message, string) policy.Decision { return refuse(550, "5.7.1", "no") }
	for i, c := range []struct {
		addr, daemon string
		port         uint16
		login        string
		role         policy.Role
		uid          int
		asked        string
	}{
		{"127.0.0.1", "127.0.0.1", 4033, "", policy.Local, 33, "127.0.0.1:25"},
		{"127.0.0.1", "0.0.0.0", 4033, "", policy.Local, 33, "0.0.0.0:25"},
		{"IPv6:0:0:0:0:0:0:0:1", "IPv6:0:0:0:0:0:0:0:0", 4033, "", policy.Local, 33, "[::]:25"},
		{"127.0.0.1", "IPv6:0:0:0:0:0:0:0:0", 4033, "", policy.Local, 33, "[::]:25"},
		{"127.0.0.1", "127.0.0.1", 4033 - 34, "", policy.Local, origin.NoUID, "127.0.0.1:25"}, // of nobody: the guard is told so
		{"127.0.0.1", "127.0.0.1", 0, "", policy.Local, origin.NoUID, ""},
		{"127.0.0.1", "127.0.0.1", 4033, "taro@example.jp", policy.Relay, origin.NoUID, "127.0.0.1:25"}, // a webmail: the login counts
		{"203.0.113.7", "0.0.0.0", 4033, "", policy.Relay, origin.NoUID, ""},
	} {
		p := r.dial(t, miltertest.Sendmail17)
		p.Macros['C'] = []string{"{daemon_addr}", c.daemon, "{daemon_port}", "25"}
		p.Macros['M'] = []string{"i", "6AN1TSsn003117"}
		if c.login != "" {
			p.Macros['M'] = append(p.Macros['M'], "{auth_authen}", c.login)
		}
		if a := ask(t)(p.Connect("localhost", c.addr, c.port)); a.Code != 'c' {
			t.Errorf("%s: CONNECT is answered %q, want a continue that the MTA waits for", c.addr, a.Code)
		}
		if c.asked != "" {
			select {
			case got := <-asked:
				if got[1] != netip.MustParseAddrPort(c.asked) {
					t.Errorf("asked for %v, want %s", got, c.asked)
				}
			default:
				t.Errorf("%s port %d: answered before the kernel was asked", c.addr, c.port)
			}
		}
		ask(t)(p.Helo("localhost"))
		_, refused := send(t, p, letter)
		if refusedAtRcpt := len(refused) > 0; refusedAtRcpt == (c.role == policy.Local) {
			t.Errorf("%s port %d: refused at RCPT: %v", c.addr, c.port, refused)
		}
		if c.role != policy.Local {
			r.guard.mu.Lock()
			r.guard.messages = append(r.guard.messages, snapshot{}) // none came
			r.guard.mu.Unlock()
			continue
		}
		got := r.guard.seen()[i]
		if got.Role != policy.Local || !got.Submitted || got.BySMTP != (c.port != 0) || got.UID != c.uid || got.QueueID != "6AN1TSsn003117" {
			t.Errorf("%s port %d: role %v, submitted %v by SMTP %v, uid %d, queue id %q", c.addr, c.port, got.Role, got.Submitted, got.BySMTP, got.UID, got.QueueID)
		}
	}
	if len(asked) > 0 {
		t.Errorf("asked %d times more", len(asked))
	}
}

// Sendmail sends no ABORT between messages: nothing of one is in the next.
func TestSeveralMessagesOfSendmailDoNotPileUp(t *testing.T) {
	r := startListener(t, &milter.Listener{Name: "test", Role: policy.Local, LocalBySMTP: true}, nil)
	p := r.dial(t, miltertest.Sendmail17)
	ask(t)(p.Connect("localhost", "127.0.0.1", 4000))
	for _, id := range []string{"6AN1YUlO007540", "6AN1YUlP007540", "6AN1YUlQ007540"} {
		p.Macros['M'] = []string{"i", id}
		send(t, p, letter)
	}
	for i, got := range r.guard.seen() {
		if len(got.fields) != len(letter.Header) || len(got.rcpts) != len(letter.To) || got.Size != r.guard.seen()[0].Size || got.QueueID != []string{"6AN1YUlO007540", "6AN1YUlP007540", "6AN1YUlQ007540"}[i] {
			t.Errorf("message %d: id %s, %d octets, fields %q, to %q", i, got.QueueID, got.Size, got.fields, got.rcpts)
		}
	}
}
