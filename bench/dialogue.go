package main

import (
	"slices"
	"strings"
)

// step is what is sent in one write, up to the next answer that the milter
// owes.
type step struct {
	out   []byte
	after byte // the command that is answered
}

// dialogue is all that the generator says to one milter, encoded once, in
// Postfix's order and with its macro packets. What gets no answer goes out
// with what follows, as from Postfix's stream buffer.
type dialogue struct {
	open     []step // connect and HELO, where they are answered
	first    []byte // of them what is not answered: it precedes the first message
	messages [][]step
	quit     []byte

	agreement agreement
}

// variants is the number of different messages.
const variants = 512

var abort = appendFrame(nil, cmdAbort)

// newDialogue encodes the mails for a milter that agreed to a.
func newDialogue(a agreement, mails []mail) *dialogue {
	e := encoder{agreement: a, local: len(mails) > 0 && mails[0].local}
	e.connect()
	d := &dialogue{open: e.steps, first: e.out, quit: appendFrame(slices.Clone(abort), cmdQuit), agreement: a}
	for i := range mails {
		d.messages = append(d.messages, d.encode(&mails[i]))
	}
	return d
}

// encode encodes one mail.
func (d *dialogue) encode(m *mail) []step {
	e := encoder{agreement: d.agreement, local: m.local, out: slices.Clone(abort)} // of the message before; the loop cuts it off the first
	e.message(m)
	return e.steps
}

// encoder collects steps.
type encoder struct {
	agreement
	steps []step
	out   []byte
	mail  *mail
	local bool // by sendmail(1): no client, no login
}

// say adds a command with its macros. skip is the bit by which the milter does
// not want to hear it, quiet the one by which it does not answer.
func (e *encoder) say(cmd byte, skip, quiet uint32, payload ...string) {
	e.out = appendFrame(e.out, cmdMacro, string(cmd)+e.macros(cmd)) // also before a command that is skipped
	if e.has(skip) {
		return
	}
	e.out = appendFrame(e.out, cmd, payload...)
	if !e.has(quiet) {
		e.steps = append(e.steps, step{e.out, cmd})
		e.out = nil
	}
}

func (e *encoder) connect() {
	if e.local { // as cleanup(8) says of pickup's mail
		e.say(cmdConnect, noConnect, nrConnect, "localhost", "\x00", "4", "\x00\x00", "127.0.0.1", "\x00")
		e.say(cmdHelo, noHelo, nrHelo, "localhost", "\x00")
		return
	}
	e.say(cmdConnect, noConnect, nrConnect, "client.example.org", "\x00", "4", "\xc3\x50", "203.0.113.7", "\x00")
	e.say(cmdHelo, noHelo, nrHelo, "client.example.org", "\x00")
}

func (e *encoder) message(m *mail) {
	e.mail = m
	e.say(cmdMail, noMail, nrMail, "<"+m.from+">", "\x00", "SIZE=4096", "\x00", "BODY=8BITMIME", "\x00")
	e.say(cmdRcpt, noRcpt, nrRcpt, "<"+m.to+">", "\x00", "ORCPT=rfc822;"+m.to, "\x00")
	if e.version >= dataVersion {
		e.say(cmdData, noData, nrData)
	}
	for _, h := range m.header {
		value := strings.ReplaceAll(h[1], "\r\n", "\n") // as Postfix sends a folded field
		e.say(cmdHeader, noHeaders, nrHeader, h[0], "\x00", value, "\x00")
	}
	e.say(cmdEOH, noEOH, nrEOH)
	e.say(cmdBody, noBody, nrBody, m.body)
	e.say(cmdEOM, 0, 0)
}

// defaultMacros are those that Postfix sends unasked, by command.
var defaultMacros = map[byte]string{
	cmdConnect: "j {daemon_name} {daemon_addr} v _",
	cmdHelo:    "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
	cmdMail:    "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
	cmdRcpt:    "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
	cmdData:    "i",
	cmdHeader:  "i",
	cmdEOH:     "i",
	cmdBody:    "i",
	cmdEOM:     "i",
}

// listOf says which macro list a command's packet comes from: Postfix sends
// those of end-of-header with each field, those of end of message with the
// body.
var listOf = map[byte]uint32{
	cmdConnect: 0, cmdHelo: 1, cmdMail: 2, cmdRcpt: 3, cmdData: 4, cmdEOM: 5, cmdBody: 5, cmdEOH: 6, cmdHeader: 6,
}

// macros are names and values of a command's packet; what has no value yet is
// not sent.
func (e *encoder) macros(cmd byte) string {
	names := defaultMacros[cmd]
	if e.symLists != nil {
		names = e.symLists[listOf[cmd]]
	}
	var b strings.Builder
	for name := range strings.FieldsSeq(names) {
		if value := e.macro(cmd, name); value != "" {
			b.WriteString(name + "\x00" + value + "\x00")
		}
	}
	return b.String()
}

func (e *encoder) macro(cmd byte, name string) string {
	if e.local {
		switch name {
		case "_":
			return "localhost [127.0.0.1]"
		case "{daemon_name}":
			return "LOCAL-PICKUP"
		case "{daemon_addr}", "{daemon_port}", "{auth_type}", "{auth_authen}":
			return ""
		}
	}
	switch name {
	case "j":
		return "relay." + insideDomain
	case "v":
		return "Postfix 3.7.11"
	case "_":
		return "client.example.org [203.0.113.7]"
	case "{daemon_name}":
		return "ORIGINATING"
	case "{daemon_addr}":
		return "192.0.2.25"
	case "{daemon_port}":
		return "587"
	}
	if e.mail == nil {
		return ""
	}
	switch name {
	case "i":
		if cmd == cmdMail || cmd == cmdRcpt { // the queue file is opened after the first recipient
			return ""
		}
		return e.mail.queueID
	case "{auth_type}":
		return "PLAIN"
	case "{auth_authen}":
		return e.mail.login
	case "{mail_addr}":
		return e.mail.from
	case "{mail_host}":
		return insideDomain
	case "{mail_mailer}", "{rcpt_mailer}":
		return "smtp"
	case "{rcpt_addr}":
		return e.mail.to
	case "{rcpt_host}":
		return outsideDomain
	}
	return ""
}
