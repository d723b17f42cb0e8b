// Package probe asks SMTP services, whichever mail server they belong to, what
// only asking tells: whether they relay for strangers, and whether they then
// have a session on a milter's socket. It never sends a message.
package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Relay asks an SMTP service, as a client without AUTH, whether it would
// take mail to the outside. It never sends DATA.
type Relay interface {
	Relays(ctx context.Context, address string, wrapped bool) (Answer, error)
}

// Answer is what a service said to a recipient outside.
type Answer struct {
	Code     int    // of the reply that ended the question
	Text     string // all of that reply
	At       string // the command it answered: "RCPT"
	Stranger bool   // asked in the name of a foreign address (XCLIENT), not as a loopback client
}

// Names that belong to nobody: RFC 2606, RFC 5737.
const (
	From     = "relayguard-probe@example.com"
	To       = "relayguard-probe@example.net"
	Stranger = "192.0.2.1"
)

const (
	Wait        = 20 * time.Second // for all of a question; postscreen greets after 6 s
	maxReplies  = 100
	maxDialogue = 1 << 20 // octets of all replies; a line of theirs may have no end
)

// SMTP is the Relay over real SMTP.
type SMTP struct {
	From string // envelope sender; empty: an address in example.com
}

// Relays asks the service at address; wrapped means TLS from the first octet.
func (p SMTP) Relays(ctx context.Context, address string, wrapped bool) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, Wait)
	defer cancel()
	answer, err := p.ask(ctx, address, wrapped)
	if err != nil {
		return Answer{}, fmt.Errorf("ask %s whether it relays: %w", address, err)
	}
	return answer, nil
}

func (p SMTP) ask(ctx context.Context, address string, wrapped bool) (Answer, error) {
	c, err := dial(ctx, address, wrapped)
	if err != nil {
		return Answer{}, err
	}
	defer c.conn.Close()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	if code, text, err := c.reply(); err != nil || code != 220 {
		return Answer{Code: code, Text: text, At: "connect"}, err
	}
	code, features, err := c.say("EHLO localhost")
	if err != nil || code != 250 {
		return Answer{Code: code, Text: features, At: "EHLO"}, err
	}
	if !wrapped && offers(features, "STARTTLS") {
		if code, _, err := c.say("STARTTLS"); err != nil {
			return Answer{}, err
		} else if code == 220 {
			c = newDialogue(tls.Client(c.conn, unverified))
			if _, features, err = c.say("EHLO localhost"); err != nil {
				return Answer{}, err
			}
		}
	}
	stranger := false
	if offers(features, "XCLIENT") {
		code, _, err := c.say("XCLIENT NAME=[UNAVAILABLE] ADDR=" + Stranger)
		if err != nil {
			return Answer{}, err
		}
		if stranger = code == 220; stranger {
			if _, _, err := c.say("EHLO relayguard-probe.example.com"); err != nil {
				return Answer{}, err
			}
		}
	}
	answer, err := c.transaction(p.From)
	answer.Stranger = stranger
	return answer, err
}

func (c *dialogue) transaction(from string) (Answer, error) {
	if from == "" {
		from = From
	}
	defer c.say("QUIT")
	code, text, err := c.say("MAIL FROM:<" + from + ">")
	if err != nil || code/100 != 2 {
		return Answer{Code: code, Text: text, At: "MAIL"}, err
	}
	code, text, err = c.say("RCPT TO:<" + To + ">")
	if err != nil {
		return Answer{}, err
	}
	_, _, _ = c.say("RSET") // never DATA
	return Answer{Code: code, Text: text, At: "RCPT"}, nil
}

// Nothing secret is said: any certificate will do.
var unverified = &tls.Config{InsecureSkipVerify: true}

// dial connects; every read and write ends with ctx, which has a deadline.
func dial(ctx context.Context, address string, wrapped bool) (*dialogue, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if wrapped {
		conn = tls.Client(conn, unverified)
	}
	return newDialogue(conn), nil
}

type dialogue struct {
	conn net.Conn
	text *textproto.Reader
}

func newDialogue(conn net.Conn) *dialogue {
	return &dialogue{conn, textproto.NewReader(bufio.NewReader(io.LimitReader(conn, maxDialogue)))}
}

func (c *dialogue) say(line string) (int, string, error) {
	if strings.ContainsAny(line, "\r\n") {
		return 0, "", fmt.Errorf("SMTP command %q has a line end", line)
	}
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		return 0, "", err
	}
	return c.reply()
}

// reply reads one reply, however many lines it has up to maxReplies.
func (c *dialogue) reply() (int, string, error) {
	var lines []string
	for range maxReplies {
		line, err := c.text.ReadLine()
		if err != nil {
			return 0, "", err
		}
		if len(line) < 3 {
			return 0, "", fmt.Errorf("got reply %q", line)
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil {
			return 0, "", fmt.Errorf("got reply %q", line)
		}
		lines = append(lines, strings.TrimLeft(line[3:], " -"))
		if len(line) == 3 || line[3] != '-' {
			return code, strings.Join(lines, "\n"), nil
		}
	}
	return 0, "", errors.New("reply has no end")
}

func offers(features, name string) bool {
	for line := range strings.Lines(features) {
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.EqualFold(word, name) {
			return true
		}
	}
	return false
}
