package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
)

// The raw milter is what the protocol itself costs a Go program: it reads frame
// after frame, looks at the command alone, and answers at RCPT and at end of
// message, as the guard does.

// rawAgreement keeps the MTA from sending DATA and unknown commands and from
// waiting where nothing will be answered.
var rawAgreement = appendFrame(nil, cmdOptNeg, words(6, 0,
	noUnknown|noData|nrConnect|nrHelo|nrMail|nrData|nrUnknown|nrHeader|nrEOH|nrBody))

func serveRaw(socket string) error {
	l, err := listen(socket)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			defer c.Close()
			rawSession(c)
		}()
	}
}

// rawSession ends with the connection, whatever the reason.
func rawSession(c net.Conn) {
	in := bufio.NewReaderSize(c, 16<<10)
	goOn := appendFrame(nil, ansContinue)
	for {
		head, err := in.Peek(frameHeader + 1)
		if err != nil {
			return
		}
		size, cmd := int(binary.BigEndian.Uint32(head)), head[frameHeader]
		if size == 0 || size > 1<<20 {
			return
		}
		if _, err := in.Discard(frameHeader + size); err != nil {
			return
		}
		switch cmd {
		case cmdOptNeg:
			_, err = c.Write(rawAgreement)
		case cmdRcpt, cmdEOM:
			_, err = c.Write(goOn)
		case cmdQuit:
			return
		}
		if err != nil {
			return
		}
	}
}
