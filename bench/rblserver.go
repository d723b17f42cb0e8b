package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"relayguard/rbl"
)

// Programs of Debian's packages rbldnsd and unbound.
const (
	listServer = "/usr/sbin/rbldnsd"
	recursive  = "/usr/sbin/unbound"
)

// nobodyID is whose right name servers have where this program is root.
const nobodyID = 65534

// foreignEntries are on each list beside ours.
const foreignEntries = 2000

// The test entries of RFC 5782 §5, as labels.
var usualTest = rbl.Test{
	Listed4: "2.0.0.127",
	Clean4:  "1.0.0.127",
	Listed6: "2.0.0.0.0.0.f.7.f.f.f.f" + strings.Repeat(".0", 20),
	Clean6:  "1.0.0.0.0.0.f.7.f.f.f.f" + strings.Repeat(".0", 20),
}

// lists are blocklists of our own and whom they are asked about.
type lists struct {
	zones    []rbl.Zone
	subjects []rbl.Subject
}

// newLists makes so many lists and addresses, one address in five of IPv6.
func newLists(zones, addresses int) *lists {
	l := &lists{}
	for z := range zones {
		l.zones = append(l.zones, rbl.Zone{
			Name: fmt.Sprintf("bl%02d.lists.example", z), Kinds: []rbl.Kind{rbl.IP4, rbl.IP6},
			Severity: rbl.High, Means: "spam was seen", Test: usualTest, Removal: rbl.Removal{How: []string{"form", "expires"}},
		})
	}
	for a := range addresses {
		text := fmt.Sprintf("203.0.113.%d", 10+a)
		if a%5 == 4 {
			text = fmt.Sprintf("2001:db8:%x::25", 1+a)
		}
		l.subjects = append(l.subjects, rbl.Subject{Addr: netip.MustParseAddr(text)})
	}
	return l
}

// oneListed: of so many pairs of an address and a list one is a listing.
const oneListed = 10

func (l *lists) listed(zone, subject int) bool { return (zone+subject)%oneListed == 0 }

// listings is how many listings there are to be found.
func (l *lists) listings() (n int) {
	for z := range l.zones {
		for s := range l.subjects {
			if l.listed(z, s) {
				n++
			}
		}
	}
	return n
}

// serve starts rbldnsd with all lists, each with thousands of others' addresses.
func (l *lists) serve(ctx context.Context, dir string) (*nameServer, error) {
	random := rand.New(rand.NewPCG(60, 10))
	files, args := map[string]string{}, []string{"-n", "-c", "0", "-t", "60"}
	for z := range l.zones {
		const begin = "$SOA 60 ns.invalid hostmaster.invalid 0 600 300 86400 60\n$NS 60 ns.invalid\n:127.0.0.2:Spam was seen from $, see https://lists.example/\n"
		four, six := []byte(begin+"127.0.0.2\n"), []byte(begin+"::ffff:7f00:2\n")
		for range foreignEntries {
			four = fmt.Appendf(four, "198.%d.%d.%d\n", 18+random.IntN(2), random.IntN(256), random.IntN(256))
			six = fmt.Appendf(six, "2001:db8:f%03x:%x::/64\n", random.IntN(0x1000), random.IntN(0x10000))
		}
		for s, subject := range l.subjects {
			switch {
			case !l.listed(z, s):
			case subject.Addr.Is4():
				four = fmt.Appendf(four, "%s\n", subject)
			default:
				six = fmt.Appendf(six, "%s\n", subject)
			}
		}
		for kind, text := range map[string][]byte{"ip4set": four, "ip6trie": six} {
			file := fmt.Sprintf("%s-%d", kind, z)
			files[file] = string(text)
			args = append(args, l.zones[z].Name+":"+kind+":"+file)
		}
	}
	return serveNames(ctx, filepath.Join(dir, "rbldnsd"), l.zones[0].Name, files, func(dir string, port int) *exec.Cmd {
		return exec.Command(listServer, append([]string{"-w", dir, "-b", fmt.Sprintf("127.0.0.1/%d", port)}, args...)...)
	})
}

// behind starts a recursive server that asks the lists' one, anew each time. No
// question leaves the machine.
func (l *lists) behind(ctx context.Context, dir string, server *nameServer) (*nameServer, error) {
	at := strings.Replace(server.address, ":", "@", 1)
	return serveNames(ctx, filepath.Join(dir, "unbound"), l.zones[0].Name, nil, func(dir string, port int) *exec.Cmd {
		var conf strings.Builder
		fmt.Fprintf(&conf, `server:
  interface: 127.0.0.1@%d
  do-ip6: no
  username: ""
  chroot: ""
  directory: "%s"
  pidfile: ""
  use-syslog: no
  num-threads: 1
  num-queries-per-thread: 2048
  do-not-query-localhost: no
  module-config: "iterator"
  cache-max-ttl: 0
  cache-max-negative-ttl: 0
remote-control:
  control-enable: no
forward-zone:
  name: .
  forward-addr: %s
`, port, dir, at)
		for _, z := range l.zones {
			fmt.Fprintf(&conf, "stub-zone:\n  name: %s\n  stub-addr: %s\n", z.Name, at)
		}
		path := filepath.Join(dir, "unbound.conf")
		cmd := exec.Command(recursive, "-d", "-p", "-c", path)
		cmd.Err = errors.Join(cmd.Err, os.WriteFile(path, []byte(conf.String()), 0o644))
		return cmd
	})
}

// nameServer is one that runs.
type nameServer struct {
	*process
	address string // 127.0.0.1:port
}

// serveNames runs a name server in a new directory until it answers about a name.
// Between the choice of a port and its use somebody can take it: then another is
// tried.
func serveNames(ctx context.Context, dir, name string, files map[string]string, command func(dir string, port int) *exec.Cmd) (*nameServer, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start a name server: %w", err)
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("start a name server: %w", err)
		}
	}
	var errs []error
	for range 3 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		s, err := serveNamesAt(ctx, command(dir, port), fmt.Sprintf("127.0.0.1:%d", port), name, dir+".log")
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func serveNamesAt(ctx context.Context, cmd *exec.Cmd, address, name, output string) (*nameServer, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s (Debian packages rbldnsd, unbound): %w", cmd.Path, err)
	}
	s := &nameServer{&process{cmd: cmd, output: output, ended: make(chan struct{})}, address}
	go func() {
		_ = cmd.Wait() // it is killed in the end, its status says nothing
		close(s.ended)
	}()
	if err := s.await(ctx, name); err != nil {
		s.stop()
		return nil, fmt.Errorf("start %s: %w: %s", cmd.Path, err, s.said())
	}
	return s, nil
}

// await asks about a name until there is an answer.
func (s *nameServer) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client, question := dns.Client{Timeout: 200 * time.Millisecond}, new(dns.Msg).SetQuestion(name+".", dns.TypeSOA)
	for {
		answer, _, err := client.ExchangeContext(ctx, question, s.address)
		if err == nil && answer.Rcode == dns.RcodeSuccess {
			return nil
		}
		select {
		case <-s.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer at %s: %w", s.address, errors.Join(err, ctx.Err()))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// freePort finds one that is free for UDP and TCP.
func freePort() (int, error) {
	var errs []error
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
		errs = append(errs, err)
	}
	return 0, fmt.Errorf("find a free port: %w", errors.Join(errs...))
}
