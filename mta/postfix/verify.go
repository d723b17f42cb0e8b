package postfix

import (
	"context"
	"errors"
	"fmt"
	"time"

	"relayguard/mta"
	"relayguard/mta/probe"
	"relayguard/policy"
)

// verifyFor is how long a reload may take to be seen in new connections.
const verifyFor = 15 * time.Second

// VerifyBySMTP returns a Verify for Setup: each SMTP service that asks the
// guard is given MAIL and RCPT of a stranger, without AUTH. A submission
// service must refuse for good, by Postfix's own restrictions (which come
// first) or by the guard; none may answer 451, which is what Postfix says when
// it finds no guard. And while a client is connected, Postfix must have a
// session on the guard's socket.
func (s Setup) VerifyBySMTP(relays RelayProbe) func(ctx context.Context, i *Instance) error {
	return func(ctx context.Context, i *Instance) error {
		ctx, cancel := context.WithTimeout(ctx, verifyFor+probe.Wait)
		defer cancel()
		asking := 0
		for n := range i.Services {
			service := &i.Services[n]
			if service.Command != "smtpd" || service.Type != "inet" {
				continue
			}
			place, _, l, err := i.attached(service, i.Effective(service, "smtpd_milters"), s.Listeners)
			if err != nil {
				return err
			}
			if place < 0 {
				continue
			}
			asking++
			for end := time.Now().Add(verifyFor); ; time.Sleep(200 * time.Millisecond) {
				tried := verifyService(ctx, i, service, l, relays)
				if tried == nil {
					break
				}
				if err == nil || ctx.Err() == nil {
					err = tried // not the one that only says that time is over
				}
				if time.Now().After(end) || ctx.Err() != nil {
					return err
				}
			}
		}
		if s.SMTP != 0 && asking == 0 {
			return errors.New("no SMTP service asks the guard")
		}
		return nil
	}
}

func verifyService(ctx context.Context, i *Instance, s *Service, l mta.Listener, relays RelayProbe) error {
	address, err := dialAddress(s.Name)
	if err != nil {
		return err
	}
	answer, err := relays.Relays(ctx, address, isYes(i.Effective(s, "smtpd_tls_wrappermode")))
	switch {
	case err != nil:
		return fmt.Errorf("service %s: %w", s.ID(), err)
	case answer.Code == 451 || answer.Code == 421:
		return fmt.Errorf("service %s answered %d %q to %s: Postfix does not find the guard; does it run with these listeners?", s.ID(), answer.Code, answer.Text, answer.At)
	case l.Role == policy.Submission && answer.At == "RCPT" && answer.Code/100 != 5:
		return fmt.Errorf("service %s answered %d %q to a recipient outside without AUTH, want a refusal", s.ID(), answer.Code, answer.Text)
	case l.Network != "unix":
		return nil // whose sessions these are cannot be seen
	}
	if err := probe.Asks(ctx, address, isYes(i.Effective(s, "smtpd_tls_wrappermode")), l.Address); err != nil {
		return fmt.Errorf("service %s: %w", s.ID(), err)
	}
	return nil
}
