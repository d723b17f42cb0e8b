package resolve

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"relayguard/rbl"
)

// Of one answer no more is used: a list has a few records, and whoever sends
// thousands wants something else.
const (
	mostRecords = 64
	mostText    = 1024 // octets of one TXT
)

// ednsSize passes every network undivided (DNS flag day 2020).
const ednsSize = 1232

var (
	errUnreadable = errors.New("the answer cannot be read")
	errOther      = errors.New("not an answer to this question")
)

// query is one question, as it is sent.
type query struct {
	raw   []byte
	id    uint16
	name  string // as it reads in an answer, but for upper and lower case
	t     uint16
	plain bool // without EDNS
}

// newQuery makes one with a random id. Its errors do not have the name, which may
// hold a key.
func newQuery(name string, t rbl.Type) (*query, error) {
	q := &query{id: dns.Id(), name: dns.Fqdn(name), t: uint16(t)}
	return q, q.pack()
}

func (q *query) withoutEDNS() error {
	q.plain = true
	return q.pack()
}

func (q *query) pack() error {
	m := new(dns.Msg).SetQuestion(q.name, q.t)
	m.Id = q.id
	if !q.plain {
		m.SetEdns0(ednsSize, false)
	}
	raw, err := m.Pack()
	if err != nil {
		return errors.New("the name is none that can be asked for")
	}
	q.raw = raw
	var read dns.Msg
	if err := read.Unpack(raw); err != nil || len(read.Question) != 1 {
		return errors.New("the name is none that can be asked for")
	}
	q.name = read.Question[0].Name
	return nil
}

// read takes a message as the answer, or says that it is none (errOther), or none
// that can be read (errUnreadable).
func (q *query) read(raw []byte) (*dns.Msg, error) {
	const header = 12
	if len(raw) < header || binary.BigEndian.Uint16(raw) != q.id {
		return nil, errOther
	}
	m := new(dns.Msg)
	err := m.Unpack(raw)
	if err == nil && len(m.Answer) != int(binary.BigEndian.Uint16(raw[6:])) && !m.Truncated {
		// The library ends quietly where a message ends between two records.
		err = errors.New("records are missing")
	}
	switch {
	case !m.Response || m.Opcode != dns.OpcodeQuery:
		return nil, errOther
	case err != nil:
		return nil, fmt.Errorf("%w: %s", errUnreadable, short(err))
	case !q.asked(m):
		return nil, errOther
	}
	return m, nil
}

// short is what a library says of a message, without what the message says.
func short(err error) string {
	var d *dns.Error
	if errors.As(err, &d) {
		return "it is malformed"
	}
	return err.Error()
}

// asked reports whether the message is about our question. Some servers that
// refuse or fail send their code alone.
func (q *query) asked(m *dns.Msg) bool {
	switch len(m.Question) {
	case 0:
		return m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
	case 1:
		is := m.Question[0]
		return is.Qtype == q.t && is.Qclass == dns.ClassINET && strings.EqualFold(is.Name, q.name)
	}
	return false
}

// response says what the answer is, and takes from it what was asked for.
func (q *query) response(m *dns.Msg) rbl.Response {
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		// The code is that of the last name of a chain (RFC 6604 §3).
		switch {
		case len(m.Answer) == 0:
			return rbl.Response{Outcome: rbl.NoName}
		case slices.ContainsFunc(m.Answer, isAlias):
			return rbl.Response{Outcome: rbl.Broken, Err: rbl.ErrDangling}
		}
		return rbl.Response{Outcome: rbl.Broken, Err: errors.New("it says NXDOMAIN, and has records")}
	case dns.RcodeServerFailure:
		return rbl.Response{Outcome: rbl.ServFail, Err: said(m)}
	case dns.RcodeRefused:
		return rbl.Response{Outcome: rbl.QueryRefused, Err: said(m)}
	default:
		return rbl.Response{Outcome: rbl.Broken, Err: said(m)}
	}
	var r rbl.Response
	var mx []*dns.MX
	used, strange := 0, false
	owner := q.owner(m)
	for _, rr := range m.Answer {
		if rr.Header().Rrtype != q.t || rr.Header().Class != dns.ClassINET {
			continue
		}
		if strings.ToLower(rr.Header().Name) != owner {
			strange = true
			continue
		}
		if used++; used > mostRecords {
			break
		}
		if v, ok := rr.(*dns.MX); ok {
			mx = append(mx, v)
		} else if err := take(&r, rr); err != nil {
			return rbl.Response{Outcome: rbl.Broken, Err: err}
		}
	}
	slices.SortStableFunc(mx, func(a, b *dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	for _, v := range mx {
		r.Names = append(r.Names, name(v.Mx))
	}
	r.Outcome = rbl.Answered
	if used == 0 {
		if strange {
			return rbl.Response{Outcome: rbl.Broken, Err: errors.New("the answer has records of other names only")}
		}
		r.Outcome = rbl.NoData
		if !m.RecursionAvailable && !m.Authoritative {
			// A referral: it knows whom to ask, and leaves that to us.
			return rbl.Response{Outcome: rbl.Broken, Err: errors.New("it does not ask others for us")}
		}
	}
	return r
}

func isAlias(rr dns.RR) bool {
	t := rr.Header().Rrtype
	return t == dns.TypeCNAME || t == dns.TypeDNAME
}

// owner is whose records answer the question: the name that was asked for, or the one
// to which its aliases lead, wherever they stand in the answer. We asked somebody who
// follows them for us.
func (q *query) owner(m *dns.Msg) string {
	name := strings.ToLower(q.name)
	if q.t == dns.TypeCNAME {
		return name
	}
	aliases := map[string]string{}
	for _, rr := range m.Answer {
		if v, ok := rr.(*dns.CNAME); ok && v.Hdr.Class == dns.ClassINET {
			aliases[strings.ToLower(v.Hdr.Name)] = strings.ToLower(v.Target)
		}
	}
	for range aliases { // they may lead in a circle
		next, is := aliases[name]
		if !is {
			break
		}
		name = next
	}
	return name
}

// said is a code in words, with the reason that came with it (RFC 8914). The text
// that comes with the reason can hold the question's name, and is left out.
func said(m *dns.Msg) error {
	code, ok := dns.RcodeToString[m.Rcode]
	if !ok {
		code = fmt.Sprintf("code %d", m.Rcode)
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				if why, ok := dns.ExtendedErrorCodeToString[ede.InfoCode]; ok {
					return fmt.Errorf("it says %s (%s)", code, why)
				}
			}
		}
	}
	return fmt.Errorf("it says %s", code)
}

// take adds what one record says.
func take(r *rbl.Response, rr dns.RR) error {
	switch v := rr.(type) {
	case *dns.A:
		return takeAddr(r, v.A)
	case *dns.AAAA:
		return takeAddr(r, v.AAAA)
	case *dns.TXT:
		r.Texts = append(r.Texts, text(v.Txt))
	case *dns.PTR:
		r.Names = append(r.Names, name(v.Ptr))
	case *dns.NS:
		r.Names = append(r.Names, name(v.Ns))
	}
	return nil
}

func takeAddr(r *rbl.Response, octets []byte) error {
	addr, ok := netip.AddrFromSlice(octets)
	if !ok {
		return fmt.Errorf("%w: a record without its address", errUnreadable)
	}
	r.Addrs = append(r.Addrs, addr)
	return nil
}

func name(n string) string { return strings.ToLower(strings.TrimSuffix(n, ".")) }

// text joins the strings of a TXT and undoes how the library writes octets that
// do not print.
func text(parts []string) string {
	var out []byte
	for _, part := range parts {
		for i := 0; i < len(part); i++ {
			if len(out) == mostText {
				return string(out)
			}
			c := part[i]
			if c == '\\' && i+3 < len(part) && digit(part[i+1]) && digit(part[i+2]) && digit(part[i+3]) {
				c = (part[i+1]-'0')*100 + (part[i+2]-'0')*10 + part[i+3] - '0'
				i += 3
			} else if c == '\\' && i+1 < len(part) {
				i++
				c = part[i]
			}
			out = append(out, c)
		}
	}
	return string(out)
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
