package faults_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/systemtest/relay"
)

// What a flood of refusals may cost the journal in a minute: an entry for each
// of 100 clients without an account and one for all others together
// (cmd/internal/guard/refusals.go), and for each every ten seconds a line with
// how often it was repeated. A minute may end during the flood.
const (
	strangersOwn = 100 + 1
	entryOctets  = 1024
	repeatOctets = 128
	floodOctets  = 2 * strangersOwn * (entryOctets + 6*repeatOctets)
)

// TestFloodOfRefusals has strangers without AUTH try 5,000 recipients from as
// many addresses as they like.
func TestFloodOfRefusals(t *testing.T) {
	s := startSite(t, relay.Options{})
	before := s.logOctets()
	const clients, each = 250, 20
	began := time.Now()
	ids := s.flood(clients, each)
	took := time.Since(began)
	for id := range ids {
		told, err := s.explain(t.Context(), id)
		if err != nil || len(told) != 1 || told[0].Decision == nil || told[0].Decision.Rule == "" {
			t.Errorf("explain %s: %+v, %v", id, told, err)
		}
	}
	// Each refusal is counted, ten seconds later at most.
	total := int64(0)
	poll(t, patience, "count every refusal", func() error {
		all, err := s.decisions(t.Context(), url.Values{"stage": {"rcpt"}, "limit": {"1000"}})
		total = 0
		for _, d := range all {
			total += 1 + d.Repeats
		}
		if err == nil && total < clients*each {
			err = fmt.Errorf("%d decisions stand for %d refusals, want %d", len(all), total, clients*each)
		}
		if len(all) > 2*strangersOwn {
			t.Errorf("%d decisions, want at most %d", len(all), 2*strangersOwn)
		}
		return err
	})
	if total != clients*each {
		t.Errorf("%d refusals are counted, want %d", total, clients*each)
	}
	grown := s.logOctets() - before
	t.Logf("%d refusals in %v: %d ids told, the journal's log grew by %d octets (at most %d)", clients*each, took.Round(time.Millisecond), len(ids), grown, floodOctets)
	if grown > floodOctets {
		t.Errorf("the journal's log grew by %d octets, want at most %d", grown, floodOctets)
	}
	s.explained(s.goesOn("after"))
}

// flood tries recipients from several addresses, and returns the ids it is told.
func (s *site) flood(clients, each int) map[string]bool {
	s.t.Helper()
	var mu sync.Mutex
	var work sync.WaitGroup
	ids := map[string]bool{}
	next := make(chan int)
	for range 8 {
		work.Go(func() {
			for n := range next {
				told, err := s.strangers(s.t.Context(), n, each)
				if err != nil {
					s.t.Errorf("client %d: %v", n, err)
				}
				mu.Lock()
				for _, id := range told {
					ids[id] = true
				}
				mu.Unlock()
			}
		})
	}
	for n := range clients {
		next <- n
	}
	close(next)
	work.Wait()
	return ids
}

// strangers is one client that is refused at each recipient.
func (s *site) strangers(ctx context.Context, n, each int) (ids []string, err error) {
	c, err := s.Dial(ctx, relay.Submission)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, command := range []string{fmt.Sprintf("XCLIENT ADDR=203.0.%d.%d PORT=40001", 113+n/200, 1+n%200), "EHLO stranger.example.org", "MAIL FROM:<x@example.org>"} {
		if reply, err := c.Cmd("%s", command); err != nil || !reply.Positive() {
			return nil, fmt.Errorf("%s: %v, %v", command, reply, err)
		}
	}
	for i := range each {
		reply, err := c.Rcpt(fmt.Sprintf("r%d@example.net", i))
		id := idOf(reply.String())
		if err != nil || reply.Positive() || id == "" {
			return ids, fmt.Errorf("RCPT: %v, %v; want a refusal with an id", reply, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// logOctets is the size of the journal's log.
func (s *site) logOctets() (n int64) {
	s.t.Helper()
	all, err := filepath.Glob(filepath.Join(s.JournalDir(), "log", "*.log")) // none before the first record
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range all {
		n += s.size(path)
	}
	return n
}

// TestFloodOfStops has one login stopped hundreds of times: one incident, one
// alert, also across a crash.
func TestFloodOfStops(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	alerts, command := filepath.Join(dir, "alerts"), filepath.Join(dir, "alert")
	if err := os.WriteFile(command, fmt.Appendf(nil, "#!/bin/sh\necho \"$@\" >>%s\n", alerts), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(alerts, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(alerts, 0o666); err != nil { // whatever the umask says
		t.Fatal(err)
	}
	s := startSite(t, relay.Options{Config: fmt.Sprintf("[alert]\nsyslog = false\ncommand = %q\n", command)})
	s.stops("first", 300)
	s.oneIncident(alerts, 300)
	s.killGuard()
	s.startGuard(t.Context())
	s.stops("second", 100)
	s.oneIncident(alerts, 0)
}

// stops has messages of one login held.
func (s *site) stops(tag string, n int) {
	s.t.Helper()
	c, err := s.session(s.t.Context(), "taro@example.jp")
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		token := fmt.Sprintf("%s-%d", tag, i)
		sent, err := c.Send("somebody@example.org", []string{token + "@example.net"}, letter(token, "somebody@example.org", token+"@example.net"))
		if err != nil || !sent.Accepted() {
			s.t.Fatalf("%s: %+v, %v", token, sent, err)
		}
	}
}

// oneIncident waits for the one incident and its alert, and looks for a while
// whether there are more.
func (s *site) oneIncident(alerts string, stops int64) {
	s.t.Helper()
	check := func() error {
		h, err := s.status(s.t.Context())
		if err != nil {
			return err
		}
		if len(h.Incidents) != 1 || h.Incidents[0].Stops < stops {
			return fmt.Errorf("incidents %+v, want one with %d stops", h.Incidents, stops)
		}
		text, err := os.ReadFile(alerts)
		if got := strings.Count(string(text), "\n"); err == nil && got != 1 {
			err = fmt.Errorf("%d alerts, want one:\n%s", got, text)
		}
		return err
	}
	poll(s.t, patience, "one incident, one alert", check)
	s.watch(3*time.Second, func() {
		if err := check(); err != nil {
			s.t.Fatal(err)
		}
	})
}
