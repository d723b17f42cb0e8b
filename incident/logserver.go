package incident

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// LogServer sends alerts to another machine's log: RFC 5424 lines, over UDP (RFC
// 5426), over TCP with octet counting (RFC 6587 §3.4.1) or over TLS (RFC 5425).
// UDP tells nobody whether they arrived. One goroutine at a time.
type LogServer struct {
	URL  string // "udp://host:port", "tcp://host:port", "tls://host:port"
	Host string // this machine's name; "": not said
	TLS  *tls.Config

	conn net.Conn
}

// Name implements Channel.
func (s *LogServer) Name() string { return "syslog_server" }

// Deliver implements Channel. A connection that the server closed is made again.
func (s *LogServer) Deliver(ctx context.Context, a Alert) error {
	line := s.frame(&a)
	if s.conn != nil {
		if s.write(ctx, line) == nil {
			return nil
		}
		s.Close()
	}
	if err := s.dial(ctx); err != nil {
		return err
	}
	if err := s.write(ctx, line); err != nil {
		s.Close()
		return fmt.Errorf("write to the log server %s: %w", s.URL, err)
	}
	return nil
}

func (s *LogServer) dial(ctx context.Context) error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return fmt.Errorf("connect to the log server: %w", err)
	}
	var d interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = &net.Dialer{}
	network := u.Scheme
	if network == "tls" {
		d, network = &tls.Dialer{Config: s.TLS}, "tcp"
	}
	if s.conn, err = d.DialContext(ctx, network, u.Host); err != nil {
		s.conn = nil
		return fmt.Errorf("connect to the log server %s: %w", s.URL, err)
	}
	return nil
}

// write sends a line. Over TCP a server that is gone is often seen only by
// reading: a log server never says anything.
func (s *LogServer) write(ctx context.Context, line []byte) error {
	deadline := time.Now().Add(10 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if _, datagrams := s.conn.(*net.UDPConn); !datagrams {
		if gone(s.conn) {
			return net.ErrClosed
		}
		line = fmt.Appendf(nil, "%d %s", len(line), line)
	}
	if err := s.conn.SetDeadline(deadline); err != nil {
		return err
	}
	_, err := s.conn.Write(line)
	return err
}

// gone reports whether the other side has closed the connection by now.
func gone(c net.Conn) bool {
	if c.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
		return true
	}
	var one [1]byte
	_, err := c.Read(one[:])
	timeout, ok := err.(net.Error)
	return err != nil && !(ok && timeout.Timeout())
}

// frame is RFC 5424 §6: <PRI>1 TIME HOST APP PID MSGID - TEXT.
func (s *LogServer) frame(a *Alert) []byte {
	host := strings.NewReplacer(" ", "_").Replace(escape(s.Host, 255))
	if host == "" {
		host = "-"
	}
	return fmt.Appendf(nil, "<%d>1 %s %s relayguard %d %s - %s", facilityMail<<3|severityOf(a.Event),
		a.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), host, os.Getpid(), a.Event, escape(a.Text, maxText))
}

// Close implements io.Closer. The zero value may be closed.
func (s *LogServer) Close() error {
	if s.conn == nil {
		return nil
	}
	conn := s.conn
	s.conn = nil
	return conn.Close()
}
