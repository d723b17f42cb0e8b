package postfix

import (
	"regexp"
	"strings"

	"relayguard/forward"
)

// filtered finds the recipient in what smtpd_command_filter makes of a command.
// concerns is false only for what is certainly another command than RCPT, or
// certainly what the client said. Elsewhere, what cannot be told stands as
// forward.Unknown.
func filtered(key, value string) (target string, concerns bool) {
	text := strings.Trim(value, spaces)
	if text == "" || otherVerb(text) || unchanged(key, text) || strings.HasPrefix(text, forward.Unknown) && otherCommand.MatchString(key) && !strings.Contains(key, "|") {
		return "", false
	}
	if at := outsideQuotes(text, '<'); at >= 0 {
		text = text[at+1:]
	} else if at := strings.IndexByte(text, ':'); at >= 0 && toColon.MatchString(text[:at+1]) {
		text = text[at+1:]
	} else if verb := leadingVerb(text); verb != "" {
		text = text[len(verb):]
	}
	text = strings.TrimLeft(text, spaces)
	if end := outsideQuotes(text, '>'); end >= 0 {
		text = text[:end]
	} else if end := outsideQuotes(text, ' '); end >= 0 {
		text = text[:end]
	}
	if text == "" {
		text = forward.Unknown
	}
	return text, true
}

var (
	// otherCommand is a pattern for a command that is not RCPT, from its beginning.
	// It takes the verb from what the client says, if any.
	otherCommand = regexp.MustCompile(`(?i)^/\^\(?(?:HELO|EHLO|LHLO|MAIL|DATA|BDAT|RSET|NOOP|QUIT|VRFY|ETRN|HELP|AUTH|STARTTLS|XCLIENT|XFORWARD|EXPN)(?:[\\ ($]|\)[^?*{]|/i?$)`)
	whole        = regexp.MustCompile(`^/\^?\(\.[*+]\)\$?/[ims]*$`)
	toColon      = regexp.MustCompile(`(?i)TO\s*:$`)
)

// unchanged: all that the client said is given back, and nothing else.
func unchanged(key, text string) bool { return text == forward.Unknown && whole.MatchString(key) }

// otherVerb reports whether a text begins with a whole verb that is not RCPT.
func otherVerb(text string) bool {
	verb := leadingVerb(text)
	return verb != "" && !strings.EqualFold(verb, "RCPT")
}

// leadingVerb is the first word, if it is wholly known.
func leadingVerb(text string) string {
	end := strings.IndexAny(text, spaces)
	if end < 0 {
		end = len(text)
	}
	if strings.Contains(text[:end], forward.Unknown) {
		return ""
	}
	return text[:end]
}

// outsideQuotes is where c is for the first time outside quotes; -1: nowhere. A
// blank stands for any white space.
func outsideQuotes(text string, c byte) int {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case !quoted && (text[i] == c || c == ' ' && strings.IndexByte(spaces, text[i]) >= 0):
			return i
		}
	}
	return -1
}
