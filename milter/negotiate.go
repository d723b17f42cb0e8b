package milter

import (
	"encoding/binary"

	gomilter "github.com/emersion/go-milter"
)

// The protocol version that this package speaks; version 6 brought the bits
// that spare replies. go-milter's own answer says 2.
const protocolVersion = 6

// What we do to a message: quarantine it, take header fields of ours off it, put
// those on it that another guard is to read.
const wantActions = gomilter.OptQuarantine | gomilter.OptChangeHeader | gomilter.OptAddHeader | gomilter.OptSetSymList

// What we do not need to hear, and where nobody waits for an answer: we answer
// at RCPT and at end of message alone.
const wantProtocol = gomilter.OptNoUnknown | gomilter.OptNoData |
	gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply | gomilter.OptNoDataReply |
	gomilter.OptNoUnknownReply | gomilter.OptNoHeaderReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply

// wantMacros are asked for at every stage: a list that is not sent empties that
// stage on Postfix, and Sendmail uses the list of EOM only beside one of EOH.
var wantMacros = map[gomilter.Stage][]string{
	gomilter.StageConnect:  {"j", "v", "_", "{daemon_name}", "{daemon_addr}", "{daemon_port}"},
	gomilter.StageHelo:     {"{tls_version}", "{cert_subject}", "{cert_issuer}"},
	gomilter.StageMailFrom: {"i", "{auth_type}", "{auth_authen}", "{cert_subject}", "{cert_issuer}", "{verify}"},
	gomilter.StageRcptTo:   {"i"},
	gomilter.StageData:     {"i"},
	gomilter.StageEOH:      {"i"},
	gomilter.StageEOM:      {"i"},
}

// negotiated is what the MTA and we agreed on: RFC-less, see libmilter's
// SMFIF_* and SMFIP_* bits.
type negotiated struct {
	Version  uint32
	Actions  uint32
	Protocol uint32
}

func (n negotiated) has(bit gomilter.OptProtocol) bool { return n.Protocol&uint32(bit) != 0 }
func (n negotiated) may(bit gomilter.OptAction) bool   { return n.Actions&uint32(bit) != 0 }

// agree reads the MTA's offer, already checked for its length, for a listener
// that wants so much of the protocol.
func agree(offer []byte, protocol gomilter.OptProtocol) negotiated {
	return negotiated{
		Version:  min(binary.BigEndian.Uint32(offer), protocolVersion),
		Actions:  binary.BigEndian.Uint32(offer[4:]) & uint32(wantActions),
		Protocol: binary.BigEndian.Uint32(offer[8:]) & uint32(protocol),
	}
}

// rewrite corrects the library's answer, a whole frame: its version, and no bit
// that the MTA did not offer (Sendmail aborts on one). The macro lists that
// follow go only to an MTA that takes them.
func (n negotiated) rewrite(frame []byte) []byte {
	const fixed = 12
	lists := frame[frameHeader+1+fixed:]
	if !n.may(gomilter.OptSetSymList) {
		lists = nil
	}
	var head [fixed]byte
	binary.BigEndian.PutUint32(head[0:], n.Version)
	binary.BigEndian.PutUint32(head[4:], n.Actions)
	binary.BigEndian.PutUint32(head[8:], n.Protocol)
	return appendFrame(nil, ansOptNeg, head[:], lists)
}
