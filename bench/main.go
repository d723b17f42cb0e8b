// Command bench measures what the guard costs, beside milters that do nothing.
//
// Four milters serve the same load in turn, each in a process of its own, round
// after round in one run, so that whatever else the machine does strikes all
// alike; every number is the median of the rounds:
//
//   - relayguard, the daemon as it is shipped, with its default policy in the
//     phase enforce, logging every verdict;
//   - go-milter-noop, the no-op milter of emersion/go-milter as it comes;
//   - libmilter-noop, a C milter with every callback and libmilter's own
//     negotiation;
//   - raw-noop, a Go program that reads frames and answers as often as the
//     guard does: what the protocol costs at least.
//
// The generator speaks the wire protocol as Postfix 3.7 does (64 connections,
// 100 messages of 4 kB a connection, a macro packet before each command) and
// keeps to what each milter negotiated. First as fast as they answer (closed
// loop: messages a second, CPU time), then at a fixed rate of half of what
// libmilter managed (open loop: latency from the time at which a message was
// due, so that a milter that stalls cannot hide it), then 2,000 connections
// that stay open (memory). At last a real Postfix carries mail without milter,
// with the raw one, and with the guard, until its queue is empty again.
//
// Limits are measured by themselves: steps a second over 1, 3 and 6 buckets by
// 1, 16 and 64 callers, each store beside what it stands on (a sharded map of as
// many keys; the same buckets in memory; a script in Redis that does nothing with
// as many keys), and what a million buckets take.
//
// Blocklists are asked by themselves, too: ten addresses on sixty lists that rbldnsd
// serves, directly and through unbound, beside a client that asks the same questions;
// and the daily report is made of a server that has run for a year.
//
// Commands over the queue are measured in a private Postfix and a private Sendmail,
// each with 100,000 messages that wait and as many that the guard holds: lists beside
// postqueue -j and mailq, bulk acts beside postsuper, sendmail -Q and qtool.pl, which
// keep no journal and no copies. Each act has a queue of its own.
//
// The trap: generator and milter share the processors, so in the closed loop
// the generator's own cost lowers every number, most that of the fastest. It is
// printed, too, as is what others took of the machine meanwhile.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

var processors = runtime.NumCPU()

// plan is how much is measured.
type plan struct {
	rounds int
	window time.Duration // of each round and milter
	only   string        // part of the names of what is measured; empty: all
	guard  string        // program instead of the daemon
	json   string
	queued int // messages that are deferred, and that are held
}

// longest bounds a run, whatever hangs.
const longest = 45 * time.Minute

func main() {
	if len(os.Args) == 4 && os.Args[1] == forwardScan {
		if err := serveForwardScan(os.Args[2], os.Args[3], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == subcommand {
		fmt.Fprintln(os.Stderr, serveMilter(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	p, err := parseFlags(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := run(ctx, p, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (plan, error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	p := plan{rounds: 5, queued: 100_000}
	quick := f.Bool("quick", false, "three short rounds: a first impression")
	f.DurationVar(&p.window, "duration", 3*time.Second, "length of each round, for each milter")
	f.StringVar(&p.only, "only", "", "measure only `PART`: "+strings.Join(partNames, ", "))
	f.StringVar(&p.json, "json", "bench.json", "`file` for the results")
	f.IntVar(&p.queued, "queued", p.queued, "`messages` that wait in the queue, and as many on hold")
	f.StringVar(&p.guard, "guard", "", "`program` to measure instead of ./cmd/relayguard; started as PROGRAM serve --config FILE")
	if err := f.Parse(args); err != nil {
		return p, err
	}
	if *quick {
		p.rounds, p.window = 3, 800*time.Millisecond
	}
	if f.NArg() > 0 || p.only != "" && !slices.Contains(partNames, p.only) || p.window < 100*time.Millisecond || p.window > time.Minute || p.queued < 1 || p.queued > mostQueued {
		f.Usage()
		return p, errors.New("usage")
	}
	return p, nil
}

// Parts of the benchmark.
var partNames = []string{"closed", "open", "memory", "postfix", "limits", "origin", "forward", "rbl", "queue"}

// overWire are those that begin with all milters.
var overWire = []string{"closed", "open", "memory"}

func (p *plan) has(part string) bool { return p.only == "" || p.only == part }

// run measures what the plan says and prints it. A part that cannot be measured
// is said and left out.
func run(ctx context.Context, p plan, out io.Writer) error {
	dir, err := workDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if p.guard == "" && p.only != "forward" {
		if p.guard, err = buildDaemon(ctx, dir); err != nil {
			return err
		}
	}
	b := &bench{plan: p, dir: dir, started: time.Now()}
	for i := range variants {
		b.mails = append(b.mails, newMail(i))
	}
	for _, part := range []struct {
		name   string
		wanted bool
		do     func(context.Context) error
	}{
		{"wire", p.only == "" || slices.Contains(overWire, p.only), b.wire},
		{"postfix", p.has("postfix"), b.postfix},
		{"limits", p.has("limits"), b.limits},
		{"origin", p.has("origin"), b.origin},
		{"forward", p.has("forward"), b.forwards},
		{"rbl", p.has("rbl"), b.blocklists},
		{"queue", p.has("queue"), b.queue},
	} {
		if !part.wanted {
			continue
		}
		if err := part.do(ctx); err != nil {
			b.skipped = append(b.skipped, fmt.Sprintf("%s: %v", part.name, err))
		}
	}
	b.progress("")
	if len(b.results)+len(b.bouts)+len(b.queues) == 0 {
		return fmt.Errorf("nothing could be measured: %s", strings.Join(b.skipped, "; "))
	}
	printTable(out, b.results)
	printStandings(out, b.standings)
	printBouts(out, b.bouts)
	printQueues(out, b.queues)
	b.remarks(out)
	if errors.Is(ctx.Err(), context.Canceled) { // by who looks on: the file stays that of a whole run
		return ctx.Err()
	}
	for i := range b.standings {
		b.results = append(b.results, b.standings[i].results()...)
	}
	for i := range b.bouts {
		b.results = append(b.results, b.bouts[i].result())
	}
	for _, t := range b.queues {
		b.results = append(b.results, t.results()...)
	}
	return errors.Join(writeJSON(p.json, b.results), ctx.Err()) // what the time did not suffice for is among the skipped
}

// bench is a run.
type bench struct {
	plan
	dir       string
	mails     []mail
	started   time.Time
	results   []result
	standings []standing // of limits, with a table of their own
	bouts     []bout     // of origin, with one, too
	queues    []*queueTable
	skipped   []string  // what could not be measured, and why
	foreign   []float64 // see throughput
}

// remarks says what belongs to the numbers.
func (b *bench) remarks(out io.Writer) {
	fmt.Fprintf(out, "\n%d rounds of %v, %d processors, %s; took %v.\n", b.rounds, b.window, processors, runtime.Version(), time.Since(b.started).Round(time.Second))
	if len(b.foreign) > 0 {
		fmt.Fprintf(out, "Others took %.0f %% of the processors (median), %.0f %% at most.\n", 100*median(b.foreign), 100*slices.Max(b.foreign))
	}
	fmt.Fprintln(out, "Ratios are to the reference; goals with an x are for the ratio.")
	for _, s := range b.skipped {
		fmt.Fprintln(out, "Skipped:", s)
	}
}

// progress shows on a terminal what is being measured.
func (b *bench) progress(format string, args ...any) {
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return
	}
	text := fmt.Sprintf(format, args...)
	if text != "" {
		text = fmt.Sprintf("%4.0fs %s", time.Since(b.started).Seconds(), text)
	}
	fmt.Fprintf(os.Stderr, "\r\x1b[K%.79s", text)
}

// wireOrder is the order of measuring and of printing.
var wireOrder = []string{theGuard, plainMilter, cMilter, rawMilter}

// wire measures over the milter protocol.
func (b *bench) wire(ctx context.Context) error {
	program, err := buildC(ctx, b.dir)
	if err != nil {
		return err
	}
	milters := []milter{
		guard(b.guard, b.dir, "root"),
		goMilter(plainMilter),
		libMilter(program),
		goMilter(rawMilter),
	}
	var all []*running
	for i, m := range milters {
		r, err := startMilter(m, b.dir, socketIn(b.dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		defer r.stop()
		all = append(all, r)
	}
	rate, err := b.closed(ctx, all)
	if err == nil && b.has("open") {
		err = b.open(ctx, all, rate/2)
	}
	if err == nil && b.has("memory") {
		err = b.memory(ctx, all)
	}
	return err
}

// closed returns what libmilter managed, messages/s.
func (b *bench) closed(ctx context.Context, all []*running) (float64, error) {
	values, cpu, own := samples{}, samples{}, samples{}
	for round := range b.rounds {
		for _, m := range all {
			if !b.has("closed") && m.name != cMilter {
				continue
			}
			b.progress("closed loop, round %d of %d: %s", round+1, b.rounds, m.name)
			t, err := closedLoop(ctx, m, b.mails, b.window)
			if err != nil {
				return 0, err
			}
			values.add(m.name, t.perSecond)
			cpu.add(m.name, t.cpu)
			own.add(m.name, t.generatorCPU)
			b.foreign = append(b.foreign, t.foreign)
		}
	}
	if b.has("closed") {
		b.add("wire/64x4k/messages_per_s", "1/s", cMilter, &goal{4, true, true}, values, wireOrder)
		b.add("wire/64x4k/cpu_s_per_10k", "s", cMilter, &goal{0.2, false, true}, cpu, wireOrder)
		b.add("wire/64x4k/generator_cpu", "s/10k", cMilter, nil, own, wireOrder)
	}
	return median(values[cMilter]), nil
}

func (b *bench) open(ctx context.Context, all []*running, rate float64) error {
	m50, m99, d50, d99 := samples{}, samples{}, samples{}, samples{}
	for round := range b.rounds {
		for _, m := range all {
			b.progress("%.0f messages/s, round %d of %d: %s", rate, round+1, b.rounds, m.name)
			l, err := openLoop(ctx, m, b.mails, rate, b.window)
			if err != nil {
				return err
			}
			m50.add(m.name, float64(l.messageP50.Microseconds()))
			m99.add(m.name, float64(l.messageP99.Microseconds()))
			d50.add(m.name, float64(l.dotP50.Microseconds()))
			d99.add(m.name, float64(l.dotP99.Microseconds()))
		}
	}
	noWorse := &goal{1, false, true}
	b.results = append(b.results, result{Name: "wire/rate/messages_per_s", Value: round(rate), Unit: "1/s"})
	b.add("wire/rate/message_p50", "us", cMilter, nil, m50, wireOrder)
	b.add("wire/rate/message_p99", "us", cMilter, noWorse, m99, wireOrder)
	b.add("wire/rate/final_dot_p50", "us", cMilter, nil, d50, wireOrder)
	b.add("wire/rate/final_dot_p99", "us", cMilter, noWorse, d99, wireOrder)
	return nil
}

func (b *bench) memory(ctx context.Context, all []*running) error {
	open, after, peak := samples{}, samples{}, samples{}
	for _, m := range all {
		b.progress("%d connections: %s", parked, m.name)
		r, err := park(ctx, m, b.mails)
		if err != nil {
			return err
		}
		open.add(m.name, r.parked)
		after.add(m.name, r.afterLoad)
		peak.add(m.name, r.peakOfLoad)
	}
	b.add("wire/2000/rss", "MB", cMilter, &goal{150, false, false}, open, wireOrder)
	if b.only == "" {
		b.add("wire/64x4k/rss_after", "MB", cMilter, nil, after, wireOrder)
		b.add("wire/64x4k/rss_peak", "MB", cMilter, nil, peak, wireOrder)
	}
	return nil
}

// samples are values of each milter, one a round.
type samples map[string][]float64

func (s samples) add(name string, v float64) { s[name] = append(s[name], v) }

// add takes the medians of a measure into the results.
func (b *bench) add(name, unit, reference string, g *goal, s samples, order []string) {
	values := map[string]float64{}
	for of, v := range s {
		if m := median(v); !math.IsNaN(m) {
			values[of] = m
		}
	}
	b.results = append(b.results, compare(name, unit, reference, g, values, order)...)
}
