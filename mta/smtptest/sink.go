package smtptest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// sinkIdle is how long the sink waits for a peer's next line.
const sinkIdle = 5 * time.Minute

// Mail is one message that the sink accepted.
type Mail struct {
	MailFrom string
	MailArgs string   // ESMTP arguments of MAIL, as sent
	RcptTo   []string // those that were accepted
	Data     []byte   // CRLF lines, dots unstuffed
	At       time.Time
}

// Sink is an SMTP server that accepts every message for every recipient,
// except those that Refuse names, and keeps them. Safe for concurrent use.
type Sink struct {
	listener net.Listener
	sessions sync.WaitGroup

	mu      sync.Mutex
	mails   []Mail
	changed chan struct{} // closed and replaced at each arrival
	refused map[string]Reply
	conns   map[net.Conn]struct{}
	closed  bool
}

// NewSink listens on a free loopback port. Close it.
func NewSink() (*Sink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the SMTP sink: %w", err)
	}
	s := &Sink{
		listener: listener,
		changed:  make(chan struct{}),
		refused:  make(map[string]Reply),
		conns:    make(map[net.Conn]struct{}),
	}
	s.sessions.Go(s.accept)
	return s, nil
}

// Addr is the host:port that it listens on.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Refuse makes RCPT TO:<address> be answered with that reply from now on; a
// zero reply ends it.
func (s *Sink) Refuse(address string, reply Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reply.Code == 0 {
		delete(s.refused, strings.ToLower(address))
		return
	}
	s.refused[strings.ToLower(address)] = reply
}

// All returns what arrived so far, in order of arrival.
func (s *Sink) All() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// Forget drops what arrived so far.
func (s *Sink) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = nil
}

// To returns what arrived so far for one recipient. Letter case is ignored.
func (s *Sink) To(address string) []Mail {
	var found []Mail
	for _, mail := range s.All() {
		if slices.ContainsFunc(mail.RcptTo, func(to string) bool { return strings.EqualFold(to, address) }) {
			found = append(found, mail)
		}
	}
	return found
}

// Wait returns the first mail that match accepts, waiting until it arrives or
// ctx ends.
func (s *Sink) Wait(ctx context.Context, match func(Mail) bool) (Mail, error) {
	for {
		s.mu.Lock()
		mails, changed := s.mails, s.changed
		s.mu.Unlock()
		if i := slices.IndexFunc(mails, match); i >= 0 {
			return mails[i], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Mail{}, fmt.Errorf("wait for mail at the sink, %d others arrived: %w", len(mails), ctx.Err())
		}
	}
}

// WaitFor returns the first mail for a recipient, waiting until it arrives.
func (s *Sink) WaitFor(ctx context.Context, address string) (Mail, error) {
	mail, err := s.Wait(ctx, func(m Mail) bool {
		return slices.ContainsFunc(m.RcptTo, func(to string) bool { return strings.EqualFold(to, address) })
	})
	if err != nil {
		return mail, fmt.Errorf("mail for %s: %w", address, err)
	}
	return mail, nil
}

// Close ends the sink and its sessions, and waits for them.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	err := s.listener.Close()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.sessions.Wait()
	return err
}

func (s *Sink) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			s.mu.Lock()
			closed := s.closed
			s.mu.Unlock()
			if closed {
				return
			}
			time.Sleep(10 * time.Millisecond) // EMFILE and its kin pass
			continue
		}
		if !s.track(conn) {
			conn.Close()
			return
		}
		s.sessions.Go(func() {
			defer s.untrack(conn)
			serveSession(conn, s)
		})
	}
}

func (s *Sink) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Sink) untrack(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

func (s *Sink) keep(mail Mail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, mail)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Sink) refusal(address string) (Reply, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply, ok := s.refused[strings.ToLower(address)]
	return reply, ok
}

// serveSession speaks with one SMTP client until it leaves.
func serveSession(conn net.Conn, s *Sink) {
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	say := func(lines ...string) {
		for _, line := range lines {
			out.WriteString(line + "\r\n")
		}
		if in.Buffered() == 0 { // else the peer pipelines
			out.Flush()
		}
	}
	var mail Mail
	say("220 sink.invalid ESMTP test sink")
	for {
		conn.SetReadDeadline(time.Now().Add(sinkIdle))
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-sink.invalid", "250-PIPELINING", "250-8BITMIME", "250-SMTPUTF8",
				"250-ENHANCEDSTATUSCODES", "250 SIZE 0")
		case "HELO", "NOOP":
			say("250 2.0.0 Ok")
		case "RSET":
			mail = Mail{}
			say("250 2.0.0 Ok")
		case "MAIL":
			mail = Mail{}
			mail.MailFrom, mail.MailArgs = path(rest)
			say("250 2.1.0 Ok")
		case "RCPT":
			to, _ := path(rest)
			if reply, ok := s.refusal(to); ok {
				say(fmt.Sprintf("%d %s", reply.Code, strings.Join(reply.Lines, " ")))
				continue
			}
			mail.RcptTo = append(mail.RcptTo, to)
			say("250 2.1.5 Ok")
		case "DATA":
			if len(mail.RcptTo) == 0 {
				say("503 5.5.1 No recipients")
				continue
			}
			out.WriteString("354 Go ahead\r\n")
			out.Flush()
			if mail.Data, err = readData(in); err != nil {
				return
			}
			mail.At = time.Now()
			s.keep(mail)
			mail = Mail{}
			say("250 2.0.0 Ok, kept")
		case "QUIT":
			say("221 2.0.0 Bye")
			out.Flush()
			return
		default:
			say("502 5.5.2 Not known here")
		}
	}
}

// path splits "FROM:<a@b> ARGS" into address and arguments.
func path(rest string) (address, args string) {
	_, rest, _ = strings.Cut(rest, ":")
	rest = strings.TrimSpace(rest)
	if !strings.HasPrefix(rest, "<") {
		address, args, _ = strings.Cut(rest, " ")
		return address, args
	}
	end := strings.LastIndex(rest, ">")
	if end < 0 {
		return rest[1:], ""
	}
	return rest[1:end], strings.TrimSpace(rest[end+1:])
}

// readData reads to the final dot and takes dot-stuffing off.
func readData(in *bufio.Reader) ([]byte, error) {
	var data bytes.Buffer
	atStart := true // of a line; ReadSlice cuts long ones
	for {
		piece, err := in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read message: %w", err)
		}
		whole := err == nil
		if atStart && len(piece) > 0 && piece[0] == '.' {
			if string(piece) == ".\r\n" || string(piece) == ".\n" {
				return data.Bytes(), nil
			}
			piece = piece[1:]
		}
		data.Write(piece)
		atStart = whole
	}
}
