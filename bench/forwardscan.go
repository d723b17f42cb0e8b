package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"relayguard/forward"
	"relayguard/forward/dovecot"
	"relayguard/forward/files"
	"relayguard/forward/maildrop"
	"relayguard/forward/mailfiles"
	"relayguard/forward/postfix"
	"relayguard/forward/procmail"
	"relayguard/forward/scan"
)

// forwardScan is a subcommand of this program: "forward ROOT copied|live" scans the
// tree at ROOT and writes a forwardReport, so that its time and memory are its own.
const forwardScan = "forward"

// How a tree is scanned.
const (
	asCopied = "copied" // as a copied disk: nothing is run, every path is below ROOT
	asLive   = "live"   // as this machine: postconf and doveconf tell the settings
)

// forwardReport is what one scan took.
type forwardReport struct {
	Seconds   float64
	CPU       float64 // seconds of all threads, for the scan
	Again     float64 // seconds, of a second full scan
	Peak      float64 // resident set at its largest by then, MB of 10^6 octets
	PeakAgain float64 // and after changes and a second scan
	Units     int
	Gaps      []string
	Outside   map[forward.Mechanism]int // findings of rules that name the target themselves
	// Changes are milliseconds from a path that changed to what is thought of it.
	Changes map[string][]float64
}

// changesEach is how often each kind of change is made.
const changesEach = 15

func serveForwardScan(root, how string, out io.Writer) error {
	ctx := context.Background()
	h, find, err := forwardHost(ctx, root, how)
	if err != nil {
		return err
	}
	s := scan.New(func(ctx context.Context, known func() []string) forward.Plan { return find(ctx, h, known) }, scan.Options{Workers: 2})
	r := forwardReport{Outside: map[forward.Mechanism]int{}, Changes: map[string][]float64{}}
	began, cpu := time.Now(), ownCPU()
	if _, err := s.All(ctx); err != nil {
		return err
	}
	r.Seconds, r.CPU = time.Since(began).Seconds(), ownCPU()-cpu
	if r.Peak, err = ownPeak(); err != nil {
		return err
	}
	r.Units = s.Units()
	for _, g := range s.Gaps() {
		r.Gaps = append(r.Gaps, g.Source+": "+g.Why)
	}
	for _, f := range s.Graph().Findings() {
		if f.Verdict == forward.Outside && f.Direct() {
			r.Outside[f.Mechanism]++
		}
	}
	prefix := ""
	if how == asLive {
		prefix = root
	}
	for kind, change := range forwardChanges(root) {
		for i := range changesEach {
			path, target, err := change(ctx, i)
			if err != nil {
				return fmt.Errorf("change a rule: %w", err)
			}
			took, err := seenAfter(ctx, s, prefix+path, target)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			r.Changes[kind] = append(r.Changes[kind], float64(took.Microseconds())/1000)
		}
	}
	began = time.Now()
	if _, err := s.All(ctx); err != nil {
		return err
	}
	r.Again = time.Since(began).Seconds()
	if r.PeakAgain, err = ownPeak(); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// ownPeak is the largest resident set of this process so far, in MB of 10^6 octets.
func ownPeak() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	return parseMemory(string(status), "VmHWM")
}

// seenAfter is how long it takes from a path that changed until its new target is
// known.
func seenAfter(ctx context.Context, s *scan.Scanner, path, target string) (time.Duration, error) {
	began := time.Now()
	plan, units := s.Stale(path)
	if plan || len(units) == 0 {
		return 0, fmt.Errorf("a change of %s asks for %d units, another plan: %v", path, len(units), plan)
	}
	changes, err := s.Again(ctx, units)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	for _, c := range changes {
		for i := range c.Appeared {
			if c.Appeared[i].Target == target && c.Appeared[i].Verdict == forward.Outside {
				return took, nil
			}
		}
	}
	return 0, fmt.Errorf("%s leads to %s, and that is not seen", path, target)
}

// forwardChanges make one change and return the path and the new target.
func forwardChanges(root string) map[string]func(ctx context.Context, i int) (path, target string, err error) {
	t := forwardTree{root: root}
	replace := func(name, text string) error { // as an editor does
		var old syscall.Stat_t
		if err := syscall.Stat(t.path(name), &old); err != nil {
			return err
		}
		if err := t.write(name+".new", text); err != nil {
			return err
		}
		return errors.Join(os.Chown(t.path(name+".new"), int(old.Uid), -1), os.Rename(t.path(name+".new"), t.path(name)))
	}
	return map[string]func(context.Context, int) (string, string, error){
		"home": func(_ context.Context, i int) (string, string, error) {
			name, target := homeOf(i*10)+"/.forward", newTarget()
			return "/" + name, target, replace(name, target+"\n")
		},
		"sieve": func(_ context.Context, i int) (string, string, error) {
			name, target := mailboxOf(i)+"/sieve/main.sieve", newTarget()
			return "/" + name, target, replace(name, fmt.Sprintf("redirect %q;\n", target))
		},
		"aliases": func(ctx context.Context, _ int) (string, string, error) {
			target := newTarget()
			f, err := os.OpenFile(t.path("etc/aliases"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return "", "", err
			}
			_, err = fmt.Fprintf(f, "new-%s: %s\n", strings.TrimSuffix(target, "@evil.test"), target)
			return "/etc/aliases.db", target, errors.Join(err, f.Close(), compileAliases(ctx, root))
		},
	}
}

// newTarget is an address that no rule had before.
func newTarget() string { return fmt.Sprintf("eve%d@evil.test", time.Now().UnixNano()) }

// forwardHost is the machine at root, and the finders for it.
func forwardHost(ctx context.Context, root, how string) (*forward.Host, func(context.Context, *forward.Host, func() []string) forward.Plan, error) {
	rooted, err := files.Rooted(root)
	if err != nil {
		return nil, nil, err
	}
	h := &forward.Host{Files: rooted, Hostname: "mx.corp.test", Log: slog.New(slog.DiscardHandler), Now: time.Now}
	if h.Accounts, err = files.ReadAccounts(ctx, rooted); err != nil {
		return nil, nil, err
	}
	etc := "/etc"
	if how == asLive {
		h.Files, h.Run, etc = files.Local(), runProgram, filepath.Join(root, "etc-here")
		for i := range h.Accounts {
			h.Accounts[i].Home = root + h.Accounts[i].Home
		}
	}
	return h, func(ctx context.Context, h *forward.Host, known func() []string) forward.Plan {
		var p forward.Plan
		p.Add(postfix.Plan(ctx, h, postfix.Options{ConfigDir: etc + "/postfix", Known: known}))
		p.Add(dovecot.Plan(ctx, h, dovecot.Options{ConfigDir: etc + "/dovecot"}))
		p.Add(procmail.Plan(ctx, h))
		p.Add(maildrop.Plan(ctx, h))
		p.Add(mailfiles.Plan(ctx, h))
		return p
	}, nil
}

// runProgram runs one of Postfix's or Dovecot's.
func runProgram(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	if !strings.Contains(name, "/") {
		if full, err := exec.LookPath(name); err == nil {
			name = full
		} else {
			name = "/usr/sbin/" + name
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %.300s", name, err, bytes.TrimSpace(said.Bytes()))
	}
	return out.Bytes(), nil
}
