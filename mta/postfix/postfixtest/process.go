package postfixtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"relayguard/mta/servertest"
)

// process is a server in the foreground that leads its own session, so that
// its children can be told from everybody else's.
type process struct {
	cmd    *exec.Cmd
	pid    int
	out    string // file with what it wrote to stdout and stderr
	ended  chan struct{}
	minder *servertest.Minder
}

// startProcess starts the command. Whatever becomes of this program, the
// server ends with it.
func startProcess(cmd *exec.Cmd, outputFile string) (*process, error) {
	out, err := os.Create(outputFile)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, pid: cmd.Process.Pid, out: outputFile, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the exit status of a server that was told to stop says nothing
		close(p.ended)
	}()
	if p.minder, err = servertest.StartMinder(p.pid); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// waitUntil polls until ready, the process ended, the limit or ctx is over.
func (p *process) waitUntil(ctx context.Context, limit time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-p.ended:
			return fmt.Errorf("the server ended: %v", p.cmd.ProcessState)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// output is what it wrote to stdout and stderr, for an error.
func (p *process) output() string {
	out, _ := os.ReadFile(p.out)
	return string(out)
}

// stop ends the server and all its children: at first politely, then not. It
// returns when none is left.
func (p *process) stop() error {
	select {
	case <-p.ended:
	default:
		// Only while it is not reaped is the pid surely still its own.
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	err := p.awaitEnd(5*time.Second, func() {})
	if err != nil {
		err = p.awaitEnd(5*time.Second, p.signalAll)
	}
	p.minder.Dismiss()
	return err
}

// kill ends the server and all its children without asking, and returns when
// none is left.
func (p *process) kill() error {
	err := p.awaitEnd(5*time.Second, p.signalAll)
	p.minder.Dismiss()
	return err
}

func (p *process) signalAll() {
	for _, pid := range sessionMembers(p.pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
}

// awaitEnd waits for the server, then for its children: a list made while the
// server still forks would miss some, so urge is called again until none is
// left.
func (p *process) awaitEnd(limit time.Duration, urge func()) error {
	deadline := time.Now().Add(limit)
	urge()
	select {
	case <-p.ended:
	case <-time.After(limit):
		return fmt.Errorf("stop %s: pid %d is still there", p.cmd.Path, p.pid)
	}
	for {
		left := sessionMembers(p.pid)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stop %s (pid %d): its children %v are still there", p.cmd.Path, p.pid, left)
		}
		time.Sleep(5 * time.Millisecond)
		urge()
	}
}

// sessionMembers lists the living processes of the session that pid leads.
// Zombies, which only wait for their parent, are not living.
func sessionMembers(session int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil // only a malformed pattern does that
	}
	var members []int
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// PID (NAME) STATE PPID PGRP SESSION ...; NAME may hold anything.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 4 || fields[0] == "Z" || fields[0] == "X" || fields[3] != strconv.Itoa(session) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			members = append(members, pid)
		}
	}
	return members
}

// answers tells whether somebody accepts connections at the address.
func answers(network, address string) bool {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
