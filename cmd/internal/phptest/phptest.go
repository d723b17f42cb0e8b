// Package phptest runs the real PHP for tests. Where it is missing a test is
// skipped; with CI or RELAYGUARD_REQUIRE set it fails.
package phptest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// CLI is the path of the command-line PHP.
func CLI(t testing.TB) string {
	t.Helper()
	return program(t, "/usr/bin/php", "/usr/local/bin/php")
}

func program(t testing.TB, patterns ...string) string {
	t.Helper()
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	text := fmt.Sprintf("not installed: %s (Debian packages php-cli, php-fpm; ./dev test installs them)", strings.Join(patterns, ", "))
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatalf("real PHP required: %s", text)
	}
	t.Skipf("needs a real PHP: %s", text)
	return ""
}

// FPM runs php-fpm, as root, until the end of the test. Its settings, the
// pools among them, are those of a configuration file; env is added to the
// environment. It returns when the socket of a pool answers.
func FPM(t testing.TB, conf, socket string, env ...string) {
	t.Helper()
	master := program(t, "/usr/sbin/php-fpm[0-9]*", "/usr/local/sbin/php-fpm")
	if os.Getuid() != 0 {
		t.Skip("needs root to run php-fpm for another account")
	}
	log := filepath.Join(t.TempDir(), "fpm.log")
	main := filepath.Join(t.TempDir(), "fpm.conf")
	if err := os.WriteFile(main, fmt.Appendf(nil, "[global]\nerror_log = %s\ndaemonize = no\ninclude = %s\n", log, conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(master, "-F", "-y", main)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		if text, _ := os.ReadFile(log); t.Failed() {
			t.Logf("%s", text)
		}
	})
	for { // it opens its socket when it is ready
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-exited:
			exited <- err
			text, _ := os.ReadFile(log)
			t.Fatalf("php-fpm ended: %v\n%s", err, text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Request asks a pool of php-fpm for a script, and returns what it printed, its
// header included: the FastCGI specification, §3.
func Request(t testing.TB, socket, script string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	record := func(kind byte, content string) {
		head := []byte{1, kind, 0, 1, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(head[4:], uint16(len(content)))
		if _, err := io.WriteString(conn, string(head)+content); err != nil {
			t.Fatal(err)
		}
	}
	record(1, "\x00\x01\x00\x00\x00\x00\x00\x00") // begin, as a responder
	params := ""
	for _, pair := range [][2]string{{"REQUEST_METHOD", "GET"}, {"SCRIPT_FILENAME", script}, {"DOCUMENT_ROOT", filepath.Dir(script)}} {
		params += string([]byte{byte(len(pair[0])), byte(len(pair[1]))}) + pair[0] + pair[1]
	}
	record(4, params)
	record(4, "")
	record(5, "")
	var out strings.Builder
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatalf("read php-fpm's answer: %v; %q", err, out.String())
		}
		content := make([]byte, int(binary.BigEndian.Uint16(head[4:]))+int(head[6]))
		if _, err := io.ReadFull(conn, content); err != nil {
			t.Fatal(err)
		}
		switch head[1] {
		case 6, 7: // standard output, standard error
			out.Write(content[:binary.BigEndian.Uint16(head[4:])])
		case 3:
			return out.String()
		}
	}
}
