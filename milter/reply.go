package milter

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"relayguard/policy"
)

// maxReplyText keeps an answer on one SMTP line: libmilter refuses longer ones,
// RFC 5321 §4.5.3.1.5 allows 512 octets with the code.
const maxReplyText = 450

// appendReply appends the answer SMFIR_REPLYCODE: code, enhanced code, text, one
// NUL. A percent sign is a format to the MTA and is doubled; a line end would
// make two replies of one. A reply that no MTA would take becomes a tempfail.
func appendReply(b []byte, r policy.Reply) []byte {
	if !validReply(r) {
		return appendFrame(b, ansTempFail)
	}
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, r.Text)
	if len(text) > maxReplyText {
		text = text[:maxReplyText-3] + "..."
	}
	text = strings.ReplaceAll(text, "%", "%%")
	return appendFrame(b, ansReplyCode, fmt.Appendf(nil, "%d %s %s\x00", r.Code, r.Enhanced, text))
}

// validReply reports whether an MTA takes the reply: RFC 3463 §2, the class of
// both codes alike.
func validReply(r policy.Reply) bool {
	class := r.Code / 100
	parts := strings.Split(r.Enhanced, ".")
	if class != 4 && class != 5 || len(parts) != 3 || parts[0] != strconv.Itoa(class) {
		return false
	}
	for _, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// appendQuarantine appends a request to hold the message. Postfix before 3.10
// drops the reason.
func appendQuarantine(b []byte, reason string) []byte {
	return appendFrame(b, ansQuarantine, []byte(oneLine(reason)), nul)
}

// appendDelete appends requests to take the n fields of that name off the
// message, the last first: each removal renumbers those behind it.
func appendDelete(b []byte, name string, n int) []byte {
	for ; n > 0; n-- {
		var index [4]byte
		binary.BigEndian.PutUint32(index[:], uint32(n))
		b = appendFrame(b, ansChangeHeader, index[:], []byte(name), nul, nul)
	}
	return b
}

// appendInsert puts a header field before all others.
func appendInsert(b []byte, f policy.Field) []byte {
	return appendFrame(b, ansInsertHeader, make([]byte, 4), []byte(f.Name), nul, []byte(oneLine(f.Value)), nul)
}

// oneLine takes control characters out of a text for the wire.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
}
