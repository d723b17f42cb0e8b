package template_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"relayguard/policy/template"
)

// fourKB is a body of 4 kB, each message with a name and a number of its own.
func fourKB(i int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Dear Customer %d,\r\n\r\nthank you for your order 2026-%06d.\r\nYou find it at https://shop.example.jp/orders/view?id=%d&token=ab12cd34ef56\r\n\r\n", i, i, i)
	for n := 0; b.Len() < 3900; n++ {
		fmt.Fprintf(&b, "Line %d of the terms says that goods may be returned within %d days if paragraph %c holds.\r\n", n, n*3, 'a'+n%26)
	}
	b.WriteString("-- \r\nShop Example, Tokyo, https://shop.example.jp/\r\n")
	return []byte(b.String())
}

func BenchmarkRead(b *testing.B) {
	japanese := strings.Repeat("この度はご注文いただき誠にありがとうございます。商品の発送が完了いたしましたのでお知らせいたします。\r\n", 27)
	html := "<html><body>" + strings.Repeat("<p>Thank you for <b>your order</b>, it is <a href=\"https://shop.example.jp/o?p=1\">on its way</a>.</p>\r\n", 40) + "</body></html>"
	for _, c := range []struct {
		name   string
		fields header
		body   []byte
	}{
		{"plain", header{"Subject": "Your order 12345 at the shop"}, fourKB(1)},
		{"quoted-printable", header{"Subject": "Your order", "Content-Type": "text/plain; charset=utf-8", "Content-Transfer-Encoding": "quoted-printable"}, bytes.ReplaceAll(fourKB(1), []byte("="), []byte("=3D"))},
		{"japanese", header{"Subject": "=?UTF-8?B?44GU5rOo5paH44GC44KK44GM44Go44GG44GU44GW44GE44G+44GZ?=", "Content-Type": "text/plain; charset=utf-8"}, []byte(japanese)},
		{"html", header{"Subject": "Your order", "Content-Type": "text/html; charset=utf-8"}, []byte(html)},
		{"multipart", header{"Subject": "Your order", "Content-Type": "multipart/alternative; boundary=b1"}, []byte("--b1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + string(fourKB(1)[:2000]) + "\r\n--b1\r\nContent-Type: text/html\r\n\r\n" + html[:2000] + "\r\n--b1--\r\n")},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := template.New(template.Options{Parts: 1000})
			b.ReportAllocs()
			b.SetBytes(int64(len(c.body)))
			for b.Loop() {
				m.Read(c.fields, c.body)
			}
		})
	}
}

// BenchmarkMessage is all that template recognition takes for a message of 4 kB.
func BenchmarkMessage(b *testing.B) {
	m := template.New(template.Options{})
	bodies := make([][]byte, 512)
	for i := range bodies {
		bodies[i] = fourKB(i)
	}
	fields := header{"Subject": "Your order 12345 at the shop"}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t := m.Read(fields, bodies[i%len(bodies)])
		m.Find(day(0), "local_user:shop", &t, []uint64{uint64(i)})
		m.Sent(day(0), "local_user:shop", &t)
	}
}
