package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"relayguard/forward"
)

// Goals of looking for forwarding rules.
const (
	mostScanSeconds = 15
	mostChangeMS    = 100
)

// forwards measures a full scan of a large server's forwarding rules and what one
// change costs, once as of a copied disk and once as of a live machine.
func (b *bench) forwards(ctx context.Context) error {
	root := filepath.Join(b.dir, "forward")
	b.progress("forwarding rules: a server with %d aliases, %d scripts, %d homes", largeServer.aliases, largeServer.scripts, largeServer.homes)
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if err := plantForwards(ctx, root, largeServer); err != nil {
		return err
	}
	for _, how := range []string{asCopied, asLive} {
		values := samples{}
		for round := range min(b.rounds, 3) {
			b.progress("forwarding rules, %s, round %d", how, round+1)
			r, err := scanOnce(ctx, root, how)
			if err == nil {
				err = r.complete(largeServer)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", how, err)
			}
			values.add("scan/seconds", r.Seconds)
			values.add("scan/cpu_seconds", r.CPU)
			values.add("scan/again_seconds", r.Again)
			values.add("scan/rss_peak", r.Peak)
			values.add("scan/again_rss_peak", r.PeakAgain)
			for kind, all := range r.Changes {
				values.add("change/"+kind, median(all))
			}
		}
		b.forwardResults(how, values)
	}
	return nil
}

// forwardResults are the lines of bench.json.
func (b *bench) forwardResults(how string, values samples) {
	name := "forward/"
	if how != asCopied {
		name += how + "/"
	}
	put := func(what, unit string, g *goal) {
		b.results = append(b.results, result{Name: name + what, Value: round(median(values[what])), Unit: unit, goal: g})
	}
	scan, change := &goal{mostScanSeconds, false, false}, &goal{mostChangeMS, false, false}
	put("scan/seconds", "s", scan)
	put("scan/again_seconds", "s", scan)
	put("scan/cpu_seconds", "s", nil)
	put("scan/rss_peak", "MB", nil) // after the first scan; a later one has both results for a moment
	put("scan/again_rss_peak", "MB", nil)
	put("change/home", "ms", change)
	put("change/sieve", "ms", change)
	put("change/aliases", "ms", change) // one of a table of all, which is read whole
}

// complete reports an error unless all was found: a scan that finds nothing must
// not pass for a fast one.
func (r *forwardReport) complete(n forwardSizes) error {
	for mechanism, want := range map[forward.Mechanism]int{
		forward.Aliases: n.aliases / oneOutside, forward.Sieve: n.scripts / oneOutside, forward.DotForward: n.forwards / oneOutside,
	} {
		if got := r.Outside[mechanism]; got < want || got > want+want/10+5*changesEach {
			return fmt.Errorf("%d rules of %s that lead outside were found, %d planted; not read: %.300q", got, mechanism, want, r.Gaps)
		}
	}
	if r.Units < n.homes+n.scripts {
		return fmt.Errorf("%d places were read, want more than %d", r.Units, n.homes+n.scripts)
	}
	return nil
}

// scanOnce scans in a process of its own.
func scanOnce(ctx context.Context, root, how string) (r forwardReport, err error) {
	cmd := exec.CommandContext(ctx, selfProgram, forwardScan, root, how)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("scan: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("scan: %w", err)
	}
	return r, nil
}
