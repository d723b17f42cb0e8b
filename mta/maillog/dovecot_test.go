package maillog

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Lines of a real Dovecot 2.3.19 with Pigeonhole 0.5.19, by syslog.
func TestDovecotLines(t *testing.T) {
	const agent = "lmtp(s1@vbox.test)<32449><COAdE8o0A2vBfgAAg+zDdQ>: "
	base := Event{Service: "dovecot", Program: "lmtp", PID: 32449, Mailbox: "s1@vbox.test", Session: "COAdE8o0A2vBfgAAg+zDdQ", MessageID: "<T26@partner.test>"}
	with := func(change func(*Event)) Event { e := base; change(&e); return e }
	forwarded := with(func(e *Event) { e.Kind, e.RcptTo = SieveForwarded, "svout1@evil.test" })
	for _, c := range []struct {
		text string
		want Event
	}{
		{agent + "sieve: msgid=<T26@partner.test>: redirect action: forwarded to <svout1@evil.test>", forwarded},
		{agent + "sieve: msgid=<T26@partner.test>: forwarded to <svout1@evil.test>", forwarded},
		{agent + "sieve: msgid=<T26@partner.test>: notify action: sent mail notification to <nout@evil.test>",
			with(func(e *Event) { e.Kind, e.RcptTo = SieveNotified, "nout@evil.test" })},
		{agent + "sieve: msgid=<T26@partner.test>: notify action: sent mail notification to <a@evil.test>, <b@evil.test>",
			with(func(e *Event) {
				e.Kind, e.RcptTo, e.Text = SieveNotified, "a@evil.test", "<a@evil.test>, <b@evil.test>"
			})},
		{agent + "sieve: msgid=<T26@partner.test>: pipe action: piped message to program `prog'",
			with(func(e *Event) { e.Kind, e.Command = SievePiped, "prog" })},
		{agent + "sieve: msgid=unspecified: redirect action: forwarded to <svout1@evil.test>",
			with(func(e *Event) { e.Kind, e.RcptTo, e.MessageID = SieveForwarded, "svout1@evil.test", "" })},
		{"lda(alice)<77><abcd1234>: sieve: msgid=<T26@partner.test>: redirect action: forwarded to <svout1@evil.test>",
			with(func(e *Event) {
				e.Kind, e.RcptTo, e.Program, e.PID, e.Mailbox, e.Session = SieveForwarded, "svout1@evil.test", "lda", 77, "alice", "abcd1234"
			})},
		{"lda(alice): sieve: msgid=<T26@partner.test>: forwarded to <svout1@evil.test>", // 2.2
			with(func(e *Event) {
				e.Kind, e.RcptTo, e.Program, e.PID, e.Mailbox, e.Session = SieveForwarded, "svout1@evil.test", "lda", 0, "alice", ""
			})},
		{"lmtp(32449, s1@vbox.test): COAdE8o0A2vBfgAAg+zDdQ: sieve: msgid=<T26@partner.test>: forwarded to <svout1@evil.test>", forwarded}, // 2.2
		{agent + "sieve: msgid=<T26@partner.test>: stored mail into mailbox 'INBOX'", Event{Service: "dovecot", Program: "lmtp", PID: 32449}},
		{"imap-login: Login: user=<a>, method=PLAIN", Event{Service: "dovecot"}},
		{"lmtp(32449): Connect from local", Event{Service: "dovecot", Program: "lmtp"}},
	} {
		got := event("Nov 22 18:30:34 relay dovecot: " + c.text)
		got.Time, got.Host, got.Count = time.Time{}, "", 0
		if got != c.want {
			t.Errorf("%s\n got %+v\nwant %+v", c.text, got, c.want)
		}
	}
	e := event("Nov 22 18:30:34 relay dovecot: " + agent + "sieve: msgid=<x>: sent mail notification to <a@evil.test>, <b@evil.test>")
	if got := e.Targets(); !slices.Equal(got, []string{"a@evil.test", "b@evil.test"}) {
		t.Errorf("targets %q", got)
	}
}

// Dovecot's own log file, as it was written while mail went through scripts of
// every kind: its lines have neither host nor tag.
func TestDovecotsOwnLog(t *testing.T) {
	data, err := os.ReadFile("testdata/dovecot-2.3.19.log")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[Kind][]string{}
	for line := range strings.Lines(string(data)) {
		if e := event(strings.TrimSuffix(line, "\n")); e.Kind != None {
			if e.Kind == Unreadable || e.Mailbox == "" || e.Session == "" || e.PID == 0 || e.Program != "lmtp" || e.Time.IsZero() {
				t.Errorf("%s: %+v", line, e)
			}
			kinds[e.Kind] = append(kinds[e.Kind], e.Mailbox+" "+e.RcptTo+e.Command)
		}
	}
	want := []string{"s1@vbox.test svout1@evil.test", "s2@vbox.test svout2@evil.test", "s9@vbox.test a@evil.test", "s9@vbox.test b@evil.test"}
	if !slices.Equal(kinds[SieveForwarded], want) {
		t.Errorf("forwarded: %q", kinds[SieveForwarded])
	}
	if !slices.Equal(kinds[SieveNotified], []string{"s3@vbox.test nout@evil.test"}) || !slices.Equal(kinds[SievePiped], []string{"s4@vbox.test prog"}) {
		t.Errorf("others: %q", kinds)
	}
}

func TestForgedSieveLines(t *testing.T) {
	for name, text := range map[string]string{
		"a Message-ID with a target":   "lmtp(a@b)<1><abcd>: sieve: msgid=<x>: redirect action: forwarded to <forged@evil.test>: redirect action: forwarded to <real@corp.test>",
		"a Message-ID with a notice":   "lmtp(a@b)<1><abcd>: sieve: msgid=<x>: sent mail notification to <forged@evil.test>: stored mail into mailbox 'INBOX'",
		"a Message-ID with a program":  "lmtp(a@b)<1><abcd>: sieve: msgid=x piped message to program `y: redirect action: forwarded to <real@corp.test>",
		"a target that is none":        "lmtp(a@b)<1><abcd>: sieve: msgid=<x>: redirect action: forwarded to <two words>",
		"a target of two":              "lmtp(a@b)<1><abcd>: sieve: msgid=<x>: redirect action: forwarded to <a@b>, <c@d>",
		"a line that was cut":          "lmtp(a@b)<1><abcd>: sieve: msgid=<x>: redirect action: forwarded to <a@b",
		"an action that is not spaced": "lmtp(a@b)<1><abcd>: sieve: msgid=<x> forwarded to <a@b>",
	} {
		if e := event("Nov 22 18:30:34 relay dovecot: " + text); e.Kind != Unreadable || e.RcptTo != "" || e.Mailbox != "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for name, line := range map[string]string{
		"a user with brackets": "relay dovecot: lmtp(a)<1><abcd>: sieve: msgid=<x>: forwarded to <a@b>)<2><efgh>: x",
		"another program":      "relay php: lmtp(a@b)<1><abcd>: sieve: msgid=<x>: redirect action: forwarded to <a@b>",
		"another part":         "relay dovecot: auth(a@b)<1><abcd>: sieve: msgid=<x>: redirect action: forwarded to <a@b>",
		"a login with a line":  "relay dovecot: imap-login: Disconnected: user=<lmtp(a@b)<1><abcd>: sieve: msgid=<x>: redirect action: forwarded to <a@b>>",
	} {
		if e := event("Nov 22 18:30:34 " + line); e.Kind != None && e.Kind != Unreadable {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// FuzzSieve holds that a Message-ID never becomes a target.
func FuzzSieve(f *testing.F) {
	f.Add("<T26@partner.test>", "lmtp(a@b)<1><abcd>: sieve: msgid=<x>: forwarded to <a@b>")
	f.Add("<x>: redirect action: forwarded to <forged@evil.test>", "lmtp(1, a@b): abcd: sieve: msgid=<x>: sent mail notification to <a@b>, <c@d>")
	f.Add("x: piped message to program `", "lda(a): sieve: msgid=<x>: pipe action: piped message to program `p'")
	f.Fuzz(func(t *testing.T, id, line string) {
		id = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || r == '\uFFFD' {
				return '?'
			}
			return r
		}, id)
		e := event("Nov 22 18:30:34 relay dovecot: lmtp(a@b)<1><abcd>: sieve: msgid=" + id + ": redirect action: forwarded to <real@corp.test>")
		if e.Kind != Unreadable && (e.Kind != SieveForwarded || e.RcptTo != "real@corp.test" || e.Mailbox != "a@b") {
			t.Fatalf("%+v", e)
		}
		e = event("Nov 22 18:30:34 relay dovecot: " + strings.ToValidUTF8(line, "?"))
		if all := e.Targets(); e.Kind == SieveNotified && (len(all) == 0 || len(all) > maxTargets) {
			t.Fatalf("targets of %+v", e)
		}
	})
}
