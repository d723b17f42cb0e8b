package postfixtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/mta/servertest"
	"relayguard/mta/smtptest"
)

// Postfix is a running private Postfix. Its methods are safe for concurrent
// use, but for Stop, Reload, Restart, SetMain and SetFile, which change it.
type Postfix struct {
	// Dir holds everything below; ConfigDir, QueueDir are Postfix's own.
	Dir, ConfigDir, QueueDir string
	// LogFile is maillog_file.
	smtptest.LogFile
	// Sink is where mail arrives that leaves Postfix.
	Sink *smtptest.Sink
	// CA issued the server's certificate and issues those of clients.
	CA *Authority

	options   Options
	accounts  accounts
	addrs     map[string]string // service name -> host:port
	temporary bool              // Dir is ours to remove
	master    *process
	dovecot   *dovecot
	stopOnce  sync.Once
	stopErr   error
}

// portTries bounds how often Start picks other ports when somebody else was
// quicker.
const portTries = 5

// reloadGrace is how long Reload waits for processes that may be busy.
const reloadGrace = time.Second

var errPortTaken = errors.New("a port was taken by somebody else")

// Start starts a Postfix and, if AUTH is wanted, a Dovecot, and returns when
// every service greets. ctx bounds the start only. Call Stop.
func Start(ctx context.Context, options Options) (*Postfix, error) {
	options, err := options.complete()
	if err != nil {
		return nil, fmt.Errorf("options of the private Postfix: %w", err)
	}
	if err := Available(); err != nil {
		return nil, err
	}
	p := &Postfix{options: options}
	if p.accounts, err = lookUpAccounts(); err != nil {
		return nil, err
	}
	if p.Dir, p.temporary, err = root.Make(options.Dir); err != nil {
		return nil, err
	}
	p.LogFile = smtptest.NewLogFile(filepath.Join(p.Dir, "maillog"))
	p.ConfigDir, p.QueueDir = filepath.Join(p.Dir, "config"), filepath.Join(p.Dir, "queue")
	if err := p.start(ctx); err != nil {
		err = fmt.Errorf("start a private Postfix in %s: %w\n%s", p.Dir, err, p.LogTail(20))
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Postfix) start(ctx context.Context) error {
	var err error
	if p.Sink, err = smtptest.NewSink(); err != nil {
		return err
	}
	if err := p.makeTree(); err != nil {
		return err
	}
	if p.CA, err = NewAuthority("relayguard test authority"); err != nil {
		return err
	}
	err = p.CA.writeFiles(filepath.Join(p.tlsDir(), "ca.pem"), filepath.Join(p.tlsDir(), "server.pem"), p.options.Hostname)
	if err != nil {
		return err
	}
	if err := p.startAuth(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		if err := p.configure(); err != nil {
			return err
		}
		err := p.startMaster(ctx)
		if !errors.Is(err, errPortTaken) || try == portTries {
			return err
		}
	}
}

// startAuth starts Dovecot if any service asks it.
func (p *Postfix) startAuth(ctx context.Context) error {
	if !p.options.needsDovecot() {
		return nil
	}
	var err error
	p.dovecot, err = startDovecot(ctx, filepath.Join(p.Dir, "dovecot"),
		filepath.Join(p.QueueDir, "private", "auth"), p.options.Users)
	return err
}

// configure picks ports and writes the configuration.
func (p *Postfix) configure() error {
	ports, err := servertest.FreePorts(len(p.options.Services))
	if err != nil {
		return err
	}
	p.addrs = make(map[string]string)
	for i, service := range p.options.Services {
		p.addrs[service.Name] = net.JoinHostPort("127.0.0.1", ports[i])
	}
	for name, content := range p.configFiles() {
		if err := p.writeConfig(name, content); err != nil {
			return err
		}
	}
	return nil
}

// writeConfig writes a file of the configuration directory. It looks a minute
// old: Postfix waits up to two seconds before it trusts a file that has just
// been written.
func (p *Postfix) writeConfig(name, content string) error {
	path := filepath.Join(p.ConfigDir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write Postfix's configuration: %w", err)
	}
	past := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, past, past); err != nil {
		return fmt.Errorf("write Postfix's configuration: %w", err)
	}
	return nil
}

// startMaster starts the master daemon and waits for its services.
func (p *Postfix) startMaster(ctx context.Context) error {
	mark := p.LogMark()
	// Not by "postfix start": the master is then nobody's child, and its pid
	// is known from a file only. -s: in the foreground.
	process, err := startProcess(exec.Command(masterProgram, "-c", p.ConfigDir, "-s"), filepath.Join(p.Dir, "output"))
	if err != nil {
		return err
	}
	p.master = process
	err = process.waitUntil(ctx, 15*time.Second, func() bool {
		return strings.Contains(p.LogFrom(mark), ": daemon started ")
	})
	if err == nil {
		err = p.greetAll(ctx)
	}
	if err == nil {
		return nil
	}
	err = errors.Join(fmt.Errorf("Postfix's master: %w\n%s", err, process.output()), process.stop())
	if addr := firstTaken(p.addrs); addr != "" {
		return errors.Join(fmt.Errorf("%w: %s", errPortTaken, addr), err)
	}
	// A master that ends at once says why to syslog only.
	_, errCheck := p.command(ctx, postfixProgram, "check")
	return errors.Join(err, errCheck)
}

// greetAll waits until every service greets, but for those with a milter: it
// would be told of the connection, and may not be up yet.
func (p *Postfix) greetAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for name, addr := range p.addrs {
		if p.hasMilter(name) {
			continue
		}
		client, err := smtptest.Dial(ctx, addr)
		if err != nil {
			return fmt.Errorf("service %s: %w", name, err)
		}
		if _, err := client.Quit(); err != nil {
			return fmt.Errorf("service %s: %w", name, err)
		}
	}
	return nil
}

func (p *Postfix) hasMilter(name string) bool {
	return slices.ContainsFunc(p.options.Services, func(s Service) bool {
		return s.Name == name && len(s.Milters) > 0
	})
}

// Addr is the host:port of a service. An unknown name is a mistake in the
// test: it panics.
func (p *Postfix) Addr(service string) string {
	addr, ok := p.addrs[service]
	if !ok {
		panic(fmt.Sprintf("postfixtest: no service %q in the options", service))
	}
	return addr
}

// Dial opens an SMTP session with a service and reads the banner.
func (p *Postfix) Dial(ctx context.Context, service string) (*smtptest.Client, error) {
	return smtptest.Dial(ctx, p.Addr(service))
}

// Reload makes Postfix read its configuration again ("postfix reload"). It
// returns when the master has and idle processes are gone, or after
// reloadGrace: a process with a client finishes its session first.
func (p *Postfix) Reload(ctx context.Context) error {
	mark := p.LogMark()
	before := sessionMembers(p.master.pid)
	if _, err := p.command(ctx, postfixProgram, "reload"); err != nil {
		return err
	}
	if _, err := p.WaitLogAfter(ctx, mark, `postfix/master\[\d+\]: reload `); err != nil {
		return err
	}
	// An idle process may still take a connection before it learns of the
	// reload and ends. Busy ones stay for as long as their client does.
	err := p.master.waitUntil(ctx, reloadGrace, func() bool {
		now := sessionMembers(p.master.pid)
		return !slices.ContainsFunc(now, func(pid int) bool {
			return pid != p.master.pid && slices.Contains(before, pid)
		})
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// Restart stops the master and starts it again, on the same ports. Dovecot
// and the queue stay.
func (p *Postfix) Restart(ctx context.Context) error {
	if err := p.master.stop(); err != nil {
		return err
	}
	return p.startMaster(ctx)
}

// StopMaster stops the master alone, for a test of a dead Postfix; Restart
// brings it back.
func (p *Postfix) StopMaster() error { return p.master.stop() }

// KillMaster kills the master and all its children, for a test of a crash;
// Restart brings it back.
func (p *Postfix) KillMaster() error { return p.master.kill() }

// SetMain changes main.cf parameters and reloads.
func (p *Postfix) SetMain(ctx context.Context, parameters map[string]string) error {
	p.options.Main = maps.Clone(p.options.Main)
	if p.options.Main == nil {
		p.options.Main = make(map[string]string)
	}
	maps.Copy(p.options.Main, parameters)
	if err := p.writeConfig("main.cf", p.mainCF()); err != nil {
		return err
	}
	return p.Reload(ctx)
}

// SetFile writes one of Options.Files anew and reloads.
func (p *Postfix) SetFile(ctx context.Context, name, content string) error {
	if err := p.writeConfig(name, content); err != nil {
		return err
	}
	return p.Reload(ctx)
}

// Pids lists the living processes of this Postfix and its Dovecot.
func (p *Postfix) Pids() []int {
	var pids []int
	if p.master != nil {
		pids = sessionMembers(p.master.pid)
	}
	if p.dovecot != nil {
		pids = append(pids, sessionMembers(p.dovecot.process.pid)...)
	}
	return pids
}

// Stop ends everything that Start started, waits until it is gone, and removes
// the directory if Start made it and RELAYGUARD_KEEP is not set. It may be
// called more than once.
func (p *Postfix) Stop() error {
	p.stopOnce.Do(func() { p.stopErr = p.stop() })
	return p.stopErr
}

func (p *Postfix) stop() error {
	var errs []error
	if p.master != nil {
		errs = append(errs, p.master.stop())
	}
	if p.dovecot != nil {
		errs = append(errs, p.dovecot.stop())
	}
	if p.Sink != nil {
		errs = append(errs, p.Sink.Close())
	}
	if p.temporary {
		errs = append(errs, root.Remove(p.Dir))
	}
	return errors.Join(errs...)
}
