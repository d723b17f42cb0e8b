package postfix

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/mta"
)

// RelayProbe asks an SMTP service, as a client without AUTH, whether it would
// take mail to the outside. It never sends DATA.
type RelayProbe interface {
	Relays(ctx context.Context, address string, wrapped bool) (ProbeAnswer, error)
}

// ProbeAnswer is what a service said to a recipient outside.
type ProbeAnswer struct {
	Code     int    // of the reply that ended the question
	Text     string // all of that reply
	At       string // the command it answered: "RCPT"
	Stranger bool   // asked in the name of a foreign address (XCLIENT), not as a loopback client
}

// Names that belong to nobody: RFC 2606, RFC 5737.
const (
	probeFrom  = "relayguard-probe@example.com"
	probeTo    = "relayguard-probe@example.net"
	probeAs    = "192.0.2.1"
	probeWait  = 20 * time.Second // postscreen greets after 6 s
	maxReplies = 100
)

// SMTPProbe is the RelayProbe over real SMTP.
type SMTPProbe struct {
	From string // envelope sender; empty: an address in example.com
}

// Relays asks the service at address; wrapped means TLS from the first octet.
func (p SMTPProbe) Relays(ctx context.Context, address string, wrapped bool) (ProbeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	answer, err := p.ask(ctx, address, wrapped)
	if err != nil {
		return ProbeAnswer{}, fmt.Errorf("ask %s whether it relays: %w", address, err)
	}
	return answer, nil
}

func (p SMTPProbe) ask(ctx context.Context, address string, wrapped bool) (ProbeAnswer, error) {
	c, err := dialProbe(ctx, address, wrapped)
	if err != nil {
		return ProbeAnswer{}, err
	}
	defer c.conn.Close()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	if code, text, err := c.reply(); err != nil || code != 220 {
		return ProbeAnswer{Code: code, Text: text, At: "connect"}, err
	}
	code, features, err := c.say("EHLO localhost")
	if err != nil || code != 250 {
		return ProbeAnswer{Code: code, Text: features, At: "EHLO"}, err
	}
	if !wrapped && offers(features, "STARTTLS") {
		if code, _, err := c.say("STARTTLS"); err != nil {
			return ProbeAnswer{}, err
		} else if code == 220 {
			c = newProbeConn(tls.Client(c.conn, unverified))
			if _, features, err = c.say("EHLO localhost"); err != nil {
				return ProbeAnswer{}, err
			}
		}
	}
	stranger := false
	if offers(features, "XCLIENT") {
		code, _, err := c.say("XCLIENT NAME=[UNAVAILABLE] ADDR=" + probeAs)
		if err != nil {
			return ProbeAnswer{}, err
		}
		if stranger = code == 220; stranger {
			if _, _, err := c.say("EHLO relayguard-probe.example.com"); err != nil {
				return ProbeAnswer{}, err
			}
		}
	}
	answer, err := c.transaction(p.From)
	answer.Stranger = stranger
	return answer, err
}

func (c *probeConn) transaction(from string) (ProbeAnswer, error) {
	if from == "" {
		from = probeFrom
	}
	defer c.say("QUIT")
	code, text, err := c.say("MAIL FROM:<" + from + ">")
	if err != nil || code/100 != 2 {
		return ProbeAnswer{Code: code, Text: text, At: "MAIL"}, err
	}
	code, text, err = c.say("RCPT TO:<" + probeTo + ">")
	if err != nil {
		return ProbeAnswer{}, err
	}
	_, _, _ = c.say("RSET") // never DATA
	return ProbeAnswer{Code: code, Text: text, At: "RCPT"}, nil
}

// Nothing secret is said: any certificate will do.
var unverified = &tls.Config{InsecureSkipVerify: true}

// dialProbe connects; every read and write ends with ctx, which has a deadline.
func dialProbe(ctx context.Context, address string, wrapped bool) (*probeConn, error) {
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
	return newProbeConn(conn), nil
}

type probeConn struct {
	conn net.Conn
	text *textproto.Reader
}

func newProbeConn(conn net.Conn) *probeConn {
	return &probeConn{conn, textproto.NewReader(bufio.NewReader(conn))}
}

func (c *probeConn) say(line string) (int, string, error) {
	if strings.ContainsAny(line, "\r\n") {
		return 0, "", fmt.Errorf("SMTP command %q has a line end", line)
	}
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		return 0, "", err
	}
	return c.reply()
}

// reply reads one reply, however many lines it has up to maxReplies.
func (c *probeConn) reply() (int, string, error) {
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

// relays probes each SMTP service that can be reached from here.
func (r *report) relays(ctx context.Context) {
	if r.Probe == nil {
		return
	}
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		if s.Type != "inet" || s.Command != "smtpd" && s.Command != "postscreen" {
			continue
		}
		if f, found := r.relay(ctx, s); found {
			r.add(f)
		}
	}
}

func (r *report) relay(ctx context.Context, s *Service) (mta.Finding, bool) {
	unsure := mta.Finding{ID: "open-relay-unknown", Severity: mta.Info, Where: s.ID(), What: "", Why: "whether strangers may relay here cannot be told from this machine", Remedy: "ask from a foreign address: swaks --server THIS --from a@example.com --to b@example.net --quit-after RCPT"}
	address, err := dialAddress(s.Name)
	if err != nil {
		unsure.What = err.Error()
		return unsure, true
	}
	answer, err := r.Probe.Relays(ctx, address, isYes(r.effective(s, "smtpd_tls_wrappermode")))
	said := fmt.Sprintf("%s answered %d to %s", address, answer.Code, answer.At)
	switch {
	case err != nil:
		unsure.What = err.Error()
		return unsure, true
	case answer.At != "RCPT": // refused for another reason: it never came to the question
		unsure.What = said
		return unsure, true
	case answer.Code/100 != 2:
		return mta.Finding{}, false
	case !answer.Stranger && r.trustsLoopback(ctx, s):
		unsure.What = said + ", but mynetworks permits this machine"
		return unsure, true
	}
	return mta.Finding{ID: "open-relay", Severity: mta.Critical, Where: s.ID(), What: said + ": a client without AUTH may send to the outside",
		Why: "everybody sends through this server, and the guard refuses it only where it is attached as submission or relay", Remedy: "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination"}, true
}

func (r *report) trustsLoopback(ctx context.Context, s *Service) bool {
	prefixes, unread := r.Instance.networks(ctx, "mynetworks", r.effective(s, "mynetworks"))
	return len(unread) > 0 || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return p.Contains(netip.AddrFrom4([4]byte{127, 0, 0, 1})) || p.Contains(netip.IPv6Loopback())
	})
}

// dialAddress is where a master.cf inet service is reached from this machine.
func dialAddress(name string) (string, error) {
	host, port := "127.0.0.1", name
	if at := strings.LastIndexByte(name, ':'); at >= 0 {
		host, port = strings.Trim(name[:at], "[]"), name[at+1:]
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return "", fmt.Errorf("find port of service %s: %w", name, err)
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}
