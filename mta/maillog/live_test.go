package maillog_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"relayguard/mta/maillog"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// The log of a real Postfix tells the life of each message.
func TestRealPostfix(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Users:    map[string]string{"taro@example.jp": "secret"},
		Services: []postfixtest.Service{{Name: "submission", Auth: true}},
		Main: map[string]string{
			"mydestination": "corp.test", "alias_maps": "inline:{team=out@example.net}", "local_recipient_maps": "",
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := make(chan maillog.Event, 1000)
	follower, err := maillog.New(maillog.Options{Path: p.LogPath(), From: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- follower.Run(ctx, func(e maillog.Event, _ maillog.Position) error { events <- e; return nil })
	}()
	defer func() { cancel(); <-ended }()
	var all []maillog.Event
	wait := func(what string, match func(maillog.Event) bool) maillog.Event {
		t.Helper()
		for _, e := range all {
			if match(e) {
				return e
			}
		}
		for {
			select {
			case e := <-events:
				if all = append(all, e); match(e) {
					return e
				}
			case <-ctx.Done():
				t.Fatalf("%s does not come; came:\n%+v", what, all)
			}
		}
	}
	const message = "From: taro@example.jp\r\nMessage-ID: <one@example.jp>\r\n\r\nhello\r\n"
	p.Sink.Refuse("later@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.2.0 Not now"}})

	c, err := p.Dial(ctx, "submission")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Ehlo("client.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Auth("taro@example.jp", "wrong"); err != nil {
		t.Fatal(err)
	}
	failed := wait("the failed AUTH", func(e maillog.Event) bool { return e.Kind == maillog.AuthFailed })
	if !failed.ClientIP.IsLoopback() || failed.AuthMethod != "PLAIN" || failed.Service != "postfix/submission" {
		t.Errorf("failed AUTH: %+v", failed)
	}
	if _, err := c.Auth("taro@example.jp", "secret"); err != nil {
		t.Fatal(err)
	}
	if sent, err := c.Send("taro@example.jp", []string{"team@corp.test", "later@example.net"}, message); err != nil || !sent.Accepted() {
		t.Fatalf("send: %v, %+v", err, sent)
	}
	client := wait("the client", func(e maillog.Event) bool { return e.Kind == maillog.Client })
	id := client.QueueID
	of := func(id string, kind maillog.Kind) func(maillog.Event) bool {
		return func(e maillog.Event) bool { return e.QueueID == id && e.Kind == kind }
	}
	if client.Login != "taro@example.jp" || !client.ClientIP.IsLoopback() {
		t.Errorf("client: %+v", client)
	}
	if e := wait("the Message-ID", of(id, maillog.MessageID)); e.MessageID != "<one@example.jp>" {
		t.Errorf("Message-ID: %+v", e)
	}
	if e := wait("the queue", of(id, maillog.Queued)); e.MailFrom != "taro@example.jp" || e.Recipients != 2 || e.Size == 0 {
		t.Errorf("queued: %+v", e)
	}
	forwarded := wait("the alias", of(id, maillog.Forwarded))
	if e := wait("the alias's target", of(forwarded.NewID, maillog.Delivery)); e.RcptTo != "out@example.net" || e.OrigTo != "team@corp.test" || e.Status != maillog.Sent {
		t.Errorf("target: %+v", e)
	}
	wait("the end of the copy", of(forwarded.NewID, maillog.Removed))
	if e := wait("the deferral", of(id, maillog.Delivery)); e.RcptTo != "later@example.net" || e.Status != maillog.Deferred || e.DSN != "4.2.0" {
		t.Errorf("deferred: %+v", e)
	}
	for _, c := range []struct {
		flag string
		kind maillog.Kind
	}{{"-h", maillog.Held}, {"-H", maillog.Released}, {"-r", maillog.Requeued}} {
		if _, err := p.Command(ctx, "postsuper", c.flag, id); err != nil {
			t.Fatal(err)
		}
		wait(c.kind.String(), of(id, c.kind))
	}
	// Mail from sendmail(1) wakes pickup, for the requeued message too.
	const www = 33
	if _, err := p.Sendmail(ctx, www, []string{"-f", "www@example.jp", "out@example.net"}, strings.NewReader("Subject: x\n\nhi\n")); err != nil {
		t.Fatal(err)
	}
	again := wait("the new id", func(e maillog.Event) bool { return e.Kind == maillog.Pickup && e.OrigID == id })
	wait("the second try", of(again.QueueID, maillog.Delivery))
	if _, err := p.Command(ctx, "postsuper", "-d", again.QueueID); err != nil {
		t.Fatal(err)
	}
	wait("deleted", of(again.QueueID, maillog.Deleted))
	if e := wait("the pickup", func(e maillog.Event) bool { return e.Kind == maillog.Pickup && e.OrigID == "" }); e.UID != www || e.MailFrom != "www@example.jp" {
		t.Errorf("pickup: %+v", e)
	}
	if c := follower.Counts(); c.Unreadable+c.Foreign+c.Long+c.Gaps != 0 {
		t.Errorf("counts: %+v", c)
	}
}
