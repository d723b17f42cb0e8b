package blocklists

import (
	"net/netip"
	"strings"
)

// trace is one Received field (RFC 5321 §4.4). Who wrote it, by another program, writes
// it in another form:
//
//	Postfix   from HELO (name [ADDR]) by HOST (Postfix) with ESMTPS id ID
//	Sendmail  from HELO (name [ADDR] (may be forged)) by HOST (8.17/8.17) with ESMTP id ID
//	Exim      from name ([ADDR]:port helo=HELO) by HOST with esmtps id ID
//	Exim      from [ADDR] (helo=HELO) by HOST with esmtp id ID
//	Exchange  from HELO (ADDR) by HOST (addr) with Microsoft SMTP Server id ID
//	Gmail     from HELO (name. [ADDR]) by mx.google.com with ESMTPS id ID
//	qmail     from name (HELO HELO) (ADDR) by HOST with SMTP
//	Yahoo     from ADDR (EHLO HELO) by addr with SMTPs
type trace struct {
	helo string // lower case, no final dot
	addr netip.Addr
	by   string // likewise
	id   string
}

func parseTrace(value string) trace {
	var t trace
	clause, named := "", ""
	for _, w := range words(value) {
		switch {
		case w.comment && clause == "from":
			t.comment(w.text)
		case w.comment:
		case w.text == ";":
			clause = "date"
		case clause != "date" && isClause(w.text):
			clause = strings.ToLower(w.text)
		case clause == "from" && named == "":
			named = w.text
		case clause == "by" && t.by == "":
			t.by = hostName(w.text)
		case clause == "id" && t.id == "":
			t.id = queueID(w.text)
		}
	}
	claimed := t.helo != "" // by a comment: then what stands first is who it was
	if !claimed {
		t.helo = hostName(named)
	}
	if claimed && !t.addr.IsValid() {
		t.addr = traceAddr(named)
	}
	return t
}

func isClause(word string) bool {
	switch strings.ToLower(word) {
	case "from", "by", "via", "with", "id", "for":
		return true
	}
	return false
}

// comment reads what a server found out about its client. What it found first counts:
// whatever the client chose itself stands behind it, or not in brackets.
func (t *trace) comment(text string) {
	fields := strings.Fields(text)
	for n, field := range fields {
		switch name, value, _ := strings.Cut(field, "="); {
		case strings.EqualFold(name, "helo") && value != "" && t.helo == "":
			t.helo = hostName(value)
		case (field == "HELO" || field == "EHLO") && n == 0 && len(fields) > 1 && t.helo == "":
			t.helo = hostName(fields[1])
		}
		if t.addr.IsValid() {
			continue
		}
		if open := strings.IndexByte(field, '['); open >= 0 && strings.IndexByte(field[open:], ']') > 0 {
			t.addr = traceAddr(field[open:])
		} else if n == 0 && len(fields) == 1 { // Exchange, qmail
			t.addr = traceAddr(field[strings.LastIndexByte(field, '@')+1:])
		}
	}
}

// traceAddr reads "[ADDR]", "[IPv6:ADDR]", "[ADDR]:port" or "ADDR"; invalid if it is
// none.
func traceAddr(text string) netip.Addr {
	if strings.HasPrefix(text, "[") {
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return netip.Addr{}
		}
		text = text[1:end]
	}
	const tag = "ipv6:" // RFC 5321 §4.1.3
	if len(text) > len(tag) && strings.EqualFold(text[:len(tag)], tag) {
		text = text[len(tag):]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// hostName is a name that can be shown and compared; "" if it is none.
func hostName(text string) string {
	const longest = 253
	text = strings.ToLower(strings.TrimSuffix(text, "."))
	if len(text) > longest || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]") != "" {
		return ""
	}
	return text
}

// queueID is an id of an MTA of ours: Postfix's and Sendmail's are of letters and digits.
func queueID(text string) string {
	const longest = 64
	if len(text) > longest {
		return ""
	}
	for _, c := range []byte(text) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return ""
		}
	}
	return text
}

// word is a word, a whole comment without its parentheses, or ";".
type word struct {
	text    string
	comment bool
}

// words takes a structured field apart (RFC 5322 §3.2.2), as far as Received fields
// need it. Comments in comments are part of the outer one.
func words(value string) []word {
	const most = 256
	var all []word
	for n := 0; n < len(value) && len(all) < most; {
		switch c := value[n]; {
		case c == ' ' || c == '\t':
			n++
		case c == ';':
			all = append(all, word{";", false})
			n++
		case c == '(':
			end := commentEnd(value, n)
			all = append(all, word{strings.TrimSuffix(value[n+1:end], ")"), true})
			n = end
		default:
			end := n + strings.IndexAny(value[n:]+" ", " \t;(")
			all = append(all, word{value[n:end], false})
			n = end
		}
	}
	return all
}

// commentEnd is behind the parenthesis that closes the one at start, or the end.
func commentEnd(value string, start int) int {
	depth := 0
	for n := start; n < len(value); n++ {
		switch value[n] {
		case '\\':
			n++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return n + 1
			}
		}
	}
	return len(value)
}
