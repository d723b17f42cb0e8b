package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-message/mail"
)

// maxLetter bounds a letter, in octets: Gmail cuts one off at 102 kB.
const maxLetter = 100_000

// Subject says the verdict in one line: for a letter, or a list of reports.
func Subject(r *Report, lang string) string {
	d, err := compose(r, lang, page)
	if err != nil {
		return clean(r.Host, maxHost)
	}
	return d.Title
}

// Letter is the report as mail, text and HTML, with CRLF, of at most 100,000 octets:
// what does not fit is left out and said to be. from and to are addresses as in a
// header; messageID comes with or without its angle brackets. Nothing of it is 8-bit.
func Letter(r *Report, lang, from string, to []string, messageID string) ([]byte, error) {
	var h mail.Header
	sender, err := mail.ParseAddress(from)
	if err != nil {
		return nil, fmt.Errorf("write the report's letter: sender %q: %w", from, err)
	}
	h.SetAddressList("From", []*mail.Address{sender})
	var all []*mail.Address
	for _, s := range to {
		a, err := mail.ParseAddress(s)
		if err != nil {
			return nil, fmt.Errorf("write the report's letter: recipient %q: %w", s, err)
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("write the report's letter: want at least one recipient")
	}
	h.SetAddressList("To", all)
	id := strings.TrimSuffix(strings.TrimPrefix(messageID, "<"), ">")
	if local, domain, found := strings.Cut(id, "@"); !found || local == "" || domain == "" || strings.Trim(id, idCharacters) != "" || strings.Contains(domain, "@") {
		return nil, fmt.Errorf("write the report's letter: Message-ID %q: want unique@host of letters, digits and %q", messageID, "-_.+=")
	}
	h.SetMessageID(id)
	h.SetDate(r.Made)
	h.Set("Auto-Submitted", "auto-generated") // RFC 3834: nobody's vacation answers it
	h.Set("Content-Language", lang)
	for _, most := range smaller() {
		letter, err := write(h, r, lang, most)
		if err != nil {
			return nil, fmt.Errorf("write the report's letter: %w", err)
		}
		if len(letter) <= maxLetter {
			return letter, nil
		}
	}
	return nil, fmt.Errorf("write the report's letter: it is larger than %d octets however much is left out", maxLetter)
}

const idCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+=@"

func write(h mail.Header, r *Report, lang string, most cuts) ([]byte, error) {
	d, err := compose(r, lang, most)
	if err != nil {
		return nil, err
	}
	html, err := d.html()
	if err != nil {
		return nil, err
	}
	h.SetSubject(d.Title)
	var b bytes.Buffer
	w, err := mail.CreateInlineWriter(&b, h)
	if err != nil {
		return nil, err
	}
	for _, part := range []struct {
		kind string
		text []byte
	}{{"text/plain", []byte(d.text())}, {"text/html", html}} {
		var ph mail.InlineHeader
		ph.SetContentType(part.kind, map[string]string{"charset": "utf-8"})
		ph.Set("Content-Transfer-Encoding", encoding(part.text))
		pw, err := w.CreatePart(ph)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(pw, strings.ReplaceAll(string(part.text), "\n", "\r\n")); err != nil {
			return nil, err
		}
		if err := pw.Close(); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// encoding is the one that makes a text smaller; both pass every server unchanged,
// and so do signatures on them.
func encoding(text []byte) string {
	odd := 0
	for _, c := range text {
		if c >= 0x80 || c == '=' {
			odd++
		}
	}
	if odd*6 > len(text) {
		return "base64"
	}
	return "quoted-printable"
}
