package wrapper

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestHeaderIsReadAndNoMoreIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		text, header string
		with         string // the whole message with the field
	}{
		"plain":             {"To: a\nSubject: b\n\nbody\n", "To: a\nSubject: b\n", "X: y\nTo: a\nSubject: b\n\nbody\n"},
		"CRLF":              {"To: a\r\nSubject: b\r\n\r\nbody\r\n", "To: a\r\nSubject: b\r\n", "X: y\r\nTo: a\r\nSubject: b\r\n\r\nbody\r\n"},
		"folded":            {"To: a,\n b\n\tc\n\n d", "To: a,\n b\n\tc\n", "X: y\nTo: a,\n b\n\tc\n\n d"},
		"header alone":      {"To: a\nSubject: b", "To: a\nSubject: b", "X: y\nTo: a\nSubject: b"},
		"no blank line":     {"To: a\nhello\n: x\n", "To: a\n", "X: y\nTo: a\nhello\n: x\n"},
		"body alone":        {"hello\nworld: x\n", "", "X: y\nhello\nworld: x\n"},
		"blank line first":  {"\nbody\n", "", "X: y\n\nbody\n"},
		"nothing":           {"", "", "X: y\n"},
		"one dot":           {"To: a\n.\nmore\n", "To: a\n", "X: y\nTo: a\n.\nmore\n"},
		"8 bit and NUL":     {"Subject: \xff\x00\xe9\n\n\x00\xff", "Subject: \xff\x00\xe9\n", "X: y\nSubject: \xff\x00\xe9\n\n\x00\xff"},
		"blank before":      {"To : a\n\nb", "To : a\n", "X: y\nTo : a\n\nb"},
		"mbox":              {"From root Mon Mar 2 09:00:00 2026\nTo: a\n\nb\n", "To: a\n", "From root Mon Mar 2 09:00:00 2026\nX: y\nTo: a\n\nb\n"},
		"mbox alone":        {"From root", "", "From root"},
		"quoted mbox":       {">From root Mon Mar 2 09:00:00 2026\nTo: a\n\nb\n", "", ">From root Mon Mar 2 09:00:00 2026\nTo: a\n\nb\n"},
		"two mbox":          {"From a\nFrom b\nTo: a\n\nb\n", "", "From a\nFrom b\nTo: a\n\nb\n"},
		"begins with blank": {" To: a\nSubject: b\n\nb\n", "", " To: a\nSubject: b\n\nb\n"},
		"the same name":     {"X: forged\nTo: a\n\n", "X: forged\nTo: a\n", "X: y\nX: forged\nTo: a\n\n"},
	} {
		for how, r := range map[string]io.Reader{
			"at once":       strings.NewReader(c.text),
			"octet a time":  iotest.OneByteReader(strings.NewReader(c.text)),
			"end with data": iotest.DataErrReader(strings.NewReader(c.text)),
		} {
			h, err := readHead(r)
			if err != nil || string(h.header()) != c.header || h.cut {
				t.Errorf("%s, %s: got header %q, %v, want %q", name, how, h.header(), err, c.header)
				continue
			}
			before, after := h.with("X", "y")
			rest, _ := io.ReadAll(r)
			if got := string(before) + string(after) + string(rest); got != c.with {
				t.Errorf("%s, %s: got %q, want %q", name, how, got, c.with)
			}
		}
	}
}

// Somebody types a message: the daemon is asked when the header is there.
func TestTypedHeaderIsReadLineByLine(t *testing.T) {
	r, w := io.Pipe()
	go func() {
		for line := range strings.Lines("To: a\nSubject: b\n\n") {
			w.Write([]byte(line))
		}
	}()
	if h, err := readHead(r); err != nil || string(h.header()) != "To: a\nSubject: b\n" {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestLongHeaderIsCutForTheDaemonAlone(t *testing.T) {
	text := strings.Repeat("X-Long: "+strings.Repeat("a", 992)+"\n", 300) + "\nbody"
	r := strings.NewReader(text)
	h, err := readHead(r)
	if err != nil || !h.cut || len(h.text) != maxHead || len(h.header()) > maxHead || len(h.header()) < maxHead-1001 {
		t.Fatalf("got %d octets, header %d, %v", len(h.text), len(h.header()), err)
	}
	before, after := h.with("X", "y")
	rest, _ := io.ReadAll(r)
	if string(before)+string(after)+string(rest) != "X: y\n"+text {
		t.Error("something of the message is lost")
	}
}

// Whatever a message is, it goes through whole, with at most one line more.
func FuzzHead(f *testing.F) {
	for _, seed := range []string{"", "To: a\n\nb", "From x\nTo: a\r\n\r\nb", " a\n", ">From x\n", "a\n\n", "To: a", "\x00:\n", "From x", ".\n", "a:\n b\n\tc\n.\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := iotest.HalfReader(bytes.NewReader(text))
		h, err := readHead(r)
		if err != nil {
			t.Fatal(err)
		}
		before, after := h.with("X", "y")
		rest, _ := io.ReadAll(r)
		got := string(before) + string(after) + string(rest)
		if got != string(text) && strings.Replace(got, "X: y\n", "", 1) != string(text) && strings.Replace(got, "X: y\r\n", "", 1) != string(text) {
			t.Fatalf("got %q of %q", got, text)
		}
	})
}
