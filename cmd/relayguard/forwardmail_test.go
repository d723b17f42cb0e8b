package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandingInIsTriedAgain(t *testing.T) {
	away, refused := errors.New("connection refused"), fmt.Errorf("hand in: %w", &textproto.Error{Code: 550, Msg: "no"})
	pauses := []time.Duration{time.Second, time.Minute, time.Hour}
	for name, c := range map[string]struct {
		answers []error
		want    error
		tries   int
		took    time.Duration
	}{
		"at once":          {[]error{nil}, nil, 1, 0},
		"the third time":   {[]error{away, &textproto.Error{Code: 451}, nil}, nil, 3, time.Second + time.Minute},
		"never":            {[]error{away, away, away, away, nil}, away, 4, time.Second + time.Minute + time.Hour},
		"refused for good": {[]error{refused, nil}, refused, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			began, tries := time.Now(), 0
			err := patiently(t.Context(), pauses, func() error { tries++; return c.answers[tries-1] })
			if !errors.Is(err, c.want) || tries != c.tries || time.Since(began) != c.took {
				t.Errorf("%s: %v after %d tries and %v", name, err, tries, time.Since(began))
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := patiently(ctx, []time.Duration{time.Hour}, func() error { return away }); !errors.Is(err, away) || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// smtpServer answers a line with what answer says, "" with nothing at all.
func smtpServer(t *testing.T, answer func(line string) string) (address string, got <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	said := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var all strings.Builder
		defer func() { said <- all.String() }()
		io.WriteString(conn, answer(""))
		for r := bufio.NewScanner(conn); r.Scan(); {
			all.WriteString(r.Text() + "\n")
			io.WriteString(conn, answer(r.Text()))
		}
	}()
	return l.Addr().String(), said
}

func TestAMessageIsHandedIn(t *testing.T) {
	data := false
	address, got := smtpServer(t, func(line string) string {
		switch {
		case line == "":
			return map[bool]string{false: "220 mx\r\n", true: ""}[data]
		case line == "DATA":
			data = true
			return "354 go on\r\n"
		case line == ".":
			data = false
			return "250 ok\r\n"
		case line == "QUIT":
			return "221 bye\r\n"
		case data:
			return ""
		}
		return "250 ok\r\n"
	})
	if err := submit(t.Context(), address, "mx.corp.test", "alice@corp.test", []byte("Subject: x\r\n\r\nhello\r\n")); err != nil {
		t.Fatal(err)
	}
	if said := <-got; !strings.Contains(said, "EHLO mx.corp.test\n") || !strings.Contains(said, "MAIL FROM:<>") || !strings.Contains(said, "RCPT TO:<alice@corp.test>") || !strings.Contains(said, "\nhello\n.\n") {
		t.Errorf("%q", said)
	}
}

// TestHandingInEndsWithTheDaemon: a server that says nothing keeps nobody.
func TestHandingInEndsWithTheDaemon(t *testing.T) {
	address, got := smtpServer(t, func(line string) string {
		if line == "" {
			return "220 mx\r\n"
		}
		return "" // nothing to EHLO
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- submit(ctx, address, "mx.corp.test", "alice@corp.test", nil) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-got:
	default: // it did not even connect
	}
}
