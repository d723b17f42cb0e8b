package postfix

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/mta"
)

// record writes one as Postfix does.
func record(kind byte, value string) string {
	out := []byte{kind}
	for n := len(value); ; n >>= 7 {
		if n < 0x80 {
			return string(append(out, byte(n))) + value
		}
		out = append(out, byte(n)|0x80)
	}
}

func TestEnvelopeOfQueueFiles(t *testing.T) {
	head := record('C', "            288             600               1               0             288               0") + record('T', "1795336393 123456") + record('A', "log_ident=1") + record('w', "0")
	rest := record('o', "r@b") + record('R', "r@b") + record('D', "done@b") + record('M', "") + record('N', "content") + record('R', "later")
	pointed := head + record('p', fmt.Sprintf("%15d", len(head)+17+len(rest))) + rest + record('S', "other@b") + record('p', fmt.Sprintf("%15d", len(head)+17))
	for name, c := range map[string]struct{ text, want string }{
		"plain":        {head + record('S', "a@b") + rest, "1795336393 123456 a@b 288 600 [r@b]"},
		"null sender":  {head + record('S', "") + rest, "1795336393 123456  288 600 [r@b]"},
		"a NUL ends":   {head + record('S', "a@b\x00c") + rest, "1795336393 123456 a@b 288 600 [r@b]"},
		"two senders":  {head + record('S', "a@b") + record('S', "c@d") + rest, "1795336393 123456 a@b 288 600 [r@b]"},
		"by a pointer": {pointed, "1795336393 123456 other@b 288 600 [r@b]"},
		"no arrival":   {record('S', "a@b") + rest, "-62135596800  a@b -1 -1 [r@b]"},
		"no sender":    {head + rest, ""},
		"cut":          {head + "S\x10a@b", ""},
		"cut length":   {head + "S\xff", ""},
		"huge":         {head + "S\xff\xff\xff\x7f", ""},
		"endless":      {head + "S\xff\xff\xff\xff\xff\xff\xff", ""},
		"a loop":       {head + record('p', "0000000000000001") + record('p', fmt.Sprintf("%15d", len(head))), ""},
		"to nowhere":   {head + record('p', "99999999999") + record('S', "a@b"), ""},
		"before it":    {head + record('p', "-5") + record('S', "a@b"), ""},
		"text":         {"From: a@b\n\nhello\n", ""},
		"empty":        {"", ""},
		"padding only": {strings.Repeat(record('w', "0"), maxRecords), ""},
	} {
		e, err := readEnvelope(strings.NewReader(c.text), true)
		got := fmt.Sprintf("%d %s %s %d %d %v", e.arrival.Unix(), e.micros, e.sender, e.size, e.offset, e.recipients)
		if (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestSendersAsPostqueuePrintsThem(t *testing.T) {
	i := &Instance{main: map[string]string{"empty_address_recipient": "NOBODY"}}
	for raw, want := range map[string]string{
		"":                 `[""]`,
		"NOBODY":           `[""]`,
		"MAILER-DAEMON":    `[""]`,
		"a@b":              `["a@b"]`,
		"a b@c":            `["\"a b\"@c"]`,
		`a"\b@c`:           `["\"a\\\"\\\\b\"@c"]`,
		"a@b@c":            `["\"a@b\"@c"]`,
		".a@c":             `["\".a\"@c"]`,
		"a..b@c":           `["\"a..b\"@c"]`,
		"a.@c":             `["\"a.\"@c"]`,
		"@c":               `["\"\"@c"]`,
		"@route:a b@c":     `["@route:\"a b\"@c"]`,
		"a\tb@c":           `["\"a?b\"@c" "\"a?b\"@c" "\"a?b\"@c"]`,
		"é@c":              `["é@c" "??@c" "é@c"]`,
		"\xff\xe3@c":       `["??@c" "??@c" "??@c"]`,
		"\xc3\xa9\xa9x@c":  `["é?x@c" "???x@c" "é�x@c"]`,
		"local":            `["local"]`,
		"a\x7fb@c":         `["\"a?b\"@c" "\"a?b\"@c" "\"a?b\"@c"]`,
		"\xed\xa0\x80@x":   `["???@x" "???@x" "���@x"]`,
		"\xf4\x90\x80\x80": `["????" "????" "����"]`,
	} {
		if got := fmt.Sprintf("%q", i.senders(raw)); got != want {
			t.Errorf("%q: got %s, want %s", raw, got, want)
		}
	}
}

func FuzzReadEnvelope(f *testing.F) {
	files, err := filepath.Glob("testdata/queuefile/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds in testdata/queuefile")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(record('p', "              0") + record('S', "") + record('M', "")))
	f.Add([]byte(record('p', "              0") + record('p', "              1")))
	i := &Instance{main: map[string]string{}}
	f.Fuzz(func(t *testing.T, text []byte) {
		short, shortErr := readEnvelope(bytes.NewReader(text), false)
		all, err := readEnvelope(bytes.NewReader(text), true)
		if err == nil && (shortErr != nil || all.sender != short.sender) {
			t.Fatalf("got %+v, %v, and with all %+v", short, shortErr, all)
		}
		if len(all.recipients) > maxRecipients || len(short.recipients) > 0 {
			t.Fatal("too many recipients")
		}
		for _, s := range i.senders(short.sender) {
			for n := range len(s) {
				if s[n] < ' ' || s[n] == 0x7f {
					t.Fatalf("%q is printed as %q", short.sender, s)
				}
			}
		}
	})
}

// What postqueue prints of a sender and what the file says must agree, however
// strange it is: an exact target is compared with it.
func TestStrangeSendersAreFoundInTheirFiles(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	held := q.send(true, "plain@example.org", "r@example.jp")[0]
	text, err := os.ReadFile(filepath.Join(q.QueueDir, "hold", held.ID))
	if err != nil {
		t.Fatal(err)
	}
	senders := []string{"", "a b@c", "a@b@c", `a"\b@c`, "\ta@c", "a\x01\x1b[2J\n@c", "é@c", "\xff\xe3@c", "\xc3\xa9\xa9x@c", "\xed\xa0\x80@c", "\xc3@c", "a\xc3\xa9", "@route:a b@c", "@c", `"@c`, "\xc0\xaf@c", "𝒳@c", strings.Repeat("x", 3000) + "@c"}
	for n, sender := range senders {
		changed := bytes.Replace(text, []byte(record('S', "plain@example.org")), []byte(record('S', sender)), 1)
		q.put(fmt.Sprintf("0000%d%s", n, held.ID), bytes.NewReader(changed))
	}
	seen := q.queue()
	if len(seen) != len(senders)+1 {
		t.Fatalf("%d messages listed", len(seen))
	}
	var targets []mta.Target
	for _, f := range seen {
		targets = append(targets, f.Target())
	}
	results, err := q.i.DeleteMail(q.ctx, targets, nil)
	q.fates("delete", results, err, slices.Repeat([]mta.Fate{mta.Done}, len(targets))...)
}
