package main

import (
	"testing"
	"time"

	"relayguard/cmd/internal/trail"
	"relayguard/mta/maillog"
	"relayguard/policy"
)

// expanding is a state in which an address of example.jp was learnt to stand for
// 500, written so.
func expanding(t *testing.T, delimiters, written string) *state {
	t.Helper()
	s := aState(t, stateConfig(t))
	t.Cleanup(func() { s.close(nil) })
	p := s.rules.Load().policy
	p.Inside = policy.Inside{"example.jp": true, "example.com": true}
	p.Addresses.DefaultDomain, p.Addresses.Delimiters = "example.jp", delimiters
	now := time.Now()
	s.trail.Accepted("A", trail.Passed{Recipients: 1, Rcpts: []string{written}})
	s.trail.Event(t.Context(), now, maillog.Event{Time: now, Kind: maillog.Queued, QueueID: "A", Recipients: 500})
	return s
}

// Review 5, finding 2: Postfix expands all of these alike.
func TestSpellingsOfAnAliasAreOneAlias(t *testing.T) {
	spellings := []string{"list@example.jp", "LIST@Example.JP", "list", "List+b", "list+a@example.jp", "list=a+b@example.jp", `"list"@example.jp.`, "list@[192.0.2.1]", "list+c@[192.0.2.1]"}
	for _, written := range spellings[:7] {
		s := expanding(t, "+=", written)
		for _, to := range spellings {
			if n := s.expansions.Of(to); n != 500 {
				t.Errorf("%s was learnt: %s stands for %d", written, to, n)
			}
		}
		for _, to := range []string{"other@example.jp", "list@example.com", "list+a@example.net", "list@example.net", "+list@example.jp", "owner-list@example.jp", ""} {
			if n := s.expansions.Of(to); n != 1 {
				t.Errorf("%s was learnt: %s stands for %d", written, to, n)
			}
		}
	}
	if n := expanding(t, "", "list@example.jp").expansions.Of("list+a@example.jp"); n != 1 {
		t.Errorf("without delimiters there are no tags: %d", n)
	}
	s := expanding(t, "-", "list@example.jp")
	for to, want := range map[string]int{"list-a@example.jp": 500, "list-request@example.jp": 1, "owner-list@example.jp": 1} {
		if n := s.expansions.Of(to); n != want {
			t.Errorf("%s stands for %d, want %d", to, n, want)
		}
	}
	for _, to := range []string{"list@[192.0.2.1]", "list@example.net"} { // perhaps another machine's
		if n := expanding(t, "+", to).expansions.Of("list@example.jp"); n != 1 {
			t.Errorf("%s taught that list@example.jp stands for %d", to, n)
		}
	}
}
