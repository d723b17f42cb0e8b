package report_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message/mail"

	"relayguard/cmd/internal/report"
	"relayguard/rbl"
)

func letter(t *testing.T, r *report.Report, lang string) []byte {
	t.Helper()
	b, err := report.Letter(r, lang, "relayguard <guard@mail1.example.jp>", []string{"root@example.jp", "管理者 <admin@example.jp>"}, "<r20260301@mail1.example.jp>")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// read takes a letter apart: its header and its parts by type.
func read(t *testing.T, b []byte) (mail.Header, map[string]string) {
	t.Helper()
	r, err := mail.CreateReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			return r.Header, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		parts[kind] = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
}

func TestALetterIsTextAndHTMLOfTheReport(t *testing.T) {
	for name, r := range cases() {
		for _, lang := range report.Languages {
			b := letter(t, r, lang)
			h, parts := read(t, b)
			text, page := both(t, r, lang)
			if len(parts) != 2 || name != "hostile" && (parts["text/plain"] != text || parts["text/html"] != page) {
				t.Errorf("%s.%s: the parts are not the report", name, lang)
			}
			if s, err := h.Subject(); err != nil || s != report.Subject(r, lang) {
				t.Errorf("%s.%s: subject %q, %v", name, lang, s, err)
			}
			if d, err := h.Date(); err != nil || !d.Equal(r.Made) {
				t.Errorf("%s.%s: date %v, %v", name, lang, d, err)
			}
			if id, err := h.MessageID(); err != nil || id != "r20260301@mail1.example.jp" {
				t.Errorf("%s.%s: Message-ID %q, %v", name, lang, id, err)
			}
			if to, err := h.AddressList("To"); err != nil || len(to) != 2 || to[1].Address != "admin@example.jp" {
				t.Errorf("%s.%s: to %v, %v", name, lang, to, err)
			}
			kind, _, err := h.ContentType()
			if err != nil || kind != "multipart/alternative" || h.Get("Auto-Submitted") != "auto-generated" || h.Get("Mime-Version") != "1.0" || h.Has("In-Reply-To") || h.Has("Bcc") {
				t.Errorf("%s.%s: %s, %v, or another field is wrong", name, lang, kind, err)
			}
			for i, c := range b {
				if c >= 0x80 || c == '\n' && (i == 0 || b[i-1] != '\r') || c == '\r' && b[i+1] != '\n' {
					t.Errorf("%s.%s: octet %d is %#x: want 7-bit and CRLF", name, lang, i, c)
					break
				}
			}
			for line := range bytes.Lines(b) {
				if len(line) > 1000 {
					t.Errorf("%s.%s: a line of %d octets", name, lang, len(line))
				}
			}
		}
	}
}

// much has more of everything than anybody reads.
func much() *report.Report {
	r := listed()
	const many = 400
	name := func(i int) string {
		return fmt.Sprintf("%d-%s@例え.example", i, strings.Repeat("長い名前<&>", 60))
	}
	l, a, z, s, f := r.Listings[0], r.Addresses[0], r.Zones.Trouble[0], r.Sender[3], r.Forwards.New[0]
	a.Days = nil
	for i := range 365 {
		a.Days = append(a.Days, report.DayState{Day: today.AddDate(0, 0, i-364), State: []string{"listed", "unknown", "clean"}[i%3]})
	}
	for i := range 50 {
		x := l.Suspects[0]
		x.Name, x.Command = name(i), "relayguard suspend '"+strings.Repeat("x&'<", 100)+"'"
		l.Suspects = append(l.Suspects, x)
	}
	for i := range many {
		l.Subject, l.Zone, l.Operator, l.Means, l.Waits, l.Reasons = name(i), name(i), name(i), name(i), name(i), []string{name(1), name(2), name(3)}
		l.Unasked, l.Confirmed, l.Scope = at(1, 1, 0), true, rbl.ScopeAddress
		l.Removal.URL, l.Removal.How = "https://list.example/"+strings.Repeat("y", 400), []string{"form", "email", "isp", "expires", "register", "fix"}
		r.Listings, r.Ended = append(r.Listings, l), append(r.Ended, l)
		a.Subject, a.How = name(i), name(i)
		r.Addresses = append(r.Addresses, a)
		z.Zone, z.Why = name(i), name(i)
		r.Zones.Trouble = append(r.Zones.Trouble, z)
		s.Subject, s.Found, s.Wanted = name(i), name(i), name(i)
		r.Sender = append(r.Sender, s)
		f.Owner, f.Target = name(i), name(i)
		r.Forwards.New = append(r.Forwards.New, f)
		r.Changes = append(r.Changes, report.Change{Level: report.Act, Kind: report.ChangeListed, What: name(i), By: name(i), Text: name(i), At: at(1, 1, 0)})
		r.Steps = append(r.Steps, report.Step{Kind: report.StepSuspend, What: name(i), Text: name(i), Command: "relayguard suspend '" + strings.Repeat("x&'<", 100) + "'", URL: l.Removal.URL})
		r.Missing = append(r.Missing, report.Missing{Section: name(i), Why: name(i)})
		r.Neighbours.Ranges = append(r.Neighbours.Ranges, report.Neighbour{Zone: name(i), Asked: 256, Listed: 3, Before: -1, Unknown: 1})
		r.Senders = append(r.Senders, report.Sender{Kind: "site", Name: name(i), Recipients: 1 << 60, Usual: -1})
		r.Plugins = append(r.Plugins, r.Senders[len(r.Senders)-1])
		r.Held.By = append(r.Held.By, report.HeldBy{Account: name(i), Rule: name(i), Messages: 1, Oldest: at(1, 1, 0)})
		r.Incidents = append(r.Incidents, report.Incident{ID: name(i), Origin: name(i), Cause: name(i), Opened: at(1, 1, 0)})
		r.Suspended = append(r.Suspended, report.Suspended{Name: name(i), By: name(i), Reason: name(i)})
		r.Degraded = append(r.Degraded, report.Span{What: name(i), Why: name(i)})
		r.Gaps = append(r.Gaps, report.Span{What: name(i), Why: name(i)})
	}
	r.Mail.Days = mailDays(365, r.Mail.Total)
	return r
}

func TestALetterIsSmallHoweverMuchThereIs(t *testing.T) {
	r := much()
	for _, lang := range report.Languages {
		b := letter(t, r, lang)
		if len(b) > 100_000 {
			t.Errorf("%s: %d octets", lang, len(b))
		}
		_, parts := read(t, b)
		for _, f := range inspect([]byte(parts["text/html"])) {
			t.Errorf("%s: %s", lang, f)
		}
		for _, command := range []string{"relayguard rbl status", "relayguard rbl zones --all", "relayguard held list", "relayguard incident list", "relayguard forwards list", "relayguard origins list", "relayguard report --json"} {
			if !strings.Contains(parts["text/html"], command) || !strings.Contains(parts["text/plain"], command) {
				t.Errorf("%s: what is left out is not said to be in %q", lang, command)
			}
		}
	}
}

func TestAYearOfHistoryIsASmallPage(t *testing.T) {
	r := year()
	for range 20 {
		r.Addresses = append(r.Addresses, r.Addresses[0])
	}
	for _, lang := range report.Languages {
		if _, page := both(t, r, lang); len(page) > 64_000 {
			t.Errorf("%s: %d octets", lang, len(page))
		}
		if b := letter(t, r, lang); len(b) > 100_000 {
			t.Errorf("%s: a letter of %d octets", lang, len(b))
		}
	}
}

func TestALettersHeaderTakesNothingForeign(t *testing.T) {
	r := clean()
	r.Host = "mail1\r\nBcc: x@example.org"
	h, _ := read(t, letter(t, r, "en"))
	if s, err := h.Subject(); err != nil || h.Has("Bcc") || !strings.HasPrefix(s, `mail1\x0d\x0aBcc: x@example.org: `) {
		t.Errorf("subject %q, %v", s, err)
	}
	for _, c := range []struct {
		from string
		to   []string
		id   string
	}{
		{"guard@example.jp\r\nBcc: x@example.org", []string{"root@example.jp"}, "1@example.jp"},
		{"", []string{"root@example.jp"}, "1@example.jp"},
		{"guard@example.jp", nil, "1@example.jp"},
		{"guard@example.jp", []string{"root@example.jp", "x y"}, "1@example.jp"},
		{"guard@example.jp", []string{"root@example.jp, other@example.jp"}, "1@example.jp"},
		{"guard@example.jp", []string{"root@example.jp"}, ""},
		{"guard@example.jp", []string{"root@example.jp"}, "1"},
		{"guard@example.jp", []string{"root@example.jp"}, "1@b@c"},
		{"guard@example.jp", []string{"root@example.jp"}, "1@example.jp>\r\nBcc: <x@example.org"},
	} {
		if b, err := report.Letter(r, "en", c.from, c.to, c.id); err == nil {
			t.Errorf("%q: no error, but %.200q", c, b)
		}
	}
}

func TestALetterDoesNotDependOnTheClock(t *testing.T) {
	a := clean()
	a.Made = a.Made.Add(time.Hour)
	h, _ := read(t, letter(t, a, "en"))
	if d, err := h.Date(); err != nil || !d.Equal(a.Made) {
		t.Errorf("date %v, %v: want when it was made", d, err)
	}
}
