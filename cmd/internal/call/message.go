package call

import (
	"bytes"
	"io"
	"mime"
	"net/mail"
	"strings"

	"relayguard/policy"
	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// Message is the mail as the guard is going to see it: from sendmail(1), with the
// header as it came and the recipients that the MTA will find. Sender is the
// envelope sender of mail that names none, userName the name of a Unix account.
// False: not all of it is known, or the MTA may read it otherwise; nothing is to
// be said about it.
func (r *Request) Message(sender func(uid int) string) (*policy.Message, bool) {
	m := &policy.Message{Role: policy.Local, Evidence: origin.NewEvidence(), Size: int64(len(r.Header))}
	m.Submitted, m.UID, m.LocalConfidence = true, r.UID, origin.Wrapper
	m.Call = origin.Call{Pool: r.Pool, Dir: r.Dir, Script: r.Script}
	if r.RcptMore || r.HeaderMore || !addHeader(&m.Header, r.Header) {
		return nil, false
	}
	switch r.MailFrom {
	case "":
		m.MailFrom = sender(r.UID)
	case NullSender:
	default:
		m.MailFrom = strings.TrimSuffix(strings.TrimPrefix(r.MailFrom, "<"), ">")
	}
	ok := true
	if m.RcptTo, ok = r.recipients(&m.Header); !ok || len(m.RcptTo) > MaxRcpts {
		return nil, false
	}
	return m, true
}

// addHeader takes a header apart. False: it is none.
func addHeader(h *policy.Header, text []byte) bool {
	var name, value []byte
	end := func() {
		if name != nil {
			h.Add(name, bytes.TrimRight(value, "\r\n"))
		}
	}
	for line := range bytes.Lines(text) {
		if line[0] == ' ' || line[0] == '\t' {
			if name == nil {
				return false
			}
			value = append(value, line...)
			continue
		}
		end()
		before, after, found := bytes.Cut(line, []byte(":"))
		if name = bytes.TrimRight(before, " \t"); !found || len(name) == 0 {
			if len(bytes.TrimRight(line, "\r\n")) == 0 { // the header's end
				return true
			}
			return false
		}
		value = append([]byte(nil), bytes.TrimLeft(after, " \t")...)
	}
	end()
	return true
}

// recipients are those of the command line, or with -t of the header: with both,
// Postfix adds them up, and Sendmail drops the former.
func (r *Request) recipients(h *policy.Header) (all []string, ok bool) {
	if !r.FromHeader {
		for _, arg := range r.RcptTo {
			if !plainAddress(arg) { // several in one, or with a name
				return nil, false
			}
			all = append(all, arg)
		}
		return all, len(all) > 0
	}
	for _, name := range []string{"Resent-To", "Resent-Cc", "Resent-Bcc"} { // in place of the others
		if h.Count(name) > 0 {
			return nil, false
		}
	}
	if len(r.RcptTo) > 0 {
		return nil, false
	}
	for _, name := range []string{"To", "Cc", "Bcc"} {
		for _, value := range h.Values(name) {
			if value == "" {
				continue
			}
			list, ok := listed(value)
			if !ok {
				return nil, false
			}
			all = append(all, list...)
		}
	}
	return all, len(all) > 0
}

// plainAddress reports whether a text is one address as every reader sees it, or
// the local part of one here.
func plainAddress(s string) bool {
	local, domain, at := strings.Cut(s, "@")
	if local == "" || strings.ContainsAny(local, " \t\"\\(),:;<>[]%!") {
		return false
	}
	a, ok := address.Parse(s)
	return !at || ok && a.Local == local && strings.EqualFold(a.Domain, domain)
}

// names are not asked for, so their charsets need not be known.
var listParser = mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: func(_ string, in io.Reader) (io.Reader, error) { return in, nil }}}

// listed reads the addresses of a field. It takes what the grammar allows alone
// (RFC 5322 §3.4): of other text readers differ about who is meant.
func listed(value string) (all []string, ok bool) {
	parsed, err := listParser.ParseList(value)
	if err != nil {
		return nil, false
	}
	for _, a := range parsed {
		if !plainAddress(a.Address) || !strings.Contains(a.Address, "@") {
			return nil, false
		}
		all = append(all, a.Address)
	}
	return all, true
}
