package postfix

import (
	"context"
	"fmt"
	"strings"

	"relayguard/mta"
	"relayguard/policy"
)

// local looks at the way of sendmail(1): pickup(8) hands mail to a cleanup(8)
// service, whose non_smtpd_milters count.
func (r *report) local(ctx context.Context) {
	i := r.Instance
	pickup := i.Service("pickup", "unix")
	if pickup == nil {
		return // no local mail at all
	}
	if strings.Contains(r.effective(pickup, "receive_override_options"), "no_milters") {
		r.add(mta.Finding{ID: "no-milters", Severity: mta.Critical, Where: pickup.ID(), What: "receive_override_options has no_milters",
			Why: "mail from sendmail(1), PHP and cron never reaches the guard", Remedy: "remove no_milters from the service"})
	}
	name := r.effective(pickup, "cleanup_service_name")
	cleanup := i.Service(name, "unix")
	if cleanup == nil {
		r.add(mta.Finding{ID: "cleanup-missing", Severity: mta.Warning, Where: pickup.ID(), What: fmt.Sprintf("hands mail to the service %q, which is not in master.cf", name),
			Why: "local mail stays in the maildrop directory", Remedy: fmt.Sprintf("add the service %s, or remove cleanup_service_name from pickup", name)})
		return
	}
	r.milters(cleanup, "non_smtpd_milters", mta.Finding{ID: "local-unguarded", Severity: mta.Critical, Where: cleanup.ID(), What: "",
		Why: "mail from sendmail(1), PHP's mail() and cron goes out without the guard", Remedy: "relayguard setup postfix --apply"})
	for _, l := range i.listenersIn(cleanup, r.effective(cleanup, "non_smtpd_milters"), r.Listeners) {
		r.localRole(cleanup, l)
	}
	if l, ok := byRole(r.Listeners, policy.Local); ok {
		if why := r.uidUnseen(ctx, pickup, cleanup); why != "" {
			r.add(mta.Finding{ID: "uid-unseen", Severity: mta.Warning, Where: cleanup.ID(), What: fmt.Sprintf("Postfix does not tell %s which Unix account sent a local mail: %s", i.endpoint(l), why),
				Why: "all sites of this machine look like one sender", Remedy: "relayguard setup postfix --apply"})
		}
	}
}

// localRole wants the local listener for local mail.
func (r *report) localRole(cleanup *Service, l mta.Listener) {
	f := mta.Finding{ID: "wrong-role", Severity: mta.Critical, Where: cleanup.ID(), What: fmt.Sprintf("non_smtpd_milters names the guard's listener %s of role %s", r.Instance.endpoint(l), l.Role),
		Why: "", Remedy: "attach the listener of role local: relayguard setup postfix --apply"}
	switch l.Role {
	case policy.Local:
		return
	case policy.Submission, policy.Relay:
		f.Why = "it refuses recipients, as local mail never may be: Postfix takes that for a fault of its own and leaves the mail in maildrop"
	default:
		f.Why = "mail from sendmail(1), PHP's mail() and cron goes out without being judged"
	}
	r.add(f)
}

// uidUnseen says why the uid of a local sender does not become visible; empty:
// it does. Postfix's own table lookup is asked with the line that pickup(8) would
// write.
func (r *report) uidUnseen(ctx context.Context, pickup, cleanup *Service) string {
	if name := r.effective(cleanup, "milter_macro_daemon_name"); name != r.LocalMail.DaemonName {
		return fmt.Sprintf("milter_macro_daemon_name is %q, the guard waits for %q", name, r.LocalMail.DaemonName)
	}
	tables, err := ParseTables(r.effective(cleanup, "header_checks"))
	if err != nil {
		return "header_checks: " + err.Error()
	}
	if len(tables) == 0 {
		return "header_checks is empty"
	}
	line := fmt.Sprintf("Received: by %s (%s, from userid 1)", r.effective(pickup, "myhostname"), r.effective(pickup, "mail_name"))
	args := r.Instance.tools.inDir(r.Instance.ConfigDir, "-q", line)
	for _, t := range tables {
		args = append(args, t.String())
	}
	s, err := r.Instance.tools.run(ctx, nil, maxToolOutput, "postmap", args...)
	if err != nil && !nothingFound(err, s) {
		return "header_checks: " + err.Error()
	}
	got := strings.Join(strings.Fields(string(s.stdout)), " ")
	if want := "PREPEND " + r.LocalMail.UIDHeader + ": 1"; !strings.EqualFold(got, want) {
		return fmt.Sprintf("header_checks makes %q of the line %q, want %q", got, line, want)
	}
	return ""
}

// smtpService looks at one service that takes SMTP.
func (r *report) smtpService(ctx context.Context, s *Service) {
	relays, reason := r.mayRelay(ctx, s)
	severity, why := mta.Info, "strangers' mail to inside recipients is not watched; they cannot relay here"
	if relays {
		severity, why = mta.Critical, "whoever may relay here ("+reason+") does so without the guard"
	}
	remedy := "relayguard setup postfix --apply"
	if !isSubmission(s) {
		remedy = "relayguard setup postfix --apply --smtp relay, or --smtp inbound if strangers write to you through it"
	}
	own, overridden := s.Overrides["smtpd_milters"]
	switch {
	case strings.Contains(r.effective(s, "receive_override_options"), "no_milters"):
		r.noMilters(s, "receive_override_options has no_milters", relays, reason)
	case overridden && own == "" && r.onLoopback(s):
		r.noMilters(s, "smtpd_milters is empty in master.cf", relays, reason)
	default:
		r.milters(s, "smtpd_milters", mta.Finding{ID: "service-unguarded", Severity: severity, Where: s.ID(), What: "", Why: why, Remedy: remedy})
		for _, l := range r.Instance.listenersIn(s, r.effective(s, "smtpd_milters"), r.Listeners) {
			r.smtpRole(ctx, s, l, relays, reason)
		}
	}
	r.saslTLS(s)
	r.xclient(ctx, s)
}

// smtpRole wants a listener that judges whoever may relay.
func (r *report) smtpRole(ctx context.Context, s *Service, l mta.Listener, relays bool, reason string) {
	what := fmt.Sprintf("smtpd_milters names the guard's listener %s of role %s", r.Instance.endpoint(l), l.Role)
	switch {
	case l.Role == policy.Inbound && relays && r.knownAlone(ctx, s):
		r.add(mta.Finding{ID: "relay-as-inbound", Severity: mta.Info, Where: s.ID(), What: "attached to a listener of role inbound, and some clients relay: " + reason,
			Why: "the guard knows them here too: logins by AUTH, this machine's accounts by their uid", Remedy: "nothing; a submission service for people is clearer"})
	case l.Role == policy.Inbound && relays:
		r.add(mta.Finding{ID: "relay-as-inbound", Severity: mta.Critical, Where: s.ID(), What: "attached to a listener of role inbound, but it lets clients relay: " + reason,
			Why: "on an inbound listener the guard only tells", Remedy: "let clients relay on a service of their own (submission, or a relay port) and forbid it here, or attach the relay listener"})
	case l.Role == policy.Egress && relays && r.onLoopback(s):
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Warning, Where: s.ID(), What: what,
			Why:    "for mail that a filter or forwarder gives back this is right, it has passed the guard before; but every local account may connect here too and relay (" + reason + ") without being judged",
			Remedy: "let only the filter connect, by a firewall rule on its Unix account or over a Unix socket (master.cf type unix) in a directory of its own"})
	case l.Role == policy.Egress && relays:
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Critical, Where: s.ID(), What: what, Why: "nothing is asked there, neither AUTH nor addresses: whoever may relay here (" + reason + ") does so without being judged",
			Remedy: "attach the listener of role submission or relay"})
	case l.Role == policy.Local:
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Warning, Where: s.ID(), What: what, Why: "it is for sendmail(1); SMTP clients are judged there as on relay, and counted as local mail",
			Remedy: "attach the listener of role submission, relay or inbound"})
	case isSubmission(s) && l.Role == policy.Relay:
		r.add(mta.Finding{ID: "wrong-role", Severity: mta.Warning, Where: s.ID(), What: what, Why: "on a submission service the guard asks AUTH of everybody; here trusted networks pass without",
			Remedy: "relayguard setup postfix --apply"})
	}
}

// noMilters judges a service that switches milters off: usual for what a
// content filter gives back, since that mail has been judged on its way in.
func (r *report) noMilters(s *Service, what string, relays bool, reason string) {
	f := mta.Finding{ID: "no-milters", Severity: mta.Critical, Where: s.ID(), What: what,
		Why: "mail that comes in here never reaches the guard", Remedy: "remove that setting, or let only the content filter reach the service"}
	switch {
	case r.onLoopback(s) && relays:
		f.Severity = mta.Warning
		f.Why = "for mail that a content filter gives back this is right, it has passed the guard before; but every local account may connect here too and relay (" + reason + ")"
		f.Remedy = "let only the filter connect, by a firewall rule on its Unix account or over a Unix socket (master.cf type unix) in a directory of its own"
	case r.onLoopback(s) || !relays:
		f.Severity = mta.Info
		f.Why = "for mail that a content filter gives back this is right: it has passed the guard before"
		f.Remedy = "nothing, while nobody relays here"
	}
	r.add(f)
}

// milters looks whether the guard is in a list, where, and with what settings.
func (r *report) milters(s *Service, setting string, missing mta.Finding) {
	value := r.effective(s, setting)
	place, m, _, err := r.Instance.attached(s, value, r.Listeners)
	switch {
	case err != nil:
		r.add(mta.Finding{ID: "milters-unreadable", Severity: mta.Critical, Where: s.ID(), What: err.Error(), Why: "whether this service asks the guard cannot be told; Postfix itself refuses such a list", Remedy: "correct " + setting})
		return
	case place < 0:
		missing.What = fmt.Sprintf("%s is %q and does not name the guard", setting, value)
		if _, own := s.Overrides[setting]; own {
			missing.What += "; the service has its own setting in master.cf"
		}
		r.add(missing)
		return
	case place > 0:
		r.add(mta.Finding{ID: "guard-not-first", Severity: mta.Warning, Where: s.ID(), What: fmt.Sprintf("the guard is number %d in %s", place+1, setting),
			Why:    "milters before it may change what it judges: the uid of a local sender is trusted only as the very first header; and they work (sign, scan) for mail that is then refused",
			Remedy: "put the guard's socket first"})
	}
	action, from := r.effective(s, "milter_default_action"), "milter_default_action"
	if own, ok := m.Settings["default_action"]; ok {
		action, from = own, "default_action of the guard's entry in "+setting
	}
	if strings.EqualFold(action, "accept") {
		r.add(mta.Finding{ID: "default-accept", Severity: mta.Critical, Where: s.ID(), What: from + " is accept",
			Why: "when the guard is away, restarts or is slow, all mail passes unjudged", Remedy: "set it to tempfail: clients try again"})
	}
	r.ownTimeouts(s, setting, m)
}

// qmqp looks for qmqpd(8), which takes mail from trusted hosts without SMTP.
func (r *report) qmqp() {
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		if s.Command != "qmqpd" {
			continue
		}
		f := mta.Finding{ID: "qmqpd", Severity: mta.Info, Where: s.ID(), What: "qmqpd listens, but qmqpd_authorized_clients is empty: nobody may use it", Why: "nothing now", Remedy: "remove the service"}
		if clients := r.effective(s, "qmqpd_authorized_clients"); clients != "" {
			f = mta.Finding{ID: "qmqpd", Severity: mta.Critical, Where: s.ID(), What: fmt.Sprintf("qmqpd takes mail from %q", clients),
				Why: "QMQP has no AUTH and no refusal by recipient; the guard sees such mail as local and cannot tell who sent it", Remedy: "remove the service; let those machines use SMTP on a relay port"}
		}
		r.add(f)
	}
}

// timeouts compares Postfix's patience with the guard's deadline.
func (r *report) timeouts() {
	if p := r.Instance.Setting("milter_protocol"); p != "" && p < "6" {
		r.add(mta.Finding{ID: "protocol-old", Severity: mta.Warning, Where: "main.cf", What: "milter_protocol is " + p, Why: "the guard is told less of each message", Remedy: "remove the setting: 6 is the default"})
	}
	for _, setting := range []string{"milter_connect_timeout", "milter_command_timeout", "milter_content_timeout"} {
		r.timeout("main.cf", setting, r.Instance.Setting(setting))
	}
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		for _, setting := range []string{"milter_connect_timeout", "milter_command_timeout", "milter_content_timeout"} {
			if _, own := s.Overrides[setting]; own && s.settings != nil {
				r.timeout(s.ID(), setting, s.settings[setting])
			}
		}
	}
}

func (r *report) ownTimeouts(s *Service, setting string, m Milter) {
	for _, name := range []string{"connect_timeout", "command_timeout", "content_timeout"} {
		if value, ok := m.Settings[name]; ok {
			r.timeout(s.ID(), name+" in "+setting, value)
		}
	}
}

func (r *report) timeout(where, setting, value string) {
	if d, ok := parseTime(value); value == "" || ok && d > r.Deadline {
		return
	}
	r.add(mta.Finding{ID: "timeout-short", Severity: mta.Warning, Where: where, What: fmt.Sprintf("%s is %s", setting, value),
		Why:    fmt.Sprintf("the guard may take %s for a decision; Postfix gives up before and uses milter_default_action, for all the rest of the SMTP session", r.Deadline),
		Remedy: "set it to 30s (milter_content_timeout: 300s), Postfix's default"})
}
