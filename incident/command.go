package incident

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Command runs a program for each alert: without a shell, one at a time, with
// the arguments event, incident id, origin and cause, and the alert as JSON on
// standard input. For an alert about no one incident (events "more" and
// "notice") the other arguments are empty. Its environment is PATH and LANG alone, its directory
// the root.
type Command struct {
	Path    string        // absolute
	Timeout time.Duration // then its process group is killed; default 10 s
	Log     *slog.Logger  // gets what it prints, cut; nil: nowhere

	running sync.Mutex
}

const (
	commandTimeout = 10 * time.Second
	maxOutput      = 4 << 10
	pipeDelay      = time.Second // what a child left behind may hold our pipes
)

// environment is all that the program gets.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}

// Name implements Channel.
func (c *Command) Name() string { return "command" }

// Deliver implements Channel: an exit status other than 0 is an error.
func (c *Command) Deliver(ctx context.Context, a Alert) error {
	if !filepath.IsAbs(c.Path) {
		return fmt.Errorf("run alert command %q: want an absolute path", c.Path)
	}
	if !c.running.TryLock() {
		return fmt.Errorf("run alert command %q: the one before still runs", c.Path)
	}
	defer c.running.Unlock()
	input, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("write alert %s as JSON: %w", a.Incident.ID, err)
	}
	timeout := cmp.Or(c.Timeout, commandTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	var output head
	cmd := exec.CommandContext(ctx, c.Path, arguments(&a)...)
	cmd.Env = environment
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(append(input, '\n'))
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeDelay
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		// It ended a second ago, but something holds its pipes: as a rule some
		// of its group, whose number then cannot have been given to others.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		err = errors.New("it left processes behind, which were killed")
	} else if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("killed: %w", ctx.Err())
	}
	if c.Log != nil && output.total > 0 {
		c.Log.Info("alert command said", slog.String("incident", a.Incident.ID),
			slog.String("output", escape(string(output.kept), maxOutput)), slog.Int64("bytes", output.total))
	}
	if err != nil {
		return fmt.Errorf("run alert command %q: %w", c.Path, err)
	}
	return nil
}

func arguments(a *Alert) []string {
	return []string{argument(string(a.Event)), argument(a.Incident.ID), argument(a.Incident.Origin), argument(a.Incident.Cause)}
}

// argument cannot be taken for an option.
func argument(s string) string {
	s = escape(s, maxName)
	if len(s) > 0 && s[0] == '-' {
		return `\x2d` + s[1:]
	}
	return s
}

// head keeps the beginning of what is written, and reads on so that the writer
// does not wait.
type head struct {
	kept  []byte
	total int64
}

func (h *head) Write(p []byte) (int, error) {
	h.total += int64(len(p))
	if room := maxOutput - len(h.kept); room > 0 {
		h.kept = append(h.kept, p[:min(room, len(p))]...)
	}
	return len(p), nil
}
