package incident

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Syslog writes alerts to the system's log as RFC 3164 datagrams, facility mail.
// The zero value writes to /dev/log as "relayguard". One goroutine at a time.
type Syslog struct {
	Path string // socket; default /dev/log
	Tag  string // program name; default "relayguard"

	conn *net.UnixConn
}

// Facility and severities: RFC 3164 §4.1.1.
const (
	facilityMail    = 2
	severityWarning = 4
	severityNotice  = 5

	syslogTimeout = time.Second // a full socket is a log daemon that hangs
	maxTag        = 32
)

// Name implements Channel.
func (s *Syslog) Name() string { return "syslog" }

// Deliver implements Channel. A log daemon that was restarted is found again.
func (s *Syslog) Deliver(ctx context.Context, a Alert) error {
	line := s.frame(&a)
	deadline := time.Now().Add(syslogTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if s.conn != nil {
		if err := s.write(line, deadline); err == nil {
			return nil
		}
	}
	if err := s.dial(); err != nil {
		return err
	}
	return s.write(line, deadline)
}

func (s *Syslog) path() string {
	if s.Path == "" {
		return "/dev/log"
	}
	return s.Path
}

func (s *Syslog) dial() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path(), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("connect to the system log: %w", err) // names the socket
	}
	s.conn = conn
	return nil
}

func (s *Syslog) write(line []byte, deadline time.Time) error {
	err := s.conn.SetWriteDeadline(deadline)
	if err == nil {
		_, err = s.conn.Write(line)
	}
	if err != nil {
		s.conn.Close()
		s.conn = nil
		return fmt.Errorf("write to the system log %s: %w", s.path(), err)
	}
	return nil
}

// frame is the datagram: priority, local time, tag, text. The host's name is
// left to the daemon, as syslog(3) does.
func (s *Syslog) frame(a *Alert) []byte {
	tag := s.Tag
	if tag == "" {
		tag = "relayguard"
	}
	tag = strings.NewReplacer(":", "_", "[", "_", "]", "_", " ", "_").Replace(escape(tag, maxTag))
	return fmt.Appendf(nil, "<%d>%s %s[%d]: %s", facilityMail<<3|severityOf(a.Event), a.Time.Local().Format(time.Stamp), tag, os.Getpid(), escape(a.Text, maxText))
}

func severityOf(e Event) int {
	if e == Closed || e == Notice || e == Alive {
		return severityNotice
	}
	return severityWarning
}

// Close ends the connection. The zero value may be closed.
func (s *Syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	conn := s.conn
	s.conn = nil
	return conn.Close()
}
