package sender

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"relayguard/rbl"
)

// asker puts each question to the resolver once. Safe for concurrent use.
type asker struct {
	resolver rbl.Resolver

	mu    sync.Mutex
	known map[question]*reply
}

type question struct {
	name string
	kind rbl.Type
}

// reply is one on its way; response is set before done is closed.
type reply struct {
	done     chan struct{}
	response rbl.Response
}

func newAsker(r rbl.Resolver) *asker { return &asker{resolver: r, known: map[question]*reply{}} }

func (a *asker) ask(ctx context.Context, name string, kind rbl.Type) rbl.Response {
	q := question{strings.ToLower(name), kind}
	a.mu.Lock()
	r, known := a.known[q]
	if !known {
		if len(a.known) >= maxQuestions {
			a.mu.Unlock()
			return rbl.Response{Outcome: rbl.Broken, Err: fmt.Errorf("more than %d questions", maxQuestions)}
		}
		r = &reply{done: make(chan struct{})}
		a.known[q] = r
	}
	a.mu.Unlock()
	if !known {
		r.response = a.resolver.Ask(ctx, q.name, kind)
		close(r.done)
	}
	<-r.done // Ask ends with ctx
	return r.response
}

// said reports that a name server has said what there is, or that there is nothing.
func said(r rbl.Response) bool {
	return r.Outcome == rbl.Answered || r.Outcome == rbl.NoData || r.Outcome == rbl.NoName || dangling(r)
}

// dangling reports an alias that leads nowhere: to receivers that is a name without
// records.
func dangling(r rbl.Response) bool { return errors.Is(r.Err, rbl.ErrDangling) }

// nothing says in which way there is nothing.
func nothing(r rbl.Response) string {
	switch {
	case r.Outcome == rbl.NoName:
		return "the name does not exist"
	case dangling(r):
		return rbl.ErrDangling.Error()
	}
	return "the name has no such record"
}

// silence says why there was no answer.
func silence(what string, r rbl.Response) Fact {
	from := ""
	if r.Server != "" {
		from = " from " + r.Server
	}
	if r.Err != nil {
		return unknown("%s: %s%s: %s", what, r.Outcome, from, shown(r.Err.Error()))
	}
	return unknown("%s: %s%s", what, r.Outcome, from)
}

// addressType is the type of records that can hold an address.
func addressType(addr netip.Addr) (rbl.Type, string) {
	if addr.Is4() {
		return rbl.TypeA, "A"
	}
	return rbl.TypeAAAA, "AAAA"
}

func has(r rbl.Response, addr netip.Addr) bool {
	return r.Outcome == rbl.Answered && slices.ContainsFunc(r.Addrs, func(a netip.Addr) bool { return a.Unmap() == addr })
}

// Confirmed asks whether name has addr in DNS, the way receivers confirm a name.
// The error says that DNS did not tell; false that it did.
func Confirmed(ctx context.Context, r rbl.Resolver, name string, addr netip.Addr) (bool, error) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || !isName(name) {
		return false, nil
	}
	kind, record := addressType(addr)
	response := r.Ask(ctx, name, kind)
	switch {
	case said(response):
		return has(response, addr), nil
	case response.Err != nil:
		return false, fmt.Errorf("ask for %s of %s: %s: %w", record, name, response.Outcome, response.Err)
	}
	return false, fmt.Errorf("ask for %s of %s: %s", record, name, response.Outcome)
}

// isName reports whether DNS could have the name: labels of letters, digits, hyphens
// and underscores, such as hosts and domains of mail have.
func isName(name string) bool {
	const longest, longestLabel = 253, 63 // RFC 1035 §2.3.4
	if name == "" || len(name) > longest {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > longestLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// shown makes text of DNS or of a configuration fit for one line: printable ASCII,
// at most 255 octets.
func shown(s string) string {
	const most = 255
	var b strings.Builder
	for _, r := range s {
		if b.Len() == most {
			return b.String() + "..."
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		b.WriteByte(byte(r))
	}
	return b.String()
}
