// Package miltertest plays the MTA: it speaks the milter protocol from the wire
// up, well or badly, so that tests and benchmarks can say exactly what goes
// over it. It knows the protocol from libmilter's mfdef.h and Postfix's
// milter8.c and shares no code with package milter.
package miltertest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Offer is what the MTA offers in its negotiation.
type Offer struct{ Version, Actions, Protocol uint32 }

// Offers of the MTAs that matter.
var (
	Postfix37  = Offer{6, 0x1ff, 0x1fffff}
	Sendmail17 = Offer{6, 0x1ff, 0x1fffff}
	Ancient    = Offer{2, 0x3f, 0x7f} // no bit of version 6
)

// Bits of Offer.Protocol that a peer must know to stay in step (SMFIP_*).
const (
	noBody      = 1 << 4
	noData      = 1 << 9
	noUnknown   = 1 << 8
	nrHeader    = 1 << 7
	nrConnect   = 1 << 12
	nrHelo      = 1 << 13
	nrMail      = 1 << 14
	nrRcpt      = 1 << 15
	nrData      = 1 << 16
	nrUnknown   = 1 << 17
	nrEOH       = 1 << 18
	nrBody      = 1 << 19
	symListBit  = 1 << 8 // of Offer.Actions
	maxAnswer   = 1 << 20
	headerBytes = 5
)

// Peer is one connection to a milter. Not safe for concurrent use.
type Peer struct {
	net.Conn
	Agreed  Offer
	SymList map[uint32]string // macro names that the milter asked for, by stage

	// Macros are sent before every frame of their stage, also empty ones:
	// Postfix does so, header and body included.
	Macros map[byte][]string

	// Timeout bounds each answer; 10 s if zero.
	Timeout time.Duration

	br  *bufio.Reader
	out []byte
}

// Answer is one frame from the milter.
type Answer struct {
	Code byte
	Data []byte
}

// Text is the reply of a 'y' answer without its NUL.
func (a Answer) Text() string { return strings.TrimSuffix(string(a.Data), "\x00") }

// Result is what the milter said at end of message.
type Result struct {
	Final   Answer
	Changes []Answer // before it: 'q', 'm', 'h', ...
}

// Held reports whether the milter quarantined the message.
func (r Result) Held() bool {
	for _, c := range r.Changes {
		if c.Code == 'q' {
			return true
		}
	}
	return false
}

// Dial connects without negotiating.
func Dial(network, address string) (*Peer, error) {
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return New(c), nil
}

// New speaks over an open connection.
func New(c net.Conn) *Peer {
	return &Peer{Conn: c, br: bufio.NewReader(c), Macros: map[byte][]string{}}
}

// Put appends a frame to what Flush sends.
func (p *Peer) Put(cmd byte, payload ...string) {
	n := 1
	for _, s := range payload {
		n += len(s)
	}
	p.out = binary.BigEndian.AppendUint32(p.out, uint32(n))
	p.out = append(p.out, cmd)
	for _, s := range payload {
		p.out = append(p.out, s...)
	}
}

// PutRaw appends octets that need not be a frame.
func (p *Peer) PutRaw(b []byte) { p.out = append(p.out, b...) }

// PutMacros appends the macro packet of a stage, as Postfix does before each
// event: also an empty one.
func (p *Peer) PutMacros(stage byte) {
	var b strings.Builder
	b.WriteByte(stage)
	for _, s := range p.Macros[stage] {
		b.WriteString(s)
		b.WriteByte(0)
	}
	p.Put('D', b.String())
}

// Flush sends what was put.
func (p *Peer) Flush() error {
	if len(p.out) == 0 {
		return nil
	}
	p.SetWriteDeadline(time.Now().Add(p.timeout()))
	_, err := p.Conn.Write(p.out)
	p.out = p.out[:0]
	return err
}

func (p *Peer) timeout() time.Duration {
	if p.Timeout > 0 {
		return p.Timeout
	}
	return 10 * time.Second
}

// ErrSilence is a read that no answer came to in time.
var ErrSilence = errors.New("no answer from the milter in time")

// Read returns the next frame. io.EOF: the milter closed the connection.
func (p *Peer) Read() (Answer, error) {
	p.SetReadDeadline(time.Now().Add(p.timeout()))
	var head [headerBytes]byte
	if _, err := io.ReadFull(p.br, head[:]); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			return Answer{}, ErrSilence
		}
		return Answer{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxAnswer {
		return Answer{}, fmt.Errorf("answer of %d octets", n)
	}
	a := Answer{Code: head[4], Data: make([]byte, n-1)}
	_, err := io.ReadFull(p.br, a.Data)
	return a, err
}

// Ask sends what was put and returns the next answer that is no progress.
func (p *Peer) Ask() (Answer, error) {
	if err := p.Flush(); err != nil {
		return Answer{}, err
	}
	for {
		a, err := p.Read()
		if err != nil || a.Code != 'p' {
			return a, err
		}
	}
}

// Negotiate offers and keeps what was agreed.
func (p *Peer) Negotiate(o Offer) error {
	var b [12]byte
	binary.BigEndian.PutUint32(b[0:], o.Version)
	binary.BigEndian.PutUint32(b[4:], o.Actions)
	binary.BigEndian.PutUint32(b[8:], o.Protocol)
	p.Put('O', string(b[:]))
	a, err := p.Ask()
	if err != nil {
		return fmt.Errorf("negotiate: %w", err)
	}
	if a.Code != 'O' || len(a.Data) < 12 {
		return fmt.Errorf("negotiate: answer %q with %d octets", a.Code, len(a.Data))
	}
	p.Agreed = Offer{binary.BigEndian.Uint32(a.Data), binary.BigEndian.Uint32(a.Data[4:]), binary.BigEndian.Uint32(a.Data[8:])}
	if extra := p.Agreed.Actions &^ o.Actions; extra != 0 {
		return fmt.Errorf("negotiate: actions %#x were not offered", extra)
	}
	if extra := p.Agreed.Protocol &^ o.Protocol; extra != 0 {
		return fmt.Errorf("negotiate: protocol bits %#x were not offered", extra)
	}
	return p.readSymList(a.Data[12:])
}

func (p *Peer) readSymList(b []byte) error {
	p.SymList = map[uint32]string{}
	for len(b) > 0 {
		if len(b) < 5 {
			return fmt.Errorf("negotiate: macro lists end in %d stray octets", len(b))
		}
		stage := binary.BigEndian.Uint32(b)
		end := strings.IndexByte(string(b[4:]), 0)
		if end < 0 {
			return errors.New("negotiate: macro list without NUL")
		}
		p.SymList[stage] = string(b[4 : 4+end])
		b = b[4+end+1:]
	}
	return nil
}

// step sends a command after its macros and takes the answer, where one was
// agreed on. Frames that get none stay in the buffer until one does.
func (p *Peer) step(cmd byte, noReply uint32, payload ...string) (Answer, error) {
	p.PutMacros(cmd)
	p.Put(cmd, payload...)
	if noReply != 0 && p.Agreed.Protocol&noReply != 0 {
		return Answer{Code: 'c'}, nil
	}
	return p.Ask()
}

// Connect announces an SMTP client; addr as the MTA writes it.
func (p *Peer) Connect(name, addr string, port uint16) (Answer, error) {
	family := "4"
	if strings.Contains(addr, ":") {
		family = "6"
	}
	return p.step('C', nrConnect, name, "\x00", family, string([]byte{byte(port >> 8), byte(port)}), addr, "\x00")
}

// Helo sends the client's name.
func (p *Peer) Helo(name string) (Answer, error) { return p.step('H', nrHelo, name, "\x00") }

// Mail sends the envelope sender, with its brackets if it has some, and ESMTP
// arguments.
func (p *Peer) Mail(from string, args ...string) (Answer, error) {
	return p.step('M', nrMail, zeroed(from, args))
}

// Rcpt sends one recipient.
func (p *Peer) Rcpt(to string, args ...string) (Answer, error) {
	return p.step('R', nrRcpt, zeroed(to, args))
}

func zeroed(first string, rest []string) string {
	return strings.Join(append([]string{first}, rest...), "\x00") + "\x00"
}

// Data announces DATA if the milter wants to hear it.
func (p *Peer) Data() (Answer, error) {
	if p.Agreed.Protocol&noData != 0 {
		p.PutMacros('T')
		return Answer{Code: 'c'}, nil
	}
	return p.step('T', nrData)
}

// Header sends one field.
func (p *Peer) Header(name, value string) (Answer, error) {
	return p.step('L', nrHeader, name, "\x00", value, "\x00")
}

// EOH ends the header.
func (p *Peer) EOH() (Answer, error) { return p.step('N', nrEOH) }

// chunk is the largest piece of body that an MTA sends: MILTER_CHUNK_SIZE.
const chunk = 65535

// Body sends a body in pieces.
func (p *Peer) Body(body string) (Answer, error) {
	a := Answer{Code: 'c'}
	if p.Agreed.Protocol&noBody != 0 {
		return a, nil
	}
	for len(body) > 0 && a.Code == 'c' {
		n := min(len(body), chunk)
		var err error
		if a, err = p.step('B', nrBody, body[:n]); err != nil {
			return a, err
		}
		body = body[n:]
		if len(p.out) > 4*chunk {
			if err := p.Flush(); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// EOM ends the message and collects changes until the final answer.
func (p *Peer) EOM() (Result, error) {
	var r Result
	p.PutMacros('E')
	p.Put('E')
	for {
		a, err := p.Ask()
		if err != nil {
			return r, err
		}
		switch a.Code {
		case 'c', 'a', 'r', 't', 'd', 'y':
			r.Final = a
			return r, nil
		}
		r.Changes = append(r.Changes, a)
	}
}

// Abort ends the transaction; there is no answer.
func (p *Peer) Abort() error {
	p.Put('A')
	return p.Flush()
}

// Quit ends the session as an MTA does: abort, quit, close.
func (p *Peer) Quit() error {
	p.Put('A')
	p.Put('Q')
	err := p.Flush()
	if cerr := p.Close(); err == nil {
		err = cerr
	}
	return err
}

// Mail is a whole message.
type Mail struct {
	From   string
	To     []string
	Header [][2]string
	Body   string
}

// Send plays a whole transaction. Recipients that were refused are in refused;
// if all were, there is no end of message and the Result is zero.
func (p *Peer) Send(m Mail) (r Result, refused map[string]Answer, err error) {
	refused = map[string]Answer{}
	if _, err = p.Mail("<" + m.From + ">"); err != nil {
		return r, refused, err
	}
	for _, to := range m.To {
		a, err := p.Rcpt("<" + to + ">")
		if err != nil {
			return r, refused, err
		}
		if a.Code != 'c' {
			refused[to] = a
		}
	}
	if len(refused) == len(m.To) {
		return r, refused, p.Abort()
	}
	if _, err = p.Data(); err != nil {
		return r, refused, err
	}
	for _, h := range m.Header {
		if _, err = p.Header(h[0], h[1]); err != nil {
			return r, refused, err
		}
	}
	if _, err = p.EOH(); err != nil {
		return r, refused, err
	}
	if _, err = p.Body(m.Body); err != nil {
		return r, refused, err
	}
	r, err = p.EOM()
	return r, refused, err
}
