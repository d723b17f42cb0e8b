package incident_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/incident"
)

func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 8192)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := &incident.Syslog{Path: path}
	defer s.Close()
	if err := s.Deliver(t.Context(), alert("a", incident.Opened)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("nobody listens: %v", err)
	}
	daemon := listen(t, path)
	a := alert("a", incident.Opened)
	a.Text = "one\n<0>two\x1b\u202e" + strings.Repeat("x", 5000)
	for _, c := range []struct {
		event incident.Event
		want  string
	}{{incident.Opened, "<20>"}, {incident.Closed, "<21>"}} {
		a.Event = c.event
		if err := s.Deliver(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		got := receive(t, daemon)
		if !regexp.MustCompile(`^`+c.want+`[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d relayguard\[\d+\]: one\\x0a<0>two\\x1b\\u202exxx`).MatchString(got) || len(got) > 1024 {
			t.Errorf("%d octets: %q", len(got), got)
		}
	}

	daemon.Close() // it is restarted
	os.Remove(path)
	daemon = listen(t, path)
	if err := s.Deliver(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	receive(t, daemon)
}

// A log daemon that hangs costs a second.
func TestSyslogFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listen(t, path)
	s := &incident.Syslog{Path: path}
	defer s.Close()
	began := time.Now()
	for i := range 100_000 {
		if err := s.Deliver(t.Context(), alert("a", incident.Opened)); err != nil {
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("waited %v", took)
			}
			return
		}
		if i == 99_999 {
			t.Error("the socket never was full")
		}
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alert")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("SECRET", "token")
	var log bytes.Buffer
	c := &incident.Command{
		Path: script(t, `{ for a; do printf '%s\n' "$a"; done; pwd; env; cat; } >`+out+`; echo said`),
		Log:  slog.New(slog.NewTextHandler(&log, nil)),
	}
	a := alert("i-1", incident.Opened)
	a.Incident.Origin, a.Incident.Cause = "login:$(id)`id`;'\"\x00\n\x1b[2J", "--help"
	a.Incident.Notes = []incident.Note{{Text: "private"}}
	if err := c.Deliver(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"opened", "i-1", "login:$(id)`id`;'\"\\x00\\x0a\\x1b[2J", `\x2d-help`, "/"}
	lines := strings.Split(string(got), "\n")
	for i, w := range want {
		if i >= len(lines) || lines[i] != w {
			t.Errorf("line %d of %q: want %q", i, got, w)
		}
	}
	if strings.Contains(string(got), "SECRET") || strings.Contains(string(got), "private") {
		t.Errorf("got too much: %q", got)
	}
	var read struct{ Event, ID, Origin, Cause, Text string }
	if err := json.Unmarshal([]byte(lines[len(lines)-2]), &read); err != nil || read.ID != "i-1" || read.Event != "opened" || strings.ContainsAny(read.Origin, "\x00\n\x1b") {
		t.Errorf("standard input %q: %v, %+v", lines[len(lines)-2], err, read)
	}
	if !strings.Contains(log.String(), `output=said`) {
		t.Errorf("log: %s", log.String())
	}
}

func TestCommandFailures(t *testing.T) {
	for name, c := range map[string]struct{ path, want string }{
		"status":        {script(t, "exit 3"), "exit status 3"},
		"missing":       {"/nonexistent/alert", "no such file"},
		"relative":      {"alert", "want an absolute path"},
		"leaves a pipe": {script(t, "sleep 60 & exit 0"), "left processes behind"},
	} {
		cmd := &incident.Command{Path: c.path}
		if err := cmd.Deliver(t.Context(), alert("a", incident.Opened)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A command that hangs is killed with all it started.
func TestCommandTimeOut(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	c := &incident.Command{Path: script(t, `sleep 600 & echo $! >`+pids+`; echo $$ >>`+pids+`; wait`), Timeout: time.Second}
	began := time.Now()
	err := c.Deliver(t.Context(), alert("a", incident.Opened))
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(text))
	if len(list) != 2 {
		t.Fatalf("pids %q", list)
	}
	for _, p := range list {
		pid, _ := strconv.Atoi(p)
		poll(t, "process "+p+" is gone", func() bool { return !lives(pid) })
	}
}

// lives is false for a zombie, too: whose child it is now may not wait for it.
func lives(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestCommandOutputIsBounded(t *testing.T) {
	var log bytes.Buffer
	c := &incident.Command{Path: script(t, `yes "$(printf 'a\033b')" | head -c 10000000; cat >/dev/null`), Log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := c.Deliver(t.Context(), alert("a", incident.Opened)); err != nil {
		t.Fatal(err)
	}
	if log.Len() > 10_000 || !strings.Contains(log.String(), "bytes=10000000") || strings.Contains(log.String(), "\x1b") {
		t.Errorf("%d octets logged: %.200q", log.Len(), log.String())
	}
}

func TestCommandOneAtATime(t *testing.T) {
	began := filepath.Join(t.TempDir(), "began")
	c := &incident.Command{Path: script(t, `>`+began+`; sleep 600`), Timeout: time.Minute}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Deliver(ctx, alert("a", incident.Opened)) }()
	poll(t, "the command runs", func() bool { _, err := os.Stat(began); return err == nil })
	if err := c.Deliver(t.Context(), alert("b", incident.Opened)); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("a second one: %v", err)
	}
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error though it was killed")
		}
	case <-time.After(20 * time.Second):
		t.Error("it was not killed")
	}
}

// A slow command holds up neither mail nor the system log.
func TestSlowCommandHoldsUpNothing(t *testing.T) {
	dir := t.TempDir()
	daemon := listen(t, filepath.Join(dir, "log"))
	channels := incident.NewChannels(incident.ChannelsOptions{Close: time.Millisecond},
		&incident.Command{Path: script(t, "sleep 600"), Timeout: time.Minute}, &incident.Syslog{Path: filepath.Join(dir, "log")})
	defer channels.Close()
	book := incident.NewBook(incident.Options{Alert: channels.Send})
	go book.Run(t.Context())
	for i := range 5 {
		began := time.Now()
		book.Observe(began, stop(fmt.Sprint("login:", i), "login-hour"))
		if took := time.Since(began); took > time.Second {
			t.Errorf("Observe took %v", took)
		}
		if got := receive(t, daemon); !strings.Contains(got, fmt.Sprint("login:", i)) {
			t.Errorf("log %q", got)
		}
	}
}
