package sendmail

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"relayguard/systemtest/relay"
)

// suspendNews stops an account that sends for nobody else.
func suspendNews(t *testing.T, r *relay.SendmailRelay) {
	t.Helper()
	said, err := r.Relayguard(soon(t), "suspend", "local_user:news", "--reason", "spam")
	if err != nil || said.ExitCode != 0 {
		t.Fatalf("suspend: %+v, %v", said, err)
	}
}

// tcpPair is a TCP connection of loopback: its end for a program, and ours.
func tcpPair(t *testing.T) (theirs *os.File, ours net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if theirs, err = server.(*net.TCPConn).File(); err != nil {
		t.Fatal(err)
	}
	return theirs, ours
}

// unixPair is the same with Unix sockets.
func unixPair(t *testing.T) (theirs *os.File, ours net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine := os.NewFile(uintptr(fds[1]), "socket")
	defer mine.Close()
	if ours, err = net.FileConn(mine); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	return os.NewFile(uintptr(fds[0]), "socket"), ours
}

// pipes are two pipes as a shell makes them: the ends for a program's standard input
// and output, and ours.
func pipes(t *testing.T) (in, out *os.File, ours io.ReadWriter) {
	t.Helper()
	in, to, err := os.Pipe()
	from, out, errOut := os.Pipe()
	if err := errors.Join(err, errOut); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close(); from.Close() })
	return in, out, struct {
		io.Reader
		io.Writer
	}{from, to}
}

// queueOnly starts sendmail -odq as an account, with that input and output, which
// it closes here.
func queueOnly(t *testing.T, r *relay.SendmailRelay, uid uint32, in, out *os.File, args ...string) (wait func() error) {
	t.Helper()
	cmd := exec.CommandContext(soon(t), r.Tool("sendmail"), append([]string{"-odq"}, args...)...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin, cmd.Stdout = in, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	err := r.StartCommand(cmd)
	in.Close()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Wait
}

// talk says lines by SMTP, each when the one before is answered. None may be refused.
func talk(t *testing.T, conn io.ReadWriter, lines []string) {
	t.Helper()
	in := textproto.NewReader(bufio.NewReader(conn))
	for i := 0; ; i++ {
		code, text, err := in.ReadResponse(0)
		if err != nil || code >= 400 {
			t.Fatalf("SMTP before line %d: %d %s, %v", i, code, text, err)
		}
		if i == len(lines) {
			return
		}
		if _, err := io.WriteString(conn, lines[i]+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// queueBySMTP has sendmail -bs -odq take a letter of an account.
func queueBySMTP(t *testing.T, r *relay.SendmailRelay, in, out *os.File, ours io.ReadWriter, to, message string) {
	t.Helper()
	wait := queueOnly(t, r, news, in, out, "-bs")
	talk(t, ours, transaction("news@relay.example.jp", to, message))
	if err := wait(); err != nil {
		t.Fatalf("sendmail -bs: %v", err)
	}
}

// wantClientQueueEmpty checks that the submission program has nothing left.
func wantClientQueueEmpty(t *testing.T, r *relay.SendmailRelay) {
	t.Helper()
	eventually(t, "an empty client queue", func() bool {
		left, err := os.ReadDir(r.ClientQueueDir)
		return err == nil && len(left) == 0
	})
}

// A suspended account gives sendmail(1) a socket for its input and has it queue the
// mail: the first line is then no word about who handed it in, and the queue's own
// account hands it on. It is held, in whole.
func TestWhoseInputIsASocketIsNotTheSubmissionProgram(t *testing.T) {
	r := start(t, relay.Options{})
	suspendNews(t, r)
	socket, ours := tcpPair(t)
	queueBySMTP(t, r, socket, socket, ours, "tcp@example.net", letter("tcp@x"))
	socket, ours = unixPair(t)
	wait := queueOnly(t, r, news, socket, socket, "-oi", "unix@example.net")
	if _, err := io.WriteString(ours, letter("unix@x")); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	queue, err := r.ClientQueue(soon(t))
	if err != nil || len(queue) != 2 {
		t.Fatalf("client queue: %v, %v", queue, err)
	}
	if err := r.RunClientQueue(soon(t)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tcp", "unix"} {
		wantVerdict(t, r, name+"@x", "hold", "auth", "local_user:smmsp")
		held := wantHeld(t, r, name+"@example.net")
		if held.Reason == "" {
			t.Errorf("%s: held without a reason", name)
		}
		// What an admin finds to be honest arrives in whole.
		said, err := r.Relayguard(soon(t), "held", "release", held.QueueID, "--reason", "it is honest")
		if err != nil || said.ExitCode != 0 {
			t.Fatalf("release: %+v, %v", said, err)
		}
		if mail := wantArrived(t, r, name+"@example.net"); !strings.Contains(string(mail.Data), "Hello") {
			t.Errorf("released:\n%s", mail.Data)
		}
	}
	wantClientQueueEmpty(t, r)
}

// A suspended account has the submission program bounce its mail to somebody else,
// in the name of the queue's own account. Only a bounce to inside arrives.
func TestBouncesOfTheSubmissionProgramCarryNothingOut(t *testing.T) {
	r := start(t, relay.Options{})
	suspendNews(t, r)
	handAll(t, r, news, letter("out@x"), "-odq", "-f", "victim@example.net", "other@example.net")
	handAll(t, r, news, letter("in@x"), "-odq", "-f", "hanako@example.jp", "another@example.net")
	var refused *exec.ExitError
	if err := r.RunClientQueue(soon(t)); err != nil && !(errors.As(err, &refused) && refused.ExitCode() == exUnavailable) {
		t.Fatal(err)
	}
	for _, id := range []string{"out@x", "in@x"} {
		wantVerdict(t, r, id, "reject", "suspended", "local_user:news")
	}
	bounce := wantArrived(t, r, "hanako@example.jp")
	if bounce.MailFrom != "" || !strings.Contains(string(bounce.Data), "suspended, ask the postmaster") {
		t.Errorf("bounce of <%s>:\n%s", bounce.MailFrom, bounce.Data)
	}
	wantHeld(t, r, "victim@example.net")
	wantNothing(t, r, "other@example.net", "another@example.net")
	wantClientQueueEmpty(t, r)
}

// What waited in the client queue and is honest goes on, from sendmail -bs too.
func TestHonestMailOfTheClientQueueGoesOn(t *testing.T) {
	r := start(t, relay.Options{})
	handAll(t, r, news, letter("plain@x"), "-odq", "plain@example.net")
	in, out, ours := pipes(t)
	queueBySMTP(t, r, in, out, ours, "bs@example.net", letter("bs@x"))
	if err := r.RunClientQueue(soon(t)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"plain@x", "bs@x"} {
		wantVerdict(t, r, id, "accept", "", "local_user:news")
		wantArrived(t, r, strings.ReplaceAll(id, "@x", "@example.net"))
	}
}
