package wrapper

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
)

// varying are fields that Postfix writes differently for each message.
var varying = regexp.MustCompile(`(?mi)^(Received|Message-Id|Date):.*\r\n([ \t].*\r\n)*`)

// What a real Postfix makes of a message does not depend on the wrapper, but for
// the token, which is the first of its name.
func TestRealPostfixGetsTheMessageAsWithoutTheWrapper(t *testing.T) {
	postfix := postfixtest.StartTest(t, postfixtest.Options{})
	p := install(t, recorder)
	p.settings.Sendmail = "/usr/sbin/sendmail"
	p.configure()
	p.daemon(nil)
	n := 0
	send := func(program, text string) string {
		t.Helper()
		n++
		to := fmt.Sprintf("to-%d@example.net", n)
		p.program = program
		if status, stderr := p.run(strings.NewReader(text), []string{"MAIL_CONFIG=" + postfix.ConfigDir}, "-i", "-f", "taro@example.jp", to); status != 0 {
			t.Fatalf("%s: exit %d, %q", program, status, stderr)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		mail, err := postfix.Sink.WaitFor(ctx, to)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(varying.ReplaceAllString(string(mail.Data), ""), to, "TO")
	}
	wrapped := p.program
	for name, text := range map[string]string{
		"plain":             "To: TO\nFrom: taro@example.jp\nSubject: \xff b\n c\n\nbody\n",
		"CRLF":              "From: taro@example.jp\r\nSubject: b\r\n\r\nbody\r\n",
		"8 bit, dots":       "From: taro@example.jp\n\n.\n..\n\x80\xff",
		"body alone":        "hello\nworld: x\n",
		"blank line first":  "\nFrom: body\n",
		"nothing":           "",
		"header alone":      "Subject: b",
		"mbox":              "From root Mon Mar 2 09:00:00 2026\nSubject: b\n\nbody\n",
		"quoted mbox":       ">From root Mon Mar 2 09:00:00 2026\nSubject: b\n\nbody\n",
		"two mbox":          "From root Mon Mar 2 09:00:00 2026\nFrom root Mon Mar 2 09:00:00 2026\nSubject: b\n\nbody\n",
		"begins with blank": " Subject: a\nTo: b\n\nbody\n",
		"no blank line":     "Subject: b\nbody: \nbody\n",
		"forged":            "X-Relayguard-Call: 00112233445566778899aabbccddeeff\nSubject: b\n\nbody\n",
	} {
		without, with := send("/usr/sbin/sendmail", text), send(wrapped, text)
		first := regexp.MustCompile(`^X-Relayguard-Call: [0-9a-f]{32}\r\n`)
		if rest := first.ReplaceAllString(with, ""); rest != without {
			t.Errorf("%s: got %q, without the wrapper %q", name, with, without)
		}
		if has := first.MatchString(with); has == (name == "quoted mbox" || name == "two mbox" || name == "begins with blank") {
			t.Errorf("%s: got %q", name, with)
		}
	}
}
