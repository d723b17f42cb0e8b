package main

import (
	"fmt"
	"strings"
)

// What the generator sends: logins of one domain write to the outside, from
// their own address, a message of size octets.
const (
	insideDomain  = "example.jp"
	outsideDomain = "example.net"
	logins        = 1000
	messageSize   = 4096
	password      = "correct-horse"
)

// mail is one message to be sent.
type mail struct {
	login, from, to, queueID string
	header                   [][2]string
	body                     string
	local                    bool // handed in by sendmail(1)
}

func login(i int) string { return fmt.Sprintf("user%04d@%s", i%logins, insideDomain) }

// newMail makes the message number i: with a sender, a recipient, a queue id
// and a Message-ID of its own, and the header that a mail program writes.
func newMail(i int) mail {
	m := mail{
		login:   login(i),
		from:    login(i),
		to:      fmt.Sprintf("customer%06d@%s", i, outsideDomain),
		queueID: fmt.Sprintf("4XyZ%07X", 0x1000000+i*7919),
	}
	m.header = [][2]string{
		{"Received", fmt.Sprintf("from [192.168.1.%d] (p%d.dsl.example.org [203.0.113.%d])\r\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\r\n\t key-exchange X25519 server-signature ECDSA (P-256))\r\n\tby relay.%s (Postfix) with ESMTPSA id %s\r\n\tfor <%s>; Mon,  2 Mar 2026 08:59:03 +0000 (UTC)", i%250+1, i, i%250+1, insideDomain, m.queueID, m.to)},
		{"DKIM-Signature", "v=1; a=rsa-sha256; c=relaxed/relaxed; d=" + insideDomain + ";\r\n\ts=202601; t=1772441943;\r\n\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n\th=Date:From:To:Subject:From;\r\n\tb=" + strings.Repeat("kWq7", 80)},
		{"Message-ID", fmt.Sprintf("<%08x-0f4c-4c2e-9d3a-5b6f7a8c9d0e@%s>", i*2654435761, insideDomain)},
		{"Date", "Mon, 2 Mar 2026 17:59:03 +0900"},
		{"MIME-Version", "1.0"},
		{"User-Agent", "Mozilla Thunderbird"},
		{"Subject", "=?UTF-8?B?6K2w5LqL6Yyy44KS44GK6YCB44KK44GX44G+44GZ?= (minutes)"},
		{"To", fmt.Sprintf("Customer %d <%s>", i, m.to)},
		{"Content-Language", "ja, en-US"},
		{"From", fmt.Sprintf("\"User %04d, Example Co.\" <%s>", i%logins, m.from)},
		{"In-Reply-To", fmt.Sprintf("<%d.1234@mail.%s>", i, outsideDomain)},
		{"Content-Type", "text/plain; charset=UTF-8; format=flowed"},
	}
	size := len("\r\n")
	for _, h := range m.header {
		size += len(h[0]) + len(": ") + len(h[1]) + len("\r\n")
	}
	m.body = text(messageSize - size)
	return m
}

// text is n octets of lines that end in CRLF.
func text(n int) string {
	const line = "The quick brown fox jumps over the lazy dog; pack my box with liquor jugs.\r\n"
	s := strings.Repeat(line, n/len(line)+1)
	return s[:n-len("\r\n")] + "\r\n"
}

// smtp is the message as an SMTP client sends it after DATA, with the final
// dot.
func (m *mail) smtp() string {
	var b strings.Builder
	for _, h := range m.header {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	return b.String() + "\r\n" + m.body + ".\r\n"
}
