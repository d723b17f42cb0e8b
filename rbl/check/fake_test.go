package check_test

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"

	"relayguard/rbl"
)

// fake is a resolver that knows zones. It counts what it is asked.
type fake struct {
	name  string
	delay time.Duration // inside a synctest bubble

	mu     sync.Mutex
	zones  map[string]server // by the end of the name
	asked  []string          // "name TYPE"
	at     []time.Time       // of asked
	under  map[string]int
	most   map[string]int // under way at once, by zone
	all    int
	allMax int
}

// server answers for the labels in front of a zone; "" is the zone itself.
type server func(labels string, t rbl.Type) rbl.Response

func newFake(name string) *fake {
	return &fake{name: name, zones: map[string]server{}, under: map[string]int{}, most: map[string]int{}}
}

func (f *fake) serve(zone string, s server) *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.zones[zone] = s
	return f
}

func (f *fake) Name() string { return f.name }

func (f *fake) Ask(ctx context.Context, name string, t rbl.Type) rbl.Response {
	zone, answer := f.enter(name, t)
	defer f.leave(zone)
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-ctx.Done():
			return f.sign(rbl.Response{Err: ctx.Err()})
		}
	}
	if ctx.Err() != nil {
		return f.sign(rbl.Response{Err: ctx.Err()})
	}
	if answer == nil {
		return f.sign(noName())
	}
	return f.sign(answer(strings.TrimSuffix(strings.TrimSuffix(name, zone), "."), t))
}

func (f *fake) sign(r rbl.Response) rbl.Response {
	r.Server = f.name
	return r
}

func (f *fake) enter(name string, t rbl.Type) (zone string, s server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, name+" "+typeName(t))
	f.at = append(f.at, time.Now())
	for z, answer := range f.zones {
		if (name == z || strings.HasSuffix(name, "."+z)) && len(z) > len(zone) {
			zone, s = z, answer
		}
	}
	f.under[zone]++
	f.most[zone] = max(f.most[zone], f.under[zone])
	f.all++
	f.allMax = max(f.allMax, f.all)
	return zone, s
}

func (f *fake) leave(zone string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.under[zone]--
	f.all--
}

// questions are those that end with a text, in the order in which they came.
func (f *fake) questions(end string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, q := range f.asked {
		if strings.HasSuffix(q, end) {
			all = append(all, q)
		}
	}
	return all
}

// tightest is the shortest time in which so many of these questions came.
func (f *fake) tightest(so int, of func(question string) bool) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	least := time.Duration(math.MaxInt64)
	var at []time.Time
	for i, q := range f.asked {
		if !of(q) {
			continue
		}
		if at = append(at, f.at[i]); len(at) >= so {
			least = min(least, f.at[i].Sub(at[len(at)-so]))
		}
	}
	return least
}

func typeName(t rbl.Type) string {
	switch t {
	case rbl.TypeA:
		return "A"
	case rbl.TypeTXT:
		return "TXT"
	case rbl.TypeSOA:
		return "SOA"
	}
	return "?"
}

func noName() rbl.Response { return rbl.Response{Outcome: rbl.NoName} }
func noData() rbl.Response { return rbl.Response{Outcome: rbl.NoData} }
func timedOut() rbl.Response {
	return rbl.Response{Outcome: rbl.TimedOut, Err: context.DeadlineExceeded}
}
func servFail() rbl.Response { return rbl.Response{Outcome: rbl.ServFail} }
func refused() rbl.Response  { return rbl.Response{Outcome: rbl.QueryRefused} }
func broken() rbl.Response   { return rbl.Response{Outcome: rbl.Broken} }

func addrs(list ...string) rbl.Response {
	r := rbl.Response{Outcome: rbl.Answered}
	for _, a := range list {
		r.Addrs = append(r.Addrs, netip.MustParseAddr(a))
	}
	return r
}

// entries is a list that works: what it has, by labels; all else does not exist.
// The zone itself has an SOA.
type entries map[string]rbl.Response

func (e entries) server() server {
	return func(labels string, t rbl.Type) rbl.Response {
		switch {
		case labels == "":
			return rbl.Response{Outcome: rbl.Answered}
		case t == rbl.TypeTXT:
			if r, ok := e[labels+" TXT"]; ok {
				return r
			}
			if _, ok := e[labels]; ok {
				return noData()
			}
			return noName()
		}
		if r, ok := e[labels]; ok {
			return r
		}
		return noName()
	}
}

// well is a working list of IPv4 with these entries besides its test entry.
func well(more entries) entries {
	e := entries{listed4: addrs("127.0.0.2")}
	for labels, r := range more {
		e[labels] = r
	}
	return e
}

const (
	listed4 = "2.0.0.127"
	clean4  = "1.0.0.127"
	root4   = "129.14.0.193" // k.root-servers.net
	// RFC 5782 §5: the nibbles of ::FFFF:7F00:2 and ::FFFF:7F00:1, reversed.
	listed6 = "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
	clean6  = "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
)

// zone4 is a blocklist of IPv4 addresses.
func zone4(name string) rbl.Zone {
	return rbl.Zone{
		Name: name, Operator: name, Kinds: []rbl.Kind{rbl.IP4}, Severity: rbl.High,
		Test: rbl.Test{Listed4: listed4, Clean4: clean4},
	}
}

func ip(a string) rbl.Subject { return rbl.Subject{Addr: netip.MustParseAddr(a)} }

// isCanary reports whether labels are a random name.
func isCanary(labels string) bool {
	return len(labels) == 20 && !strings.Contains(labels, ".")
}
