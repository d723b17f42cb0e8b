package main

import (
	"encoding/binary"
	"fmt"
)

// Commands of the MTA and answers of the milter, SMFIC_* and SMFIR_* of
// libmilter's mfdef.h. The generator knows the protocol from there and shares
// no code with what it measures.
const (
	cmdAbort   = 'A'
	cmdBody    = 'B'
	cmdConnect = 'C'
	cmdMacro   = 'D'
	cmdEOM     = 'E'
	cmdHelo    = 'H'
	cmdHeader  = 'L'
	cmdMail    = 'M'
	cmdEOH     = 'N'
	cmdOptNeg  = 'O'
	cmdQuit    = 'Q'
	cmdRcpt    = 'R'
	cmdData    = 'T'

	ansAccept   = 'a'
	ansContinue = 'c'
	ansOptNeg   = 'O'

	ansInsertHeader = 'i'
	ansChangeHeader = 'm'
)

const (
	frameHeader = 4 // octets of length before the command
	maxAnswer   = 64 << 10
)

// appendFrame appends one frame to b.
func appendFrame(b []byte, cmd byte, payload ...string) []byte {
	n := 1
	for _, s := range payload {
		n += len(s)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, cmd)
	for _, s := range payload {
		b = append(b, s...)
	}
	return b
}

// cutFrame takes the first frame off b. The payload is part of b; size is 0 if
// the frame is not complete yet.
func cutFrame(b []byte) (cmd byte, payload []byte, size int, err error) {
	if len(b) < frameHeader+1 {
		return 0, nil, 0, nil
	}
	n := int(binary.BigEndian.Uint32(b))
	if n == 0 || n > maxAnswer {
		return 0, nil, 0, fmt.Errorf("frame of %d octets", n)
	}
	if len(b) < frameHeader+n {
		return 0, nil, 0, nil
	}
	return b[frameHeader], b[frameHeader+1 : frameHeader+n], frameHeader + n, nil
}

// offer is what Postfix 3.7 offers: version 6, every action, every protocol
// bit.
var offer = appendFrame(nil, cmdOptNeg, words(6, 0x1ff, 0x1fffff))

func words(w ...uint32) string {
	var b []byte
	for _, v := range w {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return string(b)
}

// Bits of the negotiation (SMFIP_*): what is not sent, what is not answered.
const (
	noConnect = 1 << 0
	noHelo    = 1 << 1
	noMail    = 1 << 2
	noRcpt    = 1 << 3
	noBody    = 1 << 4
	noHeaders = 1 << 5
	noEOH     = 1 << 6
	nrHeader  = 1 << 7
	noUnknown = 1 << 8
	noData    = 1 << 9
	nrConnect = 1 << 12
	nrHelo    = 1 << 13
	nrMail    = 1 << 14
	nrRcpt    = 1 << 15
	nrData    = 1 << 16
	nrUnknown = 1 << 17
	nrEOH     = 1 << 18
	nrBody    = 1 << 19
)

// dataVersion is the first version of the protocol with a DATA command.
const dataVersion = 4

// agreement is a milter's answer to the offer.
type agreement struct {
	version, protocol uint32
	symLists          map[uint32]string // macro names by stage; nil: the MTA's own lists
}

func parseAgreement(p []byte) (agreement, error) {
	if len(p) < 12 {
		return agreement{}, fmt.Errorf("negotiation: answer of %d octets", len(p))
	}
	a := agreement{version: binary.BigEndian.Uint32(p), protocol: binary.BigEndian.Uint32(p[8:])}
	for p = p[12:]; len(p) > 0; {
		if len(p) < 5 {
			return a, fmt.Errorf("negotiation: %d stray octets behind the macro lists", len(p))
		}
		stage := binary.BigEndian.Uint32(p)
		end := 4
		for end < len(p) && p[end] != 0 {
			end++
		}
		if end == len(p) {
			return a, fmt.Errorf("negotiation: macro list without NUL")
		}
		if a.symLists == nil {
			a.symLists = map[uint32]string{}
		}
		a.symLists[stage] = string(p[4:end])
		p = p[end+1:]
	}
	return a, nil
}

func (a agreement) has(bit uint32) bool { return bit != 0 && a.protocol&bit != 0 }
