package cases

import (
	"net"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"relayguard/mta/smtptest"
)

// turnTo opens a session, or goes on with one.
func (p *play) turnTo(c Client) {
	p.t.Helper()
	if c.Service == "" {
		p.client = p.clients[c.Name]
		return
	}
	if old := p.clients[c.Name]; old != nil {
		old.Close()
	}
	client, err := p.dial(c)
	p.check(err)
	p.clients[c.Name], p.client = client, client
	p.wants("the banner", client.Greeting, Reply{Code: 220})
	reply, err := client.Ehlo("client.example.org")
	p.check(err)
	p.wants("EHLO", reply, Reply{Code: 250})
	if c.Login != "" {
		reply, err := client.Auth(c.Login, "secret")
		p.check(err)
		p.wants("AUTH", reply, Reply{Code: 235})
	}
}

// dial connects from the client's address, as its Unix account: the kernel gives
// a socket the file system uid of the thread that made it.
func (p *play) dial(c Client) (client *smtptest.Client, err error) {
	uid := 0
	if c.Account != "" {
		uid = p.uidOf(c.Account)
	}
	var from net.Addr
	if c.From != "" {
		from = &net.TCPAddr{IP: net.ParseIP(c.From)}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if _, err = unix.SetfsuidRetUid(uid); err == nil {
			client, err = smtptest.DialFrom(p.soon(), from, p.server.addr(c.Service))
		}
	}()
	<-done
	return client, err
}

func (p *play) say(s *Say) {
	p.t.Helper()
	p.check(p.client.Write(strings.Join(s.Lines, "\r\n") + "\r\n"))
	for _, want := range s.Wants {
		if want.Only != "" && want.Only != p.server.name() {
			continue
		}
		p.line = want.Line
		reply, err := p.client.Read()
		p.check(err)
		p.wants(s.Lines[len(s.Lines)-1], reply, want)
	}
}

// wants checks a reply.
func (p *play) wants(what string, reply smtptest.Reply, want Reply) {
	p.t.Helper()
	if reply.Code != want.Code || want.Enhanced != "" && reply.Enhanced() != want.Enhanced || !strings.Contains(reply.Text(), want.Text) {
		p.fatalf("%.60s: got %v, want %d %s %s", what, reply, want.Code, want.Enhanced, want.Text)
	}
}

func (p *play) mail(m Mail) {
	p.t.Helper()
	message := "Message-ID: <" + m.ID + ">\n" + m.Message
	sent, err := p.client.Send(m.From, m.To, message)
	p.check(err)
	if !sent.Mail.Positive() {
		p.fatalf("MAIL: got %v", sent.Mail)
	}
	for i, reply := range sent.Rcpts {
		want := Reply{Code: 250}
		if m.AtRCPT {
			want = m.Want
		}
		p.wants("RCPT "+m.To[i], reply, want)
	}
	if !m.AtRCPT {
		p.wants("the message", sent.Data, m.Want)
	}
}

// hangUp ends all sessions.
func (p *play) hangUp() {
	for name, c := range p.clients {
		c.Close()
		delete(p.clients, name)
	}
}
