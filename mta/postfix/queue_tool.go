package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"relayguard/mta"
)

// command is a tool with nothing of our environment, told to end rather than
// killed: postsuper finishes the message in its hand.
func (t Tools) command(ctx context.Context, name string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.path(name), args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"} // as Tools.run
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// stream runs a tool while read reads its output. read's error ends the tool
// and is returned.
func (t Tools) stream(ctx context.Context, name string, args []string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, scanWait)
	defer cancel()
	cmd := t.command(ctx, name, args)
	stderr := capped{limit: 64 << 10}
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, brief(args), err)
	}
	stop := context.AfterFunc(ctx, func() { stdout.Close() }) // whoever else holds the pipe
	readErr := read(stdout)
	var skipped *mta.SkippedError
	broken := readErr != nil && !errors.As(readErr, &skipped)
	ended := ctx.Err()
	if broken {
		cancel()
	}
	err = cmd.Wait()
	stop()
	switch {
	case ended != nil:
		return fmt.Errorf("%s %s: %w", name, brief(args), ended)
	case broken:
		return readErr
	case err != nil:
		return toolError(name, args, err, stderr.buf.String())
	}
	return readErr
}

func toolError(name string, args []string, err error, stderr string) error {
	if said := oneLine(stderr); said != "" {
		return fmt.Errorf("%s %s: %w: %s", name, brief(args), err, said)
	}
	return fmt.Errorf("%s %s: %w", name, brief(args), err)
}

// actWait bounds one postsuper: 100,000 deletions take about 34 s.
const actWait = 5 * time.Minute

// postsuper hands ids to one postsuper(1) and returns those that it says it
// did. It says so on standard error, a line each (3.7.11): "postsuper: ID:
// placed on hold", "released from hold", "removed", "requeued". An id that is
// not there is passed over in silence. Needs root.
func (i *Instance) postsuper(ctx context.Context, act act, ids []string, inherits ...*os.File) (done map[string]bool, err error) {
	done = make(map[string]bool, len(ids))
	if len(ids) == 0 {
		return done, nil
	}
	for _, id := range ids {
		if !ValidQueueID(id) { // an empty line would be one, too
			return done, fmt.Errorf("postsuper %s: got queue id %q", act.flag, clip(id))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, actWait)
	defer cancel()
	args := i.tools.inDir(i.ConfigDir, append([]string{act.flag, "-"}, act.from...)...)
	cmd := i.tools.command(ctx, "postsuper", args)
	cmd.Stdin = strings.NewReader(strings.Join(ids, "\n") + "\n")
	said := ackReader{verb: act.says, done: done, asked: make(map[string]bool, len(ids)), rest: capped{limit: 8 << 10}}
	for _, id := range ids {
		said.asked[id] = true
	}
	cmd.Stderr, cmd.ExtraFiles = &said, inherits
	if err = cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return done, toolError("postsuper", args, err, said.rest.buf.String())
	}
	return done, nil
}

// ackReader takes postsuper's messages apart.
type ackReader struct {
	verb        string
	asked, done map[string]bool
	line        []byte
	rest        capped // all other messages
}

func (a *ackReader) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		if len(a.line)+len(part) <= 4096 {
			a.line = append(a.line, part...)
		}
		if ended {
			a.take(string(a.line))
			a.line = a.line[:0]
		}
		rest = after
	}
	return len(p), nil
}

func (a *ackReader) take(line string) {
	if before, found := strings.CutSuffix(line, ": "+a.verb); found {
		if id := before[strings.LastIndexByte(before, ' ')+1:]; a.asked[id] {
			a.done[id] = true
			return
		}
	}
	a.rest.Write([]byte(line + "\n"))
}
