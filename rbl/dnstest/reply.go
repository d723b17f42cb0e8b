package dnstest

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Reply makes what is sent back for a question.
type Reply func(q Query) []packet

type packet struct {
	bytes     []byte
	elsewhere bool // from another port
	unframed  bool // over TCP, without its length
}

// Silence is no answer; over TCP the connection ends.
func Silence() Reply { return func(Query) []packet { return nil } }

// NoName says that the name does not exist.
func NoName() Reply { return Code(dns.RcodeNameError) }

// NoData says that the name exists, without records of that type.
func NoData() Reply { return Code(dns.RcodeSuccess) }

// ServFail says that something went wrong.
func ServFail() Reply { return Code(dns.RcodeServerFailure) }

// Refused says that we are not answered.
func Refused() Reply { return Code(dns.RcodeRefused) }

// Code answers with that code alone.
func Code(code int) Reply {
	return message(func(m *dns.Msg, _ Query) { m.Rcode = code })
}

// Referral names other servers: what one says that does not ask them for others.
func Referral() Reply {
	ns := mustParse([]string{"example. 60 IN NS ns.invalid."})
	return message(func(m *dns.Msg, _ Query) { m.RecursionAvailable, m.Ns = false, ns })
}

// Addrs answers with A and AAAA records, whatever type was asked for.
func Addrs(addrs ...string) Reply {
	return message(func(m *dns.Msg, q Query) {
		for _, a := range addrs {
			addr := netip.MustParseAddr(a)
			header := dns.RR_Header{Name: q.msg.Question[0].Name, Class: dns.ClassINET, Ttl: 60}
			if addr.Is4() {
				header.Rrtype = dns.TypeA
				m.Answer = append(m.Answer, &dns.A{Hdr: header, A: addr.AsSlice()})
				continue
			}
			header.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
		}
	})
}

// Texts answers with TXT records, whatever type was asked for. A text is split into
// strings of 255 octets; it may hold any octets.
func Texts(texts ...string) Reply {
	return message(func(m *dns.Msg, q Query) {
		for _, text := range texts {
			header := dns.RR_Header{Name: q.msg.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}
			var parts []string
			for len(text) > 255 {
				parts, text = append(parts, escape(text[:255])), text[255:]
			}
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header, Txt: append(parts, escape(text))})
		}
	})
}

// escape writes octets as miekg/dns wants them in a TXT.
func escape(text string) string {
	var out strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			out.WriteByte('\\')
			out.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&out, "\\%03d", c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// Lines answers with records in the format of zone files, names complete with
// their final dots: "a.example. 60 IN CNAME b.example."
func Lines(records ...string) Reply {
	rrs := mustParse(records)
	return message(func(m *dns.Msg, _ Query) { m.Answer = rrs })
}

// Truncated says over UDP that the answer does not fit, with nothing of it, and
// gives it over TCP.
func Truncated(r Reply) Reply {
	return func(q Query) []packet {
		if q.TCP {
			return r(q)
		}
		return Cut()(q)
	}
}

// Cut says that the answer does not fit, over UDP and TCP alike.
func Cut() Reply { return message(func(m *dns.Msg, _ Query) { m.Truncated = true }) }

// Held answers when the gate is closed (or gives something), or never.
func Held(gate <-chan struct{}, r Reply) Reply {
	return func(q Query) []packet {
		select {
		case <-gate:
			return r(q)
		case <-q.done:
			return nil
		}
	}
}

// WrongID is the reply with another id: what somebody guesses who does not see
// the question.
func WrongID(r Reply) Reply {
	return alter(r, func(m *dns.Msg) { m.Id++ })
}

// WrongName is the reply to a question for another name.
func WrongName(r Reply) Reply {
	return alter(r, func(m *dns.Msg) { m.Question[0].Name = "other." + m.Question[0].Name })
}

// WrongType is the reply to a question for another type.
func WrongType(r Reply) Reply {
	return alter(r, func(m *dns.Msg) { m.Question[0].Qtype++ })
}

// NoQuestion is the reply without its question.
func NoQuestion(r Reply) Reply {
	return alter(r, func(m *dns.Msg) { m.Question = nil })
}

// NotReply is the reply marked as a question.
func NotReply(r Reply) Reply {
	return alter(r, func(m *dns.Msg) { m.Response = false })
}

// Upper is the reply with its names in upper case.
func Upper(r Reply) Reply {
	return alter(r, func(m *dns.Msg) {
		m.Question[0].Name = strings.ToUpper(m.Question[0].Name)
		for _, rr := range m.Answer {
			rr.Header().Name = strings.ToUpper(rr.Header().Name)
		}
	})
}

// Elsewhere sends the reply from a port that was not asked. Over UDP only.
func Elsewhere(r Reply) Reply {
	return func(q Query) []packet {
		packets := r(q)
		for i := range packets {
			packets[i].elsewhere = true
		}
		return packets
	}
}

// Garbage sends octets as they are. With id, the question's id is put before them.
func Garbage(id bool, octets ...byte) Reply {
	return func(q Query) []packet {
		var out []byte
		if id {
			out = append(out, byte(q.msg.Id>>8), byte(q.msg.Id))
		}
		return []packet{{bytes: append(out, octets...)}}
	}
}

// Clipped is the first n octets of the reply; over TCP the length still says all.
func Clipped(r Reply, n int) Reply {
	return func(q Query) []packet {
		packets := r(q)
		for i, p := range packets {
			all := p.bytes
			packets[i].bytes = all[:min(n, len(all))]
			if q.TCP {
				packets[i].unframed = true
				packets[i].bytes = append([]byte{byte(len(all) >> 8), byte(len(all))}, packets[i].bytes...)
			}
		}
		return packets
	}
}

// All sends several replies, one after the other.
func All(replies ...Reply) Reply {
	return func(q Query) []packet {
		var out []packet
		for _, r := range replies {
			out = append(out, r(q)...)
		}
		return out
	}
}

// message makes a reply to the question, filled.
func message(fill func(m *dns.Msg, q Query)) Reply {
	return func(q Query) []packet {
		m := new(dns.Msg).SetReply(q.msg)
		m.RecursionAvailable = true
		m.Compress = true
		fill(m, q)
		if opt := q.msg.IsEdns0(); opt != nil {
			m.SetEdns0(1232, false)
		}
		return []packet{{bytes: pack(m)}}
	}
}

func pack(m *dns.Msg) []byte {
	raw, err := m.Pack()
	if err != nil {
		panic(fmt.Sprintf("dnstest: a reply that no server could send: %v", err))
	}
	return raw
}

// alter changes the messages of a reply.
func alter(r Reply, change func(m *dns.Msg)) Reply {
	return func(q Query) []packet {
		packets := r(q)
		for i, p := range packets {
			m := new(dns.Msg)
			if err := m.Unpack(p.bytes); err != nil {
				panic(fmt.Sprintf("dnstest: a reply that cannot be read: %v", err))
			}
			change(m)
			packets[i].bytes = pack(m)
		}
		return packets
	}
}

// Records answers from records in the format of zone files, names complete with
// their final dots. Other names do not exist, unless something below them does: a
// name is NODATA for types that it does not have. CNAMEs are followed.
//
//	Records("2.0.0.127.bl.example. A 127.0.0.2", "bl.example. SOA ns.invalid. hostmaster.invalid. 1 2 3 4 5")
func Records(records ...string) Handler {
	rrs := mustParse(records)
	there := map[string][]dns.RR{}
	for _, rr := range rrs {
		name := strings.ToLower(strings.TrimSuffix(rr.Header().Name, "."))
		there[name] = append(there[name], rr)
		for name != "" {
			_, name, _ = strings.Cut(name, ".")
			if _, ok := there[name]; !ok {
				there[name] = nil
			}
		}
	}
	return func(q Query) Reply {
		name, answer := q.Name, []dns.RR(nil)
		for range 8 {
			found, ok := there[name]
			if !ok && len(answer) == 0 {
				return negative(dns.RcodeNameError)
			}
			next := ""
			for _, rr := range found {
				if rr.Header().Rrtype == uint16(q.Type) {
					answer = append(answer, rr)
				} else if alias, ok := rr.(*dns.CNAME); ok {
					answer = append(answer, rr)
					next = strings.ToLower(strings.TrimSuffix(alias.Target, "."))
				}
			}
			if next == "" {
				break
			}
			name = next
		}
		if len(answer) == 0 {
			return negative(dns.RcodeSuccess)
		}
		return message(func(m *dns.Msg, _ Query) { m.Authoritative, m.Answer = true, answer })
	}
}

// negative is the answer of a server that is in charge of the root: a resolver
// takes no other from it.
func negative(code int) Reply {
	soa := mustParse([]string{". 60 IN SOA ns.invalid. hostmaster.invalid. 1 600 300 86400 60"})
	return message(func(m *dns.Msg, _ Query) { m.Authoritative, m.Rcode, m.Ns = true, code, soa })
}

// Is reports whether the name of the question is the domain or below it.
func (q Query) Is(domain string) bool {
	return q.Name == domain || strings.HasSuffix(q.Name, "."+domain)
}

// String is the name and the type by its number or name: "a.example A".
func (q Query) String() string {
	if name, ok := dns.TypeToString[uint16(q.Type)]; ok {
		return q.Name + " " + name
	}
	return fmt.Sprintf("%s TYPE%d", q.Name, q.Type)
}

func mustParse(records []string) []dns.RR {
	var out []dns.RR
	for _, record := range records {
		rr, err := dns.NewRR(record)
		if err != nil || rr == nil {
			panic(fmt.Sprintf("dnstest: record %q: %v", record, err))
		}
		out = append(out, rr)
	}
	return out
}
