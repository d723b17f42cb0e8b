// Package resolve asks recursive name servers, each answer as it came, and finds
// out which of them the machine uses and how they work.
//
// The trap: an answer that is missing has many forms, and libraries make one of
// them. Here "no such name", "no such record", "the server failed", "the server
// will not" and "nobody said anything" stay apart; and a message that ends before
// its records do is none of them, though it reads like "no such record".
package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/miekg/dns"

	"relayguard/rbl"
)

// usualTimeout is long enough for a recursive server that has to ask several
// others, one of them silent, for the first time.
const usualTimeout = 5 * time.Second

// mostUDP is read of one datagram. We say that we take 1,232 octets; some servers
// send more than they were told.
const mostUDP = 4096

// Server is one name server. It implements rbl.Resolver.
type Server struct {
	address string
	timeout time.Duration
}

// New makes one of "127.0.0.1:53". timeout is for one question with its repeat over
// UDP, and once more for TCP after truncation; 0 or less is 5 s.
func New(address string, timeout time.Duration) *Server {
	if timeout <= 0 {
		timeout = usualTimeout
	}
	return &Server{address: address, timeout: timeout}
}

// Name is the address.
func (s *Server) Name() string { return s.address }

// Ask asks over UDP, with one repeat after a third of the time, and over TCP if the
// answer does not fit. What does not answer the question is passed over: whoever
// guesses wrongly shall not end it. No name ("") is the root.
func (s *Server) Ask(ctx context.Context, name string, t rbl.Type) rbl.Response {
	q, err := newQuery(name, t)
	if err != nil {
		return s.failed(err)
	}
	m, err := s.overUDP(ctx, q)
	if err == nil && m.Truncated {
		m, err = s.overTCP(ctx, q)
	}
	if err != nil {
		return s.failed(err)
	}
	r := q.response(m)
	r.Server = s.address
	if r.Err != nil {
		r.Err = fmt.Errorf("ask %s: %w", s.address, plain(r.Err))
	}
	return r
}

// failed is the response where there was no answer. Only what the network says is
// in the error, never the name.
func (s *Server) failed(err error) rbl.Response {
	outcome := rbl.Broken
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		outcome = rbl.TimedOut
	}
	return rbl.Response{Outcome: outcome, Server: s.address, Err: fmt.Errorf("ask %s: %w", s.address, plain(err))}
}

func (s *Server) overUDP(ctx context.Context, q *query) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	m, err := s.exchangeUDP(ctx, q)
	if err == nil && !q.plain && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		// It may be too old for EDNS (RFC 6891 §7).
		if err := q.withoutEDNS(); err != nil {
			return nil, err
		}
		return s.exchangeUDP(ctx, q)
	}
	return m, err
}

// exchangeUDP uses a socket of its own for each question, so that its port is one
// more thing to guess, and a connected one, so that only the server is heard and a
// port where nobody listens is known at once.
func (s *Server) exchangeUDP(ctx context.Context, q *query) (*dns.Msg, error) {
	conn, done, err := dial(ctx, "udp", s.address)
	if err != nil {
		return nil, err
	}
	defer done()
	end, _ := ctx.Deadline()
	until := [...]time.Time{time.Now().Add(time.Until(end) / 3), end}
	var strange error
	buffer := make([]byte, mostUDP)
	for _, deadline := range until {
		if _, err := conn.Write(q.raw); err != nil {
			return nil, ended(ctx, err)
		}
		if err := conn.SetReadDeadline(deadline); err != nil {
			return nil, ended(ctx, err)
		}
		m, err := listen(conn, q, buffer, &strange)
		// At the end either ctx closes the connection or the read gives up first.
		if err = ended(ctx, err); !errors.Is(err, context.DeadlineExceeded) {
			return m, err
		}
	}
	if strange != nil {
		return nil, strange
	}
	return nil, context.DeadlineExceeded
}

// listen reads until something answers the question. strange is set to what is
// wrong with a message from the server that cannot be read.
func listen(conn net.Conn, q *query, buffer []byte, strange *error) (*dns.Msg, error) {
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		m, err := q.read(buffer[:n])
		if err == nil {
			return m, nil
		}
		if errors.Is(err, errUnreadable) {
			*strange = err
		}
	}
}

func (s *Server) overTCP(ctx context.Context, q *query) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, done, err := dial(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	defer done()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(q.raw))), q.raw...)
	if _, err := conn.Write(framed); err != nil {
		return nil, ended(ctx, err)
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, ended(ctx, fmt.Errorf("over TCP: %w", err))
	}
	raw := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, raw); err != nil {
		return nil, ended(ctx, fmt.Errorf("over TCP: %w", err))
	}
	m, err := q.read(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("over TCP: %w", err)
	case m.Truncated:
		return nil, errors.New("the answer is truncated over TCP, too")
	}
	return m, nil
}

// dial connects. The connection ends with ctx, so that whoever reads from it does
// not wait longer; done ends it, too.
func dial(ctx context.Context, network, address string) (conn net.Conn, done func(), err error) {
	var d net.Dialer
	conn, err = d.DialContext(ctx, network, address)
	if err != nil {
		return nil, nil, ended(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() {
		stop()
		_ = conn.Close()
	}, nil
}

// ended puts the end of ctx, or of the time, in the place of the errors that it causes.
func ended(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &timeout) && timeout.Timeout(): // a deadline of ours, or the dialer, is a little before ctx
		return context.DeadlineExceeded
	}
	return err
}

// plain is what went wrong without the ports of one attempt, so that it reads the same
// for every question.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		var call *os.SyscallError
		if errors.As(op.Err, &call) {
			return call.Err
		}
		return op.Err
	}
	return err
}
