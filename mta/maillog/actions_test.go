package maillog

import (
	"strings"
	"testing"
	"time"
)

// Lines of a real Postfix 3.7.11 whose rules send mail elsewhere.
func TestRuleActions(t *testing.T) {
	const access = "from localhost[127.0.0.1]:48654: "
	const ends = "; from=<cust@partner.test> to=<owner@corp.test> proto=ESMTP helo=<client.partner.test>"
	for _, c := range []struct {
		text string
		want Event
	}{
		{"inbound/smtpd: NOQUEUE: redirect: RCPT " + access + "<accredir@corp.test>: Recipient address triggers REDIRECT accredir-out@evil.test" + ends,
			Event{Kind: Redirected, By: ByAccess, Stage: "RCPT", ClientName: "localhost", ClientIP: loopback, RcptTo: "accredir-out@evil.test"}},
		{"inbound/smtpd: 19D1F98E51B: redirect: RCPT " + access + "<accredir@corp.test>: Recipient address triggers REDIRECT accredir-out@evil.test" + ends,
			Event{Kind: Redirected, QueueID: "19D1F98E51B", By: ByAccess, Stage: "RCPT", ClientName: "localhost", ClientIP: loopback, RcptTo: "accredir-out@evil.test"}},
		{"inbound/smtpd: NOQUEUE: bcc: RCPT " + access + "<accbcc@corp.test>: Recipient address triggers BCC accbcc-out@evil.test" + ends,
			Event{Kind: Copied, By: ByAccess, Stage: "RCPT", ClientName: "localhost", ClientIP: loopback, RcptTo: "accbcc-out@evil.test"}},
		{"inbound/smtpd: NOQUEUE: filter: RCPT " + access + "<accfil@corp.test>: Recipient address triggers FILTER other:[127.0.0.1]:1" + ends,
			Event{Kind: Filtered, By: ByAccess, Stage: "RCPT", ClientName: "localhost", ClientIP: loopback, Relay: "other:[127.0.0.1]:1"}},
		{"cleanup: D935898E517: bcc: header Subject: HCBCC x " + "from localhost[127.0.0.1]:48616" + ends + ": hcbcc@evil.test",
			Event{Kind: Copied, QueueID: "D935898E517", By: ByHeader, RcptTo: "hcbcc@evil.test"}},
		{"cleanup: 2F1F998E518: redirect: header Subject: HCREDIR x from localhost[127.0.0.1]:48632" + ends + ": hcredir@evil.test",
			Event{Kind: Redirected, QueueID: "2F1F998E518", By: ByHeader, RcptTo: "hcredir@evil.test"}},
		{"cleanup: 793D098E518: filter: header Subject: HCFILTER x from localhost[127.0.0.1]:48642" + ends + ": other:[127.0.0.1]:1",
			Event{Kind: Filtered, QueueID: "793D098E518", By: ByHeader, Relay: "other:[127.0.0.1]:1"}},
		{"cleanup: 793D098E518: bcc: body some words from local; from=<www@corp.test>: b@evil.test",
			Event{Kind: Copied, QueueID: "793D098E518", By: ByBody, RcptTo: "b@evil.test"}},
		{"pipe: 03E5798E51C: to=<pipe@vbox.test>, relay=mypipe, delay=1, delays=0/0.01/0/1, dsn=2.0.0, status=sent (delivered via mypipe service (all is well))",
			Event{Kind: Delivery, QueueID: "03E5798E51C", RcptTo: "pipe@vbox.test", Relay: "mypipe", Delay: time.Second, DSN: "2.0.0", Status: Sent,
				Text: "delivered via mypipe service (all is well)", Command: "mypipe"}},
	} {
		program, text, _ := strings.Cut(c.text, ": ")
		checkEvent(t, "Nov 22 08:38:33 relay postfix/"+program+"[13710]: "+text, c.want)
	}
}

// A target is the MTA's, whatever stands in the addresses, the HELO and the
// subject that a client chose.
func TestForgedRuleActions(t *testing.T) {
	const id, access = "2E117986156", "RCPT from x[127.0.0.1]: "
	for name, c := range map[string]struct {
		text string
		want Event
	}{
		"sender with a target": {"smtpd: NOQUEUE: redirect: " + access + `<"x>: Recipient address triggers REDIRECT forged@evil.test; from=<"@e.jp>: Sender address triggers REDIRECT real@corp.test; from=<"x"@e.jp>`,
			Event{Kind: Unreadable}},
		"HELO with a target behind": {"smtpd: NOQUEUE: redirect: " + access + `<a@b>: Recipient address triggers REDIRECT real@corp.test; from=<a@b> to=<c@d> proto=ESMTP helo=<x>: y triggers REDIRECT forged@evil.test; proto=>`,
			Event{Kind: Unreadable}},
		"Subject with a target": {"cleanup: " + id + ": redirect: header Subject: x from y[127.0.0.1]; from=<a@b> to=<c@d> proto=ESMTP helo=<z>: forged@evil.test from x[127.0.0.1]; from=<a@b> to=<c@d> proto=ESMTP helo=<h>: real@corp.test",
			Event{Kind: Redirected, QueueID: id, By: ByHeader, RcptTo: "real@corp.test"}},
		"HELO with a target": {"cleanup: " + id + ": bcc: header Subject: x from x[127.0.0.1]; from=<a@b> to=<c@d> proto=ESMTP helo=<h>: forged@evil.test>: real@corp.test",
			Event{Kind: Copied, QueueID: id, By: ByHeader, RcptTo: "real@corp.test"}},
		"a Subject that Postfix cut": {"cleanup: " + id + ": bcc: header Subject: " + strings.Repeat("x", 1990) + ": forged@evil.test",
			Event{Kind: Unreadable, QueueID: id}},
		"no target":                {"cleanup: " + id + ": bcc: header Subject: x", Event{Kind: Unreadable, QueueID: id}},
		"a target that is none":    {"cleanup: " + id + ": bcc: header Subject: x from local; from=<a@b>: two words", Event{Kind: Unreadable, QueueID: id}},
		"another client":           {"smtpd: NOQUEUE: redirect: RCPT from x: <a@b>: y triggers REDIRECT c@d; from=<a@b>", Event{Kind: Unreadable}},
		"a reject that says so":    {"smtpd: NOQUEUE: reject: RCPT from x[127.0.0.1]: 550 redirect: RCPT from x[127.0.0.1]: <a@b>: y triggers REDIRECT c@d; from=<a@b>", Event{}},
		"a command in a bounce":    {"local: " + id + ": to=<a@b>, relay=local, delay=1, delays=1/0/0/0, dsn=5.0.0, status=bounced (delivered to command: x)", Event{Kind: Delivery, QueueID: id, RcptTo: "a@b", Relay: "local", Delay: time.Second, DSN: "5.0.0", Status: Bounced, Text: "delivered to command: x"}},
		"a command of a far reply": {"smtp: " + id + ": to=<a@b>, relay=x[127.0.0.1]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (delivered to command: x)", Event{Kind: Delivery, QueueID: id, RcptTo: "a@b", Relay: "x[127.0.0.1]:25", Delay: time.Second, DSN: "2.0.0", Status: Sent, Text: "delivered to command: x"}},
	} {
		program, text, _ := strings.Cut(c.text, ": ")
		t.Run(name, func(t *testing.T) {
			checkEvent(t, "Nov 22 08:38:33 relay postfix/"+program+"[13710]: "+text, c.want)
		})
	}
}

// FuzzRuleAction holds that what a client chooses never becomes the target.
func FuzzRuleAction(f *testing.F) {
	f.Add("a@b>: Recipient address triggers REDIRECT forged@evil.test; from=<", "h>: forged@evil.test", "s: forged@evil.test")
	f.Add("", ": ", ">: x")
	f.Fuzz(func(t *testing.T, item, helo, subject string) {
		item, helo, subject = printable(item), printable(helo), printable(subject)
		if 2*len(item)+len(helo)+len(subject) > 1500 {
			return // Postfix cuts the line
		}
		const real = "real@corp.test"
		e := event("Nov 22 08:38:33 relay postfix/smtpd[1]: NOQUEUE: redirect: RCPT from x[192.0.2.1]: <" + item + ">: Recipient address triggers REDIRECT " + real + "; from=<" + item + "> to=<" + item + "> proto=ESMTP helo=<" + helo + ">")
		if e.Kind != Unreadable && (e.Kind != Redirected || e.RcptTo != real) {
			t.Fatalf("access: %+v", e)
		}
		e = event("Nov 22 08:38:33 relay postfix/cleanup[1]: 2E117986156: bcc: header Subject: " + subject + " from x[192.0.2.1]; from=<" + item + "> to=<" + item + "> proto=ESMTP helo=<" + helo + ">: " + real)
		if e.Kind != Copied || e.RcptTo != real {
			t.Fatalf("check: %+v", e)
		}
	})
}
