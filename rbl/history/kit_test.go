package history_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
)

const confirm = 10 * time.Minute

var (
	start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	ours  = address("203.0.113.5")
	other = address("203.0.113.6")
	ours6 = address("2001:db8::5")
	site  = rbl.Subject{Name: "example.jp"}
)

func address(text string) rbl.Subject { return rbl.Subject{Addr: netip.MustParseAddr(text)} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *history.Store {
	t.Helper()
	return openWith(t, dir, history.Options{Confirm: confirm})
}

func openWith(t testing.TB, dir string, o history.Options) *history.Store {
	t.Helper()
	s, err := history.Open(t.Context(), dir, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func zonesNamed(names ...string) (all []rbl.Zone) {
	for _, n := range names {
		all = append(all, rbl.Zone{Name: n})
	}
	return all
}

// hit is the listing 127.0.0.LAST.
func hit(last byte) rbl.Hit {
	return rbl.Hit{Code: netip.AddrFrom4([4]byte{127, 0, 0, last}), Means: "spam", Severity: rbl.High}
}

// says is what a zone says of a subject in a round.
type says struct {
	zone    string
	subject rbl.Subject
	result  rbl.Result
	hits    []rbl.Hit
}

func listed(zone string, s rbl.Subject, hits ...rbl.Hit) says {
	return says{zone, s, rbl.Listed, hits}
}

func clean(zone string, s rbl.Subject) says { return says{zone, s, rbl.Clean, nil} }

func unknown(zone string, s rbl.Subject) says { return says{zone, s, rbl.Unknown, nil} }

// roundOf is a round of zones that are healthy but for those in sick.
func roundOf(at time.Time, sick map[string]rbl.State, all ...says) check.Round {
	r := check.Round{Began: at, Took: time.Second, Queries: int64(len(all))}
	type kindOf struct {
		zone string
		kind rbl.Kind
	}
	seen := map[kindOf]bool{}
	for _, a := range all {
		r.Answers = append(r.Answers, answerOf(at, a))
		if k := (kindOf{a.zone, a.subject.Kind()}); !seen[k] {
			seen[k] = true
			r.Zones = append(r.Zones, healthOf(at, k.zone, k.kind, sick))
		}
	}
	return r
}

func healthOf(at time.Time, zone string, kind rbl.Kind, sick map[string]rbl.State) rbl.Health {
	h := rbl.Health{Zone: zone, Kind: kind, State: rbl.Healthy, At: at}
	if state, ok := sick[zone]; ok {
		h.State, h.Why = state, "as the test has it"
	}
	return h
}

func answerOf(at time.Time, a says) rbl.Answer {
	answer := rbl.Answer{Zone: a.zone, Subject: a.subject, Result: a.result, Hits: a.hits, Resolver: "127.0.0.1:53", At: at}
	if a.result == rbl.Listed {
		answer.Reasons = []string{"see https://bl.example/?ip=" + a.subject.String()}
	}
	return answer
}

// take takes a round about all subjects and zones in it.
func take(t testing.TB, s *history.Store, at time.Time, sick map[string]rbl.State, all ...says) {
	t.Helper()
	var subjects []rbl.Subject
	var names []string
	for _, a := range all {
		subjects = append(subjects, a.subject)
		names = append(names, a.zone)
	}
	must(t, s.Take(t.Context(), roundOf(at, sick, all...), subjects, zonesNamed(names...)))
}

// untold are the kinds of what is to be told, which is told by that.
func untold(t testing.TB, s *history.Store) (kinds []history.EventKind) {
	t.Helper()
	events, err := s.Untold(t.Context())
	must(t, err)
	for _, e := range events {
		kinds = append(kinds, e.Kind)
		must(t, s.Told(t.Context(), e.ID))
	}
	return kinds
}

func listings(t testing.TB, s *history.Store, q history.Query) []history.Listing {
	t.Helper()
	all, err := s.Listings(t.Context(), q)
	must(t, err)
	return all
}

func isFull(err error) bool { return errors.Is(err, history.ErrFull) }
