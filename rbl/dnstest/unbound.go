package dnstest

import (
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Unbound is how a real unbound is set up.
type Unbound struct {
	// Stubs are the servers (host:port) to ask, by zone.
	Stubs map[string]string
	// Forward (host:port) is the recursive server that is asked for all other names.
	// Without, none of them exists.
	Forward string
	// Filters takes answers in 127.0.0.0/8 away, as rebinding protection does.
	Filters bool
	// Rewrites, if given, is the address that it says for every name, as resolvers
	// of some providers do for names that do not exist.
	Rewrites string
	// But are names (with all below them) that Rewrites leaves alone: those that exist.
	But []string
	// Caches keeps answers for as long as they say; else it asks anew each time, so
	// that a list that changes is seen to.
	Caches bool
	// Lines are further ones of its server: section: "local-zone: ...".
	Lines []string
}

// StartUnbound starts a real unbound, over UDP and TCP.
func StartUnbound(t testing.TB, u Unbound) *Server {
	t.Helper()
	need(t, available(unboundProgram))
	own := u.Forward == ""
	if own {
		u.Forward = StartFake(t, Records()).Addr
	}
	return start(t, "localhost", func(dir string, port int) (*exec.Cmd, error) {
		config, err := u.config(dir, port, !own)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "unbound.conf")
		return exec.Command(unboundProgram, "-d", "-p", "-c", path), writeFiles(dir, map[string]string{"unbound.conf": config})
	})
}

// unboundConf takes the directory and the port. do-not-query-localhost would keep it
// from all of our servers. One that does not answer for a while is not given up.
const unboundConf = `server:
  interface: 127.0.0.1@%[2]d
  do-ip6: no
  username: ""
  chroot: ""
  directory: "%[1]s"
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 1
  num-threads: 1
  num-queries-per-thread: 2048
  do-not-query-localhost: no
  module-config: "iterator"
  infra-host-ttl: 1
  infra-keep-probing: yes
`

// config writes it. test: names below "test" are asked for, too.
func (u *Unbound) config(dir string, port int, test bool) (string, error) {
	var out strings.Builder
	fmt.Fprintf(&out, unboundConf, dir, port)
	line := func(format string, args ...any) { fmt.Fprintf(&out, "  "+format+"\n", args...) }
	if !u.Caches {
		line("cache-max-ttl: 0")
		line("cache-max-negative-ttl: 0")
	}
	if u.Filters {
		line("private-address: 127.0.0.0/8")
	}
	if u.Rewrites != "" {
		line("local-zone: . redirect")
		line(`local-data: ". 60 IN A %s"`, u.Rewrites)
		line("local-zone: invalid. nodefault")
	}
	for _, name := range u.But {
		line("local-zone: %s transparent", name)
	}
	names := slices.Sorted(maps.Keys(u.Stubs))
	if test || slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix("."+n, ".test") }) {
		line("local-zone: test. nodefault")
	}
	for _, l := range u.Lines {
		line("%s", l)
	}
	out.WriteString("remote-control:\n  control-enable: no\n")
	at, err := unboundAddress(u.Forward)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&out, "forward-zone:\n  name: .\n  forward-addr: %s\n", at)
	for _, name := range names {
		if at, err = unboundAddress(u.Stubs[name]); err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "stub-zone:\n  name: %s\n  stub-addr: %s\n", name, at)
	}
	return out.String(), nil
}

func unboundAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("unbound: server %q: %w", address, err)
	}
	return host + "@" + port, nil
}
