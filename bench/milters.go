package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names of what is measured, as results cite them.
const (
	theGuard    = "relayguard"
	plainMilter = "go-milter-noop"
	cMilter     = "libmilter-noop"
	rawMilter   = "raw-noop"
	withoutOne  = "no-milter"

	subcommand   = "milter" // of this program: serves one of the Go milters
	selfProgram  = "/proc/self/exe"
	daemonSource = "relayguard/cmd/relayguard"
)

// milter is one of those that are compared.
type milter struct {
	name    string
	command func(socket string) *exec.Cmd
}

// running is a milter that serves its socket.
type running struct {
	name, socket string
	*process
}

//go:embed libmilter/noop.c
var noopSource []byte

// buildC compiles the C milter.
func buildC(ctx context.Context, dir string) (string, error) {
	source, program := filepath.Join(dir, "noop.c"), filepath.Join(dir, "noop")
	if err := os.WriteFile(source, noopSource, 0o600); err != nil {
		return "", fmt.Errorf("compile the C milter: %w", err)
	}
	out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", program, source, "-lmilter", "-lpthread").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile the C milter (Debian packages gcc, libc6-dev, libmilter-dev): %w\n%s", err, out)
	}
	return program, nil
}

// buildDaemon builds the guard as it is shipped.
func buildDaemon(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "relayguard")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, daemonSource).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return program, nil
}

// goMilter is a milter that this program serves itself.
func goMilter(name string) milter {
	return milter{name, func(socket string) *exec.Cmd {
		return exec.Command(selfProgram, subcommand, name, socket)
	}}
}

// serveMilter is what this program does as its own subcommand.
func serveMilter(name, socket string) error {
	switch name {
	case plainMilter:
		return servePlain(socket)
	case rawMilter:
		return serveRaw(socket)
	}
	return fmt.Errorf("no milter %q", name)
}

// daemonConfig is a default policy in the phase enforce, with everything that
// a configuration of some size has: every login owns some addresses. account
// is the MTA's, also by its group.
func daemonConfig(socket, account string) string {
	var b strings.Builder
	state := filepath.Join(filepath.Dir(socket), filepath.Base(socket)+".state")
	fmt.Fprintf(&b, `phase = "enforce"

[mta]
log = "none"
queue_helper = "%[1]s/queue.sock"

[journal]
directory = "%[1]s/journal"

[forward]
watch = false
[rbl]
watch = false
[report]
at = ""

[control]
socket = "%[1]s/control.sock"

[alert]
syslog = false
command = "/bin/true"
`, state)
	for _, l := range []struct{ name, per string }{{"login-volume", "login"}, {"domain-volume", "sender_domain"}, {"server-volume", "server"}} {
		// As many buckets and windows as a site has, that never fill up: what
		// is measured is mail that passes.
		fmt.Fprintf(&b, "\n[[limit]]\nname = %q\nper = %q\nwindows = [\"500000000/1h\", \"900000000/24h\"]\nburst = \"300000000/10m\"\nthen = \"hold\"\n", l.name, l.per)
	}
	fmt.Fprintf(&b, `
[inside]
domains = [%q]
from_mta = false

[[listener]]
name = "submission"
role = "submission"
address = "unix:%s"
group = %q
peers = [%q]

[address.logins]
`, insideDomain, socket, account, account)
	for i := range logins {
		fmt.Fprintf(&b, "%q = [%q, \"@site%04d.example\"]\n", login(i), fmt.Sprintf("team%d@%s", i%50, insideDomain), i)
	}
	return b.String()
}

// guard is the daemon, or another program that is started like it.
func guard(program, dir, account string) milter {
	return milter{theGuard, func(socket string) *exec.Cmd {
		config := filepath.Join(dir, filepath.Base(socket)+".toml")
		if err := os.WriteFile(config, []byte(daemonConfig(socket, account)), 0o644); err != nil {
			return &exec.Cmd{Path: program, Err: err}
		}
		return exec.Command(program, "serve", "--config", config)
	}}
}

// startMilter starts one on a socket.
func startMilter(m milter, dir, socket string) (*running, error) {
	p, err := start(m.command(socket), socket, filepath.Join(dir, filepath.Base(socket)+".log"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	return &running{m.name, socket, p}, nil
}

// libMilter is the compiled C milter.
func libMilter(program string) milter {
	return milter{cMilter, func(socket string) *exec.Cmd { return exec.Command(program, "unix:"+socket) }}
}
