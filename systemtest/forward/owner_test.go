package forward_test

import (
	"mime"
	"net/mail"
	"os"
	"strings"
	"syscall"
	"testing"

	"relayguard/mta/smtptest"
)

// A mailbox's owner gets one mail about a new rule of his own, and nobody is woken.
func TestOwnerIsTold(t *testing.T) {
	t.Parallel()
	w := startWorld(t, worldOptions{forward: `writers = ["root"]`, policy: `customer = "digest"`})
	w.restart(syscall.SIGTERM, func() { // by now the port is known
		text, err := os.ReadFile(w.ConfigPath)
		w.must(err)
		w.must(os.WriteFile(w.ConfigPath, []byte(strings.Replace(string(text), "[mta]\n", "[mta]\nsmtp = \""+w.Addr(inbound)+"\"\n", 1)), 0o644))
	})
	mark := w.hook.mark()
	w.plant("virtual", "v1@vbox.test v1@vbox.test, v1out@evil.test\nold@vbox.test in@vbox.test\n")
	var told smtptest.Mail
	until(t, "the mail to the owner", func() bool {
		for _, m := range w.Sink.To("v1@vbox.test") {
			told = m
			return true
		}
		return false
	})
	message, err := mail.ReadMessage(strings.NewReader(string(told.Data)))
	w.must(err)
	subject, err := new(mime.WordDecoder).DecodeHeader(message.Header.Get("Subject"))
	w.must(err)
	if told.MailFrom != "" || message.Header.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(subject, "forwarding") || !strings.Contains(subject, "転送") {
		t.Errorf("told by %q, %v", told.MailFrom, message.Header)
	}
	w.settled("later")
	if kinds := w.told(mark, "v1out@evil.test"); len(kinds) != 0 {
		t.Errorf("the admin is told of a customer's own rule: %v", kinds)
	}
	w.restart(syscall.SIGTERM, func() {})
	w.plant("virtual", "v1@vbox.test v1@vbox.test, v1out@evil.test\n")
	w.must(w.WaitEmpty(soon(t)))
	if n := len(w.Sink.To("v1@vbox.test")); n != 1 {
		t.Errorf("%d mails to the owner, want one", n)
	}
	until(t, "it is known as new", func() bool { return only(t, w.known(), "v1out@evil.test").Status == "new" })
}
