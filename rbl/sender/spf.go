package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"blitiri.com.ar/go/spf"

	"relayguard/rbl"
)

// spfOf looks whether SPF of a domain covers an address (RFC 7208).
func (a *asker) spfOf(ctx context.Context, domain string, s Sending) Fact {
	c := a.evaluate(ctx, domain, s)
	switch {
	case c.silent != nil:
		return *c.silent
	case c.result == spf.Pass:
		return c.passes()
	case sendsNothing(c.record):
		return fine("%s says that it sends no mail: %q", domain, shown(c.record))
	case c.result == spf.None:
		return wrong(fmt.Sprintf("a TXT record of %s such as %q", domain, "v=spf1 mx "+c.mechanism()+" ~all"), "no SPF record")
	case c.result == spf.PermError:
		return wrong(wantedOf(c.err), "cannot be evaluated: %s", faultOf(c.err))
	}
	return wrong(c.wanted(domain), "%s: %q", c.result, shown(c.record))
}

// spfOfHelo looks at the HELO name's own record, by which bounces are judged, for they
// have no sender (RFC 7208 §2.4). It may be without one.
func (a *asker) spfOfHelo(ctx context.Context, s Sending) Fact {
	name := strings.TrimSuffix(s.Helo, ".")
	if !isName(name) || !strings.Contains(name, ".") {
		return fine("not a domain name, so it has no record")
	}
	c := a.evaluate(ctx, name, s)
	switch {
	case c.silent != nil:
		return *c.silent
	case c.result == spf.Pass:
		return c.passes()
	case c.result == spf.None:
		return fine("no record of its own; bounces are judged by it where there is one")
	case c.result == spf.PermError:
		return wrong(wantedOf(c.err), "cannot be evaluated: %s", faultOf(c.err))
	case c.result == spf.Neutral:
		return fine("neutral: %q", shown(c.record))
	}
	return wrong(c.wanted(name), "%s, so bounces are refused: %q", c.result, shown(c.record))
}

// checked is one evaluation.
type checked struct {
	addr   netip.Addr
	record string // of the domain itself; "": none, or several
	result spf.Result
	err    error
	silent *Fact // what could not be known, if that decides
}

func (a *asker) evaluate(ctx context.Context, domain string, s Sending) checked {
	c := checked{addr: s.Addr}
	domain = strings.TrimSuffix(domain, ".")
	if !s.Addr.IsValid() || !isName(domain) {
		f := unknown("%q from %s cannot be asked about", shown(domain), s.Addr)
		c.silent = &f
		return c
	}
	helo := strings.TrimSuffix(s.Helo, ".")
	if !isName(helo) {
		helo = "[" + s.Addr.String() + "]"
	}
	lookups := &lookups{asker: a, addr: s.Addr}
	c.result, c.err = spf.CheckHostWithSender(net.IP(s.Addr.AsSlice()), helo, "postmaster@"+domain, spf.WithContext(ctx), spf.WithResolver(lookups))
	// Where a lookup failed the library goes on in some places (ptr); the outcome is
	// then by luck, unless it is a pass.
	silent := lookups.silent.Load()
	if c.result == spf.Pass {
		silent = nil
	} else if silent == nil && c.result == spf.TempError {
		f := unknown("SPF of %s: temporary error", domain)
		silent = &f
	}
	c.silent = silent
	for _, text := range a.ask(ctx, domain, rbl.TypeTXT).Texts {
		if isSPF(text) {
			c.record = text
			break
		}
	}
	return c
}

func isSPF(text string) bool {
	text = strings.ToLower(text)
	return text == "v=spf1" || strings.HasPrefix(text, "v=spf1 ")
}

// sendsNothing tells the record by which a domain says that it sends no mail.
func sendsNothing(record string) bool {
	fields := strings.Fields(strings.ToLower(record))
	return len(fields) == 2 && fields[1] == "-all"
}

func (c checked) passes() Fact {
	if errors.Is(c.err, spf.ErrMatchedAll) {
		return fine("pass, as for everybody: %q", shown(c.record))
	}
	return fine("pass")
}

func (c checked) mechanism() string {
	if c.addr.Is4() {
		return "ip4:" + c.addr.String()
	}
	return "ip6:" + c.addr.String()
}

// wanted says how the record would cover the address. It comes first in it: a term
// that says no for the address could stand anywhere.
func (c checked) wanted(domain string) string {
	const longest = 200 // what one line can show
	fields := strings.Fields(c.record)
	if len(fields) == 0 {
		return fmt.Sprintf("%s in the TXT record of %s", c.mechanism(), domain)
	}
	record := strings.Join(append([]string{fields[0], c.mechanism()}, fields[1:]...), " ")
	if len(record) > longest {
		return fmt.Sprintf("add %s to the TXT record of %s, right behind v=spf1", c.mechanism(), domain)
	}
	return fmt.Sprintf("add %s to the TXT record of %s: %q", c.mechanism(), domain, shown(record))
}

// faults are the errors of records, and what was wanted instead.
var faults = []struct {
	err           error
	found, wanted string
}{
	{spf.ErrLookupLimitReached, "it needs more than 10 lookups", "at most 10 terms that make receivers ask DNS, those of includes among them (RFC 7208 section 4.6.4)"},
	{spf.ErrVoidLookupLimitReached, "more than 2 of its terms lead nowhere", "a record without names that do not exist"},
	{spf.ErrTooManyMXRecords, "mx stands for more than 10 hosts", "a record without that mx"},
	{spf.ErrMultipleRecords, "there are several SPF records", "one TXT record that begins with v=spf1"},
	{spf.ErrNoResult, "an include or redirect leads to a domain without an SPF record", "a record without that include or redirect"},
	{spf.ErrUnknownField, "it has a term that does not exist", "a record without that term"},
	{spf.ErrInvalidIP, "it has an address that is none", "a record with right addresses"},
	{spf.ErrInvalidMask, "it has a network whose size cannot be", "a record with right networks"},
	{spf.ErrInvalidMacro, "it has a macro that cannot be expanded", "a record with right macros"},
	{spf.ErrInvalidDomain, "it has a domain name that is none", "a record with right names"},
}

func faultOf(err error) string {
	for _, f := range faults {
		if errors.Is(err, f.err) {
			return f.found
		}
	}
	return "permanent error"
}

func wantedOf(err error) string {
	for _, f := range faults {
		if errors.Is(err, f.err) {
			return f.wanted
		}
	}
	return "a record that can be evaluated"
}

// lookups are the library's resolver, for one evaluation. The library tells errors
// apart by net.DNSError alone.
type lookups struct {
	asker  *asker
	addr   netip.Addr
	silent atomic.Pointer[Fact] // the first question without an answer
}

// ask gives what there is; the error is of a kind that the library knows. A name that
// cannot be one is without records (RFC 7208 §4.3, §4.8).
func (l *lookups) ask(ctx context.Context, name string, kind rbl.Type, record string) (rbl.Response, error) {
	name = strings.TrimSuffix(name, ".")
	if !isName(name) {
		return rbl.Response{Outcome: rbl.NoName}, &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
	}
	r := l.asker.ask(ctx, name, kind)
	switch {
	case r.Outcome == rbl.Answered, r.Outcome == rbl.NoData:
		return r, nil
	case r.Outcome == rbl.NoName, dangling(r):
		return r, &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
	}
	return r, l.failed(name, silence(record+" of "+name, r))
}

func (l *lookups) failed(name string, f Fact) error {
	l.silent.CompareAndSwap(nil, &f)
	return &net.DNSError{Err: f.Found, Name: name, IsTemporary: true}
}

func (l *lookups) LookupTXT(ctx context.Context, name string) ([]string, error) {
	r, err := l.ask(ctx, name, rbl.TypeTXT, "TXT")
	if err != nil {
		return nil, err
	}
	const longest, most = 1024, 64 // what a Response keeps
	found := false
	for _, text := range r.Texts {
		if !isSPF(text) {
			continue
		}
		found = true
		if len(text) >= longest {
			return nil, l.failed(name, unknown("the SPF record of %s is of %d octets or more, too long to be evaluated here", name, longest))
		}
	}
	if !found && len(r.Texts) >= most {
		return nil, l.failed(name, unknown("%s has so many TXT records that not all were read", name))
	}
	return r.Texts, nil
}

func (l *lookups) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	r, err := l.ask(ctx, name, rbl.TypeMX, "MX")
	if err != nil {
		return nil, err
	}
	var all []*net.MX
	for n, host := range r.Names {
		if host != "" { // "." says that there is none (RFC 7505)
			all = append(all, &net.MX{Host: host, Pref: uint16(n)}) // at most 64 records
		}
	}
	return all, nil
}

// LookupIPAddr gives IPv4 addresses whatever is checked: "exists" asks for them
// (RFC 7208 §5.7).
func (l *lookups) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	var all []net.IPAddr
	r, err := l.ask(ctx, host, rbl.TypeA, "A")
	all = appendAddrs(all, r)
	if l.addr.Is4() || err != nil && !isNoName(err) {
		return all, err
	}
	r, err6 := l.ask(ctx, host, rbl.TypeAAAA, "AAAA")
	return appendAddrs(all, r), err6
}

func isNoName(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

func appendAddrs(all []net.IPAddr, r rbl.Response) []net.IPAddr {
	for _, addr := range r.Addrs {
		all = append(all, net.IPAddr{IP: net.IP(addr.AsSlice())})
	}
	return all
}

func (l *lookups) LookupAddr(ctx context.Context, text string) ([]string, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return nil, &net.DNSError{Err: "no address", Name: text, IsNotFound: true}
	}
	r, err := l.ask(ctx, reverseName(addr.Unmap()), rbl.TypePTR, "PTR")
	return r.Names, err
}
