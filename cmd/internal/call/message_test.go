package call

import (
	"slices"
	"strings"
	"testing"

	"relayguard/policy"
	"relayguard/policy/origin"
)

func senderOf(int) string { return "www@host.example.jp" }

func TestMessageAsTheGuardIsGoingToSeeIt(t *testing.T) {
	r := Request{UID: 1000, Pool: "shop", Script: "mailer.php", Question: Question{
		Dir: "/srv/shop", MailFrom: "<info@example.jp>", FromHeader: true,
		Header: []byte("To: Taro =?ISO-2022-JP?B?GyRCQkBPOhsoQg==?= <taro@example.net>,\r\n hanako@example.org\r\nsubject : Hello\r\n\tWorld\r\nBcc:\r\nCc: friends: a@example.net;\r\n"),
	}}
	m, ok := r.Message(senderOf)
	if !ok {
		t.Fatal("it cannot be read")
	}
	subject, _ := m.Header.Get("Subject")
	if m.Role != policy.Local || !m.Submitted || m.UID != 1000 || m.LocalConfidence != origin.Wrapper || m.NodeUID != origin.NoUID || m.MailFrom != "info@example.jp" || subject != "Hello\tWorld" || m.Header.Len() != 4 ||
		m.Call != (origin.Call{Pool: "shop", Dir: "/srv/shop", Script: "mailer.php"}) || !slices.Equal(m.RcptTo, []string{"taro@example.net", "hanako@example.org", "a@example.net"}) {
		t.Errorf("got %+v", m)
	}
}

func TestSenderOfACall(t *testing.T) {
	for from, want := range map[string]string{"": "www@host.example.jp", NullSender: "", "a@example.jp": "a@example.jp"} {
		if m, ok := (&Request{Question: Question{MailFrom: from, RcptTo: []string{"b@example.net"}}}).Message(senderOf); !ok || m.MailFrom != want {
			t.Errorf("%q: got %q, %v", from, m.MailFrom, ok)
		}
	}
}

// Of what readers may see otherwise than the MTA nothing is said.
func TestWhatIsNotKnownWhole(t *testing.T) {
	header := func(text string) Question { return Question{FromHeader: true, Header: []byte(text)} }
	for name, q := range map[string]Question{
		"no recipient":                {Header: []byte("To: a@example.net\n")},
		"more recipients":             {RcptTo: []string{"a@example.net"}, RcptMore: true},
		"more header":                 {RcptTo: []string{"a@example.net"}, HeaderMore: true},
		"several in one":              {RcptTo: []string{"a@example.net, b@example.net"}},
		"with a name":                 {RcptTo: []string{"A <a@example.net>"}},
		"a route":                     {RcptTo: []string{"a%b.example@example.net"}},
		"quoted":                      {RcptTo: []string{`"a b"@example.net`}},
		"in both places":              {RcptTo: []string{"a@example.net"}, FromHeader: true, Header: []byte("To: b@example.net\n")},
		"none in the header":          header("Subject: a\n"),
		"sent again":                  header("To: a@example.net\nResent-To: b@example.net\n"),
		"a name without its quotes":   header("To: a@example.org <a@example.net>\n"),
		"a local name":                header("To: root\n"),
		"unfinished":                  header("To: <a@example.net\n"),
		"no header":                   header("hello\nTo: a@example.net\n"),
		"a header that goes on first": header(" a\nTo: a@example.net\n"),
		"a recipient of no charset":   header("To: \xff\xfe <a@example.net>\n"),
	} {
		if m, ok := (&Request{Question: q}).Message(senderOf); ok {
			t.Errorf("%s: got recipients %q", name, m.RcptTo)
		}
	}
	for _, to := range []string{"root", "a@example.net", "A+b=c@Example.NET"} {
		if m, ok := (&Request{Question: Question{RcptTo: []string{to}}}).Message(senderOf); !ok || !slices.Equal(m.RcptTo, []string{to}) {
			t.Errorf("%q: %v", to, ok)
		}
	}
}

// Whatever a header holds: recipients are plain addresses, and no more than may be.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		"To: a@example.net\n", "To: A <a@example.net>,\r\n b@example.net\r\nX: y", "To: g: a@example.net, \"b\" <b@example.net>;\nCc: =?x?q?,?= <c@d.example>\n",
		" a\n", ":\n", "To:\n\nbody", "Bcc: a@b@c\nTo: <>\n", "To: \"a\\\"@b\" <c@d>\n\ttail\n", "To: a@[192.0.2.1]\n", "To: a@xn--a\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		m, ok := (&Request{Question: Question{FromHeader: true, Header: header}}).Message(senderOf)
		if !ok {
			return
		}
		if len(m.RcptTo) == 0 || len(m.RcptTo) > MaxRcpts {
			t.Fatalf("%d recipients", len(m.RcptTo))
		}
		for _, to := range m.RcptTo {
			if strings.Count(to, "@") != 1 || strings.ContainsAny(to, " \t\r\n<>,;\"") {
				t.Fatalf("recipient %q", to)
			}
		}
	})
}
