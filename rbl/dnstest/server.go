package dnstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nobody is the user that the servers run as where the test is root.
const nobody = 65534

// startLimit is how long a server may take until it answers, on a machine that is
// busy with other things.
const startLimit = 30 * time.Second

// Server is a real name server that runs. It ends with the test.
type Server struct {
	Addr string // 127.0.0.1:port
	Dir  string // of its files

	cmd    *exec.Cmd
	ended  chan struct{}
	minder io.WriteCloser
	once   sync.Once
}

// Output is what it wrote so far.
func (s *Server) Output() string {
	out, _ := os.ReadFile(s.outputFile())
	return string(out)
}

func (s *Server) outputFile() string { return filepath.Join(s.Dir, "output") }

// Stop ends it before the test ends: nobody answers at Addr any more.
func (s *Server) Stop() {
	s.once.Do(func() {
		defer s.minder.Close()
		defer func() { _, _ = io.WriteString(s.minder, "dismissed\n") }()
		select {
		case <-s.ended:
			return
		default:
			// Only while it is not reaped is the pid surely still its own.
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
		}
		select {
		case <-s.ended:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it leads a group of its own
			<-s.ended
		}
	})
}

// start runs a server, written into dir for a port by command, until it answers a
// question about the name. Between the choice of a port and its use somebody else
// can take it: then another is tried.
func start(t testing.TB, name string, command func(dir string, port int) (*exec.Cmd, error)) *Server {
	t.Helper()
	var errs []error
	for range 5 {
		s, err := startOnce(t.Context(), t.TempDir(), name, command)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.Cleanup(func() {
			s.Stop()
			if t.Failed() {
				t.Logf("%s at %s wrote:\n%s", filepath.Base(s.cmd.Path), s.Addr, s.Output())
			}
		})
		return s
	}
	t.Fatal(errors.Join(errs...))
	return nil
}

func startOnce(ctx context.Context, dir, name string, command func(dir string, port int) (*exec.Cmd, error)) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd, err := command(dir, port)
	if err != nil {
		return nil, err
	}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := giveAway(dir); err != nil {
			return nil, err
		}
	}
	s := &Server{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Dir: dir,
		cmd: cmd, ended: make(chan struct{}),
	}
	if err := s.run(); err != nil {
		return nil, err
	}
	if err := s.await(ctx, name); err != nil {
		s.Stop()
		return nil, fmt.Errorf("start %s: %w\n%s", cmd.Path, err, s.Output())
	}
	return s, nil
}

func (s *Server) run() error {
	out, err := os.Create(s.outputFile())
	if err != nil {
		return fmt.Errorf("start %s: %w", s.cmd.Path, err)
	}
	defer out.Close()
	s.cmd.Stdout, s.cmd.Stderr = out, out
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.cmd.Path, err)
	}
	go func() {
		_ = s.cmd.Wait() // the exit status of a server that was told to stop says nothing
		close(s.ended)
	}()
	s.minder, err = mind(s.cmd.Process.Pid)
	if err != nil {
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	return err
}

// mind starts a small process that ends the server when this program is gone,
// however that came: its standard input is a pipe that only we hold open.
func mind(pid int) (io.WriteCloser, error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r word; test "$word" = dismissed || kill -TERM -"$0"`, strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not to hear a terminal's Ctrl-C
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the minder of pid %d: %w", pid, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the minder of pid %d: %w", pid, err)
	}
	go func() { _ = cmd.Wait() }()
	return hold, nil
}

// await asks until there is an answer, whatever it says.
func (s *Server) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	client := dns.Client{Timeout: 200 * time.Millisecond}
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeSOA)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		_, _, err := client.ExchangeContext(ctx, question, s.Addr)
		select {
		case <-s.ended: // and so it was somebody else's answer, if there was one
			return fmt.Errorf("the server ended: %v", s.cmd.ProcessState)
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer on %s: %w", s.Addr, err)
		case <-tick.C:
		}
	}
}

// freePort finds one that is free for UDP and TCP.
func freePort() (int, error) {
	var last error
	for range 20 {
		stream, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		packets, err := net.ListenPacket("udp4", stream.Addr().String())
		stream.Close()
		if err == nil {
			packets.Close()
			return stream.Addr().(*net.TCPAddr).Port, nil
		}
		last = err
	}
	return 0, fmt.Errorf("find a port free for UDP and TCP: %w", last)
}

// giveAway makes the directory and what lies in it the servers' user's, and lets
// that user through to it.
func giveAway(dir string) error {
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		return fmt.Errorf("let servers into the test's directory: %w", err)
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	})
}

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write a name server's file: %w", err)
		}
	}
	return nil
}
