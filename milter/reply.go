package milter

import (
	"encoding/binary"
	"fmt"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"relayguard/policy"
)

// response is an answer after which the library keeps its session: its own
// accept, reject and tempfail make it forget all it knows of the connection.
type response struct {
	code byte
	data []byte
}

func (r response) Response() *gomilter.Message {
	return &gomilter.Message{Code: r.code, Data: r.data}
}

// Continue is true for every answer, see response.
func (response) Continue() bool { return true }

var (
	respContinue = response{code: ansContinue}
	respTempFail = response{code: ansTempFail}
)

// maxReplyText keeps an answer on one SMTP line: libmilter refuses longer ones,
// RFC 5321 §4.5.3.1.5 allows 512 octets with the code.
const maxReplyText = 450

// replyResponse is the answer SMFIR_REPLYCODE: code, enhanced code, text, one
// NUL. A percent sign is a format to the MTA and is doubled; a line end would
// make two replies of one.
func replyResponse(r policy.Reply) gomilter.Response {
	if !validReply(r) {
		return respTempFail
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
	return response{ansReplyCode, fmt.Appendf(nil, "%d %s %s\x00", r.Code, r.Enhanced, text)}
}

// validReply reports whether an MTA takes the reply: RFC 3463 §2, the class of
// both codes alike.
func validReply(r policy.Reply) bool {
	class := r.Code / 100
	var a, b, c uint
	n, err := fmt.Sscanf(r.Enhanced+"\n", "%d.%d.%d\n", &a, &b, &c)
	return (class == 4 || class == 5) && err == nil && n == 3 && int(a) == class
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

// oneLine takes control characters out of a text for the wire.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
}
