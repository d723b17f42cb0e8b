package call

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve runs a server at the end of whose life all connections are closed.
func serve(t *testing.T, s *Server) (socket string) {
	t.Helper()
	if s.Calls == nil {
		s.Calls = NewCalls(0, time.Now)
	}
	if s.Timeout == 0 {
		s.Timeout = 10 * time.Second
	}
	s.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir, err := os.MkdirTemp("", "call")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(filepath.Join(dir, "made", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func TestAnsweredWithATokenThatStandsForTheCall(t *testing.T) {
	s := &Server{}
	socket := serve(t, s)
	before := time.Now()
	a, err := Ask(t.Context(), socket, Question{
		Dir: "/var/www/shop/../shop/wp-admin/", MailFrom: "info@example.jp", RcptTo: []string{"hanako@example.net"},
		Header: []byte("To: hanako@example.net\r\nX-PHP-Originating-Script: 1001:PHPMailer.php\r\n\r\n"),
	})
	if err != nil || a.Verdict != Accept || a.Verdict.Exit() != 0 {
		t.Fatalf("got %+v, %v", a, err)
	}
	got, ok := s.Calls.Call(a.Token, [16]byte{1})
	if !ok || got.UID != os.Getuid() || got.Dir != "/var/www/shop/wp-admin" || got.Script != "PHPMailer.php" || got.Pool != "" || got.Time.Before(before) {
		t.Errorf("got %+v, %v", got, ok)
	}
}

func TestRefusalReachesWhoSends(t *testing.T) {
	var asked Request
	s := &Server{Refuse: func(_ context.Context, r *Request) Answer {
		asked = *r
		return Answer{Verdict: Defer, Token: "x", Text: "shop.example.jp is suspended\n\x1b[31mcall 4711"}
	}}
	socket := serve(t, s)
	a, err := Ask(t.Context(), socket, Question{Dir: "/srv", RcptTo: []string{"a@example.net", "b@example.net"}, FromHeader: true})
	want := Answer{Verdict: Defer, Text: "shop.example.jp is suspended  [31mcall 4711"}
	if err != nil || a != want || a.Verdict.Exit() != 75 || Reject.Exit() != 69 {
		t.Errorf("got %+v, %v, want %+v", a, err, want)
	}
	if asked.UID != os.Getuid() || !asked.FromHeader || !slices.Equal(asked.RcptTo, []string{"a@example.net", "b@example.net"}) {
		t.Errorf("asked about %+v", asked)
	}
	if s.Calls.Len() != 0 || s.Counts.Refused.Load() != 1 {
		t.Errorf("%d calls remembered, %d refused", s.Calls.Len(), s.Counts.Refused.Load())
	}
}

func TestPanicCostsOneAnswerOnly(t *testing.T) {
	n := 0
	socket := serve(t, &Server{Refuse: func(context.Context, *Request) Answer {
		if n++; n == 1 {
			panic("ours")
		}
		return Answer{}
	}})
	if a, err := Ask(t.Context(), socket, Question{}); err == nil {
		t.Errorf("got %+v", a)
	}
	if a, err := Ask(t.Context(), socket, Question{}); err != nil || a.Verdict != Accept {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestWhatIsOverTheBoundsIsLeftOut(t *testing.T) {
	q := Question{Header: bytes.Repeat([]byte("<"), MaxHeader+1), MailFrom: "a\nb", Dir: "relative"}
	for range 3 * MaxRcpts {
		q.RcptTo = append(q.RcptTo, strings.Repeat(`"`, 300))
	}
	if line, err := encodeQuestion(Question{Dir: "(unreachable)/srv/shop"}); err != nil || bytes.Contains(line, []byte("shop")) {
		t.Errorf("a directory outside of the root: %s, %v", line, err)
	}
	line, err := encodeQuestion(q)
	if err != nil || len(line) > MaxQuestion {
		t.Fatalf("%d octets, %v", len(line), err)
	}
	got, err := decodeQuestion(line)
	if err != nil || len(got.Header) != MaxHeader || !got.HeaderMore || !got.RcptMore || len(got.RcptTo) == 0 || got.MailFrom != "" || got.Dir != "" {
		t.Errorf("got %d octets, %d recipients, %v, %+v", len(got.Header), len(got.RcptTo), err, got.RcptMore)
	}
}

func TestHostileQuestionsAreHungUpOn(t *testing.T) {
	s := &Server{}
	socket := serve(t, s)
	for name, text := range map[string]string{
		"no JSON":        "MAIL FROM:<>\r\n",
		"no object":      "[]\n",
		"unknown field":  `{"version":1,"uid":0}` + "\n",
		"two":            `{"version":1}{"version":1}` + "\n",
		"other version":  `{"version":2}` + "\n",
		"line ends":      `{"version":1,"rcpt_to":["a@example.net\nBcc: b@example.net"]}` + "\n",
		"empty":          `{"version":1,"rcpt_to":[""]}` + "\n",
		"too large":      `{"version":1,"header":"` + strings.Repeat("A", MaxQuestion) + `"}` + "\n",
		"many":           `{"version":1,"rcpt_to":["a"` + strings.Repeat(`,"a"`, MaxRcpts) + `]}` + "\n",
		"deep":           strings.Repeat(`{"version":`, 5000) + "\n",
		"without an end": `{"version":1}`,
	} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(text))
		conn.(*net.UnixConn).CloseWrite()
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%s: answered", name)
		}
		conn.Close()
	}
	if s.Calls.Len() != 0 {
		t.Errorf("%d calls remembered", s.Calls.Len())
	}
}

func TestSilentConnectionsKeepOneAccountOutOnly(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another account")
	}
	s := &Server{Timeout: time.Minute}
	socket := serve(t, s)
	for range maxPerUID {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	if a, err := Ask(t.Context(), socket, Question{}); err == nil {
		t.Errorf("one connection too many got %+v", a)
	}
	if s.Counts.Turned.Load() != 1 {
		t.Errorf("%d hung up on", s.Counts.Turned.Load())
	}
	cmd := exec.Command("bash", "-c", "exec 2>&1; exec python3 -c \"$0\" \"$1\"", `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'{"version":1}\n')
print(s.makefile().readline())`, socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"accept"`) {
		t.Errorf("another account got %q, %v", out, err)
	}
}

func TestSilentConnectionEndsWithItsTime(t *testing.T) {
	s := &Server{Timeout: 10 * time.Millisecond}
	conn, err := net.Dial("unix", serve(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("answered")
	}
}

func TestAskReturnsByItsDeadline(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // nobody accepts
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if a, err := Ask(ctx, ln.Addr().String(), Question{}); err == nil {
		t.Errorf("got %+v", a)
	}
	if a, err := Ask(t.Context(), filepath.Join(t.TempDir(), "none"), Question{}); err == nil {
		t.Errorf("got %+v", a)
	}
}

func TestPlacesAreBoundedByAccountAndInAll(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	p := newPlaces()
	n := 0
	for uid := range 1000 {
		for p.take(now, uid) {
			n++
		}
	}
	if n != maxConns {
		t.Errorf("%d at a time", n)
	}
	p = newPlaces()
	for n = 0; p.take(now, 33); n++ {
		p.give(33)
	}
	if n != burst {
		t.Errorf("%d at once", n)
	}
	for n = 0; p.take(now.Add(time.Second), 33); n++ {
		p.give(33)
	}
	if n != perSecond {
		t.Errorf("%d a second later", n)
	}
	if !p.take(now, 34) {
		t.Error("another account has no place")
	}
	for uid := range 3 * maxRates {
		p.take(now, 1000+uid)
	}
	if len(p.rates) > maxRates {
		t.Errorf("%d rates remembered", len(p.rates))
	}
}

// process writes what the kernel shows of one.
func process(t *testing.T, proc string, pid, parent, uid int, title string) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	id := strconv.Itoa(uid)
	status := "Name:\tphp-fpm8.2\nUmask:\t0022\nPid:\t" + strconv.Itoa(pid) + "\nPPid:\t" + strconv.Itoa(parent) + "\nUid:\t" + id + "\t" + id + "\t" + id + "\t" + id + "\n"
	for name, text := range map[string]string{"status": status, "cmdline": title} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPoolIsTheWordOfAWorkerThatRootsMasterMade(t *testing.T) {
	proc := t.TempDir()
	const master = "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)\x00\x00"
	process(t, proc, 10, 1, 0, master)
	process(t, proc, 20, 10, 1001, "php-fpm: pool shop\x00\x00\x00\x00")
	process(t, proc, 21, 20, 1001, "sh\x00-c\x00/usr/local/sbin/relayguard-sendmail -t -i\x00")
	process(t, proc, 22, 21, 1001, "/usr/local/sbin/relayguard-sendmail\x00-t\x00")
	process(t, proc, 30, 1, 1001, "php-fpm: pool other\x00")                  // says so, and is init's
	process(t, proc, 31, 30, 1001, "/usr/local/sbin/relayguard-sendmail\x00") // of that
	process(t, proc, 40, 1, 1001, master)                                     // no root
	process(t, proc, 41, 40, 1001, "php-fpm: pool other\x00")
	process(t, proc, 50, 10, 1002, "php-fpm: pool neighbour\x00")
	process(t, proc, 51, 50, 1001, "sendmail\x00") // of another uid's worker
	process(t, proc, 60, 60, 1001, "loop\x00")
	process(t, proc, 70, 10, 1001, "php-fpm: pool a\x1b[31m"+strings.Repeat("b", 3000)+"\x00")
	for pid, want := range map[int]string{22: "shop", 21: "shop", 31: "", 41: "", 51: "", 60: "", 0: "", 1: "", 99: "",
		70: "a [31m" + strings.Repeat("b", maxPool-6)} {
		if got := (pools{proc}).find(pid, 1001); got != want {
			t.Errorf("process %d: got %q, want %q", pid, got, want)
		}
	}
	if got := (pools{"/proc"}).find(os.Getpid(), os.Getuid()); got != "" {
		t.Errorf("this process: got %q", got)
	}
}

func TestScriptThatPHPNames(t *testing.T) {
	for header, want := range map[string]string{
		"To: a@example.net\nX-PHP-Originating-Script: 6001:PHPMailer.php\n": "PHPMailer.php",
		"x-php-originating-script: 33:a.php(12) : eval()'d code\r\n":        "a.php(12) : eval()'d code",
		"X-PHP-Originating-Script: C:odd.php\n":                             "C:odd.php",
		"X-PHP-Originating-Script: 1:" + strings.Repeat("é", 200) + "\n":    strings.Repeat("é", maxScript/2),
		"Subject: X-PHP-Originating-Script: 1:a.php\n":                      "",
		"": "",
	} {
		if got := scriptOf([]byte(header)); got != want {
			t.Errorf("%q: got %q, want %q", header, got, want)
		}
	}
}
