package desk

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/publicsuffix"
)

// maxError bounds, in octets, what is told of why a message is stuck.
const maxError = 300

// redact takes out of an MTA's or a server's words to whom mail goes: of an address
// only the domain is left, as in <...@example.net>, and names of mailboxes go that
// are told alone, in brackets or quotes. It is bounded and valid UTF-8; control
// characters are for who prints it.
func redact(text string, rcpts []string) string {
	const most = 4 << 10 // of what is read; a server's reply has up to 512 octets a line
	if len(text) > most {
		text = text[:most]
	}
	text = withoutMailboxes(withoutAddresses(strings.ToValidUTF8(text, "?")), rcpts)
	if len(text) <= maxError {
		return text
	}
	cut := maxError - len("...")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "..."
}

// ats are what can stand for the sign in an address.
var ats = strings.NewReplacer("%40", "@", "&#64;", "@", "&commat;", "@", "\uff20", "@", "\ufe6b", "@")

// withoutAddresses puts "..." for all that can be a local part before an at sign.
func withoutAddresses(text string) string {
	if !strings.ContainsAny(text, "@%&\uff20\ufe6b") {
		return text
	}
	text = ats.Replace(text)
	if !strings.Contains(text, "@") {
		return text
	}
	var out []byte
	for n := range len(text) {
		if text[n] == '@' {
			out = append(out[:localPart(out)], "..."...)
		}
		out = append(out, text[n])
	}
	return string(out)
}

// localPart is where the local part at the end of a text begins (RFC 5321 §4.1.2;
// what is not ASCII is RFC 6531's). Spaces before the sign do not hide one.
func localPart(text []byte) int {
	n := len(text)
	for n > 0 && (text[n-1] == ' ' || text[n-1] == '\t') {
		n--
	}
	if n > 0 && text[n-1] == '"' {
		for n--; n > 0 && text[n-1] != '"'; n-- {
		}
		for n > 0 && text[n-1] == '"' {
			n--
		}
	}
	for n > 0 && !strings.ContainsRune(" \t\r\n<>()[],;:\"", rune(text[n-1])) {
		n--
	}
	return n
}

// withoutMailboxes puts "..." for local parts of recipients that stand alone, short
// ones only where a server names a mailbox, and for whatever stands in angle brackets.
func withoutMailboxes(text string, rcpts []string) string {
	if !strings.ContainsAny(text, "<\"'`([{:= ") {
		return text
	}
	var out strings.Builder
	rest := text
	for rest != "" {
		start := strings.IndexFunc(rest, inWord)
		if start < 0 {
			break
		}
		end := start + lengthOf(rest[start:], inWord)
		out.WriteString(rest[:start])
		word := rest[start:end]
		before := strings.TrimRight(out.String(), " ")
		angle := strings.HasSuffix(out.String(), "<") && strings.HasPrefix(rest[end:], ">") && !strings.Contains(word, "@")
		if angle || (telling(word) || named(out.String(), before, rest[end:])) && isMailbox(word, rcpts) {
			word = "..."
		}
		out.WriteString(word)
		rest = rest[end:]
	}
	out.WriteString(rest)
	return out.String()
}

// lengthOf is how many octets a text begins with that are in.
func lengthOf(text string, in func(rune) bool) int {
	if n := strings.IndexFunc(text, func(r rune) bool { return !in(r) }); n >= 0 {
		return n
	}
	return len(text)
}

func inWord(r rune) bool {
	return !unicode.IsSpace(r) && !strings.ContainsRune("<>()[]{}\"'`,;:=", r)
}

// isMailbox reports whether a word is the local part of a recipient, whatever full
// stop it ends with.
func isMailbox(word string, rcpts []string) bool {
	word = strings.TrimRight(word, ".!?")
	for _, to := range rcpts {
		local := to
		if i := strings.LastIndexByte(to, '@'); i >= 0 {
			local = to[:i]
		}
		plain, _, _ := strings.Cut(local, "+") // before an extension
		if word != "" && (strings.EqualFold(word, local) || strings.EqualFold(word, plain)) {
			return true
		}
	}
	return false
}

// telling reports whether a word is hardly one of a server's own.
func telling(word string) bool {
	const short = 8
	word = strings.TrimRight(word, ".!?")
	return len(word) > short || strings.ContainsAny(word, "0123456789._-+")
}

// named reports whether a word stands where a mailbox is named: in quotes or
// brackets, alone before or after a colon, or after a word for one.
func named(before, trimmed, after string) bool {
	if before == "" || strings.ContainsAny(before[len(before)-1:], "<\"'`([{=") || strings.HasSuffix(trimmed, ":") {
		return true
	}
	if after != "" && strings.ContainsAny(after[:1], ":>\"'`)]}") {
		return true
	}
	last := strings.ToLower(trimmed[strings.LastIndexAny(trimmed, " <>()[]{}\"'`,;:=")+1:])
	switch last {
	case "user", "mailbox", "account", "recipient", "address", "for", "to", "rcpt", "login", "name", "alias", "of":
		return true
	}
	return false
}

// cause is why a message is stuck without what differs from message to message, so
// that one cause is one text: numbers but for reply codes, ids, addresses, and
// which host of a domain it was.
func cause(text string) string {
	var out strings.Builder
	rest := text
	for rest != "" {
		start := strings.IndexFunc(rest, inToken)
		if start < 0 {
			break
		}
		end := start + lengthOf(rest[start:], inToken)
		out.WriteString(rest[:start])
		word := rest[start:end]
		if strings.HasPrefix(word, "...@") || word == "..." {
			word = "..."
		} else {
			said := strings.TrimRight(out.String(), " ")
			word = general(word, said == "" || strings.ContainsAny(said[len(said)-1:], ":(]>"))
		}
		out.WriteString(word)
		rest = rest[end:]
	}
	out.WriteString(rest)
	return strings.Join(strings.Fields(out.String()), " ")
}

func inToken(r rune) bool {
	return !unicode.IsSpace(r) && !strings.ContainsRune("<>()[]{}\"'`,;=", r)
}

// general is a word without what is of one message. Reply says whether a reply code
// may stand here.
func general(word string, reply bool) string {
	body := strings.TrimRight(word, ".:!?")
	tail := word[len(body):]
	host, port, hasPort := strings.Cut(body, ":")
	switch {
	case body == "":
		return word
	case reply && isReplyCode(body) || isEnhanced(body):
		return word
	case isAddress(body) || isAddress(host):
		return "..." + tail
	case isHost(host):
		if hasPort && port != "" {
			tail = ":" + port + tail
		}
		return family(host) + tail
	case isID(body):
		return "..." + tail
	}
	return digits(body) + tail
}

// isReplyCode is what RFC 5321 §4.2.1 allows.
func isReplyCode(s string) bool {
	code, _, _ := strings.Cut(s, "-") // 451-4.7.1
	return len(code) == 3 && code[0] >= '2' && code[0] <= '5' && code[1] >= '0' && code[1] <= '5' && code[2] >= '0' && code[2] <= '9' && (len(s) == 3 || isEnhanced(s[4:]))
}

// isEnhanced is what RFC 3463 §2 allows.
func isEnhanced(s string) bool {
	parts := strings.Split(strings.TrimPrefix(s, "#"), ".")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
		return false
	}
	for _, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.TrimPrefix(s, "IPv6:"))
	return err == nil
}

// isHost reports whether a word looks like a host name with a domain.
func isHost(s string) bool {
	dot := strings.LastIndexByte(s, '.')
	if dot <= 0 || len(s) > 253 || len(s)-dot < 3 {
		return false
	}
	for n := range len(s) {
		if c := s[n] | 0x20; (c < 'a' || c > 'z') && (s[n] < '0' || s[n] > '9') && s[n] != '-' && s[n] != '.' && s[n] != '_' {
			return false
		}
	}
	return strings.Trim(strings.ToLower(s[dot+1:]), "abcdefghijklmnopqrstuvwxyz") == "" && !strings.Contains(s, "..")
}

// family is the domain of a host, all hosts of which are one.
func family(host string) string {
	host = strings.ToLower(host)
	if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil && domain != host {
		return "*." + domain
	}
	return host
}

// isID reports whether a word looks like an id: long, with digits among letters.
func isID(s string) bool {
	figures, letters := 0, 0
	for n := range len(s) {
		switch c := s[n]; {
		case c >= '0' && c <= '9':
			figures++
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			letters++
		}
	}
	return len(s) >= 8 && figures >= 2 && letters > 0 && !strings.Contains(s, "//") || len(s) >= 8 && figures == len(s)
}

// digits puts N for each number.
func digits(s string) string {
	var out []byte
	for n := range len(s) {
		if s[n] < '0' || s[n] > '9' {
			out = append(out, s[n])
		} else if n == 0 || s[n-1] < '0' || s[n-1] > '9' {
			out = append(out, 'N')
		}
	}
	return string(out)
}
