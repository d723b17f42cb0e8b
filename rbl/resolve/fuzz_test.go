package resolve

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"relayguard/rbl"
)

// FuzzRead: whatever a server sends, it is an answer to our question, or none; and
// what is used of it is bounded and does not hold the question's name.
func FuzzRead(f *testing.F) {
	for _, records := range [][]string{
		{}, {"key.example. 60 IN A 127.0.0.2", "KEY.example. 60 IN A 127.0.0.4"}, {`key.example. 60 IN TXT "a\000b" "c"`}, {"key.example. 60 IN AAAA ::1"},
		{"key.example. 60 IN MX 10 mx.example.", "a.example. 60 IN CNAME key.example.", "key.example. 60 IN CNAME a.example.", "a.example. 60 IN PTR A.example.", ". 60 IN A 127.0.0.2"},
	} {
		for _, t := range []rbl.Type{rbl.TypeA, rbl.TypeTXT, rbl.TypeAAAA, rbl.TypeMX, rbl.TypePTR} {
			q, err := newQuery("key.example", t)
			if err != nil {
				f.Fatal(err)
			}
			question := new(dns.Msg)
			if err := question.Unpack(q.raw); err != nil {
				f.Fatal(err)
			}
			m := new(dns.Msg).SetReply(question)
			m.RecursionAvailable = true
			for _, record := range records {
				rr, err := dns.NewRR(record)
				if err != nil {
					f.Fatal(err)
				}
				m.Answer = append(m.Answer, rr)
			}
			raw, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw[2:], uint16(t))
			f.Add(raw[2:len(raw)-1], uint16(t))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, kind uint16) {
		q, err := newQuery("key.example", rbl.Type(kind))
		if err != nil {
			t.Fatal(err)
		}
		m, err := q.read(append(binary.BigEndian.AppendUint16(nil, q.id), raw...))
		if err != nil {
			if !errors.Is(err, errOther) && !errors.Is(err, errUnreadable) || strings.Contains(err.Error(), "key") {
				t.Errorf("error %v", err)
			}
			return
		}
		if len(m.Question) == 1 && (m.Question[0].Qtype != kind || !strings.EqualFold(m.Question[0].Name, "key.example.")) {
			t.Errorf("an answer to %v", m.Question)
		}
		r := q.response(m)
		if len(r.Addrs)+len(r.Texts)+len(r.Names) > mostRecords {
			t.Errorf("%d records", len(r.Addrs)+len(r.Texts)+len(r.Names))
		}
		for _, text := range r.Texts {
			if len(text) > mostText {
				t.Errorf("a text of %d octets", len(text))
			}
		}
		if failed := r.Outcome != rbl.Answered && r.Outcome != rbl.NoData && r.Outcome != rbl.NoName; failed != (r.Err != nil) || r.Outcome == rbl.TimedOut {
			t.Errorf("outcome %s with error %v", r.Outcome, r.Err)
		}
	})
}

// FuzzConfiguration: whatever stands in a program's configuration, reading it ends,
// and what it forwards to is said only where it forwards.
func FuzzConfiguration(f *testing.F) {
	for _, seed := range []string{
		"forward-zone:\n name: \".\"\n forward-addr: 8.8.8.8@853#x\ninclude: f*\n", "options { forwarders { 8.8.8.8; }; }; include \"f*\"; /* {{{ */",
		"server=8.8.8.8\nconf-dir=.,*.conf,.bak\nconf-file=f*\n", "forward-zones=.=8.8.8.8;[::1]:53\n", "forward_zones:\n - zone: .\n   forwarders: [::1]\n",
		"policy.add(policy.all(policy.FORWARD({'::1'})))", "nameserver ::1\n", "a{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{", `name:"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "file"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(parseNameservers(text)); n > mostServers {
			t.Errorf("%d name servers", n)
		}
		yamlForwards(text, "zone", "forward_zones")
		for _, p := range programs {
			s, answers, err := p.read(&tree{root: root}, "/file")
			if err == nil && answers && len(s.to) > 0 && s.how != Forwards {
				t.Errorf("%s: %s to %v", p.name, s.how, s.to)
			}
		}
	})
}
