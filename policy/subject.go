package policy

import (
	"mime"
	"strings"

	"relayguard/policy/template"
)

var words = mime.WordDecoder{CharsetReader: template.CharsetReader}

// subject is the decoded Subject of a message (RFC 2047), as it is where it
// cannot be decoded.
func subject(h *Header) string {
	raw, _ := h.Get("Subject")
	if !strings.Contains(raw, "=?") {
		return raw
	}
	if decoded, err := words.DecodeHeader(raw); err == nil {
		return decoded
	}
	return raw
}
