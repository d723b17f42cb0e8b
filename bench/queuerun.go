package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cost is what a command took.
type cost struct {
	first, all float64 // seconds until the first row or the first word of progress, and the end
	lines      int
	mb         float64 // resident at most
}

// starter starts a command where the mail server lives.
type starter func(*exec.Cmd) error

// stopwatch runs a command and reads what it prints; the first rows are titles.
func stopwatch(start starter, cmd *exec.Cmd, titles int) (cost, error) {
	var c cost
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return c, err
	}
	began := time.Now()
	if err := start(cmd); err != nil {
		return c, err
	}
	peak := watchMemory(cmd.Process.Pid)
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		_, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			break
		}
		if c.lines++; c.lines == titles+1 {
			c.first = time.Since(began).Seconds()
		}
	}
	_, _ = io.Copy(io.Discard, out) // what Wait says counts
	err = cmd.Wait()
	c.all, c.mb = time.Since(began).Seconds(), peak()
	return c, ended(cmd, err, stderr.String())
}

// onTerminal runs a command whose progress goes to a terminal, as it does where
// somebody looks on: elsewhere it says something every few seconds only.
func onTerminal(start starter, cmd *exec.Cmd) (cost, error) {
	var c cost
	screen, terminal, err := openTerminal()
	if err != nil {
		return c, fmt.Errorf("open a terminal: %w", err)
	}
	defer screen.Close()
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, terminal
	began := time.Now()
	err = start(cmd)
	terminal.Close()
	if err != nil {
		return c, err
	}
	peak := watchMemory(cmd.Process.Pid)
	var shown bytes.Buffer
	for part := make([]byte, 4<<10); ; {
		n, err := screen.Read(part)
		if n > 0 && c.first == 0 {
			c.first = time.Since(began).Seconds()
		}
		shown.Write(part[:n])
		if err != nil { // EIO: the command has closed the terminal
			break
		}
	}
	err = cmd.Wait()
	c.all, c.mb = time.Since(began).Seconds(), peak()
	said := shown.Bytes()
	return c, ended(cmd, err, string(said[max(0, len(said)-500):])+stdout.String())
}

// openTerminal makes a pseudo-terminal: what is written to terminal can be read
// from screen.
func openTerminal() (screen, terminal *os.File, err error) {
	screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		screen.Close()
		return nil, nil, err
	}
	return screen, terminal, nil
}

// plainly runs commands one after another, and adds up what they took.
func plainly(start starter, titles int, cmds ...*exec.Cmd) (sum cost, err error) {
	for _, cmd := range cmds {
		c, err := stopwatch(start, cmd, titles)
		if err != nil {
			return sum, err
		}
		if sum.lines == 0 {
			sum.first = c.first
		}
		sum.all, sum.lines, sum.mb = sum.all+c.all, sum.lines+c.lines, max(sum.mb, c.mb)
	}
	return sum, nil
}

func ended(cmd *exec.Cmd, err error, said string) error {
	if err != nil {
		err = fmt.Errorf("%s: %w: %.500s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said))
	}
	return err
}

// watchMemory looks at what a process has resident until peak is called. What
// wait4(2) tells will not do: it counts what the benchmark itself had when it made
// the process (Linux carries it over execve(2)).
func watchMemory(pid int) (peak func() float64) {
	ctx, stop := context.WithCancel(context.Background())
	most := make(chan float64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var mb float64
		for {
			if seen, err := peakMB(pid); err == nil { // it may be over
				mb = seen
			}
			select {
			case <-ctx.Done():
				most <- mb
				return
			case <-tick.C:
			}
		}
	}()
	return func() float64 { stop(); return <-most }
}

// peakMB is what a process has had resident at most, since forgetPeak.
func peakMB(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	return parseMemory(string(status), "VmHWM")
}

// forgetPeak makes what a process has now the most that it had (proc(5),
// clear_refs). Where that cannot be done the peak is since its start.
func forgetPeak(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
