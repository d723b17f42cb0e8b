package dnstest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"relayguard/rbl"
)

// Query is a question that a Fake was asked.
type Query struct {
	Name string // lower case, without the final dot
	Type rbl.Type
	TCP  bool
	Nth  int // how often it was asked for this name and type, this one counted: 1 the first time

	ID        uint16
	From      string // the client's address and port
	Recursion bool   // it is asked to ask others
	EDNS      uint16 // octets that the client takes over UDP; 0 without EDNS

	msg  *dns.Msg
	done <-chan struct{}
}

// Handler says how a Fake answers; nil is Silence. It is called by many goroutines at once, one a
// question, and may block: others are answered meanwhile.
type Handler func(q Query) Reply

// Fake is a name server in the test's own process, over UDP and TCP. Safe for
// concurrent use.
type Fake struct {
	Addr string // 127.0.0.1:port

	packets, other net.PacketConn
	stream         net.Listener
	done           chan struct{}
	work           sync.WaitGroup

	mu     sync.Mutex
	handle Handler
	asked  []Query
	counts map[question]int
	conns  map[net.Conn]struct{}
	now    int // questions under way
	most   int
}

type question struct {
	name string
	t    rbl.Type
}

// StartFake starts one. It ends with the test.
func StartFake(t testing.TB, h Handler) *Fake {
	t.Helper()
	f := &Fake{handle: h, done: make(chan struct{}), counts: map[question]int{}, conns: map[net.Conn]struct{}{}}
	if err := f.listen(); err != nil {
		t.Fatal(err)
	}
	f.Addr = f.stream.Addr().String()
	f.work.Go(f.serveUDP)
	f.work.Go(f.serveTCP)
	t.Cleanup(f.close)
	return f
}

func (f *Fake) listen() error {
	var errs []error
	for range 20 {
		stream, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		packets, err := net.ListenPacket("udp4", stream.Addr().String())
		if err != nil { // another program has this number for UDP
			errs = append(errs, err, stream.Close())
			continue
		}
		if f.other, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			return errors.Join(err, stream.Close(), packets.Close())
		}
		f.stream, f.packets = stream, packets
		return nil
	}
	return errors.Join(errs...)
}

func (f *Fake) close() {
	close(f.done)
	f.packets.Close()
	f.other.Close()
	f.stream.Close()
	f.mu.Lock()
	for conn := range f.conns {
		conn.Close()
	}
	f.mu.Unlock()
	f.work.Wait()
}

// Handle makes it answer otherwise from now on.
func (f *Fake) Handle(h Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handle = h
}

// Asked are the questions so far, in the order in which they came.
func (f *Fake) Asked() []Query {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// Most is how many questions were under way at once, at most.
func (f *Fake) Most() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

func (f *Fake) serveUDP() {
	buffer := make([]byte, 65535)
	for {
		n, from, err := f.packets.ReadFrom(buffer)
		if err != nil {
			return
		}
		raw := slices.Clone(buffer[:n])
		f.work.Go(func() {
			for _, p := range f.answer(raw, from, false) {
				by := f.packets
				if p.elsewhere {
					by = f.other
				}
				_, _ = by.WriteTo(p.bytes, from) // a client that is gone is none of ours
			}
		})
	}
}

func (f *Fake) serveTCP() {
	for {
		conn, err := f.stream.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[conn] = struct{}{}
		f.mu.Unlock()
		f.work.Go(func() {
			f.serveConn(conn)
			conn.Close()
			f.mu.Lock()
			delete(f.conns, conn)
			f.mu.Unlock()
		})
		select {
		case <-f.done: // it came while the others were closed
			conn.Close()
		default:
		}
	}
}

func (f *Fake) serveConn(conn net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		raw := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, raw); err != nil {
			return
		}
		packets := f.answer(raw, conn.RemoteAddr(), true)
		if len(packets) == 0 {
			return // silence over TCP is a connection that ends
		}
		for _, p := range packets {
			framed := p.bytes
			if !p.unframed {
				framed = append(binary.BigEndian.AppendUint16(nil, uint16(len(p.bytes))), p.bytes...)
			}
			if _, err := conn.Write(framed); err != nil {
				return
			}
		}
	}
}

func (f *Fake) answer(raw []byte, from net.Addr, tcp bool) []packet {
	msg := new(dns.Msg)
	if err := msg.Unpack(raw); err != nil || len(msg.Question) != 1 {
		return nil
	}
	q := Query{
		Name: strings.ToLower(strings.TrimSuffix(msg.Question[0].Name, ".")), Type: rbl.Type(msg.Question[0].Qtype),
		TCP: tcp, ID: msg.Id, From: from.String(), Recursion: msg.RecursionDesired, msg: msg, done: f.done,
	}
	if opt := msg.IsEdns0(); opt != nil {
		q.EDNS = opt.UDPSize()
	}
	f.mu.Lock()
	handle := f.handle
	key := question{q.Name, q.Type}
	f.counts[key]++
	q.Nth = f.counts[key]
	f.asked = append(f.asked, q)
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	if reply := handle(q); reply != nil {
		return reply(q)
	}
	return nil
}
