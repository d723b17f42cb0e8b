// Package sender looks at what receivers look at beside blocklists: the reverse name
// of an address and whether it leads back, the HELO name, and whether SPF of our
// domains covers our addresses.
//
// It says what DNS says, and what was wanted instead; it changes nothing and does
// not judge what a receiver makes of it.
//
// The trap: what could not be looked up is neither right nor wrong. A record is
// Wrong only if every answer that counts was there.
package sender

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"relayguard/rbl"
)

// What a Fact is about.
const (
	PTR     = "ptr"     // an address has one reverse name
	Forward = "forward" // that name has the address (FCrDNS)
	Helo    = "helo"    // the HELO name is one, has the address, is the reverse name
	SPF     = "spf"     // of a domain, for an address
)

// States of a Fact.
const (
	OK      = "ok"
	Wrong   = "wrong"
	Unknown = "unknown" // DNS did not say
)

// Fact is one thing.
type Fact struct {
	Subject string `json:"subject"` // "203.0.113.5", for SPF "example.jp from 203.0.113.5", for HELO "mail.example.jp at 203.0.113.5"
	Check   string `json:"check"`
	State   string `json:"state"`
	Found   string `json:"found"`
	Wanted  string `json:"wanted,omitempty"` // if Wrong
}

// Sending is an address from which mail goes out, and how it introduces itself.
type Sending struct {
	Addr netip.Addr
	Helo string // empty: not known, and not looked at
}

// Bounds of one Look. What is beyond them is Unknown and says so.
const (
	maxSending   = 32
	maxDomains   = 100
	maxQuestions = 4000 // put to the resolver; the same one is put once
	parallel     = 8    // facts looked at together
)

// Look looks at each address, then at each domain from each address. There is always
// the same fact for the same thing, whatever DNS says, each once. The order is that
// of sending and domains. Domains are A-labels without the final dot.
//
// When ctx ends, what is not known yet is Unknown.
func Look(ctx context.Context, r rbl.Resolver, sending []Sending, domains []string) []Fact {
	l := &look{ask: newAsker(r)}
	var left []Fact
	sending, left = cut(sending, maxSending, "addresses", PTR, left)
	domains, left = cut(domains, maxDomains, "domains", SPF, left)
	for _, s := range sending {
		s.Addr = s.Addr.Unmap().WithZone("")
		l.add(PTR, s.Addr.String(), func() Fact { return l.ask.reverse(ctx, s) })
		l.add(Forward, s.Addr.String(), func() Fact { return l.ask.forward(ctx, s) })
		if s.Helo != "" {
			l.add(Helo, shown(s.Helo)+" at "+s.Addr.String(), func() Fact { return l.ask.helo(ctx, s) })
			l.add(SPF, shown(s.Helo)+" (HELO) from "+s.Addr.String(), func() Fact { return l.ask.spfOfHelo(ctx, s) })
		}
	}
	for _, domain := range domains {
		for _, s := range sending {
			s.Addr = s.Addr.Unmap().WithZone("")
			l.add(SPF, shown(domain)+" from "+s.Addr.String(), func() Fact { return l.ask.spfOf(ctx, domain, s) })
		}
	}
	return append(l.all(), left...)
}

// cut takes the first ones, and says so of the others.
func cut[T any](all []T, most int, what, check string, left []Fact) ([]T, []Fact) {
	if len(all) <= most {
		return all, left
	}
	return all[:most], append(left, Fact{
		Subject: "further " + what, Check: check,
		State: Unknown, Found: fmt.Sprintf("not looked at: %d beyond the first %d", len(all)-most, most),
	})
}

// look is one Look: its facts in order, and who finds each.
type look struct {
	ask   *asker
	facts []Fact
	finds []func() Fact
}

func (l *look) add(check, subject string, find func() Fact) {
	for _, f := range l.facts {
		if f.Check == check && f.Subject == subject { // two transports from one address
			return
		}
	}
	l.facts = append(l.facts, Fact{Check: check, Subject: subject})
	l.finds = append(l.finds, find)
}

func (l *look) all() []Fact {
	var running sync.WaitGroup
	next := make(chan int)
	for range min(parallel, len(l.finds)) {
		running.Go(func() {
			for n := range next {
				f := l.finds[n]()
				l.facts[n].State, l.facts[n].Found, l.facts[n].Wanted = f.State, f.Found, f.Wanted
			}
		})
	}
	for n := range l.finds {
		next <- n
	}
	close(next)
	running.Wait()
	return l.facts
}

func fine(format string, args ...any) Fact {
	return Fact{State: OK, Found: fmt.Sprintf(format, args...)}
}

func wrong(wanted, format string, args ...any) Fact {
	return Fact{State: Wrong, Found: fmt.Sprintf(format, args...), Wanted: wanted}
}

func unknown(format string, args ...any) Fact {
	return Fact{State: Unknown, Found: fmt.Sprintf(format, args...)}
}
