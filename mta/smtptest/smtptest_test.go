package smtptest

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestSinkKeepsWhatTheClientSends(t *testing.T) {
	sink, client := dialSink(t)
	message := "Subject: dots\r\n\r\n.one\r\n..two\r\n" + strings.Repeat("x", 10000) + "\r\n.\r\nend\r\n"
	sent, err := client.Send("a@example.org", []string{"b@example.net", "c@example.net"}, message)
	if err != nil || !sent.Accepted() {
		t.Fatalf("send: %+v, %v", sent, err)
	}
	mail, err := sink.WaitFor(t.Context(), "C@example.net")
	if err != nil {
		t.Fatal(err)
	}
	if string(mail.Data) != message {
		t.Errorf("kept %q, want %q", mail.Data, message)
	}
	if mail.MailFrom != "a@example.org" || len(mail.RcptTo) != 2 {
		t.Errorf("envelope %q -> %q", mail.MailFrom, mail.RcptTo)
	}
}

func TestSinkRefusesByName(t *testing.T) {
	sink, client := dialSink(t)
	sink.Refuse("gone@example.net", Reply{Code: 550, Lines: []string{"5.1.1 No such user"}})
	sent, err := client.Send("", []string{"gone@example.net"}, "x\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if refusal := sent.Refusal(); refusal.Code != 550 || refusal.Enhanced() != "5.1.1" {
		t.Errorf("refusal %v, want 550 5.1.1", refusal)
	}
	if sent.Accepted() || len(sink.All()) != 0 {
		t.Errorf("mail was kept: %+v", sink.All())
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	sink, _ := dialSink(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := sink.WaitFor(ctx, "nobody@example.net"); err == nil {
		t.Error("no error for mail that never came")
	}
}

func TestPipelinedReplies(t *testing.T) {
	_, client := dialSink(t)
	replies, err := client.Pipeline("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA")
	if err != nil || len(replies) != 3 || replies[2].Code != 354 {
		t.Fatalf("replies %v, %v", replies, err)
	}
	if reply, err := client.Message("x\n"); err != nil || reply.Code != 250 {
		t.Errorf("message: %v, %v", reply, err)
	}
}

func dialSink(t *testing.T) (*Sink, *Client) {
	t.Helper()
	sink, err := NewSink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	client, err := Dial(t.Context(), sink.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if reply, err := client.Ehlo("client.example.org"); err != nil || !reply.Positive() {
		t.Fatalf("EHLO: %v, %v", reply, err)
	}
	return sink, client
}
