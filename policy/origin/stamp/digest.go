package stamp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
)

// digestSize is the octets of a SHA-256 that a stamp has of recipients and
// subject: nobody needs a collision of his own texts, only a second preimage helps.
const digestSize = 16

// recipientsDigest stands for a set of recipients: their order, repetitions and
// the case of ASCII letters make no difference.
func recipientsDigest(rcpts []string) string {
	all := make([]string, len(rcpts))
	size := 0
	for i, r := range rcpts {
		all[i] = plainRecipient(r)
		size += len(all[i]) + 1
	}
	slices.Sort(all)
	text := make([]byte, 0, size)
	for i, r := range slices.Compact(all) {
		if i > 0 {
			text = append(text, '\n')
		}
		text = append(text, r...)
	}
	return digest(text)
}

// plainRecipient is a recipient trimmed (of what PHP's trim takes off) and in
// lower case, of ASCII only: languages agree on no other.
func plainRecipient(r string) string {
	r = strings.Trim(r, " \t\r\n\x00\x0b")
	if !strings.ContainsFunc(r, func(c rune) bool { return 'A' <= c && c <= 'Z' }) {
		return r
	}
	b := []byte(r)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// subjectDigest stands for a decoded subject; folding makes no difference.
func subjectDigest(subject string) string {
	text := make([]byte, 0, 256)
	for i := range len(subject) {
		switch c := subject[i]; {
		case !isBlank(rune(c)):
			text = append(text, c)
		case len(text) > 0 && text[len(text)-1] != ' ':
			text = append(text, ' ')
		}
	}
	if n := len(text); n > 0 && text[n-1] == ' ' {
		text = text[:n-1]
	}
	return digest(text)
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:digestSize])
}

// What is signed begins with the purpose: no key signs for two.
const (
	siteContext = "relayguard-origin\n"
	nodeContext = "relayguard-node\n"
)

// mac is the signature of a field's value up to its last token.
func mac(key []byte, context, signed string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(append(append(make([]byte, 0, len(context)+len(signed)), context...), signed...))
	return h.Sum(nil)
}
