package sendmailtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Inside runs the function where Sendmail lives: processes that it starts, by
// its own goroutine, see Sendmail's /etc/mail, /dev/log and host name. One
// such function runs at a time, so it must not wait for another.
func (s *Sendmail) Inside(f func()) { s.space.do(f) }

// StartCommand starts a command inside; the caller waits for it, and ends it
// before Stop.
func (s *Sendmail) StartCommand(cmd *exec.Cmd) error {
	var err error
	s.space.do(func() { err = cmd.Start() })
	if err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return nil
}

// Command runs one of Sendmail's own tools (see Tool) inside, as root, and
// returns its standard output. Most want -Am or -Ac to know whose queue is
// meant.
func (s *Sendmail) Command(ctx context.Context, tool string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.Tool(tool), args...)
	cmd.Dir = "/"
	return s.output(cmd)
}

func (s *Sendmail) output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := s.StartCommand(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...), " "),
			err, strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Sent is how a sendmail(1) ended.
type Sent struct {
	ExitCode       int
	Stdout, Stderr string
}

// Sendmail runs the real sendmail(1), the submission program, as that user, as
// a script on this host would: args without the program's name, the message on
// standard input. A refusal is an exit code, not an error. What it cannot get
// rid of it may write into dead.letter in the user's home.
func (s *Sendmail) Sendmail(ctx context.Context, uid int, args []string, message io.Reader) (Sent, error) {
	cmd := exec.CommandContext(ctx, s.Tool("sendmail"), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin = message
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(groupOf(uid))},
	}
	err := s.StartCommand(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	sent := Sent{Stdout: out.String(), Stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return sent, nil
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		sent.ExitCode = exit.ExitCode()
		return sent, nil
	}
	sent.ExitCode = -1
	return sent, fmt.Errorf("sendmail as uid %d: %w", uid, err)
}

// groupOf is the user's own group; a uid without an account has one of the
// same number.
func groupOf(uid int) int {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return uid
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return uid
	}
	return gid
}
