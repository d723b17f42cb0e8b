package wrapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"relayguard/cmd/internal/call"
	"relayguard/policy/origin/stamp"
)

// Name is what the program is called as the wrapper.
const Name = "relayguard-sendmail"

// Exit statuses of sysexits.h that are the wrapper's own.
const (
	exitNoFile  = 72 // EX_OSFILE: no sendmail of the MTA
	exitIO      = 74 // EX_IOERR: the message cannot be read
	exitSetting = 78 // EX_CONFIG: the MTA's sendmail is the wrapper itself
)

// Wrapper is one run of sendmail(1).
type Wrapper struct {
	Settings
	Stdin          *os.File
	Stdout, Stderr *os.File // the MTA's program has them, too
}

// Run does what sendmail(1) does with these arguments, and returns its exit
// status. What is not plain submission becomes the MTA's program: then it does
// not return. Call it once, from the goroutine that ends the process.
func (w *Wrapper) Run(args []string) int {
	if err := w.checkLoop(); err != nil {
		return w.fail(exitSetting, err)
	}
	o := parse(args)
	if !o.submits {
		err := unix.Exec(w.Sendmail, append([]string{w.Sendmail}, args...), os.Environ())
		return w.fail(exitNoFile, fmt.Errorf("run %s: %w", w.Sendmail, err))
	}
	h, err := readHead(w.Stdin)
	if err != nil {
		return w.fail(exitIO, fmt.Errorf("read the message: %w", err))
	}
	before, after := []byte(nil), h.text
	if a, err := w.ask(o, h); err == nil {
		if a.Verdict != call.Accept {
			w.drain()
			return w.fail(a.Verdict.Exit(), refusal(a.Text))
		}
		before, after = h.with(stamp.CallHeader, a.Token)
	}
	return w.submit(args, before, after)
}

// checkLoop finds the wrapper in the place of the MTA's program: it would start
// itself without end.
func (w *Wrapper) checkLoop() error {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return nil // no /proc here
	}
	if other, err := os.Stat(w.Sendmail); err == nil && os.SameFile(self, other) {
		return fmt.Errorf("%s is this program itself; name the MTA's in %s", w.Sendmail, SettingsPath)
	}
	return nil
}

func refusal(text string) error {
	if text == "" {
		text = "the mail guard takes no mail from here now"
	}
	return errors.New(text)
}

// fail says what is wrong, as sendmail(1) does.
func (w *Wrapper) fail(status int, err error) int {
	fmt.Fprintf(w.Stderr, "%s: %v\n", Name, err)
	return status
}

// ask tells the daemon.
func (w *Wrapper) ask(o options, h *head) (call.Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), w.Timeout)
	defer cancel()
	return call.Ask(ctx, w.Socket, call.Question{
		Dir:        workingDir(),
		MailFrom:   o.mailFrom,
		RcptTo:     o.rcptTo,
		FromHeader: o.fromHeader,
		Header:     h.header(),
		HeaderMore: h.cut,
	})
}

// workingDir is the kernel's name of it: os.Getwd would believe PWD. It is empty
// outside of this process's root, where the kernel says "(unreachable)/srv"
// (getcwd(2)): that is the name of another place, or of none.
func workingDir() string {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n < 1 || buf[0] != '/' {
		return ""
	}
	return string(buf[:n-1]) // without its NUL
}

// drain reads a refused message to its end: many programs take a pipe that
// closes for something worse than our exit status. A person is not waited for.
func (w *Wrapper) drain() {
	if info, err := w.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice == 0 {
		io.Copy(io.Discard, w.Stdin)
	}
}

// submit runs the MTA's program on the message: these two pieces, and then what
// is left of standard input.
func (w *Wrapper) submit(args []string, before, after []byte) int {
	in, out, err := os.Pipe()
	if err != nil {
		return w.fail(exitIO, fmt.Errorf("make a pipe: %w", err))
	}
	cmd := &exec.Cmd{
		Path: w.Sendmail, Args: append([]string{w.Sendmail}, args...),
		Stdin: in, Stdout: w.Stdout, Stderr: w.Stderr,
		// If this process is killed, what came so far is no message: the MTA's program
		// is to end, too. The kernel ties this to the thread, and drops it for a program
		// that is set-group-ID, as Sendmail's is; Postfix's is not.
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	runtime.LockOSThread()
	signals := make(chan os.Signal, 4)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if !signal.Ignored(s) { // nohup(1)'s wish is the MTA's program's, too
			signal.Notify(signals, s)
		}
	}
	err = cmd.Start()
	in.Close()
	if err != nil {
		return w.fail(exitNoFile, fmt.Errorf("run the MTA's program: %w", err))
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	var unread atomic.Bool
	go func() {
		err := feed(out, w.Stdin, before, after)
		if err != nil { // it must not take this for the whole message
			unread.Store(true)
			cmd.Process.Kill()
			fmt.Fprintf(w.Stderr, "%s: read the message: %v\n", Name, err)
		}
		out.Close()
	}()
	// It may end before the message does: with a wrong argument, or a line ".".
	cmd.Wait()
	if unread.Load() {
		return exitIO
	}
	return status(cmd.ProcessState)
}

// feed writes a message. The error is one of reading it: who does not want the
// rest has its reasons, and an exit status.
func feed(out io.Writer, in io.Reader, pieces ...[]byte) error {
	for _, p := range pieces {
		if _, err := out.Write(p); err != nil {
			return nil
		}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return nil
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// status is that of the MTA's program, as a shell gives it on.
func status(p *os.ProcessState) int {
	if s, ok := p.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return p.ExitCode()
}
