package wrapper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/cmd/internal/call"
)

// TestMain is the wrapper where the test binary is called by its name, with the
// settings that lie beside it.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != Name {
		os.Exit(m.Run())
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(os.Args[0]), "sendmail.conf"))
	if err != nil {
		panic(err)
	}
	s, err := parseSettings(string(text))
	if err != nil {
		panic(err)
	}
	w := Wrapper{s, os.Stdin, os.Stdout, os.Stderr}
	os.Exit(w.Run(os.Args[1:]))
}

// place is where a wrapper of the test's is installed, with a recording
// sendmail and a socket for a daemon. Every account may use it.
type place struct {
	t        *testing.T
	dir      string
	program  string
	settings Settings
}

// recorder is a sendmail that writes down what it gets, and exits with $STATUS.
const recorder = `#!/bin/sh
printf '%s\n' "$@" >"DIR/args"
cat >"DIR/message.part" || exit 99
mv "DIR/message.part" "DIR/message"
echo out; echo err >&2
exit ${STATUS:-0}
`

func install(t *testing.T, sendmail string) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "wrapper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t, dir, filepath.Join(dir, Name), Settings{filepath.Join(dir, "sendmail"), filepath.Join(dir, "run", "socket"), 10 * time.Second}}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "out"), 0o777),
		os.Chmod(filepath.Join(dir, "out"), 0o777),
		os.Chmod(dir, 0o755),
		copyFile(p.program, self),
		os.WriteFile(p.settings.Sendmail, []byte(strings.ReplaceAll(sendmail, "DIR", filepath.Join(dir, "out"))), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p.configure()
	return p
}

func (p *place) configure() {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "sendmail.conf"), []byte(p.settings.Text()), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func copyFile(to, from string) error {
	if os.Link(from, to) == nil {
		return os.Chmod(to, 0o755)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// daemon answers on the socket.
func (p *place) daemon(refuse func(context.Context, *call.Request) call.Answer) *call.Calls {
	p.t.Helper()
	s := &call.Server{Calls: call.NewCalls(0, time.Now), Timeout: 10 * time.Second, Refuse: refuse,
		Log: slog.New(slog.NewTextHandler(p.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	ln, err := call.Listen(p.settings.Socket)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	p.t.Cleanup(func() {
		cancel()
		<-done
	})
	return s.Calls
}

// run hands a message in; status is the exit status.
func (p *place) run(stdin io.Reader, env []string, args ...string) (status int, stderr string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.program, args...)
	var errs bytes.Buffer
	// Built with -race, a program otherwise waits a second before it exits.
	cmd.Stdin, cmd.Stderr, cmd.Env = stdin, &errs, append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, syscall.EPIPE) {
		p.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

// got is what arrived at sendmail; ok is false if nothing did.
func (p *place) got() (text string, ok bool) {
	data, err := os.ReadFile(filepath.Join(p.dir, "out", "message"))
	return string(data), err == nil
}

// split takes the token off a message.
func split(text string) (token, rest string) {
	line, rest, _ := strings.Cut(text, "\n")
	token, found := strings.CutPrefix(strings.TrimSuffix(line, "\r"), "X-Relayguard-Call: ")
	if !found {
		return "", text
	}
	return token, rest
}

var messages = map[string]string{
	"plain":                    "To: a@example.net\nSubject: b\n\nbody\n",
	"CRLF, 8 bit":              "To: a@example.net\r\nSubject: \xe3\x81\x82\xff\r\n\r\n\x80\x81\r\n",
	"NUL":                      "To: a@example.net\n\na\x00b\x00\n\x00",
	"no line end":              "To: a@example.net\n\nbody",
	"mixed line ends":          "To: a@example.net\nSubject: b\r\n\nbody\r\r\n\n\r",
	"long lines":               "To: a@example.net\nX: " + strings.Repeat("y", 300_000) + "\n\n" + strings.Repeat("z", 300_000),
	"a dot":                    "To: a@example.net\n\na\n.\nb\n",
	"header alone":             "To: a@example.net",
	"a field of the same name": "X-Relayguard-Call: 00112233445566778899aabbccddeeff\nTo: a@example.net\n\nb\n",
}

func TestMessageGoesThroughUnchangedBehindItsToken(t *testing.T) {
	p := install(t, recorder)
	calls := p.daemon(nil)
	for name, text := range messages {
		status, stderr := p.run(strings.NewReader(text), nil, "-t", "-i", "-fx y@example.jp")
		got, _ := p.got()
		token, rest := split(got)
		if status != 0 || stderr != "err\n" || rest != text {
			t.Errorf("%s: exit %d, %q; got %d octets %.80q", name, status, stderr, len(rest), rest)
		}
		c, ok := calls.Call(token, [16]byte{1})
		if wd, _ := os.Getwd(); !ok || c.UID != os.Getuid() || c.Dir != wd {
			t.Errorf("%s: token %q stands for %+v, %v", name, token, c, ok)
		}
	}
	args, err := os.ReadFile(filepath.Join(p.dir, "out", "args"))
	if err != nil || string(args) != "-t\n-i\n-fx y@example.jp\n" {
		t.Errorf("arguments %q, %v", args, err)
	}
}

// counting is a body that is never in memory as a whole.
type counting struct{ n, size int }

func (c *counting) Read(p []byte) (int, error) {
	if c.n == c.size {
		return 0, io.EOF
	}
	n := min(len(p), c.size-c.n)
	for i := range n {
		p[i] = byte((c.n + i) * 7 >> 3)
	}
	c.n += n
	return n, nil
}

func TestLargeMessageIsStreamed(t *testing.T) {
	p := install(t, recorder)
	p.daemon(nil)
	const size = 20 << 20
	head := "To: a@example.net\n\n"
	// What the wrapper may have of memory beside its program is less than the message.
	cmd := exec.CommandContext(t.Context(), p.program, "-t")
	cmd.Stdin, cmd.Env = io.MultiReader(strings.NewReader(head), &counting{size: size}), append(os.Environ(), "GOMEMLIMIT=8MiB")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	got, _ := p.got()
	_, rest := split(got)
	want, _ := io.ReadAll(&counting{size: size})
	if rest != head+string(want) {
		t.Errorf("got %d octets, want %d unchanged", len(rest), len(head)+size)
	}
	if rss := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; rss > 100<<10 { // kilobytes; the test binary alone takes 20 MB
		t.Errorf("took %d kB of memory", rss)
	}
}

func TestExitStatusIsThatOfTheMTAsProgram(t *testing.T) {
	p := install(t, recorder)
	p.daemon(nil)
	for _, want := range []int{0, 1, 64, 75, 255} {
		if status, _ := p.run(strings.NewReader(messages["plain"]), []string{fmt.Sprint("STATUS=", want)}, "-t"); status != want {
			t.Errorf("got %d, want %d", status, want)
		}
	}
	p = install(t, "#!/bin/sh\nkill -9 $$\n")
	if status, _ := p.run(strings.NewReader(messages["plain"]), nil, "-t"); status != 128+9 {
		t.Errorf("killed: got %d", status)
	}
	p = install(t, "#!/bin/sh\nexit 64\n") // reads nothing
	if status, _ := p.run(io.MultiReader(strings.NewReader(messages["plain"]), &counting{size: 20 << 20}), nil, "-x"); status != 64 {
		t.Errorf("early end: got %d", status)
	}
	os.Remove(p.settings.Sendmail)
	if status, stderr := p.run(strings.NewReader(messages["plain"]), nil, "-t"); status != exitNoFile || !strings.Contains(stderr, p.settings.Sendmail) {
		t.Errorf("no program: got %d, %q", status, stderr)
	}
}

func TestRefusedMailDoesNotReachTheMTA(t *testing.T) {
	p := install(t, recorder)
	verdict := call.Defer
	p.daemon(func(_ context.Context, r *call.Request) call.Answer {
		if len(r.RcptTo) != 1 || r.RcptTo[0] != "a@example.net" || r.MailFrom != "taro@example.jp" || !strings.HasPrefix(string(r.Header), "Subject: x") {
			t.Errorf("asked about %+v", r)
		}
		return call.Answer{Verdict: verdict, Text: "site shop.example.jp is suspended"}
	})
	for _, want := range []int{75, 69} {
		body := io.MultiReader(strings.NewReader("Subject: x\n\n"), &counting{size: 1 << 20})
		status, stderr := p.run(body, nil, "-f", "taro@example.jp", "a@example.net")
		if status != want || stderr != "relayguard-sendmail: site shop.example.jp is suspended\n" {
			t.Errorf("got %d, %q", status, stderr)
		}
		verdict = call.Reject
	}
	if got, ok := p.got(); ok {
		t.Errorf("the MTA got %q", got)
	}
}

func TestWithoutADaemonTheMailGoesAsItIs(t *testing.T) {
	p := install(t, recorder)
	goes := func(name string) {
		t.Helper()
		os.Remove(filepath.Join(p.dir, "out", "message"))
		status, stderr := p.run(strings.NewReader(messages["CRLF, 8 bit"]), nil, "-t")
		if got, _ := p.got(); status != 0 || stderr != "err\n" || got != messages["CRLF, 8 bit"] {
			t.Errorf("%s: exit %d, %q, got %q", name, status, stderr, got)
		}
	}
	goes("never started")
	if err := os.Mkdir(filepath.Dir(p.settings.Socket), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]string{
		"strange": "220 mail ESMTP\r\n", "hangs up": "", "says more": `{"verdict":"accept","token":"00112233445566778899aabbccddeeff","exit":1}` + "\n",
		"endless": strings.Repeat("x", 1<<20),
		"injects": `{"verdict":"accept","token":"0011\r\nBcc: x@example.net"}` + "\n",
	} {
		ln, err := net.Listen("unix", p.settings.Socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if conn, err := ln.Accept(); err == nil {
				io.CopyN(io.Discard, conn, 1)
				io.WriteString(conn, answer)
				conn.Close()
			}
		}()
		goes(name)
		ln.Close()
	}
	ln, err := net.Listen("unix", p.settings.Socket) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	p.settings.Timeout = 20 * time.Millisecond
	p.configure()
	goes("slow")
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	goes("dead, its socket still there")
}

// An account may have few open files.
func TestTwentyOpenFilesAreEnough(t *testing.T) {
	p := install(t, recorder)
	p.daemon(nil)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -n 20; exec "$0" -t`, p.program)
	cmd.Stdin = strings.NewReader(messages["plain"])
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	got, _ := p.got()
	if token, rest := split(got); token == "" || rest != messages["plain"] {
		t.Errorf("got %q", got)
	}
}

func TestOtherModesAreTheMTAsProgram(t *testing.T) {
	p := install(t, "#!/bin/sh\necho \"$$ $*\" >DIR/args\nread line\necho \"$line\" >DIR/message\nexit 7\n")
	p.daemon(nil)
	for _, mode := range []string{"-bs", "-bp", "-q", "-bi", "-I"} {
		cmd := exec.CommandContext(t.Context(), p.program, mode, "-v")
		cmd.Stdin = strings.NewReader("EHLO localhost\n")
		cmd.Run()
		args, _ := os.ReadFile(filepath.Join(p.dir, "out", "args"))
		got, _ := p.got()
		if want := fmt.Sprintf("%d %s -v\n", cmd.Process.Pid, mode); cmd.ProcessState.ExitCode() != 7 || string(args) != want || got != "EHLO localhost\n" {
			t.Errorf("%s: exit %d, got %q, want %q; %q", mode, cmd.ProcessState.ExitCode(), args, want, got)
		}
	}
}

func TestWrapperInThePlaceOfSendmailDoesNotStartItself(t *testing.T) {
	p := install(t, recorder)
	os.Remove(p.settings.Sendmail)
	if err := os.Symlink(p.program, p.settings.Sendmail); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"-t", "-bs"} {
		if status, stderr := p.run(strings.NewReader(""), nil, mode); status != exitSetting || !strings.Contains(stderr, "is this program itself") {
			t.Errorf("%s: exit %d, %q", mode, status, stderr)
		}
	}
}

// A sendmail that says when it has started, and then waits for the message.
const waiting = "#!/bin/sh\ntrap 'exit 42' TERM\nexec 3<&0\necho ready >DIR/fifo\ncat <&3 >DIR/message.part &\nwait $!\nmv DIR/message.part DIR/message\n"

func TestSignalReachesTheMTAsProgram(t *testing.T) {
	p := install(t, waiting)
	cmd, in := p.start()
	defer in.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 42 {
		t.Errorf("got %d", got)
	}
}

// A message that breaks off is not one: the MTA's program ends with the wrapper.
func TestKilledWrapperTakesTheMTAsProgramAlong(t *testing.T) {
	p := install(t, "#!/bin/sh\nexec 3>DIR/lock\necho ready >DIR/fifo\nexec tail -f /dev/null\n") // never ends
	lock := filepath.Join(p.dir, "out", "lock")
	if err := syscall.Mkfifo(lock, 0o666); err != nil {
		t.Fatal(err)
	}
	ends := make(chan error)
	go func() { // the end of the fifo comes when sendmail is gone
		f, err := os.Open(lock)
		if err == nil {
			_, err = io.ReadAll(f)
		}
		ends <- err
	}()
	cmd, in := p.start()
	defer in.Close()
	cmd.Process.Kill()
	cmd.Wait()
	if err := <-ends; err != nil {
		t.Fatal(err)
	}
}

// start begins a message, and returns when sendmail has started.
func (p *place) start() (*exec.Cmd, io.Closer) {
	p.t.Helper()
	fifo := filepath.Join(p.dir, "out", "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.CommandContext(p.t.Context(), p.program, "-t")
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.WriteString(in, "To: a@example.net\n\nhalf"); err != nil {
		p.t.Fatal(err)
	}
	if text, err := os.ReadFile(fifo); err != nil || string(text) != "ready\n" {
		p.t.Fatalf("%q, %v", text, err)
	}
	return cmd, in
}

func TestUnreadableMessageIsNotSent(t *testing.T) {
	p := install(t, recorder)
	dir, err := os.Open(p.dir) // reading it is an error
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if status, stderr := p.run(dir, nil, "-t"); status != exitIO || !strings.Contains(stderr, "read the message") {
		t.Errorf("exit %d, %q", status, stderr)
	}
	if got, ok := p.got(); ok {
		t.Errorf("the MTA got %q", got)
	}
}

func TestClosedStandardInputIsAnEmptyMessage(t *testing.T) {
	p := install(t, recorder)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `"$0" -t <&- 2>/dev/null`, p.program)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if got, ok := p.got(); !ok || got != "" {
		t.Errorf("got %q, %v", got, ok)
	}
}
