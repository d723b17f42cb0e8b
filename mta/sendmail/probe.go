package sendmail

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/probe"
	"relayguard/policy"
)

// verifyFor is how long it may take until new connections are served with the new
// settings.
const verifyFor = 20 * time.Second

// VerifyBySMTP returns a Verify for Setup. Each service that is to ask the guard is
// connected to: Sendmail must then have a session on the guard's socket, and its milters
// must be there. A submission service must not take a stranger's recipient outside. That
// one defers is a failure only where it is Sendmail's own answer, see judge. And Sendmail's own reading of submit.cf must hand mail from sendmail(1) to
// such a service.
func (s Setup) VerifyBySMTP(relays probe.Relay) func(ctx context.Context, i *Instance) error {
	return func(ctx context.Context, i *Instance) error {
		ctx, cancel := context.WithTimeout(ctx, verifyFor+probe.Wait)
		defer cancel()
		asking := 0
		for _, d := range i.Daemons() {
			place, _, l := i.main.attached(d, s.Listeners)
			if place < 0 || d.Family == "unix" {
				continue
			}
			asking++
			if err := patiently(ctx, func() error { return i.main.verifyDaemon(ctx, d, l, relays) }); err != nil {
				return fmt.Errorf("service %s: %w", d.Name, err)
			}
		}
		if s.SMTP != 0 && asking == 0 {
			return errors.New("no service asks the guard")
		}
		return s.verifyLocal(ctx, i)
	}
}

// patiently tries until it works or time is over, and gives back the last error
// that says more than that.
func patiently(ctx context.Context, try func() error) (err error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(verifyFor); ; {
		tried := try()
		if tried == nil {
			return nil
		}
		if deadline, has := ctx.Deadline(); err == nil || ctx.Err() == nil && (!has || time.Now().Before(deadline)) { // Err may be a moment late
			err = tried
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (s *Settings) verifyDaemon(ctx context.Context, d Daemon, l mta.Listener, relays probe.Relay) error {
	address, err := probe.Address(strings.Trim(d.Addr, "[]"), dialPort(d))
	if err != nil {
		return err
	}
	wrapped := strings.Contains(d.Modifiers, "s")
	answer, err := relays.Relays(ctx, address, wrapped)
	if err != nil {
		return err
	}
	if l.Role == policy.Submission && answer.At == "RCPT" && answer.Code/100 == 2 {
		return fmt.Errorf("it answered %d %q to a recipient outside without AUTH, want a refusal", answer.Code, answer.Text)
	}
	var asks error
	if l.Network == "unix" { // whose sessions others are cannot be seen; judge looks whether the guard is there
		asks = probe.Asks(ctx, address, wrapped, l.Address)
	}
	return s.judge(ctx, d, l, answer, asks)
}

func dialPort(d Daemon) string {
	if d.Port == "" {
		return "smtp"
	}
	return d.Port
}

// verifyLocal asks Sendmail where mail from sendmail(1) goes.
func (s Setup) verifyLocal(ctx context.Context, i *Instance) error {
	if _, has := byRole(s.Listeners, policy.Local); !has || i.Submit == "" {
		return nil
	}
	said, err := s.Tools.askRules(ctx, i.Submit, "${MTAHost}\n=M\n")
	if err != nil {
		return fmt.Errorf("ask where sendmail(1) hands its mail to: %w", err)
	}
	read := ParseSettings(nil)
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(strings.TrimLeft(line, "> "))
		if _, rest, found := strings.Cut(line, " (relay): "); found {
			_, args, _ := strings.Cut(rest, " A=")
			read.mailers = append(read.mailers, Mailer{Name: "relay", Args: args})
		} else if isHost(line) {
			read.macros["MTAHost"] = line
		}
	}
	host, port := read.handsTo()
	_, d, found := i.main.takes(host, port)
	if !found {
		return fmt.Errorf("sendmail(1) hands its mail to port %s of %q, where no service is", port, host)
	}
	if place, _, l := i.main.attached(d, s.Listeners); place < 0 || l.Role != policy.Local {
		return fmt.Errorf("sendmail(1) hands its mail to the service %s, which does not ask the guard as local", d.Name)
	}
	return nil
}

// isHost reports what -bt prints for ${MTAHost}.
func isHost(line string) bool {
	return strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]")
}
