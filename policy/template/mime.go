package template

import (
	"bytes"
	"encoding/base64"
	"mime"
	"strings"
)

// Bounds of a message's structure.
const (
	maxDepth = 4  // multiparts in multiparts
	maxParts = 16 // of all multiparts together
)

// body is what was found in a message's body: its text, and its HTML, decoded.
type body struct {
	plain, html []byte
	parts       int
	coded       []byte // room
}

// reset keeps the room for the next message.
func (d *body) reset() { d.plain, d.html, d.parts = d.plain[:0], d.html[:0], 0 }

// read finds the first text/plain and the first text/html.
func (d *body) read(contentType, encoding, disposition string, b []byte, depth int) {
	kind, params := "text/plain", map[string]string(nil)
	if contentType != "" {
		if k, p, err := mime.ParseMediaType(contentType); k != "" && (err == nil || strings.Contains(k, "/")) {
			kind, params = k, p
		}
	}
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		d.multipart(params["boundary"], b, depth)
	case len(disposition) >= len("attachment") && strings.EqualFold(disposition[:len("attachment")], "attachment"):
	case kind == "text/html" && len(d.html) == 0:
		d.html = d.leaf(d.html, encoding, params["charset"], b)
	case (kind == "text/plain" || kind == "text/enriched") && len(d.plain) == 0:
		d.plain = d.leaf(d.plain, encoding, params["charset"], b)
	}
}

func (d *body) multipart(boundary string, b []byte, depth int) {
	if boundary == "" || depth >= maxDepth {
		return
	}
	all := splitter{rest: b, delimiter: "--" + boundary}
	for d.parts < maxParts && (len(d.plain) == 0 || len(d.html) == 0) {
		d.parts++
		p, ok := all.next()
		if !ok {
			return // its end, or it is broken: what came before counts
		}
		d.read(p.contentType, p.encoding, p.disposition, p.content, depth+1)
	}
}

// leaf decodes a part that has no parts.
func (d *body) leaf(to []byte, encoding, charset string, b []byte) []byte {
	switch encoding = strings.TrimSpace(encoding); {
	case strings.EqualFold(encoding, "quoted-printable"):
		d.coded = unquote(d.coded[:0], b, maxText)
		b = d.coded
	case strings.EqualFold(encoding, "base64"):
		d.coded = unbase64(d.coded[:0], b, maxText)
		b = d.coded
	}
	return toUTF8(to, charset, b[:min(len(b), maxText)], maxText)
}

// unquote decodes quoted-printable (RFC 2045 §6.7); what is none is kept as it is.
func unquote(to, b []byte, most int) []byte {
	for len(b) > 0 && len(to) < most {
		i := bytes.IndexByte(b, '=')
		if i < 0 {
			i = len(b)
		}
		to = append(to, b[:i]...)
		if b = b[i:]; len(b) == 0 {
			break
		}
		rest := b[1:]
		if hi, lo := unhex(rest, 0), unhex(rest, 1); hi >= 0 && lo >= 0 {
			to, b = append(to, byte(hi<<4|lo)), rest[2:]
			continue
		}
		line := rest
		for len(line) > 0 && (line[0] == ' ' || line[0] == '\t' || line[0] == '\r') {
			line = line[1:]
		}
		if len(line) > 0 && line[0] == '\n' {
			b = line[1:]
			continue
		}
		to, b = append(to, '='), rest
	}
	return to[:min(len(to), most)]
}

func unhex(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// unbase64 decodes base64 and skips what is not of its alphabet (RFC 2045 §6.8).
func unbase64(to, b []byte, most int) []byte {
	var quad [4]byte
	n := 0
	for _, c := range b {
		if len(to) >= most || c == '=' {
			break
		}
		if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' {
			if quad[n] = c; n < 3 {
				n++
				continue
			}
			n = 0
			var three [3]byte
			if _, err := base64.StdEncoding.Decode(three[:], quad[:]); err == nil {
				to = append(to, three[:]...)
			}
		}
	}
	if n > 1 {
		var three [3]byte
		if m, _ := base64.RawStdEncoding.Decode(three[:], quad[:n]); m > 0 {
			to = append(to, three[:m]...)
		}
	}
	return to[:min(len(to), most)]
}
