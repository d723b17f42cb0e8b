package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// Goals of commands over a queue of queueMessages, half of them on hold.
const (
	mostFirstLineSeconds = 1
	mostQueueMB          = 100
)

const (
	queueMessages = 200_000
	queueActed    = 10_000 // messages of one bulk act
)

// The tools that do the like without the guard's knowledge.
const (
	postqueue = "postqueue-j"
	postsuper = "postsuper"
)

var (
	queueListOrder = []string{theGuard, postqueue}
	queueActOrder  = []string{theGuard, postsuper}
)

// queue measures commands over a large queue of a private Postfix, with the daemon
// and its root helper. The messages are copies of two that Postfix made.
func (b *bench) queue(ctx context.Context) error {
	dir, err := os.MkdirTemp(queueParent(), "rgqueue")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b.progress("queue: starting Postfix")
	r, err := relay.Start(ctx, relay.Options{Binary: b.guard, Postfix: postfixtest.Options{Dir: dir, Main: map[string]string{"defer_transports": "smtp"}}})
	if err != nil {
		return err
	}
	defer r.Stop()
	b.progress("queue: %d messages", queueMessages)
	if err := fillQueue(ctx, r, queueMessages/2); err != nil {
		return err
	}
	if err := b.queueLists(ctx, r); err != nil {
		return err
	}
	return b.queueActs(ctx, r)
}

// fillQueue puts so many messages into the deferred queue and as many on hold.
func fillQueue(ctx context.Context, r *relay.Relay, each int) error {
	model, err := modelMessage(ctx, r)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(model)
	if err != nil {
		return err
	}
	info, err := os.Stat(model)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	for n := range 2 * each {
		id := fmt.Sprintf("%05X%05X", n%0x100000, 0xA0000+n/2)
		at := filepath.Join(r.QueueDir, "hold", id)
		if n >= each { // hashed by the first letter
			at = filepath.Join(r.QueueDir, "deferred", id[:1], id)
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			return err
		}
		if err := os.Chown(filepath.Dir(at), int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
		if err := os.WriteFile(at, text, 0o600); err != nil {
			return err
		}
		if err := errors.Join(os.Chown(at, int(owner.Uid), int(owner.Gid)), os.Chmod(at, 0o700)); err != nil {
			return err
		}
	}
	return nil
}

// modelMessage is a queue file of a message that waits in the deferred queue.
func modelMessage(ctx context.Context, r *relay.Relay) (path string, err error) {
	const to = "somebody@example.net"
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := r.Sendmail(ctx, 33, []string{"-f", "www@example.jp", to}, strings.NewReader("Subject: waits\n\n"+strings.Repeat("Hello, world. ", 40)+"\n")); err != nil {
		return "", err
	}
	q, err := r.WaitQueue(ctx, func(q postfixtest.Queued) bool { return q.QueueName == "deferred" && q.To(to) })
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(filepath.Join(r.QueueDir, "deferred"), func(at string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == q.QueueID {
			path = at
		}
		return err
	})
	if err == nil && path == "" {
		err = fmt.Errorf("%s is not in the deferred queue", q.QueueID)
	}
	return path, err
}

// queueRun is what a command cost.
type queueRun struct {
	first, all float64 // seconds until the first line, and the last
	lines      int
	mb         float64 // resident at most
}

// stopwatch runs a command and reads what it prints.
func stopwatch(cmd *exec.Cmd) (queueRun, error) {
	var run queueRun
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return run, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return run, err
	}
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		_, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			break
		}
		if run.lines++; run.lines == 2 { // the first is the titles
			run.first = time.Since(began).Seconds()
		}
	}
	_, _ = io.Copy(io.Discard, out) // what Wait says counts
	if err := cmd.Wait(); err != nil {
		return run, fmt.Errorf("%s: %w: %.500s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	run.all = time.Since(began).Seconds()
	run.mb = float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024 / 1e6
	return run, nil
}

// queueLists measures what looks at the whole queue.
func (b *bench) queueLists(ctx context.Context, r *relay.Relay) error {
	first, all, summary, held, cli := samples{}, samples{}, samples{}, samples{}, samples{}
	for round := range min(b.rounds, 3) {
		b.progress("queue: lists, round %d", round+1)
		list, err := stopwatch(b.queueCommand(ctx, r, "queue", "list"))
		if err == nil && list.lines < queueMessages {
			err = fmt.Errorf("queue list: %d lines of %d messages", list.lines, queueMessages)
		}
		if err != nil {
			return err
		}
		plain, err := stopwatch(exec.CommandContext(ctx, "/usr/sbin/postqueue", "-c", r.ConfigDir, "-j"))
		if err != nil {
			return err
		}
		whole, err := stopwatch(b.queueCommand(ctx, r, "queue", "summary"))
		if err != nil {
			return err
		}
		hold, err := stopwatch(b.queueCommand(ctx, r, "held", "list"))
		if err != nil {
			return err
		}
		first.add(theGuard, list.first)
		all.add(theGuard, list.all)
		all.add(postqueue, plain.all)
		summary.add(theGuard, whole.all)
		summary.add(postqueue, plain.all)
		held.add(theGuard, hold.all)
		cli.add(theGuard, list.mb)
		cli.add("summary", whole.mb)
	}
	b.single("queue/200k/list/first_s", "s", &goal{mostFirstLineSeconds, false, false}, first[theGuard]...)
	b.add("queue/200k/list/s", "s", postqueue, nil, all, queueListOrder)
	b.add("queue/200k/summary/s", "s", postqueue, nil, summary, queueListOrder[:1])
	b.single("queue/200k/held_list/s", "s", nil, held[theGuard]...)
	bound := &goal{mostQueueMB, false, false}
	b.single("queue/200k/list/rss", "MB", bound, cli[theGuard]...)
	b.single("queue/200k/summary/rss", "MB", bound, cli["summary"]...)
	peak, err := peakMB(r.GuardPID())
	if err == nil {
		b.single("queue/200k/daemon/rss", "MB", bound, peak)
	}
	return err
}

// peakMB is what a process had resident at most.
func peakMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

// queueActs measures bulk acts beside postsuper with as many ids.
func (b *bench) queueActs(ctx context.Context, r *relay.Relay) error {
	held, deleted := samples{}, samples{}
	b.progress("queue: acts on %d messages", queueActed)
	ids, err := someIDs(filepath.Join(r.QueueDir, "deferred"), queueActed)
	if err != nil {
		return err
	}
	act := func(into samples, of string, cmd *exec.Cmd) error {
		run, err := stopwatch(cmd)
		if err == nil {
			into.add(of, queueActed/run.all)
		}
		return err
	}
	plain := func(flag string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "/usr/sbin/postsuper", "-c", r.ConfigDir, flag, "-")
		cmd.Stdin = strings.NewReader(strings.Join(ids, "\n") + "\n")
		return cmd
	}
	if err := act(held, postsuper, plain("-h")); err != nil {
		return err
	}
	if err := act(deleted, postsuper, plain("-d")); err != nil {
		return err
	}
	chosen := []string{"--queue", "deferred", "--all", "--limit", strconv.Itoa(queueActed), "--yes"}
	if err := act(held, theGuard, b.queueCommand(ctx, r, append([]string{"queue", "hold"}, chosen...)...)); err != nil {
		return err
	}
	if err := act(deleted, theGuard, b.queueCommand(ctx, r, append([]string{"queue", "delete", "--no-copy"}, chosen...)...)); err != nil {
		return err
	}
	b.add("queue/10k/hold_per_s", "1/s", postsuper, nil, held, queueActOrder)
	b.add("queue/10k/delete_per_s", "1/s", postsuper, nil, deleted, queueActOrder)
	return nil
}

// someIDs are the names of the first files below a directory.
func someIDs(dir string, n int) (ids []string, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			ids = append(ids, e.Name())
		}
		if err == nil && len(ids) == n {
			return fs.SkipAll
		}
		return err
	})
	return ids, err
}

func (b *bench) queueCommand(ctx context.Context, r *relay.Relay, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, b.guard, append(args, "--config", r.ConfigPath)...)
}
