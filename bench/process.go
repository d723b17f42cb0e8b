package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a milter of its own process, whose time and memory are its own.
type process struct {
	cmd    *exec.Cmd
	output string // file
	ended  chan struct{}
}

// start starts a program that serves the socket and waits until it does.
func start(cmd *exec.Cmd, socket, output string) (*process, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, output: output, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it is killed in the end, its status says nothing
		close(p.ended)
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if fd, err := connect(socket); err == nil {
			syscall.Close(fd)
			return p, nil
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%s ended at once: %s", cmd.Path, p.said())
		default:
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, fmt.Errorf("%s does not serve %s: %s", cmd.Path, socket, p.said())
		}
	}
}

// said is the end of what the process wrote, for an error.
func (p *process) said() string {
	b, _ := os.ReadFile(p.output)
	return string(bytes.TrimSpace(b[max(0, len(b)-2000):]))
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process: it has nothing to lose.
func (p *process) stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// forget empties what the process wrote: a guard's verdicts would fill the disk.
func (p *process) forget() { _ = os.Truncate(p.output, 0) }

// clockTicks is sysconf(_SC_CLK_TCK), 100 on every Linux that Go runs on.
const clockTicks = 100

// cpu is the time that all threads of the process have had, in seconds.
func (p *process) cpu() (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return parseCPU(string(stat))
}

// parseCPU reads utime and stime, fields 14 and 15 of proc(5)'s stat. The
// second field may hold anything, so counting begins behind it.
func parseCPU(stat string) (float64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU time: %d fields in %q", len(fields), stat)
	}
	user, err1 := strconv.ParseUint(fields[11], 10, 64)
	system, err2 := strconv.ParseUint(fields[12], 10, 64)
	return float64(user+system) / clockTicks, errors.Join(err1, err2)
}

// memory is the resident set now and at its largest, in MB of 10^6 octets.
func (p *process) memory() (now, peak float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory: %w", err)
	}
	now, err1 := parseMemory(string(status), "VmRSS")
	peak, err2 := parseMemory(string(status), "VmHWM")
	return now, peak, errors.Join(err1, err2)
}

func parseMemory(status, name string) (float64, error) {
	_, rest, ok := strings.Cut(status, name+":")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 || fields[1] != "kB" {
		return 0, fmt.Errorf("read memory: no %s in kB", name)
	}
	kib, err := strconv.ParseUint(fields[0], 10, 64)
	return float64(kib) * 1024 / 1e6, err
}

// ownCPU is the generator's own CPU time in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// machineCPU is the time that all processors were busy, in seconds.
func machineCPU() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	return parseMachineCPU(string(stat))
}

// parseMachineCPU adds up the first line of proc(5)'s stat: user nice system
// idle iowait irq softirq, without idle and iowait.
func parseMachineCPU(stat string) (busy float64) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return 0
	}
	for i, f := range fields[1:8] {
		if v, err := strconv.ParseFloat(f, 64); err == nil && i != 3 && i != 4 {
			busy += v / clockTicks
		}
	}
	return busy
}

// workDir makes the directory for sockets, programs and logs.
func workDir() (string, error) {
	dir, err := os.MkdirTemp("", "relayguard-bench-")
	if err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	return dir, os.Chmod(dir, 0o711)
}

func socketIn(dir, name string) string { return filepath.Join(dir, name+".sock") }
