package sendmailtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/servertest"
	"relayguard/mta/smtptest"
)

// Sendmail is a running private Sendmail. Its methods are safe for concurrent
// use, but for Stop, Kill, StartAgain, Reload, Rebuild and SetMC, which change
// it.
type Sendmail struct {
	// Dir holds everything below; ConfigDir is what Sendmail sees as
	// /etc/mail, QueueDir the MTA's queue, ClientQueueDir that of sendmail(1).
	Dir, ConfigDir, QueueDir, ClientQueueDir string
	// LogFile is the log of everything inside, as syslogd would write it.
	smtptest.LogFile
	// Sink is where mail arrives that leaves Sendmail.
	Sink *smtptest.Sink
	// CA issued the server's certificate.
	CA *postfixtest.Authority

	options   Options
	accounts  accounts
	ports     map[string]string // service name -> port
	temporary bool              // Dir is ours to remove
	space     *space
	syslog    *syslogServer
	mta       *daemon // nil: not running
	stopOnce  sync.Once
	stopErr   error
}

// portTries bounds how often Start picks other ports when somebody else was
// quicker.
const portTries = 5

// startLimit bounds how long the MTA may take to listen: it needs some 50 ms.
const startLimit = 20 * time.Second

var errPortTaken = errors.New("a port was taken by somebody else")

// Start starts a Sendmail and returns when every service listens. ctx bounds
// the start only. Call Stop.
func Start(ctx context.Context, options Options) (*Sendmail, error) {
	options, err := options.complete()
	if err != nil {
		return nil, fmt.Errorf("options of the private Sendmail: %w", err)
	}
	if err := Available(); err != nil {
		return nil, err
	}
	s := &Sendmail{options: options}
	if s.accounts, err = lookUpAccounts(); err != nil {
		return nil, err
	}
	if s.Dir, s.temporary, err = root.Make(options.Dir); err != nil {
		return nil, err
	}
	s.LogFile = smtptest.NewLogFile(filepath.Join(s.Dir, "mail.log"))
	s.ConfigDir, s.QueueDir = filepath.Join(s.Dir, "config"), filepath.Join(s.Dir, "queue")
	s.ClientQueueDir = filepath.Join(s.Dir, "client-queue")
	if err := s.start(ctx); err != nil {
		err = fmt.Errorf("start a private Sendmail in %s: %w\n%s", s.Dir, err, s.LogTail(20))
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Sendmail) start(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		if err := s.configure(ctx); err != nil {
			return err
		}
		err := s.StartAgain(ctx)
		if !errors.Is(err, errPortTaken) || try == portTries {
			return err
		}
	}
}

// prepare makes all that does not depend on the ports.
func (s *Sendmail) prepare(ctx context.Context) error {
	var err error
	if s.Sink, err = smtptest.NewSink(); err != nil {
		return err
	}
	if err := s.makeTree(); err != nil {
		return err
	}
	if s.CA, err = postfixtest.NewAuthority("relayguard test authority"); err != nil {
		return err
	}
	if err := errors.Join(s.makeCertificate(), s.makeUsers(ctx), s.makeMailboxes()); err != nil {
		return err
	}
	short, _, _ := strings.Cut(s.options.Hostname, ".")
	if s.syslog, err = startSyslog(s.logSocket(), s.LogPath(), short); err != nil {
		return err
	}
	s.space, err = newSpace(s.prepareSpace)
	return err
}

// configure picks ports and writes the configuration.
func (s *Sendmail) configure(ctx context.Context) error {
	ports, err := servertest.FreePorts(len(s.options.Services))
	if err != nil {
		return err
	}
	s.ports = make(map[string]string)
	for i, service := range s.options.Services {
		s.ports[service.Name] = ports[i]
	}
	return s.writeConfig(ctx)
}

// StartAgain starts the MTA after Kill, on the same ports.
func (s *Sendmail) StartAgain(ctx context.Context) error {
	if s.mta != nil {
		return errors.New("start Sendmail: it runs")
	}
	mark := s.LogMark()
	cmd := exec.Command(s.Tool("sendmail"), s.options.daemonArgs()...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	mta, err := s.startDaemon(cmd)
	if err != nil {
		return err
	}
	s.mta = mta
	if err := s.awaitListening(ctx, mark); err != nil {
		return errors.Join(fmt.Errorf("Sendmail's daemon: %w\n%s", err, mta.output()), s.endAll(syscall.SIGKILL))
	}
	return nil
}

var cannotBind = regexp.MustCompile(`cannot bind: Address already in use`)

// awaitListening waits until the daemon says that it started, after the mark,
// and every port listens.
func (s *Sendmail) awaitListening(ctx context.Context, mark int64) error {
	return s.mta.waitUntil(ctx, startLimit, func() (bool, error) {
		log := s.LogFrom(mark)
		if cannotBind.MatchString(log) {
			return false, errPortTaken
		}
		if !strings.Contains(log, "starting daemon (") {
			return false, nil
		}
		return listening(s.ports)
	})
}

// Addr is the host:port of a service. An unknown name is a mistake in the
// test: it panics.
func (s *Sendmail) Addr(service string) string {
	port, ok := s.ports[service]
	if !ok {
		panic(fmt.Sprintf("sendmailtest: no service %q in the options", service))
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// Dial opens an SMTP session with a service and reads the banner.
func (s *Sendmail) Dial(ctx context.Context, service string) (*smtptest.Client, error) {
	return smtptest.Dial(ctx, s.Addr(service))
}

func (s *Sendmail) sinkPort() string {
	_, port, _ := net.SplitHostPort(s.Sink.Addr()) // it is one, from the kernel
	return port
}

// Reload makes the MTA read its configuration again (SIGHUP: it executes
// itself anew under the same pid) and returns when it listens. Sessions and
// deliveries that are under way go on with the old one.
func (s *Sendmail) Reload(ctx context.Context) error {
	if s.mta == nil {
		return errors.New("reload Sendmail: it is not running")
	}
	mark := s.LogMark()
	s.mta.signal(syscall.SIGHUP)
	if err := s.awaitListening(ctx, mark); err != nil {
		return fmt.Errorf("reload Sendmail: %w", err)
	}
	return nil
}

// Rebuild makes sendmail.cf, submit.cf and the maps anew of the mc and text
// files in ConfigDir, as somebody may have changed them, and reloads.
func (s *Sendmail) Rebuild(ctx context.Context) error {
	if err := s.build(ctx); err != nil {
		return err
	}
	return s.Reload(ctx)
}

// SetMC writes sendmail.mc and all other files anew, with these lines in place
// of Options.MC, and reloads.
func (s *Sendmail) SetMC(ctx context.Context, lines ...string) error {
	s.options.MC = slices.Clone(lines)
	if err := s.writeConfig(ctx); err != nil {
		return err
	}
	return s.Reload(ctx)
}

// PID is the MTA's process id, 0 if it is not running.
func (s *Sendmail) PID() int {
	if s.mta == nil {
		return 0
	}
	return s.mta.pid
}

// ChildPIDs lists the living processes of this Sendmail but for the MTA
// itself: sessions, deliveries, queue runs, sendmail(1).
func (s *Sendmail) ChildPIDs() []int {
	return slices.DeleteFunc(s.members(), func(pid int) bool { return pid == s.PID() })
}

// Kill ends the MTA with a signal, and its children: with SIGKILL at once, for
// a test of a crash, else those that do not end by themselves. It returns when
// none is left. StartAgain brings the MTA back.
func (s *Sendmail) Kill(sig syscall.Signal) error { return s.endAll(sig) }

// Stop ends everything that Start started, waits until it is gone, and removes
// the directory if Start made it and RELAYGUARD_KEEP is not set. It may be
// called more than once.
func (s *Sendmail) Stop() error {
	s.stopOnce.Do(func() { s.stopErr = s.stop() })
	return s.stopErr
}

func (s *Sendmail) stop() error {
	errs := []error{s.endAll(syscall.SIGTERM)}
	if s.space != nil {
		s.space.close()
	}
	if s.syslog != nil {
		errs = append(errs, s.syslog.close())
	}
	if s.Sink != nil {
		errs = append(errs, s.Sink.Close())
	}
	if s.temporary {
		errs = append(errs, root.Remove(s.Dir))
	}
	return errors.Join(errs...)
}
