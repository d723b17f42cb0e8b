package queues_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// Who sends.
const (
	wwwData = 33 // many sites share it
	taro    = "taro@example.jp"
	secret  = "secret"
)

// house is a mail server of either kind with the guard.
type house struct {
	*relay.Guard
	t       *testing.T
	binary  string
	sink    *smtptest.Sink
	postfix *relay.Relay         // nil beside Sendmail
	smail   *relay.SendmailRelay // nil beside Postfix
	control http.Client
}

// startPostfix and startSendmail start one.
func startPostfix(t *testing.T, binary func(*testing.T) string, o relay.Options) *house {
	t.Helper()
	postfixtest.Need(t)
	o.Binary = binary(t)
	o.Postfix.Users = map[string]string{taro: secret}
	r := relay.StartTest(t, o)
	return (&house{Guard: r.Guard, t: t, binary: o.Binary, sink: r.Sink, postfix: r}).ready()
}

func startSendmail(t *testing.T, binary func(*testing.T) string, o relay.Options) *house {
	t.Helper()
	sendmailtest.Need(t)
	o.Binary = binary(t)
	o.Sendmail.Users = map[string]string{taro: secret}
	r := relay.StartSendmailTest(t, o)
	return (&house{Guard: r.Guard, t: t, binary: o.Binary, sink: r.Sink, smail: r}).ready()
}

func (h *house) ready() *house {
	h.control = http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(h.StateDir(), "control.sock"))
	}}}
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// long bounds a wait, on a slow and busy machine too.
const long = 4 * time.Minute

func (h *house) soon() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), long)
	h.t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is so; is says what is not, or nothing.
func (h *house) eventually(what string, is func() string) {
	h.t.Helper()
	ctx := h.soon()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		not := is()
		if not == "" {
			return
		}
		select {
		case <-ctx.Done():
			h.t.Fatalf("waited in vain: %s: %s", what, not)
		case <-tick.C:
		}
	}
}

// post asks the daemon as a command would.
func (h *house) post(path string, in, out any) {
	h.t.Helper()
	body, err := json.Marshal(in)
	h.must(err)
	resp, err := h.control.Post("http://guard"+path, "application/json", bytes.NewReader(body))
	h.must(err)
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	h.must(err)
	if resp.StatusCode != http.StatusOK {
		h.t.Fatalf("POST %s: %s: %s", path, resp.Status, said)
	}
	if out != nil {
		h.must(json.Unmarshal(said, out))
	}
}

// dial opens a session with a service as a Unix account: that is who owns the
// socket.
func (h *house) dial(uid int, service string) (*smtptest.Client, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(uid); err != nil {
		return nil, err
	}
	defer syscall.Setfsuid(0)
	var c *smtptest.Client
	var err error
	if h.postfix != nil {
		c, err = h.postfix.Dial(h.soon(), service)
	} else {
		c, err = h.smail.Dial(h.soon(), service)
	}
	if err != nil {
		return nil, err
	}
	c.Timeout = long
	reply, err := c.Ehlo("localhost")
	if err == nil && reply.Code != 250 {
		err = fmt.Errorf("EHLO: %v", reply)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// login opens a session and logs in.
func (h *house) login() (*smtptest.Client, error) {
	c, err := h.dial(0, relay.Submission)
	if err != nil {
		return nil, err
	}
	reply, err := c.Auth(taro, secret)
	if err == nil && reply.Code != 235 {
		err = fmt.Errorf("AUTH: %v", reply)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// hand has sendmail(1) send a message as an account, and returns its exit status.
func (h *house) hand(uid int, args []string, message string) (int, error) {
	if h.postfix != nil {
		sent, err := h.postfix.Sendmail(h.soon(), uid, args, strings.NewReader(message))
		return sent.ExitCode, err
	}
	sent, err := h.smail.Sendmail.Sendmail(h.soon(), uid, append([]string{"-oi"}, args...), strings.NewReader(message))
	return sent.ExitCode, err
}

// said is how a command ended.
type said struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// start starts a command of relayguard as an admin would, where the mail server
// lives. wait waits for its end.
func (h *house) start(args ...string) (cmd *exec.Cmd, wait func() said) {
	h.t.Helper()
	cmd = exec.CommandContext(h.soon(), h.binary, append(args, "--config", h.ConfigPath)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each takes a second more
	run := cmd.Start
	if h.smail != nil {
		cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(h.smail.Tool("sendmail"))+":"+filepath.Dir(h.smail.Tool("makemap"))+":/usr/sbin:/usr/bin:/sbin:/bin")
		run = func() error { return h.smail.StartCommand(cmd) }
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	h.must(run())
	return cmd, func() said {
		h.t.Helper()
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			h.t.Error(err)
		}
		s := said{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(began)}
		for _, bad := range []string{"panic:", "DATA RACE", "fatal error:"} {
			if strings.Contains(s.stderr, bad) {
				h.t.Errorf("relayguard %s: %s", strings.Join(args, " "), s.stderr)
			}
		}
		return s
	}
}

func (h *house) command(args ...string) said {
	h.t.Helper()
	_, wait := h.start(args...)
	return wait()
}

// order runs a command that must end with that status.
func (h *house) order(status int, args ...string) string {
	h.t.Helper()
	s := h.command(args...)
	if s.code != status {
		h.t.Fatalf("relayguard %s: status %d, want %d\n%s%s", strings.Join(args, " "), s.code, status, s.stdout, s.stderr)
	}
	return s.stdout
}

// ask is order of a command that prints JSON.
func ask[T any](h *house, status int, args ...string) (v T) {
	h.t.Helper()
	out := h.order(status, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		h.t.Fatalf("relayguard %s: %v:\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// memory is the daemon's resident set, now and at its largest, in octets.
func (h *house) memory() (now, most int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.GuardPID()))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			now = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			most = kib << 10
		}
	}
	return now, most
}
