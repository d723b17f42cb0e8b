package forwardtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
)

// Sent is a message that was sent.
type Sent struct{ To, ID string }

// mails counts messages, for their Message-IDs.
var mails atomic.Int64

// Send sends a message from outside by SMTP.
func Send(t testing.TB, p *postfixtest.Postfix, service, to string) Sent {
	t.Helper()
	m := Sent{to, fmt.Sprintf("m%d.%d@partner.test", os.Getpid(), mails.Add(1))}
	c, err := p.Dial(Soon(t), service)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Ehlo("client.partner.test"); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("From: cust@partner.test\r\nTo: %s\r\nSubject: hello\r\nMessage-ID: <%s>\r\nDate: Mon, 02 Mar 2026 09:00:00 +0900\r\n\r\nhello\r\n", to, m.ID)
	done, err := c.Send("cust@partner.test", []string{to}, text)
	if err != nil || !done.Accepted() {
		t.Fatalf("send to %s: %+v, %v", to, done, err)
	}
	_, _ = c.Quit() // it was taken
	return m
}

// Arrived is how often the message is at the sink for that address. A message
// about it, such as a notification, has another Message-ID: text is what is looked
// for in it instead, unless empty.
func Arrived(p *postfixtest.Postfix, m Sent, target, text string) int {
	if text == "" {
		text = m.ID
	}
	n := 0
	for _, mail := range p.Sink.To(target) {
		if strings.Contains(string(mail.Data), text) {
			n++
		}
	}
	return n
}

// WaitArrived waits until it is there.
func WaitArrived(t testing.TB, p *postfixtest.Postfix, m Sent, target, text string) {
	t.Helper()
	Until(t, fmt.Sprintf("mail to %s at %s", m.To, target), func() bool { return Arrived(p, m, target, text) > 0 })
}

// Soon bounds what comes within moments on a machine that is not busy.
func Soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Until asks again and again.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, tick := Soon(t), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: it does not come", what)
		case <-tick.C:
		}
	}
}
