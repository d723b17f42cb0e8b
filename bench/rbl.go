package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/resolve"
)

// Goals of asking blocklists, and of the daily report.
const (
	mostRoundSeconds  = 3
	mostReportSeconds = 2
	mostReportKB      = 100 // of HTML: programs for mail clip more
)

// plainClient asks the same questions and makes nothing of the answers.
const plainClient = "plain-client"

// What is asked: as many as a large host has.
const (
	manyZones     = 60
	manyAddresses = 10
	parallelAsked = 64 // check's own bound, for both
)

// blocklists measures a round over blocklists beside a client that asks the same
// questions as often at once, and the daily report of a year. Lists are served by
// rbldnsd: asked directly, and through unbound as a host's own resolver.
func (b *bench) blocklists(ctx context.Context) error {
	dir := filepath.Join(b.dir, "rbl")
	if err := os.Mkdir(dir, 0o711); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	l := newLists(manyZones, manyAddresses)
	server, err := l.serve(ctx, dir)
	if err != nil {
		return err
	}
	defer server.stop()
	if err := b.listRounds(ctx, "rbl/10x60", l, server); err != nil {
		return err
	}
	through, err := l.behind(ctx, dir, server)
	if err != nil {
		b.skipped = append(b.skipped, fmt.Sprintf("rbl through a recursive server: %v", err))
	} else {
		err = b.listRounds(ctx, "rbl/10x60/unbound", l, through)
		through.stop()
		if err != nil {
			return err
		}
	}
	return b.yearReport(ctx, dir, l, server)
}

// listRounds are the lines about one server.
func (b *bench) listRounds(ctx context.Context, name string, l *lists, server *nameServer) error {
	took, cpu, queries := samples{}, samples{}, samples{}
	for round := range b.rounds {
		b.progress("%s, round %d of %d", name, round+1, b.rounds)
		r := newRecorder(server.address)
		c := check.New(check.Options{Resolvers: []rbl.Resolver{r}, Parallel: parallelAsked})
		for _, which := range []string{"first", "again"} { // the second round remembers the test entries
			if which == "again" {
				r.forget()
			}
			before := ownCPU()
			found := c.Run(ctx, l.subjects, l.zones, nil)
			spent := ownCPU() - before
			if err := l.complete(&found); err != nil {
				return fmt.Errorf("%s, %s round: %w", name, which, err)
			}
			took.add(which, found.Took.Seconds())
			cpu.add(which, spent)
			queries.add(which, float64(found.Queries))
			if which == "first" {
				began, before := time.Now(), ownCPU()
				if err := askPlainly(ctx, server.address, r.questions()); err != nil {
					return fmt.Errorf("%s, %s: %w", name, plainClient, err)
				}
				took.add(plainClient, time.Since(began).Seconds())
				cpu.add(plainClient, ownCPU()-before)
			}
		}
	}
	beside := func(s samples) samples { return samples{theGuard: s["first"], plainClient: s[plainClient]} }
	order := []string{theGuard, plainClient}
	b.add(name+"/s", "s", plainClient, &goal{mostRoundSeconds, false, false}, beside(took), order)
	b.add(name+"/cpu_s", "s", plainClient, nil, beside(cpu), order)
	b.single(name+"/again_s", "s", &goal{mostRoundSeconds, false, false}, took["again"]...)
	b.single(name+"/queries", "", nil, queries["first"]...)
	return nil
}

// complete reports an error unless all was asked and all listings were found: a
// round that believes nobody must not pass for a fast one.
func (l *lists) complete(r *check.Round) error {
	for _, h := range r.Zones {
		if h.State != rbl.Healthy {
			return fmt.Errorf("%s is %s for %s: %s", h.Zone, h.State, h.Kind, h.Why)
		}
	}
	listed, clean := 0, 0
	for i := range r.Answers {
		switch a := &r.Answers[i]; {
		case a.Result == rbl.Listed && len(a.Reasons) > 0:
			listed++
		case a.Result == rbl.Clean:
			clean++
		}
	}
	want := l.listings()
	if all := len(l.zones) * len(l.subjects); listed != want || listed+clean != all {
		return fmt.Errorf("%d listings with a reason and %d clean answers, want %d and %d", listed, clean, want, all-want)
	}
	return nil
}

// question is one that was asked.
type question struct {
	name string
	t    rbl.Type
}

// recorder notes what a server is asked.
type recorder struct {
	*resolve.Server
	mu    sync.Mutex
	asked []question
}

func newRecorder(address string) *recorder {
	return &recorder{Server: resolve.New(address, 0)}
}

func (r *recorder) Ask(ctx context.Context, name string, t rbl.Type) rbl.Response {
	r.mu.Lock()
	r.asked = append(r.asked, question{name, t})
	r.mu.Unlock()
	return r.Server.Ask(ctx, name, t)
}

func (r *recorder) questions() []question {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = nil
}

// askPlainly asks with the library's own client, parallelAsked at once.
func askPlainly(ctx context.Context, address string, all []question) error {
	client := dns.Client{UDPSize: 1232, Timeout: 5 * time.Second}
	var next atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, parallelAsked)
	for w := range errs {
		wait.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				m := new(dns.Msg).SetQuestion(all[i].name+".", uint16(all[i].t))
				m.SetEdns0(1232, false)
				answer, _, err := client.ExchangeContext(ctx, m, address)
				if err == nil && answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
					err = fmt.Errorf("%s: %s", all[i].name, dns.RcodeToString[answer.Rcode])
				}
				errs[w] = err
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}
