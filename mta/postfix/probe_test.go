package postfix

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/policy"
)

// A real Postfix is asked; nothing is ever sent.
func TestProbeAsksARealPostfix(t *testing.T) {
	postfixtest.Need(t)
	const none = "unix:relayguard/none.sock"
	p := postfixtest.StartTest(t, postfixtest.Options{
		Main: map[string]string{"mynetworks": "127.0.0.0/8", "mua": "permit_sasl_authenticated, reject"},
		Services: []postfixtest.Service{
			{Name: "trusting"},
			{Name: "strict", Options: map[string]string{"mynetworks": ""}},
			{Name: "proxied", XClient: true},
			{Name: "open", XClient: true, Options: map[string]string{"mynetworks": "0.0.0.0/0"}},
			{Name: "unguarded", Milters: []string{none}},
			{Name: "encrypted", TLS: true, Options: map[string]string{"smtpd_tls_security_level": "encrypt", "mynetworks": ""}},
			{Name: "submission", Options: map[string]string{"smtpd_recipient_restrictions": "$mua"}},
		},
	})
	for name, want := range map[string]struct {
		code     int
		at       string
		stranger bool
	}{
		"trusting":   {250, "RCPT", false},
		"strict":     {554, "RCPT", false},
		"proxied":    {554, "RCPT", true},
		"open":       {250, "RCPT", true},
		"unguarded":  {451, "MAIL", false},
		"encrypted":  {554, "RCPT", false},
		"submission": {554, "RCPT", false},
	} {
		got, err := SMTPProbe{}.Relays(context.Background(), p.Addr(name), false)
		if err != nil || got.Code != want.code || got.At != want.at || got.Stranger != want.stranger {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	i, err := Load(context.Background(), Tools{}, p.ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range Inspect(context.Background(), Inspection{Instance: i, Probe: SMTPProbe{}}) {
		if strings.HasPrefix(f.ID, "open-relay") {
			found[f.Where] = f.ID
		}
	}
	for name, want := range map[string]string{"trusting": "open-relay-unknown", "strict": "", "proxied": "", "open": "open-relay", "unguarded": "open-relay-unknown", "submission": ""} {
		if got := found[p.Addr(name)+"/inet"]; got != want {
			t.Errorf("%s: found %q, want %q", name, got, want)
		}
	}
	unguarded := i.Service(p.Addr("unguarded"), "inet")
	if err := verifyService(context.Background(), i, unguarded, mta.Listener{Role: policy.Relay, Network: "inet", Address: "127.0.0.1:9"}, SMTPProbe{}); err == nil || !strings.Contains(err.Error(), "does not find the guard") {
		t.Errorf("a service without its guard passed: %v", err)
	}
}

// The guard is not there: Postfix answers 451, so the settings are put back
// and the running Postfix has them again.
func TestApplyToARunningPostfixWithoutGuardRollsBack(t *testing.T) {
	postfixtest.Need(t)
	t.Parallel()
	p := postfixtest.StartTest(t, postfixtest.Options{Services: []postfixtest.Service{{Name: "in", Milters: []string{"{inet:127.0.0.1:9,default_action=accept}"}}}})
	before := instance{dir: p.ConfigDir}.files(t)
	i, err := Load(context.Background(), Tools{}, p.ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	setup := Setup{ConfigDir: p.ConfigDir, SMTP: policy.Relay, Backups: t.TempDir(), Listeners: []mta.Listener{{Role: policy.Relay, Network: "unix", Address: filepath.Join(i.QueueDir, "relayguard", "none.sock")}}}
	verify := setup.VerifyBySMTP(SMTPProbe{})
	setup.Verify = func(ctx context.Context, i *Instance) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		return verify(ctx, i)
	}
	if _, err := setup.Apply(context.Background(), day); err == nil || !strings.Contains(err.Error(), "does not find the guard") || !strings.Contains(err.Error(), "old settings are back") {
		t.Fatalf("got %v", err)
	}
	sameFiles(t, instance{dir: p.ConfigDir}.files(t), before)
	eventually(t, "old settings in force", func() bool {
		answer, err := SMTPProbe{}.Relays(context.Background(), p.Addr("in"), false)
		return err == nil && answer.Code != 451
	})
}

// probeOn is the local probe of a Postfix with these milters for local mail.
func probeOn(t *testing.T, milters ...string) (*postfixtest.Postfix, *localProbe) {
	t.Helper()
	postfixtest.Need(t)
	p := postfixtest.StartTest(t, postfixtest.Options{Local: postfixtest.Local{Milters: milters, ShowUID: true, DaemonName: localMail.DaemonName}})
	i, err := Load(t.Context(), Tools{}, p.ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	setup := Setup{ConfigDir: p.ConfigDir, LocalMail: localMail, Listeners: []mta.Listener{{Role: policy.Local, Network: "unix", Address: filepath.Join(p.MilterDir(), "local.sock")}}}
	probe, err := setup.newLocalProbe(i)
	if err != nil || probe == nil {
		t.Fatalf("no probe: %v", err)
	}
	probe.table = filepath.Join(p.ConfigDir, "local_header_checks")
	return p, probe
}

func wantNoTrace(t *testing.T, p *postfixtest.Postfix) {
	t.Helper()
	queue, err := p.QueueList(t.Context())
	if err != nil || len(queue) > 0 {
		t.Errorf("left in the queue: %+v, %v", queue, err)
	}
	if mail := p.Sink.All(); len(mail) > 0 {
		t.Errorf("delivered: %q", mail)
	}
}

func TestLocalProbeFindsThatTheGuardIsNotAsked(t *testing.T) {
	t.Parallel()
	p, probe := probeOn(t)
	before := instance{dir: p.ConfigDir}.files(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := probe.during(func() error { return probe.send(ctx) }); err == nil || !strings.Contains(err.Error(), "was not shown to the guard") {
		t.Errorf("got %v", err)
	}
	wantNoTrace(t, p)
	sameFiles(t, instance{dir: p.ConfigDir}.files(t), before)
}

func TestLocalProbeFindsThatTheGuardIsAway(t *testing.T) {
	t.Parallel()
	p, probe := probeOn(t, postfixtest.MilterName("local.sock"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := probe.during(func() error { return probe.send(ctx) }); err == nil || !strings.Contains(err.Error(), "does not find the guard for local mail") {
		t.Errorf("got %v", err)
	}
	wantNoTrace(t, p)
}
