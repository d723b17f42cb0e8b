package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Commands of the MTA: SMFIC_* of libmilter's mfdef.h.
const (
	cmdAbort   = 'A'
	cmdBody    = 'B'
	cmdConnect = 'C'
	cmdMacro   = 'D'
	cmdEOM     = 'E'
	cmdHelo    = 'H'
	cmdQuitNC  = 'K' // quit this SMTP session, another follows on the same connection
	cmdHeader  = 'L'
	cmdMail    = 'M'
	cmdEOH     = 'N'
	cmdOptNeg  = 'O'
	cmdQuit    = 'Q'
	cmdRcpt    = 'R'
	cmdData    = 'T'
	cmdUnknown = 'U'
)

// Answers of ours: SMFIR_*.
const (
	ansContinue     = 'c'
	ansTempFail     = 't'
	ansReplyCode    = 'y'
	ansQuarantine   = 'q'
	ansChangeHeader = 'm'
	ansInsertHeader = 'i'
	ansProgress     = 'p'
	ansOptNeg       = 'O'
)

// What a frame may weigh. MTAs send bodies in pieces of at most 65,535 octets
// and, unless told otherwise, headers of about that size; a command line is
// far smaller. Only a body or header may exceed bufferSize, and neither is
// held whole for that.
const (
	bufferSize  = 16 << 10 // read buffer of a connection, and the largest command or macro frame
	maxFrame    = 1 << 20
	maxHeader   = 64 << 20 // of a header frame, which is read past if it is too large to keep
	frameHeader = 4
)

// errMalformed is what a peer that does not speak the protocol gets: its
// connection is closed.
var errMalformed = errors.New("malformed frame")

func malformed(cmd byte, format string, args ...any) error {
	return fmt.Errorf("%w: command %q: %s", errMalformed, cmd, fmt.Sprintf(format, args...))
}

// checkSize judges a frame by its length, which is not zero, and its command.
func checkSize(length uint32, cmd byte) error {
	limit := uint32(maxFrame)
	if cmd == cmdHeader {
		limit = maxHeader
	}
	if length > limit {
		return malformed(cmd, "%d octets, at most %d", length, limit)
	}
	switch cmd {
	case cmdBody, cmdHeader, cmdEOM:
		return nil
	case cmdAbort, cmdConnect, cmdMacro, cmdHelo, cmdQuitNC, cmdMail, cmdEOH, cmdOptNeg, cmdQuit, cmdRcpt, cmdData, cmdUnknown:
		if length > bufferSize-frameHeader {
			return malformed(cmd, "%d octets, at most %d", length, bufferSize-frameHeader)
		}
		return nil
	}
	return malformed(cmd, "no such command")
}

// checkPayload judges the payload of a command that is held whole. What it lets
// through, the library and the session take without a further look.
func checkPayload(cmd byte, p []byte) error {
	switch cmd {
	case cmdConnect:
		return checkConnect(p)
	case cmdHelo, cmdUnknown:
		if len(p) == 0 || bytes.IndexByte(p, 0) != len(p)-1 {
			return malformed(cmd, "want one string that ends in NUL")
		}
	case cmdMail, cmdRcpt:
		if len(p) == 0 || p[len(p)-1] != 0 {
			return malformed(cmd, "want an address and arguments, each ending in NUL")
		}
	case cmdMacro:
		if len(p) == 0 {
			return malformed(cmd, "no stage")
		}
		if len(p) > 1 && (p[len(p)-1] != 0 || bytes.Count(p[1:], nul)%2 != 0) {
			return malformed(cmd, "want pairs of name and value, each ending in NUL")
		}
	case cmdOptNeg:
		if len(p) < 12 {
			return malformed(cmd, "%d octets, want at least 12", len(p))
		}
	}
	return nil
}

// checkConnect: host NUL family [port address NUL].
func checkConnect(p []byte) error {
	end := bytes.IndexByte(p, 0)
	if end < 0 || len(p) < end+2 {
		return malformed(cmdConnect, "no host or no family")
	}
	rest := p[end+2:]
	switch family := p[end+1]; family {
	case 'U':
		return nil
	case 'L', '4', '6':
		if len(rest) < 3 || bytes.IndexByte(rest[2:], 0) != len(rest)-3 {
			return malformed(cmdConnect, "want a port and an address that ends in NUL")
		}
		return nil
	default:
		return malformed(cmdConnect, "family %q", family)
	}
}

// splitHeader cuts the payload of a header frame: name NUL value NUL.
func splitHeader(p []byte) (name, value []byte, err error) {
	end := bytes.IndexByte(p, 0)
	if end <= 0 || p[len(p)-1] != 0 || len(p) < end+2 {
		return nil, nil, malformed(cmdHeader, "want name and value, each ending in NUL")
	}
	value = p[end+1 : len(p)-1]
	if bytes.IndexByte(value, 0) >= 0 {
		return nil, nil, malformed(cmdHeader, "NUL inside the value")
	}
	return p[:end], value, nil
}

var nul = []byte{0}

// appendFrame appends one frame to b.
func appendFrame(b []byte, code byte, payload ...[]byte) []byte {
	n := 1
	for _, p := range payload {
		n += len(p)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, code)
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}
