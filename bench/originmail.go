package main

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/text/encoding/japanese"

	"relayguard/policy/origin/stamp"
)

// www-data's account. It need not be on this machine.
const siteUID = 33

// share is a kind of mail that a web site sends, at 4 kB of header and body.
type share struct {
	name    string
	share   int    // of the mix, in hundreds
	subject string // decoded
	raw     string // as the header has it
	head    []string
	body    string // with {name}, {number}, {token}, {address}
}

//go:embed texts/english.txt
var englishText string

//go:embed texts/letter.txt
var letterText string

//go:embed texts/letter.html
var letterHTML string

//go:embed texts/japanese.txt
var japaneseText string

// shares are what is sent: a friend's recommendation in plain text, a shop's
// letter in HTML beside a few words of text, which do not do, and the recommendation in Japanese in the two charsets
// that Japan's sites use.
func shares() ([]share, error) {
	const boundary = "b1_KJhd83kdnLkwq92ndkaYhsl3ndkq8Hdk2nsk9Ajs"
	const title = "「ベランダでトマトを育てる十二の方法」のご紹介"
	jis := func(s string) (string, error) { return japanese.ISO2022JP.NewEncoder().String(s) }
	jisTitle, err := jis(title)
	if err != nil {
		return nil, fmt.Errorf("the Japanese subject as ISO-2022-JP: %w", err)
	}
	all := []share{
		{name: "english", share: 40, subject: "Recommended by Bob: Twelve ways to grow tomatoes on a balcony"},
		{name: "html", share: 30, subject: "Your order at The Garden Shop has been received"},
		{name: "utf-8", share: 20, subject: title, raw: mime.BEncoding.Encode("UTF-8", title)},
		{name: "iso-2022-jp", share: 10, subject: title, raw: "=?ISO-2022-JP?B?" + base64.StdEncoding.EncodeToString([]byte(jisTitle)) + "?="},
	}
	letter := func(html string) (string, error) {
		return "--" + boundary + "\nContent-Type: text/plain; charset=us-ascii\n\n" + letterText + "\n--" + boundary + "\nContent-Type: text/html; charset=UTF-8\nContent-Transfer-Encoding: quoted-printable\n\n" + quoted(html) + "\n\n--" + boundary + "--\n", nil
	}
	asItIs := func(s string) (string, error) { return s, nil }
	for i, how := range []struct {
		text, kind, encoding string
		encode               func(string) (string, error)
	}{
		{englishText, "text/plain; charset=UTF-8", "8bit", asItIs},
		{letterHTML, "multipart/alternative;\n boundary=\"" + boundary + "\"", "8bit", letter},
		{japaneseText, "text/plain; charset=UTF-8", "8bit", asItIs},
		{japaneseText, "text/plain; charset=ISO-2022-JP", "7bit", jis},
	} {
		s := &all[i]
		if s.raw == "" {
			s.raw = s.subject
		}
		s.head = []string{"MIME-Version", "1.0", "Content-Type", how.kind, "Content-Transfer-Encoding", how.encoding}
		m := s.mail(1)
		if s.body, err = filled(how.text, messageSize-len(m.smtp())+len(".\r\n"), how.encode); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return all, nil
}

// filled is a text with as many lines of its middle as make it nearly so long,
// encoded, its lines ending in CRLF.
func filled(text string, size int, encode func(string) (string, error)) (string, error) {
	parts := strings.Split(text, "{more}\n")
	if len(parts) != 3 {
		return "", fmt.Errorf("a text of %d parts, want 3", len(parts))
	}
	begin, end, best := parts[0], parts[2], ""
	for line := range strings.Lines(parts[1]) {
		begin += line
		encoded, err := encode(begin + end)
		if err != nil {
			return "", err
		}
		if encoded = strings.ReplaceAll(encoded, "\n", "\r\n"); len(encoded) > size {
			break
		}
		best = encoded
	}
	return best, nil
}

func quoted(s string) string {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Write([]byte(s)) // into memory, like Close
	w.Close()
	return strings.ReplaceAll(b.String(), "\r\n", "\n")
}

// mail is number i of the kind: to somebody who never had one, with a name, a
// number and a link of his own.
func (s *share) mail(i int) mail {
	m := mail{
		local:   true,
		from:    "www-data@web." + insideDomain,
		to:      fmt.Sprintf("friend%09d@%s", i, outsideDomain),
		queueID: fmt.Sprintf("4XyZ%09X", 0x100000000+i),
	}
	number := strconv.Itoa(100000 + i%900000)
	m.header = [][2]string{
		{"X-Relayguard-Uid", strconv.Itoa(siteUID)},
		{"Received", fmt.Sprintf("by web.%s (Postfix, from userid %d)\r\n\tid %s; Mon,  2 Mar 2026 08:59:03 +0000 (UTC)", insideDomain, siteUID, m.queueID)},
		{"To", m.to},
		{"Subject", s.raw},
		{"X-PHP-Originating-Script", "33:PHPMailer.php"},
		{"Date", "Mon, 2 Mar 2026 08:59:03 +0000"},
		{"From", "The Garden Shop <wordpress@shop." + insideDomain + ">"},
		{"Message-ID", fmt.Sprintf("<%sKJhd83kdnLkwq92ndkaYhsl3ndkq@shop.%s>", token(i), insideDomain)},
		{"X-Mailer", "PHPMailer 6.9.1 (https://github.com/PHPMailer/PHPMailer)"},
	}
	for j := 0; j < len(s.head); j += 2 {
		m.header = append(m.header, [2]string{s.head[j], strings.ReplaceAll(s.head[j+1], "\n", "\r\n")})
	}
	m.body = strings.NewReplacer("{name}", firstNames[i%len(firstNames)], "{number}", number, "{token}", token(i), "{address}", m.to).Replace(s.body)
	return m
}

var firstNames = [...]string{"Taro", "Jiro", "Emi", "Yuki", "Ken", "Mika", "Aoi", "Rin"}

// token is an id of 13 characters.
func token(i int) string { return fmt.Sprintf("%013x", uint64(i)*0x9e3779b97f4a7c15>>12) }

// newSite is the site that signs.
func newSite() stamp.Site {
	return stamp.Site{Name: "shop." + insideDomain, UID: siteUID, KeyID: "0a1b2c3d", Key: bytes.Repeat([]byte("k1"), stamp.KeySize/2), Root: "/var/www/shop"}
}

// stamped gives number i of a kind the stamp of its site.
func (s *share) stamped(now time.Time, site *stamp.Site, i int) mail {
	m := s.mail(i)
	var nonce [12]byte
	binary.BigEndian.PutUint64(nonce[4:], uint64(i))
	said := stamp.Stamp{Plugin: "share-by-mail", Entry: "ajax", Script: "wp-content/plugins/share-by-mail/send.php:117"}
	m.header = append(m.header, [2]string{stamp.Header, stamp.Make(now, site, &said, []string{m.to}, s.subject, base64.RawURLEncoding.EncodeToString(nonce[:]))})
	return m
}

// stream is mail without end, of which no two are alike. It is for several loads.
type stream struct {
	kinds []share // in a hundred, as many as each has of the mix
	site  *stamp.Site
	next  *atomic.Int64
}

// newStream mixes kinds. With a site all is stamped.
func newStream(next *atomic.Int64, site *stamp.Site, kinds ...share) *stream {
	s := &stream{site: site, next: next}
	for n, total := range kinds {
		for range total.share {
			s.kinds = append(s.kinds, kinds[n])
		}
	}
	return s
}

// mail is the next one.
func (s *stream) mail() mail {
	i := int(s.next.Add(1))
	kind := &s.kinds[i*37%len(s.kinds)] // so that the kinds take turns
	if s.site != nil {
		return kind.stamped(time.Now(), s.site, i)
	}
	return kind.mail(i)
}
