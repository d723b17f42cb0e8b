package smtptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"time"
)

// replyTimeout bounds the wait for one reply. It is longer than the time that
// Postfix waits for a milter (30 s), so that a test sees Postfix's own answer.
const replyTimeout = 60 * time.Second

// Client is one SMTP session, driven command by command. Methods return an
// error only when the connection fails; what the server says is the Reply.
// A Client is for one goroutine.
type Client struct {
	// Greeting is the banner.
	Greeting Reply
	// Timeout bounds the wait for each reply; Dial sets a default.
	Timeout time.Duration

	conn net.Conn
	in   *bufio.Reader
}

// Dial connects and reads the banner, which need not be a 220.
func Dial(ctx context.Context, addr string) (*Client, error) { return DialFrom(ctx, nil, addr) }

// DialFrom is Dial from an address of this machine.
func DialFrom(ctx context.Context, from net.Addr, addr string) (*Client, error) {
	dialer := net.Dialer{LocalAddr: from}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to SMTP server %s: %w", addr, err)
	}
	c := &Client{Timeout: replyTimeout, conn: conn, in: bufio.NewReader(conn)}
	if deadline, ok := ctx.Deadline(); ok {
		c.Timeout = max(time.Until(deadline), time.Millisecond)
	}
	if c.Greeting, err = c.Read(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("banner of %s: %w", addr, err)
	}
	c.Timeout = replyTimeout
	return c, nil
}

// LocalPort is the client's own TCP port.
func (c *Client) LocalPort() int { return c.conn.LocalAddr().(*net.TCPAddr).Port }

// Write sends bytes as they are: half a command, a pipeline, rubbish.
func (c *Client) Write(raw string) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.Timeout)); err != nil {
		return fmt.Errorf("send %.40q: %w", raw, err)
	}
	if _, err := c.conn.Write([]byte(raw)); err != nil {
		return fmt.Errorf("send %.40q: %w", raw, err)
	}
	return nil
}

// Read reads one reply.
func (c *Client) Read() (Reply, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.Timeout)); err != nil {
		return Reply{}, fmt.Errorf("read SMTP reply: %w", err)
	}
	return readReply(c.in)
}

// Cmd sends one line and reads one reply.
func (c *Client) Cmd(format string, args ...any) (Reply, error) {
	line := fmt.Sprintf(format, args...)
	if err := c.Write(line + "\r\n"); err != nil {
		return Reply{}, err
	}
	reply, err := c.Read()
	if err != nil {
		return reply, fmt.Errorf("after %.60q: %w", line, err)
	}
	return reply, nil
}

// Pipeline sends all lines in one write, then reads as many replies
// (RFC 2920).
func (c *Client) Pipeline(lines ...string) ([]Reply, error) {
	if err := c.Write(strings.Join(lines, "\r\n") + "\r\n"); err != nil {
		return nil, err
	}
	replies := make([]Reply, 0, len(lines))
	for _, line := range lines {
		reply, err := c.Read()
		if err != nil {
			return replies, fmt.Errorf("after %.60q: %w", line, err)
		}
		replies = append(replies, reply)
	}
	return replies, nil
}

// Ehlo says EHLO name.
func (c *Client) Ehlo(name string) (Reply, error) { return c.Cmd("EHLO %s", name) }

// Auth says AUTH PLAIN with an initial response (RFC 4616).
func (c *Client) Auth(login, password string) (Reply, error) {
	secret := "\x00" + login + "\x00" + password
	return c.Cmd("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte(secret)))
}

// XClient says XCLIENT with attributes such as "ADDR=203.0.113.7". Its reply
// is a new banner: the session is back before EHLO.
func (c *Client) XClient(attributes ...string) (Reply, error) {
	return c.Cmd("XCLIENT %s", strings.Join(attributes, " "))
}

// StartTLS says STARTTLS and does the handshake if the server agrees. The
// session is then back before EHLO.
func (c *Client) StartTLS(config *tls.Config) (Reply, error) {
	reply, err := c.Cmd("STARTTLS")
	if err != nil || reply.Code != 220 {
		return reply, err
	}
	secured := tls.Client(c.conn, config)
	if err := c.conn.SetDeadline(time.Now().Add(c.Timeout)); err != nil {
		return reply, fmt.Errorf("TLS handshake: %w", err)
	}
	if err := secured.Handshake(); err != nil {
		return reply, fmt.Errorf("TLS handshake: %w", err)
	}
	c.conn, c.in = secured, bufio.NewReader(secured)
	return reply, nil
}

// Mail says MAIL FROM:<from> with ESMTP arguments such as "SIZE=20".
func (c *Client) Mail(from string, args ...string) (Reply, error) {
	return c.Cmd("%s", strings.Join(append([]string{"MAIL FROM:<" + from + ">"}, args...), " "))
}

// Rcpt says RCPT TO:<to> with ESMTP arguments.
func (c *Client) Rcpt(to string, args ...string) (Reply, error) {
	return c.Cmd("%s", strings.Join(append([]string{"RCPT TO:<" + to + ">"}, args...), " "))
}

// Data says DATA and, if invited to by a 354, sends the message and the final
// dot; the reply is the last one read.
func (c *Client) Data(message string) (Reply, error) {
	reply, err := c.Cmd("DATA")
	if err != nil || reply.Code != 354 {
		return reply, err
	}
	return c.Message(message)
}

// Message sends what follows a 354: the message, made of CRLF lines and
// dot-stuffed, and the final dot.
func (c *Client) Message(message string) (Reply, error) {
	if err := c.Write(Stuff(message) + ".\r\n"); err != nil {
		return Reply{}, err
	}
	reply, err := c.Read()
	if err != nil {
		return reply, fmt.Errorf("after the final dot: %w", err)
	}
	return reply, nil
}

// Bdat sends one chunk (RFC 3030).
func (c *Client) Bdat(chunk string, last bool) (Reply, error) {
	command := fmt.Sprintf("BDAT %d", len(chunk))
	if last {
		command += " LAST"
	}
	if err := c.Write(command + "\r\n" + chunk); err != nil {
		return Reply{}, err
	}
	return c.Read()
}

// Rset says RSET.
func (c *Client) Rset() (Reply, error) { return c.Cmd("RSET") }

// Quit says QUIT and closes the connection.
func (c *Client) Quit() (Reply, error) {
	defer c.conn.Close()
	return c.Cmd("QUIT")
}

// Close closes the connection without a word, as a client that vanishes. It
// may follow Quit.
func (c *Client) Close() error { return c.conn.Close() }

// Reset closes the connection with a TCP reset.
func (c *Client) Reset() error {
	conn := c.conn
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// The next Close then sends RST; should it not be settable, FIN does.
		_ = tcp.SetLinger(0)
	}
	return conn.Close()
}

// Stuff makes CRLF of bare line feeds, ends the last line and doubles leading
// dots (RFC 5321 §4.5.2).
func Stuff(message string) string {
	message = strings.ReplaceAll(message, "\r\n", "\n")
	if message != "" && !strings.HasSuffix(message, "\n") {
		message += "\n"
	}
	var out strings.Builder
	out.Grow(len(message) + len(message)/40 + 16)
	for line := range strings.Lines(message) {
		if line[0] == '.' {
			out.WriteByte('.')
		}
		out.WriteString(line[:len(line)-1])
		out.WriteString("\r\n")
	}
	return out.String()
}
