package maillog_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"relayguard/mta/maillog"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
)

// The log of a real Sendmail tells the life of each message.
func TestRealSendmail(t *testing.T) {
	s := sendmailtest.StartTest(t, sendmailtest.Options{
		Users:    map[string]string{"taro@example.jp": "secret"},
		Services: []sendmailtest.Service{{Name: "submission", Auth: true}},
		Files: map[string]string{
			"virtusertable": "team@example.jp\tteam\nlist@example.jp\tlist\nprogram@example.jp\tprogram\n",
			"aliases":       "postmaster: root\nroot: /dev/null\nteam: one@example.net, two@example.net\nlist: three@example.net\nowner-list: owner@example.net\nprogram: \"|/bin/cat > /dev/null\"\n",
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := followLog(t, ctx, s.LogPath())
	s.Sink.Refuse("later@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.2.0 Not now"}})
	s.Sink.Refuse("nobody@example.net", smtptest.Reply{Code: 550, Lines: []string{"5.1.1 No such user, stat=Sent (ok)"}})

	c, err := s.Dial(ctx, "submission")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Ehlo("client.example.org"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Auth("taro@example.jp", "wrong"); err != nil {
		t.Fatal(err)
	}
	l.wait("a login that failed", func(e maillog.Event) bool {
		return e.Kind == maillog.AuthFailed && e.Login == "taro@example.jp" && e.AuthMethod == "PLAIN" && e.ClientIP.IsLoopback()
	})
	if reply, err := c.Auth("taro@example.jp", "secret"); err != nil || reply.Code != 235 {
		t.Fatal(reply, err)
	}
	to := []string{"a@example.net", "b@example.net", "later@example.net", "nobody@example.net", "team@example.jp", "list@example.jp", "program@example.jp"}
	sent, err := c.Send("taro@example.jp", to, "Message-ID: <one@example.jp>\r\n\r\nhello\r\n")
	if err != nil || !sent.Accepted() {
		t.Fatalf("%+v, %v", sent, err)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(sent.Data.Text(), "2.0.0 "), " ")
	of := func(kind maillog.Kind, more func(maillog.Event) bool) func(maillog.Event) bool {
		return func(e maillog.Event) bool { return e.Kind == kind && e.QueueID == id && more(e) }
	}
	l.wait("its client", of(maillog.Client, func(e maillog.Event) bool { return e.Authenticated && e.ClientIP.IsLoopback() }))
	l.wait("its Message-ID", of(maillog.MessageID, func(e maillog.Event) bool { return e.MessageID == "<one@example.jp>" }))
	l.wait("its recipients", of(maillog.Queued, func(e maillog.Event) bool {
		return e.Recipients == len(to) && e.MailFrom == "taro@example.jp" && e.Size > 0
	}))
	for address, status := range map[string]string{"a@example.net": maillog.Sent, "b@example.net": maillog.Sent, "one@example.net": maillog.Sent, "two@example.net": maillog.Sent,
		"later@example.net": maillog.Deferred, "nobody@example.net": maillog.Bounced} {
		l.wait(address, of(maillog.Delivery, func(e maillog.Event) bool {
			return e.RcptTo == address && e.Status == status && e.Program == "smtp" && e.Relay == "127.0.0.1[127.0.0.1]"
		}))
	}
	l.wait("the program", of(maillog.Delivery, func(e maillog.Event) bool {
		return e.RcptTo == "program@example.jp" && e.Command == "/bin/cat > /dev/null" && e.Status == maillog.Sent
	}))
	list := l.wait("the copy for the list", of(maillog.Cloned, func(e maillog.Event) bool { return maillog.IsSendmailID(e.NewID) }))
	l.wait("its delivery", func(e maillog.Event) bool {
		return e.Kind == maillog.Delivery && e.QueueID == list.NewID && e.RcptTo == "three@example.net"
	})
	l.wait("the bounce", of(maillog.Notified, func(e maillog.Event) bool { return e.Text == "sender non-delivery" }))

	if _, err := s.Command(ctx, "sendmail", "-Am", "-Qby admin, 50%", "-qI"+id); err != nil {
		t.Fatal(err)
	}
	l.wait("a hold", of(maillog.Held, func(e maillog.Event) bool { return e.By == maillog.ByAdmin && e.Text == "by admin, 50%" }))
	if _, err := s.Command(ctx, "sendmail", "-Am", "-qQ", "-Q", "-qI"+id); err != nil {
		t.Fatal(err)
	}
	l.wait("its end", of(maillog.Released, func(maillog.Event) bool { return true }))

	if _, err := s.Sendmail(ctx, 33, []string{"-oi", "msp@example.net"}, strings.NewReader("Subject: x\n\nhello\n")); err != nil {
		t.Fatal(err)
	}
	pickup := l.wait("sendmail(1)", func(e maillog.Event) bool {
		return e.Kind == maillog.Pickup && e.LocalUser == "www-data" && e.UID == -1
	})
	handed := l.wait("what it handed on", func(e maillog.Event) bool {
		return e.Kind == maillog.HandedOn && e.QueueID == pickup.QueueID && e.Status == maillog.Sent && e.RcptTo == "msp@example.net"
	})
	l.wait("its arrival", func(e maillog.Event) bool {
		return e.Kind == maillog.Delivery && e.QueueID == handed.NewID && e.RcptTo == "msp@example.net" && e.Status == maillog.Sent
	})
	for _, e := range l.all {
		if e.Kind == maillog.Unreadable {
			t.Errorf("unreadable: %+v", e)
		}
	}
}

// followed is a log that is read while it is written.
type followed struct {
	t      *testing.T
	ctx    context.Context
	events chan maillog.Event
	all    []maillog.Event
}

func followLog(t *testing.T, ctx context.Context, path string) *followed {
	t.Helper()
	f := &followed{t: t, ctx: ctx, events: make(chan maillog.Event, 1000)}
	follower, err := maillog.New(maillog.Options{Path: path, From: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		ended <- follower.Run(ctx, func(e maillog.Event, _ maillog.Position) error { f.events <- e; return nil })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

// wait returns the first event that matches, of those that came too.
func (f *followed) wait(what string, match func(maillog.Event) bool) maillog.Event {
	f.t.Helper()
	for _, e := range f.all {
		if match(e) {
			return e
		}
	}
	for {
		select {
		case e := <-f.events:
			if f.all = append(f.all, e); match(e) {
				return e
			}
		case <-f.ctx.Done():
			f.t.Fatalf("%s does not come; came:\n%+v", what, f.all)
		}
	}
}
