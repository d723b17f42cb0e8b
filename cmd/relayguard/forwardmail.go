package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"time"

	"relayguard/cmd/internal/forwards"
	"relayguard/forward/ledger"
	"relayguard/policy"
)

const (
	// maxOwnerMails is how many messages to owners may wait; more are left out, and
	// said so. What they are about is the digest's, too.
	maxOwnerMails = 100
	submitWait    = 30 * time.Second // for the whole of one attempt
)

// submitPauses are those before further attempts: by then a mail server that is
// started anew is there.
var submitPauses = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}

// writeToOwners writes to the owners of mailboxes, each one message, if the
// configuration wants it.
func (f *forwarding) writeToOwners(now time.Time, events []ledger.Event) {
	c := f.config()
	if c == nil || !c.Forward.TellOwner || f.scanner == nil {
		return
	}
	world, host := f.scanner.World(), f.host.Load().Hostname
	left := 0
	for _, b := range forwards.ByOwner(events, world.Origin, func(domain string) bool { return world.Inside[domain] }) {
		select {
		case f.mails <- forwards.OwnerMail(now, b.Events, b.To, "postmaster@"+world.Origin, host):
		default:
			left++
		}
	}
	if left > 0 {
		f.log.Warn("owners of mailboxes are not told of new forwarding rules: too many messages wait", "owners", left, "most", maxOwnerMails)
	}
}

// mailOwners hands the messages in, over loopback: the kernel says whose they are,
// so the guard lets its own mail pass.
func (f *forwarding) mailOwners(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-f.mails:
			err := patiently(ctx, submitPauses, func() error { return f.handIn(ctx, f.host.Load().Hostname, m.To, m.Text) })
			if err != nil && ctx.Err() == nil {
				f.log.Error("tell the owner of a mailbox of a new forwarding rule", "error", err)
			}
		}
	}
}

// patiently tries until it works, what is refused for good, the pauses are used up
// or ctx ends; the error is the last one.
func patiently(ctx context.Context, pauses []time.Duration, try func() error) error {
	for _, pause := range pauses {
		err := try()
		var refused *textproto.Error
		if err == nil || errors.As(err, &refused) && refused.Code >= 500 {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
	return try()
}

// handIn hands in a message of the guard's own at mta.smtp. The kernel tells the
// guard whose it is where it comes from this machine, else the token does.
func (s *state) handIn(ctx context.Context, host, to string, text []byte) error {
	if token := s.tokens.give(time.Now()); token != "" {
		text = append([]byte(policy.TokenHeader+": "+token+"\r\n"), text...)
	}
	return submit(ctx, s.config.Load().MTA.SMTP, host, to, text)
}

// submit hands in a message of the guard's own with the null sender, so that it
// makes no bounce. It ends with ctx, and within submitWait.
func submit(ctx context.Context, address, host, to string, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, submitWait)
	defer cancel()
	err := submitBy(ctx, address, host, to, text)
	switch {
	case err == nil || ctx.Err() == nil:
	case errors.Is(err, errUnanswered):
		err = fmt.Errorf("%w: %w", errUnanswered, ctx.Err())
	default: // it is why the connection was closed
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("hand in mail at %s: %w", address, err)
	}
	return nil
}

func submitBy(ctx context.Context, address, host, to string, text []byte) error {
	wire, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer wire.Close()
	defer context.AfterFunc(ctx, func() { wire.Close() })()
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	conn, err := smtp.NewClient(wire, name)
	if err != nil {
		return err
	}
	if host == "" {
		host = "localhost"
	}
	err = conn.Hello(host)
	if err == nil {
		err = conn.Mail("")
	}
	if err == nil {
		err = conn.Rcpt(to)
	}
	if err == nil {
		err = sendText(conn, text)
	}
	if err != nil {
		return err
	}
	conn.Quit() // the message is handed in, whatever is answered
	return nil
}

func sendText(conn *smtp.Client, text []byte) error {
	w, err := conn.Data()
	if err != nil {
		return err
	}
	if _, err = w.Write(text); err != nil {
		return errors.Join(err, w.Close())
	}
	err = w.Close()
	var answer *textproto.Error
	if err != nil && !errors.As(err, &answer) {
		return fmt.Errorf("%w: %w", errUnanswered, err)
	}
	return err
}

// errUnanswered: the whole message was sent, and nobody said whether it was taken (RFC
// 5321 §4.5.3.2.6): perhaps it was.
var errUnanswered = errors.New("no answer to the end of the message, which may have been taken")
