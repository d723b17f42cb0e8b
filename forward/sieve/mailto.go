package sieve

import (
	"errors"
	"fmt"
	"strings"

	"relayguard/forward"
)

// maxRecipients of one URI, as Pigeonhole's sieve_notify_mailto_max_recipients
// may be set; its default is 8.
const maxRecipients = 1000

var errNotMailto = errors.New("no mailto: URI")

// mailto are the recipients of a mailto: URI (RFC 6068) as Pigeonhole reads it:
// the path, to= and cc=; bcc= and all else sends nothing.
func mailto(uri string) ([]string, error) {
	const scheme = "mailto:"
	if len(uri) < len(scheme) || !strings.EqualFold(uri[:len(scheme)], scheme) {
		return nil, errNotMailto
	}
	path, headers, _ := strings.Cut(uri[len(scheme):], "?")
	var out []string
	add := func(encoded string) error {
		text, err := percent(encoded)
		if err != nil {
			return err
		}
		for one := range strings.SplitSeq(text, ",") {
			if strings.TrimSpace(one) != "" && len(out) < maxRecipients {
				out = append(out, one)
			}
		}
		return nil
	}
	if err := add(path); err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(headers, "&") {
		name, value, _ := strings.Cut(field, "=")
		name, err := percent(name)
		if err != nil {
			return nil, err
		}
		if strings.EqualFold(name, "to") || strings.EqualFold(name, "cc") {
			if err := add(value); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// percent decodes %XX. What follows an unknown part may have been half of one.
func percent(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			if strings.HasPrefix(s[i+1:], forward.Unknown) {
				continue
			}
			return "", fmt.Errorf("invalid %% encoding in %s", shorten(s))
		}
		out.WriteByte(byte(hexDigit(s[i+1])<<4 | hexDigit(s[i+2])))
		i += 2
	}
	return out.String(), nil
}

// encodeURL is the modifier :encodeurl (RFC 5435 §6).
func encodeURL(s string) string {
	var out strings.Builder
	for i, known := range strings.Split(s, forward.Unknown) {
		if i > 0 {
			out.WriteString(forward.Unknown)
		}
		for j := range len(known) {
			c := known[j]
			if isDigit(int(c)) || isAlpha(int(c)) || c == '-' || c == '.' || c == '~' {
				out.WriteByte(c)
			} else {
				fmt.Fprintf(&out, "%%%02X", c)
			}
		}
	}
	return out.String()
}

// lengthOf is the modifier :length.
func lengthOf(s string) string { return fmt.Sprint(len([]rune(s))) }
