package blocklists_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/cmd/internal/blocklists"
	"relayguard/rbl"
)

var names = []string{"mail.example.jp", "web1.example.jp"}

// Each case is a message as somebody received it; its first lines, "X-Want: ADDR by
// HOST", say what is to be found. Without one it is nothing.
func TestReceivedReadsEveryForm(t *testing.T) {
	files, err := filepath.Glob("testdata/received/*.eml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases in testdata/received")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(text)) {
				if w, is := strings.CutPrefix(line, "X-Want: "); is {
					want = append(want, strings.TrimSpace(w))
				}
			}
			for _, form := range []string{string(text), strings.ReplaceAll(string(text), "\n", "\r\n")} {
				got, err := blocklists.Received(strings.NewReader(form), names, nil)
				var all []string
				for _, s := range got {
					all = append(all, s.Addr.String()+" by "+s.By)
					if s.QueueID == "" || !slices.Contains(names, s.Helo) {
						t.Errorf("got %+v", s)
					}
				}
				if err != nil || !slices.Equal(all, want) {
					t.Errorf("got %q, %v, want %q", all, err, want)
				}
			}
		})
	}
}

const message = "Received: from mail.example.jp (x [203.0.113.5]) by mx.example.net (Postfix) with ESMTP id 1; now\r\n" +
	"Received: by mail.example.jp (Postfix, from userid 33) id 4ABC; now\r\nMessage-ID: <1@example.jp>\r\n\r\n"

func TestReceivedAsksWhetherItIsOurs(t *testing.T) {
	for _, ours := range []bool{true, false} {
		got, err := blocklists.Received(strings.NewReader(message), names, func(id, messageID string) bool {
			if id != "4ABC" || messageID != "<1@example.jp>" {
				t.Errorf("asked about %q, %q", id, messageID)
			}
			return ours
		})
		if err != nil || (len(got) == 1) != ours {
			t.Errorf("ours %v: got %+v, %v", ours, got, err)
		}
	}
	if got, err := blocklists.Received(strings.NewReader(message), nil, nil); err != nil || len(got) != 0 {
		t.Errorf("without names: got %+v, %v", got, err)
	}
}

// Read is an outsider's: it may be without end, or break off.
func TestReceivedIsBounded(t *testing.T) {
	long := strings.Repeat("Received: from a (b [192.0.2.1]) by c id 1;\n", 100_000) + message
	if got, err := blocklists.Received(strings.NewReader(long), names, nil); err != nil || len(got) != 0 {
		t.Errorf("got %d, %v", len(got), err)
	}
	folded := "Received: from mail.example.jp\n" + strings.Repeat(" (((((((", 100_000)
	if got, err := blocklists.Received(strings.NewReader(folded), names, nil); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	broken := errors.New("gone")
	if _, err := blocklists.Received(failing{broken}, names, nil); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type oneName struct{ response rbl.Response }

func (oneName) Name() string { return "test" }

func (o oneName) Ask(_ context.Context, name string, t rbl.Type) rbl.Response {
	if name != "mail.example.jp" || t != rbl.TypeA {
		return rbl.Response{Outcome: rbl.NoName}
	}
	return o.response
}

func TestConfirmedByTheNameAlone(t *testing.T) {
	addr := netip.MustParseAddr("203.0.113.5")
	known := oneName{rbl.Response{Outcome: rbl.Answered, Addrs: []netip.Addr{addr}}}
	if ok, err := blocklists.Confirmed(t.Context(), known, addr, "mail.example.jp"); !ok || err != nil {
		t.Errorf("got %v, %v", ok, err)
	}
	for _, name := range []string{"other.example.jp", ""} {
		if ok, err := blocklists.Confirmed(t.Context(), known, addr, name); ok || err != nil {
			t.Errorf("%q: got %v, %v", name, ok, err)
		}
	}
	if ok, err := blocklists.Confirmed(t.Context(), oneName{rbl.Response{Outcome: rbl.ServFail}}, addr, "mail.example.jp"); ok || err == nil {
		t.Errorf("SERVFAIL: got %v, %v", ok, err)
	}
}

func FuzzReceived(f *testing.F) {
	files, err := filepath.Glob("testdata/received/*.eml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds in testdata/received")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := blocklists.Received(strings.NewReader(text), names, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got {
			if !s.Addr.IsGlobalUnicast() || s.Addr.IsPrivate() || s.Addr.Is4In6() || s.Addr.Zone() != "" || slices.Contains(names, s.By) {
				t.Errorf("got %+v", s)
			}
			if strings.Trim(s.By+s.Helo+s.QueueID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") != "" {
				t.Errorf("got %+q", s)
			}
		}
	})
}
