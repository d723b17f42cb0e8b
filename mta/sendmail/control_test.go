package sendmail_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"relayguard/mta"
	"relayguard/mta/sendmail"
)

func TestParseControl(t *testing.T) {
	c, err := sendmail.ParseControl([]byte(`V8
T1795396105
K1795396200
N3
P30318
dq2
I254/0/10002433
B8BITMIME
qrelayguard: why
MDeferred: the message
Frw
$_localhost [127.0.0.1]
S<"a b"@example.jp>
Zenvelope
A<>
Cuser;100:100:x
M451 4.2.0 the first
Qrfc822;one@example.net
rRFC822; one@example.net
RPFD:<one@example.net>
RPFDA:"|/usr/bin/procmail"
RPFD:<>
M451 the last
R:bare@example.net
H?P?Return-Path: <` + "\x81" + `g>
H??Received: from client
	by relay
H??Precedence: Junk
.
`))
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string][2]any{
		"created":    {c.Created, time.Unix(1795396105, 0).UTC()},
		"last try":   {c.LastTry, time.Unix(1795396200, 0).UTC()},
		"tries":      {c.Tries, 3},
		"sender":     {c.Sender, `"a b"@example.jp`},
		"recipients": {c.Recipients, []string{"one@example.net", `"|/usr/bin/procmail"`, "", "bare@example.net"}},
		"reason":     {c.Reason, "relayguard: why"},
		"status":     {c.Status, "451 4.2.0 the first"},
		"directory":  {c.DataDir, "q2"},
		"flags":      {c.Flags, "rw"},
		"complete":   {c.Complete && c.Quarantined, true},
		"header":     {c.HeaderSize, int64(len("Return-Path: <xg>\nReceived: from client\n\tby relay\nPrecedence: Junk\n"))},
	} {
		if fmt.Sprint(got[0]) != fmt.Sprint(got[1]) {
			t.Errorf("%s: got %v, want %v", what, got[0], got[1])
		}
	}
}

func TestControlFilesThatAreNone(t *testing.T) {
	for what, change := range map[string][2]string{
		"version":       {"V8", "V9"},
		"no version":    {"V8", "Vx"},
		"no time":       {"T1795396105\n", ""},
		"zero time":     {"T1795396105", "T0"},
		"negative time": {"T1795396105", "T-5"},
		"late time":     {"T1795396105", "T253402300800"},
		"huge time":     {"T1795396105", "T99999999999999999999999999"},
		"text as time":  {"T1795396105", "Tnow"},
		"no sender":     {"S<sender@example.jp>\n", ""},
		"appendix":      {".\n", ".\nRPFD:<more@example.net>\n"},
	} {
		text := strings.Replace(control, change[0], change[1], 1)
		if c, err := sendmail.ParseControl([]byte(text)); err == nil || text == control {
			t.Errorf("%s passed: %+v", what, c)
		}
	}
	for n := range len(control) - 2 {
		if c, err := sendmail.ParseControl([]byte(control[:n])); err == nil && c.Complete {
			t.Errorf("complete at %d of %d octets", n, len(control))
		}
	}
	c, err := sendmail.ParseControl([]byte(strings.Replace(control, "S<sender@example.jp>", "S\"\x01\xff\xfeé\x7f\"@example.jp", 1)))
	if err != nil || c.Sender != `"????é?"@example.jp`[0:1]+`???é?"@example.jp` {
		t.Errorf("what cannot be printed: %q, %v", c.Sender, err)
	}
}

func TestValidQueueID(t *testing.T) {
	for id, want := range map[string]bool{
		"6AN18P39020437": true, "6AN18Pge1020497": true, "tBVNxx00000001": true,
		"": false, "6AN18P3902043": false, "6AN18P3902043700": false, "6AN18P3902043x": false, "6CN18P39020437": false, "6AW18P39020437": false, "6ANO8P39020437": false,
		"6AN18P39 20437": false, "6AN18P39\n20437": false, "../18P39020437": false, "-AN18P39020437": false, "6AN18P39020437*": false, "6AN18P\xc3\xa9020437": false,
	} {
		if got := sendmail.ValidQueueID(id); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
		if want && !mta.ValidQueueID(id) {
			t.Errorf("%q is none for mta", id)
		}
	}
}

func TestReason(t *testing.T) {
	for text, want := range map[string]string{
		"relayguard: 550 of <a@example.jp>": "relayguard: 550 of <a@example.jp>",
		" two\nlines\tand\r\n.":             "two lines and? .", "": "held", "\n": "held", "日本\x00": "日本?",
	} {
		if got := sendmail.Reason(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if long := sendmail.Reason(strings.Repeat("日", 1000)); len(long) > 500 || len(long) < 490 || !utf8.ValidString(long) {
		t.Errorf("%d octets: %q", len(long), long)
	}
}

// Whatever a control file has, holding it adds one line and nothing that could be
// another, and releasing it takes that away.
func FuzzControl(f *testing.F) {
	f.Add([]byte(control), "why")
	for _, seed := range []string{"", ".", "\n", "V8\n", "V8\nT1\nS\n.\n", "V8\nT1\nS<>\n", "V8\nT1\nS<>\n.", "V8\nT1\nqx\nS<>\n.\n", "T1\nSa\nRb\n.\n", "V8\nT1\nF\nFw\nS<>\nR:\nR\nH\nH?\nH??\nH?x\n.\n",
		"V8\nT1\nS<a\n b>\n\tq\n.\n", "V8\nT1\nS<>\nqlate\n.\n", "V8\r\nT1\r\nS<>\r\n.\r\n", "V8\nT1\nd../../etc\nS<>\n.\n", "V8\nT1\nS<>\nS<x>\n.\n"} {
		f.Add([]byte(seed), "a\nb")
	}
	f.Fuzz(func(t *testing.T, data []byte, reason string) {
		c, err := sendmail.ParseControl(data)
		if err != nil {
			return
		}
		for _, s := range append(c.Recipients, c.Sender, c.Reason, c.Status) {
			if strings.ContainsAny(s, "\n\r\x00\x1b") || !utf8.ValidString(s) {
				t.Errorf("%q cannot be printed", s)
			}
		}
		if !c.Complete || c.DataDir != "" {
			return
		}
		i, queue := tree(t)
		write(t, filepath.Join(queue, "df"+idA), nil)
		write(t, filepath.Join(queue, "qf"+idA), data)
		at := mta.Target{ID: idA, Sender: c.Sender, Arrival: c.Created, Exact: true}
		if !c.Quarantined {
			results, err := i.HoldMail(t.Context(), []mta.Target{at}, reason)
			all(t, "hold", mta.Done, results, err)
			held, err := sendmail.ParseControl(readFile(t, filepath.Join(queue, "hf"+idA)))
			if err != nil || !held.Quarantined || !held.Complete || held.Sender != c.Sender || fmt.Sprint(held.Recipients) != fmt.Sprint(c.Recipients) || held.HeaderSize != c.HeaderSize {
				t.Errorf("held: %+v, %v", held, err)
			}
		}
		results, err := i.ReleaseMail(t.Context(), []mta.Target{at}, mta.Release{Margin: -1})
		all(t, "release", mta.Done, results, err)
		released := readFile(t, filepath.Join(queue, "qf"+idA))
		if !c.Quarantined && bytes.Contains(data, []byte("S")) && !bytes.Equal(released, data) {
			t.Errorf("released as %q, was %q", released, data)
		}
		if left, err := os.ReadDir(queue); err != nil || len(left) != 2 {
			t.Errorf("files: %v, %v", left, err)
		}
	})
}
