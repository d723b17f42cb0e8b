package postfixtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Command runs one of Postfix's own tools, such as "postqueue" or
// "postsuper", as root on this Postfix, and returns its standard output.
func (p *Postfix) Command(ctx context.Context, tool string, args ...string) (string, error) {
	return p.command(ctx, filepath.Join("/usr/sbin", tool), args...)
}

func (p *Postfix) command(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append([]string{"-c", p.ConfigDir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s",
			filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Sent is how a sendmail(1) ended.
type Sent struct {
	ExitCode int
	Stderr   string
}

// Sendmail runs the real sendmail(1) as that user, as a script on this host
// would: args without the program's name, the message on standard input. A
// refusal is an exit code, not an error.
func (p *Postfix) Sendmail(ctx context.Context, uid int, args []string, message io.Reader) (Sent, error) {
	cmd := exec.CommandContext(ctx, sendmailProgram, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+p.ConfigDir)
	cmd.Stdin = message
	var errs bytes.Buffer
	cmd.Stderr = &errs
	// The set-group-ID postdrop takes a foreign configuration directory from
	// its own group only; sendmail's -C from nobody but root.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(p.accounts.postdrop)},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Sent{Stderr: errs.String()}, nil
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return Sent{ExitCode: exit.ExitCode(), Stderr: errs.String()}, nil
	}
	return Sent{ExitCode: -1, Stderr: errs.String()}, fmt.Errorf("sendmail as uid %d: %w", uid, err)
}
