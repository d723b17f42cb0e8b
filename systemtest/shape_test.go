package systemtest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// plain is a submission service without the guard, to compare with.
const plain = "plain"

// startWithPlain starts a relay that has such a service, too.
func startWithPlain(t *testing.T, o relay.Options) *relay.Relay {
	t.Helper()
	o.Postfix.Services = append(relay.Services(), postfixtest.Service{Name: plain, Auth: true})
	return startRelay(t, o)
}

// afterTrace is a mail less the Received line of this relay, which comes first
// and tells time and queue id.
func afterTrace(t *testing.T, mail smtptest.Mail) []byte {
	t.Helper()
	if !bytes.HasPrefix(mail.Data, []byte("Received: ")) {
		t.Fatalf("mail to %q does not begin with a Received line: %.200q", mail.RcptTo, mail.Data)
	}
	rest := mail.Data
	for first := true; first || rest[0] == '\t' || rest[0] == ' '; first = false {
		rest = rest[bytes.IndexByte(rest, '\n')+1:]
	}
	return rest
}

// wantSame checks that two recipients got the same mail.
func wantSame(t *testing.T, p *postfixtest.Postfix, guarded, unguarded string) {
	t.Helper()
	got, want := afterTrace(t, wantArrived(t, p, guarded)), afterTrace(t, wantArrived(t, p, unguarded))
	if bytes.Equal(got, want) {
		return
	}
	t.Errorf("%s got other mail than %s: %s", guarded, unguarded, firstDifference(got, want))
}

func TestMailOfEveryShapeIsUnchanged(t *testing.T) {
	t.Parallel()
	r := startWithPlain(t, relay.Options{})
	head := func(id string) string {
		return "From: Taro <taro@example.jp>\r\nDate: Mon, 02 Mar 2026 09:00:00 +0900\r\nMessage-ID: <" + id + ">\r\n"
	}
	data := func(c *smtptest.Client, message string) (smtptest.Reply, error) {
		if reply, err := c.Cmd("DATA"); err != nil || reply.Code != 354 {
			return reply, err
		}
		if err := c.Write(message + "\r\n.\r\n"); err != nil { // as it is: no dots stuffed, no line ends mended
			return smtptest.Reply{}, err
		}
		return c.Read()
	}
	chunks := func(size int) func(*smtptest.Client, string) (smtptest.Reply, error) {
		return func(c *smtptest.Client, message string) (smtptest.Reply, error) {
			message += "\r\n"
			for len(message) > size {
				if reply, err := c.Bdat(message[:size], false); err != nil || reply.Code != 250 {
					return reply, err
				}
				message = message[size:]
			}
			return c.Bdat(message, true)
		}
	}
	for _, shape := range []struct {
		name    string
		args    []string // of MAIL
		message string
		say     func(*smtptest.Client, string) (smtptest.Reply, error)
	}{
		{"an empty body", nil, "\r\n", data},
		{"no blank line", nil, "X-Last: field", data},
		{"8BITMIME", []string{"BODY=8BITMIME"}, "Subject: caf\xe9\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n\xe9\xff\x80", data},
		{"8 bits without BODY", nil, "\r\nna\xc3\xafve", data},
		{"SMTPUTF8", []string{"SMTPUTF8"}, "Subject: こんにちは\r\nX-名前: 太郎\r\n\r\n世界", data},
		{"BDAT in one chunk", nil, "\r\nHello\r\n..dots\r\n.\r\nWorld", chunks(1 << 20)},
		{"BDAT in many chunks", nil, "Subject: chunks\r\n\r\n" + strings.Repeat("0123456789\r\n", 1000), chunks(777)},
		{"BDAT octet by octet", nil, "\r\n.\r\n", chunks(1)},
		{"a line of 100 kB", nil, "\r\n" + strings.Repeat("x", 100_000) + "\r\nend", data},
		{"a header field of 60 kB", nil, "References: " + strings.Repeat("<0123456789abcdef@example.jp>\r\n ", 2000) + "<end@example.jp>\r\n\r\nend", data},
		{"a header line of 100 kB", nil, "X-Long: " + strings.Repeat("y", 100_000) + "\r\n\r\nend", data},
		{"900 header fields", nil, strings.Join(manyFields(900), "\r\n") + "\r\n\r\nend", data},
		{"empty and odd header fields", nil, "Subject:\r\nX-Empty: \r\nX-Spaces:    x   \r\nX-Tab:\tx\r\nX-Fold:\r\n x\r\n\ty\r\nNo-Space:x\r\nBefore : x\r\n\r\nend", data},
		{"text where a header should be", nil, "this is no header field\r\n\r\nend", data},
		{"mbox lines", nil, "\r\nFrom the start\r\n>From quoted", data},
		{"NUL octets in the body", nil, "\r\na\x00b\x00\x00c", data},
		{"a NUL octet in the header", nil, "Subject: a\x00b\r\n\r\nend", data},
		{"bare CR in the body", nil, "\r\na\rb\r\rc", data},
		{"bare CR in the header", nil, "Subject: a\rb\r\n\r\nend", data},
		{"bare LF", nil, "Subject: x\nX-Next: y\n\na\nb", data},
		{"control characters", nil, "Subject: \x01\x02\x1b[31m\r\n\r\n\x07\x1b\x7f", data},
		{"percent signs", nil, "Subject: 100%s %n %%\r\n\r\n%d%n", data},
		{"a nested message", nil, "Content-Type: message/rfc822\r\n\r\nFrom: x@example.org\r\nSubject: inner\r\n\r\ninner", data},
	} {
		t.Run(shape.name, func(t *testing.T) {
			id := "shape-" + strings.ReplaceAll(shape.name, " ", "-")
			for _, service := range []string{relay.Submission, plain} {
				client := loggedIn(t, r.Postfix, service, "taro@example.jp")
				wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp", shape.args...))
				wantCode(t, "RCPT", 250)(client.Rcpt(service + "." + id + "@example.net"))
				wantCode(t, service+": end of message", 250)(shape.say(client, head(id)+shape.message))
			}
			wantSame(t, r.Postfix, relay.Submission+"."+id+"@example.net", plain+"."+id+"@example.net")
			wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
		})
	}
}

func TestSMTPUTF8Addresses(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: "[address.logins]\n\"taro@example.jp\" = [\"太郎@example.jp\", \"@xn--r8jz45g.jp\"]\n"})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	for id, from := range map[string]string{"local": "太郎@example.jp", "domain": "taro@例え.jp", "foreign": "花子@example.jp"} {
		wantCode(t, "MAIL", 250)(client.Mail(from, "SMTPUTF8"))
		wantCode(t, "RCPT", 250)(client.Rcpt("受信-" + id + "@example.net"))
		wantCode(t, "end of message", 250)(client.Data("From: " + from + "\nMessage-ID: <" + id + ">\n\nこんにちは\n"))
	}
	for _, id := range []string{"local", "domain"} {
		wantVerdict(t, r, id, "accept", "", "login:taro@example.jp")
		if mail := wantArrived(t, r.Postfix, "受信-"+id+"@example.net"); !strings.Contains(mail.MailArgs, "SMTPUTF8") {
			t.Errorf("arrived with %q", mail.MailArgs)
		}
	}
	wantVerdict(t, r, "foreign", "hold", "envelope-address", "login:taro@example.jp")
	wantNothing(t, r.Postfix, "受信-foreign@example.net")
}

func TestMoreHeaderThanIsRead(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Phase: "learning"})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	large := make([]string, 8)
	for i := range large { // Postfix cuts one field at 100 kB
		large[i] = fmt.Sprintf("X-Large-%d: %s", i, strings.Repeat("z", 50_000))
	}
	for id, fields := range map[string][]string{"2000-fields": manyFields(2000), "400-kB": large} {
		sendAccepted(t, client, "taro@example.jp", []string{id + "@example.net"}, fromTaro(id, fields...))
		held := wantHeld(t, r.Postfix, id+"@example.net")
		// The Message-ID came after what was kept.
		v, err := r.WaitVerdict(soon(t), 0, func(l relay.Line) bool { return l.QueueID == held.QueueID })
		if err != nil || v.Verdict != "hold" || v.Rule != "header-size" {
			t.Errorf("%s: verdict %s, %v", id, v.Raw, err)
		}
	}
	sendAccepted(t, client, "taro@example.jp", []string{"small@example.net"}, fromTaro("small"))
	wantArrived(t, r.Postfix, "small@example.net")
}

// The body is streamed: what the guard holds of a message does not grow with it.
func TestFiftyMegabytes(t *testing.T) {
	t.Parallel()
	const size, room = 50 << 20, 16 << 20
	r := startRelay(t, relay.Options{})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")
	sendAccepted(t, client, "taro@example.jp", []string{"small@example.net"}, fromTaro("small"))
	verdictOn(t, r, "small")
	before := peakMemory(t, r.GuardPID())
	body := strings.Repeat(strings.Repeat("0123456789abcdef", 4)+"\n", size/65)
	sendAccepted(t, client, "taro@example.jp", []string{"large@example.net"}, fromTaro("large")+body)
	if v := verdictOn(t, r, "large"); v.Size < size || v.Verdict != "accept" {
		t.Errorf("verdict %s", v.Raw)
	}
	if grown := peakMemory(t, r.GuardPID()) - before; grown > room {
		t.Errorf("the guard's memory grew by %d kB over a message of %d kB", grown>>10, size>>10)
	}
	if mail := wantArrived(t, r.Postfix, "large@example.net"); !bytes.HasSuffix(mail.Data, []byte(smtptest.Stuff(body))) {
		t.Error("the body arrived changed")
	}
}

// peakMemory is the most resident memory that a process ever had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatalf("VmHWM: %v", err)
	}
	return kB << 10
}

func TestManyRecipients(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: "[milter]\nmax_recipients = 1500\n"})
	client := loggedIn(t, r.Postfix, relay.Submission, "taro@example.jp")

	t.Run("1000 in one message, pipelined", func(t *testing.T) {
		to := rcpts("k", 1000)
		lines := []string{"MAIL FROM:<taro@example.jp>"}
		for _, address := range to {
			lines = append(lines, "RCPT TO:<"+address+">")
		}
		replies, err := client.Pipeline(append(lines, "DATA")...)
		if err != nil || slices.Contains(codes(replies[:1001]), 530) || replies[1001].Code != 354 {
			t.Fatalf("pipeline: %v, last %v", err, replies[len(replies)-1])
		}
		wantCode(t, "end of message", 250)(client.Message(fromTaro("k")))
		if v := verdictOn(t, r, "k"); v.Recipients != 1000 || v.Verdict != "accept" {
			t.Errorf("verdict %s", v.Raw)
		}
		if err := r.WaitEmpty(soon(t)); err != nil {
			t.Fatal(err)
		}
		got := recipientsAtSink(r.Postfix)
		for _, address := range to {
			if got[address] != 1 {
				t.Fatalf("%s got %d mails", address, got[address])
			}
		}
	})

	t.Run("those beyond max_recipients get 452, the others their mail", func(t *testing.T) {
		wantCode(t, "MAIL", 250)(client.Mail("taro@example.jp"))
		lines := make([]string, 1600)
		for i, address := range rcpts("beyond", len(lines)) {
			lines[i] = "RCPT TO:<" + address + ">"
		}
		replies, err := client.Pipeline(lines...)
		if err != nil {
			t.Fatal(err)
		}
		for i, reply := range replies {
			if want := map[bool]int{true: 250, false: 452}[i < 1500]; reply.Code != want {
				t.Fatalf("RCPT %d: %v, want %d", i, reply, want)
			}
		}
		wantCode(t, "end of message", 250)(client.Data(fromTaro("beyond")))
		if v := verdictOn(t, r, "beyond"); v.Recipients != 1500 || v.Verdict != "accept" {
			t.Errorf("verdict %s", v.Raw)
		}
	})
}

func TestPipelinedTransactions(t *testing.T) {
	t.Parallel()
	r := startRelay(t, relay.Options{Config: webNodes})
	client := strangerAt(t, r.Postfix, relay.Relaying, "ADDR=203.0.113.7", "PORT=40001")
	replies, err := client.Pipeline(
		"MAIL FROM:<x@example.org>", "RCPT TO:<a@example.net>", "RCPT TO:<postmaster@example.jp>", "RCPT TO:<b@example.net>", "DATA")
	if err != nil {
		t.Fatal(err)
	}
	if got := codes(replies); !slices.Equal(got, []int{250, 530, 250, 530, 354}) {
		t.Fatalf("replies %v", got)
	}
	// The message and the next transaction in one write.
	next := "MAIL FROM:<x@example.org>\r\nRCPT TO:<c@example.net>\r\nRCPT TO:<abuse@example.jp>\r\nRSET\r\nNOOP\r\n"
	if err := client.Write(smtptest.Stuff(letter("pipelined", "From: x@example.org")) + ".\r\n" + next); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{250, 250, 530, 250, 250, 250} {
		if reply, err := client.Read(); err != nil || reply.Code != want {
			t.Errorf("reply %d: %v, %v; want %d", i, reply, err, want)
		}
	}
	wantArrived(t, r.Postfix, "postmaster@example.jp")
	wantNothing(t, r.Postfix, "a@example.net", "b@example.net", "c@example.net", "abuse@example.jp")
}
