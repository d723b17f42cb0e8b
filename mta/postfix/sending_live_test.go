package postfix_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"relayguard/mta"
	"relayguard/mta/postfix"
	"relayguard/mta/postfix/postfixtest"
)

// receiver is an SMTP server as others have: it notes from which address mail for whom
// came, and under which name.
type receiver struct {
	t        *testing.T
	listener net.Listener
	sessions sync.WaitGroup

	mu   sync.Mutex
	seen map[string]seen // by recipient
	more chan struct{}   // one for each
}

type seen struct {
	from netip.Addr
	helo string
}

func newReceiver(t *testing.T, address string) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, listener: l, seen: map[string]seen{}, more: make(chan struct{}, 64)}
	r.sessions.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.sessions.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); r.sessions.Wait() })
	return r
}

// hop is it as a next hop.
func (r *receiver) hop() string {
	host, port, _ := net.SplitHostPort(r.listener.Addr().String())
	return "[" + host + "]:" + port
}

func (r *receiver) serve(conn net.Conn) {
	defer conn.Close()
	remote := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr().Unmap()
	in, helo := bufio.NewScanner(conn), ""
	fmt.Fprint(conn, "220 receiver.invalid ESMTP\r\n")
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO":
			helo = rest
		case "RCPT":
			to := strings.Trim(strings.TrimPrefix(rest, "TO:"), "<>")
			r.mu.Lock()
			r.seen[to] = seen{remote, helo}
			r.mu.Unlock()
		case "DATA":
			fmt.Fprint(conn, "354 go on\r\n")
			for in.Scan() && in.Text() != "." {
			}
			r.more <- struct{}{}
		case "QUIT":
			fmt.Fprint(conn, "221 bye\r\n")
			return
		}
		fmt.Fprint(conn, "250 fine\r\n")
	}
}

// await waits until mail to that recipient came.
func (r *receiver) await(to string) seen {
	r.t.Helper()
	for {
		r.mu.Lock()
		s, found := r.seen[to]
		r.mu.Unlock()
		if found {
			return s
		}
		select {
		case <-r.more:
		case <-r.t.Context().Done():
			r.t.Fatalf("no mail to %s", to)
		}
	}
}

func submit(t *testing.T, p *postfixtest.Postfix, from, to string) {
	t.Helper()
	client, err := p.Dial(t.Context(), "in")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Ehlo("client.example"); err != nil {
		t.Fatal(err)
	}
	if reply, err := client.Mail(from); err != nil || !reply.Positive() {
		t.Fatalf("MAIL: %v, %v", reply, err)
	}
	if reply, err := client.Rcpt(to); err != nil || !reply.Positive() {
		t.Fatalf("RCPT: %v, %v", reply, err)
	}
	if reply, err := client.Data("Subject: test\r\n\r\ntest\r\n"); err != nil || !reply.Positive() {
		t.Fatalf("DATA: %v, %v", reply, err)
	}
}

func lookAt(t *testing.T, p *postfixtest.Postfix) mta.Sending {
	t.Helper()
	i, err := postfix.Load(t.Context(), postfix.Tools{}, p.ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := i.Sending(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What Sending says is where mail really comes from, by a real Postfix.
func TestSendingIsWhatReceiversSee(t *testing.T) {
	postfixtest.Need(t)
	t.Parallel()
	byDefault, gate, partner := newReceiver(t, "127.0.0.1:0"), newReceiver(t, "127.0.0.1:0"), newReceiver(t, "127.0.0.1:0")
	p := postfixtest.StartTest(t, postfixtest.Options{
		Services: []postfixtest.Service{{Name: "in"}},
		Main: map[string]string{
			"default_transport": "smtp", "relay_transport": "relay", "relayhost": byDefault.hop(), "smtp_bind_address": "127.0.0.2",
			"relay_domains":  "relayed.example",
			"transport_maps": "texthash:$config_directory/transport, regexp:$config_directory/patterns",
			"sender_dependent_default_transport_maps": "texthash:$config_directory/by_sender",
			"sender_dependent_relayhost_maps":         "inline:{ @gate.example=" + gate.hop() + " }",
		},
		Master: []string{
			"out3 unix - - y - - smtp -o smtp_bind_address=127.0.0.3 -o smtp_helo_name=three.example.jp",
			"out4 unix - - n - - smtp -o { smtp_bind_address = 127.0.0.4 } -o myhostname=four.example.jp",
			"gone unix - - y - - smtp -o smtp_bind_address=192.0.2.250", // not of this machine
			"none unix - - y - - smtp -o smtp_bind_address=",
		},
		Files: map[string]string{
			"transport": "partner.example out3:" + partner.hop() + "\nhop.example :" + partner.hop() + "\ngone.example gone:" + partner.hop() + "\nnone.example none:" + partner.hop() + "\n",
			"patterns":  "/@.*\\.wild\\.example$/ out4:" + partner.hop() + "\n",
			"by_sender": "@four.example out4\n@three.example out3:" + partner.hop() + "\n",
		},
	})
	sending := lookAt(t, p)
	if len(sending.Unread) > 0 {
		t.Errorf("unread: %v", sending.Unread)
	}
	for _, c := range []struct {
		from, to string
		setting  string
		service  string
		hop      *receiver
		sees     string // else the bound address
	}{
		{"a@example.org", "x@away.example", "relayhost", "smtp", byDefault, ""},
		{"a@example.org", "x@relayed.example", "relay_transport", "relay", byDefault, ""},
		{"a@example.org", "x@partner.example", "transport_maps", "out3", partner, ""},
		{"a@example.org", "x@hop.example", "transport_maps", "smtp", partner, ""},
		{"a@example.org", "x@some.wild.example", "transport_maps", "out4", partner, ""},
		{"a@four.example", "y@away.example", "sender_dependent_default_transport_maps", "out4", byDefault, ""},
		{"a@three.example", "z@away.example", "sender_dependent_default_transport_maps", "out3", partner, ""},
		{"a@gate.example", "w@away.example", "sender_dependent_relayhost_maps", "smtp", gate, ""},
		{"a@example.org", "x@gone.example", "transport_maps", "gone", partner, "127.0.0.1"},
		{"a@example.org", "x@none.example", "transport_maps", "none", partner, "127.0.0.1"},
	} {
		submit(t, p, c.from, c.to)
		got := c.hop.await(c.to)
		at := slices.IndexFunc(sending.Ways, func(w mta.Way) bool {
			return w.Setting == c.setting && w.Service == c.service && w.NextHop == c.hop.hop()
		})
		if at < 0 {
			t.Errorf("%s to %s: no %s over %s to %s in %+v", c.from, c.to, c.setting, c.service, c.hop.hop(), sending.Ways)
			continue
		}
		w := sending.Ways[at]
		want := c.sees
		if want == "" {
			want = w.Bind4.Addr.String()
		}
		if got.from.String() != want || got.helo != w.Helo {
			t.Errorf("%s to %s: the receiver saw %v as %q; we say %+v", c.from, c.to, got.from, got.helo, w)
		}
	}
}

// One address in inet_interfaces is the source address as well, unless it is loopback.
func TestSendingFromTheOnlyInterface(t *testing.T) {
	postfixtest.Need(t)
	t.Parallel()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var own netip.Addr
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			own = prefix.Addr()
		}
	}
	if !own.IsValid() {
		t.Skip("needs an IPv4 address beside loopback")
	}
	to := newReceiver(t, "127.0.0.1:0") // where the kernel would choose 127.0.0.1
	p := postfixtest.StartTest(t, postfixtest.Options{
		Services: []postfixtest.Service{{Name: "in"}},
		Main:     map[string]string{"default_transport": "smtp:" + to.hop(), "inet_interfaces": own.String()},
		Master:   []string{"here unix - - y - - smtp -o inet_interfaces=127.0.0.1"},
		Files:    map[string]string{"transport": "here.example here:" + to.hop() + "\n"},
	})
	for _, w := range lookAt(t, p).Ways {
		want := mta.Bind{}
		if w.Service == "smtp" {
			want = mta.Bind{Addr: own, Setting: "inet_interfaces"}
		}
		if w.Bind4 != want {
			t.Errorf("%+v: want %+v", w, want)
		}
	}
	for rcpt, want := range map[string]string{"x@away.example": own.String(), "x@here.example": "127.0.0.1"} {
		submit(t, p, "a@example.org", rcpt)
		if got := to.await(rcpt); got.from.String() != want {
			t.Errorf("mail to %s: the receiver saw %v, want %v", rcpt, got.from, want)
		}
	}
}
