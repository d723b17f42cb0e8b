package relay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"relayguard/mta/sendmail/sendmailtest"
)

// Local is the service that sendmail(1) hands its mail to beside Sendmail, with
// the guard's listener of that role.
const Local = sendmailtest.LocalService

// SendmailRelay is a running Sendmail with a guard. The guard lives where
// Sendmail does: what it sees as /etc/mail is Sendmail's ConfigDir.
type SendmailRelay struct {
	*sendmailtest.Sendmail
	*Guard
}

// StartSendmail is Start beside Sendmail.
func StartSendmail(ctx context.Context, o Options) (*SendmailRelay, error) {
	if o.Phase == "" {
		o.Phase = "enforce"
	}
	if o.Sendmail.Services == nil {
		o.Sendmail.Services = SendmailServices()
		o.Sendmail.MC = append(OpenSendmail(Submission, Relaying), o.Sendmail.MC...)
	}
	s, err := sendmailtest.Start(ctx, o.Sendmail)
	if err != nil {
		return nil, err
	}
	r := &SendmailRelay{Sendmail: s, Guard: newGuard(o, house{
		dir: s.Dir, milterDir: s.MilterDir(),
		mta:   fmt.Sprintf("kind = \"sendmail\"\nconfig_directory = \"/etc/mail\"\nlog = %q\n", s.LogPath()),
		env:   append(os.Environ(), "PATH="+filepath.Dir(s.Tool("sendmail"))+":"+filepath.Dir(s.Tool("makemap"))+":/usr/sbin:/usr/bin:/sbin:/bin"),
		start: s.StartCommand,
	})}
	if err := r.startAll(ctx, o.Phase, o.Config); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// SendmailServices are those that StartSendmail makes unless it is given others:
// the names are those of the guard's listeners.
func SendmailServices() []sendmailtest.Service {
	return []sendmailtest.Service{
		{Name: Submission, Milters: []string{Submission}, Auth: true, TLS: true},
		{Name: Relaying, Milters: []string{Relaying}, Auth: true, TLS: true},
		{Name: Inbound, Milters: []string{Inbound}},
		{Name: Local, Milters: []string{Local}},
	}
}

// OpenSendmail is lines of sendmail.mc that let everybody relay through some
// services, so that what stops a stranger is the guard.
func OpenSendmail(services ...string) []string {
	lines := []string{"LOCAL_RULESETS", "SLocal_check_rcpt", "R$*\t$: $&{daemon_name}"}
	for _, name := range services {
		lines = append(lines, "R"+name+"\t$#OK")
	}
	return lines
}

// Reload is Relay.Reload.
func (r *SendmailRelay) Reload(ctx context.Context, phase, more string) error {
	return r.Guard.Reload(ctx, phase, more)
}

// Stop ends everything.
func (r *SendmailRelay) Stop() error { return errors.Join(r.stopAll(), r.Sendmail.Stop()) }

// StartSendmailTest is StartTest beside Sendmail.
func StartSendmailTest(t testing.TB, o Options) *SendmailRelay {
	t.Helper()
	sendmailtest.Need(t)
	r, err := StartSendmail(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.endTest(t, r) })
	return r
}
