// Package relay sets a whole relay up: a private Postfix, or Sendmail, with AUTH
// and a real relayguard daemon on its milter sockets. Tests, the demo and the benchmark
// stand on it. Everything is under one directory, on loopback, and ends with
// Stop.
package relay

import (
	"context"
	"errors"
	"fmt"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/sendmail/sendmailtest"
)

// Options describe the relay. The zero value is a mail server with the services of
// Services and a guard in the phase enforce.
type Options struct {
	Binary  string // of relayguard; required
	Phase   string // "" = enforce
	Config  string // further TOML, after the sections that Start writes
	HideUID bool   // Postfix does not tell the uid behind sendmail(1)
	UID     int    // the guard's account, in the group postfix; 0 = root
	// ShippedLimits are in force where Config has none; else none is in reach.
	ShippedLimits bool
	NoHelper      bool // the root helper is not started

	Postfix  postfixtest.Options  // for Start; Services and Local are filled in where empty
	Sendmail sendmailtest.Options // for StartSendmail; Services are filled in where empty
}

// Names of the services that Start makes, each with the guard's listener of
// the same role.
const (
	Submission = "submission" // AUTH
	Relaying   = "relay"      // takes XCLIENT, offers AUTH and client certificates
	Inbound    = "inbound"    // takes XCLIENT
)

// Relay is a running Postfix with a guard.
type Relay struct {
	*postfixtest.Postfix
	*Guard
}

// Start brings both up and returns when both serve.
func Start(ctx context.Context, o Options) (*Relay, error) {
	if o.Phase == "" {
		o.Phase = "enforce"
	}
	if o.Postfix.Services == nil {
		o.Postfix.Services = Services()
	}
	if o.Postfix.Local.Milters == nil {
		o.Postfix.Local = postfixtest.Local{Milters: []string{postfixtest.MilterName("local.sock")}, ShowUID: !o.HideUID}
		if !o.HideUID {
			o.Postfix.Local.DaemonName = "LOCAL-PICKUP"
		}
	}
	p, err := postfixtest.Start(ctx, o.Postfix)
	if err != nil {
		return nil, err
	}
	r := &Relay{Postfix: p, Guard: newGuard(o, house{
		dir: p.Dir, milterDir: p.MilterDir(),
		mta: fmt.Sprintf("config_directory = %q\nlog = %q\n", p.ConfigDir, p.LogPath()),
	})}
	err = r.startAll(ctx, o.Phase, o.Config)
	if err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// Services are those that Start makes unless it is given others.
func Services() []postfixtest.Service {
	// Postfix lets everybody relay here, so that what stops a stranger is the
	// guard.
	open := map[string]string{"smtpd_relay_restrictions": "check_client_access static:permit, reject"}
	return []postfixtest.Service{
		{Name: Submission, Milters: []string{postfixtest.MilterName("submission.sock")}, Auth: true, TLS: true, XClient: true, DaemonName: "ORIGINATING", Options: open},
		{Name: Relaying, Milters: []string{postfixtest.MilterName("relay.sock")}, Auth: true, TLS: true, AskClientCert: true, XClient: true, Options: open},
		{Name: Inbound, Milters: []string{postfixtest.MilterName("inbound.sock")}, XClient: true},
	}
}

// Reload writes another configuration of the guard, sends it SIGHUP and waits
// until it has taken it.
func (r *Relay) Reload(ctx context.Context, phase, more string) error {
	return r.Guard.Reload(ctx, phase, more)
}

// Stop ends everything.
func (r *Relay) Stop() error { return errors.Join(r.stopAll(), r.Postfix.Stop()) }
