package sendmail_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayguard/mta/probe"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/policy"
)

// That a service defers is no word about the guard, unless Sendmail itself says that it
// finds no milter: then it is told whose.
func TestTrialTellsWhoDefers(t *testing.T) {
	t.Parallel()
	later := "y451 4.7.1 come later\x00"
	tempfail := "t"
	deferClients := []string{"LOCAL_RULESETS", "SLocal_check_relay", "R$*\t$#error $@ 4.7.1 $: \"451 come later\""}
	for name, c := range map[string]struct {
		cf    []string // rules
		login bool     // only a service that wants AUTH first asks
		tcp   bool     // the guard does not listen at Unix sockets
		other string   // what another milter says to MAIL; "away": it is not there
		guard string
		gone  bool   // the guard is
		want  string // in the error; empty: it is verified
	}{
		"a rule":                      {cf: []string{"LOCAL_RULESETS", "SLocal_check_mail", "R$*\t$#error $@ 4.7.1 $: \"451 look up again\""}},
		"a rule about recipients":     {cf: []string{"LOCAL_RULESETS", "SLocal_check_rcpt", "R$*\t$#error $@ 4.7.1 $: \"451 look up again\""}},
		"the guard":                   {guard: later},
		"another milter":              {other: later},
		"another milter, wordless":    {other: tempfail},
		"another milter, away":        {other: "away", want: "not for the guard, but another milter of it is away: other ("},
		"the guard, away":             {gone: true, want: "does not find the guard"},
		"both away, a rule defers":    {gone: true, other: "away", cf: []string{"LOCAL_RULESETS", "SLocal_check_mail", "R$*\t$#error $@ 4.7.1 $: \"451 look up again\""}, want: "does not find the guard"},
		"the guard away, rule defers": {gone: true, cf: []string{"LOCAL_RULESETS", "SLocal_check_mail", "R$*\t$#error $@ 4.7.1 $: \"451 look up again\""}, want: "does not find the guard"},
		"a rule about clients":        {cf: deferClients, want: "check_relay"},
		"AUTH first, guard away":      {login: true, gone: true, want: "does not find the guard"},
		"AUTH first, another away":    {login: true, other: "away", want: "not for the guard, but another milter of it is away: other ("},
		"TCP, away":                   {tcp: true, want: "does not find the guard"},
		"TCP, away, AUTH first":       {login: true, tcp: true, want: "service submit: it answered 530"},
		"TCP, away, rule of clients":  {cf: deferClients, tcp: true, want: "does not find the guard"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			services := []sendmailtest.Service{{Name: "smtp"}}
			var milters []string
			if c.other != "" {
				milters = []string{"other"}
			}
			services[0].Milters = milters
			if c.login {
				services = append(services, sendmailtest.Service{Name: "submit", Auth: true, Modifiers: "a", Milters: milters})
			}
			p := startAttached(t, sendmailtest.Options{CF: c.cf, Services: services})
			if c.login {
				p.setup.SMTP = 0
			}
			if c.other != "" && c.other != "away" {
				startGuardStub(t, p.MilterSocket("other"), false).says.Store(&c.other)
			}
			if c.guard != "" {
				p.guard[policy.Relay].says.Store(&c.guard)
			}
			if c.gone {
				for n := range p.setup.Listeners {
					p.setup.Listeners[n].Address += ".away"
				}
			}
			if c.tcp { // nobody listens there
				for n := range p.setup.Listeners {
					p.setup.Listeners[n].Network, p.setup.Listeners[n].Address = "tcp", "127.0.0.1:"+strconv.Itoa(unusedPort(t))
				}
			}
			verify := p.setup.VerifyBySMTP(probe.SMTP{})
			p.setup.Verify = func(ctx context.Context, i *sendmail.Instance) error {
				if c.want != "" { // of all that is done this alone is not to succeed
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 4*time.Second)
					defer cancel()
				}
				return verify(ctx, i)
			}
			out, err := p.apply(t.Context(), setupDay)
			switch {
			case c.want == "" && (err != nil || !out.Verified):
				t.Errorf("got %+v, %v", out, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
