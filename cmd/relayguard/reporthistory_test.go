package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	looks "relayguard/rbl/sender"
)

func (b brokenHistory) Listings(ctx context.Context, q history.Query) ([]history.Listing, error) {
	if b.what == "listings" {
		return nil, errBroken
	}
	return b.reportHistory.Listings(ctx, q)
}

func (b brokenHistory) Events(ctx context.Context, since, until time.Time) ([]history.Event, error) {
	if b.what == "events" {
		return nil, errBroken
	}
	return b.reportHistory.Events(ctx, since, until)
}

func (b brokenHistory) Zones(ctx context.Context) ([]history.ZoneState, error) {
	if b.what == "zones" {
		return nil, errBroken
	}
	return b.reportHistory.Zones(ctx)
}

func (b brokenHistory) Subjects(ctx context.Context) ([]history.SubjectState, error) {
	if b.what == "subjects" {
		return nil, errBroken
	}
	return b.reportHistory.Subjects(ctx)
}

func (b brokenHistory) Answers(ctx context.Context) ([]rbl.Answer, error) {
	if b.what == "answers" {
		return nil, errBroken
	}
	return b.reportHistory.Answers(ctx)
}

func (b brokenHistory) Last(ctx context.Context) (round, neighbours time.Time, err error) {
	if b.what == "last" {
		return round, neighbours, errBroken
	}
	return b.reportHistory.Last(ctx)
}

func (b brokenHistory) Days(ctx context.Context, since, until time.Time, loc *time.Location) ([]history.Day, error) {
	if b.what == "days" {
		return nil, errBroken
	}
	return b.reportHistory.Days(ctx, since, until, loc)
}

func (b brokenHistory) Queries(ctx context.Context, since, until time.Time) (int64, error) {
	if b.what == "queries" {
		return 0, errBroken
	}
	return b.reportHistory.Queries(ctx, since, until)
}

func (b brokenHistory) Facts(ctx context.Context) ([]history.FactState, error) {
	if b.what == "facts" {
		return nil, errBroken
	}
	return b.reportHistory.Facts(ctx)
}

func (b brokenHistory) Neighbours(ctx context.Context) ([]check.Neighbour, []int, error) {
	if b.what == "neighbours" {
		return nil, nil, errBroken
	}
	return b.reportHistory.Neighbours(ctx)
}

// facts has the reverse name of our address in that state.
func (s *reportScene) facts(at time.Time, state string) {
	s.t.Helper()
	f := looks.Fact{Subject: ourAddr.String(), Check: looks.PTR, State: state, Found: "two names"}
	if state == looks.Wrong {
		f.Wanted = "one name"
	}
	must(s.t, s.history.TakeFacts(s.t.Context(), at, []looks.Fact{f}))
}

func (s *reportScene) neighbours(at time.Time, listed int) {
	s.t.Helper()
	must(s.t, s.history.TakeNeighbours(s.t.Context(), at, []check.Neighbour{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Zone: "range.example", Asked: 256, Listed: listed, At: at}}))
}

// writeKey writes a key into a file.
func writeKey(t *testing.T, key string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(path, []byte(key+"\n"), 0o600))
	return path
}

// configWith is a configuration with more in it.
func configWith(t *testing.T, more string) (path, socket string) {
	t.Helper()
	path, socket = commandDir(t)
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, append(text, more...), 0o600))
	return path, socket
}
